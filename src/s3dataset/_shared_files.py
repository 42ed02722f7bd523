"""Files in the temporary folder that processes share by their path, and that outlive none of them for long.

Whoever has one of them open holds a shared `flock` on it, by a descriptor that stays open as long. A forked child has
its parent's hold, a spawned one takes its own, and the kernel gives it up with the last of them, whatever ended it. So
a file that can be locked alone is nobody's: when a process makes such a file, and has not done so within the last
minute, it removes those that killed processes left behind.

A name is "s3dataset-<machine>-<random>.<kind>". What lies beside such a file as "<name>.<anything>", a dot before it or
not, belongs to it, and is safe while somebody holds either.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

__all__ = ["create", "hold", "new_file", "remove_own"]

_SWEEP_EVERY_S: Final = 60.0  # a process that runs for days may have many children that are killed
_MOST_ENTRIES: Final = 10_000  # of the temporary folder that a sweep looks at: a few milliseconds
_MOST_FAMILIES: Final = 256


def _machine() -> str:
    """Names this machine from its start on.

    Several machines may share a temporary folder on a file system whose locks do not reach from one to another.
    """
    try:
        identity = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        identity = platform.node()
    return hashlib.blake2b(identity.encode(), digest_size=4).hexdigest()


_PREFIX: Final = f"s3dataset-{_machine()}-"
_NAME: Final = re.compile(rf"\.?({_PREFIX}[a-z0-9_]+\.[a-z]+)(\..+)?")


class _Sweep:
    """When this process, or the one that it was forked from, may sweep again, as `time.monotonic` has it."""

    due_at = 0.0


def create(kind: str) -> tuple[int, str]:
    """Makes an empty file that only this user can read, held by the descriptor.

    Returns:
        The descriptor, open for reading and writing, and the path.

    Raises:
        OSError: The temporary folder has no room.
    """
    folder = tempfile.gettempdir()
    now = time.monotonic()
    if now >= _Sweep.due_at:
        _Sweep.due_at = now + _SWEEP_EVERY_S
        sweep(folder)
    return new_file(folder, _PREFIX, f".{kind}")


def new_file(folder: str | os.PathLike[str], prefix: str, suffix: str = "") -> tuple[int, str]:
    """As `tempfile.mkstemp`; the file is held if its name is of those that are swept.

    Raises:
        OSError: The folder cannot be written to.
    """
    while True:
        descriptor, path = tempfile.mkstemp(dir=folder, prefix=prefix, suffix=suffix)
        if hold(descriptor, path):
            return descriptor, path
        os.close(descriptor)  # a sweep came between


def hold(descriptor: int, path: str) -> bool:
    """Keeps a file from being swept, as long as the descriptor or a copy of it is open in whichever process.

    Returns:
        Whether it is still there. A file of another name is nobody's to sweep, and is not locked.
    """
    if _NAME.fullmatch(os.path.basename(path)) is None:  # noqa: PTH119 - a path may come from another machine
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False  # a sweep has it
    except OSError:
        pass  # a file system without locks, where a sweep gets none either
    return os.fstat(descriptor).st_nlink > 0


def remove_own(path: str, creator: int) -> None:
    """Removes a file and what lies beside it, if this is the process that made it and not a forked child of it."""
    if os.getpid() != creator:
        return
    folder, name = os.path.split(path)
    leftovers: list[str] = []
    with contextlib.suppress(OSError):
        leftovers = [other for other in os.listdir(folder) if other.startswith(f"{name}.")]  # noqa: PTH208
    for leftover in (*leftovers, name):
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, leftover))  # noqa: PTH108, PTH118


def sweep(folder: str) -> None:
    """Removes the files of this user and machine that nobody holds. Bounded work; failures are no matter."""
    families: dict[str, list[str]] = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in islice(entries, _MOST_ENTRIES):
            if match := _NAME.fullmatch(entry.name):
                families.setdefault(match[1], []).append(entry.name)
    for first, names in islice(families.items(), _MOST_FAMILIES):
        with contextlib.suppress(OSError), _alone(os.path.join(folder, first)):  # noqa: PTH118
            for name in sorted(names, key=first.__eq__):  # the first of them last, as it guards the others
                path = os.path.join(folder, name)  # noqa: PTH118
                if name == first:
                    os.unlink(path)  # noqa: PTH108 - of the same form as its neighbours
                    continue
                with contextlib.suppress(OSError), _alone(path):
                    os.unlink(path)  # noqa: PTH108


@contextlib.contextmanager
def _alone(path: str) -> Iterator[None]:
    """Locks a file that nobody holds; one that is not there is nobody's either.

    Raises:
        OSError: Somebody holds it, or it is another user's, or no plain file.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise PermissionError(path)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
