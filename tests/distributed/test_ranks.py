"""Datasets and loaders on several ranks."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import s3dataset
from s3dataset.testing import LocalS3

COUNT = 1797

Ranks = Callable[..., list[Any]]

pytestmark = [pytest.mark.timeout(170)]


@pytest.mark.parametrize("kind", ["map", "iterable", "iterable-torch"])
def test_a_ddp_epoch_ends_under_every_tail(server: LocalS3, ranks: Ranks, kind: str) -> None:
    """1,797 samples, 2 ranks with 3 workers each, batch 32."""
    answers = ranks("ddp", kind)
    for tail in ("pad", "drop", "exact"):
        parts = [answer[tail] for answer in answers]
        seen = Counter(chain.from_iterable(part["seen"] for part in parts))
        steps = [len(part["sizes"]) for part in parts]
        if tail == "exact":
            assert seen == Counter(range(COUNT))
            assert sorted(steps) == [28, 29]
        if tail == "pad":
            assert set(seen) == set(range(COUNT))
            assert seen.total() == COUNT + 1
            assert steps == [29, 29]
            assert [part["sizes"] for part in parts] == [[32] * 28 + [3]] * 2
        if tail == "drop":
            assert set(seen.values()) == {1}
            assert [part["sizes"] for part in parts] == [[32] * 28] * 2
        assert [part["length"] for part in parts] == steps
    gets = 2 * COUNT + 1 + 32 * 56
    assert gets <= server.stats()["operations"]["GetObject"] <= 1.05 * gets  # where it is late, it is asked for twice


def test_nothing_said_with_several_ranks_is_an_error_that_names_the_choices(ranks: Ranks) -> None:
    for answer in ranks("sharding", "none"):
        assert "runs on 2 ranks" in answer["error"]
        assert "enable_sharding=" in answer["error"]
        for choice in ("True splits", "False gives", "Split(ranks=False)"):
            assert choice in answer["error"]


def test_true_splits_over_ranks_and_workers(ranks: Ranks) -> None:
    answers = ranks("sharding", "true")
    for name in ("alone", "seen"):
        seen = Counter(chain.from_iterable(answer[name] for answer in answers))
        assert set(seen) == set(range(COUNT))
        assert seen.total() == COUNT + 1  # padded, so that ranks take as many steps
    # No process group: the ranks cannot compare what they listed.
    assert all("Manifest.save" in " ".join(answer["warnings"]) for answer in answers)


def test_false_and_workers_only_leave_ranks_alone(ranks: Ranks) -> None:
    for answer in ranks("sharding", "false"):
        assert answer["alone"] == list(range(COUNT))
        assert Counter(answer["seen"]) == Counter([*range(COUNT)] * 2)
        assert answer["warnings"] == []
    for answer in ranks("sharding", "workers"):
        assert answer["alone"] == list(range(COUNT))
        assert Counter(answer["seen"]) == Counter(range(COUNT))


@pytest.mark.parametrize(
    "method", ["fork", *(pytest.param(m, marks=pytest.mark.slow) for m in ("spawn", "forkserver"))]
)
def test_workers_know_the_rank_of_a_parent_without_launcher(ranks: Ranks, tmp_path: Path, method: str) -> None:
    (parts,) = ranks("spawned", method, str(tmp_path / "out"), world_size=1, launcher=False)
    assert set(chain.from_iterable(parts)) == set(range(COUNT))
    assert sum(map(len, parts)) == COUNT + 1
    assert len(parts[0]) == len(parts[1])


def test_prepare_lists_once_for_all_ranks(server: LocalS3, ranks: Ranks) -> None:
    server.reset_stats()
    assert len(s3dataset.Manifest.from_prefix("s3://bucket/images/")) == COUNT
    alone = server.stats()["operations"]["ListObjectsV2"]
    first, second = ranks("prepared")
    assert first == second
    assert first["length"] == COUNT
    assert server.stats()["operations"]["ListObjectsV2"] < 2 * alone


def test_an_iterable_dataset_knows_its_rank_from_the_group(ranks: Ranks) -> None:
    answers = ranks("trained")
    assert [answer["length"] for answer in answers] == [899, 899]
    assert [len(answer["seen"]) for answer in answers] == [899, 899]


@pytest.fixture
def without_late(server: LocalS3) -> Iterator[None]:
    yield
    server.delete("bucket", "images/late")


@pytest.mark.parametrize("kind", ["map", "iterable", "iterable-loader"])
@pytest.mark.usefixtures("without_late")
def test_ranks_that_list_different_objects_are_told_so(ranks: Ranks, kind: str) -> None:
    _, late = ranks("growing", kind)
    assert "1,797 on the first rank, 1,798 here" in late["error"]
    assert "Manifest.save" in late["error"]


@pytest.mark.parametrize("kind", ["shard", "shard-main", "dispatch", "map"])
def test_accelerate_reads_every_sample(ranks: Ranks, kind: str) -> None:
    pytest.importorskip("accelerate")
    answers = ranks("accelerated", kind)
    seen = Counter(chain.from_iterable(answer["seen"] for answer in answers))
    assert set(seen) == set(range(COUNT))
    assert seen.total() <= COUNT + 16


def test_accelerate_and_ranks_split_twice_is_an_error(ranks: Ranks) -> None:
    pytest.importorskip("accelerate")
    for answer in ranks("accelerated", "map-unsaid"):
        assert "Split(ranks=False)" in answer["error"]


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("kind", ["map", "iterable"])
def test_hugging_faces_trainer_sees_every_sample(ranks: Ranks, tmp_path: Path, kind: str, world_size: int) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("transformers")
    answers = ranks("hugging_face", kind, str(tmp_path / "out"), world_size=world_size)
    seen = Counter(chain.from_iterable(answer["seen"] for answer in answers))
    assert set(seen) == set(range(COUNT))
    assert seen.total() <= COUNT + 32 * (world_size - 1) + 31  # Accelerate fills the last batches up
    assert {answer["steps"] for answer in answers} == {-(-COUNT // (32 * world_size))}


@pytest.mark.slow
def test_hugging_faces_trainer_is_told_to_choose(ranks: Ranks, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("transformers")
    for answer in ranks("hugging_face", "iterable-unsaid", str(tmp_path / "out")):
        assert "enable_sharding=" in answer["error"]


def test_ranks_put_their_states_together_and_one_goes_on(server: LocalS3, ranks: Ranks) -> None:
    """Of shards, after ten steps of two ranks with two workers each."""
    for shard in range(6):
        lines = "".join(f'{{"n": {n}}}\n' for n in range(shard * 60, shard * 60 + 60))
        server.put("bucket", f"shards/{shard}.jsonl", lines.encode())
    answers = ranks("shards", "10")
    manifest = s3dataset.Manifest.from_prefix("s3://bucket/shards/")
    for kind, one in (("indexed", manifest.index("jsonl")), ("unindexed", manifest)):
        states = [answer[kind]["state"] for answer in answers]
        assert states[0] == states[1]
        taken = list(chain.from_iterable(answer[kind]["seen"] for answer in answers))
        assert len(taken) == 160
        dataset = s3dataset.S3IterableDataset.from_manifest(one, format="jsonl", transform=number_in, shuffle=True)
        loader: Any = s3dataset.DataLoader(dataset, batch_size=8)
        loader.load_state_dict(states[0])
        assert sorted(taken + [int(n) for batch in loader for n in batch]) == list(range(360))


def number_in(sample: Any) -> int:
    return int(sample["n"])
