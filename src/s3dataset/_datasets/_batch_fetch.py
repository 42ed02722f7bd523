"""Fetching whole batches for `__getitems__`, and the batches that come after them."""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from s3dataset._datasets._ahead import bytes_ahead
from s3dataset._datasets._look_ahead import DrawnBatch
from s3dataset._datasets._trace import WAIT_FOR_NETWORK, ranged
from s3dataset._datasets._work import Planner, Work
from s3dataset.errors import S3Exception

if TYPE_CHECKING:
    from s3dataset._client import Client, RequestQueue
    from s3dataset._datasets._counters import Asked, Counters

__all__ = ["BatchFetcher"]

T = TypeVar("T")

_SURPRISES: Final = 2


@dataclass(slots=True)
class _Sent(Generic[T]):
    """A batch whose requests are under way."""

    indices: list[int]
    work: Work[T]
    results: range


class BatchFetcher(Generic[T]):
    """Makes batches of samples. Belongs to one process; safe between threads, and in transforms that ask for samples.

    Requests of a batch go out together. Those of the batches named ahead follow, as many as fit into the byte budget's
    share, and wait in the engine. When what comes is not what was named, the requests are cancelled; after two such
    surprises in a row nothing is fetched ahead any more, since something reorders the batches on their way here.
    Leaving an iteration and beginning another is no surprise.

    Args:
        client: This process's client.
        plan: Tells what indices take.
        counters: Where time and bytes are counted.
    """

    def __init__(self, client: "Client", plan: Planner[T], counters: "Counters") -> None:
        self._plan = plan
        self._counters = counters
        self._client = client
        self._most_bytes = bytes_ahead(client)
        self._queue: RequestQueue | None = None
        self._sent: deque[_Sent[T]] = deque()
        self._surprises = 0
        self._iteration = 0
        self._lock = threading.Lock()

    def fetch(self, indices: Sequence[int]) -> list[T]:
        """Makes the samples of `indices`, in their order; `indices.ahead`, if there is one, is fetched ahead.

        Raises:
            S3Exception: One of the objects could not be fetched.
        """
        drawn = getattr(indices, "drawn", (0, 0))
        wanted: list[int] = DrawnBatch(indices, drawn)
        ahead: list[list[int]] = [DrawnBatch(batch, drawn) for batch in getattr(indices, "ahead", ())]
        if not self._lock.acquire(blocking=False):
            # A transform of the batch in hand asks, or a thread that it waits for: neither may wait for that batch.
            other = BatchFetcher(self._client, self._plan, self._counters)
            try:
                return other.fetch(wanted)
            finally:
                other.close()
        try:
            self._begin_iteration(getattr(indices, "iteration", 0))
            return self._fetch(wanted, ahead, self._counters.asked())
        except BaseException:
            self.close()
            raise
        finally:
            self._lock.release()
            # With nothing under way this batch may be the last for long, and the totals are to be complete.
            self._counters.publish(client=not self._sent)

    def close(self) -> None:
        """Cancels what is under way."""
        queue, self._queue = self._queue, None
        self._sent.clear()
        if queue is not None:
            queue.close()

    def _fetch(self, wanted: list[int], ahead: list[list[int]], asked: "Asked") -> list[T]:
        current = self._expected(wanted, ahead) or self._send(wanted)
        if self._surprises < _SURPRISES:
            self._send_ahead(ahead, current.work.nbytes)
        return self._make(current, asked)

    def _begin_iteration(self, iteration: int) -> None:
        """Drops what was named by an iteration that was left early."""
        if iteration != self._iteration:
            self._iteration = iteration
            self._counters.pause()
            self._drop_sent()

    def _expected(self, wanted: list[int], ahead: list[list[int]]) -> _Sent[T] | None:
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

    def _send(self, indices: list[int]) -> _Sent[T]:
        work = self._plan(indices)
        if self._queue is None:
            self._queue = self._client.queue()
        return _Sent(indices, work, self._queue.get(work.requests, limit=work.limit))

    def _send_ahead(self, ahead: list[list[int]], current_bytes: int) -> None:
        nbytes = sum(sent.work.nbytes for sent in self._sent)
        for indices in ahead[len(self._sent) :]:
            if nbytes + current_bytes > self._most_bytes:
                return  # batches resemble one another, so the current one tells what the next would take
            sent = self._send(indices)
            self._sent.append(sent)
            nbytes += sent.work.nbytes

    def _make(self, current: _Sent[T], asked: "Asked") -> list[T]:
        queue = self._queue
        if queue is None:
            raise RuntimeError("the batch's requests were given up")
        first = current.results.start

        def take(number: int) -> Any:
            # One by one: the transform of the first runs while the last is under way.
            body: Any = ranged(WAIT_FOR_NETWORK, queue.take_many, range(first + number, first + number + 1))[0]
            if isinstance(body, S3Exception):
                raise body
            return body

        samples: list[T] = []
        for sample in current.work.samples(take):
            samples.append(sample)
            asked = self._counters.made(asked)
        return samples
