"""Making an S3MapDataset."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast, overload

from s3dataset._config import S3ClientConfig
from s3dataset._datasets._bad_samples import OnError
from s3dataset._datasets._base import client_ref
from s3dataset._datasets._origin import Origin, given_objects, manifest_origin, prefix_origin
from s3dataset._datasets._samples import identity
from s3dataset._io import S3Reader, S3ReaderConstructorProtocol
from s3dataset._manifest import Manifest
from s3dataset.formats import Format, Sample, named_format

if TYPE_CHECKING:
    from s3dataset._datasets._map import S3MapDataset

__all__ = ["MapConstructors"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class MapConstructors(Generic[T_co]):
    """`from_prefix`, `from_objects` and `from_manifest` of S3MapDataset."""

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
        on_error: OnError = "raise",
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
        on_error: OnError = "raise",
    ) -> "S3MapDataset[T]": ...
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
        on_error: OnError = "raise",
    ) -> "S3MapDataset[Sample]": ...
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
        on_error: OnError = "raise",
    ) -> "S3MapDataset[T]": ...
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
        on_error: OnError = "raise",
    ) -> "S3MapDataset[Any]":
        """Makes a dataset of the objects under a prefix, or of the samples in them.

        Args:
            s3_uri: "s3://bucket/prefix"; the prefix need not end in a slash, and may be empty.
            region: Of the bucket; default: from the environment, the profile, or the bucket itself.
            endpoint: URL of a service of one's own; default: from the environment or the profile, else Amazon's.
            transform: Makes a sample of an `S3Reader`, or with `format` of a `Sample`; default: the sample is what
                would be given. Must pickle where workers are spawned. See `s3dataset.transforms`.
            s3client_config: Everything else about the connection.
            reader_constructor: Which bytes a reader fetches before they are asked for; default:
                `S3ReaderConstructor.sequential()`. With `range_based` whole objects are not fetched ahead. Not for
                samples of shards.
            format: What the objects are shards of: "tar", "tfrecord", "jsonl", "text", "csv", "parquet", "npy", or one
                of `s3dataset.formats`; default: an object is a sample. Random access to samples of shards needs their
                index: `s3dataset index`, `Manifest.index`.
            pattern: Only keys that match, behind the prefix: "*.jpg", "shard-{000..099}.tar".
            on_error: What becomes of a sample whose content is broken: "raise"; "replace": another sample of the
                dataset takes its place; or a function of (error, URI, sample number) that returns one of these words.
                See `bad_samples`.

        Raises:
            InvalidUriError: `s3_uri` is no URI of S3. It is a ValueError too.
            ValueError: `pattern` or `format` cannot be understood, or settings contradict each other.
        """
        kind = named_format(format)
        connection = (region, endpoint, s3client_config)
        origin = prefix_origin(s3_uri, pattern, kind)
        return cast("S3MapDataset[Any]", cls._make(origin, transform, reader_constructor, connection, kind, on_error))

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
        on_error: OnError = "raise",
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
        on_error: OnError = "raise",
    ) -> "S3MapDataset[T]": ...
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
        on_error: OnError = "raise",
    ) -> "S3MapDataset[Sample]": ...
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
        on_error: OnError = "raise",
    ) -> "S3MapDataset[T]": ...
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
        on_error: OnError = "raise",
    ) -> "S3MapDataset[Any]":
        """Makes a dataset of objects named one by one, or of the samples in them; nothing is listed.

        Args:
            object_uris: One URI, or an iterable of them, which is consumed at once.
            region: As for `from_prefix`, like all that follow.
            endpoint: URL of a service of one's own.
            transform: Makes a sample of an `S3Reader` or `Sample`.
            s3client_config: Everything else about the connection.
            reader_constructor: Which bytes a reader fetches before they are asked for.
            format: What the objects are shards of.
            on_error: What becomes of broken samples.

        Raises:
            InvalidUriError: One of them is no URI of an object.
            ValueError: `format` cannot be understood, or settings contradict each other.
        """
        kind = named_format(format)
        connection = (region, endpoint, s3client_config)
        origin = given_objects(object_uris, client_ref(*connection))
        return cast("S3MapDataset[Any]", cls._make(origin, transform, reader_constructor, connection, kind, on_error))

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
        on_error: OnError = "raise",
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
        on_error: OnError = "raise",
    ) -> "S3MapDataset[T]": ...
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
        on_error: OnError = "raise",
    ) -> "S3MapDataset[Sample]": ...
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
        on_error: OnError = "raise",
    ) -> "S3MapDataset[T]": ...
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
        on_error: OnError = "raise",
    ) -> "S3MapDataset[Any]":
        """Makes a dataset of what a manifest names; nothing is listed. With an index it is one of the shards' samples.

        Args:
            manifest: A `Manifest`, or the path or URI of a saved one, which is loaded at first use.
            region: As for `from_prefix`, like all that follow.
            endpoint: URL of a service of one's own.
            transform: Makes a sample of an `S3Reader` or `Sample`.
            s3client_config: Everything else about the connection.
            reader_constructor: Which bytes a reader fetches before they are asked for.
            format: What the objects are shards of. Default: as the manifest was indexed, if it was.
            on_error: What becomes of broken samples.

        Raises:
            TypeError: `manifest` is neither.
            ValueError: `format` cannot be understood, or settings contradict each other.
        """
        kind = named_format(format)
        connection = (region, endpoint, s3client_config)
        origin = manifest_origin(manifest)
        return cast("S3MapDataset[Any]", cls._make(origin, transform, reader_constructor, connection, kind, on_error))

    @classmethod
    def _make(
        cls,
        origin: Origin,
        transform: Any,
        reader_constructor: Any,
        connection: tuple[Any, Any, Any],
        format: Format | None,  # noqa: A002
        on_error: OnError,
    ) -> Self:
        """Makes the dataset; of the class derived."""
        raise NotImplementedError
