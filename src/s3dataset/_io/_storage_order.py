"""In which order torch.load reads the storages of an archive, where that is not the order of the file. Pure: no I/O."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from s3dataset._io._chunks import Chunk

__all__ = ["StorageOrder"]


class StorageOrder:
    """Storages laid end to end in the order of reading: what comes next, and what was read.

    Until version 2.5 torch.save wrote storage 10 behind storage 1, and torch.load has always read it behind storage 9.

    Args:
        storages: [start, end) of each, in the order of reading.
    """

    def __init__(self, storages: Sequence[tuple[int, int]]) -> None:
        self._storages = storages
        self._laid = list(accumulate((end - start for start, end in storages), initial=0))
        self._by_start = sorted((start, number) for number, (start, _) in enumerate(storages))
        self._starts = [start for start, _ in self._by_start]
        self._read = bytearray(len(storages))
        self._current = -1
        self._sent = 0

    @property
    def nbytes(self) -> int:
        """Of all storages."""
        return self._laid[-1]

    def enter(self, position: int) -> int | None:
        """Notes a read at `position`: the storage before it is done with -> its place, laid end to end."""
        at = bisect_right(self._starts, position) - 1
        number = self._by_start[at][1] if at >= 0 else -1
        if number < 0 or position >= self._storages[number][1]:
            return None
        if number != self._current:
            if self._current >= 0:
                self._read[self._current] = 1
            self._current = number
        return self._laid[number] + position - self._storages[number][0]

    def distance(self, start: int, end: int) -> int | None:
        """How far ahead the nearest storage is of which [start, end) has something that was not read; None: none is."""
        nearest: int | None = None
        for at in range(max(bisect_right(self._starts, start) - 1, 0), len(self._starts)):
            first, number = self._by_start[at]
            if first >= end:
                break
            if not self._read[number] and self._storages[number][1] > start:
                ahead = abs(self._laid[number] - self._laid[max(self._current, 0)])
                nearest = ahead if nearest is None else min(nearest, ahead)
        return nearest

    def droppable(self, chunks: Sequence[Chunk], window_bytes: int, keep_bytes: int) -> list[Chunk]:
        """Those of these chunks that need not be kept for storages that were not read yet.

        Where all that is needed is more than the window and what is kept beside it, the nearest fill the window.
        """
        needed = [(ahead, chunk) for chunk in chunks if (ahead := self.distance(chunk.start, chunk.end)) is not None]
        kept = {id(chunk) for _, chunk in needed}
        if sum(chunk.nbytes for _, chunk in needed) > window_bytes + keep_bytes:
            nearest = sorted(needed, key=lambda one: one[0])
            held = accumulate(chunk.nbytes for _, chunk in nearest)
            kept = {id(chunk) for nbytes, (_, chunk) in zip(held, nearest, strict=True) if nbytes <= window_bytes}
        return [chunk for chunk in chunks if id(chunk) not in kept]

    def following(self, place: int, upto: int) -> list[tuple[int, int]]:
        """Ranges of the file that lie at [place, upto) and were not given before, in the order of reading."""
        self._sent = max(self._sent, place)
        ranges = []
        number = bisect_right(self._laid, self._sent) - 1
        while self._sent < upto and number < len(self._storages):
            start = self._storages[number][0] + self._sent - self._laid[number]
            end = self._storages[number][0] + min(upto, self._laid[number + 1]) - self._laid[number]
            if start < end:
                ranges.append((start, end))
            self._sent = self._laid[number] + end - self._storages[number][0]
            number += 1
        return ranges
