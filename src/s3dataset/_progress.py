"""How far a transfer is, for whoever looks at a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["Progress", "showing"]

_PATIENCE_S: Final = 2.0

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
    with tqdm(desc=title, unit=unit, unit_scale=True, delay=_PATIENCE_S, leave=False) as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tell
