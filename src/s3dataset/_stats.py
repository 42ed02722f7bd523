"""Stats: what reading cost, and where the time went."""

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, fields
from typing import Final, Literal, Self, TypeAlias

__all__ = ["Bottleneck", "Histogram", "Stats"]

Histogram: TypeAlias = tuple[tuple[float, int], ...]
"""(upper bound in seconds, count), ascending."""

Bottleneck: TypeAlias = Literal["none", "network", "transform", "consumer"]

_OF_DATASET: Final = ("samples", "bytes", "network_wait_s", "transform_s", "consumer_wait_s")
_OF_CLIENT: Final = ("requests", "retries", "throttles", "hedges")

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Totals of a dataset since it was made, over this process and its DataLoader workers.

    Immutable; `later - earlier` gives what happened between two of them. The three waits share out the time of the
    processes that make samples, so with several workers they grow faster than the clock does.

    Attributes:
        samples: Samples handed over.
        bytes: Bytes fetched for them ahead and by the batch; what readers fetch by themselves is not in it.
        requests: Requests sent to S3, further attempts among them. These, `retries`, `throttles`, `hedges` and `ttfb_s`
            belong to the dataset's client, which datasets with the same region, endpoint and configuration share
            within a process.
        retries: Further attempts.
        throttles: Answers that asked for fewer requests.
        hedges: Requests without an answer for long that were called off and sent again on another connection.
        network_wait_s: Seconds spent waiting for bytes.
        transform_s: Seconds spent in the transform; where it reads on demand, these reads are in it.
        consumer_wait_s: Seconds in which samples were made and nobody asked for the next.
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
        return _ADVICE[self.bottleneck]

    @classmethod
    def of_sources(cls, sources: Iterable[tuple[Hashable, Self]]) -> Self:
        """Adds up what several datasets tell.

        Args:
            sources: Of each the name of its client, and its totals. What belongs to the client is the same for all that
                share it, and counts once.
        """
        parts = list(sources)
        most: dict[Hashable, Self] = {}
        for client, part in parts:
            if client not in most or part.requests > most[client].requests:
                most[client] = part
        histogram: Counter[float] = Counter()
        for part in most.values():
            histogram.update(dict(part.ttfb_histogram))
        own = {name: sum(getattr(part, name) for _, part in parts) for name in _OF_DATASET}
        shared = {name: sum(getattr(part, name) for part in most.values()) for name in _OF_CLIENT}
        return cls(**own, **shared, ttfb_histogram=tuple(sorted(histogram.items())))

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
