"""A server with a bucket for models."""

import pytest

from s3dataset import S3Checkpoint, S3ClientConfig
from s3dataset.testing import LocalS3

PART_BYTES = 5 << 20


@pytest.fixture(scope="module")
def server():
    with LocalS3("models") as s3:
        yield s3


@pytest.fixture
def s3(server):
    server.clear_faults()
    server.reset_stats()
    return server


@pytest.fixture
def checkpoint(s3):
    return S3Checkpoint("us-east-1", s3client_config=S3ClientConfig(part_size=PART_BYTES))
