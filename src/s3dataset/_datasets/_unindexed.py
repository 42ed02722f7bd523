"""Iterating over shards without an index, from their beginnings on."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Generic, TypeVar, cast

from s3dataset._datasets._bad_samples import BadPolicy
from s3dataset._datasets._sample_rng import Draws, name_of_unindexed
from s3dataset._datasets._shard_opener import ShardOpener
from s3dataset._datasets._shard_samples import ShardSampleMaker
from s3dataset._order import (
    Reader,
    ReadSample,
    ShardPosition,
    ShardsState,
    ShardStream,
    deal_shards,
    next_stream,
    reader_streams,
)
from s3dataset.errors import DecodeError
from s3dataset.formats import Cursor, Sample

if TYPE_CHECKING:
    from s3dataset._datasets._counters import Counters
    from s3dataset._manifest import Manifest

__all__ = ["UnindexedEpoch", "exactly", "samples_of_reader"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_FOLLOWING: Final = 32
"""Shards of which it is known that they come next; how many of them are fetched ahead is a matter of bytes."""


def samples_of_reader(state: ShardsState, reader: Reader, steps: int, batch_size: int) -> int:
    """How many samples a reader gives in what is left of an epoch of so many steps of each rank.

    The workers of a rank that have shards share its steps. With the state of all streams the ranks share what is left
    of steps x world_size batches, in whole steps, rounded up, so that each takes as many.

    Raises:
        ValueError: This rank has no shards.
    """
    given = {part.stream: part.given for part in state.parts}
    streams = [
        reader_streams(state.streams, **reader._replace(worker=worker)._asdict())
        for worker in range(reader.num_workers)
    ]
    reading = [worker for worker, mine in enumerate(streams) if mine and mine.start < state.num_shards]
    if not reading:
        raise ValueError(
            f"rank {reader.rank} of {reader.world_size} has none of the {state.num_shards} shards to take its steps "
            "from: have as many shards as ranks at least, or make an index with `s3dataset index`"
        )
    if reader.worker not in reading:
        return 0
    of_rank = [stream for mine in streams for stream in mine]
    taken = 0  # of this reader alone, where its state knows of nobody else
    if not state.missing:
        left = steps * reader.world_size * batch_size - sum(given.values())
        steps = max(0, -(-left // (reader.world_size * batch_size)))
    elif all(stream in given for stream in of_rank):
        steps = max(0, -(-(steps * batch_size - sum(given[stream] for stream in of_rank)) // batch_size))
    else:
        taken = sum(given.get(stream, 0) for stream in streams[reader.worker])
    mine = range(reading.index(reader.worker), steps, len(reading))
    return max(0, len(mine) * batch_size - taken)


def exactly(samples: Iterable[T], count: int) -> Iterator[T]:
    """Hands on so many samples.

    Raises:
        ValueError: There are none to repeat.
    """
    left = count
    for sample in islice(samples, count):
        left -= 1
        yield sample
    if left:
        raise ValueError(
            f"the shards of this reader hold no samples, and steps_per_epoch asks for {left} more of them: leave out "
            "empty shards, or make an index with `s3dataset index`"
        )


class UnindexedEpoch(Generic[T_co]):
    """A reader's part of an epoch over shards without an index: an iterator that knows where it stands.

    Its streams take turns of a batch. Belongs to one thread of one process. Memory: a block for each stream where they
    are shuffled, and what a reader fetches ahead for each open shard.

    Args:
        maker: Makes the samples.
        manifest: The shards.
        state: Where the epoch begins.
        streams: Those of this reader.
        batch_size: Samples of a turn.
        repeat: Without end.
        counters: Where time and bytes are counted.
        bad: What becomes of bad samples; default: they raise.
        reader_constructor: The user's choice of readers.
    """

    def __init__(
        self,
        maker: ShardSampleMaker[T_co],
        manifest: "Manifest",
        state: ShardsState,
        streams: range,
        batch_size: int,
        counters: "Counters",
        *,
        repeat: bool = False,
        bad: BadPolicy[T_co] | None = None,
        reader_constructor: Any = None,
    ) -> None:
        self._maker = maker
        self._manifest = manifest
        self._begin = state
        self._batch_size = batch_size
        self._counters = counters
        self._bad = bad
        self._constructor = reader_constructor
        self._opener: ShardOpener | None = None
        dealt = deal_shards(
            len(manifest), state.streams, streams, seed=state.seed, epoch=state.epoch, shuffle=state.shuffle
        )
        self._streams = {
            number: ShardStream(
                state.part(number),
                shards,
                self._opens(shards),
                seed=state.seed,
                epoch=state.epoch,
                shuffle=state.shuffle,
                block_bytes=state.block_bytes,
                block_samples=state.block_samples,
                open_shards=state.open_shards,
                repeat=repeat,
            )
            for number, shards in dealt.items()
        }

    def state(self) -> ShardsState:
        """Where it stands, as far as this reader's streams go."""
        return replace(self._begin, parts=tuple(stream.state() for stream in self._streams.values()))

    def __iter__(self) -> Iterator[T_co]:
        """Iterates over the samples."""
        given = {number: stream.state().given for number, stream in self._streams.items()}
        transformed, counters = self._maker.transformed, self._counters
        draws = Draws(self._begin.seed, self._begin.epoch, name_of_unindexed)
        with ShardOpener(self._maker.client, self._manifest, self._constructor) as self._opener:
            try:
                asked = counters.begun()
                while given:
                    number = next_stream([(count, stream) for stream, count in given.items()], self._batch_size)
                    stream = self._streams[number]
                    for _ in range(self._batch_size - given[number] % self._batch_size):
                        read = next(stream, None)
                        if read is None:
                            del given[number]
                            break
                        given[number] += 1
                        sample, place = read
                        try:
                            made = transformed(sample, place, draws, (sample["__url__"], place))
                        except Exception as error:
                            if self._bad is None or self._bad.verdict(error, sample["__url__"], place) == "raise":
                                raise
                            continue
                        if self._bad is not None:
                            self._bad.good()
                        counters.made(asked)
                        yield made
                        del made, sample, read
                        asked = counters.asked()
            finally:
                for stream in self._streams.values():
                    stream.close()
                counters.pause()
                counters.publish()

    def _opens(self, shards: Sequence[int]) -> Any:
        """Makes what opens a shard of a stream."""
        place_of: dict[int, int] = {}

        def open_shard(position: ShardPosition) -> Iterator[ReadSample[tuple[Sample, int]]]:
            if not place_of:
                place_of.update((shard, place) for place, shard in enumerate(shards))
            place = place_of[position.shard]
            return self._read(position, shards[place + 1 : place + 1 + _FOLLOWING])

        return open_shard

    def _read(self, position: ShardPosition, following: Sequence[int]) -> Iterator[ReadSample[tuple[Sample, int]]]:
        opener = self._opener
        if opener is None:
            raise RuntimeError("the iteration has not begun")
        cursor = Cursor(number=position.sample, offset=position.offset)
        url = self._manifest.uri(position.shard)

        def on_bad(error: DecodeError) -> None:
            if self._bad is None or self._bad.verdict(error, url, cursor.number) == "raise":
                raise error

        with opener.open(position.shard, following) as reader:
            before = cursor.offset
            for sample in self._maker.format.read(
                cast("BinaryIO", reader), url=url, cursor=cursor, on_bad=on_bad if self._bad is not None else None
            ):
                nbytes = cursor.offset - before
                before = cursor.offset
                yield ReadSample((sample, cursor.number - 1), nbytes, cursor.number, before)
