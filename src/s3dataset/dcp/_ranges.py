"""Which bytes of which objects are asked for. Pure arithmetic."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

__all__ = ["MOST_WASTE", "Run", "runs_of", "spans_of"]

MOST_WASTE: Final = 0.05
"""Bytes of gaps that are read along, beside those that are wanted."""


class Run(NamedTuple):
    """Neighbouring segments of one object, which are read as one range."""

    start: int
    end: int
    segments: list[int]
    """Indices of the segments in it, in the order in which they lie there."""


def runs_of(objects: Sequence[Sequence[tuple[int, int]]], max_gap: float) -> list[list[Run]]:
    """Joins segments whose gaps are not worth a request of their own.

    The smallest gaps go first, and only so many of them that all together stay under `MOST_WASTE` of what is wanted.

    Args:
        objects: For each object its segments [start, end), none of them empty. Those that overlap are not joined.
        max_gap: Bytes of a gap at most.

    Returns:
        For each object its runs, in the order in which they lie there.
    """
    orders = [sorted(range(len(segments)), key=segments.__getitem__) for segments in objects]
    wanted = sum(end - start for segments in objects for start, end in segments)
    gaps = sorted(
        (gap, place, position)
        for place, (segments, order) in enumerate(zip(objects, orders, strict=True))
        for position, (before, after) in enumerate(pairwise(order))
        if 0 <= (gap := segments[after][0] - segments[before][1]) <= max_gap
    )
    joined: list[set[int]] = [set() for _ in objects]
    left = wanted * MOST_WASTE
    for gap, place, position in gaps:
        left -= gap
        if left < 0:
            break
        joined[place].add(position)
    return [
        list(_joined(segments, order, bridges))
        for segments, order, bridges in zip(objects, orders, joined, strict=True)
    ]


def _joined(segments: Sequence[tuple[int, int]], order: list[int], bridges: set[int]) -> Iterator[Run]:
    begin = 0
    for position in range(len(order)):
        if position not in bridges:
            members = order[begin : position + 1]
            yield Run(segments[members[0]][0], segments[members[-1]][1], members)
            begin = position + 1


def spans_of(start: int, end: int, part_bytes: int) -> list[tuple[int, int]]:
    """Cuts a range into requests of about the same length, of at most one and a half parts."""
    count = max(1, round((end - start) / part_bytes))
    cuts = [start + (end - start) * i // count for i in range(count + 1)]
    return [(a, b) for a, b in pairwise(cuts) if b > a]
