"""What the iterations of a process hold in blocks, all together."""

import os
import threading
from typing import ClassVar

__all__ = ["HeldBytes"]


class HeldBytes:
    """Adds up over all iterations of a process, so that several share what the byte budget leaves them.

    An iteration that a forked child inherits goes on adding to what was its parent's, which counts for nothing there.
    """

    _mine: ClassVar["HeldBytes"]

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the garbage collector may end an iterator in here
        self._total = 0

    @classmethod
    def of_process(cls) -> "HeldBytes":
        """Those of this process."""
        return cls._mine

    def add(self, nbytes: int) -> None:
        """Counts bytes that are held from now on, or, if negative, no more."""
        with self._lock:
            self._total += nbytes

    def total(self) -> int:
        """How many there are."""
        return self._total

    @classmethod
    def begin_process(cls) -> None:
        """A forked child holds nothing."""
        cls._mine._lock = threading.RLock()  # noqa: SLF001 - another thread of the parent may have had it
        cls._mine = cls()


HeldBytes._mine = HeldBytes()  # noqa: SLF001
os.register_at_fork(after_in_child=HeldBytes.begin_process)
