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

    Rank r takes the global batch first + k * world_size + r in its step k. An epoch that is resumed begins at the batch
    `first`, with whatever world size: what all ranks take from there on is what an uninterrupted run would take. Steps
    in which every rank has a full batch are the same under every tail. What is left after them is the tail, fewer than
    world_size x batch_size samples:
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
            After a resume the ranks share what is left of steps_per_epoch x world_size global batches, in whole steps,
            rounded up.
        first: The global batch at which the epoch begins; those before it were taken.
        before: Global batches of the epoch that were taken before this row was cut, under other batch sizes; only
            steps_per_epoch counts them.
        lap: Where this row is what a change of the batch size left: the length of the whole row, which is what
            repeats. Its places come behind those of this row, from `num_samples` on.
    """

    num_samples: int
    batch_size: int
    world_size: int = 1
    tail: Tail = "exact"
    streams: int = 1
    steps_per_epoch: int | None = None
    first: int = 0
    before: int = 0
    lap: int | None = None
    num_batches: int = field(init=False)
    """Global batches, ceil(num_samples / batch_size), the short one included."""

    def __post_init__(self) -> None:
        """Checks the arguments.

        Raises:
            ValueError: A count is out of range.
        """
        for name in ("num_samples", "first", "before"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("batch_size", "world_size", "streams"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        object.__setattr__(self, "num_batches", -(-self.num_samples // self.batch_size))

    def batch(self, j: int) -> range:
        """Returns the places of global batch j."""
        if not 0 <= j < self.num_batches:
            raise IndexError(f"batch {j} of {self.num_batches}")
        places = self.stream(j % self.streams)
        start = places.start + j // self.streams * self.batch_size
        return range(start, min(start + self.batch_size, places.stop))

    def stream(self, stream: int) -> range:
        """Returns the places of a stream."""
        if not 0 <= stream < self.streams:
            raise IndexError(f"stream {stream} of {self.streams}")
        in_each, longer = divmod(self.num_batches, self.streams)
        start = (stream * in_each + min(stream, longer)) * self.batch_size
        stop = start + (in_each + (stream < longer)) * self.batch_size
        # The short batch closes the stream that global batch num_batches - 1 belongs to, so the streams behind it begin
        # earlier.
        missing = self.num_batches * self.batch_size - self.num_samples
        last = (self.num_batches - 1) % self.streams
        return range(start - missing * (stream > last), stop - missing * (stream >= last))

    def left(self, j: int) -> list[range]:
        """Returns the places that are left when the global batches before j were taken: of each stream the rest.

        With j beyond the row's batches, which happens only where the row repeats, they are those of the lap begun.
        """
        if j <= self.num_batches:
            left = []
            for stream in range(self.streams):
                places = self.stream(stream)
                taken = max(0, -(-(j - stream) // self.streams)) * self.batch_size
                left.append(range(min(places.start + taken, places.stop), places.stop))
            return [places for places in left if places]
        lap, shift = self._lap()
        if not lap.num_batches:
            return []
        return [
            range(places.start + shift, places.stop + shift)
            for places in lap.left((j - self.num_batches) % lap.num_batches)
        ]

    def taken(self, steps: int) -> int:
        """Returns the global batch at which an epoch goes on after each rank took so many steps of this one."""
        j = self.first + steps * self.world_size
        return j if self.steps_per_epoch is not None else min(j, max(self.first, self.num_batches))

    @property
    def full_steps(self) -> int:
        """Steps in which every rank has a full batch."""
        return max(0, self.num_samples // self.batch_size - self.first) // self.world_size

    @property
    def is_over(self) -> bool:
        """Whether no rank has a step to take."""
        return not self.steps(0)  # no rank has more than the first

    @property
    def tail_samples(self) -> int:
        """Samples that the full steps leave over."""
        return max(0, self.num_samples - (self.first + self.full_steps * self.world_size) * self.batch_size)

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
            left = self.steps_per_epoch * self.world_size - self.before - self.first
            return max(0, -(-left // self.world_size)) if self.num_samples or self.lap else 0
        if self.tail == "drop":
            return self.full_steps
        if self.tail == "pad":
            return self.full_steps + (self.tail_samples > 0)
        return max(0, -(-(self.num_batches - self.first - rank) // self.world_size))

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
        j = self.first + k * self.world_size + rank
        if self.steps_per_epoch is not None:
            return self._repeating_batch(j)
        if k < self.full_steps or self.tail == "exact":
            return self.batch(j)
        left = self._tail_places()
        share = -(-len(left) // self.world_size)
        return [self._tail_place(left, i) for i in range(rank * share, (rank + 1) * share)]

    def _tail_places(self) -> list[int]:
        first = self.first + self.full_steps * self.world_size
        return [place for j in range(first, self.num_batches) for place in self.batch(j)]

    def _tail_place(self, left: list[int], i: int) -> int:
        if i < len(left):
            return left[i]
        number, offset = divmod((i - len(left)) % self.num_samples, self.batch_size)
        return self.batch(number)[offset]

    def _lap(self) -> tuple["BatchPlan", int]:
        """What repeats behind the row, and how far its places are shifted."""
        if self.lap is None:
            return self, 0
        return BatchPlan(self.lap, self.batch_size, streams=self.streams), self.num_samples

    def _repeating_batch(self, j: int) -> Sequence[int]:
        if j < self.num_batches:
            places: Sequence[int] = self.batch(j)
            beginning = 0
        else:
            places, beginning = (), j - self.num_batches
        if len(places) == self.batch_size:
            return places
        # The short batch is filled up from the beginning of the next lap.
        lap, shift = self._lap()
        filled = list(places)
        while len(filled) < self.batch_size:
            batch = lap.batch(beginning % lap.num_batches)
            filled += range(batch.start + shift, batch.stop + shift)
            beginning += 1
        return filled[: self.batch_size]

    def _check(self, rank: int) -> None:
        if not 0 <= rank < self.world_size:
            raise IndexError(f"rank {rank} of {self.world_size}")
