"""Warnings that name the line of the program that they are about, not one of this package."""

import sys
import warnings
from types import FrameType
from typing import Any, Final

__all__ = ["warn_caller"]

_ON_THE_WAY: Final = frozenset(
    {
        "concurrent",
        "contextlib",
        "fsspec",
        "functools",
        "lightning",
        "pytorch_lightning",
        "s3dataset",
        "threading",
        "torch",
    }
)
"""Packages whose lines tell nobody anything: ours, and those that call us on the user's behalf."""


def warn_caller(message: str, category: type[Warning] = UserWarning, *, source: Any = None) -> None:
    """As `warnings.warn`, for the nearest line of the calling program.

    `skip_file_prefixes`, which does the same, is there since Python 3.12 only. In a thread with no line of the program
    on its stack, the outermost one is named.

    Args:
        message: What is the matter, and what to do about it.
        category: Of the warning.
        source: What was destroyed, for a ResourceWarning.
    """
    frame = _line_of_the_program(sys._getframe(1))  # noqa: SLF001 - the documented way to a stack without its text
    names = frame.f_globals
    warnings.warn_explicit(
        message,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=names.get("__name__", "<string>"),
        registry=names.setdefault("__warningregistry__", {}),
        source=source,
    )


def _line_of_the_program(frame: FrameType) -> FrameType:
    while str(frame.f_globals.get("__name__", "")).partition(".")[0] in _ON_THE_WAY and frame.f_back is not None:
        frame = frame.f_back
    return frame
