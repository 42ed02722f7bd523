"""Indexes of a server's shards: scanning, reusing, what changed, where they lie."""

import gzip
import io
import random
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from s3dataset import formats
from s3dataset._client import get_client
from s3dataset._manifest import IndexProgress, Manifest, check_index, find_index, index_location, update_index
from s3dataset.errors import DecodeError, ObjectChangedError, ObjectNotFoundError, UnindexableError
from s3dataset.formats import JSONL, ShardIndex, Text, format_of_key, named_format
from s3dataset.testing import Fault, LocalS3

COUNT = 40
ZIPPED = gzip.compress(b"a line\n")
PREFIX = "s3://bucket/data/"


def content(number: int, lines: int = 50) -> bytes:
    chosen = random.Random(number)
    return b"".join(b"x" * chosen.randrange(200) + b"\n" for _ in range(lines + number))


@pytest.fixture
def server() -> Iterator[LocalS3]:
    with LocalS3("bucket") as server:
        for number in range(COUNT):
            server.put("bucket", f"data/shard-{number:03d}.txt", content(number))
        yield server


def assert_right(manifest: Manifest) -> None:
    client = get_client()
    assert isinstance(manifest.format, Text)
    places = iter(manifest.places(range(manifest.num_samples)))
    for row, entry in enumerate(manifest.objects):
        data = bytes(client.fetch(entry.bucket, entry.key, size=entry.size, etag=entry.etag))
        assert entry.size == len(data)
        for number, line in enumerate(data.splitlines(keepends=True)):
            place = next(places)
            assert (place.shard, place.number) == (row, number)
            assert data[place.start : place.stop] == line
    assert next(places, None) is None


class TestManifestIndex:
    def test_finds_the_samples_of_all_shards(self, server: LocalS3) -> None:
        listed = Manifest.from_prefix(PREFIX)
        server.reset_stats()
        told: list[IndexProgress] = []
        indexed = listed.index(Text(), progress=told.append)
        assert server.stats()["requests"] == COUNT  # a small shard is one request
        assert_right(indexed)
        assert indexed.objects_fingerprint == listed.fingerprint
        assert told[0][:4] == (0, 0, COUNT, 0)
        assert told[-1] == (COUNT, 0, COUNT, indexed.num_samples, listed.num_bytes, listed.num_bytes)
        assert indexed == listed.index("text")

    def test_of_uris_sizes_and_etags_are_filled_in(self, server: LocalS3) -> None:
        listed = Manifest.from_prefix(PREFIX)
        given = Manifest.from_objects(entry.uri for entry in listed.objects)
        server.reset_stats()
        indexed = given.index(Text())
        assert server.stats()["requests"] == COUNT
        assert indexed == listed.index(Text())
        assert indexed.verify() == []

    def test_large_shards(self, server: LocalS3) -> None:
        server.put("bucket", "large/1.txt", content(1, 100_000) * 3)
        server.put("bucket", "large/2.txt", b"")
        indexed = Manifest.from_prefix("s3://bucket/large/").index(Text())
        assert (indexed.num_samples, list(indexed.shard_ends)) == (300_003, [300_003, 300_003])
        assert indexed.places([300_002])[0].stop == indexed.size(0)

    def test_large_members_are_skipped_and_small_ones_fetched_once(self, server: LocalS3) -> None:
        for folder, nbytes, count in (("small", 100 << 10, 400), ("large", 16 << 20, 6)):
            archive = io.BytesIO()
            with tarfile.open(fileobj=archive, mode="w") as tar:
                for number in range(count):
                    member = tarfile.TarInfo(f"{number:04d}.bin")
                    member.size = nbytes
                    tar.addfile(member, io.BytesIO(bytes(nbytes)))
            server.put("bucket", f"{folder}/1.tar", archive.getvalue())
            listed = Manifest.from_prefix(f"s3://bucket/{folder}/")
            server.set_traffic(latency_s=0.02)
            server.reset_stats()
            indexed = listed.index("tar")
            assert indexed.num_samples == count
            stats = server.stats()
            if folder == "small":
                assert stats["bytes_out"] < 1.02 * listed.num_bytes
                assert stats["max_in_flight"] > 4
            else:
                assert stats["bytes_out"] < 0.03 * listed.num_bytes
                assert stats["requests"] <= count + 4

    def test_only_what_changed_is_scanned(self, server: LocalS3, tmp_path: Path) -> None:
        before = Manifest.from_prefix(PREFIX).index(Text())
        server.put("bucket", "data/shard-003.txt", content(1003))
        server.put("bucket", "data/shard-900.txt", content(900))
        now = Manifest.from_prefix(PREFIX)
        before.save(tmp_path / "m")
        before.save("s3://bucket/elsewhere")
        for reuse in (before, str(tmp_path / "m"), tmp_path / "m", "s3://bucket/elsewhere"):
            server.reset_stats()
            indexed = now.index(Text(), reuse=reuse)
            assert server.stats()["requests"] == 2 + (reuse == "s3://bucket/elsewhere")
            assert_right(indexed)
            assert indexed == now.index(Text())
        server.reset_stats()
        assert indexed.index(Text()) == indexed
        assert server.stats()["requests"] == 0
        assert now.index(JSONL(), reuse=before).format == JSONL()
        assert server.stats()["requests"] == COUNT + 1

    def test_uris_are_asked_for_where_an_index_may_know_them(self, server: LocalS3) -> None:
        before = Manifest.from_prefix(PREFIX).index(Text())
        server.put("bucket", "data/shard-003.txt", content(1003))
        given = Manifest.from_objects(f"s3://bucket/data/shard-{number:03d}.txt" for number in range(10))
        server.reset_stats()
        indexed = given.index(Text(), reuse=before)
        assert server.stats()["requests"] == 11
        assert_right(indexed)

    def test_an_object_that_was_replaced(self, server: LocalS3) -> None:
        listed = Manifest.from_prefix(PREFIX)
        server.put("bucket", "data/shard-007.txt", content(1007))
        with pytest.raises(ObjectChangedError, match=r"s3://bucket/data/shard-007.txt .*List again"):
            listed.index(Text())

    def test_an_object_that_is_gone(self, server: LocalS3) -> None:
        listed = Manifest.from_prefix(PREFIX)
        get_client().delete_object("bucket", "data/shard-007.txt")
        with pytest.raises(ObjectNotFoundError, match=r"s3://bucket/data/shard-007.txt"):
            listed.index(Text())

    def test_shards_that_cannot_be_indexed(self, server: LocalS3) -> None:
        server.put("bucket", "data/zipped.txt.gz", ZIPPED)
        with pytest.raises(
            UnindexableError,
            match=r"s3://bucket/data/zipped.txt.gz: .*s3dataset pack s3://bucket/data/ .* text",
        ):
            Manifest.from_prefix(PREFIX).index(Text())
        server.put("bucket", "data/zipped.txt.gz", b"\xff\xfea\x00")
        with pytest.raises(DecodeError, match=r"s3://bucket/data/zipped.txt.gz.*UTF-16"):
            Manifest.from_prefix(PREFIX).index(Text())

    def test_failures_on_the_way(self, server: LocalS3) -> None:
        listed = Manifest.from_prefix(PREFIX)
        server.add_fault(Fault.status(503, times=5))
        assert_right(listed.index(Text()))

    def test_a_format_that_is_wrong_inside(self, server: LocalS3) -> None:
        class Broken(Text):
            def scan(self, stream: BinaryIO, *, url: str = "", size: int | None = None) -> ShardIndex:
                raise ZeroDivisionError(url)

        with pytest.raises(ZeroDivisionError, match="s3://bucket/data/"):
            Manifest.from_prefix(PREFIX).index(Broken())
        assert not any(thread.name.startswith("s3dataset-scan") for thread in threading.enumerate())

    def test_progress_may_stop_it(self, server: LocalS3) -> None:
        def stop(progress: IndexProgress) -> None:
            if progress.shards > 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Manifest.from_prefix(PREFIX).index(Text(), progress=stop)
        assert not any(thread.name.startswith("s3dataset-scan") for thread in threading.enumerate())

    def test_verify_tells_what_changed_since(self, server: LocalS3) -> None:
        indexed = Manifest.from_prefix(PREFIX).index(Text())
        assert indexed.verify() == []
        server.put("bucket", "data/shard-001.txt", b"x\n")
        server.put("bucket", "data/.s3dataset/any", b"x\n")
        assert [(change.kind, change.uri[-13:]) for change in indexed.verify()] == [("changed", "shard-001.txt")]


def samples_of(kind: str, shard: int) -> list[dict[str, Any]]:
    names = [f"{shard}{number:04d}" for number in range(300)]
    if kind == "npy":
        return [{"npy": np.full((3,), float(number))} for number in range(len(names))]
    if kind == "tar":
        return [{"__key__": name, "txt": f"text {name} " * 30} for name in names]
    if kind == "text":
        return [{"text": f"text {name} " * 30} for name in names]
    return [{"name": name, "text": f"text {name} " * 30} for name in names]


KINDS = sorted(kind.name for kind in map(vars(formats).get, formats.__all__) if hasattr(kind, "suffix"))


@pytest.mark.parametrize("compression", [None, "gz", "zst"])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_at_random_are_those_that_are_streamed(server: LocalS3, kind: str, compression: Any) -> None:
    shards = named_format(kind)
    suffix = shards.suffix + (f".{compression}" if compression else "")
    expected: list[Any] = []
    for number in range(3):
        stream = io.BytesIO()
        try:
            opened = shards.writer(stream, compression=compression)
        except ValueError:
            pytest.skip(f"{kind} is not written with {compression}")
        with opened as writer:
            for made in samples_of(kind, number):
                writer.write(made)
            writer.finish()
        key = f"made/{number}{suffix}"
        server.put("bucket", key, stream.getvalue())
        expected += shards.read(io.BytesIO(stream.getvalue()), url=f"s3://bucket/{key}")
    listed = Manifest.from_prefix("s3://bucket/made/")
    named = format_of_key(listed.key(0))
    assert named == shards
    indexed = listed.index(shards)
    assert indexed.format == shards
    assert indexed.num_samples == len(expected) == 900
    client = get_client()
    order = random.Random(0).sample(range(900), 60)
    for position, place in zip(order, indexed.places(order), strict=True):
        bucket, key, size, etag = indexed.rows([place.shard])[0]
        fetched: Any = memoryview(client.fetch(bucket, key, place.start, place.stop, size=size, etag=etag))
        head = indexed.shard_head(place.shard)
        if indexed.shard(place.shard).frames is not None:
            fetched = shards.decode(fetched, head=head, start=place.start)
        found = shards.parse(
            fetched, place.offset, place.end, head=head, url=indexed.uri(place.shard), number=place.number
        )
        assert repr(found) == repr(expected[position])


class TestBesideTheData:
    @pytest.mark.parametrize(
        ("prefix", "folder"),
        [
            ("s3://b", "s3://b/"),
            ("s3://b/train-", "s3://b/"),
            ("s3://b/x/y/", "s3://b/x/y/"),
            ("s3://b/x/y", "s3://b/x/"),
        ],
    )
    def test_where_it_lies(self, prefix: str, folder: str) -> None:
        assert index_location(prefix, "tar") == f"{folder}.s3dataset/tar-index.manifest"
        assert Manifest.index_location(prefix, Text()) == f"{folder}.s3dataset/text-index.manifest"

    def test_listings_leave_it_out(self, server: LocalS3) -> None:
        listed = Manifest.from_prefix(PREFIX)
        listed.index(Text()).save(Manifest.index_location(PREFIX, "text"))
        for prefix in ("s3://bucket/", "s3://bucket/data/", "s3://bucket/data"):
            assert Manifest.from_prefix(prefix) == listed
        assert len(Manifest.from_prefix(PREFIX, pattern="**/*")) == COUNT
        assert len(Manifest.from_prefix("s3://bucket/data/.s3dataset/")) == 1

    def test_it_is_found_while_it_is_current(self, server: LocalS3) -> None:
        client = get_client()
        listed = Manifest.from_prefix(PREFIX)
        assert find_index(client, PREFIX, listed, Text()) is None
        done = update_index(listed, Text(), index_location(PREFIX, "text"), shared=True)
        assert (done.scanned, done.kept, done.written) == (COUNT, 0, True)
        for part in (listed, Manifest.from_prefix(PREFIX, pattern="*-01?.txt"), Manifest.from_prefix(PREFIX[:-1])):
            found = find_index(client, PREFIX, part, "text")
            assert found is not None
            assert found.manifest is not None
            assert found.why == ""
            assert found.manifest.objects_fingerprint == part.fingerprint
            assert_right(found.manifest)
        server.put("bucket", "data/shard-003.txt", content(1003))
        server.put("bucket", "data/shard-900.txt", content(900))
        found = find_index(client, PREFIX, Manifest.from_prefix(PREFIX), "text")
        assert found is not None
        assert found.manifest is None
        assert (found.missing, found.changed) == (1, 1)
        assert "shard-003.txt" in found.why
        found = check_index(index_location(PREFIX, "text"), listed, JSONL())
        assert found is not None
        assert found.manifest is None
        assert found.why.startswith("is of Text(")

    def test_it_grows_with_the_folder(self, server: LocalS3) -> None:
        for name in ("val-1", "val-2", "other-1"):
            server.put("bucket", f"data/{name}.txt", content(len(name)))
        place = index_location(PREFIX, "text")
        listings = [
            Manifest.from_prefix(PREFIX, pattern="shard-*.txt"),
            Manifest.from_prefix("s3://bucket/data/val-"),
            Manifest.from_prefix(PREFIX, pattern="other-*.txt"),
        ]
        for listed in listings:
            update_index(listed, Text(), place, shared=True)
        for listed in [*listings, Manifest.from_prefix(PREFIX)]:
            found = check_index(place, listed, Text())
            assert found is not None
            assert found.manifest is not None
            assert_right(found.manifest)
        get_client().delete_object("bucket", "data/val-2.txt")
        done = update_index(Manifest.from_prefix("s3://bucket/data/val-"), Text(), place, shared=True)
        assert (done.scanned, done.kept, done.written) == (0, 1, True)
        assert len(Manifest.load(place)) == COUNT + 2
        done = update_index(Manifest.from_prefix(PREFIX), Text(), place, shared=True)
        assert (done.scanned, done.kept, done.written) == (0, COUNT + 2, False)
        done = update_index(Manifest.from_prefix(PREFIX), Text(), place, shared=True, full=True)
        assert (done.scanned, done.kept, done.written) == (COUNT + 2, 0, False)

    def test_what_was_scanned_before_a_failure_is_kept(self, server: LocalS3) -> None:
        place = index_location(PREFIX, "text")
        server.put("bucket", "data/zipped.txt.gz", ZIPPED)
        with pytest.raises(UnindexableError) as caught:
            update_index(Manifest.from_prefix(PREFIX), Text(), place, shared=True)
        kept = len(Manifest.load(place))
        assert kept > 0
        assert any(f"{kept} of {COUNT + 1} shards are kept in {place}" in note for note in caught.value.__notes__)
        assert_right(Manifest.load(place))
        done = update_index(Manifest.from_prefix(PREFIX, pattern="*.txt"), Text(), place, shared=True)
        assert (done.scanned, done.kept) == (COUNT - kept, kept)

    @pytest.mark.parametrize("full", [False, True])
    def test_a_file_that_the_user_names_and_that_is_no_manifest_stays(
        self, server: LocalS3, tmp_path: Path, full: bool
    ) -> None:
        model = tmp_path / "model.pt"
        model.write_bytes(b"weights")
        server.put("bucket", "model.pt", b"weights")
        for place in (str(model), "s3://bucket/model.pt"):
            with pytest.raises(DecodeError, match=r"model.pt is no manifest"):
                update_index(Manifest.from_prefix(PREFIX), Text(), place, full=full)
        assert model.read_bytes() == server.get("bucket", "model.pt") == b"weights"

    def test_what_lies_there_is_no_manifest(self, server: LocalS3) -> None:
        place = index_location(PREFIX, "text")
        server.put("bucket", "data/.s3dataset/text-index.manifest", b"junk")
        with pytest.raises(DecodeError, match=r"text-index.manifest"):
            find_index(get_client(), PREFIX, Manifest.from_prefix(PREFIX), Text())
        with pytest.warns(UserWarning, match=r"is no manifest.*It is replaced"):
            update_index(Manifest.from_prefix(PREFIX), Text(), place, shared=True)
        assert_right(Manifest.load(place))
