"""Measures one client in one case, in a process of its own: `python -m benchmarks.worker JSON`.

Prints one line of JSON. It runs in the environment of the client that it measures, which may lack every other library.
"""

import contextlib
import importlib.metadata
import json
import mmap
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.cases import CASES, Case
from benchmarks.clients import CLIENTS, Target

LONGEST_S = 12.0  # no further round is begun after that
SPIN = 1000


class UnsupportedError(Exception):
    """The library cannot do what the case asks."""


@dataclass(slots=True)
class Job:
    """What a case comes to for one client: a round's call, and a check of what was read, which is not timed."""

    call: Callable[[], Any]
    items: int
    num_bytes: int
    verify: Callable[[], bool] | None = None
    warm_up: Callable[[], Any] | None = None


# -- What a case does --------------------------------------------------------------------------------------------------


def client_job(case: Case, client: Any, folder: Path) -> Job:
    keys = [data.small_key(number) for number in range(case.items)]
    warm_up = keys[: min(64, case.concurrency)]
    if case.name.startswith("get-large"):
        demand(client, "get_large")
        return Job(
            lambda: client.get_large(data.LARGE_KEY, data.LARGE_BYTES),
            case.items,
            case.num_bytes,
            lambda: same(folder, data.LARGE_KEY, client.get_large(data.LARGE_KEY, data.LARGE_BYTES)),
        )
    if case.name == "get-one":
        demand(client, "get_one")
        return Job(
            lambda: sum(len(client.get_one(key)) for key in keys),
            case.items,
            case.num_bytes,
            lambda: all(same(folder, key, client.get_one(key)) for key in keys[:200]),
            lambda: client.get_one(keys[0]),
        )
    if case.name.startswith("get-"):
        demand(client, "get_one")
        return Job(
            lambda: sum(len(body) for _, body in client.get_many(keys)),
            case.items,
            case.num_bytes,
            lambda: all(same(folder, key, body) for key, body in client.get_many(keys)),
            lambda: sum(len(body) for _, body in client.get_many(warm_up)),
        )
    if case.name == "put-large":
        demand(client, "put_large")
        block = memoryview(bytearray(os.urandom(data.MIB)) * (case.num_bytes // data.MIB))
        return Job(lambda: client.put_large("sink", "large", block), 1, case.num_bytes)
    if case.name == "put-small":
        body, names = os.urandom(data.SMALL_BYTES), [f"up/{number:05d}" for number in range(case.items)]
        return Job(
            lambda: client.put_many("sink", names, body),
            case.items,
            case.num_bytes,
            warm_up=lambda: client.put_many("sink", names[:16], body),
        )
    demand(client, "list_keys")
    return Job(lambda: expect(client.list_keys(case.name.partition("-")[2]), case.items), case.items, 0)


def loader_job(case: Case, name: str, target: Target) -> Job:
    from benchmarks.loaders import LOADERS

    loader = LOADERS[name]
    count = case.slow_items if loader.one_by_one else case.items
    make = loader.iterate if case.name == "iterate" else loader.shuffled
    if make is None:
        raise UnsupportedError

    def epoch(samples: int) -> int:
        batches = make(target, samples) if case.name == "iterate" else make(target, samples, case.workers)
        return sum(int(batch.sum()) for batch in batches)

    return Job(
        lambda: expect(epoch(count), count * data.SMALL_BYTES),
        count,
        count * data.SMALL_BYTES,
        warm_up=lambda: epoch(8),  # imports torch, among others
    )


def checkpoint_job(case: Case, name: str, target: Target) -> Job:
    from benchmarks.checkpoints import CHECKPOINTS

    checkpoint = CHECKPOINTS[name](target)
    checkpoint.is_direct = "direct" in case.name
    if case.name.startswith("save"):
        demand(checkpoint, "save")
        state = data.state_dict()
        return Job(lambda: checkpoint.save(state), 1, case.num_bytes)
    return Job(checkpoint.load, 1, case.num_bytes, lambda: data.is_state_dict(checkpoint.load()))


def demand(client: object, method: str) -> None:
    if not hasattr(client, method):
        raise UnsupportedError


def expect(found: int, wanted: int) -> None:
    if found != wanted:
        raise RuntimeError(f"moved {found:,}, not {wanted:,}")


def same(folder: Path, key: str, body: Any) -> bool:
    """Whether the body has the very bytes of the file."""
    view = memoryview(body).cast("B")
    with (folder / data.BUCKET / key).open("rb") as file:
        return all(
            file.read(data.MIB) == view[at : at + data.MIB] for at in range(0, len(view), data.MIB)
        ) and not file.read(1)


# -- Measuring ---------------------------------------------------------------------------------------------------------


def cpu_s() -> float:
    """CPU time of this process, and of those children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def status_bytes(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


def touch_memory(size: int) -> None:
    """Virtual machines give freed memory back to their host, and first touches are slow: they are made before."""
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        if hasattr(mmap, "MADV_HUGEPAGE"):
            area.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, size, mmap.PAGESIZE):
            area[at] = 1
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now


def counted_requests(stats_url: str) -> int:
    with urllib.request.urlopen(stats_url) as answer:
        body = answer.read()
    if body.startswith(b"{"):
        return int(json.loads(body)["requests"])
    return int(body.split()[9])  # nginx: "... server accepts handled requests\n a h r"


def beside_busy_thread(call: Callable[[], Any]) -> None:
    """Makes the call in a second thread while this one runs Python without a pause."""
    failure: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        for _ in range(SPIN):
            pass
    if failure:
        raise failure[0]


def measure(case: Case, job: Job, rounds: int, stats_url: str) -> dict[str, Any]:
    busy = case.name == "get-busy-25ms"
    if job.warm_up:
        job.warm_up()
    measured, began = [], time.monotonic()
    peak_over_base = 0
    while len(measured) < rounds and (not measured or time.monotonic() - began < LONGEST_S):
        if job.num_bytes >= data.GIB:
            touch_memory(2 * data.GIB)
        base = status_bytes("VmRSS")
        requests, cpu, wall = counted_requests(stats_url), cpu_s(), time.perf_counter()
        if busy:
            beside_busy_thread(job.call)
        else:
            job.call()
        wall, cpu = time.perf_counter() - wall, cpu_s() - cpu
        peak_over_base = max(peak_over_base, status_bytes("VmHWM") - base)
        # nginx counts the question for its statistics, too.
        measured.append((wall, cpu, counted_requests(stats_url) - requests - stats_url.endswith("/_status")))
    wall, cpu, requests = (statistics.median(values) for values in zip(*measured, strict=True))
    result = {
        "wall_s": wall,
        "items": job.items,
        "bytes": job.num_bytes,
        "requests": int(requests),
        "peak_over_base_bytes": peak_over_base,
        "rounds": [round(one[0], 5) for one in measured],
    }
    if not busy:
        result["cpu_s"] = cpu
    if job.verify and not job.verify():
        raise RuntimeError("read other bytes than were written")
    return result


def main() -> None:
    request = json.loads(sys.argv[1])
    case = next(case for case in CASES if case.name == request["case"])
    name = request["client"]
    target = Target(request["endpoint"], request["region"], case.concurrency, request["ca_bundle"])
    tempfile.tempdir = request["folder"]
    result: dict[str, Any]
    try:
        if case.kind == "client":
            if target.ca_bundle and getattr(CLIENTS[name], "no_private_ca", False):
                raise UnsupportedError
            client = CLIENTS[name](target)
            job, package = client_job(case, client, Path(request["folder"])), client.package
        elif case.kind == "loader":
            from benchmarks.loaders import LOADERS

            job, package = loader_job(case, name, target), LOADERS[name].package
        else:
            from benchmarks.checkpoints import CHECKPOINTS

            job, package = checkpoint_job(case, name, target), CHECKPOINTS[name].package
        result = measure(case, job, request["rounds"], request["stats_url"])
        result["version"] = importlib.metadata.version(package)
    except UnsupportedError:
        result = {"unsupported": True}
    print(json.dumps(result), flush=True)
    os._exit(0)  # some clients' threads do not end


if __name__ == "__main__":
    main()
