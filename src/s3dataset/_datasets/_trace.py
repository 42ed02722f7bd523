"""Ranges in the traces of torch.profiler, made only while one is being recorded."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import torch.utils.data
from torch.autograd import profiler

__all__ = ["MAKE_BATCH", "TRANSFORM", "WAIT_FOR_NETWORK", "WAIT_FOR_WORKERS", "ranged"]

R = TypeVar("R")

MAKE_BATCH: Final = "s3dataset: make batch"
WAIT_FOR_WORKERS: Final = "s3dataset: wait for workers"
WAIT_FOR_NETWORK: Final = "s3dataset: wait for network"
TRANSFORM: Final = "s3dataset: transform"


def ranged(name: str, function: Callable[..., R], *args: Any) -> R:
    """Calls the function, as a range of that name if a profiler records this process.

    Without one it costs a look at a global of torch's. A forked worker inherits that, and its parent's profiler would
    never see what it records.
    """
    if profiler._is_profiler_enabled and torch.utils.data.get_worker_info() is None:  # noqa: SLF001 - the cheap way
        with profiler.record_function(name):
            return function(*args)
    return function(*args)
