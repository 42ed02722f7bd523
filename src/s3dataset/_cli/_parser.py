"""The parser of all commands, which tells what was probably meant."""

import argparse
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Never

__all__ = ["Parser"]

_NO_CHOICE = re.compile(r"invalid choice: '(?P<word>[^']*)' \(choose from (?P<choices>.*)\)$", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """Its errors name the option or command that is nearest, and where help is. Options are written out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def parse_known_args(  # type: ignore[override] # what argparse's stubs overload
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Of a subcommand too an unknown word is its own error: the command above would show its usage alone."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = [name for action in self._actions for name in action.option_strings]
            meant = [_nearest(word.partition("=")[0], options) for word in unknown if word.startswith("-")]
            self.error(f"unrecognized arguments: {' '.join(unknown)}{''.join(meant)}")
        return known, unknown

    def error(self, message: str) -> Never:
        """Prints usage and message, and ends the program with status 2."""
        if found := _NO_CHOICE.search(message):
            choices = re.findall(r"[^\s,']+", found["choices"])
            message += _nearest(found["word"], choices)
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {message}\nSee '{self.prog} --help'.\n")


def _nearest(word: str, among: Sequence[str]) -> str:
    begun = [name for name in among if len(word) > len("--") and name.startswith(word)]
    found = begun or get_close_matches(word, among, 1)
    return f" - did you mean {' or '.join(found)}?" if found else ""
