"""What the parts of the suite have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from s3dataset._io import S3Client

__all__ = ["Suite"]


class Suite(ABC):
    """A store, a client of it, and a place for the objects of one test."""

    lacks: ClassVar[frozenset[str]] = frozenset()

    @pytest.fixture(scope="class")
    @classmethod
    def client(cls) -> S3Client:
        """A client of the store."""
        return cls.client_with()

    @pytest.fixture(scope="class")
    @classmethod
    def bucket(cls) -> str:
        """A bucket that exists and may be written to."""
        raise NotImplementedError("a subclass of the conformance suite has a fixture `bucket`")

    @classmethod
    @abstractmethod
    def client_with(cls, **config: Any) -> S3Client:
        """A client of the same store with these fields of `S3ClientConfig`."""

    @pytest.fixture
    def prefix(self, client: S3Client, bucket: str) -> Iterator[str]:
        """A prefix of this test's own, which is empty again afterwards."""
        prefix = f"s3dataset-conformance-{uuid4().hex[:12]}/"
        yield prefix
        keys = [entry.key for page in client.list_objects(bucket, prefix) for entry in page.object_info]
        client.delete_objects(bucket, keys)

    @pytest.fixture(autouse=True)
    def _skip_what_is_lacking(self, request: pytest.FixtureRequest) -> None:
        for marker in request.node.iter_markers("needs"):
            if missing := self.lacks.intersection(marker.args):
                pytest.skip(f"this store lacks {', '.join(sorted(missing))}")

    def skip_unless_possible(self, key: str) -> None:
        """Skips the test when the store at hand cannot have such a key."""
        if not self.is_possible(key):
            pytest.skip(f"this store cannot have the key {key!r}")

    def is_possible(self, key: str) -> bool:
        """Whether the store at hand can have such a key."""
        parts = key.split("/")
        dotted = "dotted_keys" in self.lacks and not {".", ".."}.isdisjoint(parts)
        empty = "empty_parts_of_keys" in self.lacks and "" in parts[:-1]
        return not dotted and not empty
