"""Which reader a user gets, and the one place that opens readers."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from s3dataset._client import Client, ClientRef
from s3dataset._io._policy import CHECKPOINT, SEQUENTIAL, ReaderKind, ReaderPolicy
from s3dataset._io._reader import DCPOptimizedS3Reader, Ledger, RangedS3Reader, S3Reader, SequentialS3Reader
from s3dataset._io._source import Source

if TYPE_CHECKING:
    from s3dataset._client import Body, ObjectInfo

__all__ = [
    "CHECKPOINT_READER",
    "SEQUENTIAL_READER",
    "GetStreamCallable",
    "ReaderConstructor",
    "S3ReaderConstructorProtocol",
    "check_constructor",
    "open_reader",
]

_MIB: Final = 1 << 20

_CLASSES: Final[dict[ReaderKind, type[S3Reader]]] = {
    "sequential": SequentialS3Reader,
    "range_based": RangedS3Reader,
    "dcp_optimized": DCPOptimizedS3Reader,
}


class GetStreamCallable(Protocol):
    """Gives the bytes of an object, or of its range [start, end), piece by piece."""

    def __call__(self, start: int | None = None, end: int | None = None) -> Iterator[bytes]: ...


@runtime_checkable
class S3ReaderConstructorProtocol(Protocol):
    """What `reader_constructor=` takes: what `S3ReaderConstructor` makes, or a function of one's own around it.

    It is called with keywords.
    """

    def __call__(
        self,
        bucket: str,
        key: str,
        get_object_info: Callable[[], Any],
        get_stream: GetStreamCallable,
    ) -> S3Reader: ...


@dataclass(frozen=True, slots=True)
class ReaderConstructor:
    """Makes readers of one policy. Frozen, hashable, picklable; `S3ReaderConstructor` has the ones to use."""

    policy: ReaderPolicy

    def __call__(
        self,
        bucket: str,
        key: str,
        get_object_info: Callable[[], Any],  # noqa: ARG002 - the protocol's; the source below knows more
        get_stream: GetStreamCallable,
    ) -> S3Reader:
        """For constructors of one's own, which pass on what they were called with."""
        if not isinstance(get_stream, _StreamOpener):
            raise TypeError(
                "get_stream must be the one that s3dataset calls a reader constructor with, "
                f"not {type(get_stream).__name__}"
            )
        source = get_stream.source
        return self.open(source.client, bucket, key, size=source.size, etag=source.etag, version_id=source.version_id)

    def open(
        self,
        client: Client | ClientRef,
        bucket: str,
        key: str,
        *,
        size: int | None = None,
        etag: str | None = None,
        version_id: str | None = None,
        body: "Body | None" = None,
        ledger: "Ledger | None" = None,
    ) -> S3Reader:
        return _CLASSES[self.policy.kind](
            client,
            bucket,
            key,
            policy=self.policy,
            size=size,
            etag=etag,
            version_id=version_id,
            body=body,
            ledger=ledger,
        )


SEQUENTIAL_READER: Final = ReaderConstructor(SEQUENTIAL)
CHECKPOINT_READER: Final = ReaderConstructor(CHECKPOINT)
"""For objects that torch.load will most likely read."""


def check_constructor(reader_constructor: object) -> None:
    """Says early what opening the first reader would stumble over.

    Raises:
        TypeError: It cannot be called as a reader constructor is: `S3ReaderConstructor` itself, for instance, or one of
            its methods that was not called.
    """
    if reader_constructor is None or isinstance(reader_constructor, ReaderConstructor):
        return
    if not callable(reader_constructor):
        raise TypeError(
            f"reader_constructor must be one of S3ReaderConstructor's or callable, got {reader_constructor!r}"
        )
    try:
        signature = inspect.signature(reader_constructor)
    except ValueError:  # of a function without Python code: its first call will tell
        return
    try:
        signature.bind(bucket="", key="", get_object_info=None, get_stream=None)
    except TypeError as error:
        name = getattr(reader_constructor, "__qualname__", repr(reader_constructor))
        raise TypeError(
            f"reader_constructor is called with bucket=, key=, get_object_info= and get_stream=, and {name} is not "
            f"made for that ({error}): pass what one of S3ReaderConstructor's methods returns, such as "
            "S3ReaderConstructor.range_based()"
        ) from None


def open_reader(
    client: Client | ClientRef,
    bucket: str,
    key: str,
    *,
    reader_constructor: S3ReaderConstructorProtocol | None = None,
    size: int | None = None,
    etag: str | None = None,
    version_id: str | None = None,
    body: "Body | None" = None,
    ledger: "Ledger | None" = None,
) -> S3Reader:
    """Makes the reader that the user chose; sends nothing.

    Args:
        client: Whose connections are used.
        bucket: Name of the bucket.
        key: Key of the object.
        reader_constructor: The user's choice; None: the default.
        size: Bytes of the object where known.
        etag: Version where known.
        version_id: Of a bucket with versions; default: the current one.
        body: Bytes fetched ahead. A constructor of the user's own, which cannot take them, fetches again.
        ledger: Where the reader notes whether it was read before it was dropped.
    """
    constructor = SEQUENTIAL_READER if reader_constructor is None else reader_constructor
    if isinstance(constructor, ReaderConstructor):
        return constructor.open(
            client, bucket, key, size=size, etag=etag, version_id=version_id, body=body, ledger=ledger
        )
    if body is not None:
        size, etag = body.object_size, body.etag or etag
    source = Source(client, bucket, key, size=size, etag=etag, version_id=version_id)
    reader = constructor(bucket=bucket, key=key, get_object_info=_InfoGetter(source), get_stream=_StreamOpener(source))
    if not isinstance(reader, S3Reader):
        raise TypeError(
            f"reader_constructor must return an S3Reader, not {type(reader).__name__}: "
            "choose one with S3ReaderConstructor"
        )
    reader._ledger = ledger  # noqa: SLF001 - of the same package
    return reader


class _InfoGetter:
    """`get_object_info` of the drop-in protocol."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __call__(self) -> "ObjectInfo":
        source = self.source
        return source.client.head_object(source.bucket, source.key, version_id=source.version_id)


class _StreamOpener:
    """`get_stream` of the drop-in protocol."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __call__(self, start: int | None = None, end: int | None = None) -> Iterator[bytes]:
        source = self.source
        with _CLASSES["sequential"](
            source.client,
            source.bucket,
            source.key,
            size=source.size,
            etag=source.etag,
            version_id=source.version_id,
        ) as reader:
            position = reader.seek(start or 0)
            while end is None or position < end:
                data = reader.read(_MIB if end is None else min(_MIB, end - position))
                if not data:
                    return
                position += len(data)
                yield data
