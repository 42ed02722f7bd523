"""Sharding: any number of ranks and workers read disjoint parts that make up the whole."""

from collections import Counter
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from s3dataset._order import BatchPlan, Tail, reader_batches, reader_positions, reader_sample_count

sizes = st.integers(0, 300)
batch_sizes = st.integers(1, 33)
stream_counts = st.sampled_from([1, 1, 2, 7, 64])
worlds = st.integers(1, 6)
workers = st.integers(1, 6)


def positions(plan: BatchPlan, rank: int, worker: int, num_workers: int, chunk: int = 64) -> list[int]:
    return list(
        chain.from_iterable(reader_positions(plan, rank=rank, worker=worker, num_workers=num_workers, chunk=chunk))
    )


@given(n=sizes, batch_size=batch_sizes, streams=stream_counts, world_size=worlds, num_workers=workers)
def test_readers_are_disjoint_and_complete(
    n: int, batch_size: int, streams: int, world_size: int, num_workers: int
) -> None:
    plan = BatchPlan(n, batch_size, world_size, "exact", streams)
    seen = Counter(
        chain.from_iterable(
            positions(plan, rank, worker, num_workers) for rank in range(world_size) for worker in range(num_workers)
        )
    )
    assert seen == Counter(range(n))


@given(
    n=sizes,
    batch_size=batch_sizes,
    streams=stream_counts,
    world_size=worlds,
    num_workers=workers,
    tail=st.sampled_from(["pad", "drop", "exact"]),
)
def test_a_loader_that_takes_batches_in_turn_gets_the_ranks_own_order(
    n: int, batch_size: int, streams: int, world_size: int, num_workers: int, tail: Tail
) -> None:
    plan = BatchPlan(n, batch_size, world_size, tail, streams)
    for rank in range(world_size):
        readers = [
            list(reader_batches(plan, rank=rank, worker=worker, num_workers=num_workers))
            for worker in range(num_workers)
        ]
        in_turn = [readers[k % num_workers][k // num_workers] for k in range(plan.steps(rank))]
        assert [list(batch) for batch in in_turn] == [list(plan.rank_batch(rank, k)) for k in range(plan.steps(rank))]


@given(
    n=sizes,
    batch_size=batch_sizes,
    world_size=worlds,
    num_workers=workers,
    tail=st.sampled_from(["pad", "drop", "exact"]),
    chunk=st.integers(1, 100),
)
def test_positions_are_the_batches_laid_end_to_end(
    n: int, batch_size: int, world_size: int, num_workers: int, tail: Tail, chunk: int
) -> None:
    plan = BatchPlan(n, batch_size, world_size, tail)
    for rank in range(world_size):
        for worker in range(num_workers):
            batches = reader_batches(plan, rank=rank, worker=worker, num_workers=num_workers)
            expected = list(chain.from_iterable(batches))
            assert positions(plan, rank, worker, num_workers, chunk) == expected
            assert reader_sample_count(plan, rank=rank, worker=worker, num_workers=num_workers) == len(expected)


@given(n=sizes, batch_size=batch_sizes, num_workers=workers, data=st.data())
def test_an_epoch_can_begin_at_any_step_with_any_number_of_workers(
    n: int, batch_size: int, num_workers: int, data: st.DataObject
) -> None:
    plan = BatchPlan(n, batch_size)
    first = data.draw(st.integers(0, plan.steps(0)))
    readers = [
        list(chain.from_iterable(reader_positions(plan, rank=0, worker=worker, num_workers=num_workers, first=first)))
        for worker in range(num_workers)
    ]
    assert sorted(chain.from_iterable(readers)) == [
        place for k in range(first, plan.steps(0)) for place in plan.batch(k)
    ]


@given(n=sizes, world_size=worlds, num_workers=workers, batch_size=batch_sizes)
def test_padded_ranks_have_equal_loads_worker_by_worker(
    n: int, world_size: int, num_workers: int, batch_size: int
) -> None:
    """So a loader that cuts batches by itself makes as many on every rank, and DDP does not wait for ever."""
    plan = BatchPlan(n, batch_size, world_size, "pad")
    loads = {
        tuple(
            reader_sample_count(plan, rank=rank, worker=worker, num_workers=num_workers)
            for worker in range(num_workers)
        )
        for rank in range(world_size)
    }
    assert len(loads) == 1
