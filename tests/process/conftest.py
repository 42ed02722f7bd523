"""Settings for tests that start processes."""

from collections.abc import Iterator
from multiprocessing import forkserver

import pytest


@pytest.fixture(autouse=True, scope="module")
def own_forkserver() -> Iterator[None]:
    """The fork server keeps the environment of its start, and with it the address of that module's local S3."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined] # somebody else's, perhaps
    yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
