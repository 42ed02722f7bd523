"""Answers that are not those of the operation."""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from tests.interop.errors import refused
from tests.interop.wire import Wire

from s3dataset.testing import Fault, LocalS3

from . import DATA, get


def test_statuses(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.status(503, retry_after_s=2, message="no & more"))
    answer = get(wire)
    assert answer.headers["retry-after"] == "2"
    assert b"<Code>SlowDown</Code><Message>no &amp; more</Message>" in answer.body
    server.add_fault(Fault.status(429, retry_after_s=3, retry_after_date=True))
    wait = parsedate_to_datetime(get(wire).headers["retry-after"]) - datetime.now(UTC)
    assert timedelta(0) < wait < timedelta(seconds=5)
    server.add_fault(Fault.status(403, empty=True))
    assert get(wire).body == b""
    server.add_fault(Fault.expired_token())
    assert b"<Code>ExpiredToken</Code>" in get(wire).body
    server.add_fault(Fault.status(500, body_bytes=3_000_000))
    assert len(get(wire).body) == 3_000_000
    server.add_fault(Fault.status(500, close=True))
    assert get(wire).headers["connection"] == "close"
    assert wire.ended()


def test_a_refused_write_changes_nothing(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.status(503))
    assert wire.request("PUT", "/bucket/k", b"new").status == 503
    assert server.get("bucket", "k") == DATA


def test_an_early_answer(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.early(403, at=1000))
    wire.send(wire.head("PUT", "/bucket/k", Content_Length="100000000") + bytes(2000))
    answer = wire.answer()
    assert (answer.status, answer.headers["connection"]) == (403, "close")
    assert wire.ended()
    assert server.requests()[0].bytes_in < 100_000


@pytest.mark.parametrize(
    ("status", "code"), [(301, "PermanentRedirect"), (307, "TemporaryRedirect"), (400, "AuthorizationHeaderMalformed")]
)
def test_wrong_regions(server: LocalS3, wire: Wire, status: Any, code: str) -> None:
    server.add_fault(Fault.wrong_region("eu-west-1", status=status))
    answer = get(wire)
    assert (answer.status, answer.headers["x-amz-bucket-region"]) == (status, "eu-west-1")
    assert code.encode() in answer.body


def test_errors_in_200(server: LocalS3, s3: Any) -> None:
    server.add_fault(Fault.error_in_200(operation="CopyObject", after_s=0.2))
    # botocore makes a 500 of it.
    with refused(500, "InternalError"):
        s3.copy_object(Bucket="bucket", Key="c", CopySource={"Bucket": "bucket", "Key": "k"})
    assert server.keys("bucket") == ["k"]


def test_errors_in_200_of_uploads(server: LocalS3, s3: Any) -> None:
    where = {"Bucket": "bucket", "Key": "whole"}
    where["UploadId"] = s3.create_multipart_upload(**where)["UploadId"]
    part = {"PartNumber": 1, "ETag": s3.upload_part(**where, PartNumber=1, Body=b"part")["ETag"]}
    server.add_fault(Fault.error_in_200(code="SlowDown", times=2))
    with refused(500, "SlowDown"):
        s3.upload_part_copy(**where, PartNumber=2, CopySource={"Bucket": "bucket", "Key": "k"})
    with refused(500, "SlowDown"):
        s3.complete_multipart_upload(**where, MultipartUpload={"Parts": [part]})
    assert server.keys("bucket") == ["k"]
    s3.complete_multipart_upload(**where, MultipartUpload={"Parts": [part]})
    assert server.get("bucket", "whole") == b"part"


def test_slow_results(server: LocalS3, s3: Any) -> None:
    server.add_fault(Fault.slow_result(0.3, operation="CopyObject"))
    s3.copy_object(Bucket="bucket", Key="c", CopySource={"Bucket": "bucket", "Key": "k"})
    assert server.get("bucket", "c") == DATA
    assert server.requests("CopyObject")[0].duration_s >= 0.3


def test_raw_answers(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.raw("HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\nok"))
    assert get(wire).body == b"ok"
    assert wire.ended()


def test_heads_in_single_bytes(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.split_head())
    wire.send(wire.head("GET", "/bucket/k"))
    assert wire.socket.recv(100) == b"H"
    wire._input = b"H"
    assert wire.answer().body == DATA


def test_heads_without_end(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.endless_head())
    wire.send(wire.head("GET", "/bucket/k"))
    received = 0
    while received < 5_000_000:
        received += len(wire.socket.recv(65536))


def test_errors_of_head_have_no_body(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.status(403), Fault.status(503, empty=True, after=1), Fault.chunked(after=2))
    # Lengths of a body that does not come, no length, and the way in which S3 sends it.
    first, second, third = (wire.request("HEAD", path) for path in ("/bucket/k", "/bucket/k", "/bucket/missing"))
    assert (first.status, int(first.headers["content-length"]) > 0) == (403, True)
    assert (second.status, second.headers["content-length"]) == (503, "0")
    assert (third.status, third.headers["transfer-encoding"]) == (404, "chunked")
    # The connection is at the beginning of the next answer.
    assert get(wire).body == DATA


def test_errors_without_end(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.status(500, body_bytes=10 << 30))
    wire.send(wire.head("GET", "/bucket/k"))
    status, headers = wire.head_of_answer()
    assert (status, headers["content-length"]) == (500, str(10 << 30))
    received = 0
    while received < 5_000_000:
        received += len(wire.socket.recv(65536))


def test_answers_before_the_answer(server: LocalS3, wire: Wire) -> None:
    for status in (100, 103):
        server.add_fault(Fault.interim(status))
        wire.send(wire.head("GET", "/bucket/k"))
        assert wire.head_of_answer() == (status, {})
        assert wire.answer().body == DATA


def test_other_headers(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.headers({"etag": None, "Content-Type": "text/plain", "X-New": "1"}))
    headers = get(wire).headers
    assert ("etag" in headers, headers["content-type"], headers["x-new"]) == (False, "text/plain", "1")
    server.add_fault(Fault.headers({"Content-Length": "12"}))
    assert get(wire).body == DATA[:12]


def test_some_keys_are_not_deleted(server: LocalS3, s3: Any) -> None:
    server.put("bucket", "k2", b"")
    server.add_fault(Fault.failed_deletes(keys="*2", code="SlowDown"))
    answer = s3.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "k"}, {"Key": "k2"}]})
    assert [deleted["Key"] for deleted in answer["Deleted"]] == ["k"]
    assert [(error["Key"], error["Code"]) for error in answer["Errors"]] == [("k2", "SlowDown")]
    assert server.keys("bucket") == ["k2"]
