"""Whether something grew: values at rest of the second quarter beside those of the last, and the slope of memory."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.soak.measure import Sample

__all__ = ["LEAST_AT_REST", "SERIES", "Series", "growth", "problems"]

LEAST_AT_REST: Final = 8
"""Of fewer samples between two pieces of work nothing can be said."""
_JUDGED_FROM_S: Final = 240.0
"""Memory is judged in runs that last longer. It takes minutes until every path was taken, and pools are full."""
_POINTS: Final = 300
_LOWEST_POINTS: Final = 30


@dataclass(frozen=True, slots=True)
class Series:
    """One of the figures, and what growth of it is still noise.

    Attributes:
        allowed: In its own unit, from the second quarter to the last.
        allowed_share: The same as a share of the second quarter's median; the greater of the two counts.
        at_most: What no sample at rest may exceed.
        slow: Settles within minutes rather than seconds.
        lowest: Comes and goes by itself, as what an allocator keeps in reserve does: what a leak holds is never given
            back, so the lowest tenth of the values tells it. Elsewhere the median is looked at.
    """

    title: str
    of: Callable[[Sample], float]
    allowed: float
    allowed_share: float = 0.0
    at_most: float | None = None
    slow: bool = False
    lowest: bool = False


SERIES: Final = (
    Series("threads", lambda s: s.num_threads, 2),
    # The clients used last are kept, and it takes minutes until there are as many as may be.
    Series("descriptors that are no sockets", lambda s: s.descriptors - s.sockets, 3, slow=True),
    Series("sockets that the engine forgot", lambda s: s.sockets - s.connections, 6),
    Series("connections", lambda s: s.connections, 150, at_most=2 * 256 + 16, slow=True),
    Series("child processes", lambda s: s.children, 0.5, at_most=3),
    Series("files in the temporary folder", lambda s: s.files, 25, slow=True),
    Series("requests in flight", lambda s: s.in_flight, 0.5),
    Series("budget in use, MB", lambda s: s.memory_in_use_mb, 0.5),
    Series("Python objects", lambda s: s.python_objects, 1000, slow=True),
    Series("heap in use, MB", lambda s: s.heap_mb, 3.0, slow=True, lowest=True),
    Series("own memory, MB", lambda s: s.anonymous_mb, 12.0, slow=True, lowest=True),
    Series("workers that stay, MB", lambda s: s.children_anonymous_mb, 12.0, slow=True),
    # Objects that were replaced are in it until the allocator gives them up.
    Series("the server, resident, MB", lambda s: s.server_rss_mb, 50.0, slow=True),
    Series("the server's descriptors", lambda s: s.server_descriptors, 250, at_most=1100, slow=True),
)


def growth(samples: Sequence[Sample], series: Series) -> tuple[float, float, float]:
    """Values at rest of the second quarter and of the last, and the slope from the first of these to the end, an hour.

    The slope is Theil's and Sen's, the median over all pairs: what a single peak does to it is nothing.
    """
    rest = [sample for sample in samples if sample.at_rest]
    count = len(rest)
    quarters = [[series.of(s) for s in rest[count * q // 4 : count * (q + 1) // 4]] for q in range(4)]
    late = rest[count // 4 :]
    step = max(1, len(late) // (_LOWEST_POINTS if series.lowest else _POINTS))
    groups = [late[i : i + step] for i in range(0, len(late), step)]
    points = [
        (group[0].at_s / 3600, _typical([series.of(s) for s in (group if series.lowest else group[:1])], series))
        for group in groups
    ]
    slopes = [(b - a) / (t - s) for i, (s, a) in enumerate(points) for t, b in points[i + 1 :] if t > s]
    return _typical(quarters[1], series), _typical(quarters[3], series), statistics.median(slopes)


def _typical(values: Sequence[float], series: Series) -> float:
    return sorted(values)[len(values) // 10] if series.lowest else statistics.median(values)


def problems(samples: Sequence[Sample]) -> list[str]:
    """What is not flat, in words; [] when nothing grew."""
    rest = [sample for sample in samples if sample.at_rest]
    if len(rest) < LEAST_AT_REST:
        return [f"only {len(rest)} samples at rest: nothing can be said of growth"]
    duration_s = rest[-1].at_s
    found = []
    for series in SERIES:
        if series.at_most is not None and (most := max(map(series.of, rest))) > series.at_most:
            found.append(f"{series.title}: {most:,.0f} at rest, where at most {series.at_most:,.0f} are right")
        if series.slow and duration_s < _JUDGED_FROM_S:
            continue
        before, after, slope = growth(samples, series)
        allowed = max(series.allowed, series.allowed_share * before)
        if after - before > allowed:
            found.append(
                f"{series.title}: grew from {before:,.1f} in the second quarter to {after:,.1f} in the last, "
                f"where {allowed:,.1f} more is noise"
            )
        elif series.slow and slope * duration_s * 0.75 / 3600 > 1.5 * allowed:
            found.append(f"{series.title}: grows by {slope:,.1f} an hour from the second quarter on")
    return found
