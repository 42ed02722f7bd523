"""A server and a manager, empty for each test."""

from collections.abc import Iterator

import pytest
from tests.process.manager.world import BUCKET, URI

from s3dataset import CheckpointManager
from s3dataset.testing import LocalS3


@pytest.fixture(scope="module")
def running() -> Iterator[LocalS3]:
    with LocalS3(BUCKET) as server:
        yield server


@pytest.fixture
def server(running: LocalS3) -> Iterator[LocalS3]:
    running.reset_stats()
    yield running
    running.clear_faults()
    running.configure(variant="s3")
    for key in running.keys(BUCKET):
        running.delete(BUCKET, key)


@pytest.fixture
def manager(server: LocalS3) -> Iterator[CheckpointManager]:
    with CheckpointManager(URI) as manager:
        yield manager
