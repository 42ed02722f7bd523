"""Fetching ahead of a consumer that takes one sample after the other."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from s3dataset._datasets._bad_samples import SKIPPED
from s3dataset._datasets._samples import Ledger, Row, SampleMaker
from s3dataset._datasets._trace import WAIT_FOR_NETWORK, ranged
from s3dataset.errors import S3Exception

if TYPE_CHECKING:
    from s3dataset._client import Client, RequestQueue
    from s3dataset._datasets._bad_samples import BadPolicy
    from s3dataset._datasets._counters import Asked, Counters

__all__ = ["FetchAhead", "bytes_ahead", "request_of"]

T = TypeVar("T")

_CONNECTIONS_AHEAD: Final = 2  # as many requests wait as are under way, so that no connection ever does
_LEAST_AHEAD: Final = 64
_MOST_AHEAD: Final = 1024
_GROUP: Final = 16
_GROUP_BYTES: Final = 2 << 20  # results taken together leave the byte budget together
_UNREAD_IN_A_ROW: Final = 8
_UNKNOWN_BYTES: Final = 256 << 10  # of an object whose size no listing told, before the first arrived


def bytes_ahead(client: "Client") -> int:
    """How many bytes one consumer may have fetched ahead: half the budget, as readers and writers need some too."""
    return client.memory_limit_bytes // 2


def request_of(row: Row) -> tuple[str, str, None, None, int | None, str | None]:
    """The request for an object, in the version that was listed."""
    bucket, key, size, etag = row
    if etag is not None and not etag.startswith(('"', "W/")):
        etag = f'"{etag}"' if etag else None
    return bucket, key, None, None, size, etag


class FetchAhead(Generic[T]):
    """Iterates over samples, many requests under way, within a window of bytes and objects.

    Where samples are readers, fetching begins when one that was delivered was read and stops when several in a row
    were dropped unread; readers delivered meanwhile fetch by themselves. Where a transform stands, it begins at once.
    Of objects larger than a part only the first part is fetched.

    Belongs to one thread of one process. Leaving the iteration, in whichever way, cancels what is under way.

    Args:
        maker: Makes the samples.
        chunks: What to read, in order, some objects at a time.
        counters: Where time and bytes are counted.
        ordered: In the order given, else as objects arrive.
        begin_at_once: Fetch before the first reader was read, also where samples are readers.
        bad: What becomes of bad samples; default: they raise.
        position_of: The number of an object's sample, for `bad`.
    """

    def __init__(
        self,
        maker: SampleMaker[T],
        chunks: Iterable[Sequence[Row]],
        counters: "Counters",
        *,
        ordered: bool = True,
        begin_at_once: bool = False,
        bad: "BadPolicy[T] | None" = None,
        position_of: Callable[[Row], int] | None = None,
    ) -> None:
        self._maker = maker
        self._chunks = iter(chunks)
        self._rows: deque[Row] = deque()  # not sent for yet
        # What is under way or arrived and not delivered, with the bytes counted for it.
        self._sent: deque[tuple[Row, int]] = deque()
        self._sent_by_index: dict[int, tuple[Row, int]] = {}
        self._counters = counters
        self._ordered = ordered
        self._bad = bad
        self._position_of = position_of
        self._ledger = Ledger() if maker.delivers_readers and not begin_at_once else None
        self._client = maker.client
        self._part_bytes = self._client.part_size
        self._window_bytes = bytes_ahead(self._client)
        self._window = min(_MOST_AHEAD, max(_LEAST_AHEAD, _CONNECTIONS_AHEAD * self._client.max_connections))
        self._bytes = 0  # counted for what was sent for
        self._typical_bytes = _UNKNOWN_BYTES
        self._asked: Asked = 0.0, 0.0, 0

    def __iter__(self) -> Iterator[T]:
        if not self._maker.reads_ahead:
            return self._on_demand()
        return self._ordered_samples() if self._ordered else self._samples_as_they_arrive()

    # -- Deciding ----------------------------------------------------------------------------------------------------

    @property
    def _active(self) -> bool:
        ledger = self._ledger
        return ledger is None or (ledger.read > 0 and ledger.unread < _UNREAD_IN_A_ROW)

    def _fill_rows(self, count: int) -> bool:
        """Sees to `count` rows that are not sent for, if there are so many -> whether there is any."""
        while len(self._rows) < count:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._rows.extend(chunk)
        return bool(self._rows)

    def _estimate(self, row: Row) -> int:
        size = row[2]
        return min(self._typical_bytes if size is None else size, self._part_bytes)

    def _next_requests(self, under_way: int) -> list[tuple[Row, int]]:
        """What fits into the window now; at least one when nothing is under way."""
        if not self._active or 4 * under_way > 3 * self._window:  # by the hundred, not one by one
            return []
        chosen: list[tuple[Row, int]] = []
        room = self._window - under_way
        self._fill_rows(room)
        while self._rows and len(chosen) < room:
            nbytes = self._estimate(self._rows[0])
            if self._bytes + nbytes > self._window_bytes and (chosen or under_way):
                break
            self._bytes += nbytes
            chosen.append((self._rows.popleft(), nbytes))
        return chosen

    # -- Iterating ---------------------------------------------------------------------------------------------------

    def _on_demand(self) -> Iterator[T]:
        self._asked = self._counters.begun()
        try:
            while self._fill_rows(1):
                yield from self._without_body(self._rows.popleft())
        finally:
            self._counters.pause()
            self._counters.publish()

    def _without_body(self, row: Row) -> Iterator[T]:
        sample = self._maker.make(self._client, row, None, self._ledger)
        self._counters.made(self._asked)
        yield sample
        del sample
        self._asked = self._counters.asked()

    def _ordered_samples(self) -> Iterator[T]:
        sent = self._sent
        with self._client.queue() as queue:
            head = 0  # index of the next result
            self._asked = self._counters.begun()
            try:
                while True:
                    chosen = self._next_requests(len(sent))
                    if chosen:
                        queue.get([request_of(row) for row, _ in chosen], limit=self._part_bytes)
                        sent.extend(chosen)
                    if not sent:
                        if not self._fill_rows(1):
                            return
                        if not self._active:
                            yield from self._without_body(self._rows.popleft())
                        continue
                    count = self._group(queue, head, len(sent))
                    results = ranged(WAIT_FOR_NETWORK, queue.take_many, range(head, head + count))
                    head += count
                    yield from self._deliver(zip([sent.popleft() for _ in results], results, strict=True))
            finally:
                self._counters.pause()
                self._counters.publish()

    def _samples_as_they_arrive(self) -> Iterator[T]:
        sent = self._sent_by_index
        with self._client.queue() as queue:
            self._asked = self._counters.begun()
            try:
                while True:
                    chosen = self._next_requests(len(sent))
                    if chosen:
                        indices = queue.get([request_of(row) for row, _ in chosen], limit=self._part_bytes)
                        sent.update(zip(indices, chosen, strict=True))
                    if not sent:
                        if not self._fill_rows(1):
                            return
                        if not self._active:
                            yield from self._without_body(self._rows.popleft())
                        continue
                    arrived = ranged(WAIT_FOR_NETWORK, queue.next, 1, self._group_size())
                    yield from self._deliver([(sent.pop(index), result) for index, result in arrived])
            finally:
                self._counters.pause()
                self._counters.publish()

    def _group_size(self) -> int:
        return max(1, min(_GROUP, _GROUP_BYTES // max(1, self._typical_bytes)))

    def _group(self, queue: "RequestQueue", head: int, sent: int) -> int:
        """How many results to take at once: one, unless those behind it are there already."""
        count = min(sent, self._group_size())
        return count if count > 1 and queue.ready(head + count - 1) else 1

    def _deliver(self, arrived: Iterable[tuple[tuple[Row, int], Any]]) -> Iterator[T]:
        make, client, ledger, counters = self._maker.make, self._client, self._ledger, self._counters
        for (row, counted), body in arrived:
            self._bytes -= counted
            try:
                if isinstance(body, S3Exception):
                    raise body
                self._typical_bytes += (len(body) - self._typical_bytes) // 8
                sample = make(client, row, body, ledger)
            except Exception as error:
                if self._bad is None or self._position_of is None:
                    raise
                for other in self._bad.settle(error, f"s3://{row[0]}/{row[1]}", 0, self._position_of(row)):
                    counters.made(self._asked, int(other is not SKIPPED))
                    yield other
                    self._asked = counters.asked()
                continue
            finally:
                del body
            if self._bad is not None:
                self._bad.good()
            counters.made(self._asked)
            yield sample
            del sample
            self._asked = counters.asked()
