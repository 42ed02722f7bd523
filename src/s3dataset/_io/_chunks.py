"""Byte ranges of one object that were fetched or are being fetched, in order. Pure bookkeeping: no I/O."""

from bisect import bisect_right
from collections.abc import Iterator

from s3dataset.errors import InternalError

__all__ = ["Chunk", "ChunkMap"]


class Chunk:
    """Bytes [start, end) of the object: landed when `data` is there, else under way as request `index` of the queue."""

    __slots__ = ("data", "end", "index", "start")

    def __init__(self, start: int, end: int, *, index: int = -1, data: memoryview | None = None) -> None:
        self.start = start
        self.end = end
        self.index = index
        self.data = data

    @property
    def nbytes(self) -> int:
        return self.end - self.start

    def part(self, start: int, end: int) -> memoryview:
        """Bytes [start, end) of the object, which have landed."""
        if self.data is None:
            raise InternalError(f"{self} has no bytes yet")
        return self.data[start - self.start : end - self.start]

    def __repr__(self) -> str:
        state = f"request {self.index}" if self.data is None else "landed"
        return f"Chunk([{self.start}, {self.end}), {state})"


class ChunkMap:
    """Disjoint chunks, sorted by their start."""

    __slots__ = ("_chunks", "_starts")

    def __init__(self) -> None:
        self._chunks: list[Chunk] = []
        self._starts: list[int] = []

    def __len__(self) -> int:
        return len(self._chunks)

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self._chunks.copy())

    @property
    def nbytes(self) -> int:
        return sum(chunk.end - chunk.start for chunk in self._chunks)

    def at(self, position: int) -> Chunk | None:
        """The chunk that holds the byte at `position`."""
        i = bisect_right(self._starts, position) - 1
        if i >= 0 and position < self._chunks[i].end:
            return self._chunks[i]
        return None

    def add(self, chunk: Chunk) -> None:
        i = bisect_right(self._starts, chunk.start)
        before = self._chunks[i - 1].end if i else 0
        after = self._chunks[i].start if i < len(self._chunks) else chunk.end
        if chunk.start >= chunk.end or before > chunk.start or after < chunk.end:
            raise ValueError(f"{chunk} is empty or overlaps with what is there")
        self._chunks.insert(i, chunk)
        self._starts.insert(i, chunk.start)

    def remove(self, chunk: Chunk) -> None:
        i = bisect_right(self._starts, chunk.start) - 1
        if i < 0 or self._chunks[i] is not chunk:
            raise ValueError(f"{chunk} is not in the map")
        del self._chunks[i], self._starts[i]

    def clear(self) -> None:
        self._chunks.clear()
        self._starts.clear()

    def holes(self, start: int, end: int) -> list[tuple[int, int]]:
        """What no chunk covers of [start, end)."""
        holes = []
        i = max(bisect_right(self._starts, start) - 1, 0)
        while start < end and i < len(self._chunks):
            chunk = self._chunks[i]
            if chunk.start >= end:
                break
            if chunk.start > start:
                holes.append((start, chunk.start))
            start = max(start, chunk.end)
            i += 1
        if start < end:
            holes.append((start, end))
        return holes

    def covered_until(self, position: int) -> int:
        """The end of the gapless run of chunks that begins at or before `position`; `position` where none does."""
        i = bisect_right(self._starts, position) - 1
        if i < 0 or self._chunks[i].end <= position:
            return position
        end = self._chunks[i].end
        for chunk in self._chunks[i + 1 :]:
            if chunk.start != end:
                break
            end = chunk.end
        return end

    def bytes_from(self, position: int) -> int:
        """How many bytes at and behind `position` are covered."""
        i = max(bisect_right(self._starts, position) - 1, 0)
        return sum(chunk.end - max(chunk.start, position) for chunk in self._chunks[i:] if chunk.end > position)

    def next_start(self, position: int) -> int | None:
        """Where the first chunk that starts behind `position` starts."""
        i = bisect_right(self._starts, position)
        return self._starts[i] if i < len(self._starts) else None
