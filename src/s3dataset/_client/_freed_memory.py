"""Memory of one batch serves for the next.

The C library of Linux gives freed memory back to the system as soon as 128 KiB of it lie at the end of its heap, and
the next batch of `bytes` faults it in again page by page: a third of the time of a batch of 25 MiB. It has the cure
itself: freeing a block that the system was asked for raises the size from which it asks the system, and twice that is
what it keeps from then on. Programs that use large arrays come there by chance; here it is done on purpose. Whoever
sets `MALLOC_TRIM_THRESHOLD_` or one of its like has decided otherwise, and the C library then leaves its limits alone.
"""

import sys
from typing import Final

__all__ = ["keep_freed_memory"]

_BLOCK_BYTES: Final = (32 << 20) - (64 << 10)
"""The largest that counts is 32 MiB with what the C library adds: up to 64 MiB are kept, two batches of 256 samples of
100 KiB."""


def keep_freed_memory() -> None:
    """Has the C library of this process keep up to 64 MiB that were freed, instead of 128 KiB.

    Nothing is touched, so that it takes some microseconds and no memory. Means nothing to other C libraries and to
    allocators that were preloaded.
    """
    if sys.platform == "linux":
        bytes(_BLOCK_BYTES)
