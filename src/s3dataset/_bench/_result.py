"""What was measured, as values."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

__all__ = ["Latencies", "Result", "Step", "WorkerStep", "WriteStep"]


@dataclass(frozen=True, slots=True)
class Latencies:
    """Percentiles of seconds."""

    p50: float
    p90: float
    p99: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """Of measured times, at least one."""
        ordered = sorted(seconds)
        p50, p90, p99 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.9, 0.99))
        return cls(p50, p90, p99, len(ordered))


@dataclass(frozen=True, slots=True)
class Step:
    """Some time with so many requests at once.

    Attributes:
        concurrency: Requests at once.
        request_bytes: Of a request, on average.
        seconds: It took.
        requests: That were answered.
        bytes: That came.
        latencies: From sending a request to its last byte.
        cpu_seconds: That this process used.
        throttled: Answers that asked for fewer requests.
        retries: Further attempts.
    """

    concurrency: int
    request_bytes: int
    seconds: float
    requests: int
    bytes: int
    latencies: Latencies
    cpu_seconds: float
    throttled: int
    retries: int

    @property
    def bytes_per_s(self) -> float:
        return self.bytes / self.seconds

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class WorkerStep:
    """Some time with so many workers of a DataLoader."""

    workers: int
    seconds: float
    samples: int
    bytes: int
    first_batch_s: float
    cpu_seconds: float

    @property
    def samples_per_s(self) -> float:
        return self.samples / self.seconds


@dataclass(frozen=True, slots=True)
class WriteStep:
    """Objects of one size, written many at once."""

    size: int
    objects: int
    seconds: float

    @property
    def bytes_per_s(self) -> float:
        return self.size * self.objects / self.seconds


@dataclass(slots=True)
class Result:
    """All that was measured.

    Attributes:
        uri: Of the prefix.
        cores: That this process may use.
        engine_threads: That move its bytes.
        objects: Looked at.
        mean_bytes: Of one of them.
        complete: Whether these are all that there are.
        transformed: Whether the DataLoader ran a transform of the user's.
        format: Of shards, which the DataLoader streams; None where each object is a sample.
        first_byte: One request at a time for one byte: what a request costs whatever it brings.
        single: One request at a time, for what a request brings of these objects.
        curve: The same, with more and more requests at once.
        sizes: At the best concurrency, requests of several sizes.
        workers: A DataLoader with more and more workers.
        writes: Of temporary objects.
        skipped: What could not be measured, and why.
        bytes: Read in all.
        requests: Sent in all, as far as this process sent them.
        seconds: All of it took.
        advice: What it means.
        bottleneck: What limits it.
    """

    uri: str
    cores: int = 1
    engine_threads: int = 1
    objects: int = 0
    mean_bytes: int = 0
    complete: bool = True
    transformed: bool = False
    format: str | None = None
    first_byte: Latencies | None = None
    single: Step | None = None
    curve: list[Step] = field(default_factory=list)
    sizes: list[Step] = field(default_factory=list)
    workers: list[WorkerStep] = field(default_factory=list)
    writes: list[WriteStep] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    bytes: int = 0
    requests: int = 0
    seconds: float = 0.0
    advice: list[str] = field(default_factory=list)
    bottleneck: str = "unknown"

    @property
    def best(self) -> Step | None:
        """The fastest step of the curve."""
        return max(self.curve, key=lambda step: step.bytes_per_s, default=None)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it, with the rates that follow from it."""
        facts = asdict(self)
        for name in ("curve", "sizes"):
            for step, made in zip(getattr(self, name), facts[name], strict=True):
                made |= {"bytes_per_s": step.bytes_per_s, "requests_per_s": step.requests_per_s}
        for worker, made in zip(self.workers, facts["workers"], strict=True):
            made["samples_per_s"] = worker.samples_per_s
        for write, made in zip(self.writes, facts["writes"], strict=True):
            made["bytes_per_s"] = write.bytes_per_s
        return facts
