"""Patterns that choose keys: globs with braces."""

import re
from functools import lru_cache
from typing import Final

from s3dataset.errors import InvalidConfigError

_MOST_ALTERNATIVES: Final = 10_000
_NUMBERS: Final = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?\Z")
_LETTERS: Final = re.compile(r"([A-Za-z])\.\.([A-Za-z])\Z")


class Pattern:
    """A glob on what follows the prefix in a key.

    ``*`` and ``?`` stand for any characters and for one, but not for a slash; ``**`` stands for any characters,
    slashes too, and ``**/`` also for nothing; ``[a-c]`` and ``[!a-c]`` for one of these, or of the others;
    ``{jpg,jpeg}`` for either; ``{000..099}`` for the numbers, with leading zeros as written, ``{a..f}`` for letters,
    ``{0..90..10}`` for every tenth; a backslash takes the next character as it is. A pattern without a slash is about
    the last component of a key, in whatever folder it lies; one with a slash is about all that follows the prefix.
    Capitals count. Names that begin with a dot are names like others.
    """

    __slots__ = ("_match", "_whole", "text")

    def __init__(self, text: str) -> None:
        """Compiles.

        Raises:
            InvalidConfigError: It is no pattern; the message quotes it.
            TypeError: It is no string.
        """
        if not isinstance(text, str):
            raise TypeError(f"pattern must be a str such as '*.jpg', not {type(text).__name__}: {text!r}")
        if not text:
            raise InvalidConfigError(
                "pattern is empty: leave it out to take every object, or write one such as '*.jpg'"
            )
        self.text = text
        self._whole = "/" in text
        parser = _Parser(text)
        self._match = re.compile(parser.parse(), re.DOTALL).fullmatch

    def matches(self, rest: str) -> bool:
        """Whether it chooses a key, given by what follows the prefix."""
        return self._match(rest if self._whole else rest.rpartition("/")[2]) is not None

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"


@lru_cache(maxsize=64)
def compile_pattern(text: str) -> Pattern:
    """A pattern, compiled once.

    Raises:
        InvalidConfigError: It is no pattern.
    """
    return Pattern(text)


def check_pattern(text: str) -> None:
    """Checks the syntax of a pattern.

    Raises:
        InvalidConfigError: It is no pattern; a ValueError whose message quotes it.
        TypeError: It is no string.
    """
    Pattern(text)


class _Parser:
    """Recursive descent from the glob to a regular expression."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def parse(self) -> str:
        found = self._sequence(depth=0)
        if self._at < len(self._text):
            raise self._error(f"there is a '}}' at {self._at} without its '{{'")
        return found

    def _error(self, why: str) -> InvalidConfigError:
        return InvalidConfigError(
            f"pattern {self._text!r} cannot be read: {why}. A backslash makes a special character ordinary"
        )

    def _sequence(self, depth: int) -> str:
        text = self._text
        found: list[str] = []
        while self._at < len(text):
            character = text[self._at]
            if depth and character in ",}":
                break
            if character == "}":
                break
            self._at += 1
            if character == "*":
                found.append(self._stars())
            elif character == "?":
                found.append("[^/]")
            elif character == "[":
                found.append(self._set())
            elif character == "{":
                found.append(self._braces(depth))
            elif character == "\\":
                if self._at == len(text):
                    raise self._error("it ends with a backslash")
                found.append(re.escape(text[self._at]))
                self._at += 1
            else:
                found.append(re.escape(character))
        return "".join(found)

    def _stars(self) -> str:
        text = self._text
        if not text.startswith("*", self._at):
            return "[^/]*"
        begins = self._at == 1 or text[self._at - 2] in "/{,"
        while text.startswith("*", self._at):
            self._at += 1
        if begins and text.startswith("/", self._at):
            self._at += 1
            return "(?:.*/)?"
        return ".*"

    def _set(self) -> str:
        text, begin = self._text, self._at - 1
        negated = text[self._at : self._at + 1] in ("!", "^") and self._at < len(text)
        if negated:
            self._at += 1
        items = []
        first = True
        while True:
            if self._at >= len(text):
                raise self._error(f"the '[' at {begin} has no ']'")
            character = text[self._at]
            if character == "]" and not first:
                self._at += 1
                break
            first = False
            low = self._set_character()
            if text.startswith("-", self._at) and text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                high = self._set_character()
                if high < low:
                    raise self._error(f"in the set at {begin}, {low!r} comes after {high!r}")
                items.append(f"{re.escape(low)}-{re.escape(high)}")
            else:
                items.append(re.escape(low))
        # A set never stands for a slash: "[!a]" means a character of the same name.
        return f"(?!/)[{'^' if negated else ''}{''.join(items)}]"

    def _set_character(self) -> str:
        text = self._text
        if text[self._at] == "\\" and self._at + 1 < len(text):
            self._at += 1
        self._at += 1
        return text[self._at - 1]

    def _braces(self, depth: int) -> str:
        text, begin = self._text, self._at - 1
        end = text.find("}", self._at)
        inside = text[self._at : end] if end >= 0 else ""
        if ".." in inside and "," not in inside and "{" not in inside:
            self._at = end + 1
            return self._range(inside)
        alternatives = [self._sequence(depth + 1)]
        while self._at < len(text) and text[self._at] == ",":
            self._at += 1
            alternatives.append(self._sequence(depth + 1))
        if self._at >= len(text):
            raise self._error(f"the '{{' at {begin} has no '}}'")
        self._at += 1
        if len(alternatives) == 1:
            raise self._error(f"the braces at {begin} hold one alternative: write '{{a,b}}' or '{{000..099}}'")
        return f"(?:{'|'.join(alternatives)})"

    def _range(self, inside: str) -> str:
        letters = _LETTERS.match(inside)
        if letters is not None:
            low, high = letters.groups()
            step = 1 if low <= high else -1
            members = [chr(code) for code in range(ord(low), ord(high) + step, step)]
            return f"(?:{'|'.join(map(re.escape, members))})"
        numbers = _NUMBERS.match(inside)
        if numbers is None:
            raise self._error(f"{{{inside}}} is no range: write '{{000..099}}', '{{0..90..10}}' or '{{a..f}}'")
        first, last, by = numbers.groups()
        low_number, high_number = sorted((int(first), int(last)))
        step = abs(int(by)) if by is not None else 1
        if not step:
            raise self._error(f"{{{inside}}} has a step of 0")
        padded = any(len(number.lstrip("-")) > 1 and number.lstrip("-").startswith("0") for number in (first, last))
        width = max(len(first), len(last)) if padded else 0
        if step == 1 and low_number >= 0:
            return _number_range(low_number, high_number, width)
        start = int(first)
        members_of = range(start, int(last) + (1 if int(last) >= start else -1), step if int(last) >= start else -step)
        if len(members_of) > _MOST_ALTERNATIVES:
            raise self._error(f"{{{inside}}} stands for {len(members_of):,} numbers, {_MOST_ALTERNATIVES:,} at most")
        return f"(?:{'|'.join(re.escape(f'{number:0{width}d}') for number in members_of)})"


def _number_range(low: int, high: int, width: int) -> str:
    """An expression for the numbers from low to high; `width` > 0: with leading zeros up to so many digits.

    Built digit by digit, so that {00000000..99999999} is as cheap as {0..9}.
    """
    found: list[str] = []
    for length in range(len(str(low)), len(str(high)) + 1):
        begin = max(low, 10 ** (length - 1) if length > 1 else 0)
        end = min(high, 10**length - 1)
        if begin <= end:
            zeros = "0" * (width - length) if width > length else ""
            found.extend(zeros + part for part in _same_length(str(begin), str(end)))
    return f"(?:{'|'.join(found)})"


def _same_length(low: str, high: str) -> list[str]:
    """Expressions for the numbers from low to high, which have equally many digits."""
    if not low:
        return [""]
    rest = len(low) - 1
    if low[0] == high[0]:
        return [low[0] + tail for tail in _same_length(low[1:], high[1:])]
    found: list[str] = []
    any_rest = f"[0-9]{{{rest}}}" if rest else ""
    first, last = int(low[0]), int(high[0])
    if set(low[1:]) > {"0"} or (rest and low[1:] != "0" * rest):
        found.extend(low[0] + tail for tail in _same_length(low[1:], "9" * rest))
        first += 1
    tails = []
    if rest and high[1:] != "9" * rest:
        tails = [high[0] + tail for tail in _same_length("0" * rest, high[1:])]
        last -= 1
    if first <= last:
        found.append(f"[{first}-{last}]{any_rest}" if first < last else f"{first}{any_rest}")
    return found + tails
