"""Fetching whole batches for `__getitems__`, and the batches that come after them."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from s3dataset._datasets._ahead import bytes_ahead, request_of
from s3dataset._datasets._samples import Row, SampleMaker
from s3dataset.errors import S3Exception

if TYPE_CHECKING:
    from s3dataset._client import RequestQueue
    from s3dataset._datasets._counters import Counters

__all__ = ["BatchFetcher"]

T = TypeVar("T")

_SURPRISES: Final = 2
_UNKNOWN_BYTES: Final = 1 << 20  # of an object whose size no listing told


@dataclass(slots=True)
class _Sent:
    """A batch whose requests are under way."""

    indices: list[int]
    rows: list[Row]
    results: range
    nbytes: int


class BatchFetcher(Generic[T]):
    """Makes batches of samples. Safe between threads, which take turns; belongs to one process.

    Requests of a batch go out together. Those of the batches named ahead follow, as many as fit into the byte budget's
    share, and wait in the engine. When what comes is not what was named, the requests are cancelled; after two such
    surprises in a row nothing is fetched ahead any more, since something reorders the batches on their way here.
    Leaving an iteration and beginning another is no surprise.

    Args:
        maker: Makes the samples.
        rows: Gives the rows of indices.
        counters: Where time and bytes are counted.
    """

    def __init__(self, maker: SampleMaker[T], rows: Callable[[Sequence[int]], list[Row]], counters: "Counters") -> None:
        self._maker = maker
        self._rows = rows
        self._counters = counters
        self._client = maker.client
        self._part_bytes = self._client.part_size
        self._most_bytes = bytes_ahead(self._client)
        self._queue: RequestQueue | None = None
        self._sent: deque[_Sent] = deque()
        self._surprises = 0
        self._iteration = 0
        self._lock = threading.Lock()
        self._idle_since: float | None = None

    def fetch(self, indices: Sequence[int]) -> list[T]:
        """Makes the samples of `indices`, in their order; `indices.ahead`, if there is one, is fetched ahead.

        Raises:
            S3Exception: One of the objects could not be fetched.
        """
        wanted = list(indices)
        ahead = [list(batch) for batch in getattr(indices, "ahead", ())]
        if not self._maker.reads_ahead:
            return self._on_demand(wanted)
        with self._lock:
            started = time.perf_counter()
            if self._idle_since is not None:
                self._counters.count(0, 0, 0.0, 0.0, started - self._idle_since)
            try:
                self._begin_iteration(getattr(indices, "iteration", 0))
                return self._fetch(wanted, ahead)
            except BaseException:
                self.close()
                raise
            finally:
                self._idle_since = time.perf_counter()
                # With nothing under way this batch may be the last for long, and the totals are to be complete.
                self._counters.publish(client=not self._sent)

    def close(self) -> None:
        """Cancels what is under way."""
        queue, self._queue = self._queue, None
        self._sent.clear()
        self._idle_since = None
        if queue is not None:
            queue.close()

    def _on_demand(self, wanted: list[int]) -> list[T]:
        started = time.perf_counter()
        samples = [self._maker.make(self._client, row) for row in self._rows(wanted)]
        self._counters.count(len(samples), 0, 0.0, time.perf_counter() - started)
        self._counters.publish()
        return samples

    def _fetch(self, wanted: list[int], ahead: list[list[int]]) -> list[T]:
        current = self._expected(wanted, ahead) or self._send(wanted)
        if self._surprises < _SURPRISES:
            self._send_ahead(ahead, current.nbytes)
        return self._make(current)

    def _begin_iteration(self, iteration: int) -> None:
        """Drops what was named by an iteration that was left early."""
        if iteration != self._iteration:
            self._iteration = iteration
            self._drop_sent()

    def _expected(self, wanted: list[int], ahead: list[list[int]]) -> _Sent | None:
        """The batch wanted, if it was sent for; whatever else was sent for and is not named any more is cancelled."""
        if not self._sent:
            return None
        if self._sent[0].indices == wanted:
            self._surprises = 0
            current = self._sent.popleft()
        else:
            self._surprises += 1
            current = None
        if current is None or [sent.indices for sent in self._sent] != ahead[: len(self._sent)]:
            self._drop_sent()
        return current

    def _drop_sent(self) -> None:
        """Cancels what is under way and takes what came of it, which counts in the byte budget until then."""
        if self._queue is not None:
            for sent in self._sent:
                self._queue.cancel(sent.results)
            for sent in self._sent:
                self._queue.take_many(sent.results)
        self._sent.clear()

    def _send(self, indices: list[int]) -> _Sent:
        rows = self._rows(indices)
        if self._queue is None:
            self._queue = self._client.queue()
        results = self._queue.get([request_of(row) for row in rows], limit=self._part_bytes)
        nbytes = sum(min(_UNKNOWN_BYTES if row[2] is None else row[2], self._part_bytes) for row in rows)
        return _Sent(indices, rows, results, nbytes)

    def _send_ahead(self, ahead: list[list[int]], current_bytes: int) -> None:
        nbytes = sum(sent.nbytes for sent in self._sent)
        for indices in ahead[len(self._sent) :]:
            if nbytes + current_bytes > self._most_bytes:
                return  # batches resemble one another, so the current one tells what the next would take
            sent = self._send(indices)
            self._sent.append(sent)
            nbytes += sent.nbytes

    def _make(self, current: _Sent) -> list[T]:
        queue = self._queue
        if queue is None:
            raise RuntimeError("the batch's requests were given up")
        samples: list[T] = []
        make, client, counters = self._maker.make, self._client, self._counters
        clock = time.perf_counter
        for row, index in zip(current.rows, current.results, strict=True):
            started = clock()
            # One by one: the transform of the first runs while the last is under way.
            body: Any = queue.take_many(range(index, index + 1))[0]
            if isinstance(body, S3Exception):
                raise body
            taken = clock()
            samples.append(make(client, row, body))
            counters.count(1, len(body), taken - started, clock() - taken)
            del body
        return samples
