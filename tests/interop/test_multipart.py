"""Multipart uploads to the local S3, as boto3 makes them."""

import base64
import hashlib
import io
import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig

from s3dataset.testing import LocalS3

from .checksums import CHECKSUMS
from .conftest import ONE_ATTEMPT
from .errors import refused

MIB = 1 << 20
PART = os.urandom(5 * MIB)


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


def body(response: Any) -> bytes:
    with response["Body"] as stream:
        return bytes(stream.read())


class Upload:
    """An upload of the key "k"."""

    def __init__(self, s3: Any, bucket: str, **options: Any) -> None:
        self.s3 = s3
        self.where = {"Bucket": bucket, "Key": "k"}
        self.where["UploadId"] = s3.create_multipart_upload(**self.where, **options)["UploadId"]
        self.parts: list[dict[str, Any]] = []

    def add(self, data: bytes, number: int | None = None, **options: Any) -> dict[str, Any]:
        number = number or len(self.parts) + 1
        answer = self.s3.upload_part(**self.where, PartNumber=number, Body=data, **options)
        checksums = {name: value for name, value in answer.items() if name.startswith("Checksum")}
        self.parts.append({"PartNumber": number, "ETag": answer["ETag"], **checksums})
        return self.parts[-1]

    def complete(self, parts: list[dict[str, Any]] | None = None, **options: Any) -> Any:
        chosen = {"Parts": self.parts if parts is None else parts}
        return self.s3.complete_multipart_upload(**self.where, MultipartUpload=chosen, **options)


def test_parts_become_one_object(backend: LocalS3, s3: Any, bucket: str) -> None:
    upload = Upload(s3, bucket, Metadata={"m": "1"}, ContentType="text/plain", StorageClass="GLACIER_IR", Tagging="a=b")
    upload.add(PART)
    upload.add(PART)
    upload.add(b"tail")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    answer = upload.complete()
    data = PART + PART + b"tail"
    digests = b"".join(hashlib.md5(part).digest() for part in (PART, PART, b"tail"))
    assert answer["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-3"'
    found = s3.get_object(Bucket=bucket, Key="k")
    assert body(found) == data
    assert (found["Metadata"], found["ContentType"], found["StorageClass"]) == ({"m": "1"}, "text/plain", "GLACIER_IR")
    assert (
        body(s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={5 * MIB - 2}-{5 * MIB + 1}")) == PART[-2:] + PART[:2]
    )
    assert backend.uploads(bucket) == []


def test_a_part_sent_again_replaces_the_first(s3: Any, bucket: str) -> None:
    upload = Upload(s3, bucket)
    upload.add(b"old", number=2)
    last = upload.add(b"new", number=2)
    upload.complete([last])
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"new"


def test_the_order_of_arrival_does_not_matter(s3: Any, bucket: str) -> None:
    upload = Upload(s3, bucket)
    tail = upload.add(b"tail", number=7)
    head = upload.add(PART, number=3)
    upload.complete([head, tail])
    assert body(s3.get_object(Bucket=bucket, Key="k")) == PART + b"tail"


class TestRefusals:
    def test_parts_that_are_not_there(self, s3: Any, bucket: str) -> None:
        upload = Upload(s3, bucket)
        part = upload.add(b"x")
        for wrong in ([part | {"ETag": '"other"'}], [part | {"PartNumber": 2}]):
            with refused(400, "InvalidPart"):
                upload.complete(wrong)

    def test_parts_out_of_order(self, s3: Any, bucket: str) -> None:
        upload = Upload(s3, bucket)
        first, second = upload.add(PART), upload.add(b"x")
        for wrong in ([second, first], [first, first]):
            with refused(400, "InvalidPartOrder"):
                upload.complete(wrong)

    def test_small_parts_but_the_last(self, backend: LocalS3, s3: Any, bucket: str) -> None:
        upload = Upload(s3, bucket)
        upload.add(PART[:-1])
        upload.add(b"x")
        with refused(400, "EntityTooSmall") as refusal:
            upload.complete()
        assert refusal.details["MinSizeAllowed"] == str(5 * MIB)
        # A refusal leaves the upload as it was.
        backend.configure(min_part_bytes=1)
        upload.complete()
        backend.configure(min_part_bytes=5 * MIB)

    def test_part_numbers_out_of_range(self, s3: Any, bucket: str) -> None:
        upload = Upload(s3, bucket)
        for number in (10_001, -1):
            with refused(400, "InvalidArgument"):
                upload.add(b"x", number=number)
        upload.add(b"x", number=10_000)

    def test_uploads_that_have_ended(self, backend: LocalS3, s3: Any, bucket: str) -> None:
        upload = Upload(s3, bucket)
        upload.add(b"x")
        s3.abort_multipart_upload(**upload.where)
        for use in (upload.complete, lambda: upload.add(b"x"), lambda: s3.abort_multipart_upload(**upload.where)):
            with refused(404, "NoSuchUpload"):
                use()
        assert backend.uploads(bucket) == []

    def test_a_size_that_is_not_the_announced_one(self, s3: Any, bucket: str) -> None:
        upload = Upload(s3, bucket)
        upload.add(b"four")
        with refused(400, "InvalidRequest"):
            upload.complete(MpuObjectSize=5)
        upload.complete(MpuObjectSize=4)

    def test_conditions(self, s3: Any, bucket: str) -> None:
        etag = s3.put_object(Bucket=bucket, Key="k", Body=b"old")["ETag"]
        upload = Upload(s3, bucket)
        upload.add(b"new")
        for condition in ({"IfNoneMatch": "*"}, {"IfMatch": '"other"'}):
            with refused(412, "PreconditionFailed"):
                upload.complete(**condition)
        upload.complete(IfMatch=etag)
        assert body(s3.get_object(Bucket=bucket, Key="k")) == b"new"


class TestChecksums:
    @pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME"])
    def test_full_object(self, backend: LocalS3, s3: Any, bucket: str, algorithm: str) -> None:
        backend.configure(min_part_bytes=0)  # the reference of the checksums is slow
        name, checksum = f"Checksum{algorithm}", CHECKSUMS[algorithm]
        upload = Upload(s3, bucket, ChecksumAlgorithm=algorithm, ChecksumType="FULL_OBJECT")
        parts = [b"one", b"", b"two and", b" three"]
        for part in parts:
            upload.add(part, **{name: base64.b64encode(checksum(part)).decode()})
        whole = base64.b64encode(checksum(b"".join(parts))).decode()
        with refused(400, "BadDigest"):
            upload.complete(ChecksumType="FULL_OBJECT", **{name: base64.b64encode(checksum(b"")).decode()})
        answer = upload.complete(ChecksumType="FULL_OBJECT", **{name: whole})
        assert (answer[name], answer["ChecksumType"]) == (whole, "FULL_OBJECT")
        assert s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")[name] == whole
        backend.configure(min_part_bytes=5 * MIB)

    @pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
    def test_composite(self, s3: Any, bucket: str, algorithm: str) -> None:
        name, checksum = f"Checksum{algorithm}", CHECKSUMS[algorithm]
        upload = Upload(s3, bucket, ChecksumAlgorithm=algorithm)
        upload.add(PART, ChecksumAlgorithm=algorithm)
        upload.add(b"x", ChecksumAlgorithm=algorithm)
        upload.complete()
        head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
        expected = base64.b64encode(checksum(checksum(PART) + checksum(b"x"))).decode()
        assert (head[name], head["ChecksumType"]) == (f"{expected}-2", "COMPOSITE")

    def test_composite_needs_those_of_the_parts(self, s3: Any, bucket: str) -> None:
        upload = Upload(s3, bucket, ChecksumAlgorithm="SHA256")
        part = upload.add(b"x", ChecksumAlgorithm="SHA256")
        with refused(400, "InvalidRequest"):
            upload.complete([{"PartNumber": 1, "ETag": part["ETag"]}])

    def test_kinds_that_do_not_go_together(self, s3: Any, bucket: str) -> None:
        for algorithm, kind in (("SHA256", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE")):
            with refused(400, "InvalidRequest"):
                Upload(s3, bucket, ChecksumAlgorithm=algorithm, ChecksumType=kind)


def test_parts_copied_from_another_object(s3: Any, bucket: str) -> None:
    data = PART + b"tail"
    s3.put_object(Bucket=bucket, Key="source", Body=data)
    upload = Upload(s3, bucket)
    parts = []
    for number, (first, last) in enumerate([(0, 5 * MIB - 1), (5 * MIB, len(data) - 1)], start=1):
        answer = s3.upload_part_copy(
            **upload.where,
            PartNumber=number,
            CopySource={"Bucket": bucket, "Key": "source"},
            CopySourceRange=f"bytes={first}-{last}",
        )
        parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
    with refused(400, "InvalidArgument"):
        s3.upload_part_copy(
            **upload.where,
            PartNumber=9,
            CopySource={"Bucket": bucket, "Key": "source"},
            CopySourceRange=f"bytes=0-{len(data)}",
        )
    upload.complete(parts)
    assert body(s3.get_object(Bucket=bucket, Key="k")) == data


def test_parts_and_uploads_are_listed(backend: LocalS3, s3: Any, bucket: str) -> None:
    upload = Upload(s3, bucket)
    for _ in range(3):
        upload.add(b"abc")
    pages = list(s3.get_paginator("list_parts").paginate(**upload.where, PaginationConfig={"PageSize": 2}))
    assert [[part["PartNumber"] for part in page["Parts"]] for page in pages] == [[1, 2], [3]]
    others = [s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"] for key in ("a b", "z/1", "z/2")]
    paginator = s3.get_paginator("list_multipart_uploads")
    listed = [
        (entry["Key"], entry["UploadId"])
        for page in paginator.paginate(Bucket=bucket, PaginationConfig={"PageSize": 1})
        for entry in page["Uploads"]
    ]
    assert listed == [("a b", others[0]), ("k", upload.where["UploadId"]), ("z/1", others[1]), ("z/2", others[2])]
    assert [entry["Key"] for entry in s3.list_multipart_uploads(Bucket=bucket, Prefix="z/")["Uploads"]] == [
        "z/1",
        "z/2",
    ]
    assert [(entry["key"], entry["parts"], entry["bytes"]) for entry in backend.uploads(bucket)] == [
        ("a b", 0, 0),
        ("k", 3, 9),
        ("z/1", 0, 0),
        ("z/2", 0, 0),
    ]


def test_boto3_transfers(s3: Any, bucket: str) -> None:
    data = os.urandom(17 * MIB)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    s3.upload_fileobj(io.BytesIO(data), bucket, "k", Config=config)
    s3.copy({"Bucket": bucket, "Key": "k"}, bucket, "copy", Config=config)
    found = io.BytesIO()
    s3.download_fileobj(bucket, "copy", found, Config=config)
    assert found.getvalue() == data
