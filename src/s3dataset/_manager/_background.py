"""The thread in which saves are finished, and errors that nobody has asked about."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from s3dataset._checkpoint import AskedFuture
from s3dataset._manager._types import CheckpointInfo

__all__ = ["Background", "CheckpointFuture"]

_LOGGER: Final = logging.getLogger("s3dataset")


class CheckpointFuture(AskedFuture[CheckpointInfo]):
    """Of a checkpoint that is being saved."""


class Background:
    """Finishes one save at a time. The end of the interpreter waits for it. For one process."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._thread: ThreadPoolExecutor | None = None
        self._pending: CheckpointFuture | None = None

    def submit(self, finish: Callable[[], CheckpointInfo], what: str) -> CheckpointFuture:
        """Finishes a save in the thread; there must be no other one under way."""
        future = CheckpointFuture()
        future.set_running_or_notify_cancel()

        def run() -> None:
            try:
                future.set_result(finish())
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever asks
                _LOGGER.error("%s: %s", what, error)
                future.set_exception(error)

        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="s3dataset-checkpoint")
        self._pending = future
        self._thread.submit(run)
        return future

    def settle(self) -> BaseException | None:
        """Waits for the save under way -> its error, if nobody has asked about it yet."""
        future, self._pending = self._pending, None
        if future is None or self._pid != os.getpid():  # a forked child has no such thread
            return None
        asked = future.asked
        error = future.exception()
        return None if asked else error

    def close(self) -> None:
        """Ends the thread, which has nothing to do."""
        thread, self._thread = self._thread, None
        if thread is not None and self._pid == os.getpid():
            thread.shutdown()
