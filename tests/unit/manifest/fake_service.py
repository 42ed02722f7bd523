"""A service that lists, in memory and in virtual time, with the quirks of stores that are no faithful S3."""

import heapq
import random
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, Self

from s3dataset._client import ClientRef
from s3dataset.errors import ObjectNotFoundError, S3Exception

BUCKET = "bucket"
LATENCY_MS = 25.0


class FakePage:
    """As `_native.ListPage`."""

    def __init__(
        self, rows: Sequence[tuple[bytes, int, int, bytes]], prefixes: Sequence[bytes], token: str | None
    ) -> None:
        self.is_truncated = token is not None
        self.next_token = token
        self.common_prefixes = [prefix.decode() for prefix in prefixes]
        self.key_blob, self.key_ends = joined([row[0] for row in rows])
        self.sizes = array("Q", [row[1] for row in rows]).tobytes()
        self.mtimes = array("q", [row[2] for row in rows]).tobytes()
        self.etag_blob, self.etag_ends = joined([row[3] for row in rows])
        self._keys = [row[0] for row in rows]

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, row: int) -> str:
        return self._keys[row].decode()


def joined(texts: Sequence[bytes]) -> tuple[bytes, bytes]:
    ends, end = [], 0
    for text in texts:
        end += len(text)
        ends.append(end)
    return b"".join(texts), array("I", ends).tobytes()


class FakeService:
    """Objects of one bucket.

    Args:
        keys: Their keys; sizes, times and ETags follow from them.
        page_keys: Most keys of a page.
        unordered: Pages come in an order that is not the keys'.
        ignore_start_after: `start-after` makes no difference.
        empty_pages: Every second page is empty, though there is more.
        refuse_start_after: HTTP status for requests with `start-after`.
        refuse_delimiter: HTTP status for requests with a delimiter.
        slow_delimiter_ms: What a request with a delimiter takes longer.
    """

    def __init__(
        self,
        keys: Iterable[bytes] = (),
        *,
        page_keys: int = 1000,
        unordered: bool = False,
        ignore_start_after: bool = False,
        empty_pages: bool = False,
        refuse_start_after: int = 0,
        refuse_delimiter: int = 0,
        slow_delimiter_ms: float = 0.0,
        failure: S3Exception | None = None,
    ) -> None:
        self.objects: dict[bytes, tuple[int, int, bytes]] = {}
        self.page_keys = page_keys
        self.unordered = unordered
        self.ignore_start_after = ignore_start_after
        self.empty_pages = empty_pages
        self.refuse_start_after = refuse_start_after
        self.refuse_delimiter = refuse_delimiter
        self.slow_delimiter_ms = slow_delimiter_ms
        self.failure = failure
        self.requests: list[dict[str, Any]] = []
        for key in keys:
            self.put(key)
        self._sorted: list[bytes] | None = None

    def put(self, key: bytes, size: int | None = None, etag: bytes | None = None) -> None:
        number = sum(key) + len(key)
        self.objects[key] = (
            number if size is None else size,
            1_700_000_000 + number,
            b"%032x" % number if etag is None else etag,
        )
        self._sorted = None

    def delete(self, key: bytes) -> None:
        del self.objects[key]
        self._sorted = None

    def keys(self) -> list[bytes]:
        if self._sorted is None:
            self._sorted = sorted(self.objects)
            if self.unordered:
                random.Random(3).shuffle(self._sorted)
        return self._sorted

    def page(self, **request: Any) -> FakePage | S3Exception:
        prefix, delimiter = request["prefix"].encode(), request["delimiter"].encode()
        start_after, token = request["start_after"].encode(), request["token"]
        if self.failure is not None:
            return self.failure
        if delimiter and self.refuse_delimiter:
            return S3Exception("refused", status=self.refuse_delimiter)
        if start_after and token is None and self.refuse_start_after:
            return S3Exception("refused", status=self.refuse_start_after)
        keys = self.keys()
        empty = False
        if token is not None:
            at = int(token.strip("e"))
            empty = self.empty_pages and not token.endswith("e")
        elif self.unordered:
            at = 0
        else:
            at = bisect_left(keys, prefix)
            if not self.ignore_start_after:
                at = max(at, bisect_right(keys, start_after))
        if empty:
            return FakePage([], [], f"{at}e")
        rows: list[tuple[bytes, int, int, bytes]] = []
        prefixes: list[bytes] = []
        while at < len(keys) and len(rows) + len(prefixes) < self.page_keys:
            key = keys[at]
            if key.startswith(prefix):
                slash = key.find(delimiter, len(prefix)) if delimiter else -1
                if slash >= 0:
                    prefixes.append(key[: slash + 1])
                    at = bisect_left(keys, key[: slash + 1] + b"\xff")
                    continue
                rows.append((key, *self.objects[key]))
            elif not self.unordered:
                break
            at += 1
        rest = keys[at:] if self.unordered else keys[at : at + 1]
        more = any(key.startswith(prefix) for key in rest)
        return FakePage(rows, prefixes, str(at) if more else None)


class FakeReply:
    def __init__(self, size: int, mtime: int, etag: bytes) -> None:
        self.object_size, self.last_modified, self.etag = size, float(mtime), f'"{etag.decode()}"'


class FakeQueue:
    """As `RequestQueue`, in virtual time: answers come after 25 to 29 ms, those of one millisecond at once."""

    def __init__(self, client: "FakeClient") -> None:
        self._client = client
        self._count = 0
        self._due: list[tuple[float, int, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._due.clear()

    def _submit(self, result: Any, more_ms: float = 0.0) -> int:
        client = self._client
        due_ms = client.now_ms + LATENCY_MS + 4 * client.random.random() + more_ms
        heapq.heappush(self._due, (due_ms, self._count, result))
        client.most_at_once = max(client.most_at_once, len(self._due))
        self._count += 1
        return self._count - 1

    def list_page(
        self,
        bucket: str,
        prefix: str,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        max_keys: int = 1000,
    ) -> int:
        request = {"prefix": prefix, "delimiter": delimiter, "start_after": start_after, "token": token}
        self._client.service.requests.append(request)
        service = self._client.service
        return self._submit(service.page(**request), service.slow_delimiter_ms if delimiter else 0.0)

    def head(self, bucket: str, key: str, headers: object = (), *, version_id: str | None = None) -> int:
        found = self._client.service.objects.get(key.encode())
        return self._submit(FakeReply(*found) if found is not None else ObjectNotFoundError("gone"))

    def next(self, min_items: int = 1, max_items: int = 4096, timeout_s: float | None = None) -> list[tuple[int, Any]]:
        results: list[tuple[int, Any]] = []
        if not self._due:
            return results
        if timeout_s is not None and self._due[0][0] > self._client.now_ms + timeout_s * 1000:
            self._client.now_ms += timeout_s * 1000
            return results
        until = self._due[0][0] + 1
        while self._due and self._due[0][0] <= until:
            self._client.now_ms, index, result = heapq.heappop(self._due)
            results.append((index, result))
        return results

    def take_many(self, indices: range) -> list[Any]:
        found = {index: (due, result) for due, index, result in self._due if index in indices}
        self._due = [entry for entry in self._due if entry[1] not in indices]
        heapq.heapify(self._due)
        self._client.now_ms = max(due for due, _ in found.values())
        return [found[index][1] for index in indices]

    def take(self, index: int) -> Any:
        (result,) = self.take_many(range(index, index + 1))
        if isinstance(result, S3Exception):
            raise result
        return result


class FakeClient:
    """As `Client`, as far as listing needs one."""

    def __init__(self, service: FakeService, *, seed: int = 0, max_connections: int = 256) -> None:
        self.service = service
        self.random = random.Random(seed)
        self.max_connections = max_connections
        self.now_ms = 0.0
        self.most_at_once = 0

    @property
    def ref(self) -> ClientRef:
        ref = ClientRef("us-east-1")
        object.__setattr__(ref, "_client", self)
        return ref

    def queue(self) -> FakeQueue:
        return FakeQueue(self)
