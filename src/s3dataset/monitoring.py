"""Looking at what s3dataset does: the request log.

Every request to the service can leave a record: operation, bucket, key, range, attempt, status, request id, time to
the first byte, duration, bytes, error. Records go to the logger "s3dataset.request", as attribute `s3` of each log
record; the log is off unless one of these turns it on:

- environment variable `S3DATASET_LOG=debug` (to the logger, and to standard error where logging is not set up), or
  `S3DATASET_LOG=debug:requests-%p.jsonl` (lines of JSON, a file a process: %p is the process id). Worker processes do
  the same, however they are started;
- `start_request_log()`, in this process and in those forked from it;
- level DEBUG of the logger itself, set before the first request.
"""

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
