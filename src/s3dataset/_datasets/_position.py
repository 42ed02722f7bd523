"""Where an iteration stands: what it began at, and how many samples were taken since."""

import inspect
import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch.utils.data

from s3dataset._datasets._epochs import MAIN, WORKERS, Epochs, Turn
from s3dataset._datasets._handing import workers_of
from s3dataset._datasets._rank import Rank
from s3dataset._datasets._unindexed import UnindexedEpoch
from s3dataset._order import BatchPlan, EpochState, Reader, ShardsState, Shuffle, Split, state_kind

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
    if state_kind(loaded) == ShardsState.KIND:
        return ShardsState.from_dict(loaded)
    return EpochState.from_dict(loaded)


class Run(Protocol):
    """An iteration that was begun."""

    done: bool

    def state(self, *, in_worker: bool, at_end: bool = False) -> EpochState | ShardsState:
        """Where it stands.

        Args:
            in_worker: Tell where this reader stands; others may be elsewhere.
            at_end: Behind the last batch tell that, and not the next epoch's beginning.
        """


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

    @property
    def is_over(self) -> bool:
        """Whether nothing is left for this reader's rank."""
        if self.done:
            return True
        part = self._part
        if part.num_workers > 1:  # others may have something left
            return False
        steps, rest = divmod(self._taken + self._skipped(), self._begun.batch_size)
        if rest:
            return False
        return replace(self._plan, first=self._plan.taken(steps)).is_over

    def state(self, *, in_worker: bool, at_end: bool = False) -> EpochState:
        """See `Run`."""
        begun, part = self._begun, self._part
        if not in_worker and not at_end and self.is_over:  # in a worker: others may still be in this epoch
            return begun.next_epoch()
        taken = self._taken + self._skipped()
        steps, rest = divmod(taken, begun.batch_size)
        if in_worker or part.num_workers > 1 or rest:
            return replace(begun, reader=part.reader, taken=taken)
        return replace(begun, batches=self._plan.taken(steps), reader=None, taken=0)


class ShardsRun:
    """An iteration over shards without an index.

    Args:
        epoch: What is read.
        worker: The number of the reader's turn, among the loader's workers.
    """

    def __init__(self, epoch: UnindexedEpoch[Any], worker: int = 0) -> None:
        self.worker = worker
        self._epoch = epoch
        self.done = False

    @property
    def is_over(self) -> bool:
        """Whether nothing is left for this reader."""
        return self.done

    def standing(self) -> ShardsState:
        """Where it stands in its epoch, also at that one's end."""
        return self._epoch.state()

    def state(self, *, in_worker: bool, at_end: bool = False) -> ShardsState:
        """See `Run`."""
        return self.standing().next_epoch() if self.done and not in_worker and not at_end else self.standing()


class Position:
    """Follows the iterations of a dataset in one process, and tells where the last one stands.

    Attributes:
        loaded: What a worker alone goes on from.
        given: How the next iteration begins, for whoever decided that before it is made.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, Any] | None = None
        self.given: Turn | None = None
        self._begin_process()

    def _begin_process(self) -> None:
        self._pid = os.getpid()
        self._run: Any = None
        self._going_on = 0
        self._made: list[weakref.ref[Any]] = []
        self._unread: Turn | None = None
        self._mine: Turn | None = None  # that of the iteration which is being made
        self._begun_by: Counter[int] = Counter()  # worker, of which tests and threads put several into a process

    def _enter(self) -> None:
        """What a forked worker's parent iterates over is not going on in the worker."""
        if self._pid != os.getpid():
            self._begin_process()

    @property
    def run(self) -> Any:
        """The iteration that was begun last in this process; None: none was, or it does not count any more."""
        self._enter()
        return self._run

    @run.setter
    def run(self, run: Any) -> None:
        self._enter()
        self._run = run

    def begin(self, epochs: Epochs, rank: int) -> Turn:
        """Begins an iteration. In a main process one that was made before it and never read does not count.

        torchdata's StatefulDataLoader makes two iterators, of which it reads one, where it was saved between epochs.
        """
        self._enter()
        given, self.given = self.given, None
        if given is not None:
            return given
        if self.loaded is not None:
            loaded, self.loaded = self.loaded, None
            epochs.goes_on(rank, WORKERS, int(loaded["epoch"]))
            return Turn(int(loaded["epoch"]), loaded)
        info = torch.utils.data.get_worker_info()
        if info is not None:
            epochs.note_workers(rank, info.num_workers)
            self._begun_by[info.id] += 1
            return epochs.begin_with(rank, workers_of(info), info.id, self._begun_by[info.id])
        unread, self._unread = self._unread, None
        if unread is not None:
            epochs.give_back(rank, MAIN, unread)
        turn = epochs.begin(rank, MAIN)
        if not turn.has_ended:  # nobody reads that, but it is over with its making
            self._mine = self._unread = turn
        return turn

    def follow(self, samples: Iterable[T], run: Any) -> Iterator[T]:
        """Hands samples on; from then on `run` is the iteration."""
        self.run = run
        following = self._follow(samples, run, self._mine)
        self._mine = None
        self._made = [one for one in self._made if one() is not None]
        self._made.append(weakref.ref(following))
        return following

    def _follow(self, samples: Iterable[T], run: Any, turn: Turn | None) -> Iterator[T]:
        if turn is not None and self._unread is turn:
            self._unread = None
        self._going_on += 1
        pid = os.getpid()
        try:
            yield from samples
            run.done = True
        finally:
            if pid == os.getpid():
                self._going_on -= 1

    @property
    def going_on(self) -> bool:
        """Whether somebody is in the middle of an iteration."""
        self._enter()
        return self._going_on > 0

    def check_idle(self) -> None:
        """Refuses to be moved while there is an iteration.

        Raises:
            RuntimeError: One is going on, or was made and is not read yet.
        """
        self._enter()
        if self._going_on:
            raise RuntimeError("an iteration is going on: load a state before it begins, or end it first")
        if any(_is_fresh(one()) for one in self._made):
            raise RuntimeError(
                "there is an iterator already, whose place was decided when it was made: load a state before iter(), "
                "or drop that iterator"
            )
        self.run = None


def _is_fresh(iterator: Any) -> bool:
    """Whether an iterator is there of which nothing was read."""
    return iterator is not None and inspect.getgeneratorstate(iterator) == inspect.GEN_CREATED
