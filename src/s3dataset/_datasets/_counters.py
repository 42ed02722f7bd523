"""Counting what a dataset does, in this process and, through the page, in all that share it."""

import multiprocessing
import multiprocessing.util
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from s3dataset._client import received_by_thread
from s3dataset._stats import Stats

if TYPE_CHECKING:
    from s3dataset._page import Page

__all__ = ["Asked", "Counters"]

Asked: TypeAlias = tuple[float, float, int]
"""When a sample was asked for, how long this thread had waited for S3 by then, and the bytes that it had received: each
less what counters had taken by then."""

_PUBLISH_EVERY_S: Final = 0.05
_CLIENT_EVERY_S: Final = 0.25  # the client's histograms cost more to read
_TTFB: Final = "ttfb_us<="


class _Thread(threading.local):
    """What the counters of all datasets know of this thread.

    Attributes:
        handed_over: When it handed over a sample, of whatever dataset, if nobody asked it for another since.
        counted: Its seconds, those that it waited for S3, and the bytes, that counters have taken. What a transform
            takes of a dataset, its own or another, is counted there, and not once more around it.
    """

    handed_over: float | None = None
    counted: tuple[float, float, int] = 0.0, 0.0, 0


_thread: Final = _Thread()


class Counters:
    """Adds up in this process, and publishes to the page from time to time: a lock and some additions there.

    Belongs to one process; a worker makes its own, so that nothing the parent counted is published twice. Safe between
    threads: who exports metrics asks from a thread of its own.

    The time of a thread that makes samples is shared out without a rest: from `asked` to `made` it goes to the network,
    as far as the thread waited for answers, and else to the transform; from `made` to the next `asked`, of whichever
    dataset the thread serves, to the consumer.

    Args:
        client_stats: Gives the client's totals in this process.
    """

    __slots__ = (
        "__weakref__",
        "_bytes",
        "_client_published_at",
        "_client_seen",
        "_client_stats",
        "_consumer_wait_s",
        "_lock",
        "_loop_wait_s",
        "_network_wait_s",
        "_page",
        "_process",
        "_published_at",
        "_samples",
        "_transform_s",
    )

    def __init__(self, page: Callable[[], "Page"], client_stats: Callable[[], Mapping[str, Any]]) -> None:
        self._page = page
        self._client_stats = client_stats
        self._process = os.getpid()
        self._client_seen = _client_counts(client_stats())
        self._published_at = self._client_published_at = time.perf_counter()
        self._samples = self._bytes = 0
        self._network_wait_s = self._transform_s = self._consumer_wait_s = self._loop_wait_s = 0.0
        self._lock = threading.RLock()  # the garbage collector may end an iterator, which publishes, in here
        if multiprocessing.parent_process() is not None:
            # atexit does not run in multiprocessing's children.
            multiprocessing.util.Finalize(None, _publish_last, args=(weakref.ref(self),), exitpriority=10)

    def begun(self) -> Asked:
        """An iteration begins with this thread's being asked: what it did before is nobody's waiting for it."""
        self.pause()
        return self.asked()

    def asked(self) -> Asked:
        """A sample is wanted from this thread; the result goes to `made`."""
        now = time.perf_counter()
        counted_s, counted_wait_s, counted_bytes = _thread.counted
        since, _thread.handed_over = _thread.handed_over, None
        if since is not None:
            with self._lock:
                self._consumer_wait_s += now - since
            counted_s += now - since
            _thread.counted = counted_s, counted_wait_s, counted_bytes
        waited_s, nbytes = received_by_thread()
        return now - counted_s, waited_s - counted_wait_s, nbytes - counted_bytes

    def made(self, asked: Asked, samples: int = 1) -> Asked:
        """This thread made samples since it was asked, and hands them over. Publishes the totals if it is time.

        Returns:
            What `asked` would, for the next one of the same batch.
        """
        (began, waited_before, bytes_before), (waited_s, nbytes) = asked, received_by_thread()
        now = _thread.handed_over = time.perf_counter()
        counted_s, counted_wait_s, counted_bytes = _thread.counted
        _thread.counted = now - began, waited_s - waited_before, nbytes - bytes_before
        network_s = waited_s - counted_wait_s - waited_before
        with self._lock:
            self._samples += samples
            self._bytes += nbytes - counted_bytes - bytes_before
            self._network_wait_s += network_s
            self._transform_s += max(0.0, now - counted_s - began - network_s)
        if now - self._published_at > _PUBLISH_EVERY_S:
            self.publish(client=False)
        return asked

    def pause(self) -> None:
        """Nobody waits for this thread's next sample: an iteration ended, or another begins."""
        _thread.handed_over = None

    def count_loop(self, wait_s: float) -> None:
        """Adds what a loop waited for a batch; published with what is counted next, or when somebody asks."""
        with self._lock:
            self._loop_wait_s += wait_s

    def publish(self, *, client: bool = True) -> None:
        """Moves what was counted to the page.

        Args:
            client: Include the client's counts, however short the time since they were read last.
        """
        if self._process != os.getpid():
            return  # a forked child collects an iterator that it inherited: its parent publishes that
        with self._lock:
            # Taken and set to zero first: in any call below a collected iterator may publish.
            samples, self._samples = self._samples, 0
            nbytes, self._bytes = self._bytes, 0
            network_s, self._network_wait_s = self._network_wait_s, 0.0
            transform_s, self._transform_s = self._transform_s, 0.0
            consumer_s, self._consumer_wait_s = self._consumer_wait_s, 0.0
            loop_s, self._loop_wait_s = self._loop_wait_s, 0.0
            now = self._published_at = time.perf_counter()
            deltas = {
                "samples": samples,
                "bytes": nbytes,
                "network_wait_ns": round(network_s * 1e9),
                "transform_ns": round(transform_s * 1e9),
                "consumer_wait_ns": round(consumer_s * 1e9),
                "loop_wait_ns": round(loop_s * 1e9),
            }
            if client or now - self._client_published_at > _CLIENT_EVERY_S:
                self._client_published_at = now
                counts = _client_counts(self._client_stats())
                seen, self._client_seen = self._client_seen, counts
                for name, count in counts.items():
                    deltas[name] = count - seen.get(name, 0)
        deltas = {name: delta for name, delta in deltas.items() if delta}
        if deltas:
            self._page().add_many(deltas)

    def totals(self) -> Stats:
        """The totals of all processes, this one's brought up to date before."""
        self.publish()
        values = self._page().items()
        histogram = sorted(
            (int(name.removeprefix(_TTFB)) / 1e6, count) for name, count in values.items() if name.startswith(_TTFB)
        )
        return Stats(
            samples=values.get("samples", 0),
            bytes=values.get("bytes", 0),
            requests=values.get("requests", 0),
            retries=values.get("retries", 0),
            throttles=values.get("throttles", 0),
            hedges=values.get("hedges", 0),
            network_wait_s=values.get("network_wait_ns", 0) / 1e9,
            transform_s=values.get("transform_ns", 0) / 1e9,
            consumer_wait_s=values.get("consumer_wait_ns", 0) / 1e9,
            loop_wait_s=values.get("loop_wait_ns", 0) / 1e9,
            ttfb_histogram=tuple(histogram),
        )


def _publish_last(counters: "weakref.ref[Counters]") -> None:
    alive = counters()
    if alive is not None:
        alive.publish()


def _client_counts(stats: Mapping[str, Any]) -> dict[str, int]:
    """What of a client's statistics goes into a dataset's, by the page's names."""
    counts = {name: int(stats.get(name, 0)) for name in ("requests", "retries", "throttles", "hedges")}
    for bound_s, count in stats.get("ttfb_s", ()):
        if count:
            name = f"{_TTFB}{round(min(bound_s, 86_400.0) * 1e6)}"
            counts[name] = counts.get(name, 0) + int(count)
    return counts
