"""A worker that was spawned ends when its last batch is out of its hands.

PyTorch lets a worker whose loader is done with it end while a thread still turns batches into shared memory. Processes
that were forked leave at once, but a spawned one takes its interpreter down first, and a thread that comes back into
that from PyTorch's C++ aborts the whole process: "DataLoader worker is killed by signal: Aborted", in a loop that was
left with `break`. Callers of `atexit` are asked just before, while threads can still finish.
"""

import atexit
import functools
import multiprocessing
import threading
import time
from typing import Final

__all__ = ["end_in_order"]

FEEDER: Final = "QueueFeederThread"  # of multiprocessing's queues, in every Python that there is

# The pipe that batches go into takes 64 KiB of their descriptions, which are made in less. Nobody may read it any more:
# a thread that waits for room there is no danger, so nothing is waited for longer.
PATIENCE_S: Final = 1.0


@functools.cache
def end_in_order() -> None:
    """Has this process, if it is a child of multiprocessing, finish what its queues are sending before it ends."""
    atexit.register(_finish_sending)


def _finish_sending() -> None:
    if multiprocessing.parent_process() is None:  # known only after a child has read its pickle
        return
    deadline = time.monotonic() + PATIENCE_S
    for thread in threading.enumerate():
        if thread.name == FEEDER:
            thread.join(max(0.0, deadline - time.monotonic()))
