"""What the process has: sampled in the midst of the work by a thread, and at rest between two pieces of it."""

import contextlib
import ctypes
import gc
import os
import pickle
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

__all__ = ["Sample", "Sampler"]


@dataclass(frozen=True, slots=True)
class Sample:
    """Of the main process, unless a name says otherwise."""

    at_s: float
    doing: str
    """The piece of work under way; "" at rest, after a collection of garbage."""
    threads: dict[str, int]
    """By name."""
    descriptors: int
    sockets: int
    """Of the descriptors."""
    tcp: dict[str, int]
    """Those of TCP by state; one that was reset is in none."""
    connections: int
    """Sockets that the engine knows of."""
    rss_mb: float
    anonymous_mb: float
    """Of it what no file backs, the engine's pool left out: that comes and goes with the pace of the work."""
    heap_mb: float
    """What malloc has given out and not got back: what a leak adds to. 0 where it does not tell."""
    python_objects: int
    """Those that the collector of garbage follows; counted at rest alone."""
    children: int
    children_anonymous_mb: float
    files: int
    """In the temporary folder."""
    in_flight: int
    memory_in_use_mb: float
    memory_pooled_mb: float
    server_rss_mb: float
    server_descriptors: int

    @property
    def at_rest(self) -> bool:
        return not self.doing

    @property
    def num_threads(self) -> int:
        return sum(self.threads.values())


def thread_names() -> dict[str, int]:
    names: Counter[str] = Counter()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it ended
            names[(task / "comm").read_text().strip()] += 1
    return dict(names)


def descriptors() -> tuple[int, int]:
    """All that are open, and those of sockets."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own
            links.append(str(descriptor.readlink()))
    return len(links), sum(link.startswith("socket:") for link in links)


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident, and of it what no file backs; zeros when it is gone.

    Not the proportional share, which falls and rises with whatever else on the machine has torch's files mapped.
    """
    found = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, _, rest = line.partition(":")
            found[name] = int(rest.split()[0]) / 1024
    return found.get("Rss", 0.0), found.get("Anonymous", 0.0)


class _MallInfo(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keep",
        )
    )


def heap_bytes() -> int:
    """See mallinfo2(3); since glibc 2.33."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return 0
    ask.restype = _MallInfo
    found = ask()
    return int(found.uordblks + found.hblkhd)


class Sampler:
    """Takes samples every `interval_s` while it is entered, and whenever it is told to.

    Args:
        began: The start, as `time.monotonic` has it.
        stats: Of the clients whose memory and requests are watched.
        server_pid: The server's process, which is no child that counts.
    """

    def __init__(self, began: float, interval_s: float, stats: Callable[[], dict[str, Any]], server_pid: int) -> None:
        self._began = began
        self._interval_s = interval_s
        self._stats = stats
        self._me = psutil.Process()
        self._server = psutil.Process(server_pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self.doing = "starting"
        # Packed, because the collector follows no bytes: Python's objects are counted too.
        self._packed: list[bytes] = []

    @property
    def samples(self) -> list[Sample]:
        return [pickle.loads(packed) for packed in self._packed]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._interval_s):
            doing = self.doing
            if doing:
                self._packed.append(pickle.dumps(self._take(doing)))

    def rest(self) -> None:
        """A sample of what is left between two pieces of work."""
        self.doing = ""
        gc.collect()
        self._packed.append(pickle.dumps(self._take("")))

    def _take(self, doing: str) -> Sample:
        rss, anonymous = memory_mb(os.getpid())
        server_rss, _ = memory_mb(self._server.pid)
        children = [child for child in self._me.children(recursive=True) if child.pid != self._server.pid]
        stats = self._stats()
        pooled_mb = stats.get("memory_pooled_bytes", 0) / 2**20
        num_descriptors, num_sockets = descriptors()
        return Sample(
            at_s=time.monotonic() - self._began,
            doing=doing,
            threads=thread_names(),
            descriptors=num_descriptors,
            sockets=num_sockets,
            tcp=dict(Counter(connection.status for connection in self._me.net_connections("tcp"))),
            connections=stats.get("connections_open", 0),
            rss_mb=rss,
            anonymous_mb=anonymous - pooled_mb,
            heap_mb=(heap_bytes() - sum(map(len, self._packed))) / 2**20,
            python_objects=0 if doing else len(gc.get_objects()),
            children=len(children),
            children_anonymous_mb=sum(memory_mb(child.pid)[1] for child in children),
            files=sum(1 for _ in os.scandir(tempfile.gettempdir())),
            in_flight=stats.get("in_flight", 0),
            memory_in_use_mb=stats.get("memory_in_use_bytes", 0) / 2**20,
            memory_pooled_mb=pooled_mb,
            server_rss_mb=server_rss,
            server_descriptors=self._server.num_fds(),
        )
