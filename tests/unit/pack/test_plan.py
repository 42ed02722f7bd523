"""What the plan of a pack follows from."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3dataset._pack._names import Name, Names, unsafe_reason
from s3dataset._pack._plan import Plan, Row, number_of_shard, plan_of_objects, plan_of_shards, shard_name
from s3dataset._pack._samples import shaped
from s3dataset._pack._workers import choose_workers
from s3dataset.errors import DecodeError
from s3dataset.formats import Sample


class Rows:
    def __init__(self, *named: tuple[str, int]) -> None:
        self.all: list[Row] = [("bucket", key, size, None) for key, size in named]

    def __len__(self) -> int:
        return len(self.all)

    def rows(self, positions: Iterable[int]) -> list[Row]:
        return [self.all[position] for position in positions]


def plan(*named: tuple[str, int], shard_size: int = 10, tar: bool = False, grouped: bool = True) -> Plan:
    return plan_of_objects(Rows(*named), Names("", grouped), shard_size, tar=tar)


def cuts(*named: tuple[str, int], shard_size: int = 10, **options: bool) -> list[int]:
    return list(plan(*named, shard_size=shard_size, **options).cuts)


class TestNames:
    @pytest.mark.parametrize(
        ("key", "name"),
        [
            ("in/a/1.jpg", Name("a/1", "jpg")),
            ("in/a/1.seg.PNG", Name("a/1", "seg.png")),
            ("in/a.b/1.jpg", Name("a.b/1", "jpg")),
            ("in/README", Name("README", "bin")),
            ("elsewhere/1.txt", Name("elsewhere/1", "txt")),
            ("in/a/", None),
            ("in/a/.DS_Store", None),
            ("in/__meta__/x.json", None),
        ],
    )
    def test_by_webdatasets_rule(self, key: str, name: Name | None) -> None:
        assert Names("in/").of(key) == name

    def test_rows_are_called_by_their_whole_names(self) -> None:
        assert Names("in/", grouped=False).of("in/a/1.jpg") == Name("a/1.jpg", "data")

    @pytest.mark.parametrize("key", ["/etc/passwd", "../up", "a/../../up", "a\0b"])
    def test_unsafe(self, key: str) -> None:
        assert unsafe_reason(key)

    @pytest.mark.parametrize("key", ["a/b", "a..b", "a//b", "ä/…"])
    def test_safe(self, key: str) -> None:
        assert unsafe_reason(key) == ""


class TestCuts:
    def test_nothing(self) -> None:
        assert len(plan()) == 0
        assert plan().num_samples == 0

    def test_by_size(self) -> None:
        assert cuts(("a.x", 4), ("b.x", 4), ("c.x", 4), ("d.x", 4)) == [2, 4]

    def test_a_large_object_is_a_shard(self) -> None:
        assert cuts(("a.x", 4), ("b.x", 99), ("c.x", 4)) == [1, 2, 3]

    def test_samples_stay_whole(self) -> None:
        assert cuts(("a.x", 6), ("b.x", 3), ("b.y", 3), ("c.x", 1)) == [1, 4]

    def test_empty_objects_end_too(self) -> None:
        assert len(plan(*((f"{number:03d}.x", 0) for number in range(100)))) == 10

    def test_members_of_archives_are_larger(self) -> None:
        assert cuts(("a.x", 1), ("b.x", 1), ("c.x", 1), shard_size=2048, tar=True) == [2, 3]

    def test_left_out(self) -> None:
        made = plan(("a.x", 1), ("b/", 0), ("b/.hidden", 5), ("c.x", 1))
        assert (made.left_out, made.first_left_out, made.num_samples, made.nbytes) == (1, "s3://bucket/b/.hidden", 2, 2)
        assert list(made.cuts) == [4]

    def test_of_shards(self) -> None:
        assert list(plan_of_shards(Rows(("a", 6), ("b", 6), ("b/.c", 1), ("d", 30)), 12).cuts) == [2, 3, 4]

    @given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xyz"), st.integers(0, 9)), max_size=40))
    def test_each_object_once_and_no_sample_cut(self, objects: list[tuple[str, str, int]]) -> None:
        named = sorted({f"{name}.{field}": size for name, field, size in objects}.items())
        made = plan(*named)
        covered = [row for number in range(len(made)) for row in made.rows_of(number)]
        assert covered == list(range(len(named)))
        homes = [{named[row][0][0] for row in made.rows_of(number)} for number in range(len(made))]
        assert sum(map(len, homes)) == len({key[0] for key, _ in named}) == made.num_samples
        for number in range(len(made)):
            assert len(homes[number]) == 1 or sum(max(named[row][1], 0) for row in made.rows_of(number)) <= 10


class TestCollisions:
    @pytest.mark.parametrize(
        "keys",
        [
            ("a.jpg", "a.JPG"),  # the same field
            ("a", "a-b.jpg", "a.jpg"),  # with something between
            ("b.jpg", "a.jpg", "b.txt"),  # not as listed
            ("b.jpg", "b.jpg"),
        ],
    )
    def test_are_refused(self, keys: tuple[str, ...]) -> None:
        with pytest.raises(DecodeError, match=r"s3://bucket/.*(both be the field|second sample called)"):
            plan(*((key, 1) for key in keys))

    def test_of_two_buckets(self) -> None:
        rows = Rows(("a.jpg", 1), ("b.jpg", 1))
        rows.all += [("other", "a.jpg", 1, None)]
        with pytest.raises(DecodeError, match=r"s3://other/a\.jpg would be in a second sample"):
            plan_of_objects(rows, Names(), 10, tar=False)

    def test_tricks_with_paths(self) -> None:
        with pytest.raises(DecodeError, match="outside of its folder"):
            plan(("../a.jpg", 1), tar=True)
        assert len(plan(("../a.jpg", 1))) == 1

    def test_alike_is_not_the_same(self) -> None:
        assert plan(("a", 1), ("a-b", 1), ("ab.jpg", 1), ("b.jpg", 1)).num_samples == 4


def test_names_of_shards() -> None:
    assert shard_name(7, 10) == "shard-000007"
    assert shard_name(7, 10_000_001) == "shard-00000007"
    assert number_of_shard("shard-000007.tar.zst") == 7
    assert number_of_shard("shard-000007-012.tar") == 7
    assert number_of_shard("shard-7.tar") is None
    assert number_of_shard("shard-000007.manifest/x") is None


class TestShaped:
    def shape(self, name: str, data: bytes, format_name: str, **more: object) -> list[dict[str, object]]:
        sample = Sample(__key__=name, __url__=f"s3://b/{name}", data=data, **more)
        return [{k: v for k, v in made.items() if k != "__url__"} for made in shaped(sample, format_name)]

    def test_lines_and_documents(self) -> None:
        assert self.shape("a.txt", b"one\ntwo\n", "jsonl") == [{"__key__": "a.txt", "text": "one\ntwo\n"}]
        assert self.shape("a.txt", b"one\r\ntwo\n", "text") == [
            {"__key__": "a.txt", "text": "one"},
            {"__key__": "a.txt", "text": "two"},
        ]
        assert self.shape("a.json", b'{"n": 1}', "jsonl", label=3) == [{"__key__": "a.json", "label": 3, "n": 1}]
        assert self.shape("a.jsonl", b'{"n": 1}\n\n[2]\n', "jsonl") == [
            {"__key__": "a.jsonl/00000000", "n": 1},
            {"__key__": "a.jsonl/00000001", "json": [2]},
        ]

    def test_columns(self) -> None:
        assert self.shape("a.jpg", b"\xff", "parquet", label="cat") == [
            {"__key__": "a.jpg", "data": b"\xff", "label": "cat"}
        ]

    @pytest.mark.parametrize(("name", "data"), [("a.jpg", b"\xff\xd8"), ("a.json", b"{")])
    def test_what_is_none_names_the_object(self, name: str, data: bytes) -> None:
        with pytest.raises(DecodeError, match=f"s3://b/{name}"):
            self.shape(name, data, "jsonl")


class TestWorkers:
    def test_no_more_than_shards(self) -> None:
        assert choose_workers(8, 3, None) == 3
        assert choose_workers(None, 1, None) == 0
        assert choose_workers(0, 9, None) == 0
        assert choose_workers(1, 9, None) == 1

    def test_a_little_is_not_worth_starting_others(self) -> None:
        assert choose_workers(None, 9, None, copied_bytes=1 << 30) == 0
        assert choose_workers(2, 9, None, copied_bytes=1 << 30) == 2

    def test_a_transform_that_cannot_travel(self) -> None:
        assert choose_workers(None, 9, lambda sample: sample) == 0
        with pytest.raises(ValueError, match="put it into a module"):
            choose_workers(2, 9, lambda sample: sample)

    def test_negative(self) -> None:
        with pytest.raises(ValueError, match="workers=-1"):
            choose_workers(-1, 9, None)
