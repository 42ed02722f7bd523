"""DataLoader: PyTorch's, which also looks ahead, counts epochs and keeps statistics."""

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast

import torch.utils.data
from torch.utils.data import Dataset, IterableDataset, Sampler

from s3dataset._datasets._base import S3Dataset
from s3dataset._datasets._batch_sampler import BatchSampler
from s3dataset._datasets._epochs import Turn
from s3dataset._datasets._fork_server import preload_for_workers
from s3dataset._datasets._handing import Beginning, handed_to, handing
from s3dataset._datasets._iterable import S3IterableDataset
from s3dataset._datasets._look_ahead import LookAhead
from s3dataset._datasets._loop_watch import LoopWatch, Settings, Watched
from s3dataset._datasets._map import S3MapDataset
from s3dataset._datasets._mixed import MixedDataset
from s3dataset._datasets._stages import StagedDataset
from s3dataset._datasets._taken import Carrying, Counting, ShardsTaken, Taken, default_collate_of
from s3dataset._datasets._worker_pipe import widen_pipe
from s3dataset._order import Split, Tail
from s3dataset._stats import Stats, together

if TYPE_CHECKING:
    import contextlib

__all__ = ["DataLoader"]

T_co = TypeVar("T_co", covariant=True)

_loaders: Final = itertools.count()


class DataLoader(torch.utils.data.DataLoader[T_co]):
    """PyTorch's DataLoader with look-ahead, epochs, resume and statistics. Takes all of its arguments, and a few more.

    With a map dataset the batches come from a `BatchSampler`: shuffled by `seed` and epoch, the same on every rank and
    for every number of workers, split over the ranks. Workers are told which batches they get next and fetch them
    ahead, so that two workers reach thousands of samples a second where one batch after the other would allow hundreds.
    A `sampler` or `batch_sampler` of one's own is used as it is, and looked ahead in.

    With an `S3IterableDataset` the workers learn `batch_size`, so that the batches are the listing cut into pieces, in
    order.

    The first iteration is epoch 0 and each further one the next epoch, unless `set_epoch` names another.

    Args:
        dataset: Any dataset; look-ahead and statistics need one of s3dataset's.
        batch_size: Samples in a batch. None: no batches, one sample after the other, without look-ahead.
        shuffle: In an order of its own for every epoch.
        sampler: As PyTorch's; neither split over ranks nor seeded here.
        batch_sampler: As PyTorch's.
        num_workers: As PyTorch's.
        drop_last: All batches are full: the same as tail="drop".
        seed: Names the orders of `shuffle`; the same on every rank. Default: the initial seed of `generator`, else 0.
        tail: What happens at the end of an epoch to samples that do not make up a batch for every rank: "pad", "drop"
            or "exact"; see `Split`.
        split: Over which ranks; default: all that there are. For an `S3IterableDataset` give `enable_sharding=`
            instead.
        ahead: How many batches each worker fetches ahead; default: 4, and enough for 128 samples. 0: none.
        warn_waits: Whether to warn, once, when the loop waits for data more than a fifth of its time: the
            `DataWaitWarning` names the bottleneck and the setting to change. Default: yes, unless the environment
            variable S3DATASET_WARN_WAITS is 0. See docs/monitoring.md.
        **kwargs: All others of PyTorch's: collate_fn, pin_memory, timeout, worker_init_fn, multiprocessing_context,
            generator, prefetch_factor, persistent_workers, in_order.

    Raises:
        ValueError: Arguments contradict each other.
    """

    def __init__(
        self,
        dataset: Dataset[T_co],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Sampler[int] | Iterable[int] | None = None,
        batch_sampler: Sampler[list[int]] | Iterable[list[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        *args: Any,
        seed: int | None = None,
        tail: Tail | None = None,
        split: Split | None = None,
        ahead: int | None = None,
        warn_waits: bool | None = None,
        **kwargs: Any,
    ) -> None:
        own: dict[str, Any] = {"seed": seed, "tail": tail, "split": split}
        given = [name for name, value in own.items() if value is not None]
        iterable = isinstance(dataset, IterableDataset)
        makes_batches = not iterable and sampler is None and batch_sampler is None and batch_size is not None
        if given and not makes_batches:
            raise ValueError(
                f"DataLoader takes {'=, '.join(given)}= only for a map dataset whose batches it makes by itself"
                + ("; give an S3IterableDataset enable_sharding=" if iterable else "")
            )
        if drop_last and tail not in {None, "drop"}:
            raise ValueError(f"drop_last=True and tail={tail!r} contradict each other")
        self._told_batch_size: int | None = None
        self._taken: Taken | None = None
        self._workers, self._iterations = "", 0
        self._warn_waits, self._watch = warn_waits, cast("LoopWatch | None", None)
        stride = num_workers if kwargs.get("in_order", True) else None
        sizes: dict[str, Any] = {"batch_size": batch_size, "drop_last": drop_last}
        if makes_batches and batch_size is not None:
            batch_sampler = BatchSampler(
                dataset,  # type: ignore[arg-type]
                batch_size,
                shuffle=bool(shuffle),
                seed=_seed(seed, args, kwargs),
                tail="drop" if drop_last else tail,
                split=split,
                num_workers=stride,
                ahead=ahead,
            )
            # PyTorch wants nothing beside a batch sampler.
            shuffle, sizes = None, {}
        elif not iterable and isinstance(dataset, S3Dataset) and stride is not None and ahead != 0:
            if batch_sampler is None and sampler is not None and batch_size is not None:
                batch_sampler = torch.utils.data.BatchSampler(sampler, batch_size, drop_last)
                sampler, sizes = None, {}
            if batch_sampler is not None and not isinstance(batch_sampler, BatchSampler):
                batch_sampler = LookAhead(batch_sampler, stride, ahead)
        elif iterable and isinstance(dataset, S3IterableDataset):
            self._told_batch_size = batch_size or 1
            dataset._check_batch_size(self._told_batch_size)  # noqa: SLF001 - of the same package
            carries = dataset._may_be_unindexed and num_workers > 0  # noqa: SLF001
            if carries or dataset._on_error != "raise":  # noqa: SLF001
                collate_fn = Carrying(collate_fn or default_collate_of(batch_size), batch_size)
        elif isinstance(dataset, MixedDataset) or (isinstance(dataset, StagedDataset) and num_workers):
            collate_fn = Carrying(collate_fn or default_collate_of(batch_size), batch_size)
        super().__init__(
            dataset,
            sizes.get("batch_size", 1),
            shuffle,
            sampler,
            batch_sampler,
            num_workers,
            collate_fn,
            pin_memory,
            sizes.get("drop_last", False),
            *args,
            **kwargs,
        )

    def __iter__(self) -> Any:
        """Begins an epoch.

        Raises:
            ManifestMismatchError: Another rank lists other objects, or a state was loaded that belongs to others.
            S3Exception: Listing failed.
        """
        dataset, batch_size = self.dataset, self._told_batch_size or self.batch_size or 1
        if self.num_workers:
            for source in _sources(dataset):
                source._prepare_workers()  # noqa: SLF001 - of the same package, like all that follow
        begun: tuple[Taken, Turn]
        if isinstance(dataset, StagedDataset):
            begun = dataset._begin_loader(self.num_workers, batch_size)  # noqa: SLF001
        elif isinstance(dataset, MixedDataset | S3IterableDataset):
            begun = dataset._begin_loader(batch_size, self.num_workers)  # noqa: SLF001
        elif isinstance(self.batch_sampler, BatchSampler):
            if isinstance(dataset, S3Dataset):
                dataset._compare_ranks(self.batch_sampler.world_size)  # noqa: SLF001
            with self.batch_sampler._counting_in() as self._taken:  # noqa: SLF001
                return Counting(self._watched(super().__iter__()), self._taken)
        else:
            return self._watched(super().__iter__())
        self._taken, turn = begun
        reader = cast(
            "S3IterableDataset[Any]",
            dataset._first if isinstance(dataset, MixedDataset) else _sources(dataset)[0],  # noqa: SLF001
        )
        with _Making(dataset, reader, self._beginning(turn, reader), self._taken) as making:
            batches = self._watched(super().__iter__())
        return Counting(batches, self._taken, None if self.num_workers or making.has_begun else making)

    def _get_iterator(self) -> Any:
        if self.num_workers:
            preload_for_workers(self.multiprocessing_context or torch.multiprocessing)
        batches = super()._get_iterator()
        widen_pipe(batches)
        return batches

    def _beginning(self, turn: Turn, reader: S3IterableDataset[Any]) -> Beginning:
        """What the workers are told; those that live on find it in a file when the iteration is not their first."""
        if not self.persistent_workers or self._iterator is None:
            self._workers, self._iterations = f"{os.getpid()}.{next(_loaders)}", 0
        self._iterations += 1
        begun = turn.epoch, turn.resume, turn.batch_size, turn.first_worker
        beginning = Beginning(self._workers, self._iterations, *begun)
        if self.persistent_workers:
            beginning.publish(reader._listing.page)  # noqa: SLF001
        return beginning

    def _watched(self, batches: Any) -> Any:
        """Times what the loop waits for batches."""
        sources = _sources(self.dataset)
        if not sources or isinstance(batches, Watched):
            return batches
        watch = self._watch
        if watch is None:
            # It knows nothing of this loader, which may be gone while its iterator lives.
            settings = functools.partial(
                _settings,
                self.dataset,
                self.batch_sampler,
                self.batch_size,
                self.num_workers,
                in_order=getattr(self, "in_order", True),
            )
            stats = functools.partial(_stats_of, sources)
            watch = LoopWatch(stats, settings, self.num_workers, warn=self._warn_waits)
            self._watch = watch
        watch.begin(sources[0]._count.count_loop)  # noqa: SLF001
        return Watched(batches, watch, self.num_workers)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_watch": None}

    def __len__(self) -> int:
        """The number of batches of this rank in an epoch."""
        dataset = self.dataset
        if (
            isinstance(dataset, S3IterableDataset)
            and self._told_batch_size is not None
            and type(dataset).__len__ is S3IterableDataset.__len__
        ):
            return dataset._batches_of_rank(self._told_batch_size, self.num_workers, self.drop_last)  # noqa: SLF001
        return super().__len__()

    def set_epoch(self, epoch: int) -> None:
        """Names the epoch that the next iteration begins; the one after that follows on.

        Samplers of one's own are told if they have a `set_epoch`, as PyTorch's DistributedSampler.
        """
        if self._taken is not None and not self._taken.going_on:
            self._taken = None
        for part in (self.batch_sampler, getattr(self.batch_sampler, "sampler", None), self.sampler, self.dataset):
            name_epoch = getattr(part, "set_epoch", None)
            if name_epoch is not None:
                name_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the loop stands, behind its last batch, as values for JSON; under 4 KB where samples have numbers.

        It is elastic: any number of ranks and workers can go on from it, and what they take together is what this run
        would have taken, batch by batch. It is equal on every rank. Of shards without an index each rank knows its own:
        `merge_states` puts them together (`gather_state` over a process group). Between epochs it is the beginning of
        the next.

        Raises:
            TypeError: The batches come from a sampler of somebody else's, which has no state.
            ValueError: Samples or batches come as they are ready (ordered=False, in_order=False).
            S3Exception: Listing failed.
        """
        dataset = self.dataset
        if isinstance(dataset, S3IterableDataset):
            dataset._check_has_place(self.num_workers)  # noqa: SLF001
            dataset._check_one_to_one()  # noqa: SLF001
        if isinstance(dataset, StagedDataset):
            dataset._source._check_has_place(self.num_workers)  # noqa: SLF001
        if not getattr(self, "in_order", True) and self.num_workers > 1 and not isinstance(self._taken, ShardsTaken):
            raise ValueError(
                "with in_order=False batches come as they are ready, so their number says nothing of where the epoch "
                "is: leave in_order=True for a state"
            )
        state: dict[str, Any]
        if self._taken is not None:
            state = self._taken.state().to_dict()
        elif isinstance(dataset, MixedDataset | StagedDataset):
            state = dataset._coming_to_loader(self.num_workers)  # noqa: SLF001
        elif isinstance(dataset, S3IterableDataset):
            state = dataset._coming_to_loader(self._told_batch_size or 1, self.num_workers).to_dict()  # noqa: SLF001
        else:
            state = self._own_sampler().state_dict()
        if isinstance(dataset, StagedDataset | MixedDataset | S3Dataset):
            return dataset._with_ledger(state)  # noqa: SLF001
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state in the next iteration, which finishes that epoch; the one after it begins the next.

        Raises:
            RuntimeError: An iteration is going on.
            ValueError: It is no state of such a loader.
            TypeError: The batches come from a sampler of somebody else's.
        """
        if self._taken is not None and self._taken.going_on:
            raise RuntimeError("an epoch is going on: load a state before it begins, or end it first")
        self._taken = None
        if isinstance(self.dataset, S3IterableDataset | StagedDataset | MixedDataset):
            self.dataset.load_state_dict(state)
        else:
            # Persistent workers hold the iterator of an epoch that was broken off until the next one begins.
            self._own_sampler()._load(state)  # noqa: SLF001

    def _own_sampler(self) -> BatchSampler:
        if not isinstance(self.batch_sampler, BatchSampler):
            raise TypeError(
                "this loader's batches come from a sampler that keeps no state. Leave sampler= and batch_sampler= out, "
                "or give an s3dataset.BatchSampler"
            )
        return self.batch_sampler

    def stats(self) -> Stats:
        """What reading cost since the dataset was made, over this process and its workers.

        Of a mixture it is the sum over its sources, each of which has its own `stats()`; behind stages samples count as
        they come from the source.

        Raises:
            TypeError: The dataset is none of s3dataset's.
        """
        sources = _sources(self.dataset)
        if not sources:
            raise TypeError(f"only datasets of s3dataset keep statistics, and this is a {type(self.dataset).__name__}")
        return _stats_of(sources)


class _Making:
    """Hands over what an iteration begins with while its iterator is made.

    Where that reads in this process, the `__iter__` of a derived class may begin with the first batch only.
    """

    def __init__(self, dataset: Any, reader: "S3IterableDataset[Any]", beginning: Beginning, taken: Taken) -> None:
        self._dataset = dataset
        self._reader = reader
        self._beginning = beginning
        self._taken = taken
        self._handing: contextlib.AbstractContextManager[None] = handing(reader, beginning)
        self.has_begun = False

    def __enter__(self) -> Self:
        self._handing = handing(self._reader, self._beginning)
        self._handing.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if handed_to(self._reader) is None:
            self.has_begun = True
            staged = isinstance(self._dataset, StagedDataset)
            self._taken.reads(self._dataset._iteration if staged else self._reader._position.run)  # noqa: SLF001
        self._handing.__exit__(None, None, None)


def _sources(dataset: Any) -> list[S3Dataset[Any]]:
    """The datasets of ours that a loader reads."""
    if isinstance(dataset, StagedDataset):
        return [dataset._source]  # noqa: SLF001
    if isinstance(dataset, MixedDataset):
        return list({id(source._listing): source for source in dataset._datasets}.values())  # noqa: SLF001
    return [dataset] if isinstance(dataset, S3Dataset) else []


def _stats_of(sources: list[S3Dataset[Any]]) -> Stats:
    return together([(source._client_ref, source.stats()) for source in sources])  # noqa: SLF001


def _settings(dataset: Any, sampler: Any, batch_size: int | None, num_workers: int, *, in_order: bool) -> Settings:
    """What of a loader could be changed."""
    source = _sources(dataset)[0]
    maker, config = source._maker, source._client_ref.config  # noqa: SLF001
    objects = source._format_of_shards is None  # noqa: SLF001
    on_demand, not_ahead = objects and not maker.reads_ahead, ""
    if isinstance(dataset, S3MapDataset) and not on_demand:
        not_ahead = _not_ahead(dataset, sampler, num_workers, in_order=in_order)
        # A sample that is asked for alone is read by its transform.
        alone = dataset._has_own_samples or sampler is None  # noqa: SLF001
        on_demand = objects and alone and dataset._on_error == "raise"  # noqa: SLF001
    ours = isinstance(sampler, BatchSampler | LookAhead)
    return Settings(
        num_workers=num_workers,
        ahead=getattr(sampler, "ahead", getattr(sampler, "_ahead", None)) if ours else 0,
        batch_size=batch_size or getattr(sampler, "batch_size", None),
        looks_ahead=isinstance(dataset, S3MapDataset),
        has_index=source._reads_unindexed is None,  # noqa: SLF001
        on_demand=on_demand,
        not_ahead=not_ahead,
        staged=isinstance(dataset, StagedDataset),
        max_connections=None if config is None else config.max_connections,
        memory_limit_bytes=None if config is None else config.memory_limit_bytes,
    )


def _not_ahead(dataset: S3MapDataset[Any], sampler: Any, num_workers: int, *, in_order: bool) -> str:
    """What to change so that batches are fetched ahead, beside `ahead` itself; "" if nothing is in the way."""
    if dataset._has_own_samples:  # noqa: SLF001
        return "transform= instead of the dataset's own __getitem__, for which one sample is fetched after the other"
    if sampler is None:
        return "batch_size= (now None): without batches one sample is fetched after the other"
    if not in_order:
        return "in_order=True (now False): else nobody knows which batches a worker gets next"
    if isinstance(sampler, BatchSampler) and sampler.num_workers is None:
        return f"BatchSampler(num_workers={num_workers}) (now None): else it does not know what a worker gets next"
    return ""


def _seed(seed: int | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The seed given, else that of the generator which PyTorch's loader would shuffle with."""
    generator = kwargs.get("generator", args[3] if len(args) > 3 else None)
    if seed is None and isinstance(generator, torch.Generator):
        return generator.initial_seed()
    return seed or 0
