"""Where the row groups of a Parquet file lie, and a table of some of them from their bytes and the footer alone.

Source: the specification of Apache Parquet: "PAR1", row groups of column chunks, the footer, its length, "PAR1".
"""

import importlib
import io
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from s3dataset.errors import DecodeError
from s3dataset.formats._content import broken, looks_like

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "RowGroup",
    "arrow_errors",
    "file_metadata",
    "footer_file",
    "footer_length",
    "pyarrow",
    "read_footer",
    "read_ranges",
    "row_groups",
    "table_of",
]

_MAGIC: Final = b"PAR1"
_ENCRYPTED: Final = b"PARE"
_TAIL_BYTES: Final = 64 << 10
_READ_BYTES: Final = 16 << 20
_LARGEST_OFFSET: Final = 1 << 62
# Less than a seek costs, see Content.skip.
_GAP_BYTES: Final = 2 << 20


def pyarrow() -> Any:
    """The library, imported when it is needed.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415

        importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError("Parquet needs the package pyarrow: pip install 's3dataset[shards]'") from error
    return pa


def arrow_errors() -> tuple[type[Exception], ...]:
    """What pyarrow raises for bytes in memory that are broken."""
    arrow: type[Exception] = pyarrow().ArrowException
    return arrow, OSError, ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group, as far as the columns wanted go.

    Attributes:
        number: In the file.
        rows: How many.
        ranges: The bytes of the column chunks, in the order of the file; near ones in one.
    """

    number: int
    rows: int
    ranges: tuple[tuple[int, int], ...]

    @property
    def start(self) -> int:
        return self.ranges[0][0]

    @property
    def stop(self) -> int:
        return self.ranges[-1][1]


def footer_length(tail: bytes) -> int | None:
    """The bytes of the footer, from the last eight of the file, which count; None where they are none of Parquet."""
    if len(tail) < 8 or not tail.endswith(_MAGIC):
        return None
    return int.from_bytes(tail[-8:-4], "little") + 8


def read_footer(stream: BinaryIO, url: str) -> bytes:
    try:
        size = stream.seek(0, 2)
    except (OSError, AttributeError):
        raise broken(
            url, "Parquet is read from its end, and this stream cannot seek. Read it into memory first"
        ) from None
    start = max(0, size - _TAIL_BYTES)
    tail = _read(stream, start, size)
    length = footer_length(tail)
    if length is None or length > size - len(_MAGIC):
        if tail.endswith(_ENCRYPTED):
            raise broken(url, "its footer is encrypted, which is not read here. Decrypt it first")
        first = _read(stream, 0, min(size, 512))
        what = "it was cut short: upload it again" if first.startswith(_MAGIC) else "choose another format="
        raise broken(url, f"it is no Parquet file: it begins with {first[:8]!r}{looks_like(first)}; {what}")
    if length > len(tail):
        tail = _read(stream, size - length, size)
    return tail[-length:]


def _read(stream: BinaryIO, start: int, stop: int) -> bytes:
    """The bytes of a range, fewer where the stream ends; read in pieces, so that a wrong length costs no memory."""
    stream.seek(start)
    parts = []
    left = stop - start
    while left and (part := stream.read(min(left, _READ_BYTES))):
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_ranges(stream: BinaryIO, group: RowGroup, url: str) -> list[tuple[int, bytes]]:
    """The bytes of a row group's ranges, each with its place."""
    pieces = []
    for start, stop in group.ranges:
        data = _read(stream, start, stop)
        if len(data) < stop - start:
            raise broken(url, f"it ends inside of row group {group.number}. It was cut short: upload it again")
        pieces.append((start, data))
    return pieces


def footer_file(head: bytes) -> Any:
    """A file of nothing but the footer: enough for what reads no rows."""
    return pyarrow().BufferReader(_MAGIC + head)


@lru_cache(maxsize=64)
def file_metadata(head: bytes, url: str) -> Any:
    try:
        return pyarrow().parquet.read_metadata(footer_file(head))
    except arrow_errors() as error:
        raise broken(url, f"its footer cannot be read ({error}). It was damaged: upload it again") from error


@lru_cache(maxsize=64)
def row_groups(head: bytes, columns: tuple[str, ...] | None, url: str) -> tuple[RowGroup, ...]:
    """The row groups that have rows, with the ranges of the columns.

    Raises:
        DecodeError: The footer is broken, or has no such column.
    """
    metadata = file_metadata(head, url)
    try:
        if columns is not None:
            _check_columns(metadata, columns, url)
        groups = []
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            chunks = [group.column(i) for i in range(group.num_columns)]
            wanted = [chunk for chunk in chunks if columns is None or _selected(chunk.path_in_schema, columns)]
            ranges = _merged(sorted(map(_range_of, wanted)))
            if group.num_rows < 0 or (group.num_rows and not ranges):
                raise ValueError(f"row group {number} has {group.num_rows} rows and no columns")
            if group.num_rows:
                groups.append(RowGroup(number, group.num_rows, ranges))
        return tuple(groups)
    except arrow_errors() as error:
        if isinstance(error, DecodeError):
            raise
        raise broken(url, f"its footer cannot be right ({error}). It was damaged: upload it again") from error


def _check_columns(metadata: Any, columns: Sequence[str], url: str) -> None:
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    missing = [name for name in columns if not any(_selected(path, (name,)) for path in paths)]
    if missing:
        there = sorted({path.split(".")[0] for path in paths})
        raise broken(url, f"it has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, there))}")


def _selected(path: str, columns: Sequence[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in columns)


def _range_of(chunk: Any) -> tuple[int, int]:
    start = chunk.data_page_offset
    if chunk.dictionary_page_offset is not None and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    stop = start + chunk.total_compressed_size
    if not len(_MAGIC) <= start <= stop <= _LARGEST_OFFSET:
        raise ValueError(f"a column chunk lies at bytes {start} to {stop}")
    return start, stop


def _merged(ranges: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for start, stop in ranges:
        if merged and start <= merged[-1][1] + _GAP_BYTES:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return tuple(merged)


def table_of(
    pieces: Sequence[tuple[int, bytes | memoryview]],
    head: bytes,
    groups: Sequence[RowGroup],
    columns: tuple[str, ...] | None,
    url: str,
) -> "pa.Table":
    """The rows of groups whose bytes are there.

    Raises:
        DecodeError: They are broken.
    """
    file = _Pieces(pieces)
    library = pyarrow()
    names = None if columns is None else list(columns)
    try:
        parquet = library.parquet.ParquetFile(library.PythonFile(file, mode="r"), metadata=file_metadata(head, url))
        table: pa.Table = parquet.read_row_groups([group.number for group in groups], columns=names, use_threads=False)
        rows = sum(group.rows for group in groups)
        if table.num_rows != rows:
            raise ValueError(f"{table.num_rows} rows where {rows} are to be")
    except arrow_errors() as error:
        numbers = ", ".join(str(group.number) for group in groups)
        raise broken(
            url, f"row group {numbers} cannot be decoded ({error}). It was damaged: upload it again"
        ) from error
    return table


class _Pieces(io.RawIOBase):
    """A file of which only some ranges are there."""

    def __init__(self, pieces: Sequence[tuple[int, bytes | memoryview]]) -> None:
        super().__init__()
        self._starts = [start for start, _ in pieces]
        self._pieces = pieces
        self._size = pieces[-1][0] + len(pieces[-1][1])
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        stop = self._size if size is None or size < 0 else min(self._position + size, self._size)
        start = self._position
        number = bisect_right(self._starts, start) - 1
        if start >= stop:
            return b""
        begin, data = self._pieces[max(number, 0)]
        if number < 0 or stop > begin + len(data):
            raise ValueError(f"a page reaches to byte {stop}, outside of its column chunk")
        self._position = stop
        return bytes(data[start - begin : stop - begin])
