"""OpenTelemetrySink: the counters as observable instruments."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from s3dataset._stats import Stats
from s3dataset.monitoring._sources import Readings, Sources, needed

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

__all__ = ["OpenTelemetrySink"]

_SAME_COLLECTION_S: Final = 0.5
"""All instruments of a collection are asked within it, and see one reading."""

_COUNTERS: Final = {
    "samples": ("s3dataset.samples", "{sample}", "Samples handed over"),
    "bytes": ("s3dataset.io", "By", "Bytes fetched for samples"),
    "requests": ("s3dataset.requests", "{request}", "Requests sent to S3, further attempts among them"),
    "retries": ("s3dataset.retries", "{request}", "Further attempts of requests"),
    "throttles": ("s3dataset.throttles", "{response}", "Answers of S3 that asked for fewer requests"),
    "hedges": ("s3dataset.hedges", "{request}", "Requests called off for being late, and sent again"),
    "loop_wait_s": ("s3dataset.loop.wait.time", "s", "Time that loops waited for their next batch"),
}
_WAITS: Final = {"network": "network_wait_s", "transform": "transform_s", "consumer": "consumer_wait_s"}


class OpenTelemetrySink:
    """Makes observable instruments of the counters of datasets, loaders and clients, in OpenTelemetry's metrics API.

    Counters: s3dataset.samples, s3dataset.io (bytes), s3dataset.requests, s3dataset.retries, s3dataset.throttles,
    s3dataset.hedges, s3dataset.loop.wait.time (seconds), and s3dataset.wait.time (seconds) with the attribute
    s3dataset.wait.on (network, transform, consumer). Gauge: s3dataset.first_byte.time (seconds), the median over all
    requests so far. All have the attribute s3dataset.dataset, the source's name, where sources have names.

    They are read when the SDK's reader collects, in its thread; the training loop does nothing. The totals are those of
    all processes of a dataset. Keeps its sources alive, until `close`.

    Args:
        sources: A dataset, loader or client, or several by name.
        meter: Default: the global provider's, named "s3dataset".
        attributes: Added to all observations, for instance {"rank": 3}.
        clock: Seconds from any point on; for tests.

    Raises:
        ModuleNotFoundError: opentelemetry-api is not installed (extra "otel").
        TypeError: A source keeps no statistics.
    """

    def __init__(
        self,
        sources: Sources,
        meter: "Meter | None" = None,
        *,
        attributes: Mapping[str, str | bool | int | float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        api = needed("opentelemetry.metrics", type(self).__name__, "otel")
        self._observation = api.Observation
        self._readings: Readings | None = Readings(sources)
        self._attributes = dict(attributes or {})
        self._clock = clock
        self._lock = threading.Lock()
        self._read: list[tuple[str, Stats]] = []
        self._read_at: float | None = None
        if meter is None:
            meter = api.get_meter("s3dataset", _version())
        for field, (name, unit, text) in _COUNTERS.items():
            meter.create_observable_counter(name, [self._of(field)], unit=unit, description=text)
        meter.create_observable_counter(
            "s3dataset.wait.time",
            [self._waits],
            unit="s",
            description="Time of the processes that make samples, by what it went into",
        )
        meter.create_observable_gauge(
            "s3dataset.first_byte.time",
            [self._of("ttfb_s")],
            unit="s",
            description="Median time to the first byte of an answer",
        )

    def close(self) -> None:
        """Lets go of the sources: the instruments, which the API cannot remove, observe nothing from now on."""
        with self._lock:
            self._readings = None
            self._read = []

    def _now(self) -> list[tuple[str, Stats]]:
        with self._lock:
            now = self._clock()
            if self._readings is not None and (self._read_at is None or now - self._read_at > _SAME_COLLECTION_S):
                self._read, self._read_at = list(self._readings), now
            return self._read

    def _of(self, field: str) -> "Callable[[CallbackOptions], Iterable[Observation]]":
        def observe(_: "CallbackOptions") -> "Iterable[Observation]":
            return [self._observation(getattr(stats, field), self._about(name)) for name, stats in self._now()]

        return observe

    def _waits(self, _: "CallbackOptions") -> "Iterable[Observation]":
        return [
            self._observation(getattr(stats, field), {**self._about(name), "s3dataset.wait.on": on})
            for name, stats in self._now()
            for on, field in _WAITS.items()
        ]

    def _about(self, name: str) -> dict[str, Any]:
        return {**self._attributes, **({"s3dataset.dataset": name} if name else {})}


def _version() -> str:
    import s3dataset  # noqa: PLC0415 - the root imports this module

    return s3dataset.__version__
