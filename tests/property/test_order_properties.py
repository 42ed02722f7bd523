"""The order of an epoch: the permutation, the cut into streams and batches, and the tail."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3dataset._order import BatchPlan, Permutation

sizes = st.integers(0, 400)
batch_sizes = st.integers(1, 40)
stream_counts = st.integers(1, 70)
worlds = st.integers(1, 9)


@given(n=st.integers(0, 3000), seed=st.integers(), epoch=st.integers())
def test_a_permutation_holds_each_element_once(n: int, seed: int, epoch: int) -> None:
    assert sorted(Permutation(n, seed=seed, epoch=epoch)) == list(range(n))


@given(n=st.integers(1, 10**12), seed=st.integers(), data=st.data())
def test_an_element_does_not_depend_on_how_it_is_asked_for(n: int, seed: int, data: st.DataObject) -> None:
    permutation = Permutation(n, seed=seed)
    places = data.draw(st.lists(st.integers(0, n - 1), max_size=20))
    assert permutation.take(places) == [permutation[place] for place in places]
    assert len(set(permutation.take(sorted(set(places))))) == len(set(places))
    assert all(0 <= element < n for element in permutation.take(places))


@given(n=sizes, batch_size=batch_sizes, streams=stream_counts)
def test_global_batches_cover_the_row_and_only_the_last_is_short(n: int, batch_size: int, streams: int) -> None:
    plan = BatchPlan(n, batch_size, streams=streams)
    batches = [plan.batch(j) for j in range(plan.num_batches)]
    assert sorted(place for batch in batches for place in batch) == list(range(n))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(0 < len(batch) <= batch_size for batch in batches)


@given(n=sizes, batch_size=batch_sizes, streams=stream_counts)
def test_streams_are_contiguous_and_follow_one_another(n: int, batch_size: int, streams: int) -> None:
    plan = BatchPlan(n, batch_size, streams=streams)
    row: list[int] = []
    for stream in range(streams):
        for j in range(stream, plan.num_batches, streams):
            row += plan.batch(j)
    assert row == list(range(n))


@given(n=sizes, batch_size=batch_sizes, streams=stream_counts, world_size=worlds)
def test_ranks_take_the_same_global_batches_whatever_the_world_size(
    n: int, batch_size: int, streams: int, world_size: int
) -> None:
    alone = BatchPlan(n, batch_size, streams=streams)
    plan = BatchPlan(n, batch_size, world_size, "exact", streams)
    steps = max((plan.steps(rank) for rank in range(world_size)), default=0)
    dealt = [plan.rank_batch(rank, k) for k in range(steps) for rank in range(world_size) if k < plan.steps(rank)]
    assert dealt == [alone.batch(j) for j in range(alone.num_batches)]


@given(n=sizes, batch_size=batch_sizes, streams=stream_counts, world_size=worlds)
def test_pad_gives_every_rank_the_same_steps_and_repeats_fewer_samples_than_ranks(
    n: int, batch_size: int, streams: int, world_size: int
) -> None:
    plan = BatchPlan(n, batch_size, world_size, "pad", streams)
    assert len({plan.steps(rank) for rank in range(world_size)}) == 1
    seen: Counter[int] = Counter()
    for k in range(plan.steps(0)):
        batches = [plan.rank_batch(rank, k) for rank in range(world_size)]
        assert len({len(batch) for batch in batches}) == 1
        for batch in batches:
            seen.update(batch)
    assert set(seen) == set(range(n))
    assert seen.total() - n == plan.repeated_samples < world_size


@given(n=sizes, batch_size=batch_sizes, streams=stream_counts, world_size=worlds)
def test_drop_gives_full_batches_only_and_leaves_less_than_a_step(
    n: int, batch_size: int, streams: int, world_size: int
) -> None:
    plan = BatchPlan(n, batch_size, world_size, "drop", streams)
    batches = [plan.rank_batch(rank, k) for rank in range(world_size) for k in range(plan.steps(rank))]
    places = [place for batch in batches for place in batch]
    assert len({plan.steps(rank) for rank in range(world_size)}) == 1
    assert all(len(batch) == batch_size for batch in batches)
    assert len(set(places)) == len(places)
    assert 0 <= n - len(places) < batch_size * world_size


@given(n=st.integers(1, 400), batch_size=batch_sizes, world_size=worlds, steps=st.integers(1, 30))
def test_a_fixed_number_of_steps_is_kept_by_every_rank(n: int, batch_size: int, world_size: int, steps: int) -> None:
    plan = BatchPlan(n, batch_size, world_size, steps_per_epoch=steps)
    batches = [plan.rank_batch(rank, k) for k in range(steps) for rank in range(world_size)]
    assert [plan.steps(rank) for rank in range(world_size)] == [steps] * world_size
    assert all(len(batch) == batch_size for batch in batches)
    places = [place for batch in batches for place in batch]
    if len(places) >= n + batch_size:
        assert set(places) == set(range(n))
    elif len(places) <= n:
        assert len(set(places)) == len(places)


@given(n=sizes, batch_size=batch_sizes, world_size=worlds, tail=st.sampled_from(["pad", "drop", "exact"]))
def test_a_rank_counts_its_samples_right(n: int, batch_size: int, world_size: int, tail: str) -> None:
    plan = BatchPlan(n, batch_size, world_size, tail)  # type: ignore[arg-type]
    for rank in range(world_size):
        assert plan.samples(rank) == sum(len(plan.rank_batch(rank, k)) for k in range(plan.steps(rank)))


def test_steps_beyond_the_epoch_are_refused() -> None:
    plan = BatchPlan(10, 4, 2)
    with pytest.raises(IndexError, match="step 2 of 2 of rank 0"):
        plan.rank_batch(0, 2)
    with pytest.raises(IndexError, match="rank 2 of 2"):
        plan.rank_batch(2, 0)
