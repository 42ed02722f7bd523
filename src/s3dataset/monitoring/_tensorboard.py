"""TensorBoardSink: rates and shares as curves."""

import os
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self

from s3dataset._stats import Stats
from s3dataset.monitoring._sources import Readings, Sources, needed

__all__ = ["ScalarWriter", "TensorBoardSink"]


class ScalarWriter(Protocol):
    """Torch's `SummaryWriter`, or whatever takes scalars as it does."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> object:
        """Takes a point of a curve."""


class TensorBoardSink:
    """Writes what reading did between two points in time: samples, megabytes and requests a second, shares of waits.

    Call it once a step. It looks at a clock, and every `every_s` seconds writes the curves below `prefix`:

    ======================== ==========================================================================
    samples_per_s            samples
    megabytes_per_s          10**6 bytes fetched
    requests_per_s           requests; also retries_per_s, throttles_per_s
    first_byte_ms            median time to the first byte of an answer
    loop_wait_share          of the time, how much the loop waited for its next batch (0 to 1)
    network_share,           of the time of the processes that make samples, how much went into waiting for
    transform_share,         S3, into transforms, and into waiting for somebody to ask for the next (the
    consumer_share           three are 1 together)
    ======================== ==========================================================================

    `close`, or the end of a `with` block, writes the time since the last point too. Belongs to one thread. Between two
    points a call takes a microsecond or two; one that writes reads the dataset's shared page once.

    Example:
        >>> with TensorBoardSink("runs/7", loader) as sink:
        ...     for step, batch in enumerate(loader):
        ...         train(batch)
        ...         sink(step)

    Args:
        writer: Torch's `SummaryWriter`, anything with its `add_scalar`, or a folder for a writer of its own, which puts
            each point onto the disk within `every_s`.
        sources: A dataset, loader or client, or several by name; the name then comes behind the prefix.
        every_s: Seconds between two points.
        prefix: Of the curves' names.
        clock: Seconds from any point on; for tests.

    Raises:
        ModuleNotFoundError: A folder was given, and tensorboard is not installed (extra "tensorboard").
        TypeError: A source keeps no statistics.
        ValueError: `every_s` is not positive.
    """

    def __init__(
        self,
        writer: "ScalarWriter | str | os.PathLike[str]",
        sources: Sources,
        *,
        every_s: float = 10.0,
        prefix: str = "s3dataset",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not every_s > 0:
            raise ValueError(f"every_s must be positive, got {every_s}")
        self._readings = Readings(sources)
        if isinstance(writer, (str, os.PathLike)):
            needed("tensorboard", type(self).__name__, "tensorboard")
            made = needed("torch.utils.tensorboard", type(self).__name__, "tensorboard")
            self._writer: ScalarWriter = made.SummaryWriter(os.fspath(writer), flush_secs=max(1, round(every_s)))
        else:
            self._writer = writer
        self._is_own = self._writer is not writer
        self._prefix = prefix
        self._every_s = every_s
        self._clock = clock
        self._seen = dict(self._readings)
        self._seen_at = clock()
        self._step: int | None = None  # the last one that no point tells of

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, step: int) -> None:
        """Writes a point of each curve, if it is time."""
        self._step = step
        if self._clock() - self._seen_at >= self._every_s:
            self.write(step)

    def write(self, step: int) -> None:
        """Writes a point of each curve now, over the time since the one before."""
        now, fresh = self._clock(), dict(self._readings)
        elapsed_s = now - self._seen_at
        if elapsed_s <= 0:
            return
        before, self._seen, self._seen_at, self._step = self._seen, fresh, now, None
        for name, stats in fresh.items():
            place = f"{self._prefix}/{name}" if name else self._prefix
            for curve, value in _points(stats - before[name], elapsed_s):
                self._writer.add_scalar(f"{place}/{curve}", value, step)

    def close(self) -> None:
        """Writes a last point, if there were steps since the one before, and has the writer put all onto the disk.

        A writer that the sink made is closed; one that was given is the caller's to close.
        """
        if self._step is not None:
            self.write(self._step)
        end = getattr(self._writer, "close" if self._is_own else "flush", None)
        if end is not None:
            end()


def _points(between: Stats, elapsed_s: float) -> Iterator[tuple[str, float]]:
    yield "samples_per_s", between.samples / elapsed_s
    yield "megabytes_per_s", between.bytes / 1e6 / elapsed_s
    yield "requests_per_s", between.requests / elapsed_s
    yield "retries_per_s", between.retries / elapsed_s
    yield "throttles_per_s", between.throttles / elapsed_s
    if any(count for _, count in between.ttfb_histogram):
        yield "first_byte_ms", between.ttfb_s * 1e3
    yield "loop_wait_share", min(1.0, between.loop_wait_s / elapsed_s)
    waits = {
        "network": between.network_wait_s,
        "transform": between.transform_s,
        "consumer": between.consumer_wait_s,
    }
    total = sum(waits.values())
    if total > 0:
        for name, wait_s in waits.items():
            yield f"{name}_share", wait_s / total
