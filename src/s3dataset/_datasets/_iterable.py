"""S3IterableDataset: objects, or samples of shards, as a stream that ranks and workers share."""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, Final, Literal, Self, TypeVar, cast

import torch.utils.data
from torch.utils.data import IterableDataset

from s3dataset._datasets._ahead import FetchAhead, bytes_ahead
from s3dataset._datasets._bad_samples import OnError
from s3dataset._datasets._base import ROWS_AT_ONCE, S3Dataset, client_ref
from s3dataset._datasets._epoch_order import EpochOrder, first_state
from s3dataset._datasets._epochs import Epochs, Turn
from s3dataset._datasets._iterable_constructors import IterableConstructors
from s3dataset._datasets._origin import Origin, Saved
from s3dataset._datasets._position import (
    NumberedRun,
    Part,
    Position,
    ShardsRun,
    checked_shuffle,
    resumed,
    state_of,
    without_first,
)
from s3dataset._datasets._positions_ahead import PositionsAhead
from s3dataset._datasets._rank import ALONE, find_rank
from s3dataset._datasets._shard_samples import ShardSampleMaker
from s3dataset._datasets._stages import StagedDataset
from s3dataset._datasets._taken import NumberedTaken, ShardsTaken, Taken
from s3dataset._datasets._unindexed import UnindexedEpoch
from s3dataset._order import (
    BatchPlan,
    EpochState,
    ShardsState,
    Shuffle,
    Split,
    StreamState,
    reader_positions,
    reader_streams,
)
from s3dataset.formats import Format

__all__ = ["S3IterableDataset"]

T_co = TypeVar("T_co", covariant=True)

_CHOICES: Final = (
    "True splits the objects over ranks and their DataLoader workers; False gives all of them to every process; "
    "Split(ranks=False) splits over workers only, for when something else reads on one rank or splits over ranks "
    "already "
    "(Accelerate's dispatch mode, a list made with uris[rank::world_size])"
)


_LOADER: Final = "loader"


def _worker_name(worker: int) -> str:
    return f"worker {worker}"


def _reader_name() -> str:
    info = torch.utils.data.get_worker_info()
    return "main" if info is None else _worker_name(info.id)


class S3IterableDataset(IterableConstructors[T_co], S3Dataset[T_co], IterableDataset[T_co]):
    """Objects in S3 as a stream: iterating gives `transform(S3Reader)` of one after the other, many requests under way.

    Make one with `from_prefix`, `from_objects` or `from_manifest`. Syntax is checked there; the network is used when
    iteration begins, which lists once, in parallel, for this process and all DataLoader workers. The order is the
    service's, by key.

    With `format` the objects are shards, and it gives `transform(Sample)` of the samples in them. Shards with an index
    (`s3dataset index`, `Manifest.index`) are read by sample, so that a shuffle goes over the whole epoch and a state fits
    any number of ranks and workers; others are streamed from their beginnings, each by one reader.

    With `shuffle` each epoch is an order of its own. An iteration is the next epoch, unless `set_epoch` names another;
    `state_dict` and `load_state_dict` go on in the middle of one.

    No sample goes to two workers of a DataLoader. Over ranks samples are split when `enable_sharding` says so; with
    several ranks and nothing said the first iteration raises ValueError, as either guess would be wrong for somebody:
    samples twice, or lost. Ranks and workers are found out when an iteration begins. Parts are disjoint and, but for
    the tail's policy (`Split`), complete, whatever the numbers of ranks and workers. With `batch_size`, or in an
    `s3dataset.DataLoader`, the loader's batches come in the order of the listing.

    What was listed is what is read: an object that was replaced since raises `ObjectChangedError`.

    Works under fork, spawn and forkserver, and with persistent workers. Memory: a window of half the byte budget
    (`S3ClientConfig.memory_limit_bytes`) at most, and of two objects for each connection. Of objects larger than
    `part_size` only the first part is fetched ahead. Without a transform fetching ahead begins when a reader was read,
    and stops when several in a row were not.
    """

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
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._sharding = enable_sharding
        self._ordered = ordered
        self._batch_size = batch_size
        self._shuffle = checked_shuffle(shuffle)

    @classmethod
    def _make(cls, *arguments: Any) -> Self:
        return cls(*arguments)

    def _begin_process(self) -> None:
        super()._begin_process()
        self._epochs = Epochs(self._page_of_listing)
        self._position = Position()
        self._in_loader = False
        self._outer: Any = None  # what has this one within, and leaves the splitting to it
        self._worker_shift = 0

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        del state["_epochs"], state["_position"], state["_in_loader"], state["_outer"]
        return state

    # -- Iterating --------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[T_co]:
        """Iterates over this process's part of the next epoch.

        Raises:
            ValueError: There are several ranks, and nothing says how they share.
            ManifestMismatchError: Another rank lists other objects, or a state was loaded that belongs to others.
            S3Exception: Listing failed, or, while iterating, an object could not be fetched.
        """
        part = self._part()
        in_worker = torch.utils.data.get_worker_info() is not None
        if part.rank.world_size > 1 and not in_worker:
            self._compare_ranks(part.rank.world_size)
        kind = self._reads_unindexed
        if kind is not None:
            return self._unindexed_epoch(part, kind)
        return self._numbered_epoch(part, in_worker=in_worker)

    def _numbered_epoch(self, part: Part, *, in_worker: bool) -> Iterator[T_co]:
        """Iterates over samples that have numbers: objects, or samples of indexed shards."""
        state = self._begin(part)
        shards = self._shards_drawing(state.seed, state.epoch)
        order = EpochOrder(self.manifest, state, in_shards=shards is not None)
        plan = self._batch_plan(part, state)
        places = without_first(
            reader_positions(
                plan, rank=part.rank.rank, worker=part.worker, num_workers=part.num_workers, chunk=ROWS_AT_ONCE
            ),
            state.taken,
        )
        bad = self._bad_policy(seed=state.seed, epoch=state.epoch)
        self._check_skipping(part)
        if bad is not None:
            bad.marks_skipped = self._in_loader
        client = self._maker.client
        samples: Iterator[T_co]
        if shards is None:
            rows = self._row_chunks(map(order.take, places))
            # What a worker delivers without a transform is read elsewhere, so there is no waiting to see whether it is.
            samples = iter(
                FetchAhead(
                    cast(Any, self._maker_drawing(state.seed, state.epoch)),
                    rows,
                    self._count,
                    ordered=self._ordered,
                    begin_at_once=in_worker,
                    bad=bad,
                    position_of=self._position_of,
                )
            )
        else:
            fetch, window_bytes = order.fetching(
                cast(Any, shards), plan, part.rank.world_size * part.num_workers, client.part_size, bytes_ahead(client)
            )
            samples = iter(PositionsAhead(shards, client, places, self._count, fetch, window_bytes, bad))
        run = NumberedRun(state, part, plan, (lambda: bad.skipped) if bad is not None else (lambda: 0))
        return self._position.follow(run.follow(samples), run)

    def _unindexed_epoch(self, part: Part, kind: Format) -> Iterator[T_co]:
        """Iterates over the samples of shards from their beginnings on."""
        state = self._shards_state(part, self._begin_turn())
        reader = part.reader
        streams = reader_streams(
            state.streams,
            rank=reader.rank,
            world_size=reader.world_size,
            worker=reader.worker,
            num_workers=reader.num_workers,
        )
        if self._on_error == "replace":
            raise ValueError(
                f'on_error="replace" needs to know the other samples of the shards of {self._listing.origin}: make an '
                'index with `s3dataset index`, or use "skip"'
            )
        steps = part.split.steps_per_epoch
        batch_size = self._known_batch_size()
        epoch = UnindexedEpoch(
            ShardSampleMaker(self._client_ref, kind, self._maker.transform),
            self.manifest,
            state,
            streams,
            batch_size or 1,
            self._count,
            repeat=steps is not None,
            bad=self._bad_policy(),
            reader_constructor=self._maker.reader_constructor,
        )
        samples: Iterator[T_co] = iter(epoch)
        if steps is not None and batch_size is not None:
            given = sum(part.given for part in state.parts if part.stream in streams)
            samples = islice(samples, max(0, len(range(reader.worker, steps, reader.num_workers)) * batch_size - given))
        return self._position.follow(samples, ShardsRun(epoch))

    def _check_skipping(self, part: Part) -> None:
        """Ranks that leave out samples take different numbers of steps.

        Raises:
            ValueError: They would, and nothing says that they may.
        """
        if self._on_error == "skip" and part.rank.world_size > 1 and part.split.tail != "exact":
            raise ValueError(
                'on_error="skip" makes ranks differ in their number of steps: give enable_sharding=Split(tail="exact") '
                'and a loop that bears it (torch.distributed.algorithms.Join), or use on_error="replace"'
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
        if part.split.steps_per_epoch is not None:
            self._batch_size_for_steps()
        manifest, shuffle = self.manifest, self._shuffle or Shuffle()
        if turn.resume is not None:
            state = ShardsState.from_dict(turn.resume)
            state.check(fingerprint=manifest.fingerprint, num_shards=len(manifest))
            return state
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

    def __len__(self) -> int:
        """The number of samples of this rank, all its workers together. Lists at first use.

        Raises:
            ValueError: There are several ranks, and nothing says how they share.
            TypeError: A derived class has an `__iter__` of its own, and does not say how many samples that gives.
        """
        self._check_countable()
        part = self._part()
        self._check_numbered()
        return self._batch_plan(part, self._first_state(part, 0)).samples(part.rank.rank)

    def _check_numbered(self) -> None:
        if self._reads_unindexed is not None:
            raise TypeError(
                f"how many samples the shards of {self._listing.origin} hold is not known without an index: "
                "`s3dataset index` makes one"
            )

    def __bool__(self) -> bool:
        """True, also of nothing: `if dataset` is asked before there is anything to list, and on every rank."""
        return True

    def _check_countable(self) -> None:
        """Refuses to count what a derived class makes: training loops end an epoch after so many batches."""
        kind = type(self)
        if kind.__iter__ is not S3IterableDataset.__iter__ and kind.__len__ is S3IterableDataset.__len__:
            raise TypeError(
                f"object of type {kind.__name__!r} has no len(): it has an __iter__ of its own, and no __len__"
            )

    # -- Stages -----------------------------------------------------------------------------------------------------

    def filter(self, fn: Callable[[T_co], Any]) -> StagedDataset:
        """The samples for which `fn` is true, as a dataset: `dataset.filter(is_long).pack_sequences(2048)`.

        Args:
            fn: Called in the workers; pickles where they are spawned. The same for the same sample whenever it is
                asked.
        """
        return StagedDataset(self).filter(fn)

    def flat_map(self, fn: Callable[[T_co], Iterable[Any]]) -> StagedDataset:
        """All that `fn` makes of each sample, one after the other: `dataset.flat_map(sentences)`.

        Args:
            fn: Gives an iterable, perhaps a generator or nothing; called in the workers. A state says how many were
                taken of it, so it must give the same ones for the same sample.
        """
        return StagedDataset(self).flat_map(fn)

    def pack_sequences(self, length: int, *, key: Any = None, tail: Literal["keep", "drop"] = "keep") -> StagedDataset:
        """Joins sequences end to end and cuts them to one length, as language models are trained on.

        Each reader packs its own samples. What a batch leaves of a sequence begins the next chunk, also after a resume.

        Args:
            length: Of each, in tokens.
            key: Where in a sample its sequence is: a list, array or tensor of one dimension. None: the sample is it.
            tail: What becomes of the last, shorter one of each reader.

        Raises:
            ValueError: The length is not positive, or tail neither of the two.
        """
        return StagedDataset(self).pack_sequences(length, key=key, tail=tail)

    # -- Epochs and state -------------------------------------------------------------------------------------------

    def set_epoch(self, epoch: int) -> None:
        """Names the epoch that the next iteration begins; each further one is the next epoch.

        Workers learn of it when their next iteration begins, persistent ones too.

        Raises:
            ValueError: The epoch is negative.
        """
        self._epochs.name(self._rank_for_epochs(), operator.index(epoch))

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
        if run is not None:
            return run.state(in_worker=in_worker).to_dict()
        rank = self._rank_for_epochs()
        if not in_worker and self._epochs.last(rank, _worker_name(0)) is not None:
            raise ValueError(
                "workers read this dataset, further ahead than the loop is. s3dataset.DataLoader and torchdata's "
                "StatefulDataLoader keep count: take their state_dict(). With PyTorch's DataLoader give "
                "state_dict(batches_consumed=n), the batches that the loop took in this epoch"
            )
        part, turn = self._part(), self._epochs.coming(rank, _reader_name())
        if self._reads_unindexed is not None:
            return self._shards_state(part, turn).to_dict()
        return self._resolved(turn, part).to_dict()

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

    def _state_of_loader(self, batches_consumed: int) -> EpochState:
        """Where a PyTorch DataLoader stands whose loop took so many batches of the epoch its workers began last."""
        if self._reads_unindexed is not None:
            raise ValueError(
                f"where the workers are in the shards of {self._listing.origin} follows from no number of batches: use "
                "s3dataset.DataLoader or torchdata's StatefulDataLoader, or make an index with `s3dataset index`"
            )
        part = self._part()
        rank = self._rank_for_epochs()
        turn = self._epochs.last(rank, _worker_name(0)) or self._epochs.coming(rank, _worker_name(0))
        state = self._resolved(turn, part)
        plan = self._batch_plan(part, state)
        if batches_consumed >= plan.steps(part.rank.rank):
            return state.next_epoch()
        return replace(state, batches=plan.taken(batches_consumed))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state in the next iteration, which finishes that epoch; the one after it begins the next.

        Raises:
            RuntimeError: An iteration is going on.
            ValueError: It is no state of this kind of dataset.
            ManifestMismatchError: It belongs to other data; told when iteration begins, as is a wrong number of ranks.
        """
        self._position.check_idle()
        checked = state_of(state)
        if torch.utils.data.get_worker_info() is not None:
            self._position.loaded = checked.to_dict()
        else:
            self._epochs.name(self._rank_for_epochs(), checked.epoch, checked.to_dict())

    def _rank_for_epochs(self) -> int:
        split = self._sharding if isinstance(self._sharding, Split) else Split()
        return 0 if self._sharding is False else find_rank(split, self._parent_rank).rank

    @staticmethod
    def _reader_name() -> str:
        return _reader_name()

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

    def _begin(self, part: Part) -> EpochState:
        """The state that this iteration begins at."""
        return self._resolved(self._begin_turn(), part)

    def _begin_turn(self) -> Turn:
        name = _reader_name()
        turn = self._position.begin(self._epochs, self._rank_for_epochs(), name)
        loader = None if turn.resume is None else turn.resume.get(_LOADER)
        of_main = loader == "main"
        self._in_loader = loader is not None and of_main == (name == "main")
        if loader is not None and not self._in_loader:
            return turn._replace(resume=None)  # the loader's workers go on from there, and this is not one of them
        return turn

    def _resolved(self, turn: Turn, part: Part, num_workers: int | None = None) -> EpochState:
        fresh = self._first_state(part, turn.epoch, num_workers=num_workers)
        return fresh if turn.resume is None else resumed(turn.resume, fresh, part)

    def _batch_plan(self, part: Part, state: EpochState) -> BatchPlan:
        return state.plan(
            world_size=part.rank.world_size,
            tail=part.split.resolved_tail(part.rank.world_size),
            steps_per_epoch=part.split.steps_per_epoch,
        )

    # -- For DataLoader ---------------------------------------------------------------------------------------------

    def _check_batch_size(self, batch_size: int) -> None:
        if self._batch_size not in {None, batch_size}:
            raise ValueError(
                f"the dataset was made with batch_size={self._batch_size} and the loader with {batch_size}: leave it "
                "out "
                "of the dataset, s3dataset.DataLoader tells it"
            )

    def _begin_loader(self, batch_size: int, num_workers: int) -> Taken:
        """Takes the loader's batch size, for all processes that share the page, and checks what workers could not.

        Returns:
            What the loop took: nothing so far. The workers are told where the epoch begins.

        Raises:
            ValueError: There are several ranks, and nothing says how they share.
            ManifestMismatchError: Another rank lists other objects.
        """
        self._listing.page.set("batch_size", batch_size)
        part = self._part()
        self._compare_ranks(part.rank.world_size)
        rank = self._rank_for_epochs()
        turn = self._epochs.begin(rank, _LOADER)
        state: EpochState | ShardsState
        taken: Taken
        if self._reads_unindexed is not None:
            state = self._shards_state(part, turn, num_workers)
            streams = range(part.rank.rank, state.streams, part.rank.world_size)
            taken = ShardsTaken(state, streams, None if num_workers else lambda: self._position.run)
        else:
            state = self._resolved(turn, part, max(1, num_workers))
            taken = NumberedTaken(state, self._batch_plan(part, state), part.rank.rank)
        self._epochs.name(rank, state.epoch, {**state.to_dict(), _LOADER: "workers" if num_workers else "main"})
        self._epochs.begin(rank, _LOADER)
        return taken

    def _coming_to_loader(self, batch_size: int, num_workers: int) -> EpochState | ShardsState:
        """Where the loader's next epoch will begin."""
        self._listing.page.set("batch_size", batch_size)
        part, turn = self._part(), self._epochs.coming(self._rank_for_epochs(), _LOADER)
        if self._reads_unindexed is not None:
            return self._shards_state(part, turn, num_workers)
        return self._resolved(turn, part, max(1, num_workers))

    def _batches_of_rank(self, batch_size: int, num_workers: int, drop_last: bool) -> int:
        """How many batches a loader on this rank gives in an epoch."""
        self._check_countable()
        self._check_numbered()
        part = self._part()
        plan = self._batch_plan(part, self._first_state(part, 0, batch_size))
        steps = plan.steps(part.rank.rank)
        if drop_last and steps and len(plan.rank_batch(part.rank.rank, steps - 1)) < batch_size:
            steps -= 1
        shared = self._sharding is not False and part.split.workers
        return steps if shared else steps * max(1, num_workers)

    # -- Who reads what ---------------------------------------------------------------------------------------------

    def _part(self) -> Part:
        info = torch.utils.data.get_worker_info()
        everything = Part(ALONE, 0, 1, Split(tail="exact"))
        if self._sharding is False:
            return everything
        split = self._sharding if isinstance(self._sharding, Split) else Split()
        if self._sharding is None and info is not None and info.dataset is not (self._outer or self):
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
