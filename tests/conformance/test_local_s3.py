"""The conformance suite over the local S3, in memory and in a directory."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from s3dataset import S3Client, S3ClientConfig
from s3dataset.testing import LocalS3
from s3dataset.testing.conformance import ClientConformance


class _OverLocalS3(ClientConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def client(cls) -> Iterator[S3Client]:
        with closing(cls.client_with()) as client:
            yield client

    @pytest.fixture(scope="class")
    @classmethod
    def bucket(cls) -> str:
        return "bucket"

    @classmethod
    def client_with(cls, **config: Any) -> S3Client:
        # The server of this class has set the environment.
        return S3Client(s3client_config=S3ClientConfig(**config))

    @pytest.fixture(autouse=True)
    def _no_upload_is_left(self, server: LocalS3) -> Iterator[None]:
        yield
        assert server.uploads("bucket") == []


class TestInMemory(_OverLocalS3):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def server(cls) -> Iterator[LocalS3]:
        with LocalS3("bucket") as server:
            yield server


class TestInADirectory(_OverLocalS3):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
        with LocalS3("bucket", directory=tmp_path_factory.mktemp("store")) as server:
            yield server


class TestDirectoryBucket(_OverLocalS3):
    """As S3 Express One Zone has them."""

    lacks = frozenset({"listing_order", "storage_classes"})
    name = "bucket--use1-az4--x-s3"

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def server(cls) -> Iterator[LocalS3]:
        with LocalS3("bucket", cls.name) as server:
            yield server

    @pytest.fixture(scope="class")
    @classmethod
    def bucket(cls) -> str:
        return cls.name
