"""A closed loop: so many requests at once, a new one for each that is answered."""

import time
from dataclasses import dataclass
from typing import Final

from s3dataset._bench._objects import Load
from s3dataset._bench._result import Latencies, Step
from s3dataset._client import Body, Client
from s3dataset.errors import S3Exception

__all__ = ["Allowance", "run_step", "warm_up"]

_GRACE_S: Final = 2.0


@dataclass(slots=True)
class Allowance:
    """What may still be spent. Shares are taken out of it, and what is left of them comes back."""

    seconds: float
    bytes: int
    requests: int

    def share(self, part: float) -> "Allowance":
        """A part of it."""
        return Allowance(self.seconds * part, int(self.bytes * part), int(self.requests * part))

    def spend(self, seconds: float, nbytes: int, requests: int) -> None:
        self.seconds = max(0.0, self.seconds - seconds)
        self.bytes = max(0, self.bytes - nbytes)
        self.requests = max(0, self.requests - requests)


def warm_up(client: Client, load: Load, concurrency: int) -> int:
    """Opens connections, so that no step pays for handshakes -> the requests sent, of a byte each."""
    with client.queue() as queue:
        rows = [load.next() for _ in range(concurrency)]
        indices = queue.get((bucket, key, start, start + 1, size, etag) for bucket, key, start, _, size, etag in rows)
        for result in queue.take_many(indices):
            if isinstance(result, S3Exception):
                raise result
    return concurrency


def run_step(client: Client, load: Load, concurrency: int, limit: Allowance) -> tuple[Step | None, Allowance]:
    """Reads for as long as `limit` allows -> what was measured, None without an answer; what it cost.

    Measuring begins when as many requests as are at once were answered, since memory that is used for the first time
    costs more than the network; where `limit` does not allow so many, earlier. Bytes that are under way at the end
    count as they came, requests only when they were answered.

    Raises:
        S3Exception: A request failed, further attempts included.
    """
    first = before = client.stats()
    cpu = time.process_time()
    start = begin = time.perf_counter()
    deadline = begin + limit.seconds
    ramp = min(concurrency, min(limit.bytes // max(load.mean_bytes, 1), limit.requests) // 3)
    started: dict[int, float] = {}
    latencies: list[float] = []
    done_bytes = sent_bytes = sent = 0
    with client.queue() as queue:
        over = False
        while True:
            now = time.perf_counter()
            rows: list[tuple[str, str, int, int, int, str | None]] = []
            while not over and now < deadline and len(started) + len(rows) < concurrency:
                row = load.next()
                nbytes = row[3] - row[2]
                over = sent_bytes + nbytes > limit.bytes or sent >= limit.requests
                if not over:
                    rows.append(row)
                    sent_bytes += nbytes
                    sent += 1
            if rows:
                started.update(dict.fromkeys(queue.get(rows), now))
            until = deadline if latencies else deadline + _GRACE_S
            if not started or now >= until:
                break
            for index, result in queue.next(1, concurrency, max(0.001, until - now)):
                if isinstance(result, S3Exception):
                    raise result
                latencies.append(time.perf_counter() - started.pop(index))
                done_bytes += len(result) if isinstance(result, Body) else 0
            if ramp and len(latencies) >= ramp and (now := time.perf_counter()) < begin + limit.seconds / 2:
                ramp = done_bytes = 0
                latencies.clear()
                before, cpu, start = client.stats(), time.process_time(), now
        end = time.perf_counter()
        after = client.stats()
    came = max(done_bytes, after["bytes_in"] - before.get("bytes_in", 0))
    spent = Allowance(end - begin, max(done_bytes, after["bytes_in"] - first.get("bytes_in", 0)), sent)
    if not latencies:
        return None, spent
    step = Step(
        concurrency=concurrency,
        request_bytes=done_bytes // len(latencies),
        seconds=end - start,
        requests=len(latencies),
        bytes=came,
        latencies=Latencies.of(latencies),
        cpu_seconds=time.process_time() - cpu,
        throttled=after["throttles"] - before.get("throttles", 0),
        retries=after["retries"] - before.get("retries", 0),
    )
    return step, spent
