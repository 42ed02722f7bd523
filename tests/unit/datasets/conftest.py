"""A client whose queue answers from memory, so that fetching is tested without an engine."""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import pytest

from s3dataset.errors import ObjectNotFoundError


class FakeBody(bytearray):
    """As much of a Body as readers need."""

    start = 0
    etag = '"e"'
    object_size = 0


class FakeQueue:
    """Answers at once; `lag` results stay unfinished behind the newest request."""

    def __init__(self, client: "FakeClient") -> None:
        self.client = client
        self.results: dict[int, Any] = {}
        self.count = 0
        self.closed = False
        self.cancelled: list[int] = []
        client.queues.append(self)

    def get(self, requests: Iterable[Any], *, limit: int | None = None, version_id: str | None = None) -> range:
        requests = list(requests)
        self.client.submissions.append([key for _, key, *_ in requests])
        first = self.count
        for bucket, key, start, end, _size, _etag in requests:
            self.client.requested.append(key)
            self.client.limits.add(limit)
            contents = self.client.objects.get((bucket, key))
            if contents is None:
                result: Any = ObjectNotFoundError(f"no {key}", uri=f"s3://{bucket}/{key}")
            else:
                result = FakeBody(contents[start:end][:limit])
                result.object_size = len(contents)
            self.results[self.count] = result
            self.count += 1
        self.client.most_waiting = max(self.client.most_waiting, len(self.results))
        waiting_bytes = sum(len(body) for body in self.results.values() if isinstance(body, FakeBody))
        self.client.most_waiting_bytes = max(self.client.most_waiting_bytes, waiting_bytes)
        return range(first, self.count)

    def take_many(self, indices: range, timeout_s: float | None = None) -> list[Any]:
        return [self.results.pop(index) for index in indices]

    def take(self, index: int, timeout_s: float | None = None) -> Any:
        return self.take_many(range(index, index + 1))[0]

    def next(self, min_items: int = 1, max_items: int = 4096, timeout_s: float | None = None) -> list[Any]:
        newest = sorted(self.results, reverse=True)[:max_items]
        return [(index, self.results.pop(index)) for index in newest]

    def ready(self, index: int) -> bool:
        return True

    def cancel(self, indices: range) -> None:
        self.cancelled += indices

    def close(self) -> None:
        self.closed = True
        self.results.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class FakeClient:
    """Remembers what was asked of it."""

    part_size = 8 << 20
    memory_limit_bytes = 1 << 30
    max_connections = 64

    def __init__(self, objects: dict[tuple[str, str], bytes]) -> None:
        self.objects = objects
        self.queues: list[FakeQueue] = []
        self.submissions: list[list[str]] = []
        self.requested: list[str] = []
        self.limits: set[int | None] = set()
        self.most_waiting = 0
        self.most_waiting_bytes = 0

    def queue(self) -> FakeQueue:
        return FakeQueue(self)

    def stats(self) -> dict[str, Any]:
        return {"requests": len(self.requested)}


class FakeRef:
    """Gives the client."""

    region = endpoint = config = None

    def __init__(self, client: FakeClient) -> None:
        self.client = client

    def get(self) -> FakeClient:
        return self.client


class FakeCounters:
    """Adds up."""

    def __init__(self) -> None:
        self.samples = 0

    def asked(self) -> int:
        return self.samples

    begun = asked

    def made(self, asked: int, samples: int = 1) -> int:
        assert asked == self.samples  # it is asked for each anew, or given what the one before returned
        self.samples += samples
        return self.samples

    def pause(self) -> None:
        pass

    def publish(self, *, client: bool = True) -> None:
        pass


@pytest.fixture
def client() -> FakeClient:
    """300 objects of 1,000 bytes, "b/000" ... "b/299"."""
    return FakeClient({("b", f"{i:03}"): f"{i:03}".encode() * 333 + b"." for i in range(300)})


@pytest.fixture
def counters() -> FakeCounters:
    return FakeCounters()


@pytest.fixture
def ref(client: FakeClient) -> FakeRef:
    return FakeRef(client)


def rows_of(client: FakeClient, indices: Sequence[int], *, sizes: bool = True) -> list[Any]:
    keys = sorted(client.objects)
    return [(*keys[i], len(client.objects[keys[i]]) if sizes else None, '"e"') for i in indices]


@pytest.fixture
def rows(client: FakeClient) -> Any:
    def rows(indices: Sequence[int] = range(300), *, sizes: bool = True) -> list[Any]:
        return rows_of(client, indices, sizes=sizes)

    return rows
