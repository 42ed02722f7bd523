"""Saves that go on while the program does: snapshots, the thread that sends them, and errors that nobody has seen."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Final, TypeVar

import torch

from s3dataset._checkpoint._memory import allocate
from s3dataset._client import ObjectInfo

__all__ = ["AskedFuture", "Background", "SaveFuture"]

_SNAPSHOTS: Final = 2


Result = TypeVar("Result")


class AskedFuture(Future[Result]):
    """Of a save under way. Remembers whether somebody has asked how it ended."""

    asked = False

    def result(self, timeout: float | None = None) -> Result:
        """What was saved. Raises what the save raised, and TimeoutError."""
        found = super().exception(timeout)
        self.asked = True
        if found is not None:
            raise found
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the save raised; None when it was saved."""
        found = super().exception(timeout)
        self.asked = True
        return found


class SaveFuture(AskedFuture[ObjectInfo]):
    """Of an object that is being saved."""

    uri = ""


class Background:
    """Does one save after the other in a thread, which the end of the interpreter waits for. For one process."""

    def __init__(self) -> None:
        self.pid: Final = os.getpid()
        self._lock = threading.Lock()
        self._thread: ThreadPoolExecutor | None = None
        self._pending: list[SaveFuture] = []
        self._spare: list[torch.UntypedStorage] = []

    def submit(self, uri: str, save: Callable[[], ObjectInfo], forget: Callable[[], None]) -> SaveFuture:
        """To be saved at `uri`, in its turn. `forget` is called instead if the future is cancelled before that."""
        future = SaveFuture()
        future.uri = uri
        work = [save]  # holds the snapshot, which is to go as soon as nobody wants it

        def ended(_: object) -> None:
            if future.cancelled():
                work.clear()
                forget()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work.pop()())
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever asks
                future.set_exception(error)

        del save  # `ended` lives as long as the future
        future.add_done_callback(ended)
        with self._lock:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="s3dataset-save")
            self._pending.append(future)
            self._thread.submit(run)
        return future

    def make_room(self) -> None:
        """Waits until there may be another snapshot, and raises the error of a save that nobody has asked about."""
        with self._lock:
            under_way = [future for future in self._pending if not future.done()]
        if len(under_way) >= _SNAPSHOTS:
            wait_for(under_way[: 1 - _SNAPSHOTS])
        self.raise_unseen()

    def wait_for_earlier(self, uri: str) -> None:
        """Waits for what is to be saved at the same place, so that the last call is what stays there."""
        with self._lock:
            earlier = [future for future in self._pending if future.uri == uri]
        wait_for(earlier)

    def raise_unseen(self) -> None:
        """Raises the error of an earlier save that nobody has asked about."""
        with self._lock:
            ended = [future for future in self._pending if future.done()]
            self._pending = [future for future in self._pending if not future.done()]
        for future in ended:
            if not future.asked and not future.cancelled():
                future.result(0)

    # -- Memory of snapshots ----------------------------------------------------------------------------------------

    def copies_of(self, storages: list[torch.UntypedStorage]) -> list[torch.UntypedStorage]:
        """Copies in this machine's memory, which is that of the last snapshot where it fits: new memory costs twice.

        Those of a GPU's storages are pinned: such copies run at the speed of its bus, all of them at once.
        """
        kinds = [(storage.nbytes(), storage.device.type == "cuda") for storage in storages]
        with self._lock:
            copies, self._spare = self._spare, []
        if [(copy.nbytes(), copy.is_pinned()) for copy in copies] != kinds:
            copies.clear()
            copies = [_pinned(nbytes) if on_gpu else allocate(nbytes) for nbytes, on_gpu in kinds]
        for copy, storage in zip(copies, storages, strict=True):
            _bytes_of(copy).copy_(_bytes_of(storage), non_blocking=True)
        for device in {storage.device for storage in storages if storage.device.type == "cuda"}:
            torch.cuda.current_stream(device).synchronize()
        return copies

    def give_back(self, copies: list[torch.UntypedStorage]) -> None:
        with self._lock:
            self._spare = copies


def _pinned(nbytes: int) -> torch.UntypedStorage:
    return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).untyped_storage()


def _bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    """As a tensor, whose copies are made by several threads."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
