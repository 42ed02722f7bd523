"""Standard streams that are closed, or whose encoding has no place for what is printed."""

import codecs
import os
import sys
from typing import Final

__all__ = ["give_up_output", "prepare_streams"]

_CLOSED: Final = (("stdin", os.O_WRONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w"))
"""With flags that let the use of the first two fail."""
_PLAIN: Final = {"→": ">", "–": "-", "…": "..."}


def prepare_streams() -> None:
    """Makes printing neither raise UnicodeEncodeError nor end in a file that has nothing to do with it.

    A stream that the caller has closed is opened: left alone, its number would be given to the next file or connection,
    and Python would print messages for people to standard output. Then input and output fail when they are used, as in
    other programs; messages are dropped.
    """
    for number, (name, flags, mode) in enumerate(_CLOSED):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, flags)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    codecs.register_error("s3dataset", _replaced)
    if hasattr(sys.stdout, "reconfigure") and not _holds_all(sys.stdout.encoding):
        sys.stdout.reconfigure(errors="s3dataset")


def give_up_output() -> None:
    """What is still to be printed goes nowhere: the interpreter would try once more when it ends, and complain."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, sys.stdout.fileno())
    os.close(descriptor)


def _holds_all(encoding: str | None) -> bool:
    return codecs.lookup(encoding or "ascii").name.startswith("utf")


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """The error handler: signs of ours become ASCII, all else is escaped with a backslash."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    chars = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in chars), error.end
