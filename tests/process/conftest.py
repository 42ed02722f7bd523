"""Settings for tests that start processes."""

from collections.abc import Iterator
from multiprocessing import forkserver

import pytest
from tests.process.shard_world import COUNTS, put_shards

from s3dataset import Manifest
from s3dataset.testing import LocalS3


@pytest.fixture(autouse=True, scope="module")
def own_forkserver() -> Iterator[None]:
    """The fork server keeps the environment of its start, and with it the address of that module's local S3."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined] # somebody else's, perhaps
    yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def listed() -> Iterator[Manifest]:
    """Small tar shards without an index; samples count on from 0."""
    with LocalS3("bucket") as running:
        put_shards(running, "small/", "tar", COUNTS)
        yield Manifest.from_prefix("s3://bucket/small/")


@pytest.fixture(scope="module")
def indexed(listed: Manifest) -> Manifest:
    """The same with an index."""
    return listed.index("tar")


@pytest.fixture
def versioned() -> Iterator[LocalS3]:
    """A bucket of that name, which keeps versions."""
    with LocalS3() as server:
        server.create_bucket("versioned", versioned=True)
        yield server
