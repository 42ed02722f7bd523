"""Where to cut a gap of a listing, once it is guessed how keys lie in it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from s3dataset._manifest._tree import Outline

EXACT: Final = 0.005
"""Share of a page by which cuts stand closer than whole pages where pages at both ends of a gap are equally wide."""

LOOSE: Final = 0.1
"""The same where widths vary: keys spread at random fill a page's width with 1,000 give or take 32."""

_GROWTH: Final = 1.7
_MOST_GALLOPS: Final = 8


@dataclass(frozen=True, slots=True)
class Directories:
    """A gap in which directories begin whose names are known."""

    pages: float
    outline: Outline


@dataclass(frozen=True, slots=True)
class Undivided:
    """A gap that is better left alone until the names in it have come."""

    pages: float


@dataclass(frozen=True, slots=True)
class Stretch:
    """A gap in the numbers of a model.

    Attributes:
        pages: How many it seems to hold.
        even: Whether its keys seem to be spread evenly.
        directory: Whose model's numbers these are.
        low: Where it begins.
        high: Where it ends.
        left: Width of a page at its lower end.
        right: Width of one at its upper end; None where that is not known.
        slack: Share of a page's width not to rely on.
    """

    pages: float
    even: bool
    directory: bytes
    low: int
    high: int
    left: int
    right: int | None
    slack: float


def directory_cuts(outline: Outline, cuts: int) -> list[bytes]:
    """The directories nearest to where equal parts would begin."""
    part = outline.keys / (cuts + 1)
    found: list[bytes] = []
    bound = part * 0.5
    for (key, before), (_, after) in pairwise([*outline.cuts, (b"", math.inf)]):
        if len(found) == cuts:
            break
        if before >= bound or after >= bound + part:
            found.append(key)
            bound = before + part * 0.75
    return found


def stretch_cuts(stretch: Stretch, cuts: int) -> Sequence[int]:
    """At most that many numbers to cut at, ascending."""
    if not stretch.even:
        return _gallop(stretch, cuts)
    return _grow(stretch, cuts) if stretch.right is None else _equal(stretch, cuts)


def _equal(stretch: Stretch, cuts: int) -> Sequence[int]:
    """Parts of equally many pages."""
    pages = (stretch.high - stretch.low) / stretch.left
    stride = max(_times(stretch.left, _whole_pages(math.ceil(pages / (cuts + 1)), stretch.slack)), 1)
    return range(stretch.low + stride, stretch.high - stretch.left // 5, stride)[:cuts]


def _grow(stretch: Stretch, cuts: int) -> Sequence[int]:
    """Parts that grow: where keys end sooner than it seems, which nothing at the upper end denies, few are in vain."""
    pages = (stretch.high - stretch.low) / stretch.left
    part = max(pages * (_GROWTH - 1) / (_GROWTH ** (cuts + 1) - 1), 1.0)
    found: list[int] = []
    at = 0.0
    for number in range(cuts):
        at += _whole_pages(part * _GROWTH**number, stretch.slack)
        if at >= pages - 0.2:
            break
        found.append(stretch.low + _times(stretch.left, at))
    return found


def _gallop(stretch: Stretch, cuts: int) -> Sequence[int]:
    """Cuts at distances from the dense ends that multiply: how far the density reaches could be anything."""
    width = stretch.high - stretch.low
    found: set[int] = set()
    ends = [(stretch.left, stretch.low, 1)]
    if stretch.right is not None:
        ends.append((stretch.right, stretch.high, -1))
    for page, base, sign in ends:
        if width < 2 * page:
            continue
        doublings = math.log2(width / page)
        count = min(_MOST_GALLOPS, cuts, max(1, int(doublings / 2)))
        for number in range(1, count + 1):
            distance = 2 ** (doublings * number / (count + 1))
            found.add(base + sign * _times(page, _whole_pages(distance, stretch.slack)))
    return sorted(found)[:cuts]


def _whole_pages(pages: float, slack: float) -> float:
    """So many pages that the last of them is all but full: one that is not costs a request like one that is."""
    whole = max(round(pages), 1)
    return whole - slack * math.sqrt(whole)


def _times(number: int, factor: float) -> int:
    """Their product, for numbers that no float holds exactly."""
    mantissa, exponent = math.frexp(factor)
    scaled = number * int(mantissa * (1 << 53))
    shift = exponent - 53
    return scaled << shift if shift >= 0 else scaled >> -shift
