"""Epochs, state and shares of a stream: where an iteration begins, and where it stands."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Self, TypeVar

import torch.utils.data

from s3dataset._datasets._bad_samples import OnError
from s3dataset._datasets._base import S3Dataset, client_ref
from s3dataset._datasets._epoch_order import first_state
from s3dataset._datasets._epochs import LOADER, MAIN, WORKERS, Epochs, Turn
from s3dataset._datasets._handing import Beginning, Handed, handed_to
from s3dataset._datasets._origin import Origin, Saved
from s3dataset._datasets._position import Part, Position, ShardsRun, checked_shuffle, in_order_of, resumed, state_of
from s3dataset._datasets._rank import ALONE, find_rank, is_spawning
from s3dataset._datasets._taken import NumberedTaken, ShardsTaken, Taken
from s3dataset._datasets._torchdata import asked_by_torchdata
from s3dataset._order import BadSamples, BatchPlan, EpochState, ShardsState, Shuffle, Split, StreamState, whole_number
from s3dataset.formats import Format

__all__ = ["ResumableDataset"]

T_co = TypeVar("T_co", covariant=True)

_CHOICES: Final = (
    "True splits the objects over ranks and their DataLoader workers; False gives all of them to every process; "
    "Split(ranks=False) splits over workers only, for when something else reads on one rank or splits over ranks "
    "already "
    "(Accelerate's dispatch mode, a list made with uris[rank::world_size])"
)


def _own_names(kind: type) -> set[str]:
    """What a class derived from a dataset of this package defines."""
    own: set[str] = set()
    for base in kind.__mro__:
        if base.__module__.startswith("s3dataset."):
            break
        own |= base.__dict__.keys()
    return own


class ResumableDataset(S3Dataset[T_co]):
    """What S3IterableDataset knows of ranks, workers, epochs and states. Private: users meet the derived class."""

    def __init__(
        self,
        origin: Origin,
        transform: Any,
        reader_constructor: Any,
        connection: tuple[Any, Any, Any],
        format: Format | None,  # noqa: A002
        enable_sharding: bool | Split | None,
        ordered: bool,
        batch_size: int | None,
        shuffle: bool | Shuffle = False,
        on_error: OnError = "raise",
    ) -> None:
        """Private: use `from_prefix`, `from_objects` or `from_manifest`."""
        super().__init__(origin, client_ref(*connection), transform, reader_constructor, format, on_error)
        if isinstance(enable_sharding, int):
            enable_sharding = bool(enable_sharding)  # 0 and 1, as command lines and configurations have them
        if not (enable_sharding is None or isinstance(enable_sharding, bool | Split)):
            raise TypeError(f"enable_sharding must be True, False, None or a Split; got {enable_sharding!r}")
        if batch_size is not None:
            batch_size = whole_number("batch_size", batch_size)
            if batch_size < 1:
                raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._sharding = enable_sharding
        self._ordered = ordered
        self._batch_size = batch_size
        self._shuffle = checked_shuffle(shuffle)

    _begins = Turn(0, None)
    """Where a copy or a pickle goes on from."""

    _came_with: Beginning | None = None
    """What a loader handed over with the pickle that starts its worker."""

    def _begin_process(self) -> None:
        super()._begin_process()
        self._epochs = Epochs(self._page_of_listing, self._begins)
        self._position = Position()
        self._handed = Handed(self._came_with)
        self._handed_last: tuple[Turn, int] | None = None  # to workers, and how many others had begun
        self._outer: Any = None  # what has this one within, and leaves the splitting to it
        self._worker_shift = 0

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        for name in ("_epochs", "_position", "_handed", "_handed_last", "_outer"):
            del state[name]
        if is_spawning():  # the page goes along
            state["_came_with"] = handed_to(self)
        else:
            state["_begins"], state["_came_with"] = self._coming_to_copies(), None
        return state

    def __copy__(self) -> Self:
        kept = self._begins, self._came_with
        self._begins, self._came_with = self._coming_to_copies(), None
        try:
            return super().__copy__()
        finally:
            self._begins, self._came_with = kept

    def _coming_to_copies(self) -> Turn:
        """The epoch that a copy begins with, which counts by itself from there on."""
        if not self._listing.has_page:  # nothing began
            return self._begins
        try:
            rank = self._rank_for_epochs()
        except ValueError:  # told when iteration begins
            return self._begins
        return self._epochs.furthest(rank)

    # -- Who reads what ---------------------------------------------------------------------------------------------

    def _part(self) -> Part:
        info = torch.utils.data.get_worker_info()
        everything = Part(ALONE, 0, 1, Split(tail="exact"))
        if self._sharding is False:
            return everything
        split = self._sharding if isinstance(self._sharding, Split) else Split()
        known: tuple[object, ...] = (self, self._outer)
        if self._sharding is None and info is not None and not any(info.dataset is one for one in known):
            self._warn_once(
                "wrapped",
                "an S3IterableDataset inside another dataset cannot tell who splits the samples, so every worker reads "
                "all "
                f"of them. Give enable_sharding=: {_CHOICES}.",
            )
            return everything
        rank = find_rank(split, self._parent_rank)
        if self._sharding is None and rank.world_size > 1:
            raise ValueError(
                f"S3IterableDataset runs on {rank.world_size} ranks and does not know who splits the samples. Give "
                f"enable_sharding=: {_CHOICES}."
            )
        if info is not None and split.workers:
            return Part(rank, (info.id + self._worker_shift) % info.num_workers, info.num_workers, split)
        return Part(rank, 0, 1, split)

    # -- Epochs and state -------------------------------------------------------------------------------------------

    def set_epoch(self, epoch: int) -> None:
        """Names the epoch that the next iteration begins; each further one is the next epoch.

        Workers learn of it when their next iteration begins, persistent ones too. To name the epoch of a state that was
        loaded, as loops over epochs do, changes nothing: the iteration goes on from the state.

        Raises:
            TypeError: The epoch is no integer.
            ValueError: It is negative.
        """
        rank, epoch = self._rank_for_epochs(), whole_number("epoch", epoch)
        resume = self._epochs.furthest(rank).resume
        if resume is None or resume["epoch"] != epoch:
            self._epochs.name(rank, epoch)
        if not self._position.going_on:
            self._position.run = None

    def state_dict(self, batches_consumed: int | None = None) -> dict[str, Any]:
        """Where the epoch stands, as values for JSON: a few hundred bytes.

        In the process that iterates, that is behind the last sample it took. It is elastic, so that any number of ranks
        and workers can go on from it, where samples make up whole batches of `batch_size`; else it fits the same number
        of ranks. In a DataLoader's worker it is that worker's own, for torchdata's StatefulDataLoader; `resume_state`
        makes an elastic one of the loader's. `s3dataset.DataLoader.state_dict` asks for nothing of all this.

        Args:
            batches_consumed: How many batches the loop took of a PyTorch DataLoader with workers, which read further
                ahead than the loop. Needs `batch_size` on the dataset.

        Raises:
            ValueError: Workers read, and `batches_consumed` is not given; or it is, and `batch_size` is not; or the
                dataset has ordered=False.
        """
        self._check_has_place()
        return self._with_ledger(self._standing(batches_consumed, at_end=asked_by_torchdata()))

    def _standing(self, batches_consumed: int | None, *, at_end: bool) -> dict[str, Any]:
        if batches_consumed is not None:
            if self._batch_size is None:
                raise ValueError(
                    "state_dict(batches_consumed=) needs to know the batches: give the dataset batch_size=, as the "
                    "loader's"
                )
            return self._state_of_loader(batches_consumed).to_dict()
        in_worker = torch.utils.data.get_worker_info() is not None
        if self._position.loaded is not None:
            return dict(self._position.loaded)
        run = self._position.run
        if run is not None and (in_worker or at_end or not run.done):
            state: dict[str, Any] = run.state(in_worker=in_worker, at_end=at_end).to_dict()
            return state | {"ended": True} if at_end and not in_worker and run.is_over else state
        rank = self._rank_for_epochs()
        if run is None and not in_worker and self._last_of_workers(rank) is not None:
            raise ValueError(
                "workers read this dataset, further ahead than the loop is. s3dataset.DataLoader and torchdata's "
                "StatefulDataLoader keep count: take their state_dict(). With PyTorch's DataLoader give "
                "state_dict(batches_consumed=n), the batches that the loop took in this epoch"
            )
        part, turn = self._part(), self._epochs.coming(rank, WORKERS if in_worker else MAIN)
        if self._reads_unindexed is not None:
            return self._shards_state(part, turn).to_dict()
        return self._resolved(turn, part).to_dict()

    def _last_of_workers(self, rank: int) -> Turn | None:
        """What workers began last since an epoch was named; None: nothing."""
        others = self._epochs.last(rank, WORKERS)
        if self._handed_last is not None:
            turn, others_then = self._handed_last
            named = self._epochs.last(rank, LOADER)
            if named is not None and (others is None or others.begun == others_then):
                return turn
        return others

    def _check_has_place(self, num_workers: int = 0) -> None:
        """Refuses to tell where something is that has no place.

        Raises:
            ValueError: Samples come as they arrive, or each worker takes them all.
        """
        if not self._ordered and self._format_of_shards is None:
            raise ValueError("with ordered=False samples come as they arrive, so there is no place to go on from")
        shares = self._sharding is not False and not (isinstance(self._sharding, Split) and not self._sharding.workers)
        if num_workers > 1 and not shares:
            raise ValueError(
                f"each of the {num_workers} workers reads all samples, as enable_sharding={self._sharding!r} asks for, "
                "so a batch says nothing of where the epoch is: split over workers, or use one"
            )

    def _check_one_to_one(self) -> None:
        """Refuses to tell by the number of batches where a derived class is, which may leave out samples or add some.

        Raises:
            ValueError: It has an `__iter__` of its own, and no `__len__`.
        """
        kind = type(self)
        if self._reads_unindexed is None and "__iter__" in _own_names(kind) and "__len__" not in _own_names(kind):
            raise ValueError(
                f"where a loop is in a {kind.__name__} does not follow from its batches, as that has an __iter__ of "
                "its own, which may leave out samples or add some. Use transform=, .filter() or .flat_map(), whose "
                "place is known; or, if it gives one sample for each, define __len__ too"
            )

    def _state_of_loader(self, batches_consumed: int) -> EpochState:
        """Where a PyTorch DataLoader stands whose loop took so many batches of the epoch its workers began last."""
        if self._reads_unindexed is not None:
            raise ValueError(
                f"where the workers are in the shards of {self._listing.origin} follows from no number of batches: use "
                "s3dataset.DataLoader or torchdata's StatefulDataLoader, or make an index with `s3dataset index`"
            )
        self._check_one_to_one()
        part = self._part()
        rank = self._rank_for_epochs()
        turn = self._last_of_workers(rank) or self._epochs.coming(rank, WORKERS)
        state = self._resolved(turn, part, self._epochs.workers(rank) or None)
        return NumberedTaken(state, self._batch_plan(part, state), part.rank.rank).after(batches_consumed)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state in the next iteration, which finishes that epoch; the one after it begins the next.

        Of samples that have numbers, later epochs keep the state's seed, blocks and streams too, so that they are those
        of the run that was left, whatever the number of workers now.

        Raises:
            RuntimeError: An iteration is going on.
            ValueError: It is no state of this kind of dataset.
            ManifestMismatchError: It belongs to other data; told when iteration begins, as is a wrong number of ranks.
        """
        self._position.check_idle()
        checked = state_of(state)
        in_worker = torch.utils.data.get_worker_info() is not None
        self._ledger.knows(checked.bad, alone=not in_worker)
        ended = state.get("ended") is True
        if ended and not asked_by_torchdata():
            checked = checked.next_epoch()
        loaded = replace(checked, bad=BadSamples()).to_dict()
        if ended and asked_by_torchdata():
            loaded["ended"] = True
        if "turn" in state and not ended:
            loaded["turn"] = [int(number) for number in state["turn"]]
        if in_worker:
            self._position.loaded = loaded
        else:
            self._epochs.load(self._rank_for_epochs(), loaded)
            self._position.run = None

    def _rank_for_epochs(self) -> int:
        split = self._sharding if isinstance(self._sharding, Split) else Split()
        return 0 if self._sharding is False else find_rank(split, self._parent_rank).rank

    def _first_state(
        self, part: Part, epoch: int, batch_size: int | None = None, num_workers: int | None = None
    ) -> EpochState:
        if batch_size is None and part.split.steps_per_epoch is not None:
            batch_size = self._batch_size_for_steps()
        return first_state(
            self.manifest,
            epoch=epoch,
            batch_size=batch_size or self._known_batch_size() or 1,
            shuffle=self._shuffle,
            in_shards=self._shards is not None,
            ranks=part.rank.world_size,
            workers=part.num_workers if num_workers is None else num_workers,
            repeat=part.split.steps_per_epoch is not None,
        )

    def _begin_turn(self) -> Turn:
        """Begins an iteration: what a loader of this package handed over, or else the next epoch."""
        if self._position.given is None:
            beginning = self._handed.take(self, self._listing.page)
            if beginning is not None:
                return Turn(
                    beginning.epoch,
                    beginning.resume,
                    batch_size=beginning.batch_size,
                    in_loader=True,
                    first_worker=beginning.first_worker,
                )
        return self._position.begin(self._epochs, self._rank_for_epochs())

    def _resolved(self, turn: Turn, part: Part, num_workers: int | None = None) -> EpochState:
        fresh = self._first_state(part, turn.epoch, turn.batch_size, num_workers)
        if turn.resume is not None:
            return resumed(turn.resume, fresh, part)
        return in_order_of(self._epochs.loaded(self._rank_for_epochs()), fresh)

    def _batch_plan(self, part: Part, state: EpochState) -> BatchPlan:
        return state.plan(
            world_size=part.rank.world_size,
            tail=part.split.resolved_tail(part.rank.world_size),
            steps_per_epoch=part.split.steps_per_epoch,
        )

    def _shards_state(self, part: Part, turn: Turn, num_workers: int | None = None) -> ShardsState:
        """Where an epoch over shards without an index begins.

        Raises:
            ValueError: What the split asks for takes an index, or the state is another reader's.
            ManifestMismatchError: The state belongs to other data.
        """
        if part.split.tail in {"pad", "drop"}:
            raise ValueError(
                f"Split(tail={part.split.tail!r}) needs to know how many samples the shards of {self._listing.origin} "
                'hold: make an index with `s3dataset index`, or use tail="exact" or steps_per_epoch='
            )
        if part.split.steps_per_epoch is not None and turn.batch_size is None:
            self._batch_size_for_steps()
        manifest, shuffle = self.manifest, self._shuffle or Shuffle()
        if turn.resume is not None:
            state = ShardsState.from_dict(turn.resume)
            state.check(fingerprint=manifest.fingerprint, num_shards=len(manifest))
            if state.missing or any(one != StreamState(one.stream) for one in state.parts):
                return state
            shuffle = replace(shuffle, seed=state.seed)  # nothing was read yet, so that other readers may share anew
        block_bytes, block_samples = shuffle.buffer_limits()
        workers = part.num_workers if num_workers is None else num_workers
        streams = shuffle.streams or part.rank.world_size * max(1, workers)
        return ShardsState(
            fingerprint=manifest.fingerprint,
            num_shards=len(manifest),
            seed=shuffle.seed if self._shuffle is not None else 0,
            epoch=turn.epoch,
            shuffle=self._shuffle is not None,
            block_bytes=block_bytes,
            block_samples=block_samples,
            open_shards=shuffle.open_shards,
            streams=streams,
            parts=tuple(map(StreamState, range(part.rank.rank, streams, part.rank.world_size))),
        )

    @property
    def _may_be_unindexed(self) -> bool:
        """Whether objects may turn out to be shards without an index, as far as is known without asking the service."""
        return self._format is not None or isinstance(self._listing.origin, Saved)

    def _known_batch_size(self) -> int | None:
        return self._batch_size or self._listing.page.get("batch_size") or None

    def _batch_size_for_steps(self) -> int:
        batch_size = self._known_batch_size()
        if batch_size is None:
            raise ValueError(
                "Split(steps_per_epoch=) counts batches, whose size this dataset does not know: give it batch_size=, "
                "or use s3dataset.DataLoader"
            )
        return batch_size

    # -- For DataLoader ---------------------------------------------------------------------------------------------

    def _check_batch_size(self, batch_size: int) -> None:
        if self._batch_size not in {None, batch_size}:
            raise ValueError(
                f"the dataset was made with batch_size={self._batch_size} and the loader with {batch_size}: leave it "
                "out "
                "of the dataset, s3dataset.DataLoader tells it"
            )

    def _begin_loader(self, batch_size: int, num_workers: int) -> tuple[Taken, Turn]:
        """Takes the loader's batch size, and checks what workers could not.

        Returns:
            What the loop took: nothing so far; and where the iteration begins, for whoever reads.

        Raises:
            ValueError: There are several ranks, and nothing says how they share.
            ManifestMismatchError: Another rank lists other objects.
        """
        self._listing.page.set("batch_size", batch_size)
        part = self._part()
        self._compare_ranks(part.rank.world_size)
        rank = self._rank_for_epochs()
        turn = self._epochs.begin(rank, LOADER)._replace(batch_size=batch_size)
        state: EpochState | ShardsState
        taken: Taken
        if self._reads_unindexed is not None:
            state = self._shards_state(part, turn, num_workers)
            streams = range(part.rank.rank, state.streams, part.rank.world_size)
            worker, of_workers = (turn.resume or {}).get("turn", (0, 0))
            turn = turn._replace(first_worker=worker if of_workers == num_workers else 0)
            taken = ShardsTaken(state, streams, num_workers, turn.first_worker)
        else:
            state = self._resolved(turn, part, max(1, num_workers))
            taken = NumberedTaken(state, self._batch_plan(part, state), part.rank.rank)
        turn = turn._replace(epoch=state.epoch, resume=replace(state, bad=BadSamples()).to_dict())
        self._note_handed(rank, turn, num_workers)
        return taken, turn

    def _note_handed(self, rank: int, turn: Turn, num_workers: int) -> None:
        if num_workers:
            self._epochs.note_workers(rank, num_workers)
            others = self._epochs.last(rank, WORKERS)
            self._handed_last = turn, others.begun if others is not None else 0

    def _carried(self) -> dict[str, Any] | None:
        """What a worker's batch tells of where it stands; None: the number of batches tells enough."""
        run = self._position.run
        return run.standing().to_dict() | {"worker": run.worker} if isinstance(run, ShardsRun) else None

    def _coming_to_loader(self, batch_size: int, num_workers: int) -> EpochState | ShardsState:
        """Where the loader's next epoch will begin."""
        part = self._part()
        turn = self._epochs.coming(self._rank_for_epochs(), LOADER)._replace(batch_size=batch_size)
        if self._reads_unindexed is not None:
            return self._shards_state(part, turn, num_workers)
        return self._resolved(turn, part, max(1, num_workers))
