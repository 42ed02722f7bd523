"""Stats: what reading cost, and where the time went."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, Self, TypeAlias

__all__ = ["Bottleneck", "Histogram", "Stats", "advice_on", "together"]

Histogram: TypeAlias = tuple[tuple[float, int], ...]
"""(upper bound in seconds, count), ascending."""

Bottleneck: TypeAlias = Literal["none", "network", "transform", "consumer"]

_OF_CLIENT: Final = frozenset({"hedges", "requests", "retries", "throttles"})

_ADVICE: Final = {
    "none": "Nothing was read yet.",
    "network": (
        "Samples wait for S3. More requests at once help: s3dataset.DataLoader looks ahead where torch's own loader "
        "does not; "
        "more workers; S3ClientConfig(max_connections=). Is the machine in the bucket's region?"
    ),
    "transform": "Samples wait for their transform, which uses the CPU: more workers, or less work in it (decode "
    "smaller images).",
    "consumer": "The data is there before it is asked for: the training step is what takes the time.",
}


def advice_on(bottleneck: Bottleneck) -> str:
    """One sentence on what would make reading faster."""
    return _ADVICE[bottleneck]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Totals of a dataset since it was made, over this process and its DataLoader workers.

    Immutable; `later - earlier` gives what happened between two of them. The three waits share out the time of the
    processes that make samples, so with several workers they grow faster than the clock does.

    Attributes:
        samples: Samples handed over.
        bytes: Bytes fetched for them: ahead, by the batch, and by what transforms read on demand. What is read of a
            reader after it was handed over is not in it.
        requests: Requests sent to S3, further attempts among them. These, `retries`, `throttles`, `hedges` and `ttfb_s`
            belong to the dataset's client, which datasets with the same region, endpoint and configuration share
            within a process.
        retries: Further attempts.
        throttles: Answers that asked for fewer requests.
        hedges: Requests without an answer for long that were called off and sent again on another connection.
        network_wait_s: Seconds spent waiting for bytes, also where a transform reads on demand.
        transform_s: Seconds otherwise spent on making samples: in the transform, and in taking shards apart.
        consumer_wait_s: Seconds in which samples were made and nobody asked for the next, within an iteration. Of
            several datasets that a thread reads in turn, the one that is asked next counts them.
        loop_wait_s: Seconds that loops over an `s3dataset.DataLoader` waited for their next batch, the first of an
            epoch included. By the clock, whatever the number of workers.
        ttfb_histogram: Times to the first byte: (seconds at most, how many answers), ascending.
        ttfb_s: Time to the first byte of an answer, seconds: the median, as exact as the histogram's buckets; 0.0
            without requests.
    """

    samples: int = 0
    bytes: int = 0
    requests: int = 0
    retries: int = 0
    throttles: int = 0
    hedges: int = 0
    network_wait_s: float = 0.0
    transform_s: float = 0.0
    consumer_wait_s: float = 0.0
    loop_wait_s: float = 0.0
    ttfb_histogram: Histogram = ()

    @property
    def ttfb_s(self) -> float:
        """Median time to the first byte, seconds."""
        total = sum(count for _, count in self.ttfb_histogram)
        seen = 0
        for bound, count in self.ttfb_histogram:
            seen += count
            if total and 2 * seen >= total:
                return bound
        return 0.0

    @property
    def bottleneck(self) -> Bottleneck:
        """What samples waited for most: "network", "transform" or "consumer"; "none" before the first sample."""
        if not self.samples:
            return "none"
        waits: dict[Bottleneck, float] = {
            "network": self.network_wait_s,
            "transform": self.transform_s,
            "consumer": self.consumer_wait_s,
        }
        return max(waits, key=lambda name: waits[name])

    @property
    def advice(self) -> str:
        """One sentence on what would make reading faster."""
        return advice_on(self.bottleneck)

    def __sub__(self, earlier: Self) -> Self:
        counts = dict(earlier.ttfb_histogram)
        between = {
            field.name: getattr(self, field.name) - getattr(earlier, field.name)
            for field in fields(self)
            if field.name != "ttfb_histogram"
        }
        histogram = tuple((bound, count - counts.get(bound, 0)) for bound, count in self.ttfb_histogram)
        return type(self)(**between, ttfb_histogram=histogram)

    def __str__(self) -> str:
        return (
            f"{self.samples:,} samples, {self.bytes / 1e6:,.1f} MB, {self.requests:,} requests "
            f"({self.retries:,} retries, {self.throttles:,} throttled), first byte after {self.ttfb_s * 1e3:.0f} ms; "
            f"waited {self.network_wait_s:.2f} s for S3, {self.transform_s:.2f} s for transforms, "
            f"{self.consumer_wait_s:.2f} s for the consumer: {self.bottleneck}"
        )


def together(parts: Sequence[tuple[Hashable, Stats]]) -> Stats:
    """The totals of several datasets.

    Args:
        parts: Each with the name of its client: what belongs to a client counts once.
    """
    if len(parts) == 1:
        return parts[0][1]
    largest: dict[Hashable, Stats] = {}
    for client, stats in parts:
        if client not in largest or stats.requests > largest[client].requests:
            largest[client] = stats
    of_all = [stats for _, stats in parts]
    totals: dict[str, Any] = {}
    for field in fields(Stats):
        if field.name != "ttfb_histogram":
            counted = largest.values() if field.name in _OF_CLIENT else of_all
            totals[field.name] = sum(getattr(stats, field.name) for stats in counted)
    histogram: Counter[float] = Counter()
    for stats in largest.values():
        histogram.update(dict(stats.ttfb_histogram))
    return Stats(**totals, ttfb_histogram=tuple(sorted(histogram.items())))
