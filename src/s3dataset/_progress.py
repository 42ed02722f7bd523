"""How far a transfer is, for whoever looks at a terminal."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["Progress", "showing"]

_PATIENCE_S: Final = 2.0
_USUAL_SIZE: Final = {"ncols": 80, "nrows": 24}

Progress = Callable[[int, int], None]
"""Is told (bytes that are done, all bytes)."""


@contextmanager
def showing(progress: Progress | bool | None, title: str, *, unit: str = "B") -> Iterator[Progress | None]:
    """-> what is to be told (bytes done, all bytes): the caller's function, a bar on a terminal, or nothing."""
    if callable(progress):
        yield progress
        return
    if progress is False or not sys.stderr.isatty():
        yield None
        return
    try:
        from tqdm.auto import tqdm  # noqa: PLC0415 - an optional one
    except ImportError:
        yield None
        return
    size: Any = {} if _columns() else _USUAL_SIZE
    with tqdm(desc=title, unit=unit, unit_scale=True, delay=_PATIENCE_S, leave=False, **size) as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tell


def _columns() -> int:
    """0 on terminals that do not tell, as in some containers, where tqdm would draw nothing."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return 0
