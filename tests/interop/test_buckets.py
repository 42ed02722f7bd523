"""Buckets of the local S3, and how they are addressed."""

import uuid
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.config import Config

from s3dataset.testing import LocalS3

from .conftest import ONE_ATTEMPT
from .errors import refused


def test_life_of_a_bucket(s3: Any) -> None:
    name = f"made-{uuid.uuid4().hex[:8]}"
    with refused(404, "404"):
        s3.head_bucket(Bucket=name)
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert s3.head_bucket(Bucket=name)["BucketRegion"] == "eu-west-1"
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] == "eu-west-1"
    assert name in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]
    with refused(409, "BucketAlreadyOwnedByYou"):
        s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="k", Body=b"")
    with refused(409, "BucketNotEmpty"):
        s3.delete_bucket(Bucket=name)
    s3.delete_object(Bucket=name, Key="k")
    s3.delete_bucket(Bucket=name)
    with refused(404, "NoSuchBucket"):
        s3.delete_bucket(Bucket=name)


def test_the_first_region_has_no_name(s3: Any, bucket: str) -> None:
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    assert s3.head_bucket(Bucket=bucket)["BucketRegion"] == "us-east-1"


def test_names_that_are_refused(s3: Any) -> None:
    for name in ("ab", "Capital", "under_score"):
        with refused(400, "InvalidBucketName"):
            s3.create_bucket(Bucket=name)


def test_operations_that_are_not_there_say_so(s3: Any, bucket: str) -> None:
    for operation in (s3.get_bucket_policy, s3.get_bucket_acl, s3.get_bucket_lifecycle_configuration):
        with refused(501, "NotImplemented"):
            operation(Bucket=bucket)


@pytest.mark.parametrize("domain", ["localhost", "s3.localhost", "s3.eu-west-1.localhost"])
def test_virtual_hosts(server: LocalS3, bucket: str, domain: str) -> None:
    config = ONE_ATTEMPT.merge(Config(s3={"addressing_style": "virtual"}))
    s3 = server.boto3_client(config=config, endpoint_url=f"http://{domain}:{server.port}")

    # The name need not be known to the machine's resolver.
    def send_to_loopback(request: Any, **_: Any) -> None:
        host = urlsplit(request.url).netloc
        request.headers["Host"] = host
        request.url = request.url.replace(host, f"127.0.0.1:{server.port}")

    s3.meta.events.register("before-send.s3", send_to_loopback)
    s3.put_object(Bucket=bucket, Key="/k", Body=b"x")
    assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["Key"] == "/k"
    s3.close()
    assert server.get(bucket, "/k") == b"x"
    assert {record.headers["host"] for record in server.requests()} == {f"{bucket}.{domain}:{server.port}"}
