"""Making an S3IterableDataset."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast, overload

from s3dataset._config import S3ClientConfig
from s3dataset._datasets._bad_samples import OnError
from s3dataset._datasets._base import client_ref
from s3dataset._datasets._origin import Origin, given_objects, manifest_origin, prefix_origin
from s3dataset._datasets._samples import identity
from s3dataset._io import S3Reader, S3ReaderConstructorProtocol
from s3dataset._manifest import Manifest
from s3dataset._order import Shuffle, Split
from s3dataset.formats import Format, Sample, named_format

if TYPE_CHECKING:
    from s3dataset._datasets._iterable import S3IterableDataset

__all__ = ["IterableConstructors"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class IterableConstructors(Generic[T_co]):
    """`from_prefix`, `from_objects` and `from_manifest` of S3IterableDataset."""

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
        enable_sharding: bool | Split | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
        shuffle: bool | Shuffle = False,
        on_error: OnError = "raise",
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
        pattern: str | None = None,
        enable_sharding: bool | Split | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
        shuffle: bool | Shuffle = False,
        on_error: OnError = "raise",
    ) -> "S3IterableDataset[T]": ...
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
        format: str | Format,
        pattern: str | None = None,
        enable_sharding: bool | Split | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
        shuffle: bool | Shuffle = False,
        on_error: OnError = "raise",
    ) -> "S3IterableDataset[Sample]": ...
    @overload
    @classmethod
    def from_prefix(
        cls,
        s3_uri: str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        transform: Callable[[Sample], T],
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        format: str | Format,
        pattern: str | None = None,
        enable_sharding: bool | Split | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
        shuffle: bool | Shuffle = False,
        on_error: OnError = "raise",
    ) -> "S3IterableDataset[T]": ...
    @classmethod
    def from_prefix(
        cls,
        s3_uri: str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        transform: Callable[[Any], Any] = identity,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        format: str | Format | None = None,  # noqa: A002 - the word of the field
        pattern: str | None = None,
        enable_sharding: bool | Split | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
        shuffle: bool | Shuffle = False,
        on_error: OnError = "raise",
    ) -> "S3IterableDataset[Any]":
        """Makes a dataset of the objects under a prefix, or of the samples in them.

        Args:
            s3_uri: "s3://bucket/prefix"; the prefix need not end in a slash, and may be empty.
            region: Of the bucket; default: from the environment, the profile, or the bucket itself.
            endpoint: URL of a service of one's own; default: from the environment or the profile, else Amazon's.
            transform: Makes a sample of an `S3Reader`, or with `format` of a `Sample`; default: the sample is what
                would be given. Must pickle where workers are spawned. See `s3dataset.transforms`.
            s3client_config: Everything else about the connection.
            reader_constructor: Which bytes a reader fetches before they are asked for; default:
                `S3ReaderConstructor.sequential()`. With `range_based` nothing is fetched ahead. Not for samples of
                indexed shards.
            format: What the objects are shards of: "tar", "tfrecord", "jsonl", "text", "csv", "parquet", "npy", or one
                of `s3dataset.formats`; default: an object is a sample. Shards that have an index (`s3dataset index`)
                are read in an order that resumes anywhere; others from start to end.
            pattern: Only keys that match, behind the prefix: "*.jpg", "shard-{000..099}.tar".
            enable_sharding: True: split over ranks and DataLoader workers; False: every process sees everything; a
                `Split` says it exactly; None: over DataLoader workers, and an error when there are several ranks. A
                dataset that something else wraps (a DataPipe, Accelerate's IterableDatasetShard) cannot tell who
                splits, so with None every worker sees everything, and one warning says so.
            ordered: In the order of the listing; False: as objects arrive, so that a slow one delays nobody.
            batch_size: Samples that a DataLoader puts in a batch, for loaders that do not tell, as PyTorch's own:
                its batches are then the order cut into pieces. Default: 1, which deals single samples.
            shuffle: In an order of its own for every epoch; a `Shuffle` says which.
            on_error: What becomes of a sample whose content is broken: "raise"; "skip": it is left out, which needs
                Split(tail="exact") where there are several ranks; "replace": another one of the same block of the
                shuffle (of the same shard where nothing is shuffled) takes its place, so that ranks stay in step; or a
                function of (error, URI, sample number) that returns one of these words. See
                `bad_samples`.

        Raises:
            InvalidUriError: `s3_uri` is no URI of S3. It is a ValueError too.
            ValueError: `pattern` or `format` cannot be understood, or settings contradict each other.
        """
        kind = named_format(format)
        connection = (region, endpoint, s3client_config)
        origin = prefix_origin(s3_uri, pattern, kind)
        return cast(
            "S3IterableDataset[Any]",
            cls._make(
                origin,
                transform,
                reader_constructor,
                connection,
                kind,
                enable_sharding,
                ordered,
                batch_size,
                shuffle,
                on_error,
            ),
        )

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
        shuffle: bool | Shuffle = False,
        on_error: OnError = "raise",
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
        shuffle: bool | Shuffle = False,
        on_error: OnError = "raise",
    ) -> "S3IterableDataset[T]": ...
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
        format: str | Format,
        enable_sharding: bool | Split | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
        shuffle: bool | Shuffle = False,
        on_error: OnError = "raise",
    ) -> "S3IterableDataset[Sample]": ...
    @overload
    @classmethod
    def from_objects(
        cls,
        object_uris: str | Iterable[str],
        *,
        region: str | None = None,
        endpoint: str | None = None,
        transform: Callable[[Sample], T],
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        format: str | Format,
        enable_sharding: bool | Split | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
        shuffle: bool | Shuffle = False,
        on_error: OnError = "raise",
    ) -> "S3IterableDataset[T]": ...
    @classmethod
    def from_objects(
        cls,
        object_uris: str | Iterable[str],
        *,
        region: str | None = None,
        endpoint: str | None = None,
        transform: Callable[[Any], Any] = identity,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        format: str | Format | None = None,  # noqa: A002 - the word of the field
        enable_sharding: bool | Split | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
        shuffle: bool | Shuffle = False,
        on_error: OnError = "raise",
    ) -> "S3IterableDataset[Any]":
        """Makes a dataset of objects named one by one, or of the samples in them; nothing is listed.

        Args:
            object_uris: One URI, or an iterable of them, which is consumed at once.
            region: As for `from_prefix`, like all that follow.
            endpoint: URL of a service of one's own.
            transform: Makes a sample of an `S3Reader` or `Sample`.
            s3client_config: Everything else about the connection.
            reader_constructor: Which bytes a reader fetches before they are asked for.
            format: What the objects are shards of.
            enable_sharding: Who reads what.
            ordered: In the order given, or as objects arrive.
            batch_size: Samples that a DataLoader puts in a batch, for loaders that do not tell.
            shuffle: In an order of its own for every epoch.
            on_error: What becomes of broken samples.

        Raises:
            InvalidUriError: One of them is no URI of an object.
            ValueError: `format` cannot be understood, or settings contradict each other.
        """
        kind = named_format(format)
        connection = (region, endpoint, s3client_config)
        origin = given_objects(object_uris, client_ref(*connection))
        return cast(
            "S3IterableDataset[Any]",
            cls._make(
                origin,
                transform,
                reader_constructor,
                connection,
                kind,
                enable_sharding,
                ordered,
                batch_size,
                shuffle,
                on_error,
            ),
        )

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
        shuffle: bool | Shuffle = False,
        on_error: OnError = "raise",
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
        shuffle: bool | Shuffle = False,
        on_error: OnError = "raise",
    ) -> "S3IterableDataset[T]": ...
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
        format: str | Format,
        enable_sharding: bool | Split | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
        shuffle: bool | Shuffle = False,
        on_error: OnError = "raise",
    ) -> "S3IterableDataset[Sample]": ...
    @overload
    @classmethod
    def from_manifest(
        cls,
        manifest: Manifest | str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        transform: Callable[[Sample], T],
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        format: str | Format,
        enable_sharding: bool | Split | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
        shuffle: bool | Shuffle = False,
        on_error: OnError = "raise",
    ) -> "S3IterableDataset[T]": ...
    @classmethod
    def from_manifest(
        cls,
        manifest: Manifest | str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        transform: Callable[[Any], Any] = identity,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        format: str | Format | None = None,  # noqa: A002 - the word of the field
        enable_sharding: bool | Split | None = None,
        ordered: bool = True,
        batch_size: int | None = None,
        shuffle: bool | Shuffle = False,
        on_error: OnError = "raise",
    ) -> "S3IterableDataset[Any]":
        """Makes a dataset of what a manifest names; nothing is listed. With an index it is one of the shards' samples.

        Args:
            manifest: A `Manifest`, or the path or URI of a saved one, which is loaded at first use.
            region: As for `from_prefix`, like all that follow.
            endpoint: URL of a service of one's own.
            transform: Makes a sample of an `S3Reader` or `Sample`.
            s3client_config: Everything else about the connection.
            reader_constructor: Which bytes a reader fetches before they are asked for.
            format: What the objects are shards of. Default: as the manifest was indexed, if it was.
            enable_sharding: Who reads what.
            ordered: In the order given, or as objects arrive.
            batch_size: Samples that a DataLoader puts in a batch, for loaders that do not tell.
            shuffle: In an order of its own for every epoch.
            on_error: What becomes of broken samples.

        Raises:
            TypeError: `manifest` is neither.
            ValueError: `format` cannot be understood, or settings contradict each other.
        """
        kind = named_format(format)
        connection = (region, endpoint, s3client_config)
        origin = manifest_origin(manifest)
        return cast(
            "S3IterableDataset[Any]",
            cls._make(
                origin,
                transform,
                reader_constructor,
                connection,
                kind,
                enable_sharding,
                ordered,
                batch_size,
                shuffle,
                on_error,
            ),
        )

    @classmethod
    def _make(
        cls,
        origin: Origin,
        transform: Any,
        reader_constructor: Any,
        connection: tuple[Any, Any, Any],
        format: Format | None,  # noqa: A002
        enable_sharding: bool | Split | None,
        ordered: bool,
        batch_size: int | None,
        shuffle: bool | Shuffle,
        on_error: OnError,
    ) -> Self:
        """Makes the dataset; of the class derived."""
        raise NotImplementedError
