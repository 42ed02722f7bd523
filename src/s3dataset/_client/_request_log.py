"""A record a request, for logger `s3dataset.request`; off unless asked for.

The engine keeps records in memory and a thread of Python's fetches them in batches, so that a request pays for no more
than its record.
"""

import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any, Final

from s3dataset import _native
from s3dataset.errors import InvalidConfigError

__all__ = ["LOGGER_NAME", "after_fork_in_child", "start", "stop"]

LOGGER_NAME: Final = "s3dataset.request"

_POLL_S: Final = 0.2  # how long a record may wait


class _Json(logging.Formatter):
    """A line of JSON a record: what the engine tells, the process, and when it was fetched."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({"time": record.created, "pid": record.process, **getattr(record, "s3", {})})


class _Log:
    """The thread that fetches records, and the handler that was added for the setting."""

    def __init__(self, setting: str | None) -> None:
        self.setting = setting
        self._logger = logging.getLogger(LOGGER_NAME)
        self._before = self._logger.level, self._logger.propagate
        self._handler = _handler(setting)
        if setting is not None:
            self._logger.setLevel(logging.DEBUG)
        if self._handler is not None:
            self._logger.addHandler(self._handler)
            self._logger.propagate = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="s3dataset-request-log", daemon=True)
        _native.set_request_log(True)
        self._thread.start()

    def end(self) -> None:
        self._ending.set()
        self._thread.join(5.0)
        _native.set_request_log(False)
        self.detach()
        if self._handler is not None:
            self._handler.close()

    def detach(self) -> None:
        if self._handler is not None:
            self._logger.removeHandler(self._handler)
        self._logger.level, self._logger.propagate = self._before

    def _run(self) -> None:
        while not self._ending.is_set():
            self._emit(_native.drain_request_log(_POLL_S))
        self._emit(_native.drain_request_log(0.0))

    def _emit(self, records: list[dict[str, Any]]) -> None:
        for record in records:
            self._logger.debug("%s", _Line(record), extra={"s3": record})


class _Line:
    """name=value of what a record has; put into words only where a handler prints it."""

    def __init__(self, record: dict[str, Any]) -> None:
        self._record = record

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self._record.items() if value not in (None, ""))


_lock = threading.Lock()
_log: _Log | None = None
_inherited: str | None = None


def start(setting: str | None) -> None:
    """Turns the log on where `setting`, or the logger's own level, asks for it. A log that is on stays as it is.

    Args:
        setting: "debug" sends records to the logger, and to standard error where logging is not set up. "debug:FILE"
            writes them as lines of JSON to FILE, in which %p stands for the process id. None: on when the logger's own
            level is DEBUG.

    Raises:
        InvalidConfigError: The setting is something else, or its file cannot be written.
    """
    global _log  # noqa: PLW0603 - one log a process
    setting = setting or _inherited
    with _lock:
        if _log is not None or (setting is None and logging.getLogger(LOGGER_NAME).level != logging.DEBUG):
            return
        _log = _Log(setting)
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        # Such a process ends without its atexit handlers.
        from multiprocessing.util import Finalize  # noqa: PLC0415

        Finalize(None, stop, exitpriority=0)


def stop() -> None:
    """Turns the log off after the last record is written."""
    global _log, _inherited
    with _lock:
        log, _log, _inherited = _log, None, None
    if log is not None:
        log.end()


def after_fork_in_child() -> None:
    """Forgets the parent's thread and file; the next client starts the child's own."""
    global _log, _lock, _inherited  # noqa: PLW0603
    _lock = threading.Lock()
    if _log is not None:
        _inherited = _log.setting
        _log.detach()
    _log = None


def _handler(setting: str | None) -> logging.Handler | None:
    if setting is None:
        return None
    level, _, name = setting.partition(":")
    if level.lower() != "debug":
        raise InvalidConfigError(f'S3DATASET_LOG is {setting!r}: write "debug" or "debug:FILE.jsonl" (%p: process id)')
    if not name:
        return None if logging.getLogger(LOGGER_NAME).hasHandlers() else logging.StreamHandler()
    path = Path(name.replace("%p", str(os.getpid()))).expanduser()
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise InvalidConfigError(f"S3DATASET_LOG names {str(path)!r}, which cannot be written: {error}") from None
    handler.setFormatter(_Json())
    return handler
