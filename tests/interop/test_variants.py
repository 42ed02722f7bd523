"""Stores that are not quite S3: what each refuses, ignores and does in its own way."""

import hashlib
import io
import itertools
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from s3dataset.testing import LocalS3, ServerError, Variant

from .conftest import ONE_ATTEMPT
from .errors import refused
from .wire import Wire

#: As boto3 was before it sent checksums unasked.
PLAIN = ONE_ATTEMPT.merge(
    Config(request_checksum_calculation="when_required", response_checksum_validation="when_required")
)


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3("bucket", public=True, min_part_bytes=1, activate=False) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: LocalS3) -> Iterator[Any]:
    client = server.boto3_client(config=PLAIN)
    yield client
    client.close()


@pytest.fixture
def s3(server: LocalS3, client: Any) -> Iterator[Any]:
    for key in server.keys("bucket"):
        server.delete("bucket", key)
    yield client
    server.configure(variant="s3")


@pytest.fixture
def own(server: LocalS3) -> Iterator[Any]:
    """A client whose requests may be changed."""
    client = server.boto3_client(config=PLAIN)
    yield client
    client.close()


_numbers = itertools.count()


def as_today(server: LocalS3) -> Any:
    """A client that sends checksums, as boto3 does by default."""
    return server.boto3_client(config=ONE_ATTEMPT)


def upload(s3: Any, *sizes: int) -> dict[str, Any]:
    """A multipart upload, of a key of its own, with parts of these sizes: what completes it."""
    where = {"Bucket": "bucket", "Key": f"upload-{next(_numbers)}"}
    where["UploadId"] = s3.create_multipart_upload(**where)["UploadId"]
    parts = [
        {"PartNumber": number, "ETag": s3.upload_part(**where, PartNumber=number, Body=bytes(size))["ETag"]}
        for number, size in enumerate(sizes, start=1)
    ]
    return where | {"MultipartUpload": {"Parts": parts}}


class TestNames:
    def test_a_variant_is_a_name_or_behaviours(self, server: LocalS3, s3: Any) -> None:
        mixed: Variant = {"like": "r2", "uniform_parts": False}
        server.configure(variant=mixed)
        s3.complete_multipart_upload(**upload(s3, 2, 3, 1))
        with refused(501, "NotImplemented"):
            s3.put_object(Bucket="bucket", Key="k", Body=b"", Tagging="a=b")
        server.configure(variant={})
        s3.put_object(Bucket="bucket", Key="k", Body=b"", Tagging="a=b")

    @pytest.mark.parametrize("variant", ["s4", {"like": "s4"}, {"uniform": True}, 1])
    def test_others_are_refused(self, server: LocalS3, variant: Any) -> None:
        with pytest.raises(ServerError, match=r"variant|unknown field"):
            server.configure(variant=variant)

    def test_from_the_start(self) -> None:
        with LocalS3("bucket", variant="b2", activate=False) as server:
            s3 = server.boto3_client(config=PLAIN)
            assert s3.get_bucket_versioning(Bucket="bucket")["Status"] == "Enabled"
            s3.close()


class TestR2:
    @pytest.fixture(autouse=True)
    def variant(self, server: LocalS3, s3: Any) -> None:
        server.configure(variant="r2")

    @pytest.mark.parametrize(
        ("sizes", "fits"), [((2, 2, 1), True), ((2, 3, 1), False), ((2, 2, 3), False), ((3,), True)]
    )
    def test_parts_have_one_size(self, s3: Any, sizes: tuple[int, ...], fits: bool) -> None:
        request = upload(s3, *sizes)
        if fits:
            s3.complete_multipart_upload(**request)
            return
        with refused(400, "InvalidPart") as refusal:
            s3.complete_multipart_upload(**request)
        assert "same length" in refusal.details["Message"]

    def test_checksums_are_refused(self, server: LocalS3, s3: Any) -> None:
        other = as_today(server)
        with refused(501, "NotImplemented") as refusal:
            other.put_object(Bucket="bucket", Key="k", Body=b"x")
        assert refusal.details["Message"].startswith("Header 'x-amz-")
        other.close()
        s3.put_object(Bucket="bucket", Key="checked", Body=b"x")
        head = s3.head_object(Bucket="bucket", Key="checked", ChecksumMode="ENABLED")
        assert not [name for name in head if "Checksum" in name]

    def test_headers_that_are_refused(self, s3: Any) -> None:
        for options in (
            {"Tagging": "a=b"},
            {"ServerSideEncryption": "AES256"},
            {"ExpectedBucketOwner": "123456789012"},
        ):
            with refused(501, "NotImplemented"):
                s3.put_object(Bucket="bucket", Key="k", Body=b"x", **options)

    def test_one_write_a_second(self, s3: Any) -> None:
        s3.put_object(Bucket="bucket", Key="hot", Body=b"x")
        with refused(429, "TooManyRequests"):
            for _ in range(100):
                s3.put_object(Bucket="bucket", Key="hot", Body=b"x")
        s3.put_object(Bucket="bucket", Key="cold", Body=b"x")

    def test_conditions_hold(self, s3: Any) -> None:
        s3.put_object(Bucket="bucket", Key="once", Body=b"x", IfNoneMatch="*")
        with pytest.raises(ClientError, match=r"PreconditionFailed|TooManyRequests"):
            s3.put_object(Bucket="bucket", Key="once", Body=b"x", IfNoneMatch="*")

    def test_no_versions(self, s3: Any) -> None:
        with refused(501, "NotImplemented"):
            s3.get_bucket_versioning(Bucket="bucket")


class TestGcs:
    @pytest.fixture(autouse=True)
    def variant(self, server: LocalS3, s3: Any) -> None:
        server.configure(variant="gcs")

    def test_checksums_are_ignored(self, s3: Any) -> None:
        s3.put_object(Bucket="bucket", Key="k", Body=b"x", ChecksumCRC32="AAAAAA==")
        assert "ChecksumCRC32" not in s3.head_object(Bucket="bucket", Key="k", ChecksumMode="ENABLED")

    def test_no_multi_delete_and_no_part_copies(self, s3: Any) -> None:
        with refused(501, "NotImplemented"):
            s3.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "k"}]})
        s3.put_object(Bucket="bucket", Key="source", Body=b"x")
        request = upload(s3, 1)
        del request["MultipartUpload"]
        with refused(501, "NotImplemented"):
            s3.upload_part_copy(**request, PartNumber=2, CopySource={"Bucket": "bucket", "Key": "source"})

    def test_conditions_of_writes_are_ignored_those_of_reads_are_not(self, server: LocalS3, s3: Any) -> None:
        s3.put_object(Bucket="bucket", Key="k", Body=b"1")
        s3.put_object(Bucket="bucket", Key="k", Body=b"2", IfNoneMatch="*")
        assert server.get("bucket", "k") == b"2"
        with refused(412, "PreconditionFailed"):
            s3.get_object(Bucket="bucket", Key="k", IfMatch='"other"')

    def test_a_signed_accept_encoding(self, own: Any) -> None:
        own.list_objects_v2(Bucket="bucket")

        def add(request: Any, **_: Any) -> None:
            request.headers["Accept-Encoding"] = "identity"

        own.meta.events.register("before-sign.s3", add)
        with refused(403, "SignatureDoesNotMatch"):
            own.list_objects_v2(Bucket="bucket")


class TestB2:
    @pytest.fixture(autouse=True)
    def variant(self, server: LocalS3, s3: Any) -> None:
        server.configure(variant="b2")

    def test_unknown_headers_are_invalid(self, server: LocalS3, s3: Any) -> None:
        other = as_today(server)
        for use in (
            lambda: other.put_object(Bucket="bucket", Key="k", Body=b"x"),
            lambda: other.get_object(Bucket="bucket", Key="k"),
            lambda: s3.put_object(Bucket="bucket", Key="k", Body=b"x", Tagging="a=b"),
        ):
            with refused(400, "InvalidArgument") as refusal:
                use()
            assert refusal.details["Message"].startswith("Unsupported header 'x-amz-")
        other.close()

    def test_conditions_of_writes_are_refused(self, s3: Any) -> None:
        etag = s3.put_object(Bucket="bucket", Key="k", Body=b"x")["ETag"]
        for condition in ({"IfNoneMatch": "*"}, {"IfMatch": etag}):
            with refused(501, "NotImplemented"):
                s3.put_object(Bucket="bucket", Key="k", Body=b"x", **condition)
        s3.get_object(Bucket="bucket", Key="k", IfMatch=etag)


class TestMinio:
    @pytest.fixture(autouse=True)
    def variant(self, server: LocalS3, s3: Any) -> None:
        server.configure(variant="minio")

    @pytest.mark.parametrize("key", ["a//b", "/a", "a\\b"])
    def test_keys_that_are_no_paths(self, s3: Any, key: str) -> None:
        with refused(400, "XMinioInvalidObjectName"):
            s3.put_object(Bucket="bucket", Key=key, Body=b"")

    def test_what_is_below_an_object_is_not_listed(self, s3: Any) -> None:
        for key in ("a", "a-b", "a/b", "a/c/d", "b/c", "dir/", "dir/e"):
            s3.put_object(Bucket="bucket", Key=key, Body=key.encode())
        listed = [entry["Key"] for entry in s3.list_objects_v2(Bucket="bucket")["Contents"]]
        assert listed == ["a", "a-b", "b/c", "dir/", "dir/e"]
        page = s3.list_objects_v2(Bucket="bucket", Delimiter="/")
        assert [entry["Key"] for entry in page["Contents"]] == ["a", "a-b"]
        assert [entry["Prefix"] for entry in page["CommonPrefixes"]] == ["b/", "dir/"]
        assert s3.list_objects_v2(Bucket="bucket", Prefix="a/")["KeyCount"] == 0
        assert s3.get_object(Bucket="bucket", Key="a/c/d")["Body"].read() == b"a/c/d"

    def test_many_deletions_need_an_md5(self, own: Any) -> None:
        document = {"Objects": [{"Key": "k"}]}
        with refused(400, "MissingContentMD5"):
            own.delete_objects(Bucket="bucket", Delete=document)

        def add(request: Any, **_: Any) -> None:
            body = request.body if isinstance(request.body, bytes) else request.body.encode()
            request.headers["Content-MD5"] = b64encode(hashlib.md5(body).digest()).decode()

        own.meta.events.register("before-sign.s3.DeleteObjects", add)
        own.delete_objects(Bucket="bucket", Delete=document)

    def test_uploads_are_listed_by_name(self, s3: Any) -> None:
        key = upload(s3, 1)["Key"]
        assert "Uploads" not in s3.list_multipart_uploads(Bucket="bucket", Prefix="upload-")
        assert s3.list_multipart_uploads(Bucket="bucket", Prefix=key)["Uploads"]


class TestSingleBehaviours:
    @pytest.mark.parametrize(
        ("behaviour", "status", "code"),
        [("refuse_streaming", 501, "NotImplemented"), ("misread_streaming", 403, "SignatureDoesNotMatch")],
    )
    def test_bodies_in_chunks(self, behaviour: Any, status: int, code: str) -> None:
        with LocalS3("bucket", variant={behaviour: True}, tls=True, activate=False) as server:
            s3 = server.boto3_client(config=ONE_ATTEMPT)
            with refused(status, code):
                s3.put_object(Bucket="bucket", Key="k", Body=io.BytesIO(b"x"))
            s3.close()

    def test_no_etag_of_completed_uploads(self, server: LocalS3, s3: Any) -> None:
        server.configure(variant={"no_completion_etag": True})
        assert s3.complete_multipart_upload(**upload(s3, 1))["ETag"] == ""

    def test_conditions_ignored(self, server: LocalS3, s3: Any) -> None:
        server.configure(variant={"ignore_conditions": True})
        s3.put_object(Bucket="bucket", Key="k", Body=b"x")
        s3.get_object(Bucket="bucket", Key="k", IfMatch='"other"')

    def test_names_with_dots(self, server: LocalS3, s3: Any) -> None:
        server.configure(variant={"strict_names": True})
        with Wire(server) as wire:
            answer = wire.request("GET", "/bucket/a/../b")
        assert (answer.status, b"<Code>XMinioInvalidResourceName</Code>" in answer.body) == (400, True)
