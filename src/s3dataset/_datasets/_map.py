"""S3MapDataset: random access to objects."""

import operator
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, SupportsIndex, TypeVar, cast, overload

from torch.utils.data import Dataset

from s3dataset._config import S3ClientConfig
from s3dataset._datasets._ahead import FetchAhead
from s3dataset._datasets._base import S3Dataset, client_ref
from s3dataset._datasets._batch_fetch import BatchFetcher
from s3dataset._datasets._origin import Origin, given_objects, manifest_origin, prefix_origin
from s3dataset._datasets._samples import identity
from s3dataset._io import S3Reader, S3ReaderConstructorProtocol
from s3dataset._manifest import Manifest

__all__ = ["S3MapDataset"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class S3MapDataset(S3Dataset[T_co], Dataset[T_co]):
    """Objects in S3 as a dataset with random access: `dataset[i]` is `transform(S3Reader)` of the i-th.

    Make one with `from_prefix`, `from_objects` or `from_manifest`. Syntax is checked there; the network is used at the
    first access, which lists once, in parallel, for this process and all DataLoader workers. The order is the
    service's, by key.

    An index is a number (negative ones count from the end), a slice, or a text: a full URI or key. A DataLoader's
    batches are fetched whole, each in one submission; `s3dataset.DataLoader` and `BatchSampler` also fetch the next
    batches ahead. Iterating fetches ahead too. Without a transform samples are `S3Reader`s, which fetch when they are
    first read unless they were fetched ahead; a DataLoader makes lists of them.

    What was listed is what is read: an object that was replaced since raises `ObjectChangedError`.

    Works under fork, spawn and forkserver, and with persistent workers. Safe to share between threads. Memory: within
    the byte budget of `S3ClientConfig.memory_limit_bytes`, beside what the program holds.
    """

    def __init__(
        self, origin: Origin, transform: Any, reader_constructor: Any, connection: tuple[Any, Any, Any]
    ) -> None:
        """Private: use `from_prefix`, `from_objects` or `from_manifest`."""
        super().__init__(origin, client_ref(*connection), transform, reader_constructor)

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
        pattern: str | None = None,
    ) -> "S3MapDataset[S3Reader]": ...
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
        pattern: str | None = None,
    ) -> "S3MapDataset[T]": ...
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
        pattern: str | None = None,
    ) -> "S3MapDataset[Any]":
        """Makes a dataset of the objects under a prefix.

        Args:
            s3_uri: "s3://bucket/prefix"; the prefix need not end in a slash, and may be empty.
            region: Of the bucket; default: from the environment, the profile, or the bucket itself.
            endpoint: URL of a service of one's own; default: from the environment or the profile, else Amazon's.
            transform: Makes a sample of an `S3Reader`; default: the sample is the reader. Must pickle where workers are
                spawned. See `s3dataset.transforms`.
            s3client_config: Everything else about the connection.
            reader_constructor: Which bytes a reader fetches before they are asked for; default:
                `S3ReaderConstructor.sequential()`. With `range_based` whole objects are not fetched ahead.
            pattern: Only keys that match, behind the prefix: "*.jpg", "shard-{000..099}.tar".

        Raises:
            InvalidUriError: `s3_uri` is no URI of S3. It is a ValueError too.
            ValueError: `pattern` cannot be understood, or settings contradict each other.
        """
        return cls(prefix_origin(s3_uri, pattern), transform, reader_constructor, (region, endpoint, s3client_config))

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
    ) -> "S3MapDataset[S3Reader]": ...
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
    ) -> "S3MapDataset[T]": ...
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
    ) -> "S3MapDataset[Any]":
        """Makes a dataset of objects named one by one; nothing is listed.

        Args:
            object_uris: One URI, or an iterable of them, which is consumed at once.
            region: As for `from_prefix`, like all that follow.
            endpoint: URL of a service of one's own.
            transform: Makes a sample of an `S3Reader`.
            s3client_config: Everything else about the connection.
            reader_constructor: Which bytes a reader fetches before they are asked for.

        Raises:
            InvalidUriError: One of them is no URI of an object.
            ValueError: Settings contradict each other.
        """
        connection = (region, endpoint, s3client_config)
        return cls(given_objects(object_uris, client_ref(*connection)), transform, reader_constructor, connection)

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
    ) -> "S3MapDataset[S3Reader]": ...
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
    ) -> "S3MapDataset[T]": ...
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
    ) -> "S3MapDataset[Any]":
        """Makes a dataset of what a manifest names; nothing is listed.

        Args:
            manifest: A `Manifest`, or the path or URI of a saved one, which is loaded at first use.
            region: As for `from_prefix`, like all that follow.
            endpoint: URL of a service of one's own.
            transform: Makes a sample of an `S3Reader`.
            s3client_config: Everything else about the connection.
            reader_constructor: Which bytes a reader fetches before they are asked for.

        Raises:
            TypeError: `manifest` is neither.
            ValueError: Settings contradict each other.
        """
        return cls(manifest_origin(manifest), transform, reader_constructor, (region, endpoint, s3client_config))

    # -- Access -----------------------------------------------------------------------------------------------------

    def _begin_process(self) -> None:
        super()._begin_process()
        self._fetcher: tuple[int, BatchFetcher[T_co]] | None = None

    def __len__(self) -> int:
        """The number of objects. Lists at first use."""
        return len(self.manifest)

    @overload
    def __getitem__(self, index: SupportsIndex | str) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> list[T_co]: ...
    def __getitem__(self, index: SupportsIndex | str | slice) -> T_co | list[T_co]:
        """Returns a sample, or for a slice a list of them, fetched together.

        Raises:
            IndexError: There are not so many objects.
            KeyError: There is no object of that URI or key; close ones are named.
            S3Exception: The object could not be fetched. Without a transform, reading the reader raises it.
        """
        if isinstance(index, slice):
            return self._fetch(range(len(self.manifest))[index])
        position = self.manifest.find(index) if isinstance(index, str) else operator.index(index)
        length = len(self.manifest)
        if not -length <= position < length:
            raise self._out_of_range(position)
        row = self._rows((position % length,))[0]
        started = time.perf_counter()
        sample = self._maker.make(self._maker.client, row)
        self._count.count(1, 0, 0.0, time.perf_counter() - started)
        return sample

    def __getitems__(self, indices: Sequence[int]) -> list[T_co]:
        """Returns the samples of a batch, fetched together: as many as indices were given, in their order.

        A DataLoader calls it for every batch. Where a derived class has a `__getitem__` of its own, that makes the
        samples, one after the other.

        Raises:
            IndexError: There are not so many objects.
            S3Exception: One of the objects could not be fetched.
        """
        return [self[index] for index in indices] if self._has_own_samples else self._fetch(indices)

    @property
    def _has_own_samples(self) -> bool:
        """Whether a derived class makes the samples: nothing may go past its `__getitem__`."""
        return type(self).__getitem__ is not S3MapDataset.__getitem__

    def _fetch(self, indices: Sequence[int]) -> list[T_co]:
        fetcher = self._fetcher
        if fetcher is None or fetcher[0] != os.getpid():
            made = BatchFetcher(self._maker, self._rows_checked, self._count)
            fetcher = self._fetcher = os.getpid(), made
        return fetcher[1].fetch(indices)

    def _out_of_range(self, index: int) -> IndexError:
        return IndexError(f"index {index} is out of range for {self!r}")

    def _rows_checked(self, indices: Sequence[int]) -> list[Any]:
        length = len(self.manifest)  # a derived class may count otherwise
        positions = []
        for index in indices:
            position = operator.index(index)
            if not -length <= position < length:
                raise self._out_of_range(position)
            positions.append(position % length)
        return self._rows(positions)

    def __iter__(self) -> Iterator[T_co]:
        """Iterates over all samples in the order of the listing, fetching ahead.

        Where a derived class has a `__getitem__` of its own, that makes the samples, one after the other.
        """
        if self._has_own_samples:
            return map(self.__getitem__, range(len(self)))
        chunks = self._row_chunks(iter((range(len(self.manifest)),)))
        return iter(FetchAhead(cast(Any, self._maker), chunks, self._count))

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        del state["_fetcher"]
        return state
