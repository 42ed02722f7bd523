"""Objects of one shard after the other, in order, many requests under way across the ends of shards."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Final, Self, cast

from s3dataset._client import Body, Client
from s3dataset._io import ReaderPolicy, S3Reader
from s3dataset._pack._plan import Row
from s3dataset.errors import S3Exception
from s3dataset.formats._streamed import StreamedField

__all__ = ["Fetcher"]

_CONNECTIONS_AHEAD: Final = 2
_LEAST_AHEAD: Final = 64
_MOST_AHEAD: Final = 1024
_GROUP: Final = 32
_GROUP_BYTES: Final = 4 << 20
_PIECE_BYTES: Final = 4 << 20
_READER_BYTES: Final = 64 << 20


class Fetcher:
    """Fetches whole objects ahead of the one that is wanted, within half of the client's byte budget.

    An object that is larger than that is streamed where that will do, else comes alone. Belongs to one thread.

    Args:
        client: Whose connections are used.
        more: Gives the objects of a further shard, if one is known already; else None.
        streams: Whether large objects may come as fields that are streamed.
    """

    def __init__(self, client: Client, more: Callable[[], Sequence[Row] | None], *, streams: bool = False) -> None:
        self._client = client
        self._streams = streams
        self._more = more
        self._queue = client.queue()
        self._window_bytes = client.memory_limit_bytes // 2
        self._window = min(_MOST_AHEAD, max(_LEAST_AHEAD, _CONNECTIONS_AHEAD * client.max_connections))
        self._rows: deque[Row] = deque()
        self._sent: deque[Row] = deque()
        self._sent_bytes = 0
        self._head = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.close()

    def add(self, rows: Sequence[Row]) -> None:
        """These come behind those that were given before."""
        self._rows.extend(rows)

    def bodies(self, count: int) -> Iterator[Body | StreamedField]:
        """The next objects.

        Raises:
            S3Exception: One could not be fetched, or was replaced since it was listed.
        """
        left = count
        while left:
            self._top_up()
            if self._is_large(self._sent[0]):
                left -= 1
                yield self._streamed(self._sent.popleft())
                continue
            some = 0
            while some < min(left, len(self._sent), _GROUP) and not self._is_large(self._sent[some]):
                some += 1
            if some > 1 and (
                not self._queue.ready(self._head + some - 1)
                or sum(self._sent[at][2] or 0 for at in range(some)) > _GROUP_BYTES
            ):
                some = 1
            results = self._queue.take_many(range(self._head, self._head + some))
            self._head += some
            left -= some
            results.reverse()
            while results:  # each leaves the memory when it is done with
                result = results.pop()
                self._sent_bytes -= self._sent.popleft()[2] or 0
                if isinstance(result, S3Exception):
                    raise result
                yield cast(Body, result)
                del result

    def _top_up(self) -> None:
        if 4 * len(self._sent) > 3 * self._window:
            return
        requests = []
        while len(self._sent) < self._window:
            if not self._rows:
                rows = self._more()
                if rows is None:
                    break
                self._rows.extend(rows)
                continue
            bucket, key, size, etag = self._rows[0]
            if self._is_large(self._rows[0]):
                self._sent.append(self._rows.popleft())
                continue
            if self._sent and self._sent_bytes + (size or 0) > self._window_bytes:
                break
            self._sent.append(self._rows.popleft())
            self._sent_bytes += size or 0
            requests.append((bucket, key, None, None, size, etag))
        if requests:
            self._queue.get(requests, verify=True)

    def _is_large(self, row: Row) -> bool:
        return self._streams and (row[2] or 0) > self._window_bytes

    def _streamed(self, row: Row) -> StreamedField:
        bucket, key, size, etag = row
        window_bytes = min(self._window_bytes, _READER_BYTES)
        policy = ReaderPolicy("sequential", window_bytes=window_bytes, direct_bytes=_READER_BYTES, keep_bytes=0)

        def pieces() -> Iterator[bytes]:
            with S3Reader(self._client, bucket, key, policy=policy, size=size, etag=etag) as reader:
                while piece := reader.read(_PIECE_BYTES):
                    yield piece

        return StreamedField(size or 0, pieces)
