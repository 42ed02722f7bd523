"""The engine's failures as exceptions: class, text and fields."""

from dataclasses import dataclass, field

import pytest

from s3dataset import errors
from s3dataset._client import _failures
from s3dataset._client._failures import exception_of

KINDS = {
    "cancelled": errors.CancelledError,
    "service": errors.S3Exception,
    "not_found": errors.ObjectNotFoundError,
    "bucket_not_found": errors.BucketNotFoundError,
    "access_denied": errors.AccessDeniedError,
    "credentials": errors.CredentialsError,
    "precondition_failed": errors.PreconditionFailedError,
    "conflict": errors.ConflictError,
    "changed": errors.ObjectChangedError,
    "throttled": errors.ThrottledError,
    "transport": errors.TransportError,
    "connect_timeout": errors.ConnectTimeoutError,
    "first_byte_timeout": errors.FirstByteTimeoutError,
    "stall_timeout": errors.StallTimeoutError,
    "tls": errors.TransportError,
    "proxy": errors.TransportError,
    "checksum": errors.ChecksumMismatchError,
    "invalid": errors.S3Exception,
    "redirect": errors.RegionError,
    "internal": errors.InternalError,
}


@dataclass
class Failure:
    """What the engine tells of a failure."""

    kind: str
    operation: str = "GetObject"
    bucket: str = "bucket"
    key: str = "images/1.png"
    status: int = 0
    code: str = ""
    message: str = ""
    request_id: str = ""
    host_id: str = ""
    attempts: int = 1
    elapsed_s: float = 0.25
    causes: list[str] = field(default_factory=list)
    retries_exhausted: bool = False
    region: str = ""


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_its_class_and_names_the_object(kind: str) -> None:
    exception = exception_of(Failure(kind, message="what happened"))
    assert type(exception) is KINDS[kind]
    assert "s3://bucket/images/1.png" in str(exception)
    assert exception.uri == "s3://bucket/images/1.png"
    assert str(exception).startswith(("Service error: ", "Client error: "))


def test_every_kind_that_the_table_knows_is_tested() -> None:
    assert set(_failures._TABLE) | {"service"} == set(KINDS)


def test_fields_and_text_tell_what_support_asks_for() -> None:
    exception = exception_of(
        Failure(
            "access_denied",
            status=403,
            code="AccessDenied",
            message="Access Denied",
            request_id="4442587FB7D0A2F9",
            attempts=3,
            elapsed_s=2.14,
            causes=["500 InternalError", "500 InternalError", "reset"],
        )
    )
    assert (exception.operation, exception.status, exception.code) == ("GetObject", 403, "AccessDenied")
    assert (exception.request_id, exception.attempts, exception.elapsed_s) == ("4442587FB7D0A2F9", 3, 2.14)
    text = str(exception)
    for part in ("HTTP 403 AccessDenied", "after 3 attempts in 2.1 s", "500 InternalError; reset", "4442587FB7D0A2F9"):
        assert part in text


@pytest.mark.parametrize(
    ("failure", "begins"),
    [
        (Failure("not_found", status=404, code="NoSuchKey"), "Service error: The key does not exist"),
        (Failure("bucket_not_found", status=404, code="NoSuchBucket"), "Service error: The bucket does not exist"),
        (Failure("service", status=400, code="InvalidTag", message="No tag."), "Service error: No tag"),
        (Failure("service", status=418), "Service error: HTTP status 418"),
        (Failure("invalid", message="the buffer is read-only"), "Client error: the buffer is read-only"),
    ],
)
def test_texts_that_programs_know(failure: Failure, begins: str) -> None:
    assert str(exception_of(failure)).startswith(begins)


def test_a_missing_object_of_head_is_named() -> None:
    exception = exception_of(Failure("not_found", operation="HeadObject", status=404, request_id="ABC"))
    assert str(exception).startswith("Service error: The key does not exist: s3://bucket/images/1.png (HeadObject: ")
    assert "request id ABC" in str(exception)
    assert isinstance(exception, FileNotFoundError)


def test_a_service_that_keeps_failing_exhausts_the_retries() -> None:
    failure = Failure("service", status=500, code="InternalError", retries_exhausted=True, attempts=10)
    assert type(exception_of(failure)) is errors.RetriesExhaustedError
    assert isinstance(exception_of(Failure("transport", retries_exhausted=True)), errors.RetriesExhaustedError)


def test_a_redirect_names_the_region() -> None:
    assert "the bucket is in eu-west-1" in str(exception_of(Failure("redirect", status=301, region="eu-west-1")))


@pytest.mark.parametrize(("code", "advice"), [("InvalidObjectState", "restore"), ("RequestTimeTooSkewed", "clock")])
def test_some_codes_have_advice_of_their_own(code: str, advice: str) -> None:
    assert advice in str(exception_of(Failure("service", status=403, code=code)))


def test_an_archived_object_is_no_denied_access() -> None:
    said = "The operation is not valid for the object's storage class (GLACIER)"
    exception = exception_of(Failure("access_denied", status=403, code="InvalidObjectState", message=said))
    assert type(exception) is errors.ObjectArchivedError
    assert "archived" in str(exception)
    assert "GLACIER" in str(exception)
    assert "restore-object" in str(exception)
