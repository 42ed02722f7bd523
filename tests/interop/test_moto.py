"""The conformance suite over moto's server: an S3 by other people."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any, ClassVar

import pytest

from s3dataset import S3Client, S3ClientConfig
from s3dataset.testing.conformance import ClientConformance

moto_server = pytest.importorskip("moto.server")


class TestMoto(ClientConformance):
    lacks = frozenset({"signatures"})
    endpoint: ClassVar[str]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def server(cls) -> Iterator[None]:
        server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        cls.endpoint = f"http://{host}:{port}"
        yield
        server.stop()

    @pytest.fixture(scope="class")
    @classmethod
    def client(cls, server: None) -> Iterator[S3Client]:
        with closing(cls.client_with()) as client:
            yield client

    @pytest.fixture(scope="class")
    @classmethod
    def bucket(cls, server: None) -> str:
        import boto3

        keys = {"aws_access_key_id": "any", "aws_secret_access_key": "any"}
        s3 = boto3.client("s3", endpoint_url=cls.endpoint, region_name="us-east-1", **keys)
        s3.create_bucket(Bucket="bucket")
        s3.close()
        return "bucket"

    @classmethod
    def client_with(cls, **config: Any) -> S3Client:
        settings = S3ClientConfig(**({"credentials": ("any", "any")} | config))
        return S3Client("us-east-1", endpoint=cls.endpoint, s3client_config=settings)
