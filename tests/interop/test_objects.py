"""Objects of the local S3, as boto3 sees them: in memory and in a directory."""

import base64
import hashlib
import os
import uuid
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.config import Config

from s3dataset.testing import LocalS3

from .checksums import CHECKSUMS
from .conftest import ONE_ATTEMPT
from .errors import refused

ODD_KEYS = [
    "plain",
    "with space",
    "a+b",
    "100%",
    "%41",
    "é",
    "e\u0301",
    "日本語/キー",
    "\U0001f600",
    "quote\"'&<>",
    "tab\tand\nline",
    "\x01\x1f\x7f",
    "/leading",
    "double//slash",
    "trailing/",
    "trailing",
    "trailing/below",
    ".",
    "..",
    "../up",
    "a/./b",
    "a/../b",
    "back\\slash",
    "?query=1",
    "#fragment",
    "semi;colon:at@comma,equals=dollar$",
    "!*'()~-_.",
    "[brackets]{braces}|^`",
    "long/" + "x" * 1019,
    "parts" + "/0123456789" * 90,
]


@pytest.fixture(scope="module")
def s3(backend: LocalS3) -> Iterator[Any]:
    client = backend.boto3_client(config=ONE_ATTEMPT)
    yield client
    client.close()


@pytest.fixture
def bucket(backend: LocalS3) -> str:
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    backend.create_bucket(name)
    return name


@pytest.fixture
def etag(s3: Any, bucket: str) -> str:
    """Of the object "k" with the bytes 0123456789."""
    return str(s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")["ETag"])


def body(response: Any) -> bytes:
    with response["Body"] as stream:
        return bytes(stream.read())


class TestKeys:
    @pytest.mark.parametrize("key", ODD_KEYS)
    def test_any_key_is_written_read_listed_and_deleted(self, s3: Any, bucket: str, key: str) -> None:
        data = key.encode()
        s3.put_object(Bucket=bucket, Key=key, Body=data)
        assert body(s3.get_object(Bucket=bucket, Key=key)) == data
        assert s3.head_object(Bucket=bucket, Key=key)["ContentLength"] == len(data)
        assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
        s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": key})
        assert body(s3.get_object(Bucket=bucket, Key="copy")) == data
        # Quiet, because boto3 cannot read control characters in the answer.
        s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key}, {"Key": "copy"}], "Quiet": True})
        assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0

    def test_odd_keys_live_side_by_side(self, s3: Any, bucket: str) -> None:
        for key in ODD_KEYS:
            s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
        listed = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]]
        assert listed == sorted(ODD_KEYS, key=str.encode)
        for key in ODD_KEYS:
            assert body(s3.get_object(Bucket=bucket, Key=key)) == key.encode()

    def test_a_key_of_more_than_1024_bytes_is_refused(self, s3: Any, bucket: str) -> None:
        with refused(400, "KeyTooLongError"):
            s3.put_object(Bucket=bucket, Key="é" * 513, Body=b"")


class TestReading:
    def test_what_was_sent_with_an_object_comes_back(self, s3: Any, bucket: str) -> None:
        sent = {
            "ContentType": "image/png",
            "CacheControl": "no-cache",
            "ContentDisposition": "attachment",
            "ContentEncoding": "gzip",
            "ContentLanguage": "de",
            "StorageClass": "STANDARD_IA",
            "Metadata": {"label": "7", "note": "a  b"},
        }
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="a=1&b=2", **sent)
        for answer in (s3.head_object(Bucket=bucket, Key="k"), s3.get_object(Bucket=bucket, Key="k")):
            assert {name: answer[name] for name in sent} == sent
        assert s3.get_object(Bucket=bucket, Key="k")["TagCount"] == 2
        assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [
            {"Key": "a", "Value": "1"},
            {"Key": "b", "Value": "2"},
        ]
        assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["StorageClass"] == "STANDARD_IA"

    def test_defaults(self, s3: Any, bucket: str, etag: str) -> None:
        answer = s3.head_object(Bucket=bucket, Key="k")
        assert answer["ETag"] == etag == f'"{hashlib.md5(b"0123456789").hexdigest()}"'
        assert answer["ContentType"] == "binary/octet-stream"
        assert "StorageClass" not in answer
        assert abs(answer["LastModified"] - datetime.now(UTC)) < timedelta(minutes=1)
        assert answer["ResponseMetadata"]["RequestId"]

    @pytest.mark.parametrize(
        ("header", "expected", "content_range"),
        [
            ("bytes=0-0", b"0", "bytes 0-0/10"),
            ("bytes=2-5", b"2345", "bytes 2-5/10"),
            ("bytes=7-", b"789", "bytes 7-9/10"),
            ("bytes=7-100", b"789", "bytes 7-9/10"),
            ("bytes=-3", b"789", "bytes 7-9/10"),
            ("bytes=-100", b"0123456789", "bytes 0-9/10"),
        ],
    )
    def test_ranges(self, s3: Any, bucket: str, etag: str, header: str, expected: bytes, content_range: str) -> None:
        answer = s3.get_object(Bucket=bucket, Key="k", Range=header)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert (answer["ContentRange"], answer["ContentLength"]) == (content_range, len(expected))
        assert body(answer) == expected
        assert s3.head_object(Bucket=bucket, Key="k", Range=header)["ContentLength"] == len(expected)

    def test_a_range_beyond_the_end_tells_the_size(self, s3: Any, bucket: str, etag: str) -> None:
        with refused(416, "InvalidRange") as refusal:
            s3.get_object(Bucket=bucket, Key="k", Range="bytes=10-")
        assert refusal.details["ActualObjectSize"] == "10"
        assert refusal.headers["content-range"] == "bytes */10"

    def test_an_empty_object(self, s3: Any, bucket: str) -> None:
        s3.put_object(Bucket=bucket, Key="empty", Body=b"")
        assert body(s3.get_object(Bucket=bucket, Key="empty")) == b""
        with refused(416, "InvalidRange") as refusal:
            s3.get_object(Bucket=bucket, Key="empty", Range="bytes=0-9")
        assert refusal.details["ActualObjectSize"] == "0"

    def test_what_is_not_there(self, s3: Any, bucket: str) -> None:
        with refused(404, "NoSuchKey") as refusal:
            s3.get_object(Bucket=bucket, Key="missing")
        assert refusal.details["Key"] == "missing"
        with refused(404, "404"):
            s3.head_object(Bucket=bucket, Key="missing")
        with refused(404, "NoSuchBucket"):
            s3.get_object(Bucket="no-such-bucket", Key="k")
        s3.delete_object(Bucket=bucket, Key="missing")

    def test_conditions(self, s3: Any, bucket: str, etag: str) -> None:
        past, future = datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1)
        for condition in (
            {"IfMatch": etag},
            {"IfMatch": "*"},
            {"IfNoneMatch": '"other"'},
            {"IfModifiedSince": past},
            {"IfUnmodifiedSince": future},
            {"IfMatch": etag, "IfUnmodifiedSince": past},
            {"IfNoneMatch": '"other"', "IfModifiedSince": future},
        ):
            assert body(s3.get_object(Bucket=bucket, Key="k", **condition)) == b"0123456789"
        for condition in ({"IfMatch": '"other"'}, {"IfUnmodifiedSince": past}):
            with refused(412, "PreconditionFailed"):
                s3.get_object(Bucket=bucket, Key="k", **condition)
            with refused(412, "412"):
                s3.head_object(Bucket=bucket, Key="k", **condition)
        for condition in ({"IfNoneMatch": etag}, {"IfModifiedSince": datetime.now(UTC)}):
            with refused(304, "304"):
                s3.get_object(Bucket=bucket, Key="k", **condition)

    @pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
    def test_archived_objects_are_not_readable(self, s3: Any, bucket: str, storage_class: str) -> None:
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass=storage_class)
        with refused(403, "InvalidObjectState") as refusal:
            s3.get_object(Bucket=bucket, Key="k")
        assert refusal.details["StorageClass"] == storage_class
        assert s3.head_object(Bucket=bucket, Key="k")["StorageClass"] == storage_class

    def test_an_answer_can_be_given_other_headers(self, s3: Any, bucket: str, etag: str) -> None:
        answer = s3.get_object(Bucket=bucket, Key="k", ResponseContentType="text/plain")
        assert (answer["ContentType"], body(answer)) == ("text/plain", b"0123456789")


class TestWriting:
    def test_a_second_write_replaces_the_first(self, s3: Any, bucket: str, etag: str) -> None:
        again = s3.put_object(Bucket=bucket, Key="k", Body=b"new")["ETag"]
        assert again != etag
        answer = s3.get_object(Bucket=bucket, Key="k")
        assert (answer["ETag"], body(answer)) == (again, b"new")

    def test_conditional_writes(self, s3: Any, bucket: str, etag: str) -> None:
        s3.put_object(Bucket=bucket, Key="new", Body=b"1", IfNoneMatch="*")
        with refused(412, "PreconditionFailed"):
            s3.put_object(Bucket=bucket, Key="new", Body=b"2", IfNoneMatch="*")
        with refused(412, "PreconditionFailed"):
            s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch='"other"')
        with refused(404, "NoSuchKey"):
            s3.put_object(Bucket=bucket, Key="missing", Body=b"2", IfMatch='"other"')
        s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=etag)
        assert body(s3.get_object(Bucket=bucket, Key="k")) == b"2"
        assert body(s3.get_object(Bucket=bucket, Key="new")) == b"1"
        with refused(412, "PreconditionFailed"):
            s3.delete_object(Bucket=bucket, Key="k", IfMatch='"other"')

    @pytest.mark.parametrize("algorithm", list(CHECKSUMS))
    def test_checksums_are_kept_and_returned(self, s3: Any, bucket: str, algorithm: str) -> None:
        data = os.urandom(5_000)
        name, value = f"Checksum{algorithm}", base64.b64encode(CHECKSUMS[algorithm](data)).decode()
        assert s3.put_object(Bucket=bucket, Key="k", Body=data, **{name: value})[name] == value
        answer = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
        assert (answer[name], answer["ChecksumType"]) == (value, "FULL_OBJECT")
        assert body(s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")) == data
        assert name not in s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED", Range="bytes=0-9")
        assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["ChecksumAlgorithm"] == [algorithm]
        with refused(400, "BadDigest"):
            s3.put_object(Bucket=bucket, Key="k", Body=data[1:], **{name: value})

    def test_the_server_adds_crc64nvme(self, backend: LocalS3, bucket: str) -> None:
        config = ONE_ATTEMPT.merge(Config(request_checksum_calculation="when_required"))
        s3 = backend.boto3_client(config=config)
        s3.put_object(Bucket=bucket, Key="k", Body=b"123456789")
        answer = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
        assert answer["ChecksumCRC64NVME"] == base64.b64encode(bytes.fromhex("ae8b14860a799888")).decode()
        s3.close()

    def test_wrong_checksums_are_refused(self, s3: Any, bucket: str) -> None:
        wrong = base64.b64encode(zlib.crc32(b"other").to_bytes(4, "big")).decode()
        with refused(400, "BadDigest"):
            s3.put_object(Bucket=bucket, Key="k", Body=b"data", ChecksumCRC32=wrong)
        with refused(400, "BadDigest"):
            s3.put_object(
                Bucket=bucket, Key="k", Body=b"data", ContentMD5=base64.b64encode(hashlib.md5(b"x").digest()).decode()
            )
        with refused(400, "InvalidRequest"):
            s3.put_object(Bucket=bucket, Key="k", Body=b"data", ChecksumCRC32="AAAA")
        with refused(404, "NoSuchKey"):
            s3.get_object(Bucket=bucket, Key="k")

    def test_a_large_object_goes_up_and_down_whole(self, s3: Any, bucket: str) -> None:
        data = os.urandom(20 << 20)
        s3.put_object(Bucket=bucket, Key="k", Body=data)
        assert body(s3.get_object(Bucket=bucket, Key="k")) == data
        assert body(s3.get_object(Bucket=bucket, Key="k", Range="bytes=8388600-8388700")) == data[8388600:8388701]


class TestDeleting:
    def test_many_at_once(self, s3: Any, bucket: str) -> None:
        keys = [f"k{number}" for number in range(5)]
        for key in keys:
            s3.put_object(Bucket=bucket, Key=key, Body=b"")
        objects = [{"Key": key} for key in [*keys[:3], "missing"]]
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
        assert [entry["Key"] for entry in answer["Deleted"]] == [*keys[:3], "missing"]
        assert "Deleted" not in s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k3"}], "Quiet": True})
        assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["k4"]

    def test_more_than_a_thousand_are_refused(self, s3: Any, bucket: str) -> None:
        with refused(400, "MalformedXML"):
            s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": str(n)} for n in range(1001)]})


class TestCopying:
    def test_metadata_is_copied_or_replaced(self, s3: Any, bucket: str) -> None:
        s3.put_object(Bucket=bucket, Key="a", Body=b"x", Metadata={"m": "1"}, ContentType="text/a", Tagging="t=1")
        source = {"Bucket": bucket, "Key": "a"}
        answer = s3.copy_object(Bucket=bucket, Key="b", CopySource=source)
        assert answer["CopyObjectResult"]["ETag"] == s3.head_object(Bucket=bucket, Key="a")["ETag"]
        copy = s3.head_object(Bucket=bucket, Key="b")
        assert (copy["Metadata"], copy["ContentType"]) == ({"m": "1"}, "text/a")
        s3.copy_object(Bucket=bucket, Key="c", CopySource=source, MetadataDirective="REPLACE", Metadata={"n": "2"})
        replaced = s3.head_object(Bucket=bucket, Key="c")
        assert (replaced["Metadata"], replaced["ContentType"]) == ({"n": "2"}, "binary/octet-stream")
        assert s3.get_object_tagging(Bucket=bucket, Key="c")["TagSet"] == [{"Key": "t", "Value": "1"}]

    def test_conditions_of_source_and_destination(self, s3: Any, bucket: str, etag: str) -> None:
        source = {"Bucket": bucket, "Key": "k"}
        with refused(412, "PreconditionFailed"):
            s3.copy_object(Bucket=bucket, Key="c", CopySource=source, CopySourceIfMatch='"other"')
        with refused(412, "PreconditionFailed"):
            s3.copy_object(Bucket=bucket, Key="c", CopySource=source, CopySourceIfNoneMatch=etag)
        s3.copy_object(Bucket=bucket, Key="c", CopySource=source, CopySourceIfMatch=etag)
        with refused(412, "PreconditionFailed"):
            s3.copy_object(Bucket=bucket, Key="c", CopySource=source, IfNoneMatch="*")

    def test_onto_itself_only_with_a_change(self, s3: Any, bucket: str, etag: str) -> None:
        source = {"Bucket": bucket, "Key": "k"}
        with refused(400, "InvalidRequest"):
            s3.copy_object(Bucket=bucket, Key="k", CopySource=source)
        s3.copy_object(Bucket=bucket, Key="k", CopySource=source, MetadataDirective="REPLACE", Metadata={"x": "y"})
        assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"x": "y"}

    def test_from_what_is_not_there(self, s3: Any, bucket: str) -> None:
        with refused(404, "NoSuchKey"):
            s3.copy_object(Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "missing"})
        with refused(404, "NoSuchBucket"):
            s3.copy_object(Bucket=bucket, Key="c", CopySource={"Bucket": "no-such-bucket", "Key": "k"})
