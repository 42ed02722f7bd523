"""How long a training loop waits for its batches; a warning, once, when that is much of its time."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from s3dataset._datasets._trace import MAKE_BATCH, WAIT_FOR_WORKERS, ranged
from s3dataset._limits import cores, local_ranks, process_limits
from s3dataset._stats import Bottleneck, Stats, advice_on
from s3dataset._warnings import warn_caller
from s3dataset.errors import DataWaitWarning

__all__ = ["LoopWatch", "Settings", "Watched", "warns_by_default"]

_SHARE: Final = 0.2
_WINDOW_S: Final = 10.0
_WINDOW_BATCHES: Final = 4
_THROTTLED: Final = 0.01  # share of requests
_LEFT_OUT: Final = 2  # batches a worker, at the beginning of an epoch
_LEAST_AHEAD_BATCHES: Final = 4
_LEAST_AHEAD_SAMPLES: Final = 128
_VARIABLE: Final = "S3DATASET_WARN_WAITS"

clock = time.perf_counter


def warns_by_default() -> bool:
    """What the environment says of the warning."""
    return os.environ.get(_VARIABLE, "1").strip().lower() not in {"0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What of a loader could be changed to make it faster.

    Attributes:
        num_workers: Processes that make samples; 0: the loop's own.
        ahead: Batches that each of them fetches ahead; None: as many as the default says.
        batch_size: Samples in one; None: not known.
        looks_ahead: Whether `ahead` counts: batches of a map dataset.
        has_index: Whether what is read is objects, or samples whose places are known.
        on_demand: Whether samples fetch by themselves what is read of them.
        not_ahead: What to change so that samples are fetched ahead; "": they are.
        staged: Whether stages stand behind the transform.
        max_connections: As configured; None: the default.
        memory_limit_bytes: As configured; None: the default.
    """

    num_workers: int
    ahead: int | None = None
    batch_size: int | None = None
    looks_ahead: bool = False
    has_index: bool = True
    on_demand: bool = False
    not_ahead: str = ""
    staged: bool = False
    max_connections: int | None = None
    memory_limit_bytes: int | None = None

    def remedy(self, bottleneck: Bottleneck, *, throttled: bool = False, request_bytes: float = 0.0) -> str:
        """The one setting to change first.

        Args:
            bottleneck: What made the loop wait.
            throttled: Whether the service asked for fewer requests.
            request_bytes: What a request fetched, on average.
        """
        if throttled:
            return "larger objects (s3dataset pack makes shards of small ones), as S3 asked for fewer requests"
        if bottleneck == "consumer" and not self.staged:
            return "a cheaper collate_fn=, or smaller samples: the time goes into making and handing over batches"
        if bottleneck == "network" and self.not_ahead:
            return self.not_ahead
        if bottleneck == "network" and self.has_index and not self.on_demand:
            return self._more_requests(request_bytes)
        most = max(1, cores() // local_ranks())
        if self.num_workers < most or bottleneck == "network":
            more = max(2, 2 * self.num_workers)  # one makes samples no faster than the loop's own process
            return f"num_workers={more if bottleneck == 'network' else min(most, more)} (now {self.num_workers})"
        what = "the stages' functions, or collate_fn=" if bottleneck == "consumer" else "transform="
        return f"{what}: there is a worker for each of {most} CPU cores, so each sample has to take less of them"

    def _more_requests(self, request_bytes: float) -> str:
        limits = process_limits(share=max(1, self.num_workers))
        wanted = connections = self.max_connections or limits.max_connections
        memory = self.memory_limit_bytes or limits.memory_limit_bytes
        size, ahead = self.batch_size or 1, self.ahead
        if ahead is None:
            ahead = max(_LEAST_AHEAD_BATCHES, -(-_LEAST_AHEAD_SAMPLES // size))
        if self.looks_ahead:
            wanted = min(connections, ahead * size)
        if wanted * request_bytes > memory // 2:
            return (
                f"S3ClientConfig(memory_limit_bytes={2 * memory}) (now {memory}, in each process that reads): half of "
                "it is for what is fetched ahead, and that does not keep all connections busy"
            )
        if wanted < connections:
            more = max(_LEAST_AHEAD_BATCHES, 2 * ahead, -(-connections // size))
            return f"ahead={more} (now {ahead}): the batches that are fetched ahead do not use all connections"
        return f"S3ClientConfig(max_connections={2 * connections}) (now {connections}, in each process that reads)"


class LoopWatch:
    """Times a loop over a loader, over all of its epochs. Belongs to the thread of the loop.

    Looks at windows of at least ten seconds in which the loop was fed: the first batches of an epoch, what lies between
    epochs and the longest single wait of a window are left out, since starting workers, validation or one late answer
    say nothing of the rest.

    Args:
        stats: What the dataset counted until now, over all of its processes.
        settings: Of the loader, asked for when they are to be told.
        num_workers: Of the loader.
        warn: Whether to warn; None: as the environment says.
    """

    def __init__(
        self,
        stats: Callable[[], Stats],
        settings: Callable[[], Settings],
        num_workers: int,
        *,
        warn: bool | None,
    ) -> None:
        self._count: Callable[[float], None] | None = None
        self._stats = stats
        self._settings = settings
        self._num_workers = num_workers
        self._warn = warns_by_default() if warn is None else warn
        self._left_out = 0
        self._asked = 0.0
        self._came: float | None = None
        self._window: Stats | None = None
        self._waited_s = self._worked_s = self._longest_s = 0.0
        self._batches = 0

    def begin(self, count: Callable[[float], None]) -> None:
        """An epoch begins, whose waits `count` takes, in seconds."""
        self._count = count
        self._left_out = _LEFT_OUT * max(1, self._num_workers)
        self._came = None

    def asks(self) -> None:
        """The loop asks for a batch: what it did with the one before is done. May warn, before that batch is taken."""
        self._asked = now = clock()
        if self._came is not None:
            self._worked_s += now - self._came
            self._came = None
            if self._worked_s + self._waited_s >= _WINDOW_S and self._batches >= _WINDOW_BATCHES:
                self._judge()

    def comes(self) -> None:
        """The batch is there."""
        now = clock()
        waited_s = now - self._asked
        if self._count is not None:
            self._count(waited_s)
        if not self._warn:
            return
        if self._left_out:
            self._left_out -= 1
            return
        if self._window is None:
            self._window = self._stats()
        self._came = now
        self._waited_s += waited_s
        self._longest_s = max(self._longest_s, waited_s)
        self._batches += 1

    def _judge(self) -> None:
        now, before = self._stats(), self._window or Stats()
        elapsed_s, waited_s, longest_s = self._waited_s + self._worked_s, self._waited_s, self._longest_s
        self._window = now
        self._waited_s = self._worked_s = self._longest_s = 0.0
        self._batches = 0
        if waited_s - longest_s <= _SHARE * elapsed_s:
            return
        self._warn = False
        text = told(now - before, waited_s, elapsed_s, self._settings())
        warn_caller(text, DataWaitWarning)


def told(window: Stats, waited_s: float, elapsed_s: float, settings: Settings) -> str:
    """The warning's words."""
    bottleneck = bottleneck_of(window, waited_s, settings.num_workers)
    where = "in the loop's own process" if settings.num_workers == 0 else f"over {settings.num_workers} worker(s)"
    throttled = bottleneck == "network" and window.throttles > _THROTTLED * window.requests
    remedy = settings.remedy(bottleneck, throttled=throttled, request_bytes=window.bytes / max(1, window.requests))
    in_general = "" if bottleneck == "consumer" or throttled else f" In general: {advice_on(bottleneck)}"
    return (
        f"the training loop waited for data {waited_s / elapsed_s:.0%} of {elapsed_s:.0f} s. The bottleneck is "
        f"{_NAMES[bottleneck]}: {window.network_wait_s:.1f} s were spent waiting for S3, {window.transform_s:.1f} s in "
        f"transforms, {where}. Change first: {remedy}.{in_general} (Said once; DataLoader(warn_waits=False) or "
        f"{_VARIABLE}=0 turns it off.)"
    )


def bottleneck_of(window: Stats, waited_s: float, num_workers: int) -> Bottleneck:
    """What made a loop wait.

    Workers that mostly wait for their consumer make samples in time. In the loop's own process that wait is the
    training; there it counts what of the loop's wait neither the network nor a transform explains.
    """
    made_s = window.network_wait_s + window.transform_s
    if (window.consumer_wait_s > made_s) if num_workers else (waited_s > 2 * made_s):
        return "consumer"
    bottleneck = replace(window, consumer_wait_s=0.0).bottleneck
    return "network" if bottleneck == "none" else bottleneck


_NAMES: Final = {
    "network": "the network",
    "transform": "the transform",
    "consumer": "what comes behind the transform",
}


class Watched:
    """A loader's iterator whose waits are timed. Otherwise it has that iterator's attributes.

    Args:
        batches: The iterator.
        watch: Times them.
        num_workers: Of the loader.
    """

    def __init__(self, batches: Iterator[Any], watch: LoopWatch, num_workers: int) -> None:
        self._batches = batches
        self._watch = watch
        self._range = WAIT_FOR_WORKERS if num_workers else MAKE_BATCH

    def __iter__(self) -> "Watched":
        return self

    def __next__(self) -> Any:
        self._watch.asks()
        batch = ranged(self._range, next, self._batches)
        self._watch.comes()
        return batch

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_batches" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._batches, name)
