"""What commands print with: messages, JSON, numbers for people, pictures of characters."""

import json
import os
import re
import shutil
import sys
import textwrap
import warnings
from argparse import HelpFormatter, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TextIO

__all__ = [
    "EXIT_STATUS",
    "HelpLayout",
    "Paint",
    "as_json",
    "bar",
    "binary_bytes",
    "columns",
    "counted",
    "failed",
    "noted_warnings",
    "paragraph",
    "print_json",
    "print_table",
    "readable_bytes",
    "tell",
]

EXIT_STATUS: Final = (
    "exit status: 0: done; 1: it failed, and the reason is on standard error; 2: wrong usage; 130: Ctrl-C"
)
_EXAMPLE: Final = re.compile(r"( +\S.*?) {2,}(\S.*)")
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_COLOURS: Final = {"good": "32", "warn": "33", "bad": "31", "quiet": "2", "strong": "1"}
_TEXT_WIDTH: Final = 100
_LEAST_WIDTH: Final = 30


class HelpLayout(HelpFormatter):
    """Wraps descriptions; leaves epilogs with examples as they stand where they fit."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return "\n".join(indent + line for given in text.splitlines() for line in _fitted(given, width))
        return super()._fill_text(text, width, indent)


def _fitted(line: str, width: int) -> list[str]:
    """An example that is too long has its explanation below it, and stays whole: people copy it. Prose is wrapped."""
    if len(line) <= width:
        return [line]
    if (example := _EXAMPLE.fullmatch(line)) is not None:
        return [example[1], *textwrap.wrap(example[2], width, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    if line.startswith("  s3dataset"):
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(line, width, subsequent_indent=indent or "  ", break_on_hyphens=False, break_long_words=False)


def tell(message: object) -> None:
    """A line for people, on standard error."""
    print(f"s3dataset: {message}", file=sys.stderr)


def print_json(document: Any) -> None:
    """The one JSON document of a command, on standard output."""
    print(as_json(document))


def as_json(document: Any) -> str:
    """JSON in the characters that standard output has."""
    text = json.dumps(document, ensure_ascii=False)
    return text if _can_print(text) else json.dumps(document)


def failed(arguments: Namespace, error: BaseException | str, *, is_told: bool = False) -> int:
    """Says why a command failed: as a line, if nobody did, and with `--json` as its document -> its exit status."""
    notes = [str(note) for note in getattr(error, "__notes__", ())]
    if not is_told:
        tell("\n  ".join([str(error), *notes]))
    if getattr(arguments, "json", False):
        facts = {"type": None if isinstance(error, str) else type(error).__name__, "message": str(error)}
        for name in ("code", "status", "uri"):
            facts[name] = getattr(error, name, None) or None
        print_json({"error": facts | {"notes": notes}})
    return 1


@contextmanager
def noted_warnings() -> Iterator[None]:
    """Prints the warnings of the block as lines, at its end."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            for warning in caught:
                tell(warning.message)


# -- Numbers -----------------------------------------------------------------------------------------------------------


def readable_bytes(count: float) -> str:
    """The count with a decimal unit: 1,234,567 is "1.2 MB"."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} PB"


def binary_bytes(count: int) -> str:
    """The count in whole binary units: 8,388,608 is "8 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count} {unit}"
        count //= 1024
    return f"{count} TiB"


def counted(count: int, noun: str) -> str:
    """The count with its noun: "1 object", "1,797 objects"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# -- Layout ------------------------------------------------------------------------------------------------------------


class Paint:
    """Colours on a terminal; plain text in pipes, under NO_COLOR and on terminals that know no colours."""

    def __init__(self, stream: TextIO) -> None:
        self._on = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def __call__(self, text: str, colour: str) -> str:
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._on and text else text


def bar(share: float, width: int) -> str:
    """A bar that fills `share` of `width` characters, in eighths of one; something above nothing is never invisible."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    if share > 0:
        eighths = max(eighths, 1)
    if not _can_print("█" + _EIGHTHS):
        return ("#" * -(-eighths // 8)).ljust(width)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def columns(most: int) -> int:
    """The terminal's width, at most so many; the same for pipes."""
    return max(_LEAST_WIDTH, min(most, shutil.get_terminal_size().columns)) if sys.stdout.isatty() else most


def paragraph(text: str, mark: str = "", *, indent: int = 0) -> str:
    """Text wrapped to be printed with an indent, the lines behind the first one indented by the mark's width."""
    width = max(_LEAST_WIDTH, columns(_TEXT_WIDTH + indent) - indent)
    return textwrap.fill(
        text, width, initial_indent=mark, subsequent_indent=" " * len(mark), break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip


def print_table(rows: Sequence[Sequence[str]], align: str, *, indent: str = "") -> None:
    """Rows in columns; `align` has a "<" or ">" for each."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(align))]
    for row in rows:
        cells = (
            cell.ljust(width) if side == "<" else cell.rjust(width)
            for cell, width, side in zip(row, widths, align, strict=True)
        )
        print(f"{indent}{'  '.join(cells)}".rstrip())


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
