"""Distributed checkpoints of several ranks, over gloo."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from s3dataset import S3Client
from s3dataset.testing import Fault, LocalS3

Ranks = Callable[..., list[Any]]

pytestmark = [pytest.mark.timeout(170)]

FULL_BYTES = 4 * (1003 * 300 + 500 * 304 + 15 + 400 * 300 + 300 * 300)


@pytest.fixture
def programs(ranks: Ranks, server: LocalS3) -> Ranks:
    server.clear_faults()
    return partial(ranks, script="dcp_programs.py")


def names(prefix: str) -> list[str]:
    pages = S3Client().list_objects("bucket", f"{prefix}/")
    return [info.key.removeprefix(f"{prefix}/") for page in pages for info in page.object_info]


@pytest.mark.parametrize("prefixes", ["", "yes"])
def test_a_checkpoint_of_ranks_is_loaded_by_others(server: LocalS3, programs: Ranks, prefixes: str) -> None:
    prefix = f"ranks{prefixes}"
    uri = f"s3://bucket/{prefix}"
    programs("save", uri, "0", "2", prefixes, world_size=3)
    assert len(names(prefix)) == 3 * 2 + 1
    if not prefixes:
        assert names(prefix) == [
            ".metadata",
            *(f"__{rank}_{number}.distcp" for rank in range(3) for number in range(2)),
        ]
    for world_size, which in ((2, "others"), (1, "none")):
        answers = programs("load", uri, "0", which, world_size=world_size)
        assert answers == [{"wrong": [], "step": 0}] * world_size
    # Another save over it, by fewer ranks with fewer objects.
    programs("save", uri, "5", "1", prefixes, world_size=2)
    assert len(names(prefix)) == 2 + 1
    assert programs("load", uri, "5", "others", world_size=3) == [{"wrong": [], "step": 5}] * 3


def test_ranks_read_their_own_rows(server: LocalS3, programs: Ranks) -> None:
    uri = "s3://bucket/rows"
    programs("save", uri, world_size=1)
    programs("load", uri, world_size=3)
    data = sum(record.bytes_out for record in server.requests("GetObject") if record.key.endswith(".distcp"))
    # Each of three: a third of what is split by rows; all of what is split by columns, and of what is not split.
    assert data < 1.05 * 4 * (1003 * 300 + 3 * (500 * 304 + 400 * 300 + 300 * 300)) + 50_000


def test_a_model_sharded_by_fsdp2_goes_on_where_it_was(programs: Ranks) -> None:
    uri = "s3://bucket/fsdp"
    saved = programs("fsdp", uri, "save", world_size=2)
    for world_size in (2, 3):
        for answer in programs("fsdp", uri, "load", world_size=world_size):
            assert answer["sums"] == pytest.approx(saved[0]["sums"], rel=1e-6)


def test_a_rank_that_cannot_write_fails_the_save_of_all(server: LocalS3, programs: Ranks) -> None:
    uri = "s3://bucket/failing"
    programs("save", uri, "0")
    before = names("failing")
    server.add_fault(Fault.status(403, code="AccessDenied", operation="PutObject", key="failing/__1_*", times=None))
    for answer in programs("failing", uri):
        assert answer["failed"] == [1]
        assert "failing/__1_0" in answer["text"]
        assert answer["elapsed"] < 60
    server.clear_faults()
    assert set(before) <= set(names("failing"))
    assert programs("load", uri, "0") == [{"wrong": [], "step": 0}] * 2
    programs("save", uri, "3")
    assert len(names("failing")) == 3
    assert programs("load", uri, "3") == [{"wrong": [], "step": 3}] * 2


def test_ranks_that_save_by_themselves(programs: Ranks) -> None:
    answers = programs("alone", "s3://bucket/alone")
    if "skipped" in answers[0]:
        pytest.skip("this torch has no such saves")
    for rank, answer in enumerate(answers):
        for seed in range(2):
            assert answer[f"loaded {seed}"] == [10 * seed + rank, 10 * seed + rank, rank]
    found = names("alone")
    assert len(found) == 4
    assert {"__0.metadata", "__1.metadata"} < set(found)
    # All together over it: then theirs are gone.
    programs("save", "s3://bucket/alone", "2")
    assert len(names("alone")) == 3
    assert programs("load", "s3://bucket/alone", "2") == [{"wrong": [], "step": 2}] * 2


def test_ranks_do_not_save_by_themselves_over_a_checkpoint_of_all(programs: Ranks) -> None:
    for answer in programs("alone_over_together", "s3://bucket/together"):
        if "skipped" in answer:
            pytest.skip("this torch has no such saves")
        assert "use_collectives=False" in answer["error"]


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_saves_in_the_background(programs: Ranks, kind: str) -> None:
    answers = programs("background", f"s3://bucket/background-{kind}", kind)
    if "skipped" in answers[0]:
        pytest.skip("this torch has no such saves")
    assert answers == [{"wrong": [], "step": 1}] * 2
    assert len(names(f"background-{kind}")) == 3
