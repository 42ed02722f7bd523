"""Stages behind an S3IterableDataset: filter, flat_map, sequences packed to one length."""

import json
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

import torch
import torch.utils.data
from torch.utils.data import IterableDataset

from s3dataset._datasets._epochs import LOADER, Turn
from s3dataset._datasets._samples import check_pickles
from s3dataset._datasets._stage_iteration import Packing, Stage, StagedIteration
from s3dataset._datasets._torchdata import asked_by_torchdata
from s3dataset._order import BadSamples, Reader, state_kind
from s3dataset._stats import Stats

if TYPE_CHECKING:
    from s3dataset._datasets._iterable import S3IterableDataset
    from s3dataset._datasets._position import Part

__all__ = ["StagedDataset", "StagesTaken"]

_KIND: Final = "staged"
_VERSION: Final = 1

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class StagedDataset(IterableDataset[T_co]):
    """An S3IterableDataset with stages behind it; made by `filter`, `flat_map` and `pack_sequences`, which also chain.

    The source's samples are split over ranks and workers, and each reader runs the stages over its own. So the number
    of samples is not known, and ranks may differ in it, unless `Split(steps_per_epoch=)` says how many batches come
    out for each rank: the source is then gone through as often as that takes. `sample_rng` in the functions goes on
    with the numbers of the source's sample.

    A state is exact: it names the source's sample that is not used up yet and what was taken of it. Going on reads that
    one again, so the functions must give the same for the same sample. A state fits the same numbers of ranks and
    workers.

    Args:
        source: Where the samples come from.
        stages: What they go through.
        packing: What comes last, if anything.
    """

    def __init__(
        self, source: "S3IterableDataset[Any]", stages: tuple[Stage, ...] = (), packing: Packing | None = None
    ) -> None:
        self._source = source
        self._stages = stages
        self._packing = packing
        self._begin_process()

    def _begin_process(self) -> None:
        self._iteration: StagedIteration | None = None
        self._loaded: dict[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        for stage in self._stages:
            check_pickles(stage.function, stage.name)
        if self._packing is not None:
            check_pickles(self._packing.key, "key")
        return {"_source": self._source, "_stages": self._stages, "_packing": self._packing}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin_process()

    def __repr__(self) -> str:
        names = [stage.name for stage in self._stages] + ["pack_sequences"] * (self._packing is not None)
        return f"<{self._source!r} through {', '.join(names)}>"

    def __len__(self) -> int:
        """Not known.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            "how many samples the stages let through is known only when they have run: count steps with "
            "itertools.islice, or ask the source for its len()"
        )

    def __bool__(self) -> bool:
        return True

    # -- Stages -----------------------------------------------------------------------------------------------------

    def filter(self, fn: Callable[[T_co], Any]) -> "StagedDataset[T_co]":
        """Keeps the samples for which `fn` is true. See `S3IterableDataset.filter`."""
        return self._then(Stage("filter", fn))

    def flat_map(self, fn: Callable[[T_co], Iterable[U]]) -> "StagedDataset[U]":
        """Gives all that `fn` makes of a sample. See `S3IterableDataset.flat_map`."""
        return self._then(Stage("flat_map", fn))

    def pack_sequences(
        self, length: int, *, key: Any = None, tail: Literal["keep", "drop"] = "keep"
    ) -> "StagedDataset[Any]":
        """Joins sequences and cuts them to one length. See `S3IterableDataset.pack_sequences`."""
        self._check_open("pack_sequences")
        length = operator.index(length)
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        if tail not in {"keep", "drop"}:
            raise ValueError(f'tail must be "keep" or "drop", got {tail!r}')
        return StagedDataset(self._source, self._stages, Packing(length, key, tail == "keep"))

    def _then(self, stage: Stage) -> "StagedDataset[Any]":
        self._check_open(stage.name)
        if not callable(stage.function):
            raise TypeError(f"{stage.name} takes a function of a sample, got {stage.function!r}")
        return StagedDataset(self._source, (*self._stages, stage))

    def _check_open(self, name: str) -> None:
        if self._packing is not None:
            raise ValueError(f"pack_sequences is the last stage: call {name} before it")

    # -- Iterating --------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[T_co]:
        """Iterates over this reader's part of the next epoch.

        Raises:
            ValueError: The tail's policy needs to know the number of samples, or a state is another reader's.
            S3Exception: As the source raises it.
        """
        source = self._source
        source._outer = self  # noqa: SLF001 - of the same package, like all that follow
        source._worker_shift = 0  # noqa: SLF001
        part = source._part()  # noqa: SLF001
        self._check_tail(part)
        loaded: Mapping[str, Any] | None = self._loaded
        self._loaded = None
        if loaded is not None:
            source._position.loaded = {"epoch": loaded["epoch"]}  # noqa: SLF001
        turn = source._begin_turn()  # noqa: SLF001
        if loaded is None and turn.resume is not None and turn.resume.get("kind") == _KIND:
            loaded = turn.resume
        mine: Mapping[str, Any] | None = None
        of_source = turn.resume if loaded is None else None
        if loaded is not None:
            _check_topology(loaded, part)
            source._worker_shift = int(loaded["next"])  # noqa: SLF001
            part = source._part()  # noqa: SLF001
            mine = loaded["readers"].get(str(part.worker))
            of_source = None if mine is None else mine["source"]
        batch_size = source._batch_size or turn.batch_size or 1  # noqa: SLF001
        if part.split.steps_per_epoch is not None and turn.batch_size is None:
            batch_size = source._batch_size_for_steps()  # noqa: SLF001
        source._position.given = Turn(turn.epoch, of_source, batch_size=batch_size)  # noqa: SLF001
        try:
            self._iteration = iteration = StagedIteration(self, part, mine, self._outputs_of(part, batch_size))
        finally:
            source._position.given = None  # noqa: SLF001
        return iter(iteration)

    def _outputs_of(self, part: "Part", batch_size: int) -> int | None:
        """How many a reader gives in an epoch of so many steps; None: all that there are."""
        steps = part.split.steps_per_epoch
        return None if steps is None else len(range(part.worker, steps, part.num_workers)) * batch_size

    def _check_tail(self, part: "Part") -> None:
        split = part.split
        if split.steps_per_epoch is None and split.resolved_tail(part.rank.world_size) != "exact":
            raise ValueError(
                "behind stages nobody knows how many samples an epoch has, so that none can be padded or dropped to "
                'make ranks even: give enable_sharding=Split(tail="exact") and a loop that bears ranks of different '
                "lengths (torch.distributed.algorithms.Join) or ends every rank after as many steps"
            )

    # -- Epochs and state -------------------------------------------------------------------------------------------

    def set_epoch(self, epoch: int) -> None:
        """Names the epoch that the next iteration begins; each further one is the next epoch."""
        self._source.set_epoch(epoch)

    def prepare(self) -> Self:
        """Lists now. See `S3IterableDataset.prepare`."""
        self._source.prepare()
        return self

    def stats(self) -> Stats:
        """What reading cost; `samples` are the source's. See `S3IterableDataset.stats`."""
        return self._source.stats()

    def bad_samples(self) -> BadSamples:
        """What the source left out or replaced because of `on_error`."""
        return self._source.bad_samples()

    def state_dict(self) -> dict[str, Any]:
        """Where this reader stands, behind the last sample it gave, as values for JSON.

        With `s3dataset.DataLoader` ask the loader, which knows of all its workers. torchdata's StatefulDataLoader asks
        each worker by itself.
        """
        self._source._check_has_place()  # noqa: SLF001
        return self._with_ledger(self._standing(at_end=asked_by_torchdata()))

    def _standing(self, *, at_end: bool) -> dict[str, Any]:
        if self._loaded is not None:
            return dict(self._loaded)
        if self._iteration is not None:
            in_worker = torch.utils.data.get_worker_info() is not None
            return self._iteration.state(between_epochs=not in_worker and not at_end)
        return self._coming_to_loader(0)

    def _with_ledger(self, state: dict[str, Any]) -> dict[str, Any]:
        return self._source._with_ledger(state)  # noqa: SLF001

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state in the next iteration, which finishes that epoch; the one after it begins the next.

        Raises:
            RuntimeError: An iteration is going on.
            ValueError: It is no state of staged samples. That it is another topology's is told when iteration begins.
        """
        source = self._source
        source._position.check_idle()  # noqa: SLF001
        if state_kind(state) != _KIND:
            raise ValueError(
                f"the state is of kind {state.get('kind')!r}, and a dataset with stages needs one of kind {_KIND!r}"
            )
        if len(self._stages) != state["stages"] or (self._packing and self._packing.length) != state["length"]:
            raise ValueError("the state was saved behind other stages: make the dataset as it was then")
        self._iteration = None
        in_worker = torch.utils.data.get_worker_info() is not None
        source._ledger.knows(BadSamples.from_dict(state.get("bad")), alone=not in_worker)  # noqa: SLF001
        loaded = {name: value for name, value in state.items() if name != "bad"}
        if loaded.pop("ended", False):
            if asked_by_torchdata():
                loaded["ended"] = True
            else:
                loaded |= {"epoch": int(state["epoch"]) + 1, "readers": {}, "next": 0}
        if in_worker:
            self._loaded = loaded
        else:
            source._epochs.name(source._rank_for_epochs(), int(loaded["epoch"]), loaded)  # noqa: SLF001

    def _state(self, reader: Reader, epoch: int, places: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "kind": _KIND,
            "epoch": epoch,
            "rank": reader.rank,
            "world_size": reader.world_size,
            "workers": reader.num_workers,
            "next": 0,
            "stages": len(self._stages),
            "length": self._packing and self._packing.length,
            "readers": dict(places),
        }

    # -- For DataLoader ---------------------------------------------------------------------------------------------

    def _begin_loader(self, num_workers: int, batch_size: int) -> "tuple[StagesTaken, Turn]":
        source = self._source
        rank = source._rank_for_epochs()  # noqa: SLF001
        source._compare_ranks(source._part().rank.world_size)  # noqa: SLF001
        turn = source._epochs.begin(rank, LOADER)  # noqa: SLF001
        if source._part().split.steps_per_epoch is not None:  # noqa: SLF001
            turn = turn._replace(batch_size=batch_size)
        staged = turn.resume if turn.resume is not None and turn.resume.get("kind") == _KIND else None
        source._note_handed(rank, turn, num_workers)  # noqa: SLF001
        begun = self._beginning(turn.epoch, num_workers) if staged is None else dict(staged)
        return StagesTaken(self, begun, num_workers), turn

    def _carried(self) -> dict[str, Any] | None:
        """What a worker's batch tells of where it stands."""
        return None if self._iteration is None else self._iteration.state(between_epochs=False)

    def _coming_to_loader(self, num_workers: int) -> dict[str, Any]:
        source = self._source
        turn = source._epochs.coming(source._rank_for_epochs(), LOADER)  # noqa: SLF001
        return dict(turn.resume or self._beginning(turn.epoch, num_workers))

    def _beginning(self, epoch: int, num_workers: int) -> dict[str, Any]:
        self._source._outer = self  # noqa: SLF001
        reader = self._source._part().reader  # noqa: SLF001
        workers = max(1, num_workers, reader.num_workers)
        return self._state(reader._replace(worker=0, num_workers=workers), epoch, {})


def _check_topology(state: Mapping[str, Any], part: "Part") -> None:
    saved = state["rank"], state["world_size"], state["workers"]
    now = part.rank.rank, part.rank.world_size, part.num_workers
    if saved != now:
        raise ValueError(
            "the state was saved behind stages by rank {} of {} with {} workers, and this is rank {} of {} with {}: "
            "readers come forward at different speeds through what they keep, so that what is left does not share out "
            "anew, and such a state fits the same topology only. Go on with that one to the end of the epoch, whose "
            "state fits all, or begin the next epoch with set_epoch({})".format(*saved, *now, int(state["epoch"]) + 1)
        )


class StagesTaken:
    """What a loop took of an epoch behind stages: what each worker says with its batches.

    Args:
        dataset: The dataset.
        begun: Where the epoch began.
        num_workers: The loader's.
    """

    def __init__(self, dataset: StagedDataset[Any], begun: dict[str, Any], num_workers: int) -> None:
        self._dataset = dataset
        self._state = begun
        self._in_workers = num_workers > 0
        self._iteration: StagedIteration | None = None
        self.going_on = False

    def batch(self) -> None:
        """See `Taken`."""
        if self._iteration is not None:
            self._state = self._iteration.state(between_epochs=True)

    def reads(self, run: Any) -> None:
        """See `Taken`."""
        self._iteration = None if self._in_workers else run

    def carried(self, state: bytes) -> None:
        """See `Taken`."""
        came = json.loads(state)
        (worker,) = came["readers"]
        following = (int(worker) + 1) % came["workers"]
        self._state = {**came, "next": following, "readers": {**self._state["readers"], **came["readers"]}}

    def end(self) -> None:
        """See `Taken`."""
        if self._in_workers or self._state["readers"]:
            self._state = {**self._state, "epoch": self._state["epoch"] + 1, "readers": {}, "next": 0}

    def state(self) -> "StagesTaken":
        """See `Taken`."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """The state, as values for JSON."""
        return dict(self._state)
