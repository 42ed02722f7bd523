"""How much of the machine this process takes: engine threads, bytes, connections."""

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["ProcessLimits", "cores", "local_ranks", "memory_of_machine_bytes", "most_connections", "process_limits"]

_MIB: Final = 1 << 20
_MOST_MEMORY_BYTES: Final = 1024 * _MIB
_LEAST_MEMORY_BYTES: Final = 32 * _MIB
_MOST_CONNECTIONS: Final = 256
_LEAST_CONNECTIONS: Final = 16
_MOST_LANES: Final = 8
_NO_LIMIT_BYTES: Final = 1 << 60  # cgroup v1 says "none" by a number close to 2**63


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What one process takes by default.

    Attributes:
        lanes: Engine threads.
        memory_limit_bytes: Bytes in flight and not yet handed over.
        max_connections: Connections of one client.
    """

    lanes: int
    memory_limit_bytes: int
    max_connections: int


def process_limits(*, share: int = 1, lanes: int | None = None, throughput_target_gbps: float = 10.0) -> ProcessLimits:
    """Divides the machine among the processes that share it.

    Args:
        share: How many processes like this one a rank has: its DataLoader workers, else 1.
        lanes: Engine threads, where the caller knows better.
        throughput_target_gbps: The user's hint. A thread moves 16 Gb/s and more with TLS; one for every 10 leaves it
            room.
    """
    ranks = local_ranks()
    sharers = ranks * max(1, share)
    count = cores()
    # Small requests cost a fifth more CPU each when two threads share them, so a thread more has to be worth it: one
    # for every eight cores of a rank (a machine with many has a network to match), or what the hint asks for.
    hinted = -(-int(min(throughput_target_gbps, 10 * _MOST_LANES)) // 10)
    wanted = lanes or min(max(hinted, count // (8 * ranks)), count // (2 * ranks), _MOST_LANES)
    memory = min(_MOST_MEMORY_BYTES, memory_of_machine_bytes() // 20) // sharers
    return ProcessLimits(
        lanes=max(1, wanted),
        memory_limit_bytes=max(_LEAST_MEMORY_BYTES, memory),
        max_connections=min(max(_LEAST_CONNECTIONS, _MOST_CONNECTIONS // sharers), most_connections()),
    )


def most_connections() -> int:
    """What open files leave room for."""
    return _files() // 2


def local_ranks() -> int:
    """How many ranks share this machine, as a launcher tells."""
    return max(1, _integer("LOCAL_WORLD_SIZE", 1))


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_of_machine_bytes() -> int:
    """The least of the machine's memory and the limits of the cgroups that this process is in."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _cgroup_files():
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if text.isdecimal() and 0 < int(text) < _NO_LIMIT_BYTES:
            limits.append(int(text))
    return min(limits)


def _cgroup_files() -> list[Path]:
    root = Path("/sys/fs/cgroup")
    files = [root / "memory.max", root / "memory" / "memory.limit_in_bytes"]  # as a container sees its own
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return files
    for line in lines:
        _, controllers, path = line.split(":", 2)
        parts = [p for p in path.split("/") if p and p != ".."]
        for depth in range(1, len(parts) + 1):
            if not controllers:
                files.append(root.joinpath(*parts[:depth], "memory.max"))
            elif "memory" in controllers.split(","):
                files.append(root.joinpath("memory", *parts[:depth], "memory.limit_in_bytes"))
    return files


def _files() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else max(2 * _LEAST_CONNECTIONS, soft)


def _integer(name: str, default: int) -> int:
    """A launcher's variable; nonsense in it is the launcher's affair, not a reason to fail."""
    try:
        return int(os.environ.get(name, default))
    except ValueError:
        return default
