"""Makes the columns about samples, with bounded memory: what was found in shards, in whatever order, or was known."""

import hashlib
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, Final, Protocol

from s3dataset._manifest._samples import CODES, EQUAL, Samples
from s3dataset.errors import InternalError
from s3dataset.formats import ShardIndex

_IN_MEMORY_BYTES: Final = 32 << 20
"""Ends wait in memory up to here, and in an unnamed file from then on: eight million samples."""

_NARROW_MAX: Final = (1 << 32) - 1
_ROWS_AT_ONCE: Final = 8192
_ABSENT: Final = 0xFFFFFFFF


class _Known(Protocol):
    """Shards of which the samples are known, by number."""

    def count(self, row: int) -> int: ...
    def first(self, row: int) -> int: ...
    def width(self, row: int) -> int: ...
    def step(self, row: int) -> int: ...
    def stored_ends(self, row: int) -> bytes | memoryview: ...
    def num_frames(self, row: int) -> int: ...
    def stored_frames(self, row: int) -> Sequence[bytes | memoryview]: ...
    def head(self, row: int) -> bytes: ...


class SampleColumns:
    """Takes the samples of shards, row by row in any order, and writes them as columns.

    Memory: 12 bytes a row, 50 for each shard that was put, 32 MiB, and the samples of one shard. For use by
    one thread.

    Args:
        description: What the header says of the format.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        self.description = dict(description)
        self._spool = _Spool()
        self._known: list[_Known] = [self._spool]
        self._from = array("I")  # which of these a row's samples are in, and where there
        self._there = array("Q")
        self.nbytes = 0
        self.num_samples = 0

    def __len__(self) -> int:
        return len(self._from)

    def put(self, row: int, index: ShardIndex) -> None:
        """Takes what was found in a shard.

        Raises:
            OSError: The disk is full.
            InternalError: The index contradicts itself.
        """
        before = self._spool.nbytes
        self._set(row, 0, self._spool.add(index))
        self.nbytes += self._spool.nbytes - before + 64
        self.num_samples += len(index.ends)

    def keep(self, row: int, samples: Samples, known_row: int) -> None:
        """Takes a shard's samples from another manifest, when they are written."""
        for number in range(len(self._known) - 1, -1, -1):
            if self._known[number] is samples:
                break
        else:
            number = len(self._known)
            self._known.append(samples)
        self._set(row, number, known_row)
        self.num_samples += samples.count(known_row)
        self.nbytes += 64 + samples.width(known_row) * samples.count(known_row) + 24 * samples.num_frames(known_row)

    def _set(self, row: int, number: int, there: int) -> None:
        if row >= len(self._from):
            missing = row + 1 - len(self._from)
            self._from.extend(array("I", [_ABSENT]) * missing)
            self._there.extend(array("Q", [0]) * missing)
        self._from[row] = number
        self._there[row] = there

    def drop_gaps(self) -> list[int]:
        """Moves together what there is, where rows between were not given -> which rows these were."""
        rows = [row for row, number in enumerate(self._from) if number != _ABSENT]
        self._from = array("I", [self._from[row] for row in rows])
        self._there = array("Q", [self._there[row] for row in rows])
        return rows

    def close(self) -> None:
        """Gives up what was collected. Idempotent."""
        self._spool.close()

    # -- Writing ----------------------------------------------------------------------------------------------------

    def columns(self, num_rows: int) -> Iterator[tuple[str, Iterable[bytes | memoryview]]]:
        """The sections in the order of the file, each with its bytes; each is to be used up before the next.

        Raises:
            InternalError: There are not as many shards as rows.
        """
        if len(self._from) != num_rows or _ABSENT in self._from:
            raise InternalError(f"samples are known of other shards than the {num_rows:,} of the manifest")
        yield "sample_counts", self._summed(lambda known, row: known.count(row))
        yield "sample_widths", self._numbers("B", lambda known, row: known.width(row))
        yield "sample_ends_at", self._ends_at()
        yield "sample_ends", self._ends()
        if self._any(lambda known, row: known.first(row)):
            yield "sample_firsts", self._numbers("Q", lambda known, row: known.first(row))
        if self._any(lambda known, row: known.num_frames(row)):
            yield "frame_counts", self._summed(lambda known, row: known.num_frames(row))
            for column, section in enumerate(("frame_starts", "frame_stops", "frame_ends")):
                yield section, (known.stored_frames(row)[column] for known, row in self._rows())
        heads = _Heads()
        head_of = array("I", (heads.number(known.head(row)) for known, row in self._rows()))
        if heads.any:
            first_row = heads.first_rows(head_of)
            yield "head_of", [head_of.tobytes()]
            yield "head_ends", [heads.ends.tobytes()]
            yield "heads", (self._known[self._from[row]].head(self._there[row]) for row in first_row)

    def _rows(self) -> Iterator[tuple[_Known, int]]:
        known = self._known
        return ((known[number], there) for number, there in zip(self._from, self._there, strict=True))

    def _any(self, of: Callable[[_Known, int], int]) -> bool:
        return any(of(known, row) for known, row in self._rows())

    def _numbers(self, code: str, of: Callable[[_Known, int], int]) -> Iterator[bytes]:
        part = array(code)
        for known, row in self._rows():
            part.append(of(known, row))
            if len(part) == _ROWS_AT_ONCE:
                yield part.tobytes()
                del part[:]
        yield part.tobytes()

    def _summed(self, of: Callable[[_Known, int], int]) -> Iterator[bytes]:
        total = 0

        def sum_of(known: _Known, row: int) -> int:
            nonlocal total
            total += of(known, row)
            return total

        return self._numbers("Q", sum_of)

    def _ends_at(self) -> Iterator[bytes]:
        end = 0

        def place_of(known: _Known, row: int) -> int:
            nonlocal end
            width = known.width(row)
            if width == EQUAL:
                return known.step(row)
            start = end + -end % width
            end = start + width * known.count(row)
            return start

        return self._numbers("Q", place_of)

    def _ends(self) -> Iterator[bytes | memoryview]:
        end = 0
        for known, row in self._rows():
            width = known.width(row)
            if width != EQUAL:
                padding = -end % width
                if padding:
                    yield bytes(padding)
                end += padding + width * known.count(row)
                yield known.stored_ends(row)


class _Heads:
    """Tells different heads apart by a digest, so that they need not be kept."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self.ends = array("Q")

    def number(self, head: bytes) -> int:
        digest = hashlib.sha256(head).digest()[:16]
        number = self._numbers.get(digest)
        if number is None:
            number = self._numbers[digest] = len(self.ends)
            self.ends.append((self.ends[-1] if self.ends else 0) + len(head))
        return number

    @property
    def any(self) -> bool:
        """Whether one is not empty."""
        return bool(self.ends) and self.ends[-1] > 0

    @staticmethod
    def first_rows(head_of: "array[int]") -> Iterator[int]:
        """A row for each head, in their order."""
        seen = 0
        for row, number in enumerate(head_of):
            if number == seen:
                seen += 1
                yield row


class _Spool:
    """Shards as they were found: their facts in memory, what is long in a file."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, prefix="s3dataset-")  # noqa: SIM115
        self.nbytes = 0
        self._counts = array("Q")
        self._firsts = array("Q")
        self._widths = array("B")
        self._steps = array("Q")
        self._places = array("Q")  # of the ends, the frames behind them, and the head behind those
        self._frames = array("Q")
        self._heads = array("Q")  # bytes

    def add(self, index: ShardIndex) -> int:
        """Keeps a shard -> its number."""
        width, step, ends = _stored(index)
        frames = index.frames
        if frames is not None and not len(frames.starts) == len(frames.stops) == len(frames.ends):
            raise InternalError("the columns of a shard's frames differ in length")
        parts: list[Any] = [ends]
        if frames is not None:
            parts += [array("Q", column) for column in (frames.starts, frames.stops, frames.ends)]
        parts.append(index.head)
        self._file.seek(self.nbytes)
        self._places.append(self.nbytes)
        for part in parts:
            self.nbytes += memoryview(part).nbytes
            self._file.write(part)
        self._counts.append(len(index.ends))
        self._firsts.append(index.first)
        self._widths.append(width)
        self._steps.append(step)
        self._frames.append(0 if frames is None else len(frames.starts))
        self._heads.append(len(index.head))
        return len(self._counts) - 1

    def close(self) -> None:
        self._file.close()

    def count(self, row: int) -> int:
        return self._counts[row]

    def first(self, row: int) -> int:
        return self._firsts[row]

    def width(self, row: int) -> int:
        return self._widths[row]

    def step(self, row: int) -> int:
        return self._steps[row]

    def num_frames(self, row: int) -> int:
        return self._frames[row]

    def stored_ends(self, row: int) -> bytes:
        return self._read(self._places[row], self._widths[row] * self._counts[row])

    def stored_frames(self, row: int) -> Sequence[bytes]:
        nbytes = 8 * self._frames[row]
        at = self._places[row] + self._widths[row] * self._counts[row]
        return [self._read(at + column * nbytes, nbytes) for column in range(3)]

    def head(self, row: int) -> bytes:
        if not self._heads[row]:
            return b""
        at = self._places[row] + self._widths[row] * self._counts[row] + 24 * self._frames[row]
        return self._read(at, self._heads[row])

    def _read(self, at: int, nbytes: int) -> bytes:
        if not nbytes:
            return b""
        self._file.seek(at)
        return self._file.read(nbytes)


def _stored(index: ShardIndex) -> "tuple[int, int, array[int]]":
    """Width and length of a shard's samples, and the ends to be stored."""
    ends = index.ends
    if isinstance(ends, range) and (not ends or ends.start == index.first + ends.step):
        return EQUAL, ends.step if ends else 0, array("Q")
    if not ends:
        return EQUAL, 0, array("Q")
    width = 4 if ends[-1] <= _NARROW_MAX else 8
    return width, 0, array(CODES[width], ends)
