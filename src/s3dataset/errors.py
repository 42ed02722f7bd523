"""The exceptions of s3dataset.

::

    S3Exception (also S3DatasetException)
    ├── InvalidUriError (ValueError)            text that names no object or prefix in S3
    ├── InvalidConfigError (ValueError)         settings that cannot work, in code, environment or profile
    ├── CredentialsError                        credentials could not be had, or the service refused them
    │   └── NoCredentialsError                  no provider had any
    ├── ObjectNotFoundError (FileNotFoundError)
    ├── BucketNotFoundError (FileNotFoundError)
    ├── AccessDeniedError (PermissionError)
    ├── RegionError                             the bucket is elsewhere and could not be followed
    ├── ObjectArchivedError                     it has to be restored before it can be read
    ├── PreconditionFailedError                 If-Match or If-None-Match did not hold
    ├── ConflictError                           another write was going on
    ├── ObjectChangedError                      the object was replaced while it was being read
    ├── ChecksumMismatchError                   bytes arrived that are not those that were stored
    ├── DecodeError (ValueError)                bytes that the decoder named does not know
    ├── UnindexedError                          samples at random need an index of their shards, and there is none
    ├── UnindexableError                        a shard that can only be read from its beginning
    ├── ManifestMismatchError                   a manifest or state belongs to other data
    ├── RetriesExhaustedError                   attempts or time ran out, or a further attempt could not help
    │   ├── ThrottledError                      the service kept asking for fewer requests
    │   └── TransportError (ConnectionError)    connect, DNS, TLS, reset, broken HTTP
    │       ├── ConnectTimeoutError (TimeoutError)
    │       ├── FirstByteTimeoutError (TimeoutError)
    │       └── StallTimeoutError (TimeoutError)
    ├── CancelledError                          the request was given up by its caller
    └── InternalError                           a fault of s3dataset itself

Whatever the service answers that has no class of its own is a plain `S3Exception`; `code` and `status` tell what it
was.

Every exception pickles with its fields and notes, and can be made from its message alone, as PyTorch's DataLoader
does when it carries one over from a worker. That is why URI, code, request id and the next thing to try stand in the
message too.

Warnings are EmptyPrefixWarning, DataWaitWarning and WeakConditionsWarning, all of them UserWarnings: filter them by
`warnings.filterwarnings("ignore", category=...)`.
"""

import errno
from typing import Any, ClassVar

__all__ = [
    "AccessDeniedError",
    "BucketNotFoundError",
    "CancelledError",
    "ChecksumMismatchError",
    "ConflictError",
    "ConnectTimeoutError",
    "CredentialsError",
    "DataWaitWarning",
    "DecodeError",
    "EmptyPrefixWarning",
    "FirstByteTimeoutError",
    "InternalError",
    "InvalidConfigError",
    "InvalidUriError",
    "ManifestMismatchError",
    "NoCredentialsError",
    "ObjectArchivedError",
    "ObjectChangedError",
    "ObjectNotFoundError",
    "PreconditionFailedError",
    "RegionError",
    "RetriesExhaustedError",
    "S3DatasetException",
    "S3Exception",
    "StallTimeoutError",
    "ThrottledError",
    "TransportError",
    "UnindexableError",
    "UnindexedError",
    "WeakConditionsWarning",
]

_FIELDS = ("operation", "uri", "status", "code", "request_id", "attempts", "elapsed_s")


class S3Exception(Exception):  # noqa: N818 - the name is the one that programs for s3torchconnector catch
    """Base of all exceptions of s3dataset.

    Args:
        message: What happened, to what, and what to try next.
        *more: Kept in `args`, as any exception does.
        operation: The operation as S3 names it ("GetObject"), "" when none was involved.
        uri: What it was about, "s3://bucket/key", "" when nothing was.
        status: HTTP status of the last answer, 0 when there was none.
        code: S3's error code of the last answer ("NoSuchKey"), "" when there was none.
        request_id: The service's id of the last request, for its support, "" when there was none.
        attempts: How often the request was sent, 0 when it never was.
        elapsed_s: Seconds from the first attempt to giving up.
    """

    _errno: ClassVar[int | None] = None

    operation: str
    uri: str
    status: int
    code: str
    request_id: str
    attempts: int
    elapsed_s: float

    def __init__(
        self,
        message: str = "",
        *more: object,
        operation: str = "",
        uri: str = "",
        status: int = 0,
        code: str = "",
        request_id: str = "",
        attempts: int = 0,
        elapsed_s: float = 0.0,
    ) -> None:
        super().__init__(message, *more)
        if self._errno is not None:
            # Without `strerror` beside it the message stays as it is, and programs that look at `errno` find it.
            object.__setattr__(self, "errno", self._errno)
        self.operation = operation
        self.uri = uri
        self.status = status
        self.code = code
        self.request_id = request_id
        self.attempts = attempts
        self.elapsed_s = elapsed_s

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {name: getattr(self, name) for name in _FIELDS}
        return _rebuild, (type(self), self.args, fields, list(getattr(self, "__notes__", ())))


S3DatasetException = S3Exception


def _rebuild(cls: type[S3Exception], args: tuple[Any, ...], fields: dict[str, Any], notes: list[str]) -> S3Exception:
    exception = cls(*args, **fields)
    for note in notes:
        exception.add_note(note)
    return exception


class InvalidUriError(S3Exception, ValueError):
    """The text is not the URI of an object or prefix in S3."""


class InvalidConfigError(S3Exception, ValueError):
    """A setting, given in code, environment or profile, cannot work."""


class CredentialsError(S3Exception):
    """Credentials could not be loaded or refreshed, or the service refused them."""


class NoCredentialsError(CredentialsError):
    """No provider had credentials. Public buckets are read with `S3ClientConfig(unsigned=True)`."""


class ObjectNotFoundError(S3Exception, FileNotFoundError):
    """There is no object with this key."""

    _errno = errno.ENOENT


class BucketNotFoundError(S3Exception, FileNotFoundError):
    """There is no bucket with this name."""

    _errno = errno.ENOENT


class AccessDeniedError(S3Exception, PermissionError):
    """The credentials in use may not do this. S3 answers so for missing keys too when listing is not allowed."""

    _errno = errno.EACCES


class ObjectArchivedError(S3Exception):
    """The object is archived (GLACIER, DEEP_ARCHIVE, an archive tier of INTELLIGENT_TIERING): restore it first."""


class RegionError(S3Exception):
    """The bucket is in another region or partition, where the request could not follow it."""


class PreconditionFailedError(S3Exception):
    """If-Match or If-None-Match did not hold: somebody else wrote first. Nothing was written."""


class ConflictError(S3Exception):
    """Another operation on the same object or bucket was going on. Nothing was written; trying again may help."""


class ObjectChangedError(S3Exception):
    """The object was replaced between two reads that belong together; their bytes must not be mixed."""


class ChecksumMismatchError(S3Exception):
    """The bytes that arrived have another checksum than those that were stored or sent."""


class DecodeError(S3Exception, ValueError):
    """The object arrived whole, but its bytes are not what a transform or format was told they are."""


class UnindexedError(S3Exception):
    """Random access to the samples of shards needs an index, and there is none, or it is out of date."""


class UnindexableError(S3Exception):
    """The shard can only be read from its beginning, so no index of it can be made: plain gzip, zstd in one frame."""


class ManifestMismatchError(S3Exception):
    """A manifest, or a saved state, belongs to other data than the one at hand."""


class RetriesExhaustedError(S3Exception):
    """The service or the network kept failing until attempts or time ran out. The message names the earlier causes."""


class ThrottledError(RetriesExhaustedError):
    """The service kept answering SlowDown for `retry_max_elapsed_s`."""


class TransportError(RetriesExhaustedError, ConnectionError):
    """No usable answer came: DNS, connecting, TLS, a reset, or broken HTTP."""


class ConnectTimeoutError(TransportError, TimeoutError):
    """No connection within `connect_timeout_s`."""

    _errno = errno.ETIMEDOUT


class FirstByteTimeoutError(TransportError, TimeoutError):
    """The request was sent, and no byte of an answer came within `first_byte_timeout_s`."""

    _errno = errno.ETIMEDOUT


class StallTimeoutError(TransportError, TimeoutError):
    """The transfer fell under 64 KiB/s for `stall_timeout_s`."""

    _errno = errno.ETIMEDOUT


class CancelledError(S3Exception):
    """The request was given up by its caller before it was done."""


class InternalError(S3Exception):
    """A fault of s3dataset itself. Please report it with the message."""


class EmptyPrefixWarning(UserWarning):
    """A prefix has no objects, or none that the pattern chooses."""


class DataWaitWarning(UserWarning):
    """A training loop waits for its data, much of its time and for long."""


class WeakConditionsWarning(UserWarning):
    """The store has no conditional writes, so that two writers of one step may not notice one another."""
