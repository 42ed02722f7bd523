"""Several loaders over one dataset at the same time: each reads an epoch of its own, whole."""

import itertools
import multiprocessing
from typing import Any

import pytest
import torch
import torch.utils.data
from tests.process.resume_world import keep
from tests.process.shard_world import COUNTS, batches_of, flat, number

from s3dataset import BatchSampler, DataLoader, Manifest, MixedDataset, S3IterableDataset, S3MapDataset, Shuffle

pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create", "ignore:.*multi-threaded.*fork", "ignore:.* is deprecated"
)

EVERYTHING = list(range(sum(COUNTS)))


def stream(manifest: Manifest, **options: Any) -> S3IterableDataset[int]:
    options = {"shuffle": Shuffle(seed=1, streams=6), **options}
    return S3IterableDataset.from_manifest(manifest, format="tar", transform=number, **options)


def dataset_of(kind: str, listed: Manifest, indexed: Manifest, **options: Any) -> Any:
    if kind == "staged":
        return stream(indexed, **options).filter(keep)
    if kind == "mixed":
        return MixedDataset([stream(indexed, **options), stream(indexed, **options)], [2, 1])
    return stream(listed if kind == "unindexed" else indexed, **options)


def in_turns(*loaders: Any) -> list[list[list[int]]]:
    """What loops over several loaders take that go on at the same time."""
    taken: list[list[list[int]]] = [[] for _ in loaders]
    for batches in itertools.zip_longest(*loaders):
        for mine, batch in zip(taken, batches, strict=True):
            if batch is not None:
                mine.append([int(n) for n in batch])
    return taken


@pytest.mark.parametrize("kind", ["indexed", "unindexed", "mixed", "staged"])
@pytest.mark.parametrize(("one", "other"), [(2, 2), (3, 0), (0, 0)])
def test_ours_begin_where_they_were_made(listed: Manifest, indexed: Manifest, kind: str, one: int, other: int) -> None:
    def loader(dataset: Any, workers: int, batch: int = 8) -> DataLoader[Any]:
        return DataLoader(dataset, batch_size=batch, num_workers=workers)

    alone = []
    for epoch, workers, batch in ((0, one, 8), (1, other, 5)):
        by_itself = loader(dataset_of(kind, listed, indexed), workers, batch)
        by_itself.set_epoch(epoch)
        alone.append([[int(n) for n in taken] for taken in by_itself])
    for _ in range(2):
        dataset = dataset_of(kind, listed, indexed)
        loaders = loader(dataset, one), loader(dataset, other, 5)
        iterators = [iter(each) for each in loaders]
        dataset.set_epoch(7)  # for those that are made later
        taken = [[], []]  # type: ignore[var-annotated]
        for mine, batches in zip(taken, iterators, strict=True):
            mine.append([int(n) for n in next(batches)])
        states = [each.state_dict() for each in loaders]
        for mine, rest in zip(taken, in_turns(*iterators), strict=True):
            mine.extend(rest)
        assert taken == alone
        for state, workers, batch, whole in zip(states, (one, other), (8, 5), alone, strict=True):
            again = loader(dataset_of(kind, listed, indexed), workers, batch)
            again.load_state_dict(state)
            assert whole[:1] + [[int(n) for n in mine] for mine in again] == whole
        assert loaders[0].state_dict()["epoch"] == 1
        third = loader(dataset, 0)
        assert third.state_dict()["epoch"] == 7


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.parametrize("ours", [True, False])
def test_persistent_workers_of_each_stay_with_it(indexed: Manifest, method: str, ours: bool) -> None:
    dataset = stream(indexed, batch_size=None if ours else 8)
    make: Any = DataLoader if ours else torch.utils.data.DataLoader
    options = {"num_workers": 2, "persistent_workers": True, "multiprocessing_context": method}
    loaders = make(dataset, batch_size=8, **options), make(dataset, batch_size=8, **options)
    epochs = [taken for _ in range(2) for taken in in_turns(*loaders)]
    assert [sorted(flat(epoch)) for epoch in epochs] == [EVERYTHING] * 4
    alone = DataLoader(stream(indexed), batch_size=8)
    assert sorted(map(str, epochs)) == sorted(str(batches_of(alone)) for _ in range(4))


@pytest.mark.parametrize("kind", ["indexed", "unindexed", "mixed", "staged"])
def test_workers_of_pytorchs_agree_among_themselves(listed: Manifest, indexed: Manifest, kind: str) -> None:
    """Their loaders say nothing to their workers, which find out whose they are."""
    dataset = dataset_of(kind, listed, indexed, batch_size=8)
    alone = torch.utils.data.DataLoader(dataset, batch_size=8, num_workers=3)
    dataset.set_epoch(0)
    epochs = [[[int(n) for n in batch] for batch in alone] for _ in range(2)]
    for _ in range(3):
        dataset.set_epoch(0)
        generators = [torch.Generator().manual_seed(5) for _ in range(2)]  # whose workers have the same seeds
        loaders = [
            torch.utils.data.DataLoader(dataset, batch_size=8, num_workers=3, generator=generator)
            for generator in generators
        ]
        taken = in_turns(*loaders)
        assert sorted(map(str, taken)) == sorted(map(str, epochs))


def test_of_map_datasets(indexed: Manifest) -> None:
    dataset = S3MapDataset.from_manifest(indexed, transform=number)
    loaders = [DataLoader(dataset, batch_size=8, shuffle=True, num_workers=workers) for workers in (0, 2)]
    alone = [[int(n) for n in batch] for batch in loaders[0]]
    loaders[0].set_epoch(0)
    assert in_turns(*loaders) == [alone, alone]
    one = loaders[0]
    one.set_epoch(0)
    first, second = iter(one), iter(one)
    assert next(first).tolist() == alone[0]
    next(second)
    next(second)
    assert (one.state_dict()["epoch"], one.state_dict()["batches"]) == (1, 2)


def test_a_stage_and_its_source(indexed: Manifest) -> None:
    source = stream(indexed)
    staged = source.filter(keep)
    loaders = DataLoader(source, batch_size=8, num_workers=2), DataLoader(staged, batch_size=8, num_workers=2)
    one, other = in_turns(*loaders)
    assert sorted(flat(one)) == EVERYTHING
    assert sorted(flat(other)) == list(filter(keep, EVERYTHING))
    assert sorted(int(n) for batch in loaders[0] for n in batch) == EVERYTHING


class TestLoading:
    def test_an_iterator_that_is_there_is_refused(self, indexed: Manifest) -> None:
        for make in (lambda: stream(indexed), lambda: stream(indexed).filter(keep)):
            dataset: Any = make()
            state = dataset.state_dict()
            samples = iter(dataset)
            with pytest.raises(RuntimeError, match="decided when it was made"):
                dataset.load_state_dict(state)
            next(samples)
            with pytest.raises(RuntimeError, match="going on"):
                dataset.load_state_dict(state)
            del samples
            dataset.load_state_dict(state)

    def test_of_a_mixture(self, indexed: Manifest) -> None:
        dataset = MixedDataset([stream(indexed)], [1])
        state = dataset.state_dict()
        samples = iter(dataset)
        with pytest.raises(RuntimeError, match="decided when it was made"):
            dataset.load_state_dict(state)
        next(samples)
        with pytest.raises(RuntimeError, match="going on"):
            dataset.load_state_dict(state)

    def test_of_loaders_and_samplers(self, indexed: Manifest) -> None:
        loader = DataLoader(stream(indexed), batch_size=8, num_workers=2)
        state = loader.state_dict()
        batches = iter(loader)
        with pytest.raises(RuntimeError, match="going on"):
            loader.load_state_dict(state)
        del batches
        loader.load_state_dict(state)
        sampler = BatchSampler(100, 8)
        state = sampler.state_dict()
        indices = iter(sampler)
        sampler.load_state_dict(state)  # its place is decided with its first batch
        next(indices)
        with pytest.raises(RuntimeError, match="going on"):
            sampler.load_state_dict(state)

    def test_what_the_parent_iterates_over_does_not_go_on_in_a_worker(self, indexed: Manifest) -> None:
        stateful = pytest.importorskip("torchdata.stateful_dataloader")

        def loader(dataset: Any) -> Any:
            return stateful.StatefulDataLoader(dataset, batch_size=8, num_workers=2)

        dataset = stream(indexed, batch_size=8)
        first = loader(dataset)
        batches = iter(first)
        before = [int(n) for n in next(batches)]
        state = first.state_dict()
        other = stream(indexed, batch_size=8)
        looking = iter(other)
        next(looking)
        second = loader(other)
        second.load_state_dict(state)
        assert sorted(before + [int(n) for batch in second for n in batch]) == EVERYTHING
