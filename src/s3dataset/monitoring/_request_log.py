"""The request log, turned on and off."""

import os
from typing import Final

from s3dataset._client import _request_log

__all__ = ["REQUEST_LOGGER", "start_request_log", "stop_request_log"]

REQUEST_LOGGER: Final = _request_log.LOGGER_NAME
"""Name of the logger that gets a record a request."""


def start_request_log(path: str | os.PathLike[str] | None = None) -> None:
    """Turns the request log on in this process; one that is on stays as it is.

    Costs the engine next to nothing, and a thread of Python's the price of a log record a request. When requests outrun
    that thread by 65,536, the oldest records are lost.

    Args:
        path: File for lines of JSON, appended to; %p stands for the process id. None: the logger alone.

    Raises:
        InvalidConfigError: The file cannot be written.
    """
    _request_log.start("debug" if path is None else f"debug:{os.fspath(path)}")


def stop_request_log() -> None:
    """Turns the request log off, after the records of all finished requests are written."""
    _request_log.stop()
