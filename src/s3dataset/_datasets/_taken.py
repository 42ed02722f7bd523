"""How far a loop is: which batches it took of a loader, whatever the workers read ahead."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

import torch.utils.data
from torch.utils.data._utils.collate import default_collate, default_convert
from torch.utils.data._utils.pin_memory import pin_memory

from s3dataset._datasets._bad_samples import SKIPPED
from s3dataset._datasets._position import ShardsRun
from s3dataset._order import BatchPlan, EpochState, ShardsState

if TYPE_CHECKING:
    from s3dataset._datasets._position import Run

__all__ = ["Carrying", "Counting", "NumberedTaken", "ShardsTaken", "Taken", "default_collate_of"]


class State(Protocol):
    """Where a loop stands."""

    def to_dict(self) -> dict[str, Any]:
        """As values for JSON."""


class Taken(Protocol):
    """What a loop took of one epoch."""

    going_on: bool

    def batch(self) -> None:
        """The loop took a batch."""

    def carried(self, state: bytes) -> None:
        """The batch came with what its reader knows."""

    def end(self) -> None:
        """The epoch is over."""

    def state(self) -> "State":
        """Where the loop stands."""

    def reads(self, run: Any) -> None:
        """Which iteration it is, where the loop's own process reads."""


class NumberedTaken:
    """What a loop took of an epoch over samples with numbers: so many batches.

    Args:
        begun: Where the epoch began.
        plan: Its batches.
        rank: Of this process.
    """

    def __init__(self, begun: EpochState, plan: BatchPlan, rank: int) -> None:
        self.begun = begun
        self.plan = plan
        self.rank = rank
        self.going_on = False
        self._batches = begun.taken // begun.batch_size
        self._done = False

    def begin_at(self, begun: EpochState, plan: BatchPlan) -> None:
        """The epoch turned out to begin elsewhere."""
        self.begun, self.plan = begun, plan
        self._batches = 0

    def batch(self) -> None:
        """See `Taken`."""
        self._batches += 1

    def carried(self, state: bytes) -> None:
        """See `Taken`."""

    def reads(self, run: Any) -> None:
        """See `Taken`."""

    def end(self) -> None:
        """See `Taken`."""
        self._done = True

    def state(self) -> EpochState:
        """See `Taken`."""
        return self.begun.next_epoch() if self._done else self.after(self._batches)

    @property
    def done(self) -> bool:
        """Whether the loop went to the epoch's end."""
        return self._done

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to take."""
        return self._done or replace(self.plan, first=self.plan.taken(self._batches)).is_over

    def standing(self) -> EpochState:
        """Where the loop stands; behind the last batch that, and not the beginning of the next epoch."""
        return replace(self.begun, batches=self.plan.taken(self._batches), reader=None, taken=0)

    def after(self, batches: int) -> EpochState:
        """Where a loop stands that took so many batches."""
        first = self.plan.taken(batches)
        if replace(self.plan, first=first).is_over:
            return self.begun.next_epoch()
        return replace(self.begun, batches=first, reader=None, taken=0)


class ShardsTaken:
    """What a loop took of an epoch over shards without an index: what their readers say.

    Args:
        begun: Where the epoch began.
        streams: Those of this rank.
        num_workers: Of the loader: each batch carries where its worker stands. 0: `reads` says which iteration it is.
        first_worker: Whose batch comes first.
    """

    def __init__(self, begun: ShardsState, streams: range, num_workers: int, first_worker: int = 0) -> None:
        self._begun = begun
        self._num_workers = num_workers
        self._next_worker = first_worker
        self._run: Run | None = None
        self._parts = {stream: begun.part(stream) for stream in streams}
        self.going_on = False
        self._done = False

    def batch(self) -> None:
        """See `Taken`."""
        if isinstance(self._run, ShardsRun):
            self._parts |= {part.stream: part for part in self._run.standing().parts}

    def reads(self, run: Any) -> None:
        """See `Taken`."""
        self._run = None if self._num_workers else run

    def carried(self, state: bytes) -> None:
        """See `Taken`."""
        came = json.loads(state)
        self._parts |= {part.stream: part for part in ShardsState.from_dict(came).parts}
        self._next_worker = (came["worker"] + 1) % self._num_workers

    def end(self) -> None:
        """See `Taken`."""
        self._done = True

    def state(self) -> "ShardsTaken":
        """See `Taken`."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """The state, as values for JSON, and whose turn is next: as many workers go on in the same order."""
        state = replace(self._begun, parts=tuple(self._parts[stream] for stream in sorted(self._parts)))
        if self._done:
            return state.next_epoch().to_dict()
        turn = {"turn": [self._next_worker, self._num_workers]} if self._next_worker else {}
        return state.to_dict() | turn


class Reading(Protocol):
    """Sees to it that an iteration begins where its loader says."""

    has_begun: bool

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


class Counting:
    """A loader's iterator that counts what is taken of it. Otherwise it has that iterator's attributes.

    Args:
        batches: The iterator.
        taken: Where to count.
        reading: Wraps the taking of batches for as long as it says; None: nothing does.
    """

    def __init__(self, batches: Iterator[Any], taken: Taken, reading: "Reading | None" = None) -> None:
        self._batches = batches
        self._taken = taken
        self._reading = reading
        taken.going_on = True

    def __iter__(self) -> "Counting":
        return self

    def __next__(self) -> Any:
        try:
            if self._reading is None:
                batch = next(self._batches)
            else:
                with self._reading as reading:
                    batch = next(self._batches)
                if reading.has_begun:
                    self._reading = None
        except StopIteration:
            self._taken.end()
            self._taken.going_on = False
            raise
        self._taken.batch()
        if isinstance(batch, Carried):
            if batch.state is None:
                return next(self)
            self._taken.carried(batch.state)
            batch = batch.batch
        return batch

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_batches" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._batches, name)

    def __del__(self) -> None:
        self._taken.going_on = False


class Carried:
    """A batch of a worker's, with where that worker stands behind it; None, None: all of its samples were left out."""

    __slots__ = ("batch", "state")

    def __init__(self, batch: Any, state: bytes | None) -> None:
        self.batch = batch
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return Carried, (self.batch, self.state)

    def pin_memory(self, device: Any = None) -> "Carried":
        """For the loader's thread that pins."""
        return Carried(cast(Any, pin_memory)(self.batch, device), self.state)


class Carrying:
    """A collate function whose batches carry where their worker stands, where only that one knows.

    It does so of shards without an index, of mixtures of such, and behind stages. Samples that were left out are
    dropped here: their batch is shorter, and where nothing is left the loader goes on to the next.

    Args:
        collate: Makes the batch.
        batch_size: Samples in a batch; None: there are none, and single samples come.
    """

    def __init__(self, collate: Callable[[Any], Any], batch_size: int | None) -> None:
        self._collate = collate
        self._batch_size = batch_size

    def __call__(self, samples: Any) -> Any:
        """Makes the batch, and adds in a worker what its dataset tells."""
        if self._batch_size is None:
            batch = SKIPPED if samples is SKIPPED else self._collate(samples)
        else:
            there = [sample for sample in samples if sample is not SKIPPED]
            batch = self._collate(there) if there or not samples else SKIPPED
        if batch is SKIPPED:
            return Carried(None, None)
        info = torch.utils.data.get_worker_info()
        state = None if info is None else cast(Any, info.dataset)._carried()  # noqa: SLF001 - of the same package
        return batch if state is None else Carried(batch, json.dumps(state).encode())


def default_collate_of(batch_size: int | None) -> Callable[[Any], Any]:
    """What PyTorch's loader collates with when nothing is said."""
    return default_convert if batch_size is None else default_collate
