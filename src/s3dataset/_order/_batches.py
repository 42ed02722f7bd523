"""How a row of samples is cut into batches, and which of them belong to which rank."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from s3dataset._order._split import Tail


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The batches of one epoch over a row of `num_samples` samples. Immutable.

    Takes constant memory; every answer is arithmetic. Places in the row are numbers in range(num_samples); a
    Permutation says which sample stands at each. The row is cut, at batch boundaries, into `streams` contiguous
    streams, and the global batch j is batch floor(j / streams) of stream j mod streams. So the global batches are the
    same whatever the number of ranks. Only the last of them may be short.

    One stream keeps the row's own order: right where a sample is an object of its own. Samples that share a shard want
    many streams (a multiple of ranks x workers), so that each reader goes through shards of its own.

    Rank r takes the global batches k * world_size + r in its step k. Steps in which every rank has a full batch are the
    same under every tail. What is left after them is the tail, fewer than world_size x batch_size samples:
        pad    it is dealt evenly over the ranks in one last step; the last ranks repeat samples from the row's
               beginning, fewer in all than there are ranks, so that every rank's batch has the same size
        drop   it is left out
        exact  it is dealt as it was cut: some ranks have a full batch, one may have a short one, some have none

    Attributes:
        num_samples: Samples in the row.
        batch_size: Samples in a batch.
        world_size: Ranks that share the epoch.
        tail: What happens to the tail.
        streams: Canonical streams.
        steps_per_epoch: Every rank takes exactly so many full batches; the row repeats where it is too short.
    """

    num_samples: int
    batch_size: int
    world_size: int = 1
    tail: Tail = "exact"
    streams: int = 1
    steps_per_epoch: int | None = None
    num_batches: int = field(init=False)
    """Global batches, ceil(num_samples / batch_size), the short one included."""

    def __post_init__(self) -> None:
        """Checks the arguments.

        Raises:
            ValueError: A count is out of range.
        """
        if self.num_samples < 0:
            raise ValueError(f"num_samples must not be negative, got {self.num_samples}")
        for name in ("batch_size", "world_size", "streams"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        object.__setattr__(self, "num_batches", -(-self.num_samples // self.batch_size))

    def batch(self, j: int) -> range:
        """Returns the places of global batch j."""
        if not 0 <= j < self.num_batches:
            raise IndexError(f"batch {j} of {self.num_batches}")
        stream, number = j % self.streams, j // self.streams
        in_each, longer = divmod(self.num_batches, self.streams)
        first_batch = stream * in_each + min(stream, longer)
        start = (first_batch + number) * self.batch_size
        # The short batch closes the stream that global batch num_batches - 1 belongs to, so the streams behind it begin
        # earlier.
        missing = self.num_batches * self.batch_size - self.num_samples
        if stream > (self.num_batches - 1) % self.streams:
            start -= missing
        size = self.batch_size - missing if j == self.num_batches - 1 else self.batch_size
        return range(start, start + size)

    @property
    def full_steps(self) -> int:
        """Steps in which every rank has a full batch."""
        return self.num_samples // self.batch_size // self.world_size

    @property
    def tail_samples(self) -> int:
        """Samples that the full steps leave over."""
        return self.num_samples - self.full_steps * self.world_size * self.batch_size

    @property
    def repeated_samples(self) -> int:
        """Samples that an epoch hands out twice, over all ranks, because of the "pad" tail."""
        if self.steps_per_epoch is not None or self.tail != "pad":
            return 0
        return -self.tail_samples % self.world_size

    def steps(self, rank: int) -> int:
        """Returns how many batches the rank takes in an epoch."""
        self._check(rank)
        if self.steps_per_epoch is not None:
            return self.steps_per_epoch if self.num_samples else 0
        if self.tail == "drop":
            return self.full_steps
        if self.tail == "pad":
            return self.full_steps + (self.tail_samples > 0)
        return max(0, -(-(self.num_batches - rank) // self.world_size))

    def samples(self, rank: int) -> int:
        """Returns how many samples the rank takes in an epoch."""
        steps = self.steps(rank)
        if self.steps_per_epoch is None and steps > self.full_steps:
            return self.full_steps * self.batch_size + len(self.rank_batch(rank, steps - 1))
        return steps * self.batch_size

    def rank_batch(self, rank: int, k: int) -> Sequence[int]:
        """Returns the places that the rank takes in its step k."""
        if not 0 <= k < self.steps(rank):
            raise IndexError(f"step {k} of {self.steps(rank)} of rank {rank}")
        j = k * self.world_size + rank
        if self.steps_per_epoch is not None:
            return self._repeating_batch(j)
        if k < self.full_steps or self.tail == "exact":
            return self.batch(j)
        left = self._tail_places()
        share = -(-len(left) // self.world_size)
        return [self._tail_place(left, i) for i in range(rank * share, (rank + 1) * share)]

    def _tail_places(self) -> list[int]:
        return [place for j in range(self.full_steps * self.world_size, self.num_batches) for place in self.batch(j)]

    def _tail_place(self, left: list[int], i: int) -> int:
        if i < len(left):
            return left[i]
        number, offset = divmod((i - len(left)) % self.num_samples, self.batch_size)
        return self.batch(number)[offset]

    def _repeating_batch(self, j: int) -> Sequence[int]:
        batch = self.batch(j % self.num_batches)
        if len(batch) == self.batch_size:
            return batch
        places = list(batch)
        beginning = 0
        while len(places) < self.batch_size:
            places += self.batch(beginning % self.num_batches)
            beginning += 1
        return places[: self.batch_size]

    def _check(self, rank: int) -> None:
        if not 0 <= rank < self.world_size:
            raise IndexError(f"rank {rank} of {self.world_size}")
