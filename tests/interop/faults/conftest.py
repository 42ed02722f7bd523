"""A server that goes wrong on demand, and two ways to speak to it."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.interop.conftest import ONE_ATTEMPT
from tests.interop.wire import Wire

from s3dataset.testing import LocalS3

from . import DATA


@pytest.fixture(scope="package")
def shared_server() -> Iterator[LocalS3]:
    with LocalS3("bucket", public=True, anonymous_writes=True, min_part_bytes=1, activate=False) as server:
        yield server


@pytest.fixture
def server(shared_server: LocalS3) -> Iterator[LocalS3]:
    """Has one object, `k` in `bucket`, and no faults."""
    shared_server.clear_faults()
    shared_server.reset_stats()
    for key in shared_server.keys("bucket"):
        shared_server.delete("bucket", key)
    shared_server.put("bucket", "k", DATA)
    yield shared_server
    shared_server.clear_faults()


@pytest.fixture
def wire(server: LocalS3) -> Iterator[Wire]:
    with Wire(server) as wire:
        yield wire


@pytest.fixture
def s3(server: LocalS3) -> Iterator[Any]:
    client = server.boto3_client(config=ONE_ATTEMPT)
    yield client
    client.close()
