"""Packing: from a server's objects to shards that everybody reads."""

import io
import itertools
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import pack_transforms
from tests.conformance.pack_world import COUNT, DEST, SMALL, SOURCE, expected, filled, shards, streamed, text, writes

from s3dataset import Manifest, S3ClientConfig, S3MapDataset, pack
from s3dataset.errors import ChecksumMismatchError, DecodeError, ManifestMismatchError, ObjectChangedError, S3Exception
from s3dataset.formats import Sample, Tar
from s3dataset.testing import Fault, LocalS3
from s3dataset.transforms import LabelFromKey


@pytest.fixture
def server() -> Iterator[LocalS3]:
    yield from filled()


class TestWhatIsMade:
    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("compression", [None, "zst", "gz"])
    @pytest.mark.parametrize("format_name", ["tar", "tfrecord"])
    def test_round_trip(self, server: LocalS3, format_name: str, compression: Any, workers: int) -> None:
        manifest = pack(SOURCE, DEST, format=format_name, compression=compression, shard_size=SMALL, workers=workers)
        assert len(manifest) > 1
        assert manifest.num_samples == COUNT
        assert streamed(format_name) == expected()
        at_random = S3MapDataset.from_prefix(DEST, format=format_name)
        assert at_random[37]["txt"] == text(37)
        listed = Manifest.from_prefix(DEST)
        assert listed.index(format_name) == manifest == Manifest.load(Manifest.index_location(DEST, format_name))
        left = [key for key in server.keys("dest") if ".s3dataset/" in key]
        assert left == ["packed/.s3dataset/pack.json", f"packed/.s3dataset/{format_name}-index.manifest"]

    def test_parquet(self, server: LocalS3) -> None:
        manifest = pack(SOURCE, DEST, format="parquet", shard_size=SMALL, label="folder", workers=0)
        assert manifest.num_samples == 2 * COUNT
        first = streamed("parquet")[:2]
        assert [(row["__key__"], row["data"], row["label"]) for row in first] == [
            ("cat/000.JSON", b'{"n": 0}', "cat"),
            ("cat/000.txt", text(0), "cat"),
        ]

    def test_jsonl_and_text(self, server: LocalS3) -> None:
        pack(SOURCE, DEST, format="jsonl", pattern="*.JSON", workers=0)
        assert streamed("jsonl") == [
            {"__key__": f"{sample['__key__']}.JSON", "n": number} for number, sample in enumerate(expected())
        ]
        pack(SOURCE, "s3://dest/text/", format="text", pattern="*.txt", workers=0)
        assert [row["text"].encode() for row in streamed("text", "s3://dest/text/")] == [
            text(number) for number in range(COUNT)
        ]

    def test_csv(self, server: LocalS3) -> None:
        pack(SOURCE, DEST, format="csv", pattern="*.txt", label="folder", workers=0)
        assert streamed("csv")[0] == {"__key__": "cat/000.txt", "label": "cat", "text": text(0).decode()}

    def test_the_same_each_time(self, server: LocalS3) -> None:
        one = pack(SOURCE, DEST, shard_size=SMALL, workers=0)
        other = pack(SOURCE, "s3://dest/other/", shard_size=SMALL, workers=2)
        for row in range(len(one)):
            assert server.get("dest", one.key(row)) == server.get("dest", other.key(row))
        assert [key.rpartition("/")[2] for key in shards(server)][:2] == ["shard-000000.tar", "shard-000001.tar"]

    def test_tarfile_and_webdataset_read_it(self, server: LocalS3) -> None:
        pack(SOURCE, DEST, shard_size=SMALL, label="folder", workers=0)
        members: dict[str, bytes] = {}
        wds = pytest.importorskip("webdataset.tariterators")
        texts: list[bytes] = []
        for key in shards(server):
            data = server.get("dest", key)
            files = wds.tar_file_iterator(io.BytesIO(data))
            texts += [sample["txt"] for sample in wds.group_by_keys({**file, "__url__": key} for file in files)]
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                for member in archive:
                    file = archive.extractfile(member)
                    assert file is not None
                    members[member.name] = file.read()
        assert len(members) == 3 * COUNT
        assert members["dog/059.txt"] == text(59)
        assert members["dog/059.cls"] == b"dog"
        assert texts == [text(number) for number in range(COUNT)]

    def test_large_objects(self, server: LocalS3) -> None:
        large = os.urandom(1 << 20) * 20
        server.put("source", "data/cat/large.bin", large)
        manifest = pack(SOURCE, DEST, shard_size=SMALL, workers=2)
        assert manifest.num_samples == COUNT + 1
        assert next(sample for sample in streamed() if "bin" in sample)["bin"] == large
        assert server.uploads("dest") == []

    def test_storage_class(self, server: LocalS3) -> None:
        pack(SOURCE, DEST, storage_class="STANDARD_IA", workers=0)
        client = server.boto3_client()
        assert client.head_object(Bucket="dest", Key=shards(server)[0])["StorageClass"] == "STANDARD_IA"

    def test_nothing(self, server: LocalS3) -> None:
        with pytest.warns(UserWarning, match="There is no object"):
            manifest = pack("s3://source/none/", DEST)
        assert (len(manifest), manifest.num_samples, shards(server)) == (0, 0, [])

    def test_of_uris(self, server: LocalS3) -> None:
        uris = [f"s3://source/data/cat/{number:03d}.txt" for number in (3, 1, 2)]
        manifest = pack(Manifest.from_objects(uris), DEST, workers=0)
        assert [sample["__key__"] for sample in streamed()] == ["data/cat/003", "data/cat/001", "data/cat/002"]
        assert pack(Manifest.from_objects(uris), DEST, workers=0) == manifest

    def test_left_out(self, server: LocalS3) -> None:
        server.put("source", "data/cat/.hidden", b"x")
        server.put("source", "data/cat/", b"")
        with pytest.warns(UserWarning, match=r"1 object was left out, as s3://source/data/cat/\.hidden"):
            assert pack(SOURCE, DEST, workers=0).num_samples == COUNT

    def test_an_iterable(self, server: LocalS3) -> None:
        samples = ({"__key__": f"{number:04d}", "txt": text(number)} for number in range(COUNT))
        manifest = pack((Sample(sample) for sample in samples), DEST, shard_size=SMALL)
        assert len(manifest) > 2
        assert [sample["txt"] for sample in streamed()] == [text(number) for number in range(COUNT)]
        with pytest.raises(ManifestMismatchError, match="finished with other options or another source"):
            pack([Sample(txt=b"x")], DEST)
        assert pack([Sample(txt=b"x")], DEST, overwrite=True).num_samples == 1
        assert len(shards(server)) == 1

    @pytest.mark.parametrize("workers", [0, 2])
    def test_shards_anew(self, server: LocalS3, workers: int) -> None:
        pack(SOURCE, "s3://source/first/", shard_size=SMALL, compression="gz", workers=0)
        manifest = pack(
            "s3://source/first/", DEST, source_format="tar", compression="zst", shard_size=9_000, workers=workers
        )
        assert streamed() == expected()
        assert manifest.num_samples == COUNT
        assert shards(server)[0] == "packed/shard-000000-000.tar.zst"
        server.reset_stats()
        before = len(server.requests())
        assert pack("s3://source/first/", DEST, source_format="tar", compression="zst", shard_size=9_000) == manifest
        assert {record.operation for record in server.requests()[before:]} <= {"ListObjectsV2", "GetObject"}


class TestLabels:
    def test_from_keys(self, server: LocalS3) -> None:
        pack(SOURCE, DEST, label=LabelFromKey(classes=["cat", "dog"]), workers=0)
        assert [sample["cls"] for sample in streamed()] == [b"0"] * 20 + [b"1"] * 40

    @pytest.mark.parametrize("spelled", ["data/{}.txt", "{}.txt", "{}", "s3://source/data/{}.txt"])
    def test_from_a_table(self, server: LocalS3, tmp_path: Path, spelled: str) -> None:
        names = [str(sample["__key__"]) for sample in expected()]
        rows = "".join(f"{spelled.format(name)},{number}\n" for number, name in enumerate(names))
        table = tmp_path / "labels.csv"
        table.write_text(f"key,label\n{rows}")
        pack(SOURCE, DEST, format="tfrecord", label=str(table), pattern="*.txt", workers=2, shard_size=SMALL)
        assert [int(sample["label"]) for sample in streamed("tfrecord")] == list(range(COUNT))

    def test_from_a_table_in_s3_that_misses_one(self, server: LocalS3) -> None:
        server.put("source", "labels.csv", b"key,label\ncat/000,a\n")
        with pytest.raises(DecodeError, match=r"s3://source/labels\.csv has no label for s3://source/data/cat/001"):
            pack(SOURCE, DEST, label="s3://source/labels.csv")

    def test_other_labels_are_another_pack(self, server: LocalS3) -> None:
        pack(SOURCE, DEST, workers=0)
        with pytest.raises(ManifestMismatchError, match="label: None, and now LabelFromKey"):
            pack(SOURCE, DEST, label="folder", workers=0)

    def test_what_is_no_table(self, server: LocalS3) -> None:
        with pytest.raises(ValueError, match=r'neither "folder" nor a CSV file'):
            pack(SOURCE, DEST, label="folders")
        server.put("source", "labels.csv", b"a,b\n1,2\n")
        with pytest.raises(DecodeError, match='"key" and "label"'):
            pack(SOURCE, DEST, label="s3://source/labels.csv")


class TestTransforms:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_one_none_and_several(self, server: LocalS3, workers: int) -> None:
        options: dict[str, Any] = {"shard_size": SMALL, "workers": workers}
        pack(SOURCE, DEST, transform=pack_transforms.shout, **options)
        assert [sample["txt"] for sample in streamed()] == [text(number).upper() for number in range(COUNT)]
        pack(SOURCE, DEST, transform=pack_transforms.drop_odd, overwrite=True, **options)
        assert len(streamed()) == COUNT // 2
        pack(SOURCE, DEST, transform=pack_transforms.both, overwrite=True, **options)
        assert [sample["__key__"] for sample in streamed()][:3] == ["cat/000-a", "cat/000-b", "cat/001-a"]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_failure_names_the_object(self, server: LocalS3, workers: int) -> None:
        with pytest.raises(S3Exception, match=r"'cat/0.7' of s3://source/data/cat/0.7.*KeyError: 'no seven'") as caught:
            pack(SOURCE, DEST, transform=pack_transforms.fail_at_seven, shard_size=SMALL, workers=workers)
        assert any("shards are finished in s3://dest/packed/" in note for note in caught.value.__notes__)

    def test_shards_without_samples_are_not_there(self, server: LocalS3) -> None:
        manifest = pack(SOURCE, DEST, transform=lambda sample: None, shard_size=SMALL)
        assert (len(manifest), shards(server)) == (0, [])

    def test_a_worker_that_is_killed(self, server: LocalS3) -> None:
        with pytest.raises(S3Exception, match="ended by signal 9"):
            pack(SOURCE, DEST, transform=pack_transforms.kill, shard_size=SMALL, workers=2)

    def test_a_worker_that_is_asked_to_end_does_so_quietly(
        self, server: LocalS3, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(S3Exception, match="ended with status 0"):
            pack(SOURCE, DEST, transform=pack_transforms.end, shard_size=SMALL, workers=2)
        assert "Fatal Python error" not in capfd.readouterr().err

    def test_what_cannot_be_written_names_the_sample(self, server: LocalS3) -> None:
        with pytest.raises(DecodeError, match=r"'cat/000' of s3://source/data/cat/000.JSON cannot be written"):
            pack(SOURCE, DEST, transform=lambda sample: {"value": object()}, workers=0)
        assert shards(server) == []


class TestGoingOn:
    def test_a_second_run_makes_nothing(self, server: LocalS3) -> None:
        first = pack(SOURCE, DEST, shard_size=SMALL)
        before = len(server.requests())
        assert pack(SOURCE, DEST, shard_size=SMALL) == first
        later = server.requests()[before:]
        assert {record.operation for record in later} <= {"ListObjectsV2", "GetObject"}
        assert not any(record.key.startswith("data/") for record in later if record.operation == "GetObject")

    def test_a_shard_that_is_gone_is_made_again(self, server: LocalS3) -> None:
        first = pack(SOURCE, DEST, shard_size=SMALL)
        server.delete("dest", "packed/shard-000001.tar")
        before = len(writes(server))
        assert pack(SOURCE, DEST, shard_size=SMALL) == first
        assert writes(server)[before:] == ["packed/shard-000001.tar"]

    def test_after_a_failure(self, server: LocalS3) -> None:
        (fault,) = server.add_fault(Fault.status(403, code="AccessDenied", key="data/dog/040.txt"))
        with pytest.raises(S3Exception):
            pack(SOURCE, DEST, shard_size=SMALL, workers=0)
        made = writes(server)
        assert made
        server.clear_faults(fault)
        pack(SOURCE, DEST, shard_size=SMALL, workers=0)
        assert len(writes(server)) == len(set(writes(server))) == len(shards(server))
        assert streamed() == expected()

    def test_killed_midway(self, server: LocalS3) -> None:
        program = (
            "from s3dataset import pack; from tests.pack_transforms import slowly; "
            f"pack({SOURCE!r}, {DEST!r}, transform=slowly, shard_size={SMALL}, workers=2)"
        )
        root = Path(__file__).resolve().parents[2]
        process = subprocess.Popen([sys.executable, "-c", program], cwd=root)
        deadline = time.monotonic() + 60
        while len(server.keys("dest", "packed/.s3dataset/pack/")) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
        process.wait()
        time.sleep(3)  # the workers notice
        finished = len(server.keys("dest", "packed/.s3dataset/pack/"))
        before = writes(server)
        assert finished >= 2
        manifest = pack(SOURCE, DEST, transform=pack_transforms.slowly, shard_size=SMALL, workers=2)
        assert len(writes(server)) - len(before) == len(manifest) - finished
        assert streamed() == expected()
        assert server.uploads("dest") == []

    def test_ctrl_c_leaves_what_is_finished(self, server: LocalS3) -> None:
        root = Path(__file__).resolve().parents[2]
        command = [sys.executable, "-m", "s3dataset", "pack", SOURCE, DEST, "--shard-size", "20KB"]
        command += ["--transform", "tests.pack_transforms:slowly", "--workers", "2"]
        process = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)
        while not server.keys("dest", "packed/.s3dataset/pack/") and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "shards are finished in s3://dest/packed/: the same call goes on" in err
        assert server.uploads("dest") == []
        assert subprocess.run(command, cwd=root, capture_output=True).returncode == 0
        assert streamed() == expected()

    def test_a_changed_source_is_refused(self, server: LocalS3) -> None:
        pack(SOURCE, DEST, shard_size=SMALL)
        server.put("source", "data/dog/059.txt", b"new")
        with pytest.raises(ManifestMismatchError, match=r"finished with other options or another source .source: "):
            pack(SOURCE, DEST, shard_size=SMALL)
        pack(SOURCE, DEST, shard_size=SMALL, overwrite=True)
        assert streamed()[-1]["txt"] == b"new"

    def test_other_options_are_refused_and_overwrite_leaves_nothing_behind(self, server: LocalS3) -> None:
        pack(SOURCE, DEST, shard_size=SMALL)
        with pytest.raises(ManifestMismatchError, match="shard_size: 20000, and now 1000000"):
            pack(SOURCE, DEST, shard_size=1_000_000)
        pack(SOURCE, DEST, shard_size=1_000_000, overwrite=True)
        assert shards(server) == ["packed/shard-000000.tar"]
        assert streamed() == expected()

    def test_a_destination_of_somebody_else(self, server: LocalS3) -> None:
        server.put("dest", "packed/README", b"mine")
        with pytest.raises(ManifestMismatchError, match="holds 1 object already, as s3://dest/packed/README"):
            pack(SOURCE, DEST)
        pack(SOURCE, DEST, overwrite=True)
        assert server.get("dest", "packed/README") == b"mine"

    def test_an_object_that_changes_meanwhile(self, server: LocalS3) -> None:
        manifest = Manifest.from_prefix(SOURCE)
        server.put("source", "data/cat/003.txt", b"other")
        with pytest.raises(ObjectChangedError, match=r"data/cat/003\.txt"):
            pack(manifest, DEST, workers=0)


class TestVerify:
    def test_a_shard_that_is_not_what_was_written(self, server: LocalS3) -> None:
        server.add_fault(Fault.replace(key="packed/shard-000001.tar", operation="GetObject", before=True))
        with pytest.raises(S3Exception, match=r"s3://dest/packed/shard-000001\.tar"):
            pack(SOURCE, DEST, shard_size=SMALL, workers=0, verify="read")

    def test_the_checksum_that_the_service_keeps_will_do(self, server: LocalS3) -> None:
        pack(SOURCE, DEST, shard_size=SMALL, workers=0)
        assert not any("shard-" in record.key for record in server.requests("GetObject"))
        asked = [record.key for record in server.requests("HeadObject") if "shard-" in record.key]
        assert sorted(asked) == shards(server)

    def test_where_it_keeps_none_shards_are_read(self, server: LocalS3) -> None:
        server.configure(variant={"ignore_checksums": True})
        pack(SOURCE, DEST, shard_size=SMALL, workers=0)
        assert {record.key for record in server.requests("GetObject") if "shard-" in record.key} == set(shards(server))

    def test_and_where_one_asks_for_it(self, server: LocalS3) -> None:
        pack(SOURCE, DEST, shard_size=SMALL, workers=0, verify="read")
        assert {record.key for record in server.requests("GetObject") if "shard-" in record.key} == set(shards(server))

    def test_a_shard_that_is_replaced_meanwhile(self, server: LocalS3) -> None:
        server.add_fault(Fault.replace(key="packed/shard-000001.tar", operation="HeadObject", before=True))
        with pytest.raises(S3Exception, match=r"s3://dest/packed/shard-000001\.tar"):
            pack(SOURCE, DEST, shard_size=SMALL, workers=0)

    def test_can_be_left_out(self, server: LocalS3) -> None:
        pack(SOURCE, DEST, verify=False, workers=0)
        reads = [record.key for record in server.requests("GetObject")]
        assert not any("shard-" in key for key in reads)

    def test_bytes_and_places(self, server: LocalS3) -> None:
        from s3dataset._client import get_client
        from s3dataset._manifest import WrittenShard
        from s3dataset._pack._verify import Running, verify_shard

        manifest = pack(SOURCE, DEST, workers=0)
        index, running = manifest.shard(0), Running()
        running.update(server.get("dest", manifest.key(0)))
        shard = WrittenShard("dest", manifest.key(0), manifest.size(0) or 0, manifest.etag(0) or "", index)
        for read in (False, True):
            verify_shard(get_client(), shard, Tar(), running.value, read=read)
            with pytest.raises(ChecksumMismatchError, match="other bytes than were written"):
                verify_shard(get_client(), shard, Tar(), Running().value, read=read)


class TestSettings:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_keys_given_in_code_reach_the_workers(self, workers: int) -> None:
        with LocalS3("source", "dest", activate=False) as server:
            for number in range(COUNT):
                server.put("source", f"data/{number:03d}.txt", text(number))
            config = S3ClientConfig(credentials=(server.access_key, server.secret_key))
            options: dict[str, Any] = {"endpoint": server.endpoint, "region": "us-east-1", "s3client_config": config}
            manifest = pack(SOURCE, DEST, shard_size=SMALL, workers=workers, **options)
            assert manifest.num_samples == COUNT
            # A manifest brings its own settings along.
            source = Manifest.from_prefix(SOURCE, **options)
            assert pack(source, DEST, shard_size=SMALL, workers=workers) == manifest

    def test_what_is_larger_than_the_memory_is_streamed(self, server: LocalS3) -> None:
        large = os.urandom(1 << 20) * 40
        server.put("source", "data/cat/large.bin", large)
        server.put("source", "data/cat/large.txt", b"beside it")
        config = S3ClientConfig(memory_limit_bytes=16 << 20)
        manifest = pack(SOURCE, DEST, workers=0, s3client_config=config)
        assert next(sample for sample in streamed() if "bin" in sample)["bin"] == large
        sizes = [record.bytes_out for record in server.requests("GetObject") if record.key == "data/cat/large.bin"]
        assert sum(sizes) == len(large)
        assert max(sizes) < 8 << 20
        indexed = S3MapDataset.from_manifest(manifest)
        assert [sample["txt"] for sample in indexed if "bin" in sample] == [b"beside it"]

    def test_or_refused_before_anything_is_written(self, server: LocalS3) -> None:
        server.put("source", "data/cat/large.bin", bytes(40 << 20))
        config = S3ClientConfig(memory_limit_bytes=16 << 20)
        options: list[dict[str, Any]] = [
            {"format": "parquet"},
            {"compression": "zst"},
            {"transform": pack_transforms.slowly},
        ]
        for option in options:
            with pytest.raises(DecodeError, match=r"cat/large.bin has 41,943,040 bytes, and would be held whole"):
                pack(SOURCE, DEST, s3client_config=config, **option)
        with pytest.raises(DecodeError, match=r"tar is read with samples of 1,000,000 bytes at most: give format= a"):
            pack(SOURCE, DEST, format=Tar(max_sample_bytes=1_000_000))
        assert server.keys("dest") == []

    def test_a_destination_within_the_source(self, server: LocalS3) -> None:
        with pytest.raises(ValueError, match="lies below s3://source/data/"):
            pack(SOURCE, SOURCE + "packed/")

    @pytest.mark.parametrize(
        "options",
        [
            {"format": "rat"},
            {"format": "parquet", "compression": "zst"},
            {"shard_size": 0},
            {"label": "folder", "source_format": "tar"},
        ],
    )
    def test_what_cannot_be_is_refused_before_anything_is_sent(self, server: LocalS3, options: Any) -> None:
        before = len(server.requests())
        with pytest.raises(ValueError):
            pack(SOURCE, DEST, **options)
        assert len(server.requests()) == before


class TestFaults:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_weather(self, server: LocalS3, workers: int) -> None:
        server.add_fault(
            Fault.status(503, code="SlowDown", times=3),
            Fault.reset(times=5),
            Fault.truncate(at=100, operation="GetObject", times=5),
        )
        pack(SOURCE, DEST, shard_size=SMALL, workers=workers)
        assert streamed() == expected()


def test_ray(server: LocalS3) -> None:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        pack(SOURCE, DEST, shard_size=SMALL, transform=pack_transforms.shout, ray=True)
    finally:
        ray.shutdown()
    assert [sample["txt"] for sample in streamed()] == [text(number).upper() for number in range(COUNT)]


def test_progress_ends_at_all(server: LocalS3) -> None:
    told: list[tuple[int, int]] = []
    pack(SOURCE, DEST, shard_size=SMALL, progress=lambda done, total: told.append((done, total)))
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1] == Manifest.from_prefix(SOURCE).num_bytes
    assert all(one[0] <= other[0] for one, other in itertools.pairwise(told))


@pytest.mark.usefixtures("server")
def test_options_that_differ_are_named_by_their_arguments() -> None:
    pack(SOURCE, DEST, label="folder")
    with pytest.raises(ManifestMismatchError) as raised:
        pack(SOURCE, DEST, label="folder", format=Tar(max_sample_bytes=1 << 20))
    assert "(format: Tar(max_sample_bytes=2147483648), and now max_sample_bytes=1048576)" in str(raised.value)
    with pytest.raises(ManifestMismatchError, match=r"\(format: Tar, and now JSONL\)"):
        pack(SOURCE, DEST, label="folder", format="jsonl")
    with pytest.raises(ManifestMismatchError, match=r"\(label: LabelFromKey, and now None\)"):
        pack(SOURCE, DEST)
