"""URLs that carry their own signature."""

import http.client
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.config import Config

from s3dataset.testing import Fault, LocalS3

from .conftest import ONE_ATTEMPT

V4 = ONE_ATTEMPT.merge(Config(signature_version="s3v4"))


@pytest.fixture
def signer(server: LocalS3) -> Iterator[Any]:
    client = server.boto3_client(config=V4)
    yield client
    client.close()


def send(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    connection.request(
        method, f"{parts.path}?{parts.query}", body, {name.replace("_", "-"): value for name, value in headers.items()}
    )
    answer = connection.getresponse()
    result = answer.status, answer.read()
    connection.close()
    return result


def url(signer: Any, operation: str, seconds: int = 60, **parameters: Any) -> str:
    return str(signer.generate_presigned_url(operation, Params=parameters, ExpiresIn=seconds))


def test_reading(server: LocalS3, bucket: str, signer: Any) -> None:
    server.put(bucket, "a b/ü+%", b"0123456789")
    signed = url(signer, "get_object", Bucket=bucket, Key="a b/ü+%", ResponseContentType="text/plain")
    assert send(signed) == (200, b"0123456789")
    # Headers that were not signed may be sent, as long as they are not Amazon's.
    assert send(signed, Range="bytes=2-4") == (206, b"234")
    assert send(signed, x_amz_request_payer="requester")[0] == 403
    assert send(url(signer, "head_object", Bucket=bucket, Key="a b/ü+%"), "HEAD") == (200, b"")
    assert b"<KeyCount>1</KeyCount>" in send(url(signer, "list_objects_v2", Bucket=bucket))[1]


def test_writing(server: LocalS3, bucket: str, signer: Any) -> None:
    assert send(url(signer, "put_object", Bucket=bucket, Key="k"), "PUT", b"bytes")[0] == 200
    assert server.get(bucket, "k") == b"bytes"
    assert send(url(signer, "delete_object", Bucket=bucket, Key="k"), "DELETE")[0] == 204
    assert server.keys(bucket) == []
    where = {"Bucket": bucket, "Key": "k"}
    where["UploadId"] = signer.create_multipart_upload(**where)["UploadId"]
    assert send(url(signer, "upload_part", **where, PartNumber=1), "PUT", b"part")[0] == 200
    assert server.uploads(bucket)[0]["bytes"] == 4


def test_what_was_signed_is_what_may_be_done(bucket: str, signer: Any) -> None:
    signed = url(signer, "get_object", Bucket=bucket, Key="k")
    for other, method in ((signed.replace("/k?", "/l?"), "GET"), (signed + "&versionId=1", "GET"), (signed, "PUT")):
        status, body = send(other, method)
        assert (status, b"<Code>SignatureDoesNotMatch</Code>" in body) == (403, True)
    assert send(signed, Authorization="AWS4-HMAC-SHA256 Credential=x")[0] == 400
    assert b"<Code>InvalidRequest</Code>" in send(f"{signed.split('?')[0]}?AWSAccessKeyId=x&Signature=y")[1]


def test_it_ends(server: LocalS3, bucket: str, signer: Any) -> None:
    server.put(bucket, "k", b"x")
    signed = url(signer, "get_object", 10, Bucket=bucket, Key="k")
    server.add_fault(Fault.clock_skew(11 + 1), Fault.clock_skew(-1000, after=1))
    for message in (b"Request has expired", b"Request is not yet valid"):
        status, body = send(signed)
        assert (status, message in body) == (403, True), body
    assert send(signed)[0] == 200
    status, body = send(url(signer, "get_object", 700_000, Bucket=bucket, Key="k"))
    assert (status, b"<Code>AuthorizationQueryParametersError</Code>" in body) == (400, True)


def test_sessions() -> None:
    with LocalS3("bucket", session_token="secret/+token", activate=False) as server:
        client = server.boto3_client(config=V4)
        server.put("bucket", "k", b"x")
        signed = url(client, "get_object", Bucket="bucket", Key="k")
        assert send(signed) == (200, b"x")
        server.configure(
            credentials=[{"access_key": server.access_key, "secret_key": server.secret_key, "expired": True}]
        )
        assert b"<Code>ExpiredToken</Code>" in send(signed)[1]
        client.close()
