"""A server for all tests of the file system, and a directory of its own for each."""

import uuid
from collections.abc import Iterator

import pytest

from s3dataset.fsspec import S3FileSystem
from s3dataset.testing import LocalS3


@pytest.fixture(scope="session")
def server() -> Iterator[LocalS3]:
    with LocalS3("bucket", "other", activate=False) as server:
        yield server


@pytest.fixture
def s3(server: LocalS3) -> LocalS3:
    server.clear_faults()
    server.reset_stats()
    return server


@pytest.fixture
def fs(s3: LocalS3) -> S3FileSystem:
    return S3FileSystem(endpoint_url=s3.endpoint, key=s3.access_key, secret=s3.secret_key, region=s3.region)


@pytest.fixture
def root() -> str:
    """A directory that nothing is in."""
    return f"bucket/{uuid.uuid4().hex[:12]}"
