"""What the iterations of a process hold in blocks, all together."""

import os
import threading

__all__ = ["HeldBytes"]


class HeldBytes:
    """Adds up over all iterations of this process, so that several share what the byte budget leaves them."""

    _lock = threading.RLock()  # the garbage collector may end an iterator in here
    _total = 0

    @classmethod
    def add(cls, nbytes: int) -> None:
        """Counts bytes that are held from now on, or, if negative, no more."""
        with cls._lock:
            cls._total += nbytes

    @classmethod
    def total(cls) -> int:
        """How many there are."""
        return cls._total

    @classmethod
    def begin_process(cls) -> None:
        """A forked child holds nothing."""
        cls._lock = threading.RLock()
        cls._total = 0


os.register_at_fork(after_in_child=HeldBytes.begin_process)
