"""A NumPy array in a .npy file, whose rows are samples.

Source: numpy.lib.format.
"""

import ast
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Final, Self

from s3dataset.formats._compression import Sink, open_content, open_sink
from s3dataset.formats._content import Content, broken, looks_like
from s3dataset.formats._format import Compression, Sample, ShardIndex
from s3dataset.formats._streamed import MEMBER_LIMIT, Encoder, Record, StreamedFormat, key_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Npy"]

_MAGIC: Final = b"\x93NUMPY"
_HEADER_LIMIT: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Npy(StreamedFormat):
    """A .npy file: sample i is `{"npy": array[i]}`, an array of its own in the machine's byte order.

    The key is the row's number ("00000000"). Arrays of Python objects are refused, since a pickle can run any code, and
    so are arrays in Fortran's order, whose rows do not lie in one piece.

    A shard is written once it is complete: the number of rows stands at its beginning, so they are held in memory
    until `finish`.

    Attributes:
        max_sample_bytes: A larger row is an error; this bounds the memory that one can make a reader use.
    """

    max_sample_bytes: int = MEMBER_LIMIT

    name: ClassVar[str] = "npy"
    suffix: ClassVar[str] = ".npy"
    _has_head: ClassVar[bool] = True

    def _head(self, content: Content) -> bytes:
        start = content.take(8)
        if not start.startswith(_MAGIC) or len(start) < 8:
            raise broken(
                content.url, f"it is no .npy file: it begins with {start!r}{looks_like(start)}. Choose another format="
            )
        if start[6] not in {1, 2, 3}:
            raise broken(content.url, f"version {start[6]}.{start[7]} of .npy is not known here")
        length = content.take(_length_bytes(start[6]))
        size = int.from_bytes(length, "little")
        if size > _HEADER_LIMIT:
            raise broken(content.url, f"its header is to have {size} bytes, which NumPy never writes. It is damaged")
        head = start + length + content.take(size)
        self._rows(head, content.url)
        return head

    def _rows(self, head: bytes, url: str) -> "tuple[int, tuple[int, ...], np.dtype[Any], int]":
        """The number of rows, the shape and type of one, and its bytes."""
        shape, in_columns, dtype = _read_header(head, url)
        if in_columns and len(shape) > 1:
            raise broken(
                url,
                "its array is in Fortran's order, so a row does not lie in one piece. Write it anew: "
                "numpy.save(file, numpy.ascontiguousarray(array))",
            )
        if dtype.hasobject:
            raise broken(url, "it holds Python objects in a pickle, which is not read: a pickle can run any code")
        if not shape:
            raise broken(url, "its array has no dimensions, and so no rows")
        row = dtype.itemsize * math.prod(shape[1:])
        if min(shape) < 0 or (shape[0] and not row) or row * shape[0] > 1 << 62:
            raise broken(url, f"an array of shape {shape} of {dtype} has no rows that could be samples")
        if row > self.max_sample_bytes:
            raise broken(
                url,
                f"a row of it has {row} bytes, and the limit is {self.max_sample_bytes}. If that is meant, give Npy "
                "a larger "
                "max_sample_bytes=",
            )
        return shape[0], shape[1:], dtype, row

    def _records(self, content: Content, head: bytes, *, take: bool) -> Iterator[Record]:  # noqa: ARG002
        count, _, _, row = self._rows(head, content.url)
        start = content.offset
        stop = len(head) + count * row
        if (start - len(head)) % (row or 1):
            raise broken(
                content.url, f"no row begins at byte {start}. It is not the shard that the position was taken from"
            )
        while start < stop:
            data = content.take(row)
            if len(data) < row:
                raise _cut_short(content, count, row)
            yield start, start + row, data
            start += row

    def scan(self, stream: BinaryIO, *, url: str = "", size: int | None = None) -> ShardIndex:  # noqa: ARG002
        content = open_content(stream, url=url, record=True, indexable=True)
        head = self._head(content)
        count, _, _, row = self._rows(head, url)
        if content.skip(count * row, hop=True) < count * row:
            raise _cut_short(content, count, row)
        frames = None
        if content.compressed:
            content.drain()
            frames = content.frames
        return _index(head, count, row, frames)

    def parse(
        self, content: Any, start: int, stop: int, *, head: bytes = b"", url: str = "", number: int = 0
    ) -> Sample:
        return self._sample(content[start:stop], head, url, number)

    def _sample(self, made_of: Any, head: bytes, url: str, number: int) -> Sample:
        import numpy as np  # noqa: PLC0415

        _, shape, dtype, row = self._rows(head, url)
        if len(made_of) != row:
            raise broken(url, f"sample {number} has {len(made_of)} bytes and should have {row}. Index the shard anew")
        values = np.frombuffer(made_of, dtype).reshape(shape).astype(dtype.newbyteorder("="))
        return Sample(__key__=key_of(number), __url__=url, npy=values)

    def _encoder(self, sink: Sink) -> Encoder:
        raise NotImplementedError

    def writer(self, stream: BinaryIO, *, compression: Compression | None = None) -> Any:
        return _NpyWriter(open_sink(stream, compression), self)


# What Python's parser of literals and NumPy raise for damaged text. numpy.lib.format's own reader adds those of
# tokenize, and warns of files that it could mend.
_HEADER_ERRORS: Final = (
    ValueError,
    SyntaxError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
    Warning,
)


@lru_cache(maxsize=64)
def _read_header(head: bytes, url: str) -> "tuple[tuple[int, ...], bool, np.dtype[Any]]":
    from numpy.lib import format as npy  # noqa: PLC0415

    major = head[6]
    try:
        fields = ast.literal_eval(head[8 + _length_bytes(major) :].decode("utf-8" if major == 3 else "latin-1"))
        shape, in_columns = fields["shape"], fields["fortran_order"]
        counts = isinstance(shape, tuple) and all(type(one) is int for one in shape)
        if not counts or type(in_columns) is not bool:
            raise ValueError(f"the shape {shape!r} is none")
        return shape, in_columns, npy.descr_to_dtype(fields["descr"])
    except _HEADER_ERRORS as error:
        raise broken(url, f"its header cannot be read: {error}. It was damaged: upload it again") from error


def _length_bytes(major: int) -> int:
    """How long the length of the header is, by the version of the format."""
    return 2 if major == 1 else 4


def _index(head: bytes, count: int, row: int, frames: Any) -> ShardIndex:
    first = len(head) if count else 0
    ends = range(first + row, first + row * count + 1, row) if count else range(0)
    return ShardIndex(ends, first, frames, head)


def _cut_short(content: Content, count: int, row: int) -> Any:
    return broken(
        content.url,
        f"it ends at byte {content.offset}, before the last of its {count} rows of {row} bytes. It was cut short: "
        "upload "
        "it again",
    )


class _NpyWriter:
    def __init__(self, sink: Sink, format: Npy) -> None:  # noqa: A002
        self._sink = sink
        self._format = format
        self._rows: list[npt.NDArray[Any]] = []
        self._held = 0
        self._index: ShardIndex | None = None

    @property
    def nbytes(self) -> int:
        return self._sink.nbytes if self._index is not None else self._held

    def write(self, sample: dict[str, Any]) -> None:
        import numpy as np  # noqa: PLC0415

        if self._index is not None:
            raise ValueError("this shard is finished; begin another one")
        if "npy" not in sample:
            raise ValueError('a sample for a .npy file needs "npy": an array')
        try:
            row = np.ascontiguousarray(sample["npy"]).reshape(np.shape(sample["npy"]))
        except ValueError as error:
            raise ValueError(f'the field "npy" is no array: {error}') from None
        if row.dtype.hasobject or not 0 < row.nbytes <= self._format.max_sample_bytes:
            raise ValueError(
                f'the field "npy" is an array of {row.nbytes} bytes of {row.dtype}: it is to hold numbers, at least '
                "one, "
                f"and at most max_sample_bytes={self._format.max_sample_bytes}"
            )
        if self._rows and (row.shape, row.dtype) != (self._rows[0].shape, self._rows[0].dtype):
            first = self._rows[0]
            raise ValueError(
                f"the array is {row.dtype}{list(row.shape)}, and those before are {first.dtype}{list(first.shape)}: "
                "the rows "
                "of a .npy file are all alike; Tar holds arrays that are not"
            )
        self._rows.append(row.copy() if row is sample["npy"] or row.base is not None else row)
        self._held += row.nbytes

    def finish(self) -> ShardIndex:
        import numpy as np  # noqa: PLC0415

        if self._index is not None:
            return self._index
        first = self._rows[0] if self._rows else np.empty(())
        file = io.BytesIO()
        header = {"descr": np.lib.format.dtype_to_descr(first.dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (len(self._rows), *first.shape)})
        head = file.getvalue()
        self._sink.write(head)
        for row in self._rows:
            self._sink.write(row.tobytes())
            self._sink.cut()
        self._sink.finish()
        self._index = _index(head, len(self._rows), first.nbytes, self._sink.frames)
        self._rows = []
        return self._index

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if failure[0] is None:
            self.finish()
