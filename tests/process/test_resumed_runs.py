"""What a run that was resumed does next, and what copies, later epochs and other loaders make of a state."""

import copy
import itertools
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch.utils.data
from tests.process.shard_world import COUNTS, batches_of, flat, number, split

from s3dataset import BatchSampler, DataLoader, Manifest, S3IterableDataset, S3MapDataset, Shuffle, Split, merge_states

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:.*multi-threaded.*fork")

EVERYTHING = list(range(sum(COUNTS)))


def stream(manifest: Manifest, **options: Any) -> S3IterableDataset[int]:
    options = {"shuffle": True, **options}
    return S3IterableDataset.from_manifest(manifest, format="tar", transform=number, **options)


def map_loader(manifest: Manifest, **options: Any) -> DataLoader[Any]:
    dataset = S3MapDataset.from_manifest(manifest, transform=number)
    return DataLoader(dataset, batch_size=8, shuffle=True, **options)


class TestEpochs:
    @pytest.mark.parametrize("kind", ["indexed", "unindexed", "workers", "map"])
    def test_to_name_the_epoch_of_a_state_goes_on_from_it(self, listed: Manifest, indexed: Manifest, kind: str) -> None:
        def loader() -> DataLoader[Any]:
            if kind == "map":
                return map_loader(indexed)
            dataset = stream(listed if kind == "unindexed" else indexed)
            return DataLoader(dataset, batch_size=8, num_workers=2 if kind == "workers" else 0)

        first = loader()
        batches_of(first)
        before = batches_of(first, 5)
        state = first.state_dict()
        second = loader()
        second.load_state_dict(state)
        epochs = []
        for epoch in range(state["epoch"], 4):
            second.set_epoch(epoch)
            epochs.append(batches_of(second))
        epochs[0] = before + epochs[0]
        assert [sorted(flat(epoch)) for epoch in epochs] == [EVERYTHING] * 3

    @pytest.mark.parametrize("kind", ["stream", "map"])
    def test_a_state_knows_of_the_epoch_that_was_named(self, indexed: Manifest, kind: str) -> None:
        loader = map_loader(indexed) if kind == "map" else DataLoader(stream(indexed), batch_size=8)
        batches_of(loader)
        loader.set_epoch(5)
        assert loader.state_dict()["epoch"] == 5
        batches = iter(loader)
        next(batches)
        loader.set_epoch(7)  # for the next one
        state = loader.state_dict()
        assert (state["epoch"], state["batches"]) == (5, 1)

    def test_of_a_bare_loop_too(self, indexed: Manifest) -> None:
        dataset = stream(indexed)
        list(dataset)
        dataset.set_epoch(5)
        assert dataset.state_dict()["epoch"] == 5

    def test_later_epochs_are_those_of_the_run_that_was_left(self, indexed: Manifest) -> None:
        """3 workers make another number of streams than 1, so that batches come in another order."""
        whole = DataLoader(stream(indexed), batch_size=1, num_workers=3)
        epochs = [batches_of(whole) for _ in range(3)]
        first = DataLoader(stream(indexed), batch_size=1, num_workers=3)
        before = batches_of(first, 70)
        second = DataLoader(stream(indexed), batch_size=1)
        second.load_state_dict(first.state_dict())
        assert before + batches_of(second) == epochs[0]
        assert batches_of(second) == epochs[1]
        third = DataLoader(stream(indexed), batch_size=1)
        third.load_state_dict(second.state_dict())
        third.set_epoch(2)
        assert batches_of(third) == epochs[2]

    def test_runs_that_begin_with_other_workers_take_the_same_batches_of_named_streams(self, indexed: Manifest) -> None:
        def epoch(num_workers: int, streams: int | None) -> list[Any]:
            dataset = stream(indexed, shuffle=Shuffle(seed=1, streams=streams))
            return batches_of(DataLoader(dataset, batch_size=1, num_workers=num_workers))

        assert epoch(3, 64) == epoch(1, 64) == epoch(0, 64)
        assert epoch(3, None) != epoch(0, None)
        assert batches_of(map_loader(indexed, num_workers=3)) == batches_of(map_loader(indexed))

    def test_a_length_is_that_of_a_whole_epoch(self, indexed: Manifest) -> None:
        for make in (lambda: map_loader(indexed), lambda: DataLoader(stream(indexed), batch_size=8)):
            first = make()
            batches_of(first, 5)
            second = make()
            second.load_state_dict(first.state_dict())
            assert len(first) == len(second) == 18


class TestCopies:
    @pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
    def test_they_count_epochs_by_themselves(self, indexed: Manifest, duplicate: Any) -> None:
        epochs = [list(one) for one in itertools.repeat(stream(indexed), 4)]
        dataset = stream(indexed)
        dataset.set_epoch(1)
        twin = duplicate(dataset)
        assert list(dataset) == epochs[1]
        assert [list(twin), list(twin)] == epochs[1:3]
        assert list(dataset) == epochs[2]
        assert list(duplicate(dataset)) == epochs[3]

    @pytest.mark.parametrize("duplicate", [copy.copy, lambda one: pickle.loads(pickle.dumps(one))])
    def test_they_go_on_from_a_loaded_state(self, indexed: Manifest, duplicate: Any) -> None:
        dataset = stream(indexed)
        samples = iter(dataset)
        taken = [next(samples) for _ in range(20)]
        state = dataset.state_dict()
        other = stream(indexed)
        other.load_state_dict(state)
        assert sorted(taken + list(duplicate(other))) == EVERYTHING
        assert sorted(taken + list(other)) == EVERYTHING

    def test_each_has_the_batch_size_of_its_loader(self, indexed: Manifest) -> None:
        one = stream(indexed)
        other = copy.copy(one)
        loaders = DataLoader(one, batch_size=8, num_workers=1), DataLoader(other, batch_size=16, num_workers=2)
        iterators = [iter(loader) for loader in loaders]
        for batches, size in zip(iterators, (8, 16), strict=True):
            taken = [batch.tolist() for batch in batches]
            assert sorted(flat(taken)) == EVERYTHING
            assert {len(batch) for batch in taken[:-1]} == {size}


class TestStates:
    def test_one_of_some_streams_is_not_taken_for_one_of_all(self, listed: Manifest) -> None:
        loaders = [
            DataLoader(stream(listed, shuffle=Shuffle(streams=4), enable_sharding=split(rank, 2)), batch_size=4)
            for rank in range(2)
        ]
        for loader in loaders:
            batches_of(loader, 4)
        alone = DataLoader(stream(listed, shuffle=Shuffle(streams=4)), batch_size=4)
        alone.load_state_dict(loaders[0].state_dict())
        with pytest.raises(ValueError, match="merge_states"):
            next(iter(alone))

    def test_of_pytorchs_loader_with_any_workers(self, indexed: Manifest) -> None:
        def theirs(dataset: Any) -> Any:
            return torch.utils.data.DataLoader(dataset, batch_size=1, num_workers=3)

        whole = batches_of(theirs(stream(indexed, batch_size=1)))
        dataset = stream(indexed, batch_size=1)
        taken = batches_of(theirs(dataset), 80)
        other = stream(indexed, batch_size=1)
        other.load_state_dict(dataset.state_dict(batches_consumed=80))
        assert taken + batches_of(theirs(other)) == whole

    def test_a_derived_class_that_leaves_samples_out_is_refused(self, indexed: Manifest) -> None:
        class Odd(S3IterableDataset[int]):
            def __iter__(self) -> Iterator[int]:
                return (sample for sample in super().__iter__() if sample % 2)

        class Counted(Odd):
            def __len__(self) -> int:
                return sum(number % 2 for number in EVERYTHING)

        for kind in (Odd, Counted):
            loader = DataLoader(kind.from_manifest(indexed, format="tar", transform=number), batch_size=8)
            batches_of(loader, 2)
            if kind is Odd:
                with pytest.raises(ValueError, match="does not follow from its batches"):
                    loader.state_dict()
            else:
                assert loader.state_dict()["batches"] == 2

    def test_a_fresh_state_lets_other_workers_share_anew(self, listed: Manifest) -> None:
        first = DataLoader(stream(listed), batch_size=8)
        batches_of(first)
        second = DataLoader(stream(listed), batch_size=8, num_workers=3)
        second.load_state_dict(first.state_dict())
        taken = batches_of(second, 6)
        state = second.state_dict()
        assert (state["epoch"], state["streams"]) == (1, 3)
        third = DataLoader(stream(listed), batch_size=8)
        third.load_state_dict(state)
        assert sorted(flat(taken + batches_of(third))) == EVERYTHING


@pytest.mark.filterwarnings("ignore:.* is deprecated")
class TestUnderStatefulDataLoader:
    def loader(self, manifest: Manifest, workers: int, stages: bool = False) -> Any:
        stateful = pytest.importorskip("torchdata.stateful_dataloader")
        dataset: Any = stream(manifest, batch_size=8)
        return stateful.StatefulDataLoader(
            dataset.filter(keep) if stages else dataset, batch_size=8, num_workers=workers
        )

    @pytest.mark.parametrize("kind", ["indexed", "unindexed", "staged"])
    def test_any_batch_may_be_the_last_one(self, listed: Manifest, indexed: Manifest, kind: str) -> None:
        """Some workers end before others do, which must not begin the next epoch."""

        def make() -> Any:
            return self.loader(listed if kind == "unindexed" else indexed, 2, kind == "staged")

        loader = make()
        epochs = [batches_of(loader) for _ in range(2)]
        steps = len(epochs[0])
        for taken in (1, steps - 2, steps - 1, steps):
            first = make()
            batches = iter(first)
            before = [next(batches).tolist() for _ in range(taken)]
            state = first.state_dict()
            del batches
            second = make()
            second.load_state_dict(state)
            assert before + batches_of(second) == epochs[0]
            assert batches_of(second) == epochs[1]

    @pytest.mark.parametrize("kind", ["indexed", "unindexed"])
    @pytest.mark.parametrize("workers", [0, 2])
    def test_no_epoch_is_left_out_behind_one(
        self, listed: Manifest, indexed: Manifest, kind: str, workers: int
    ) -> None:
        manifest = listed if kind == "unindexed" else indexed
        first = self.loader(manifest, workers)
        batches_of(first)
        state = first.state_dict()
        second = self.loader(manifest, workers)
        second.load_state_dict(state)
        assert batches_of(second) == batches_of(first)


def keep(_: int) -> bool:
    return True


class TestFixedSteps:
    @pytest.mark.parametrize("kind", ["stream", "map"])
    def test_rows_that_repeat(self, indexed: Manifest, kind: str) -> None:
        """143 samples make 18 batches of 8; the epoch has 30."""

        def loader() -> DataLoader[Any]:
            if kind == "map":
                return map_loader(indexed, split=Split(steps_per_epoch=30))
            return DataLoader(stream(indexed, enable_sharding=Split(steps_per_epoch=30)), batch_size=8)

        whole = batches_of(loader())
        assert len(whole) == 30
        for steps in (3, 18, 20, 29):
            first = loader()
            taken = batches_of(first, steps)
            state = first.state_dict()
            assert merge_states([state]) == state
            second = loader()
            second.load_state_dict(state)
            assert taken + batches_of(second) == whole

    @pytest.mark.parametrize("batch_size", [3, 8, 10, 60, 142])
    def test_the_last_batch_of_a_row_is_filled_with_its_first_samples_and_the_row_begins_with_them_again(
        self, indexed: Manifest, batch_size: int
    ) -> None:
        row = flat(batches_of(DataLoader(stream(indexed), batch_size=batch_size)))
        filled = row + row[: -len(row) % batch_size]
        steps = 2 * len(filled) // batch_size + 1
        dataset = stream(indexed, enable_sharding=Split(steps_per_epoch=steps))
        assert flat(batches_of(DataLoader(dataset, batch_size=batch_size))) == (3 * filled)[: steps * batch_size]

    @pytest.mark.parametrize("workers", [1, 2, 8])
    def test_workers_without_shards_take_none(self, listed: Manifest, workers: int) -> None:
        loader = DataLoader(
            stream(listed, enable_sharding=Split(steps_per_epoch=30)), batch_size=8, num_workers=workers
        )
        assert [len(batch) for batch in batches_of(loader)] == [8] * 30

    @pytest.mark.parametrize(
        ("ranks", "later", "workers", "workers_later"), [(2, 2, 0, 0), (2, 1, 0, 2), (1, 2, 2, 0), (2, 3, 0, 0)]
    )
    @pytest.mark.parametrize("steps", [0, 17, 29])
    def test_ranks_share_what_is_left(
        self, listed: Manifest, ranks: int, later: int, workers: int, workers_later: int, steps: int
    ) -> None:
        def loaders(count: int, num_workers: int) -> list[DataLoader[Any]]:
            return [
                DataLoader(
                    stream(
                        listed,
                        enable_sharding=Split(rank=rank, world_size=count, steps_per_epoch=30),
                        shuffle=Shuffle(streams=6),
                    ),
                    batch_size=8,
                    num_workers=num_workers,
                )
                for rank in range(count)
            ]

        first = loaders(ranks, workers)
        for loader in first:
            batches_of(loader, steps)
        state = merge_states([loader.state_dict() for loader in first])
        left = max(0, -(-(30 * later - steps * ranks) // later))
        for loader in loaders(later, workers_later):
            loader.load_state_dict(state)
            assert [len(batch) for batch in batches_of(loader)] == [8] * left

    def test_a_rank_without_shards_is_an_error(self, listed: Manifest) -> None:
        dataset = stream(listed, enable_sharding=Split(rank=6, world_size=7, steps_per_epoch=5), batch_size=8)
        with pytest.raises(ValueError, match="rank 6 of 7 has none of the 6 shards"):
            next(iter(dataset))


def test_a_sampler_whose_epoch_is_named_before_its_first_batch(indexed: Manifest) -> None:
    loader = map_loader(indexed)
    batches = iter(loader)
    loader.set_epoch(4)
    taken = [next(batches).tolist()]
    state = loader.state_dict()
    del batches
    other = map_loader(indexed)
    other.load_state_dict(state)
    assert sorted(flat(taken + batches_of(other))) == EVERYTHING
    assert isinstance(loader.batch_sampler, BatchSampler)
