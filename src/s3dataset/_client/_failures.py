"""The one place where the engine's failures become exceptions."""

import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from s3dataset import errors
from s3dataset.errors import S3Exception

if TYPE_CHECKING:
    from s3dataset._native import Failure

__all__ = ["exception_of"]

_SERVICE: Final = "Service error: "
_CLIENT: Final = "Client error: "
_CAUSE_LENGTH: Final = 70


class _Translation(NamedTuple):
    """What a kind of failure becomes.

    Attributes:
        cls: The exception's class.
        says: How the message begins; "" stands for what the service or the engine said.
        advice: The next thing to try.
    """

    cls: type[S3Exception]
    says: str
    advice: str


_TABLE: Final = {
    "not_found": _Translation(
        errors.ObjectNotFoundError,
        f"{_SERVICE}The key does not exist",
        "Check its spelling (keys are case-sensitive), list its prefix to see what is there, or list again if it was "
        "deleted since",
    ),
    "bucket_not_found": _Translation(
        errors.BucketNotFoundError,
        f"{_SERVICE}The bucket does not exist",
        "Check its spelling, and whether endpoint and partition are the bucket's",
    ),
    "access_denied": _Translation(
        errors.AccessDeniedError,
        f"{_SERVICE}Access denied",
        "Check with `aws sts get-caller-identity` who signs, and that its policy allows this; a missing key is denied "
        "too where s3:ListBucket is not allowed; S3ClientConfig(unsigned=True) reads what is public, and nothing else",
    ),
    "credentials": _Translation(
        errors.CredentialsError,
        f"{_CLIENT}The credentials were refused",
        "Log in anew or renew the keys; temporary keys need their session token too",
    ),
    "precondition_failed": _Translation(
        errors.PreconditionFailedError,
        f"{_SERVICE}A precondition did not hold",
        "Somebody else wrote this object first: read it, and decide anew",
    ),
    "conflict": _Translation(
        errors.ConflictError,
        f"{_SERVICE}Another operation on it is in progress",
        "Try again when it is over",
    ),
    "changed": _Translation(
        errors.ObjectChangedError,
        f"{_CLIENT}The object was replaced while it was being read",
        "Open it again to read the new one; make the dataset or manifest anew if it named the old one",
    ),
    "throttled": _Translation(
        errors.ThrottledError,
        f"{_SERVICE}The service kept asking for fewer requests",
        "Lower max_connections or the number of workers, spread keys over more prefixes, or raise retry_max_elapsed_s",
    ),
    "transport": _Translation(
        errors.TransportError,
        f"{_CLIENT}No usable answer came",
        "Check the endpoint, the region and the network",
    ),
    "tls": _Translation(
        errors.TransportError,
        f"{_CLIENT}TLS failed",
        "Check that the endpoint speaks https, and name a private authority by ca_bundle or AWS_CA_BUNDLE",
    ),
    "proxy": _Translation(
        errors.TransportError,
        f"{_CLIENT}The proxy gave no usable answer",
        "Check the URL in S3ClientConfig(proxy=...), HTTPS_PROXY or HTTP_PROXY, name the host in NO_PROXY, or go "
        'without a proxy by S3ClientConfig(proxy="")',
    ),
    "connect_timeout": _Translation(
        errors.ConnectTimeoutError,
        f"{_CLIENT}No connection in time",
        "Check the endpoint, the region and the network (a VPC endpoint, a proxy), or raise connect_timeout_s",
    ),
    "first_byte_timeout": _Translation(
        errors.FirstByteTimeoutError,
        f"{_CLIENT}No answer began in time",
        "Raise first_byte_timeout_s if the service is known to be slow",
    ),
    "stall_timeout": _Translation(
        errors.StallTimeoutError,
        f"{_CLIENT}The transfer stalled",
        "Check the network, or raise stall_timeout_s",
    ),
    "checksum": _Translation(
        errors.ChecksumMismatchError,
        f"{_CLIENT}The checksum does not match",
        "Read or write it again; if that does not help, the stored object or this machine's memory is damaged",
    ),
    "invalid": _Translation(S3Exception, _CLIENT, "The request can never work as it is"),
    "redirect": _Translation(
        errors.RegionError,
        f"{_SERVICE}The bucket is elsewhere",
        "Name its region (region= or AWS_REGION) or its endpoint",
    ),
    "cancelled": _Translation(errors.CancelledError, f"{_CLIENT}The request was cancelled", ""),
    "internal": _Translation(
        errors.InternalError,
        f"{_CLIENT}A fault of s3dataset itself",
        "Please report it with this message",
    ),
}
_SERVICE_ERROR: Final = _Translation(S3Exception, _SERVICE, "")
_EXHAUSTED: Final = _Translation(
    errors.RetriesExhaustedError,
    f"{_SERVICE}The service kept failing",
    "Try again later, or raise max_attempts",
)
_INVALID_URI: Final = _Translation(errors.InvalidUriError, _CLIENT, "Check the bucket's name")
_ARCHIVED: Final = _Translation(
    errors.ObjectArchivedError,
    f"{_SERVICE}The object is archived",
    "Restore it first (`aws s3api restore-object`, or S3 Batch Operations for many), which takes minutes to hours; "
    "head_object(...).restore_status tells when it is done. Or leave such objects out: listings tell storage classes",
)
_CODES: Final = {
    "EntityTooLarge": "A single PUT or copy takes at most 5 GiB, a part at most 5 GiB",
    "InvalidBucketName": "Check the bucket's name",
    "KMS.DisabledException": "Enable the KMS key that encrypts the object",
    "NoSuchUpload": "The upload was completed or aborted by somebody else",
    "RequestTimeTooSkewed": "Set this machine's clock",
}


def exception_of(failure: "Failure", prefix: str = "") -> S3Exception:
    """What a caller gets for this failure: its class, a message that names object, cause and remedy, and all fields.

    Args:
        failure: What the engine tells.
        prefix: That was listed, when no object is concerned.
    """
    translation = _translation(failure)
    uri = f"s3://{failure.bucket}/{failure.key or prefix}"
    said = failure.message.strip().rstrip(".")
    begins = translation.says
    if begins in (_SERVICE, _CLIENT):
        begins += said or failure.code or f"HTTP status {failure.status}"
        said = ""
    message = f"{begins}: {uri}{_circumstances(failure, said)}"
    if advice := _CODES.get(failure.code, translation.advice):
        message = f"{message}. {advice}"
    return _make(translation.cls, message, failure, uri)


def _translation(failure: "Failure") -> _Translation:
    found = _TABLE.get(failure.kind)
    if failure.code == "InvalidObjectState":
        return _ARCHIVED
    if failure.kind == "invalid" and failure.code == "InvalidBucketName":
        return _INVALID_URI
    if found is None:
        return _EXHAUSTED if failure.retries_exhausted else _SERVICE_ERROR
    return found


def _make(cls: Callable[..., S3Exception], message: str, failure: "Failure", uri: str) -> S3Exception:
    return cls(
        message,
        operation=failure.operation,
        uri=uri,
        status=failure.status,
        code=failure.code,
        request_id=failure.request_id,
        attempts=failure.attempts,
        elapsed_s=failure.elapsed_s,
    )


def _circumstances(failure: "Failure", said: str) -> str:
    """Such as (GetObject: HTTP 503 SlowDown, "Reduce your rate", after 4 attempts in 2.1 s, request id X)."""
    items = []
    if failure.status:
        items.append(f"HTTP {failure.status} {failure.code}".rstrip())
    elif failure.code:
        items.append(failure.code)
    if said:
        items.append(f'"{said}"')
    if failure.region:
        items.append(f"the bucket is in {failure.region}")
    if failure.attempts > 1:
        items.append(f"after {failure.attempts} attempts in {failure.elapsed_s:.1f} s")
        if causes := dict.fromkeys(
            textwrap.shorten(cause, _CAUSE_LENGTH, placeholder=" ...") for cause in failure.causes
        ):
            items.append(f"earlier: {'; '.join(causes)}")
    if failure.request_id:
        items.append(f"request id {failure.request_id}")
    return f" ({failure.operation}: {', '.join(items)})" if items else f" ({failure.operation})"
