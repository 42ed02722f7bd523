"""The local S3's directory buckets, by boto3, which knows the real ones."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config

from s3dataset.testing import LocalS3

from .errors import refused

BUCKET = "data--use1-az4--x-s3"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3(BUCKET, "plain", activate=False) as server:
        yield server


@pytest.fixture
def s3(server: LocalS3) -> Iterator[Any]:
    server.reset_stats()
    client = server.boto3_client(config=Config(retries={"total_max_attempts": 1}))
    yield client
    client.close()


def test_objects(server: LocalS3, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="a/k", Body=b"data")
    assert s3.get_object(Bucket=BUCKET, Key="a/k")["Body"].read() == b"data"
    s3.upload_fileobj(io.BytesIO(bytes(20 << 20)), BUCKET, "large")
    assert s3.head_object(Bucket=BUCKET, Key="large")["ContentLength"] == 20 << 20
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource={"Bucket": BUCKET, "Key": "a/k"}, TaggingDirective="REPLACE")
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "copy"}, {"Key": "large"}]})
    assert server.keys(BUCKET) == ["a/k"]
    assert len(server.requests("CreateSession")) == 1


def test_sessions(s3: Any) -> None:
    keys = s3.create_session(Bucket=BUCKET, SessionMode="ReadOnly")["Credentials"]
    assert {"AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"} <= set(keys)
    with refused(400, "InvalidRequest"):
        s3.create_session(Bucket="plain")
    with refused(404, "NoSuchBucket"):
        s3.get_object(Bucket="none--use1-az4--x-s3", Key="k")


def test_listings(s3: Any) -> None:
    for key in ("d/1", "d/2", "e"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"")
    page = s3.list_objects_v2(Bucket=BUCKET, Prefix="d/")
    assert sorted(entry["Key"] for entry in page["Contents"]) == ["d/1", "d/2"]
    assert [p["Prefix"] for p in s3.list_objects_v2(Bucket=BUCKET, Delimiter="/")["CommonPrefixes"]] == ["a/", "d/"]
    with refused(400, "InvalidRequest"):
        s3.list_objects_v2(Bucket=BUCKET, Prefix="d")
    with refused(400, "InvalidRequest"):
        s3.list_objects_v2(Bucket=BUCKET, Delimiter="-")
    with refused(501, "NotImplemented"):
        s3.list_objects_v2(Bucket=BUCKET, StartAfter="d/")


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        ({"Tagging": "a=b"}, 501, "NotImplemented"),
        ({"ContentMD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}, 501, "NotImplemented"),
        ({"StorageClass": "STANDARD_IA"}, 400, "InvalidStorageClass"),
        ({"ACL": "private"}, 501, "NotImplemented"),
    ],
)
def test_what_they_refuse(s3: Any, arguments: dict, status: int, code: str) -> None:
    with refused(status, code):
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"", **arguments)
