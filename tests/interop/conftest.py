"""boto3 against the local S3."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config

from s3dataset.testing import LocalS3

# A test sees every answer of the server, none of botocore's retries.
ONE_ATTEMPT = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})


@pytest.fixture(scope="package")
def server() -> Iterator[LocalS3]:
    """A server for all tests that do not change its settings; each takes a bucket of its own."""
    with LocalS3(activate=False) as server:
        yield server


@pytest.fixture
def bucket(server: LocalS3) -> Iterator[str]:
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    server.create_bucket(name)
    server.reset_stats()
    yield name
    server.clear_faults()


@pytest.fixture(scope="package")
def shared_client(server: LocalS3) -> Iterator[Any]:
    client = server.boto3_client(config=ONE_ATTEMPT)
    yield client
    client.close()


@pytest.fixture
def s3(shared_client: Any, bucket: str) -> Any:
    return shared_client


@pytest.fixture(scope="package", params=["memory", "directory"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    """A server for each place where objects may live."""
    directory = tmp_path_factory.mktemp("store") if request.param == "directory" else None
    with LocalS3(activate=False, directory=directory) as server:
        yield server
