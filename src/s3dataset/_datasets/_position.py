"""Where an iteration stands: what it began at, and how many samples were taken since."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from s3dataset._datasets._epochs import Epochs, Turn
from s3dataset._datasets._rank import Rank
from s3dataset._datasets._unindexed import UnindexedEpoch
from s3dataset._order import BatchPlan, EpochState, Reader, ShardsState, Shuffle, Split

__all__ = [
    "NumberedRun",
    "Part",
    "Position",
    "ShardsRun",
    "checked_shuffle",
    "in_order_of",
    "resumed",
    "state_of",
    "without_first",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """Whose samples an iteration takes."""

    rank: Rank
    worker: int
    num_workers: int
    split: Split

    @property
    def reader(self) -> Reader:
        """Who takes them."""
        return Reader(self.rank.rank, self.rank.world_size, self.worker, self.num_workers)


def checked_shuffle(shuffle: Any) -> Shuffle | None:
    """What the user's word means; None: no shuffling.

    Raises:
        TypeError: It is neither a truth value nor a `Shuffle`.
    """
    if isinstance(shuffle, Shuffle):
        return shuffle
    if isinstance(shuffle, bool | int) and shuffle in {0, 1}:
        return Shuffle() if shuffle else None
    raise TypeError(f"shuffle must be True, False or a Shuffle; got {shuffle!r}")


def resumed(loaded: Mapping[str, Any], fresh: EpochState, part: Part) -> EpochState:
    """The state that an iteration goes on from.

    Args:
        loaded: What the user loaded.
        fresh: Where it would begin otherwise.
        part: Whose iteration it is.

    Raises:
        ManifestMismatchError: The state belongs to other data.
        ValueError: It is that of one reader, and there are others now.
    """
    state = EpochState.from_dict(loaded)
    state.check(fingerprint=fresh.fingerprint, num_samples=fresh.num_samples)
    state = replace(state, repeat=fresh.repeat)
    if state.reader is None:
        return state.with_batch_size(fresh.batch_size)
    if state.reader != part.reader or state.batch_size != fresh.batch_size:
        raise ValueError(
            f"the state is that of {state.reader} with batches of {state.batch_size}, and this is {part.reader} with "
            f"batches of {fresh.batch_size}: the state of a worker fits the same numbers of ranks and workers only. "
            "resume_state() makes one that fits all of a StatefulDataLoader's, and s3dataset.DataLoader's always does"
        )
    return state


def in_order_of(loaded: Mapping[str, Any] | None, fresh: EpochState) -> EpochState:
    """A later epoch in the order that a state brought along, if that is one of the same data."""
    if loaded is None or loaded.get("kind") != EpochState.KIND:
        return fresh
    state = EpochState.from_dict(loaded)
    if (state.fingerprint, state.num_samples) != (fresh.fingerprint, fresh.num_samples):
        return fresh
    return replace(fresh, seed=state.seed, shuffle=state.shuffle, block_bytes=state.block_bytes, streams=state.streams)


def without_first(chunks: Iterator[Sequence[int]], count: int) -> Iterator[Sequence[int]]:
    """Leaves out the first `count` numbers of what comes in pieces."""
    for chunk in chunks:
        if count >= len(chunk):
            count -= len(chunk)
            continue
        yield chunk[count:] if count else chunk
        count = 0
        break
    yield from chunks


def state_of(loaded: Mapping[str, Any]) -> EpochState | ShardsState:
    """Reads a state of either kind.

    Raises:
        ValueError: It is none.
    """
    if loaded.get("kind") == ShardsState.KIND:
        return ShardsState.from_dict(loaded)
    return EpochState.from_dict(loaded)


class Run(Protocol):
    """An iteration that was begun."""

    done: bool

    def state(self, *, in_worker: bool) -> EpochState | ShardsState:
        """Where it stands."""


class NumberedRun:
    """An iteration over samples that have numbers."""

    def __init__(self, state: EpochState, part: Part, plan: BatchPlan, skipped: Callable[[], int] = lambda: 0) -> None:
        self._skipped = skipped
        self._begun = state
        self._part = part
        self._plan = plan
        self._taken = state.taken
        self.done = False

    def follow(self, samples: Iterable[T]) -> Iterator[T]:
        """Hands samples on, and counts them."""
        for sample in samples:
            self._taken += 1
            yield sample

    def state(self, *, in_worker: bool) -> EpochState:
        """See `Run`."""
        begun, part = self._begun, self._part
        if self.done and not in_worker:  # other workers may still be in this epoch
            return begun.next_epoch()
        taken = self._taken + self._skipped()
        steps, rest = divmod(taken, begun.batch_size)
        if in_worker or part.num_workers > 1 or rest:
            return replace(begun, reader=part.reader, taken=taken)
        first = self._plan.taken(steps)
        if replace(self._plan, first=first).is_over:
            return begun.next_epoch()
        return replace(begun, batches=first, reader=None, taken=0)


class ShardsRun:
    """An iteration over shards without an index."""

    def __init__(self, epoch: UnindexedEpoch[Any]) -> None:
        self._epoch = epoch
        self.done = False

    def standing(self) -> ShardsState:
        """Where it stands in its epoch, also at that one's end."""
        return self._epoch.state()

    def state(self, *, in_worker: bool) -> ShardsState:
        """See `Run`."""
        return self.standing().next_epoch() if self.done and not in_worker else self.standing()


class Position:
    """Follows the iterations of a dataset in one process, and tells where the last one stands.

    Attributes:
        loaded: What a worker alone goes on from; with nothing but an epoch, its beginning.
    """

    def __init__(self) -> None:
        self.run: Run | None = None
        self._going_on = 0
        self._unread: Turn | None = None
        self.loaded: dict[str, Any] | None = None

    def begin(self, epochs: Epochs, rank: int, reader: str) -> Turn:
        """Begins an iteration. One that was begun before it and of which nothing was read does not count.

        torchdata's StatefulDataLoader makes two iterators, of which it reads one, where it was saved between epochs.
        """
        unread, self._unread = self._unread, None
        if self.loaded is None:
            if unread is not None:
                epochs.give_back(rank, reader, unread)
            self._unread = epochs.begin(rank, reader)
            return self._unread
        loaded, self.loaded = self.loaded, None
        epoch = int(loaded["epoch"])
        epochs.goes_on(rank, reader, epoch)
        return Turn(epoch, loaded if len(loaded) > 1 else None)

    def follow(self, samples: Iterable[T], run: Run) -> Iterator[T]:
        """Hands samples on; from then on `run` is the iteration."""
        self.run = run
        return self._follow(samples, run)

    def _follow(self, samples: Iterable[T], run: Run) -> Iterator[T]:
        self._going_on += 1
        self._unread = None
        try:
            yield from samples
            run.done = True
        finally:
            self._going_on -= 1

    @property
    def going_on(self) -> bool:
        """Whether somebody is in the middle of an iteration."""
        return self._going_on > 0

    def check_idle(self) -> None:
        """Refuses to be moved in the middle.

        Raises:
            RuntimeError: An iteration is going on.
        """
        if self._going_on:
            raise RuntimeError("an iteration is going on: load a state before it begins, or end it first")
        self.run = None
