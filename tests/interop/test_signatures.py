"""Who may do what with the local S3."""

import http.client
import io
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore import UNSIGNED
from botocore.config import Config

from s3dataset.testing import Fault, LocalS3

from .conftest import ONE_ATTEMPT
from .errors import refused


@pytest.fixture
def as_other(server: LocalS3) -> Iterator[Any]:
    """Makes clients with other settings."""
    clients = []

    def make(**options: Any) -> Any:
        clients.append(server.boto3_client(**({"config": ONE_ATTEMPT} | options)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def plain(server: LocalS3, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    result = answer.status, answer.read()
    connection.close()
    return result


def test_wrong_keys_are_refused(bucket: str, as_other: Any) -> None:
    with refused(403, "SignatureDoesNotMatch"):
        as_other(aws_secret_access_key="wrong").list_objects_v2(Bucket=bucket)
    with refused(403, "InvalidAccessKeyId"):
        as_other(aws_access_key_id="WRONG").list_objects_v2(Bucket=bucket)
    with refused(400, "InvalidToken"):
        as_other(aws_session_token="token").list_objects_v2(Bucket=bucket)


def test_what_was_signed_must_be_what_is_sent(server: LocalS3, bucket: str, as_other: Any) -> None:
    s3 = as_other()
    s3.meta.events.register("before-send.s3", lambda request, **_: setattr(request, "url", request.url + "x"))
    with refused(403, "SignatureDoesNotMatch"):
        s3.get_object(Bucket=bucket, Key="k")
    assert server.requests()[-1].code == "SignatureDoesNotMatch"


def test_the_body_must_be_the_signed_one(server: LocalS3, bucket: str, as_other: Any) -> None:
    s3 = as_other(config=ONE_ATTEMPT.merge(Config(request_checksum_calculation="when_required")))

    def swap(request: Any, **_: Any) -> None:
        request.body = io.BytesIO(b"other")

    s3.meta.events.register("before-send.s3.PutObject", swap)
    with refused(400, "XAmzContentSHA256Mismatch"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"bytes")
    assert server.keys(bucket) == []


@pytest.mark.parametrize("seconds", [1000, -1000])
def test_clocks_that_differ(server: LocalS3, bucket: str, s3: Any, seconds: int) -> None:
    server.add_fault(Fault.clock_skew(seconds))
    with refused(403, "RequestTimeTooSkewed"):
        s3.list_objects_v2(Bucket=bucket)
    s3.list_objects_v2(Bucket=bucket)


def test_owners_and_payers(server: LocalS3, bucket: str, s3: Any) -> None:
    s3.list_objects_v2(Bucket=bucket, ExpectedBucketOwner="123456789012")
    with refused(403, "AccessDenied"):
        s3.list_objects_v2(Bucket=bucket, ExpectedBucketOwner="999999999999")
    server.create_bucket(bucket, requester_pays=True)
    with refused(403, "AccessDenied"):
        s3.list_objects_v2(Bucket=bucket)
    s3.list_objects_v2(Bucket=bucket, RequestPayer="requester")


class TestTokens:
    def test_a_token_is_needed_where_there_is_one(self) -> None:
        with LocalS3("bucket", session_token="secret", activate=False) as server:
            s3 = server.boto3_client(config=ONE_ATTEMPT)
            s3.list_objects_v2(Bucket="bucket")
            s3.close()
            other = server.boto3_client(config=ONE_ATTEMPT, aws_session_token=None)
            with refused(400, "InvalidToken"):
                other.list_objects_v2(Bucket="bucket")
            other.close()

    def test_tokens_expire(self) -> None:
        with LocalS3("bucket", activate=False) as server:
            keys = {"access_key": server.access_key, "secret_key": server.secret_key}
            s3 = server.boto3_client(config=ONE_ATTEMPT)
            server.configure(credentials=[keys | {"expired": True}])
            with refused(400, "ExpiredToken"):
                s3.list_objects_v2(Bucket="bucket")
            server.configure(credentials=[keys])
            s3.list_objects_v2(Bucket="bucket")
            s3.close()


class TestAnonymous:
    def test_private_buckets_are_closed(self, server: LocalS3, bucket: str, as_other: Any) -> None:
        server.put(bucket, "k", b"x")
        anyone = as_other(config=ONE_ATTEMPT.merge(Config(signature_version=UNSIGNED)))
        for use in (
            lambda: anyone.get_object(Bucket=bucket, Key="k"),
            lambda: anyone.put_object(Bucket=bucket, Key="k", Body=b"y"),
            lambda: anyone.list_objects_v2(Bucket=bucket),
            anyone.list_buckets,
        ):
            with refused(403, "AccessDenied"):
                use()

    def test_public_buckets_are_read_only(self, server: LocalS3, bucket: str, as_other: Any) -> None:
        server.create_bucket(bucket, public=True)
        server.put(bucket, "k", b"x")
        anyone = as_other(config=ONE_ATTEMPT.merge(Config(signature_version=UNSIGNED)))
        assert anyone.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
        assert anyone.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
        for use in (
            lambda: anyone.put_object(Bucket=bucket, Key="k", Body=b"y"),
            lambda: anyone.delete_object(Bucket=bucket, Key="k"),
            lambda: anyone.create_multipart_upload(Bucket=bucket, Key="k"),
        ):
            with refused(403, "AccessDenied"):
                use()

    def test_unsigned_writes_where_they_are_allowed(self) -> None:
        with LocalS3("bucket", public=True, anonymous_writes=True, activate=False) as server:
            assert plain(server, "PUT", "/bucket/k", b"bytes")[0] == 200
            assert server.get("bucket", "k") == b"bytes"


class TestRegions:
    @pytest.mark.parametrize(
        ("behaviour", "status", "code"),
        [
            ("400", 400, "AuthorizationHeaderMalformed"),
            ("301", 301, "PermanentRedirect"),
            ("307", 307, "TemporaryRedirect"),
        ],
    )
    def test_a_request_for_another_region(self, behaviour: Any, status: int, code: str) -> None:
        with LocalS3("bucket", region="eu-west-1", wrong_region=behaviour, activate=False) as server:
            # Without these handlers of botocore's, which follow the answer.
            s3 = server.boto3_client(config=ONE_ATTEMPT, region_name="us-west-2")
            s3.meta.events.unregister("needs-retry.s3", unique_id="retry-config-s3")
            s3.list_buckets()
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            path, headers = signed_request(s3, "bucket")
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            connection.close()
            s3.close()
            assert answer.status == status
            assert f"<Code>{code}</Code>" in text
            assert "<Region>eu-west-1</Region>" in text
            assert answer.headers["x-amz-bucket-region"] == "eu-west-1"
            # As S3 does it, only the temporary redirect says where.
            assert (answer.headers["Location"] is not None) == (status == 307)

    def test_any_region_is_served_unless_told(self, bucket: str, as_other: Any) -> None:
        as_other(region_name="ap-south-1").list_objects_v2(Bucket=bucket)


def signed_request(s3: Any, bucket: str) -> tuple[str, dict[str, str]]:
    """The path and the headers with which boto3 would list a bucket."""
    sent: list[Any] = []

    class NotSentError(Exception):
        pass

    def take(request: Any, **_: Any) -> None:
        sent.append(request)
        raise NotSentError

    s3.meta.events.register_last("before-send.s3.ListObjectsV2", take)
    with pytest.raises(NotSentError):
        s3.list_objects_v2(Bucket=bucket)
    parts = urlsplit(sent[0].url)
    headers = {name: value if isinstance(value, str) else value.decode() for name, value in sent[0].headers.items()}
    return f"{parts.path}?{parts.query}", headers
