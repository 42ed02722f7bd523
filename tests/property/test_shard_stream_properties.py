"""Un-indexed shards: over stops, other ranks and other workers each sample comes once, as without a stop."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice
from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from s3dataset._order import (
    ReadSample,
    ShardPosition,
    ShardsState,
    ShardStream,
    StreamState,
    deal_shards,
    merge_states,
    next_stream,
    reader_streams,
)

Sample: TypeAlias = tuple[int, int]

shards = st.lists(st.integers(0, 12), max_size=12)
stream_counts = st.integers(1, 8)


class Run:
    """A run over shards of so many samples each, reader by reader."""

    def __init__(self, samples: list[int], state: ShardsState, batch_size: int) -> None:
        self.samples, self.state, self.batch_size = samples, state, batch_size
        self.read = 0

    def open_shard(self, position: ShardPosition) -> Iterator[ReadSample[Sample]]:
        assert position.offset == position.sample * 10
        for number in range(position.sample, self.samples[position.shard]):
            self.read += 1
            yield ReadSample((position.shard, number), 1 + number % 3, number + 1, (number + 1) * 10)

    def streams(self, numbers: range) -> dict[int, "ShardStream[Sample]"]:
        state = self.state
        dealt = deal_shards(
            len(self.samples), state.streams, numbers, seed=state.seed, epoch=state.epoch, shuffle=state.shuffle
        )
        return {
            number: ShardStream(
                state.part(number),
                dealt[number],
                self.open_shard,
                seed=state.seed,
                epoch=state.epoch,
                shuffle=state.shuffle,
                block_bytes=state.block_bytes,
                block_samples=state.block_samples,
                open_shards=state.open_shards,
            )
            for number in numbers
        }

    def read_some(self, numbers: range, wanted: int) -> tuple[list[Sample], ShardsState]:
        """What one reader takes, and what it then knows."""
        streams = self.streams(numbers)
        ended: set[int] = set()
        taken: list[Sample] = []
        while len(taken) < wanted and len(ended) < len(streams):
            given = [(stream.state().given, number) for number, stream in streams.items() if number not in ended]
            number = next_stream(given, self.batch_size)
            sample = next(streams[number], None)
            if sample is None:
                ended.add(number)
            else:
                taken.append(sample)
        state = replace(self.state, parts=tuple(stream.state() for stream in streams.values()))
        return taken, ShardsState.from_dict(json.loads(json.dumps(state.to_dict())))


def begin(
    samples: list[int], streams: int, *, shuffle: bool, block_bytes: int = 9, open_shards: int = 3
) -> ShardsState:
    return ShardsState(
        fingerprint="f",
        num_shards=len(samples),
        seed=5,
        epoch=2,
        shuffle=shuffle,
        block_bytes=block_bytes,
        block_samples=6,
        open_shards=open_shards,
        streams=streams,
        parts=tuple(StreamState(stream) for stream in range(streams)),
    )


@given(
    samples=shards,
    streams=stream_counts,
    shuffle=st.booleans(),
    block_bytes=st.integers(1, 40),
    open_shards=st.integers(1, 4),
    batch_size=st.integers(1, 5),
    data=st.data(),
)
def test_over_stops_and_other_topologies_each_sample_comes_once(
    samples: list[int],
    streams: int,
    shuffle: bool,
    block_bytes: int,
    open_shards: int,
    batch_size: int,
    data: st.DataObject,
) -> None:
    state = begin(samples, streams, shuffle=shuffle, block_bytes=block_bytes, open_shards=open_shards)
    taken: list[Sample] = []
    for last in (False, False, True):
        world_size, num_workers = data.draw(st.integers(1, streams)), data.draw(st.integers(1, 4))
        states = []
        for rank in range(world_size):
            for worker in range(num_workers):
                mine = reader_streams(streams, rank=rank, world_size=world_size, worker=worker, num_workers=num_workers)
                wanted = 10**6 if last else data.draw(st.integers(0, 20))
                part, after = Run(samples, state, batch_size).read_some(mine, wanted)
                taken += part
                states.append(after.to_dict())
        state = ShardsState.from_dict(merge_states(states))
        if state.epoch == 3:  # all have ended, so that it is the next epoch
            break
    assert Counter(taken) == Counter((shard, i) for shard, n in enumerate(samples) for i in range(n))
    assert state.epoch == (3 if samples else 2)
    assert state.parts == tuple(StreamState(stream) for stream in range(streams)) or not samples


@given(samples=shards, shuffle=st.booleans(), repeat=st.booleans(), data=st.data())
def test_a_stream_that_is_stopped_anywhere_goes_on_as_if_it_had_not(
    samples: list[int], shuffle: bool, repeat: bool, data: st.DataObject
) -> None:
    run = Run(samples, begin(samples, 1, shuffle=shuffle), 1)
    dealt = deal_shards(len(samples), 1, [0], seed=5, epoch=2, shuffle=shuffle)[0]

    def stream(state: StreamState) -> "ShardStream[Sample]":
        return ShardStream(
            state, dealt, run.open_shard, seed=5, epoch=2, shuffle=shuffle, block_bytes=9, open_shards=3, repeat=repeat
        )

    enough = 3 * sum(samples) + 2
    whole = list(islice(stream(StreamState(0)), enough + 1))
    assert len(whole) == (enough + 1 if repeat and sum(samples) else sum(samples))
    state = StreamState(0)
    taken: list[Sample] = []
    while len(taken) < min(enough, len(whole)):
        part = stream(state)
        assert part.state() == state
        taken += islice(part, data.draw(st.integers(1, enough - len(taken))))
        state = part.state()
        part.close()
        assert part.state() == state
        assert state.given == len(taken)
        assert taken == whole[: len(taken)]


@given(samples=shards, shuffle=st.booleans(), data=st.data())
def test_a_stream_goes_on_after_an_error_without_losing_a_sample(
    samples: list[int], shuffle: bool, data: st.DataObject
) -> None:
    run = Run(samples, begin(samples, 1, shuffle=shuffle), 1)
    whole = list(run.streams(range(1))[0])
    failing = data.draw(st.sets(st.integers(0, 2 * len(whole) + 1)))
    reads = count()

    def open_shard(position: ShardPosition) -> Iterator[ReadSample[Sample]]:
        for read in run.open_shard(position):
            if next(reads) in failing:
                raise ConnectionError("reset")
            yield read

    dealt = deal_shards(len(samples), 1, [0], seed=5, epoch=2, shuffle=shuffle)[0]
    stream = ShardStream(
        StreamState(0),
        dealt,
        open_shard,
        seed=5,
        epoch=2,
        shuffle=shuffle,
        block_bytes=9,
        block_samples=6,
        open_shards=3,
    )
    taken: list[Sample] = []
    while True:
        assert stream.state().given == len(taken)
        try:
            taken.append(next(stream))
        except ConnectionError:
            continue
        except StopIteration:
            break
    assert taken == whole


@given(samples=st.lists(st.integers(1, 12), min_size=1, max_size=12), data=st.data())
def test_a_resume_reads_no_more_than_a_block_again(samples: list[int], data: st.DataObject) -> None:
    run = Run(samples, begin(samples, 1, shuffle=True), 1)
    stream = run.streams(range(1))[0]
    behind = data.draw(st.integers(0, sum(samples)))
    for _ in range(behind):
        next(stream)
    again = Run(samples, replace(run.state, parts=(stream.state(),)), 1)
    assert len(list(again.streams(range(1))[0])) == sum(samples) - behind
    assert again.read <= sum(samples) - behind + 6


@given(streams=st.integers(1, 40), world_size=st.integers(1, 6), num_workers=st.integers(1, 6))
def test_each_stream_has_one_reader(streams: int, world_size: int, num_workers: int) -> None:
    if world_size > streams:
        return
    dealt = [
        stream
        for rank in range(world_size)
        for worker in range(num_workers)
        for stream in reader_streams(streams, rank=rank, world_size=world_size, worker=worker, num_workers=num_workers)
    ]
    assert sorted(dealt) == list(range(streams))


@given(batch_size=st.integers(1, 4), of_each=st.integers(1, 3), data=st.data())
def test_the_global_batches_come_from_the_streams_in_turn_whatever_the_topology(
    batch_size: int, of_each: int, data: st.DataObject
) -> None:
    world_size, num_workers = data.draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (3, 1), (1, 6), (2, 3), (3, 2)]))
    streams, rounds = 6 * of_each, 4
    samples = [rounds * batch_size * 2] * streams
    run = Run(samples, begin(samples, streams, shuffle=True), batch_size)
    alone, _ = run.read_some(range(streams), rounds * streams * batch_size)
    readers = {}
    for rank in range(world_size):
        for worker in range(num_workers):
            mine = reader_streams(streams, rank=rank, world_size=world_size, worker=worker, num_workers=num_workers)
            readers[rank, worker] = run.read_some(mine, len(mine) * rounds * batch_size)[0]
    merged = []
    for j in range(rounds * streams):
        k, rank = divmod(j, world_size)
        turn = k // num_workers * batch_size
        merged += readers[rank, k % num_workers][turn : turn + batch_size]
    assert merged == alone
