"""Many processes that read or write one prefix whose service allows only so many requests a second.

Every process has a client of its own and always twice as many requests submitted as it has connections. The service is
one local S3, which answers 503 SlowDown to whatever exceeds its limit for the prefix.
"""

import multiprocessing
import time
from collections.abc import Iterator
from ctypes import c_double, c_uint32
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

from s3dataset import S3Client, S3ClientConfig
from s3dataset.errors import S3Exception
from s3dataset.testing import Fault, LocalS3

BUCKET = "bucket"
BIN_S = 0.1
KEYS = 100_000
OBJECT_BYTES = 4096
PAGE_S = 1.0  # what a recovery is judged by


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One run. `limit`: requests a second of the prefix, 0 for none."""

    kind: Literal["GET", "PUT"] = "GET"
    processes: int = 64
    connections: int = 16
    limit: float = 1100.0
    latency_s: float = 0.025
    warm_up_s: float = 5.0
    before_s: float = 20.0
    slow_down_s: float = 0.0
    """Then every request is refused for so long."""
    after_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was seen from the end of the warm-up on; `before` and `after` are parts of it around the SlowDown phase."""

    setting: Setting
    done: list[int]
    """Requests done by each process, until the SlowDown phase begins."""
    rate: float
    """Requests done a second, likewise."""
    rate_after: float
    sent: int
    """Requests that reached the service, likewise."""
    refused: int
    refused_in_phase: int
    retries: int
    """Of all processes, from the first request to the last."""
    errors: list[str]
    recovered_s: float | None
    """From the end of the SlowDown phase to that of the first second with 90 % of the throughput before."""
    cpu_s: float
    timeline: list[float] = field(repr=False)
    """Requests done a second, one figure for every second."""

    @property
    def share_of_limit(self) -> float:
        return self.rate / self.setting.limit if self.setting.limit else float("nan")

    @property
    def refused_share(self) -> float:
        return self.refused / self.sent if self.sent else 0.0

    @property
    def jain(self) -> float:
        """1 when all processes got alike, 1/n when one got all."""
        squares = sum(n * n for n in self.done)
        return sum(self.done) ** 2 / (len(self.done) * squares) if squares else 0.0


class Counts:
    """Requests done, by process and tenth of a second; shared with the processes."""

    def __init__(self, processes: int, seconds: float) -> None:
        self.bins = int(seconds / BIN_S) + 1
        self.processes = processes
        self.cells: Any = multiprocessing.RawArray(c_uint32, processes * self.bins)
        self.began: Any = multiprocessing.RawValue(c_double, 0.0)

    def bin_now(self) -> int:
        return min(int((time.monotonic() - self.began.value) / BIN_S), self.bins - 1)

    def add(self, process: int, done: int) -> None:
        self.cells[process * self.bins + self.bin_now()] += done

    def of(self, process: int, start_s: float, end_s: float) -> int:
        first = process * self.bins
        return sum(self.cells[first + round(start_s / BIN_S) : first + round(end_s / BIN_S)])

    def rate(self, start_s: float, end_s: float) -> float:
        return sum(self.of(process, start_s, end_s) for process in range(self.processes)) / (end_s - start_s)


def work(
    number: int, setting: Setting, server: dict[str, str], counts: Counts, ready: Any, stop: Any, out: Any
) -> None:
    """One process: asks until it is told to stop, then takes what it has asked for."""
    config = S3ClientConfig(
        credentials=(server["AWS_ACCESS_KEY_ID"], server["AWS_SECRET_ACCESS_KEY"]), max_connections=setting.connections
    )
    client = S3Client(server["AWS_REGION"], endpoint=server["AWS_ENDPOINT_URL"], s3client_config=config)
    errors: list[str] = []
    began = time.process_time()
    with client.queue() as queue:
        ready.wait()
        keys = key_numbers(number, setting)
        while not stop.is_set() or queue.unfinished or queue.untaken:
            missing = 0 if stop.is_set() else 2 * setting.connections - queue.unfinished
            if missing > 0 and setting.kind == "GET":
                queue.get((BUCKET, f"data/{next(keys):08}", None, None, OBJECT_BYTES, None) for _ in range(missing))
            elif missing > 0:
                queue.put((BUCKET, f"data/{next(keys)}", bytes(OBJECT_BYTES), ()) for _ in range(missing))
            results = queue.next(1, timeout_s=0.1)
            failed = [str(result) for _, result in results if isinstance(result, S3Exception)]
            errors += failed
            counts.add(number, len(results) - len(failed))
    stats = client.stats()
    out.put((number, int(stats["retries"]), errors, time.process_time() - began))


def key_numbers(number: int, setting: Setting) -> Iterator[int]:
    return (i % KEYS for i in count(number * KEYS // setting.processes))


def run(setting: Setting) -> Outcome:
    """Runs the processes and measures."""
    traffic = {"reads_per_s": setting.limit} if setting.kind == "GET" else {"writes_per_s": setting.limit}
    seconds = setting.warm_up_s + setting.before_s + setting.slow_down_s + setting.after_s
    with LocalS3(sinks=[BUCKET], etag="opaque", latency_s=setting.latency_s, traffic=traffic, activate=False) as server:
        if setting.kind == "GET":
            server.add_synthetic(BUCKET, "data/{}", count=KEYS, size_bytes=OBJECT_BYTES)
        fork = multiprocessing.get_context("fork")
        counts, out, stop = Counts(setting.processes, seconds + 60.0), fork.Queue(), fork.Event()
        ready = fork.Barrier(setting.processes + 1)
        processes = [
            fork.Process(target=work, args=(number, setting, server.environment, counts, ready, stop, out), daemon=True)
            for number in range(setting.processes)
        ]
        for process in processes:
            process.start()
        ready.wait()
        counts.began.value = began = time.monotonic()
        marks = watch(setting, server, began)
        server.set_traffic(reads_per_s=0.0, writes_per_s=0.0)  # what was asked for by then need not wait for its turn
        stop.set()
        answers = sorted(out.get(timeout=60) for _ in processes)
        for process in processes:
            process.join()
    return judge(setting, counts, marks, answers)


@dataclass
class Marks:
    """Times since the beginning, and what the service had counted at each."""

    warm: float = 0.0
    slow: float = 0.0
    clear: float = 0.0
    end: float = 0.0
    statuses: dict[str, dict[str, int]] = field(default_factory=dict)


def watch(setting: Setting, server: LocalS3, began: float) -> Marks:
    marks = Marks()

    def mark(name: str, duration_s: float) -> None:
        time.sleep(duration_s)
        setattr(marks, name, time.monotonic() - began)
        marks.statuses[name] = {str(status): n for status, n in server.stats()["statuses"].items()}

    mark("warm", setting.warm_up_s)
    mark("slow", setting.before_s)
    if setting.slow_down_s:
        operation = "GetObject" if setting.kind == "GET" else "PutObject"
        server.add_fault(Fault.status(503, times=None, operation=operation))
        time.sleep(setting.slow_down_s)
        server.clear_faults()
    mark("clear", 0.0)
    mark("end", setting.after_s)
    return marks


def judge(setting: Setting, counts: Counts, marks: Marks, answers: list[Any]) -> Outcome:
    def between(first: str, last: str, status: str | None = None) -> int:
        earlier, later = marks.statuses[first], marks.statuses[last]
        return sum(n - earlier.get(s, 0) for s, n in later.items() if status in {None, s})

    rate = counts.rate(marks.warm, marks.slow)
    recovered = None
    if setting.slow_down_s:
        starts = (marks.clear + i * BIN_S for i in range(int(setting.after_s / BIN_S)))
        found = (start for start in starts if counts.rate(start, start + PAGE_S) >= 0.9 * rate)
        recovered = next((start + PAGE_S - marks.clear for start in found), None)
    return Outcome(
        setting=setting,
        done=[counts.of(process, marks.warm, marks.slow) for process in range(setting.processes)],
        rate=rate,
        rate_after=counts.rate(marks.clear, marks.end) if setting.after_s else float("nan"),
        sent=between("warm", "slow"),
        refused=between("warm", "slow", "503"),
        refused_in_phase=between("slow", "clear", "503"),
        retries=sum(retries for _, retries, _, _ in answers),
        errors=[error for _, _, errors, _ in answers for error in errors],
        recovered_s=recovered,
        cpu_s=sum(cpu_s for *_, cpu_s in answers),
        timeline=[counts.rate(second, second + 1.0) for second in range(int(marks.end))],
    )
