"""Stops and resumes: what is taken is the epoch, each sample once, in the batches of an uninterrupted run."""

import json
from collections import Counter
from itertools import chain
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from s3dataset._order import (
    BatchPlan,
    EpochState,
    Reader,
    Row,
    SampleOrder,
    Tail,
    default_streams,
    merge_states,
    reader_batches,
    resume_state,
)

sizes = st.integers(0, 300)
batch_sizes = st.integers(1, 33)
stream_counts = st.sampled_from([1, 2, 7, 64])
worlds = st.integers(1, 6)
workers = st.integers(1, 5)
tails = st.sampled_from(["pad", "drop", "exact"])


def begin(n: int, batch_size: int, streams: int, **more: Any) -> EpochState:
    return EpochState(
        fingerprint="f", num_samples=n, seed=3, epoch=1, shuffle=True, streams=streams, batch_size=batch_size, **more
    )


def through_json(state: EpochState) -> EpochState:
    text = json.dumps(state.to_dict())
    assert len(text) < 4096
    return EpochState.from_dict(json.loads(text))


def run(plan: BatchPlan, num_workers: int, steps: int | None = None) -> list[list[int]]:
    """The batches that all ranks take in so many steps, in the order of their steps, through their workers."""
    taken = []
    readers = {
        rank: [
            list(reader_batches(plan, rank=rank, worker=worker, num_workers=num_workers))
            for worker in range(num_workers)
        ]
        for rank in range(plan.world_size)
    }
    most = max(plan.steps(rank) for rank in range(plan.world_size))
    for k in range(most if steps is None else steps):
        for rank, of_workers in readers.items():
            if k < plan.steps(rank):
                taken.append(list(of_workers[k % num_workers][k // num_workers]))
    return taken


@given(n=sizes, batch_size=batch_sizes, streams=stream_counts, data=st.data())
def test_the_global_batches_are_those_of_an_uninterrupted_run_whatever_the_topology(
    n: int, batch_size: int, streams: int, data: st.DataObject
) -> None:
    alone = BatchPlan(n, batch_size, streams=streams)
    state = begin(n, batch_size, streams)
    taken: list[list[int]] = []
    for _ in range(data.draw(st.integers(0, 4))):
        world_size, num_workers = data.draw(worlds), data.draw(workers)
        plan = state.plan(world_size=world_size)
        steps = data.draw(st.integers(0, plan.full_steps))
        taken += run(plan, num_workers, steps)
        state = through_json(state.after(steps * world_size))
        assert state.batches == plan.taken(steps)
    taken += run(state.plan(world_size=data.draw(worlds)), data.draw(workers))
    assert taken == [list(alone.batch(j)) for j in range(alone.num_batches)]
    assert state.after(alone.num_batches).is_over == (n > 0)
    assert state.after(alone.num_batches).plan(world_size=data.draw(worlds)).is_over


@given(data=st.data(), seed=st.integers(), epoch=st.integers(), streams=stream_counts)
def test_a_run_with_new_sizes_of_batches_takes_each_sample_once(
    data: st.DataObject, seed: int, epoch: int, streams: int
) -> None:
    samples = data.draw(st.lists(st.integers(0, 40), max_size=10))
    order = SampleOrder(samples, [10 * n for n in samples], seed=seed, epoch=epoch, block_bytes=70)
    state = begin(len(order), data.draw(batch_sizes), streams)
    seen: Counter[int] = Counter()
    for _ in range(data.draw(st.integers(0, 5))):
        world_size = data.draw(worlds)
        row, plan = state.row(), state.plan(world_size=world_size)
        steps = data.draw(st.integers(0, plan.full_steps))
        batches = run(plan, data.draw(workers), steps)
        assert all(len(batch) == state.batch_size for batch in batches)
        seen.update(chain.from_iterable(order.take(row.take(batch)) for batch in batches))
        state = through_json(state.after(steps * world_size).with_batch_size(data.draw(batch_sizes)))
    row = state.row()
    assert state.after(10**6).batches == state.plan(row=row).num_batches
    rest = run(state.plan(world_size=data.draw(worlds), row=row), data.draw(workers))
    seen.update(chain.from_iterable(order.take(row.take(batch)) for batch in rest))
    assert seen == Counter(range(len(order)))


@given(n=sizes, streams=stream_counts, data=st.data())
def test_a_row_tells_its_pieces_as_it_tells_its_places(n: int, streams: int, data: st.DataObject) -> None:
    segments = data.draw(st.lists(st.tuples(batch_sizes, st.integers(1, 20)), max_size=4))
    row = Row(n, streams, segments)
    whole = row.take(range(len(row)))
    assert len(set(whole)) == len(whole)
    start = data.draw(st.integers(0, len(row)))
    stop = data.draw(st.integers(start, len(row)))
    assert list(chain.from_iterable(row.pieces(range(start, stop)))) == list(whole[start:stop])
    places = data.draw(st.lists(st.integers(0, len(row) - 1), max_size=20) if len(row) else st.just([]))
    assert list(row.take(places)) == [whole[place] for place in places]


@given(n=sizes, batch_size=batch_sizes, streams=stream_counts, world_size=worlds, tail=tails, data=st.data())
def test_the_tail_is_dealt_once_at_the_end_also_after_a_resume(
    n: int, batch_size: int, streams: int, world_size: int, tail: Tail, data: st.DataObject
) -> None:
    alone = BatchPlan(n, batch_size, streams=streams)
    first = data.draw(st.integers(0, alone.num_batches))
    plan = begin(n, batch_size, streams, batches=first).plan(world_size=world_size, tail=tail)
    left = Counter(place for j in range(first, alone.num_batches) for place in alone.batch(j))
    steps = [plan.steps(rank) for rank in range(world_size)]
    taken = Counter(chain.from_iterable(run(plan, data.draw(workers))))
    for rank in range(world_size):
        assert plan.samples(rank) == sum(len(plan.rank_batch(rank, k)) for k in range(steps[rank]))
    if tail == "exact":
        assert taken == left
        assert max(steps) - min(steps) <= 1
    elif tail == "drop":
        assert taken <= left
        assert 0 <= (left - taken).total() < world_size * batch_size
        assert len(set(steps)) == 1
    else:
        assert taken.keys() >= left.keys()
        assert (taken - left).total() == plan.repeated_samples < world_size
        assert len(set(steps)) == 1


@given(
    n=st.integers(1, 200),
    batch_size=batch_sizes,
    streams=stream_counts,
    world_size=worlds,
    steps=st.integers(1, 40),
    data=st.data(),
)
def test_a_fixed_number_of_steps_is_kept_over_resumes(
    n: int, batch_size: int, streams: int, world_size: int, steps: int, data: st.DataObject
) -> None:
    state = begin(n, batch_size, streams, repeat=True)
    whole = run(state.plan(world_size=world_size, steps_per_epoch=steps), 1)
    assert len(whole) == steps * world_size
    stop = data.draw(st.integers(0, steps))
    state = through_json(state.after(stop * world_size))
    rest = run(state.plan(world_size=world_size, steps_per_epoch=steps), data.draw(workers))
    assert rest == whole[stop * world_size :]
    other = data.draw(worlds)
    plan = state.plan(world_size=other, steps_per_epoch=steps)
    left = max(0, steps * other - stop * world_size)
    assert {plan.steps(rank) for rank in range(other)} == {-(-left // other)}


@given(n=st.integers(1, 120), streams=stream_counts, steps=st.integers(1, 60), data=st.data())
def test_a_new_size_of_batches_in_a_repeating_epoch_ends_the_lap_and_then_repeats_all(
    n: int, streams: int, steps: int, data: st.DataObject
) -> None:
    state = begin(n, data.draw(batch_sizes), streams, repeat=True)
    seen: Counter[int] = Counter()
    filled = 0  # samples that came early, to fill up the short batch of a lap
    for _ in range(3):
        row, plan = state.row(), state.plan(steps_per_epoch=steps)
        stop = data.draw(st.integers(0, plan.steps(0)))
        for k in range(stop):
            batch = plan.rank_batch(0, k)
            assert len(batch) == state.batch_size
            seen.update(row.take(batch))
            filled += state.batch_size
        state = through_json(state.after(stop).with_batch_size(data.draw(batch_sizes)))
    row, plan = state.row(), state.plan(steps_per_epoch=10**6)
    size = state.batch_size
    for k in range(-(-len(row) // size)):
        seen.update(row.take(plan.rank_batch(0, k)))
    assert set(seen) == set(range(n))
    lap = [place for k in range(-(-n // size)) for place in row.take(plan.rank_batch(0, -(-len(row) // size) + k))]
    assert set(lap) == set(range(n))


@given(
    n=sizes,
    batch_size=batch_sizes,
    streams=stream_counts,
    world_size=worlds,
    num_workers=workers,
    tail=tails,
    data=st.data(),
)
def test_what_single_workers_know_makes_the_elastic_state(
    n: int, batch_size: int, streams: int, world_size: int, num_workers: int, tail: Tail, data: st.DataObject
) -> None:
    base = begin(n, batch_size, streams)
    plan = base.plan(world_size=world_size, tail=tail)
    steps = data.draw(st.integers(0, max(plan.steps(rank) for rank in range(world_size))))
    states = []
    for rank in range(world_size):
        mine = [plan.rank_batch(rank, k) for k in range(min(steps, plan.steps(rank)))]
        for worker in range(num_workers):
            taken = sum(len(batch) for batch in mine[worker::num_workers])
            states.append(
                EpochState.from_dict(
                    base.to_dict() | {"reader": [rank, world_size, worker, num_workers], "taken": taken}
                ).to_dict()
            )
    merged = EpochState.from_dict(merge_states(json.loads(json.dumps(data.draw(st.permutations(states))))))
    after = base.after(steps * world_size)
    assert after.batches == plan.taken(steps)
    assert merged == (after.next_epoch() if after.is_over else after)
    if after.is_over:
        assert base.plan(world_size=world_size).taken(steps) == plan.num_batches
    # One rank's loader knows the same.
    rank = data.draw(st.integers(0, world_size - 1))
    if steps <= plan.steps(rank):
        mine_only = [state for state in states if state["reader"][0] == rank]
        snapshot = {
            "_snapshot": {
                "_main_snapshot": {"_num_workers": num_workers},
                "_worker_snapshots": {
                    f"worker_{worker}": {"dataset_state": state, "fetcher_state": {"dataset_iter_state": None}}
                    for worker, state in enumerate(mine_only)
                },
            },
            "_steps_since_snapshot": 0,
            "_iterator_finished": False,
        }
        assert resume_state(snapshot) == merged.to_dict()


@given(ranks=worlds, num_workers=st.integers(0, 9), held=st.integers(1, 1 << 30), budget=st.integers(0, 1 << 32))
def test_streams_are_a_multiple_of_the_readers(ranks: int, num_workers: int, held: int, budget: int) -> None:
    readers = ranks * max(1, num_workers)
    free = default_streams(ranks, num_workers)
    assert free % readers == 0
    assert 64 <= free < 64 + readers
    bound = default_streams(ranks, num_workers, held_bytes=held, budget=budget)
    assert bound % readers == 0
    assert readers <= bound <= free
    assert bound == readers or bound // readers * held <= budget


def test_a_reader_is_part_of_the_state_of_a_worker() -> None:
    state = begin(10, 2, 1, reader=Reader(0, 2, 1, 3), taken=4)
    assert through_json(state) == state
