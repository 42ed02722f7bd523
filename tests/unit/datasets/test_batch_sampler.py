"""BatchSampler: orders, epochs, ranks, and what it names ahead."""

import json
import pickle
import sys
from collections import Counter
from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from s3dataset import BatchSampler, Split


def flat(sampler: Any) -> list[int]:
    return list(chain.from_iterable(sampler))


def test_not_shuffled_it_is_pytorchs_sequential_order() -> None:
    assert list(BatchSampler(7, 3, shuffle=False)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(BatchSampler(7, 3, shuffle=False, tail="drop")) == [[0, 1, 2], [3, 4, 5]]


def test_each_iteration_is_the_next_epoch() -> None:
    sampler = BatchSampler(100, 8, seed=5)
    epochs = [flat(sampler) for _ in range(3)]
    assert all(sorted(epoch) == list(range(100)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    sampler.set_epoch(1)
    assert sampler.epoch == 1
    assert flat(sampler) == epochs[1]
    assert flat(sampler) == epochs[2]
    assert flat(BatchSampler(100, 8, seed=5)) == epochs[0]
    assert flat(BatchSampler(100, 8, seed=6)) != epochs[0]


def test_an_iterator_that_nobody_uses_is_no_epoch() -> None:
    """PyTorch's multiprocessing loader makes two and uses the second."""
    sampler = BatchSampler(10, 2)
    iter(sampler)
    list(iter(sampler))
    assert sampler.epoch == 1


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("tail", ["pad", "drop", "exact"])
def test_ranks_share_one_sequence(world_size: int, tail: Any) -> None:
    ranks = [
        list(BatchSampler(1797, 32, seed=1, tail=tail, split=Split(rank=rank, world_size=world_size)))
        for rank in range(world_size)
    ]
    lengths = [
        len(BatchSampler(1797, 32, seed=1, tail=tail, split=Split(rank=rank, world_size=world_size)))
        for rank in range(world_size)
    ]
    assert lengths == [len(batches) for batches in ranks]
    seen = Counter(chain.from_iterable(chain.from_iterable(ranks)))
    whole = list(BatchSampler(1797, 32, seed=1))
    full_steps = 1797 // 32 // world_size
    assert [ranks[k % world_size][k // world_size] for k in range(full_steps * world_size)] == whole[
        : full_steps * world_size
    ]
    if tail == "exact":
        assert seen == Counter(range(1797))
    else:
        assert len(set(lengths)) == 1
    if tail == "pad":
        assert set(seen) == set(range(1797))
        assert seen.total() < 1797 + world_size
    if tail == "drop":
        assert set(seen.values()) == {1}
        assert all(len(batch) == 32 for batches in ranks for batch in batches)


def test_padding_is_the_default_with_several_ranks() -> None:
    lengths = {len(BatchSampler(33, 4, split=Split(rank=rank, world_size=4))) for rank in range(4)}
    assert lengths == {3}
    assert len(BatchSampler(33, 4)) == 9


def test_it_names_the_batches_of_the_same_worker() -> None:
    sampler = BatchSampler(1000, 4, seed=2, num_workers=3, ahead=2)
    batches: list[Any] = list(sampler)
    for k, batch in enumerate(batches):
        expected = [batches[i] for i in (k + 3, k + 6) if i < len(batches)]
        assert batch.ahead == expected
    assert not hasattr(next(iter(BatchSampler(1000, 4))), "ahead")
    assert not hasattr(next(iter(BatchSampler(1000, 4, num_workers=3, ahead=0))), "ahead")


def test_a_billion_samples_cost_nothing() -> None:
    sampler = BatchSampler(10**9, 32, num_workers=4)
    assert len(sampler) == -(-(10**9) // 32)
    first: Any = next(iter(sampler))
    assert len(set(first)) == 32
    assert len(first.ahead) == 4


def test_the_length_of_the_dataset_is_asked_when_it_is_needed() -> None:
    dataset: list[int] = []
    sampler = BatchSampler(dataset, 2, shuffle=False)
    dataset += [10, 11, 12]
    assert list(sampler) == [[0, 1], [2]]


def test_ranks_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert list(BatchSampler(8, 2, shuffle=False)) == [[2, 3], [6, 7]]
    assert len(list(BatchSampler(8, 2, split=Split(ranks=False)))) == 4


def test_accelerate_is_not_sharded_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    state = SimpleNamespace(PartialState=SimpleNamespace(_shared_state={"device": "cpu"}))
    monkeypatch.setitem(sys.modules, "accelerate.state", state)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Split\(ranks=False\).*or split=Split\(\)"):
        list(BatchSampler(8, 2))
    assert len(BatchSampler(8, 2, split=Split())) == 2
    assert len(BatchSampler(8, 2, split=Split(ranks=False))) == 4


def test_fixed_steps() -> None:
    sampler = BatchSampler(10, 4, split=Split(steps_per_epoch=5))
    assert [len(batch) for batch in sampler] == [4] * 5
    assert len(sampler) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a number of samples"),
        ({"batch_size": 4, "num_workers": -1}, "num_workers"),
        ({"batch_size": 4, "ahead": -1}, "ahead"),
        ({"batch_size": 4, "tail": "no"}, "'pad', 'drop', 'exact'"),
        ({"batch_size": 4, "tail": "pad", "split": Split(tail="drop")}, "contradict"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BatchSampler(10, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 2.5}, "batch_size must be an integer, got 2.5"),
        ({"batch_size": "4"}, "batch_size must be an integer, got '4'"),
        ({"batch_size": 4, "seed": "x"}, "seed must be an integer"),
        ({"batch_size": 4, "num_workers": "2"}, "num_workers must be an integer"),
        ({"batch_size": 4, "ahead": 1.5}, "ahead must be an integer"),
        ({"batch_size": 4, "split": (0, 2)}, "split must be a Split"),
    ],
)
def test_what_is_no_number_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        BatchSampler(10, **arguments)


def test_epochs_are_numbers_from_0_on() -> None:
    sampler = BatchSampler(10, 4)
    with pytest.raises(ValueError, match="an epoch is a number from 0 on, got -1"):
        sampler.set_epoch(-1)
    with pytest.raises(TypeError, match="epoch must be an integer"):
        sampler.set_epoch("1")  # type: ignore[arg-type]


def test_integers_of_numpy_become_a_state_of_json_that_can_be_gone_on_from() -> None:
    def make() -> BatchSampler:
        return BatchSampler(10, np.int64(4), seed=np.int64(3))

    sampler = make()
    sampler.set_epoch(np.int64(2))
    batches = iter(sampler)
    next(batches)
    state = json.loads(json.dumps(sampler.state_dict()))
    resumed = make()
    resumed.load_state_dict(state)
    assert list(resumed) == list(batches)


def test_it_pickles() -> None:
    sampler = BatchSampler(100, 8, seed=5, split=Split(rank=0, world_size=2))
    next(iter(sampler))
    copy = pickle.loads(pickle.dumps(sampler))
    assert flat(copy) == flat(sampler)
