"""Parquet: a row is a sample, a row group what is fetched and decoded together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Final

from s3dataset.errors import DecodeError
from s3dataset.formats._content import broken
from s3dataset.formats._format import Compression, Cursor, Frames, OnBad, Sample, ShardIndex
from s3dataset.formats._parquet_filters import Filter
from s3dataset.formats._parquet_layout import (
    RowGroup,
    arrow_errors,
    pyarrow,
    read_footer,
    read_ranges,
    row_groups,
    table_of,
)
from s3dataset.formats._parquet_writer import ParquetWriter
from s3dataset.formats._streamed import key_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Parquet"]

_BATCH_ROWS: Final = 1024


@dataclass(frozen=True, slots=True)
class Parquet:
    """Parquet files: a row is a sample, its columns the fields. Needs pyarrow (`pip install 's3dataset[shards]'`).

    Values are Python objects as `to_pylist` gives them, except that lists of numbers without nulls become NumPy arrays.
    A column `__key__` names the sample, else the row's number among those read does ("00000000"). A row group is read
    and decoded as a whole, so it is what stays in memory while its rows are taken, and what a row at random costs; the
    stream has to seek. A row group that is broken raises, also where bad samples are skipped.

    Attributes:
        columns: Only these, nested ones as "a.b"; other columns are not fetched. None: all.
        filters: Only rows for which this holds: a pyarrow expression, or [("year", ">", 2020), ...] as of
            `pyarrow.parquet.read_table`, where a list of lists means any of them. Row groups in which no row can match
            by their statistics are not fetched; of the others, rows are counted by reading the columns of the filter.
        row_group_bytes: When written: content of a row group, about.
    """

    columns: Sequence[str] | None = None
    filters: Any = None
    row_group_bytes: int = 16 << 20

    name: ClassVar[str] = "parquet"
    suffix: ClassVar[str] = ".parquet"

    def __post_init__(self) -> None:
        if self.columns is not None:
            if isinstance(self.columns, str) or not self.columns:
                raise ValueError(f"Parquet(columns={self.columns!r}) is to be a list of names, at least one")
            object.__setattr__(self, "columns", tuple(self.columns))
        if self.filters is not None and not isinstance(self.filters, Filter):
            object.__setattr__(self, "filters", Filter(self.filters))

    def _boundaries(self) -> dict[str, Any]:
        return {
            "columns": None if self.columns is None else list(self.columns),
            "filters": None if self.filters is None else self.filters.described(),
        }

    def read(
        self,
        stream: BinaryIO,
        *,
        url: str = "",
        cursor: Cursor | None = None,
        on_bad: OnBad | None = None,
    ) -> Iterator[Sample]:
        # A row alone is never broken: `on_bad` is asked about a row group, and its rows count as passed.
        cursor = Cursor() if cursor is None else cursor
        if not cursor.head:
            cursor.head = read_footer(stream, url)
        head = cursor.head
        columns = self._needed(head, url)
        known = None if cursor.frames is None or cursor.ends is not None else cursor.frames
        if cursor.ends is not None and cursor.frames is None:
            cursor.frames = Frames()
        begin = 0  # rows before the row group
        for group in self._groups(head, columns, url):
            rows = self._known_rows(group, known)
            if rows is not None and begin + rows <= cursor.offset:
                begin += rows
                continue
            try:
                pieces = read_ranges(stream, group, url)
                table = self._chosen(table_of(pieces, head, [group], columns, url), url)
            except DecodeError as error:
                if on_bad is None:
                    raise
                on_bad(error)
                begin = _left_out(cursor, group, begin, rows)
                continue
            end = begin + table.num_rows
            if cursor.ends is not None:
                _passed(cursor.frames, group, begin, end)
            for fields in _rows(table, max(cursor.offset - begin, 0), url):
                number = cursor.number
                cursor.number = number + 1
                cursor.offset += 1
                if cursor.ends is not None:
                    cursor.ends.append(cursor.offset)
                yield _sample(fields, url, number)
            begin = end

    def scan(self, stream: BinaryIO, *, url: str = "", size: int | None = None) -> ShardIndex:  # noqa: ARG002
        head = read_footer(stream, url)
        groups = self._groups(head, self._needed(head, url), url)
        if self.filters is None:
            return _index(head, groups, [group.rows for group in groups])
        columns = self.filters.columns(head, url) or None
        counts = []
        numbers = {group.number for group in groups}
        for group in row_groups(head, columns, url):
            if group.number in numbers:
                table = table_of(read_ranges(stream, group, url), head, [group], columns, url)
                counts.append(self.filters.of(table, url).num_rows)
        return _index(head, groups, counts)

    def decode(self, frame: memoryview, *, head: bytes = b"", start: int = 0) -> "pa.Table":
        columns = self._needed(head, "")
        stop = start + len(frame)
        groups = [g for g in self._groups(head, columns, "") if start <= g.start and g.stop <= stop]
        if not groups:
            raise broken("", f"no row group lies at bytes {start} to {stop}. Index the shard anew")
        return self._chosen(table_of([(start, frame)], head, groups, columns, ""), "")

    def parse(
        self,
        content: Any,
        start: int,
        stop: int,
        *,
        head: bytes = b"",  # noqa: ARG002
        url: str = "",
        number: int = 0,
    ) -> Sample:
        for fields in _rows(content.slice(start, stop - start), 0, url):
            return _sample(fields, url, number)
        raise broken(url, f"there is no row {start} in what was decoded. Index the shard anew")

    def writer(self, stream: BinaryIO, *, compression: Compression | None = None) -> ParquetWriter:
        if compression is not None:
            raise ValueError(f"compression={compression!r}: Parquet compresses its pages itself; leave it out")
        if self.filters is not None:
            raise ValueError("a Parquet(filters=...) is for reading; write with Parquet()")
        return ParquetWriter(stream, self.row_group_bytes, self._index_of)

    def _index_of(self, head: bytes) -> ShardIndex:
        groups = self._groups(head, self._needed(head, ""), "")
        return _index(head, groups, [group.rows for group in groups])

    def _needed(self, head: bytes, url: str) -> tuple[str, ...] | None:
        """The columns to fetch."""
        if self.columns is None:
            return None
        filtered = () if self.filters is None else self.filters.columns(head, url)
        return tuple(dict.fromkeys((*self.columns, *filtered)))

    def _groups(self, head: bytes, columns: tuple[str, ...] | None, url: str) -> Sequence[RowGroup]:
        groups = row_groups(head, columns, url)
        if self.filters is None or not groups:
            return groups
        kept = self.filters.row_groups(head, url)
        return [group for group in groups if group.number in kept]

    def _chosen(self, table: "pa.Table", url: str) -> "pa.Table":
        if self.filters is not None:
            table = self.filters.of(table, url)
        if self.columns is None:
            return table
        there = set(table.column_names)
        names = [name if name in there else name.partition(".")[0] for name in self.columns]
        return table.select(list(dict.fromkeys(names)))

    def _known_rows(self, group: RowGroup, frames: Frames | None) -> int | None:
        """The rows of it that match, if that is known without reading it."""
        if self.filters is None:
            return group.rows
        if frames is None:
            return None
        if group.start not in frames.starts:
            return 0 if frames.starts and group.start < frames.starts[-1] else None
        number = frames.starts.index(group.start)
        return frames.ends[number] - (frames.ends[number - 1] if number else 0)


def _left_out(cursor: Cursor, group: RowGroup, begin: int, rows: int | None) -> int:
    """Moves the cursor behind a broken row group -> where the next begins; its rows count as none if nobody knows."""
    end = begin + (rows or 0)
    if cursor.ends is not None:
        _passed(cursor.frames, group, begin, end)
        cursor.ends.extend(range(cursor.offset + 1, end + 1))
        if rows is None:
            cursor.ends = None
    passed = max(end - cursor.offset, 0)
    cursor.number += passed
    cursor.offset += passed
    return end


def _passed(frames: Frames | None, group: RowGroup, begin: int, end: int) -> None:
    if frames is not None and end > begin and (not frames.ends or frames.ends[-1] <= begin):
        frames.starts.append(group.start)
        frames.stops.append(group.stop)
        frames.ends.append(end)


def _index(head: bytes, groups: Sequence[RowGroup], counts: Sequence[int]) -> ShardIndex:
    frames = Frames()
    rows = 0
    for group, count in zip(groups, counts, strict=True):
        _passed(frames, group, rows, rows + count)
        rows += count
    return ShardIndex(range(1, rows + 1), 0, frames, head)


def _sample(fields: dict[str, Any], url: str, number: int) -> Sample:
    sample = Sample(__key__=key_of(number), __url__=url)
    sample.update(fields)
    sample["__url__"] = url
    key = fields.get("__key__")
    sample["__key__"] = key_of(number) if key is None else key if isinstance(key, str) else str(key)
    return sample


def _rows(table: "pa.Table", start: int, url: str) -> Iterator[dict[str, Any]]:
    """The rows from `start` on."""
    names = table.column_names
    while start < table.num_rows:
        try:
            part = table.slice(start, _BATCH_ROWS).combine_chunks()
            columns = [_values(column.chunk(0)) for column in part.columns]
        except arrow_errors() as error:
            raise broken(url, f"rows from {start} on have no form in Python ({error}). Leave columns out") from error
        for values in zip(*columns, strict=True):
            yield dict(zip(names, values, strict=True))
        start += _BATCH_ROWS


def _values(column: "pa.Array") -> list[Any]:
    if not _is_numbers(column.type):
        values: list[Any] = column.to_pylist()
        return values
    return [_numbers(scalar.values) for scalar in column]


def _is_numbers(kind: "pa.DataType") -> bool:
    types = pyarrow().types
    is_list: Callable[[Any], bool]
    for is_list in (types.is_list, types.is_large_list, types.is_fixed_size_list):
        if is_list(kind):
            return bool(types.is_integer(kind.value_type) or types.is_floating(kind.value_type))
    return False


def _numbers(values: "pa.Array | None") -> Any:
    if values is None:
        return None
    # Copied: what Arrow hands out may not be written to, and keeps the whole row group in memory.
    return values.to_pylist() if values.null_count else values.to_numpy(zero_copy_only=False).copy()
