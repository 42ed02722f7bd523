"""Versions, processes, memory, open files, folders. Nothing of the network."""

import importlib.metadata
import multiprocessing
import os
import platform
import resource
import shutil
import ssl
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import s3dataset
from s3dataset._doctor._check import Check, first_line
from s3dataset._limits import memory_of_machine_bytes, process_limits
from s3dataset._proxies import PROXY_VARIABLES, ProxyUrl
from s3dataset.errors import InvalidConfigError

__all__ = ["look_at_machine", "look_at_versions"]

_MIB: Final = 1 << 20
_SHARED: Final = "/dev/shm"  # noqa: S108 - looked at, not written to
_ENOUGH_FILES: Final = 1024
_ENOUGH_ROOM: Final = 1 << 30
_ENOUGH_SHARED: Final = 256 * _MIB
_OLDEST_TORCH: Final = (2, 4)


def look_at_versions() -> Iterator[Check]:
    yield Check("versions", "s3dataset", "info", s3dataset.__version__, facts={"version": s3dataset.__version__})
    python = platform.python_version()
    yield Check(
        "versions",
        "python",
        "info",
        f"{platform.python_implementation()} {python}, {platform.system()} {platform.release()} {platform.machine()}",
        facts={"version": python, "executable": sys.executable},
    )
    for name in ("torch", "botocore"):
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Check("versions", name, "fail", "not installed", f"pip install {name}")
            continue
        old = name == "torch" and _numbers(found) < _OLDEST_TORCH
        yield Check(
            "versions",
            name,
            "warn" if old else "info",
            found,
            "s3dataset is made for torch 2.4 and later: upgrade it" if old else "",
            {"version": found},
        )
    yield Check(
        "versions",
        "TLS",
        "info",
        f"rustls, compiled in, for data; {ssl.OPENSSL_VERSION} for botocore's credentials",
        facts={"openssl": ssl.OPENSSL_VERSION},
    )


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.partition("+")[0].split(".", 2)[:2]
    return tuple(int(part) for part in parts if part.isdecimal())


def look_at_machine() -> Iterator[Check]:
    yield _processors()
    yield _start_method()
    yield _memory()
    yield _open_files()
    yield _room()
    if Path(_SHARED).is_dir():
        yield _shared_memory()
    yield from _proxies()


def _processors() -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    said = f"{usable} usable" + (f", limited to {quota:g} of them by the cgroup" if quota and quota < usable else "")
    short = quota is not None and quota < usable
    advice = f"choose num_workers by the limit of {quota:g}, not by the number of cores" if short else ""
    return Check("machine", "cores", "warn" if short else "info", said, advice, {"usable": usable, "quota": quota})


def _quota() -> float | None:
    """CPUs that a cgroup allows; None without a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _start_method() -> Check:
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    said = f"DataLoader workers start by {method}"
    return Check("machine", "workers", "info", said, facts={"start_method": method})


def _memory() -> Check:
    limit = memory_of_machine_bytes()
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = process_limits()
    by = f"limited to {_size(limit)} of {_size(physical)} by the cgroup" if limit < physical else _size(limit)
    small = limits.memory_limit_bytes < 128 * _MIB
    return Check(
        "machine",
        "memory",
        "warn" if small else "ok",
        f"{by}; a process holds up to {_size(limits.memory_limit_bytes)} in flight (5 %, at most 1 GiB), "
        f"{limits.max_connections} connections",
        "less than 128 MiB in flight slows large objects down: raise the container's memory limit, or "
        "S3ClientConfig(memory_limit_bytes=)"
        if small
        else "",
        {"limit_bytes": limit, "physical_bytes": physical, "budget_bytes": limits.memory_limit_bytes},
    )


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft != resource.RLIM_INFINITY and soft < _ENOUGH_FILES
    return Check(
        "machine",
        "open files",
        "warn" if few else "ok",
        f"ulimit -n {'unlimited' if soft == resource.RLIM_INFINITY else f'{soft:,}'}",
        f"a client takes up to half of them for its connections: ulimit -n {_ENOUGH_FILES} or more" if few else "",
        {"soft": soft, "hard": hard},
    )


def _room() -> Check:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    tight = free < _ENOUGH_ROOM
    return Check(
        "machine",
        "temporary folder",
        "warn" if tight else "ok",
        f"{folder}, {_size(free)} free",
        "listings of more than half a million objects wait there (60 bytes each): make room, or set TMPDIR"
        if tight
        else "",
        {"folder": folder, "free_bytes": free},
    )


def _shared_memory() -> Check:
    total = shutil.disk_usage(_SHARED).total
    small = total < _ENOUGH_SHARED
    return Check(
        "machine",
        _SHARED,
        "warn" if small else "ok",
        f"{_size(total)}",
        "PyTorch's workers pass tensors through it and die with a bus error when it is full: docker run --shm-size=2g"
        if small
        else "",
        {"total_bytes": total},
    )


def _proxies() -> Iterator[Check]:
    """The variables, passwords masked. Whether one is used depends on the endpoint's scheme and NO_PROXY."""
    for name in PROXY_VARIABLES:
        value = os.environ.get(name)
        if not value:
            continue
        if name.lower() == "no_proxy":
            yield Check("machine", name, "info", value)
            continue
        try:
            yield Check("machine", name, "info", str(ProxyUrl(value, source=name)))
        except InvalidConfigError as error:
            yield Check("machine", name, "fail", first_line(error), "correct or unset it")


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
