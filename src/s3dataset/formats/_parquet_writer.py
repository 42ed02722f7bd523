"""Writes Parquet: samples are gathered into row groups."""

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self

from s3dataset.formats._compression import write_all
from s3dataset.formats._format import ShardIndex
from s3dataset.formats._parquet_layout import arrow_errors, footer_length, pyarrow

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ParquetWriter"]

# Small values cost their place in lists more than their bytes.
_VALUE_BYTES: Final = 16


class ParquetWriter:
    """A `ShardWriter`. The first row group settles the columns and their types; later samples have to fit them.

    Args:
        stream: Where to write.
        row_group_bytes: When to write what was gathered.
        index_of: Makes the index from the footer.
    """

    def __init__(self, stream: BinaryIO, row_group_bytes: int, index_of: Callable[[bytes], ShardIndex]) -> None:
        self._library = pyarrow()
        self._out = _Out(stream)
        self._row_group_bytes = row_group_bytes
        self._index_of = index_of
        self._schema: pa.Schema | None = None
        self._writer: Any = None
        self._rows: list[dict[str, Any]] = []
        self._held = 0
        self._index: ShardIndex | None = None

    @property
    def nbytes(self) -> int:
        return self._out.nbytes + self._held

    def write(self, sample: dict[str, Any]) -> None:
        if self._index is not None:
            raise ValueError("this shard is finished; begin another one")
        row = {name: _plain(value) for name, value in sample.items() if name != "__url__"}
        if not row:
            raise ValueError("a sample without fields cannot be a row of a Parquet file")
        try:
            self._settle(row)
        except arrow_errors() as error:
            kinds = ", ".join(f"{name}: {type(value).__name__}" for name, value in row.items())
            raise ValueError(
                f"the sample ({kinds}) does not fit into the columns of the Parquet file: {error}. All samples need "
                "the "
                "same fields, of the same types"
            ) from error
        self._rows.append(row)
        self._held += _size(row)
        if self._held >= self._row_group_bytes:
            self._flush()

    def _settle(self, row: dict[str, Any]) -> None:
        """Sees to it that the row fits, and widens the types as long as nothing is written.

        Types are compared, since a conversion to a column's type cuts 1.5 down to 1 without a word.
        """
        table = self._library.Table
        own = table.from_pylist([row]).schema
        schema = self._schema
        if schema is None:
            self._schema = own
            return
        if own == schema:
            return
        both = self._library.unify_schemas([schema, own], promote_options="permissive")
        if both == schema:
            table.from_pylist([row], schema=schema)
        elif self._writer is None:
            table.from_pylist([*self._rows, row], schema=both)
            self._schema = both
        else:
            raise ValueError(f"its columns are {_named(own)}, and those of the file {_named(schema)}")

    def _flush(self) -> None:
        if self._writer is None:
            sink = self._library.PythonFile(self._out, mode="w")
            self._writer = self._library.parquet.ParquetWriter(sink, self._schema, compression="zstd")
        rows, self._rows, self._held = self._rows, [], 0
        if rows:
            table = self._library.Table.from_pylist(rows, schema=self._schema)
            self._writer.write_table(table, row_group_size=len(rows))

    def finish(self) -> ShardIndex:
        if self._index is None:
            if self._schema is None:
                self._schema = self._library.schema([])
            self._flush()
            self._out.last = bytearray()
            self._writer.close()
            last = bytes(self._out.last)
            length = footer_length(last)
            assert length is not None
            self._index = self._index_of(last[-length:])
        return self._index

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if failure[0] is None:
            self.finish()


class _Out(io.RawIOBase):
    """What pyarrow writes to; not closed when that is done. Keeps in `last` what is written from then on."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self.nbytes = 0
        self.last: bytearray | None = None
        self._stream = stream

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.nbytes

    def write(self, data: Any, /) -> int:
        view = memoryview(data)
        write_all(self._stream, view)
        self.nbytes += len(view)
        if self.last is not None:
            self.last += view
        return len(view)


def _named(schema: "pa.Schema") -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


def _plain(value: Any) -> Any:
    """Arrays and tensors as pyarrow takes them: lists where they have several dimensions."""
    if hasattr(value, "numpy") and hasattr(value, "detach"):
        value = value.detach().numpy()
    if hasattr(value, "tolist") and getattr(value, "ndim", 1) != 1:
        return value.tolist()
    return bytes(value) if isinstance(value, bytearray | memoryview) else value


def _size(value: Any) -> int:
    if isinstance(value, bytes | str):
        return len(value) + _VALUE_BYTES
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_size, value))
    return int(getattr(value, "nbytes", 0)) + _VALUE_BYTES
