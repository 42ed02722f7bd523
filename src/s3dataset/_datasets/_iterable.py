"""S3IterableDataset: objects as a stream, shared out among ranks and workers."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast, overload

import torch.utils.data
from torch.utils.data import IterableDataset

from s3dataset._config import S3ClientConfig
from s3dataset._datasets._ahead import FetchAhead
from s3dataset._datasets._base import S3Dataset, client_ref
from s3dataset._datasets._origin import Origin, given_objects, manifest_origin, prefix_origin
from s3dataset._datasets._rank import ALONE, Rank, find_rank
from s3dataset._datasets._samples import identity
from s3dataset._io import S3Reader, S3ReaderConstructorProtocol
from s3dataset._manifest import Manifest
from s3dataset._order import BatchPlan, Split, reader_positions

__all__ = ["S3IterableDataset"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_CHOICES: Final = (
    "True splits the objects over ranks and their DataLoader workers; False gives all of them to every process; "
    "Split(ranks=False) splits over workers only, for when something else reads on one rank or splits over ranks "
    "already "
    "(Accelerate's dispatch mode, a list made with uris[rank::world_size])"
)


@dataclass(frozen=True, slots=True)
class _Part:
    """Whose samples an iteration takes."""

    rank: Rank
    worker: int
    num_workers: int
    split: Split


class S3IterableDataset(S3Dataset[T_co], IterableDataset[T_co]):
    """Objects in S3 as a stream: iterating gives `transform(S3Reader)` of one after the other, many requests under way.

    Make one with `from_prefix`, `from_objects` or `from_manifest`. Syntax is checked there; the network is used when
    iteration begins, which lists once, in parallel, for this process and all DataLoader workers. The order is the
    service's, by key.

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
        enable_sharding: bool | Split | None,
        ordered: bool,
        batch_size: int | None,
    ) -> None:
        """Private: use `from_prefix`, `from_objects` or `from_manifest`."""
        super().__init__(origin, client_ref(*connection), transform, reader_constructor)
        if isinstance(enable_sharding, int):
            enable_sharding = bool(enable_sharding)  # 0 and 1, as command lines and configurations have them
        if not (enable_sharding is None or isinstance(enable_sharding, bool | Split)):
            raise TypeError(f"enable_sharding must be True, False, None or a Split; got {enable_sharding!r}")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._sharding = enable_sharding
        self._ordered = ordered
        self._batch_size = batch_size

    # -- Constructors -----------------------------------------------------------------------------------------------

    @overload
    @classmethod
    def from_prefix(
        cls,
        s3_uri: str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        enable_sharding: bool | Split | None = None,
        pattern: str | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
    ) -> "S3IterableDataset[S3Reader]": ...
    @overload
    @classmethod
    def from_prefix(
        cls,
        s3_uri: str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        transform: Callable[[S3Reader], T],
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        enable_sharding: bool | Split | None = None,
        pattern: str | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
    ) -> "S3IterableDataset[T]": ...
    @classmethod
    def from_prefix(
        cls,
        s3_uri: str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        transform: Callable[[S3Reader], Any] = identity,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        enable_sharding: bool | Split | None = None,
        pattern: str | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
    ) -> "S3IterableDataset[Any]":
        """Makes a dataset of the objects under a prefix.

        Args:
            s3_uri: "s3://bucket/prefix"; the prefix need not end in a slash, and may be empty.
            region: Of the bucket; default: from the environment, the profile, or the bucket itself.
            endpoint: URL of a service of one's own; default: from the environment or the profile, else Amazon's.
            transform: Makes a sample of an `S3Reader`; default: the sample is the reader. Must pickle where workers are
                spawned. See `s3dataset.transforms`.
            s3client_config: Everything else about the connection.
            reader_constructor: Which bytes a reader fetches before they are asked for; default:
                `S3ReaderConstructor.sequential()`. With `range_based` nothing is fetched ahead.
            enable_sharding: True: split over ranks and DataLoader workers; False: every process sees everything; a
                `Split` says it exactly; None: over DataLoader workers, and an error when there are several ranks. A
                dataset that something else wraps (a DataPipe, Accelerate's IterableDatasetShard) cannot tell who
                splits, so with None every worker sees everything, and one warning says so.
            pattern: Only keys that match, behind the prefix: "*.jpg", "shard-{000..099}.tar".
            ordered: In the order of the listing; False: as objects arrive, so that a slow one delays nobody.
            batch_size: Samples that a DataLoader puts in a batch, for loaders that do not tell, as PyTorch's own:
                its batches are then the listing cut into pieces, in order. Default: 1, which deals single samples.

        Raises:
            InvalidUriError: `s3_uri` is no URI of S3. It is a ValueError too.
            ValueError: `pattern` cannot be understood, or settings contradict each other.
        """
        origin = prefix_origin(s3_uri, pattern)
        connection = (region, endpoint, s3client_config)
        return cls(origin, transform, reader_constructor, connection, enable_sharding, ordered, batch_size)

    @overload
    @classmethod
    def from_objects(
        cls,
        object_uris: str | Iterable[str],
        *,
        region: str | None = None,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        enable_sharding: bool | Split | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
    ) -> "S3IterableDataset[S3Reader]": ...
    @overload
    @classmethod
    def from_objects(
        cls,
        object_uris: str | Iterable[str],
        *,
        region: str | None = None,
        endpoint: str | None = None,
        transform: Callable[[S3Reader], T],
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        enable_sharding: bool | Split | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
    ) -> "S3IterableDataset[T]": ...
    @classmethod
    def from_objects(
        cls,
        object_uris: str | Iterable[str],
        *,
        region: str | None = None,
        endpoint: str | None = None,
        transform: Callable[[S3Reader], Any] = identity,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        enable_sharding: bool | Split | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
    ) -> "S3IterableDataset[Any]":
        """Makes a dataset of objects named one by one; nothing is listed.

        Args:
            object_uris: One URI, or an iterable of them, which is consumed at once.
            region: As for `from_prefix`, like all that follow.
            endpoint: URL of a service of one's own.
            transform: Makes a sample of an `S3Reader`.
            s3client_config: Everything else about the connection.
            reader_constructor: Which bytes a reader fetches before they are asked for.
            enable_sharding: Who reads what.
            ordered: In the order given, or as objects arrive.
            batch_size: Samples that a DataLoader puts in a batch, for loaders that do not tell.

        Raises:
            InvalidUriError: One of them is no URI of an object.
            ValueError: Settings contradict each other.
        """
        connection = (region, endpoint, s3client_config)
        origin = given_objects(object_uris, client_ref(*connection))
        return cls(origin, transform, reader_constructor, connection, enable_sharding, ordered, batch_size)

    @overload
    @classmethod
    def from_manifest(
        cls,
        manifest: Manifest | str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        enable_sharding: bool | Split | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
    ) -> "S3IterableDataset[S3Reader]": ...
    @overload
    @classmethod
    def from_manifest(
        cls,
        manifest: Manifest | str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        transform: Callable[[S3Reader], T],
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        enable_sharding: bool | Split | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
    ) -> "S3IterableDataset[T]": ...
    @classmethod
    def from_manifest(
        cls,
        manifest: Manifest | str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        transform: Callable[[S3Reader], Any] = identity,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        enable_sharding: bool | Split | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
    ) -> "S3IterableDataset[Any]":
        """Makes a dataset of what a manifest names; nothing is listed.

        Args:
            manifest: A `Manifest`, or the path or URI of a saved one, which is loaded at first use.
            region: As for `from_prefix`, like all that follow.
            endpoint: URL of a service of one's own.
            transform: Makes a sample of an `S3Reader`.
            s3client_config: Everything else about the connection.
            reader_constructor: Which bytes a reader fetches before they are asked for.
            enable_sharding: Who reads what.
            ordered: In the order of the manifest, or as objects arrive.
            batch_size: Samples that a DataLoader puts in a batch, for loaders that do not tell.

        Raises:
            TypeError: `manifest` is neither.
            ValueError: Settings contradict each other.
        """
        connection = (region, endpoint, s3client_config)
        origin = manifest_origin(manifest)
        return cls(origin, transform, reader_constructor, connection, enable_sharding, ordered, batch_size)

    # -- Iterating --------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[T_co]:
        """Iterates over this process's part.

        Raises:
            ValueError: There are several ranks, and nothing says how they share.
            ManifestMismatchError: Another rank lists other objects.
            S3Exception: Listing failed, or, while iterating, an object could not be fetched.
        """
        part = self._part()
        in_worker = torch.utils.data.get_worker_info() is not None
        if part.rank.world_size > 1 and not in_worker:
            self._compare_ranks(part.rank.world_size)
        plan = self._plan(part)
        chunks = self._row_chunks(
            reader_positions(plan, rank=part.rank.rank, worker=part.worker, num_workers=part.num_workers)
        )
        # What a worker delivers without a transform is read elsewhere, so there is no waiting to see whether it is.
        ahead = FetchAhead(cast(Any, self._maker), chunks, self._count, ordered=self._ordered, begin_at_once=in_worker)
        return iter(ahead)

    def __len__(self) -> int:
        """The number of samples of this rank, all its workers together. Lists at first use.

        Raises:
            ValueError: There are several ranks, and nothing says how they share.
            TypeError: A derived class has an `__iter__` of its own, and does not say how many samples that gives.
        """
        self._check_countable()
        part = self._part()
        return self._plan(part).samples(part.rank.rank)

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

    def set_epoch(self, epoch: int) -> None:
        """Names the epoch that the next iteration begins, as training loops do.

        The order of a stream that is not shuffled is the same in every epoch.
        """
        self._listing.page.set("epoch", epoch)

    def _plan(self, part: _Part, batch_size: int | None = None) -> BatchPlan:
        batch_size = batch_size or self._batch_size or self._listing.page.get("batch_size") or None
        if part.split.steps_per_epoch is not None and batch_size is None:
            raise ValueError(
                "Split(steps_per_epoch=) counts batches, whose size this dataset does not know: give it batch_size=, "
                "or "
                "use s3dataset.DataLoader"
            )
        return BatchPlan(
            num_samples=len(self.manifest),
            batch_size=batch_size or 1,
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

    def _begin_loader(self, batch_size: int) -> None:
        """Takes the loader's batch size, for all processes that share the page, and checks what workers could not.

        Raises:
            ValueError: There are several ranks, and nothing says how they share.
            ManifestMismatchError: Another rank lists other objects.
        """
        self._listing.page.set("batch_size", batch_size)
        self._compare_ranks(self._part().rank.world_size)

    def _batches_of_rank(self, batch_size: int, num_workers: int, drop_last: bool) -> int:
        """How many batches a loader on this rank gives in an epoch."""
        self._check_countable()
        part = self._part()
        plan = self._plan(part, batch_size)
        steps = plan.steps(part.rank.rank)
        if drop_last and steps and len(plan.rank_batch(part.rank.rank, steps - 1)) < batch_size:
            steps -= 1
        shared = self._sharding is not False and part.split.workers
        return steps if shared else steps * max(1, num_workers)

    # -- Who reads what ---------------------------------------------------------------------------------------------

    def _part(self) -> _Part:
        info = torch.utils.data.get_worker_info()
        everything = _Part(ALONE, 0, 1, Split(tail="exact"))
        if self._sharding is False:
            return everything
        split = self._sharding if isinstance(self._sharding, Split) else Split()
        if self._sharding is None and info is not None and info.dataset is not self:
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
            return _Part(rank, info.id, info.num_workers, split)
        return _Part(rank, 0, 1, split)
