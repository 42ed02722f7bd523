"""The table of docs/semantics.md: which answer is which class, and whether it is sent again."""

from dataclasses import replace

import pytest

from s3dataset import S3Client, S3ClientConfig, errors
from s3dataset.testing import Fault, LocalS3

MOST = 3
ANSWERS = [
    # answer, class, attempts
    (Fault.status(404, code="NoSuchKey"), errors.ObjectNotFoundError, 1),
    (Fault.status(404, code="NoSuchVersion"), errors.ObjectNotFoundError, 1),
    (Fault.status(404, code="NoSuchBucket"), errors.BucketNotFoundError, 1),
    (Fault.status(401, code="Unauthorized"), errors.AccessDeniedError, 1),
    (Fault.status(403, code="AccessDenied"), errors.AccessDeniedError, 1),
    (Fault.status(403, code="InvalidObjectState"), errors.ObjectArchivedError, 1),
    (Fault.status(403, code="InvalidAccessKeyId"), errors.CredentialsError, 1),
    (Fault.status(403, code="SignatureDoesNotMatch"), errors.CredentialsError, 1),
    (Fault.status(400, code="InvalidToken"), errors.CredentialsError, 1),
    (Fault.status(412, code="PreconditionFailed"), errors.ObjectChangedError, 1),
    (Fault.status(409, code="OperationAborted"), errors.ConflictError, 1),
    (Fault.status(500), errors.RetriesExhaustedError, MOST),
    (Fault.status(502, code="BadGateway"), errors.RetriesExhaustedError, MOST),
    (Fault.status(503, code="ServiceUnavailable"), errors.RetriesExhaustedError, MOST),
    (Fault.status(504, code="GatewayTimeout"), errors.RetriesExhaustedError, MOST),
    (Fault.status(501, code="NotImplemented"), errors.S3Exception, 1),
    (Fault.status(405, code="MethodNotAllowed"), errors.S3Exception, 1),
    (Fault.reset(), errors.TransportError, MOST),
    (Fault.raw("HTTP/1.1 nonsense\r\n\r\n"), errors.TransportError, MOST),
    (Fault.stall(), errors.FirstByteTimeoutError, MOST),
]


@pytest.fixture(scope="module")
def running():
    with LocalS3("bucket") as server:
        server.put("bucket", "k", b"hello")
        yield server


@pytest.fixture
def server(running):
    yield running
    running.clear_faults()


def lasting(fault):
    return replace(fault, times=None, operation="GetObject")


@pytest.mark.parametrize(
    ("answer", "expected", "attempts"),
    ANSWERS,
    ids=[f"{a.kind}-{a.parameters.get('code') or a.parameters.get('status', '')}" for a, *_ in ANSWERS],
)
def test_each_answer_has_its_class_and_its_attempts(server, answer, expected, attempts):
    server.add_fault(lasting(answer))
    client = S3Client(s3client_config=S3ClientConfig(max_attempts=MOST, first_byte_timeout_s=0.3))
    with pytest.raises(errors.S3Exception, match="s3://bucket/k") as caught:
        client.get_range("bucket", "k", 0, 5, etag='"5d41402abc4b2a76b9719d911017c592"')
    assert type(caught.value) is expected
    assert caught.value.attempts == attempts


@pytest.mark.parametrize("answer", [Fault.status(503), Fault.status(429), Fault.status(503, code="SlowDown")])
def test_throttling_is_not_counted(server, answer):
    server.add_fault(replace(answer, times=5, operation="GetObject"))
    client = S3Client(s3client_config=S3ClientConfig(max_attempts=2))
    assert bytes(client.get_range("bucket", "k", 0, 5)) == b"hello"


def test_throttling_is_bounded_by_time(server):
    server.add_fault(lasting(Fault.status(503)))
    client = S3Client(s3client_config=S3ClientConfig(retry_max_elapsed_s=0.5))
    with pytest.raises(errors.ThrottledError):
        client.get_range("bucket", "k", 0, 5)


def test_a_failed_condition_of_a_write_is_told_as_such(server):
    with pytest.raises(errors.PreconditionFailedError):
        S3Client().put_many([("bucket", "k", b"", [("if-none-match", "*")])])


@pytest.mark.parametrize("status", [301, 307, 400])
def test_another_region_is_tried_where_the_answer_names_it(server, status):
    server.add_fault(lasting(Fault.wrong_region("eu-west-3", status=status)))
    with pytest.raises(errors.RegionError, match="eu-west-3"):
        S3Client("us-west-2").get_range("bucket", "k", 0, 5)
