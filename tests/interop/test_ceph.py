"""The conformance suite over Ceph's gateway, where it is installed (`apt install radosgw ceph-mon ceph-osd`)."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any, ClassVar

import pytest

from s3dataset import S3Client, S3ClientConfig
from s3dataset.testing.conformance import ClientConformance

from . import ceph

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ceph.is_installed(), reason="Ceph's gateway is not installed"),
]

KEYS = (ceph.ACCESS_KEY, ceph.SECRET_KEY)


class TestCeph(ClientConformance):
    # As of Ceph 16. Later ones know conditions.
    lacks = frozenset({"conditional_writes", "conditional_completion", "etags_of_uploads", "storage_classes"})
    endpoint: ClassVar[str]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with ceph.running(tmp_path_factory.mktemp("ceph")) as cls.endpoint:
            yield

    @pytest.fixture(scope="class")
    @classmethod
    def client(cls, server: None) -> Iterator[S3Client]:
        with closing(cls.client_with()) as client:
            yield client

    @pytest.fixture(scope="class")
    @classmethod
    def bucket(cls, server: None) -> str:
        import boto3

        keys = dict(zip(("aws_access_key_id", "aws_secret_access_key"), KEYS, strict=True))
        s3 = boto3.client("s3", endpoint_url=cls.endpoint, region_name="us-east-1", **keys)
        s3.create_bucket(Bucket="bucket")
        s3.close()
        return "bucket"

    @classmethod
    def client_with(cls, **config: Any) -> S3Client:
        settings = S3ClientConfig(**({"credentials": KEYS} | config))
        return S3Client("us-east-1", endpoint=cls.endpoint, s3client_config=settings)
