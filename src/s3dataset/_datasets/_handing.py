"""What an iteration begins with, on its way from the loader that makes it to the processes that read it.

A loader of this package decides that in the main process, when it makes its iterator: a worker that is forked finds it
in its memory, one that is spawned in its pickle, and persistent ones in a file when their later iterations begin. A
loader of somebody else's says nothing; its workers agree among themselves, by what they can tell of whose they are.
"""

import contextlib
import json
import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch.utils.data

from s3dataset._page import Page

__all__ = ["Beginning", "Handed", "handed_to", "handing", "workers_of"]


class Beginning(NamedTuple):
    """One iteration of a loader.

    Attributes:
        token: Of the loader's workers.
        number: Of the iteration, counted by them.
        epoch: Its epoch.
        resume: The state that it begins at; None: at the epoch's beginning.
        batch_size: The loader's, where samples are to make up its batches.
        first_worker: As whom the loader's first worker reads, so that its batch, which comes first, is that one's.
    """

    token: str
    number: int
    epoch: int
    resume: Mapping[str, Any] | None
    batch_size: int | None
    first_worker: int = 0

    def publish(self, page: Page) -> None:
        """Leaves it to persistent workers."""
        path = _path(page, self.token)
        fresh = path.with_name(f"{path.name}.new")
        fresh.write_text(json.dumps(self))
        fresh.replace(path)


def _path(page: Page, token: str) -> Path:
    return Path(f"{page.path}.begins.{token}")


class _Handing(threading.local):
    """What this thread hands over while it makes an iterator: by the dataset's identity. A fork takes it along."""

    def __init__(self) -> None:
        self.of: dict[int, Beginning] = {}


_HANDING: Final = _Handing()


@contextlib.contextmanager
def handing(dataset: object, beginning: Beginning) -> Iterator[None]:
    """Hands over to whoever iterates over the dataset within, here or in a process that is started."""
    _HANDING.of[id(dataset)] = beginning
    try:
        yield
    finally:
        _HANDING.of.pop(id(dataset), None)


def handed_to(dataset: object) -> Beginning | None:
    """What is being handed to a dataset by this thread."""
    return _HANDING.of.get(id(dataset))


class Handed:
    """What loaders of this package hand to a dataset in this process.

    Args:
        came: What a pickle brought along.
    """

    def __init__(self, came: Beginning | None = None) -> None:
        self._came = came
        self._last: Beginning | None = None
        self._again = 0

    def take(self, dataset: object, page: Page) -> Beginning | None:
        """What the iteration that begins now was handed; None: nothing."""
        if torch.utils.data.get_worker_info() is None:
            return _HANDING.of.pop(id(dataset), None)
        last = self._last
        if last is None:
            self._last = self._came or handed_to(dataset)
            return self._last
        with contextlib.suppress(FileNotFoundError):  # workers that are not persistent have none
            named = Beginning(*json.loads(_path(page, last.token).read_text()))
            if named.number != last.number:
                self._last, self._again = named, 0
                return named
        self._again += 1  # a derived class iterates several times
        return last._replace(epoch=last.epoch + self._again, resume=None, first_worker=0)


class _Pipe:
    """That in which the workers that this process is one of send their results."""

    pid: int | None = None
    number = 0


def workers_of(info: Any) -> str:
    """Names the workers of a loader: the same in all of them, and another for each set of workers.

    Args:
        info: PyTorch's, of one of them.
    """
    if _Pipe.pid != os.getpid():
        _Pipe.pid, _Pipe.number = os.getpid(), _queue_of_results()
    return f"{getattr(info, 'seed', info.id) - info.id}.{_Pipe.number}"


def _queue_of_results() -> int:
    """What tells the pipe in which a loader's workers send their results from others; 0 if that cannot be told.

    Two loaders with generators of the same seed have workers of the same seeds.
    """
    arguments: Any = getattr(multiprocessing.current_process(), "_args", ())
    try:
        return os.fstat(arguments[3]._reader.fileno()).st_ino  # noqa: SLF001 - nothing public tells
    except (IndexError, AttributeError, OSError, ValueError):
        return 0
