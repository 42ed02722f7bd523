"""torchdata's StatefulDataLoader: which of its ways need others of ours."""

import sys
from typing import Final

__all__ = ["asked_by_torchdata"]

_PACKAGE: Final = "torchdata."


def asked_by_torchdata() -> bool:
    """Whether the caller of the method that asks this is torchdata's loader.

    It asks a dataset behind each batch and a sampler as it hands out each, so that both stand where its loop is, also
    with workers. It keeps by itself whether its loop has ended, and goes through the iteration that it restores to its
    end before it begins the next one: so a state at the end of an epoch must stay there.
    """
    caller = sys._getframe(2).f_globals.get("__name__", "")  # noqa: SLF001 - no argument or attribute tells
    return isinstance(caller, str) and caller.startswith(_PACKAGE)
