"""Where the samples of a manifest's shards lie, read in place from its columns; see `_columns` for their layout."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from s3dataset.formats import Frames, ShardIndex

if TYPE_CHECKING:
    from s3dataset._manifest._columns import Columns

EQUAL: Final = 0
"""The width of ends that are not stored: all samples of the shard are equally long."""

CODES: Final = {4: "I", 8: "Q"}
"""Of `array` and `memoryview`, by width."""


class SamplePlace(NamedTuple):
    """Where a sample lies, and what to fetch for it.

    Attributes:
        shard: Its shard, as a position in the manifest.
        number: Which sample of the shard it is.
        start: First byte of the object to fetch: of the sample itself, or of the frames that it lies in.
        stop: Behind the last byte to fetch.
        offset: Where the sample begins in what the fetched bytes decode to: bytes, or rows.
        end: Where it ends there. Without frames the bytes are the sample, and these are 0 and their number.
    """

    shard: int
    number: int
    start: int
    stop: int
    offset: int
    end: int


class Samples:
    """Sample offsets over a manifest's columns. Immutable; safe between threads and after forks."""

    __slots__ = (
        "_at",
        "_firsts",
        "_frame_counts",
        "_frame_ends",
        "_frame_starts",
        "_frame_stops",
        "_head_ends",
        "_head_of",
        "_heads",
        "_narrow",
        "_stored",
        "_wide",
        "_widths",
        "counts",
        "description",
        "objects_fingerprint",
    )

    def __init__(self, columns: "Columns") -> None:
        header = columns.header["samples"]
        self.description: Any = header["format"]
        self.objects_fingerprint = str(header["objects_fingerprint"])
        empty = memoryview(b"")

        def numbers(section: str, code: Any) -> memoryview:
            column = columns.section(section)
            return (empty if column is None else column).cast(code)

        self.counts = numbers("sample_counts", "Q")
        self._widths = numbers("sample_widths", "B")
        self._at = numbers("sample_ends_at", "Q")
        self._firsts = numbers("sample_firsts", "Q") if columns.has("sample_firsts") else None
        self._stored = stored = columns.section("sample_ends") or empty
        self._narrow = stored.cast("I")
        self._wide = stored[: len(stored) // 8 * 8].cast("Q")
        self._frame_counts = numbers("frame_counts", "Q") if columns.has("frame_counts") else None
        self._frame_starts = numbers("frame_starts", "Q")
        self._frame_stops = numbers("frame_stops", "Q")
        self._frame_ends = numbers("frame_ends", "Q")
        self._head_of = numbers("head_of", "I") if columns.has("head_of") else None
        self._head_ends = numbers("head_ends", "Q")
        self._heads = columns.section("heads") or empty

    @property
    def num_samples(self) -> int:
        return self.counts[-1] if len(self.counts) else 0

    # -- One shard; `row` must be in range --------------------------------------------------------------------------

    def count(self, row: int) -> int:
        counts = self.counts
        before = counts[row - 1] if row else 0
        return int(counts[row] - before)

    def first(self, row: int) -> int:
        return 0 if self._firsts is None else self._firsts[row]

    def width(self, row: int) -> int:
        return self._widths[row]

    def step(self, row: int) -> int:
        """How long each sample is, where the width is `EQUAL`."""
        return self._at[row]

    def stored_ends(self, row: int) -> memoryview:
        """Its ends as they are stored: bytes."""
        at = self._at[row]
        width = self._widths[row]
        return self._stored[at : at + width * self.count(row)] if width else memoryview(b"")

    def ends(self, row: int) -> Sequence[int]:
        width = self._widths[row]
        count, at = self.count(row), self._at[row]
        if width:
            return self.stored_ends(row).cast("I" if width == 4 else "Q")
        first = self.first(row)
        return range(first + at, first + at * count + 1, at) if count else ()

    def num_frames(self, row: int) -> int:
        lo, hi = self._frame_span(row)
        return hi - lo

    def stored_frames(self, row: int) -> tuple[memoryview, memoryview, memoryview]:
        """Starts, stops and ends of its frames."""
        lo, hi = self._frame_span(row)
        return self._frame_starts[lo:hi], self._frame_stops[lo:hi], self._frame_ends[lo:hi]

    def _frame_span(self, row: int) -> tuple[int, int]:
        counts = self._frame_counts
        if counts is None:
            return 0, 0
        return (counts[row - 1] if row else 0), counts[row]

    def head(self, row: int) -> bytes:
        if self._head_of is None:
            return b""
        number = self._head_of[row]
        return bytes(self._heads[self._head_ends[number - 1] if number else 0 : self._head_ends[number]])

    def shard(self, row: int) -> ShardIndex:
        """All of a shard's samples."""
        frames = None
        if self.num_frames(row):
            starts, stops, ends = (array("Q", column) for column in self.stored_frames(row))
            frames = Frames(starts, stops, ends)
        return ShardIndex(self.ends(row), self.first(row), frames, self.head(row))

    # -- Many samples -----------------------------------------------------------------------------------------------

    def places(self, positions: Iterable[int]) -> list[SamplePlace]:
        """Where samples lie, by their numbers over all shards, from 0 on: one to three microseconds each.

        Raises:
            IndexError: A position is out of range.
        """
        counts, widths, at, firsts = self.counts, self._widths, self._at, self._firsts
        narrow, wide, frame_counts = self._narrow, self._wide, self._frame_counts
        new, kind = tuple.__new__, SamplePlace
        total = self.num_samples
        low = high = width = base = first = row = 0
        found: list[SamplePlace] = []
        append = found.append
        for position in positions:
            if not low <= position < high:
                if not 0 <= position < total:
                    raise IndexError(f"sample {position} is out of range for {total:,} samples")
                row = bisect_right(counts, position)
                low = counts[row - 1] if row else 0
                high = counts[row]
                width, base = widths[row], at[row]
                first = 0 if firsts is None else firsts[row]
            number = position - low
            if width == 4:
                place = (base >> 2) + number
                stop = narrow[place]
                start = narrow[place - 1] if number else first
            elif width:
                place = (base >> 3) + number
                stop = wide[place]
                start = wide[place - 1] if number else first
            else:
                start = first + number * base
                stop = start + base
            if frame_counts is None or (found_in := self._in_frames(row, start, stop)) is None:
                append(new(kind, (row, number, start, stop, 0, stop - start)))
            else:
                append(new(kind, (row, number, *found_in)))
        return found

    def _in_frames(self, row: int, start: int, stop: int) -> tuple[int, int, int, int] | None:
        """For content [start, stop): bytes to fetch, and where it lies in what they decode to; None without frames."""
        lo, hi = self._frame_span(row)
        if lo == hi:
            return None
        ends = self._frame_ends
        head = min(bisect_right(ends, start, lo, hi), hi - 1)  # empty samples at the end of the content
        tail = min(max(bisect_left(ends, stop, lo, hi), head), hi - 1)
        base = ends[head - 1] if head > lo else 0
        return self._frame_starts[head], self._frame_stops[tail], start - base, stop - base
