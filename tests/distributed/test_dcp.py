"""Distributed checkpoints of several ranks, over gloo."""

import json
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest

from s3dataset._checkpoint._skeleton import Skeleton
from s3dataset.testing import Fault, LocalS3

Ranks = Callable[..., list[Any]]

pytestmark = [pytest.mark.timeout(170)]


@pytest.fixture
def steps(ranks: Ranks, server: LocalS3) -> Any:
    """Does steps on three ranks -> for each step the answers of the ranks that took part."""
    server.clear_faults()

    def run(*todo: tuple[Any, ...]) -> list[list[Any]]:
        if Skeleton.is_possible():
            return launched(3, list(todo))
        found = []
        for count, some in groupby(todo, key=lambda step: step[1]):  # torch 2.4 loads with all ranks only
            found += launched(count, list(some))
        return found

    def launched(world_size: int, todo: list[Any]) -> list[list[Any]]:
        answers = ranks("steps", json.dumps(todo), world_size=world_size, script="dcp_programs.py")
        return [list(answer)[:count] for (_, count, *_), answer in zip(todo, zip(*answers, strict=True), strict=True)]

    yield run
    server.clear_faults()


def loaded(step: int) -> dict[str, Any]:
    return {"wrong": [], "step": step}


def test_checkpoints_of_ranks_are_loaded_by_others(steps: Any) -> None:
    uri = "s3://bucket/ranks"
    first, *read, second, again = steps(
        ("save", 3, uri, 0, 2),
        ("load", 3, uri, 0),
        ("load", 2, uri, 0, "others"),
        ("load", 1, uri, 0, "none"),
        ("save", 2, uri, 5),  # over it, by fewer ranks, of fewer objects
        ("load", 3, uri, 5, "others"),
    )
    assert sorted(first[0]) == [".metadata", *(f"__{rank}_{n}.distcp" for rank in range(3) for n in range(2))]
    assert read == [[loaded(0)] * count for count in (3, 2, 1)]
    assert len(second[0]) == 2 + 1
    assert again == [loaded(5)] * 3


def test_ranks_under_prefixes_of_their_own(steps: Any) -> None:
    uri = "s3://bucket/spread"
    saved, read, over, again = steps(
        ("save", 3, uri, 1, 1, True), ("load", 2, uri, 1), ("save", 2, uri, 2, 2, True), ("load", 2, uri, 2)
    )
    first, second = "0000000000", "1000000000"
    assert saved[0] == [".metadata", f"{first}/__0_0.distcp", f"{first}/__2_0.distcp", f"{second}/__1_0.distcp"]
    assert read == [loaded(1)] * 2
    assert len(over[0]) == 2 * 2 + 1
    assert again == [loaded(2)] * 2


@pytest.mark.skipif(not Skeleton.is_possible(), reason="FSDP2 of torch 2.4 needs a GPU")
def test_a_model_sharded_by_fsdp2_goes_on_where_it_was(steps: Any) -> None:
    uri = "s3://bucket/fsdp"
    saved, *read = steps(("fsdp", 2, uri, "save"), ("fsdp", 3, uri, "load"), ("fsdp", 1, uri, "load"))
    expected = pytest.approx(saved[0], rel=1e-6)
    assert all(answer == expected for answers in read for answer in answers)


def test_ranks_read_their_own_rows(server: LocalS3, steps: Any) -> None:
    uri = "s3://bucket/rows"
    steps(("save", 1, uri, 0), ("load", 3, uri, 0))
    data = sum(record.bytes_out for record in server.requests("GetObject") if record.key.endswith(".distcp"))
    # Each of three: a third of what is split by rows; all of what is split by columns, and of what is not split.
    assert data < 1.05 * 4 * (1003 * 300 + 3 * (500 * 304 + 400 * 300 + 300 * 300)) + 50_000


def test_a_rank_that_cannot_write_fails_the_save_of_all(server: LocalS3, steps: Any) -> None:
    uri = "s3://bucket/failing"
    # The second save's objects have other names than the first's.
    refused = {"operation": "PutObject", "key": "failing/__1_0-*", "times": 1}
    server.add_fault(Fault.status(403, code="AccessDenied", **refused))
    before, answers, kept, _, after, new = steps(
        ("save", 3, uri, 0),
        ("failing", 3, uri),
        ("load", 3, uri, 0),
        ("save", 3, uri, 3),
        ("save", 3, uri, 4),
        ("load", 3, uri, 4),
    )
    for answer in answers:
        assert answer["failed"] == [1]
        assert "failing/__1_0-" in answer["text"]
        assert answer["elapsed"] < 60
        assert set(before[0]) <= set(answer["names"])
    assert kept == [loaded(0)] * 3
    assert len(after[0]) == 3 + 1
    assert new == [loaded(4)] * 3


def test_ranks_that_save_by_themselves(steps: Any) -> None:
    uri = "s3://bucket/alone"
    answers, together, after, refused = steps(
        ("alone", 2, uri), ("save", 2, uri, 2), ("load", 2, uri, 2), ("alone_over_together", 2, uri)
    )
    if answers[0] is None:
        pytest.skip("this torch has no such saves")
    for rank, answer in enumerate(answers):
        for seed in range(2):
            assert answer[f"loaded {seed}"] == [10 * seed + rank, 10 * seed + rank, rank]
    assert {name for name in answers[0]["names"] if name.endswith(".metadata")} == {"__0.metadata", "__1.metadata"}
    assert len(together[0]) == 3
    assert after == [loaded(2)] * 2
    assert all("use_collectives=False" in text for text in refused)


def test_saves_in_the_background(steps: Any) -> None:
    for answers in steps(
        ("background", 3, "s3://bucket/in-a-thread", "thread"),
        ("background", 3, "s3://bucket/in-a-process", "process"),
    ):
        for answer in answers:
            if answer is not None:
                assert len(answer.pop("names")) == 3 + 1
                assert answer == loaded(1)
