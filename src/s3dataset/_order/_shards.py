"""Shards that can only be read from their beginning: dealt to streams, and shuffled in blocks."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

from s3dataset._order._shuffled import shuffled, stored_shuffle

T = TypeVar("T")


class ShardPosition(NamedTuple):
    """How far the reading of an open shard is."""

    shard: int
    """Its number in the manifest."""
    sample: int = 0
    """Samples of it that were read."""
    offset: int = 0
    """Where the next one begins in its content."""


class ReadSample(NamedTuple, Generic[T]):
    """A sample as it comes out of a shard."""

    sample: T
    nbytes: int
    """What it weighs in a block; the same whenever it is read."""
    number: int
    """Samples of the shard up to and with this one, counting any that were skipped."""
    offset: int
    """Where the next one begins."""


@dataclass(frozen=True, slots=True)
class StreamState:
    """How far a stream is: where its shards stood when the block at hand was begun, and what was handed out of it.

    Attributes:
        stream: Its number.
        given: Samples that it handed out in this epoch.
        lap: How often all its shards were gone through; more than 0 only where the epoch repeats.
        next_shard: How many of its shards were opened in this lap, when the block was begun.
        block: The block's number.
        taken: Samples handed out of the block.
        open: Shards that were open when the block was begun, the one whose turn it is first.
    """

    stream: int
    given: int = 0
    lap: int = 0
    next_shard: int = 0
    block: int = 0
    taken: int = 0
    open: tuple[ShardPosition, ...] = ()

    def has_ended(self, num_shards: int) -> bool:
        """Whether the stream, which has so many shards, is known to be read to its end."""
        return self.next_shard >= num_shards and not self.open and not self.taken


def deal_shards(
    num_shards: int, streams: int, wanted: Iterable[int], *, seed: int, epoch: int, shuffle: bool
) -> dict[int, Sequence[int]]:
    """Returns the shards of each wanted stream, in the order in which it opens them.

    The shards, permuted by (seed, epoch) or in the manifest's order, are dealt to the streams one by one. So each shard
    is in one stream, and streams differ by one shard at most.
    """
    order: Sequence[int] = stored_shuffle(num_shards, "shards", seed, epoch) if shuffle else range(num_shards)
    return {stream: order[stream::streams] for stream in wanted}


class ShardStream(Generic[T]):
    """The samples of one stream, as an iterator that knows where it stands.

    Up to `open_shards` of the stream's shards are read in turn, a sample of each, into a block. A full block is
    permuted by (seed, epoch, stream, block), handed out and dropped. The sequence depends on the shards' content and
    the arguments alone. After a resume it goes on with the very next sample; the block is read again for that. So it
    does after an error of `open_shard` or of what that gave, when it is asked for a sample again.

    Without shuffling shards are read one after the other, nothing is held, and a resume reads nothing again.

    Memory: one block, less what was handed out of it, and what `open_shard` holds for each open shard. Nothing is
    opened before the first sample is asked for. For one thread.
    """

    def __init__(
        self,
        state: StreamState,
        shards: Sequence[int],
        open_shard: Callable[[ShardPosition], Iterator[ReadSample[T]]],
        *,
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = True,
        block_bytes: int = 64 << 20,
        block_samples: int = 8192,
        open_shards: int = 8,
        repeat: bool = False,
    ) -> None:
        """Begins, or goes on.

        Args:
            state: Where to begin: `StreamState(stream)` at the epoch's start.
            shards: What `deal_shards` gives for it.
            open_shard: Reads a shard's samples from a position on. What it gives is closed, if it has `close`.
            seed: Of the shuffle.
            epoch: The epoch.
            shuffle: False: one shard after the other.
            block_bytes: A block is full with so many bytes; the last sample may go beyond.
            block_samples: A block is full with so many samples.
            open_shards: How many shards are read in turn.
            repeat: Begin again when all shards were read, without end; not when a whole lap gave nothing.

        Raises:
            ValueError: The state is none of this stream over these shards.
        """
        self._shards = shards
        self._open_shard = open_shard
        self._labels = ("block", seed, epoch, state.stream)
        self._shuffle = shuffle
        self._limits = (block_bytes, block_samples) if shuffle else (1, 1)
        self._open_shards = open_shards if shuffle else 1
        self._repeat = repeat
        self._begin = state
        if state.next_shard > len(shards):
            raise ValueError(
                f"stream {state.stream} opened {state.next_shard} shards according to its state, and has {len(shards)}"
            )
        self._reading: deque[tuple[ShardPosition, Iterator[ReadSample[T]]]] | None = None
        self._next_shard = self._lap = 0
        self._productive = True
        self._block: list[Any] = []
        self._order: Sequence[int] = ()
        self._taken = 0

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        """Hands out the next sample.

        Raises:
            ValueError: The shards do not hold what the state says was taken of them.
        """
        while self._taken == len(self._block):
            self._begin = self.state()
            self._block, self._taken = [], 0  # should reading fail, the state is where this block begins
            self._fill()
            if not self._block:
                self._begin = replace(self._begin, lap=self._lap, next_shard=self._next_shard, open=())
                raise StopIteration
        at = self._order[self._taken]
        self._taken += 1
        sample: T = self._block[at]
        self._block[at] = None
        return sample

    def state(self) -> StreamState:
        """Returns where the stream stands, behind the sample handed out last; 2 microseconds, whatever the block."""
        begin = self._begin
        if not self._block:
            return begin
        given = begin.given - begin.taken + self._taken
        if self._taken < len(self._block) or self._reading is None:
            return replace(begin, given=given, taken=self._taken)
        return StreamState(
            stream=begin.stream,
            given=given,
            lap=self._lap,
            next_shard=self._next_shard,
            block=begin.block + 1,
            open=tuple(position for position, _ in self._reading),
        )

    def close(self) -> None:
        """Lets go of the open shards and the block. Asked for a sample again, it goes on where it stood."""
        self._begin = self.state()
        self._block, self._taken = [], 0
        reading, self._reading = self._reading, None
        for _, samples in reading or ():
            _close(samples)

    def _fill(self) -> None:
        """Reads the block that begins at `_begin`, all of it or nothing."""
        try:
            if self._reading is None:
                self._next_shard, self._lap = self._begin.next_shard, self._begin.lap
                self._reading = deque()
                for position in self._begin.open:
                    self._reading.append((position, self._open_shard(position)))
            block = self._read_block(self._reading)
            if len(block) < self._begin.taken:
                raise ValueError(
                    f"block {self._begin.block} of stream {self._begin.stream} has {len(block)} samples, of which "
                    f"{self._begin.taken} were taken according to the state: the shards changed since it was saved"
                )
        except BaseException:
            self.close()
            raise
        self._block, self._taken = block, self._begin.taken
        self._order = shuffled(len(block), *self._labels, self._begin.block) if self._shuffle else range(len(block))

    def _read_block(self, reading: "deque[tuple[ShardPosition, Iterator[ReadSample[T]]]]") -> list[Any]:
        block: list[Any] = []
        held = 0
        full_bytes, full_samples = self._limits
        while held < full_bytes and len(block) < full_samples and self._open_more(reading):
            position, samples = reading[0]
            read = next(samples, None)
            reading.popleft()
            if read is None:
                continue
            block.append(read.sample)
            held += read.nbytes
            self._productive = True
            reading.append((ShardPosition(position.shard, read.number, read.offset), samples))
        return block

    def _open_more(self, reading: "deque[tuple[ShardPosition, Iterator[ReadSample[T]]]]") -> bool:
        """Opens as many shards as may be open; False when there is nothing left to read."""
        while True:
            while len(reading) < self._open_shards and self._next_shard < len(self._shards):
                position = ShardPosition(self._shards[self._next_shard])
                reading.append((position, self._open_shard(position)))
                self._next_shard += 1
            if reading:
                return True
            if not self._repeat or not self._productive:
                return False
            self._lap, self._next_shard, self._productive = self._lap + 1, 0, False


def _close(samples: object) -> None:
    close = getattr(samples, "close", None)
    if close is not None:
        close()


def next_stream(given: Sequence[tuple[int, int]], batch_size: int) -> int:
    """Returns which stream of a reader makes the next sample.

    Streams take turns of a batch: it is that of the stream that had the fewest, of equal ones the first. With each of
    R x W readers taking the streams that are its own (`reader_streams`), with R x W dividing their number, the global
    batch j comes from stream j mod V as long as none has ended, whatever R and W.

    Args:
        given: Of each stream that has not ended: (samples that it gave, its number).
        batch_size: Samples of a turn.
    """
    return min((samples // batch_size, stream) for samples, stream in given)[1]
