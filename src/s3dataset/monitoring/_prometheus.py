"""PrometheusCollector: the counters, for a scrape."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from s3dataset._stats import Histogram
from s3dataset.monitoring._sources import Readings, Sources, needed

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.registry import Collector
else:
    Collector = object

__all__ = ["PrometheusCollector"]

_COUNTERS: Final = {
    "samples": "Samples handed over",
    "bytes": "Bytes fetched for samples",
    "requests": "Requests sent to S3, further attempts among them",
    "retries": "Further attempts of requests",
    "throttles": "Answers of S3 that asked for fewer requests",
    "hedges": "Requests called off for being late, and sent again",
}
_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class PrometheusCollector(Collector):
    """Gives the counters of datasets, loaders and clients to `prometheus_client`, whenever they are scraped.

    Counters: s3dataset_samples_total, s3dataset_bytes_total, s3dataset_requests_total, s3dataset_retries_total,
    s3dataset_throttles_total, s3dataset_hedges_total; s3dataset_wait_seconds_total with the label `on` (network,
    transform, consumer) shares out the time of the processes that make samples; s3dataset_loop_wait_seconds_total is
    what loops over an `s3dataset.DataLoader` waited. Histogram: s3dataset_first_byte_seconds, without sum and count.
    All have the label `dataset`: the source's name, "" for a single one.

    The totals are those of all processes of a dataset: the main process alone is scraped, and prometheus_client's
    multiprocess mode is not needed for workers. Safe between threads; keeps its sources alive while it is registered.

    Example:
        >>> prometheus_client.REGISTRY.register(PrometheusCollector({"train": loader}))
        >>> prometheus_client.start_http_server(9000)

    Args:
        sources: A dataset, loader or client, or several by name.

    Raises:
        ModuleNotFoundError: prometheus_client is not installed (extra "prometheus").
        TypeError: A source keeps no statistics.
    """

    def __init__(self, sources: Sources) -> None:
        self._core = needed("prometheus_client.core", type(self).__name__, "prometheus")
        self._readings = Readings(sources)

    def describe(self) -> "Iterable[Metric]":
        """The metrics without values, by which a registry finds names that are taken."""
        return self._families(())

    def collect(self) -> "Iterable[Metric]":
        """The metrics as they are now."""
        return self._families(list(self._readings))

    def _families(self, read: Sequence[tuple[str, Any]]) -> "list[Metric]":
        core = self._core
        families = []
        for field, text in _COUNTERS.items():
            family = core.CounterMetricFamily(f"s3dataset_{field}", text, labels=["dataset"])
            for name, stats in read:
                family.add_metric([name], getattr(stats, field))
            families.append(family)
        waits = core.CounterMetricFamily(
            "s3dataset_wait_seconds",
            "Time of the processes that make samples, by what it went into",
            labels=["dataset", "on"],
        )
        loops = core.CounterMetricFamily(
            "s3dataset_loop_wait_seconds", "Time that loops waited for their next batch", labels=["dataset"]
        )
        first_byte = core.HistogramMetricFamily(
            "s3dataset_first_byte_seconds", "Time to the first byte of an answer", labels=["dataset"]
        )
        for name, stats in read:
            waits.add_metric([name, "network"], stats.network_wait_s)
            waits.add_metric([name, "transform"], stats.transform_s)
            waits.add_metric([name, "consumer"], stats.consumer_wait_s)
            loops.add_metric([name], stats.loop_wait_s)
            first_byte.add_metric([name], _buckets(stats.ttfb_histogram), None)
        return [*families, waits, loops, first_byte]


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative, and always the same ones: those of the engine are there only when something is in them."""
    buckets: list[tuple[str, float]] = [
        (str(bound), sum(count for upper, count in histogram if upper <= bound)) for bound in _BOUNDS_S
    ]
    return [*buckets, ("+Inf", sum(count for _, count in histogram))]
