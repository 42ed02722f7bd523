"""Samples of a manifest's shards: places, keeping, deriving, files of before."""

import copy
import pickle
import random
from array import array
from collections.abc import Sequence
from pathlib import Path

import pytest

from s3dataset._client import ClientRef
from s3dataset._manifest import Manifest, SamplePlace
from s3dataset._manifest._chunks import with_samples
from s3dataset._manifest._sample_columns import SampleColumns
from s3dataset.errors import DecodeError, InternalError, UnindexedError
from s3dataset.formats import JSONL, Format, Frames, ShardIndex, Text, describe

TEXT = Text()
FILES = Path(__file__).parent / "files"
FRAMES = Frames(array("Q", [0, 100, 250]), array("Q", [90, 240, 300]), array("Q", [1000, 1000, 1500]))
SHARDS = [
    ShardIndex(array("Q", [10, 25, 25, 40])),
    ShardIndex(array("Q")),
    ShardIndex(range(11, 42, 10), first=1, head=b"head"),
    ShardIndex(array("Q", [7, 5 << 30, (5 << 30) + 1]), first=3),
    ShardIndex(array("Q", [400, 900, 1200, 1500]), frames=FRAMES, head=b"head"),
    ShardIndex(array("Q", [1]), head=b"another"),
]


def indexed(shards: Sequence[ShardIndex] = SHARDS, *, bucket: str = "b", format: Format = TEXT) -> Manifest:  # noqa: A002
    bare = Manifest.from_objects(f"s3://{bucket}/shard-{number:03d}" for number in range(len(shards)))
    samples = SampleColumns(describe(format))
    order = list(range(len(shards)))
    random.Random(0).shuffle(order)
    for row in order:
        samples.put(row, shards[row])
    found = {row: (1000 + row, f'"etag-{row}"') for row in range(len(shards))}
    return Manifest._of(with_samples(bare._columns, samples, found), ClientRef())


def shards_of(manifest: Manifest) -> list[ShardIndex]:
    return [manifest.shard(row) for row in range(len(manifest))]


def same(one: ShardIndex, other: ShardIndex) -> bool:
    return (list(one.ends), one.first, one.frames, one.head) == (
        list(other.ends),
        other.first,
        other.frames,
        other.head,
    )


class TestPlaces:
    def test_what_it_holds(self) -> None:
        manifest = indexed()
        assert manifest.format == Text()
        assert (manifest.num_objects, manifest.num_samples) == (6, 16)
        assert list(manifest.shard_ends) == [4, 4, 8, 11, 15, 16]
        assert all(map(same, shards_of(manifest), SHARDS))
        assert [manifest.shard_head(row) for row in (0, 2, 4, -1)] == [b"", b"head", b"head", b"another"]
        assert [entry.size for entry in manifest.objects] == list(range(1000, 1006))
        assert manifest.etag(3) == '"etag-3"'
        assert "16 samples" in repr(manifest)

    def test_of_every_kind(self) -> None:
        assert indexed().places(range(16)) == [
            SamplePlace(0, 0, 0, 10, 0, 10),
            SamplePlace(0, 1, 10, 25, 0, 15),
            SamplePlace(0, 2, 25, 25, 0, 0),
            SamplePlace(0, 3, 25, 40, 0, 15),
            SamplePlace(2, 0, 1, 11, 0, 10),
            SamplePlace(2, 1, 11, 21, 0, 10),
            SamplePlace(2, 2, 21, 31, 0, 10),
            SamplePlace(2, 3, 31, 41, 0, 10),
            SamplePlace(3, 0, 3, 7, 0, 4),
            SamplePlace(3, 1, 7, 5 << 30, 0, (5 << 30) - 7),
            SamplePlace(3, 2, 5 << 30, (5 << 30) + 1, 0, 1),
            SamplePlace(4, 0, 0, 90, 0, 400),
            SamplePlace(4, 1, 0, 90, 400, 900),
            SamplePlace(4, 2, 0, 300, 900, 1200),
            SamplePlace(4, 3, 250, 300, 200, 500),
            SamplePlace(5, 0, 0, 1, 0, 1),
        ]

    def test_in_any_order(self) -> None:
        manifest = indexed()
        every = manifest.places(range(16))
        order = random.Random(1).sample(range(16), 16) * 2
        assert manifest.places(order) == [every[position] for position in order]
        assert manifest.places([]) == []

    @pytest.mark.parametrize("position", [-1, 16, 1 << 70])
    def test_out_of_range(self, position: int) -> None:
        with pytest.raises(IndexError, match=f"sample {position} is out of range for 16 samples"):
            indexed().places([3, position])

    def test_without_an_index(self) -> None:
        manifest = Manifest.from_objects(["s3://b/shard.tar"])
        assert manifest.format is None
        for use in (lambda: manifest.places([0]), lambda: manifest.shard_ends, lambda: manifest.shard_head(0)):
            with pytest.raises(
                UnindexedError, match=r"1 objects \(s3://b/shard.tar\) are not indexed.*s3dataset index"
            ):
                use()

    def test_of_no_shards(self) -> None:
        manifest = indexed([])
        assert (manifest.num_samples, list(manifest.shard_ends), manifest.places([])) == (0, [], [])
        assert manifest.format == Text()

    def test_a_shard_that_was_forgotten(self) -> None:
        samples = SampleColumns(describe(Text()))
        samples.put(1, SHARDS[0])
        for count in (1, 2, 3):
            bare = Manifest.from_objects(f"s3://b/{number}" for number in range(count))
            with pytest.raises(InternalError, match="samples are known of other shards"):
                with_samples(bare._columns, copy.copy(samples))


class TestKeeping:
    def test_save_load_publish_pickle(self, tmp_path: Path) -> None:
        manifest = indexed()
        manifest.save(tmp_path / "m")
        manifest.publish(str(tmp_path / "p"))
        for other in (
            Manifest.load(tmp_path / "m"),
            Manifest.load(tmp_path / "p"),
            pickle.loads(pickle.dumps(manifest)),
        ):
            assert other == manifest
            assert other.places(range(16)) == manifest.places(range(16))
            assert other.format == Text()

    def test_a_large_one_is_a_file(self) -> None:
        ends = array("Q", range(100, 200_000_100, 100))
        manifest = indexed([ShardIndex(ends)] * 3)
        assert manifest.path is not None
        assert manifest.num_samples == 6_000_000
        assert manifest.places([5_999_999]) == [SamplePlace(2, 1_999_999, 199_999_900, 200_000_000, 0, 100)]
        assert Path(manifest.path).stat().st_size < 3 * 4 * 2_000_000 + 10_000
        assert pickle.loads(pickle.dumps(manifest)).places([4_000_000])[0].shard == 2
        kept = manifest.filter(lambda entry: entry.key != "shard-001")
        assert kept.path is not None
        assert (kept.num_samples, kept.places([2_000_000])[0].shard) == (4_000_000, 1)

    def test_the_fingerprint_covers_samples_and_format(self) -> None:
        manifest = indexed()
        other_ends = indexed([ShardIndex(array("Q", [10, 24, 25, 40])), *SHARDS[1:]])
        other_head = indexed([*SHARDS[:-1], ShardIndex(array("Q", [1]), head=b"further")])
        all_of_them = [manifest, other_ends, other_head, indexed(format=JSONL())]
        assert len({each.fingerprint for each in all_of_them}) == 4
        assert len({each.objects_fingerprint for each in all_of_them}) == 1
        assert manifest == indexed()

    def test_the_objects_keep_their_fingerprint(self) -> None:
        bare = Manifest.from_objects(["s3://b/1", "s3://b/2"])
        samples = SampleColumns(describe(Text()))
        samples.put(0, SHARDS[0])
        samples.put(1, SHARDS[1])
        manifest = Manifest._of(with_samples(bare._columns, samples), ClientRef())
        assert manifest.objects_fingerprint == bare.fingerprint == bare.objects_fingerprint
        assert manifest != bare


class TestDeriving:
    def test_filter(self) -> None:
        kept = indexed().filter(lambda entry: entry.key in {"shard-002", "shard-004", "shard-005"})
        assert all(map(same, shards_of(kept), [SHARDS[2], SHARDS[4], SHARDS[5]]))
        assert kept.num_samples == 9
        assert kept.places([4])[0] == SamplePlace(1, 0, 0, 90, 0, 400)
        none = kept.filter(lambda _: False)
        assert (none.num_samples, none.format) == (0, Text())

    def test_split(self) -> None:
        manifest = indexed(SHARDS * 20)
        parts = manifest.split({"train": 0.7, "val": 0.3})
        assert sum(part.num_samples for part in parts.values()) == manifest.num_samples == 320
        for part in parts.values():
            for row, entry in enumerate(part.objects):
                assert same(part.shard(row), manifest.shard(manifest.find(entry.key)))

    def test_sum(self) -> None:
        both = indexed() + indexed(SHARDS[::-1], bucket="c")
        assert all(map(same, shards_of(both), SHARDS + SHARDS[::-1]))
        assert both.buckets == ("b", "c")
        again = both + both.filter(lambda entry: entry.bucket == "c")
        assert all(map(same, shards_of(again), SHARDS + SHARDS[::-1] * 2))

    def test_sum_with_none(self) -> None:
        empty = Manifest.from_objects([])
        assert (indexed() + empty).num_samples == (empty + indexed()).num_samples == 16
        assert (empty + empty).format is None

    def test_sum_of_what_does_not_add(self) -> None:
        bare = Manifest.from_objects(["s3://b/1"])
        for one, other in ((indexed(), bare), (bare, indexed())):
            with pytest.raises(ValueError, match=r"Index that one too, with .index\('text'\)"):
                one + other
        with pytest.raises(ValueError, match="index both with the same format"):
            indexed() + indexed(format=JSONL())


class TestFiles:
    def test_without_samples_the_version_is_the_first(self, tmp_path: Path) -> None:
        Manifest.from_objects(["s3://b/1"]).save(tmp_path / "bare")
        indexed().save(tmp_path / "indexed")
        assert (tmp_path / "bare").read_bytes()[:8] == b"S3DSMNF\x01"
        assert (tmp_path / "indexed").read_bytes()[:8] == b"S3DSMNF\x02"

    @pytest.mark.parametrize("version", [0, 1, 3])
    def test_another_version(self, version: int, tmp_path: Path) -> None:
        indexed().save(tmp_path / "m")
        content = bytearray((tmp_path / "m").read_bytes())
        content[7] = version
        (tmp_path / "m").write_bytes(content)
        message = "do not fit" if version == 1 else f"version {version}.*update s3dataset"
        with pytest.raises(DecodeError, match=message):
            Manifest.load(tmp_path / "m")

    def test_of_a_release_that_knew_no_samples(self, tmp_path: Path) -> None:
        manifest = Manifest.load(FILES / "objects-version-1.manifest")
        assert manifest.fingerprint == "a059d771a05b9f5818f2a56fc071a812"
        assert [entry.uri for entry in manifest.objects][::5] == ["s3://bucket/a/0", "s3://other/é"]
        assert (manifest.format, manifest.num_samples, manifest.size(1)) == (None, 6, 196)
        manifest.filter(lambda _: True).save(tmp_path / "again")
        assert Manifest.load(tmp_path / "again") == manifest

    def test_samples_of_before(self) -> None:
        manifest = Manifest.load(FILES / "samples-version-2.manifest")
        assert manifest == indexed()
        assert manifest.objects_fingerprint == "fc2f192dab6f16fb0a1d520ba3b0b24e"
        assert manifest.format == Text()
        assert all(map(same, shards_of(manifest), SHARDS))
        assert manifest.places(range(16)) == indexed().places(range(16))
