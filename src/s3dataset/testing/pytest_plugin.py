"""The fixture `local_s3`: `pytest_plugins = ["s3dataset.testing.pytest_plugin"]` in a conftest.py."""

from collections.abc import Iterator

import pytest

from s3dataset.testing._local_s3 import LocalS3

# Assertions of the conformance suite show their values, as those of the tests that inherit it do.
pytest.register_assert_rewrite("s3dataset.testing.conformance")

#: The bucket that the fixture's server has.
BUCKET = "test-bucket"


@pytest.fixture
def local_s3() -> Iterator[LocalS3]:
    """A server of this test alone, with the bucket `test-bucket`; this process is pointed at it."""
    with LocalS3(BUCKET) as server:
        yield server


def pytest_configure(config: pytest.Config) -> None:
    """Makes the marker of the conformance suite known."""
    config.addinivalue_line("markers", "needs(feature, ...): skipped where a store lacks one of these features")
