"""What the formats have in common whose content is bytes, one sample behind the other."""

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, Final, Self, TypeAlias

from s3dataset.errors import DecodeError
from s3dataset.formats._compression import Sink, decompress, open_content, open_sink
from s3dataset.formats._content import Content, Slice, broken
from s3dataset.formats._format import Compression, Cursor, OnBad, Sample, ShardIndex

__all__ = ["LINE_LIMIT", "MEMBER_LIMIT", "Record", "StreamedField", "StreamedFormat", "StreamedWriter", "key_of"]

MEMBER_LIMIT: Final = 2 << 30
LINE_LIMIT: Final = 64 << 20

Record: TypeAlias = tuple[int, int, Any]
"""Where a sample begins in the content, where it ends, and what it is made of."""


@dataclass(frozen=True, slots=True)
class StreamedField:
    """The bytes of a field that are too many to be held: they come while they are written. For tar.

    Attributes:
        size: How many.
        pieces: Gives them.
    """

    size: int
    pieces: Callable[[], Iterable[bytes | memoryview]]

    def __len__(self) -> int:
        return self.size


Part: TypeAlias = bytes | memoryview | StreamedField


def key_of(number: int) -> str:
    """The key of a sample that brings none: its number in the shard, so that keys sort as samples do."""
    return f"{number:08d}"


class StreamedFormat(ABC):
    """Reads, scans and parses by one walk over the content, so that the three agree."""

    __slots__ = ()

    name: ClassVar[str]
    suffix: ClassVar[str]

    @abstractmethod
    def _records(self, content: Content, head: bytes, *, take: bool) -> Iterator[Record]:
        """The samples of the content from where it stands; without `take`, only where they lie."""

    @abstractmethod
    def _sample(self, made_of: Any, head: bytes, url: str, number: int) -> Sample:
        """Makes a sample.

        Raises:
            DecodeError: It is broken.
        """

    @abstractmethod
    def _encoder(self, sink: Sink) -> "Encoder": ...

    def _head(self, content: Content) -> bytes:  # noqa: ARG002
        """Reads what stands before the samples; empty where the format has no such thing."""
        return b""

    _has_head: ClassVar[bool] = False

    @staticmethod
    def _plain(first: bytes) -> bool:  # noqa: ARG004
        """Whether content that begins so is not compressed, though it looks like that."""
        return False

    def read(
        self, stream: BinaryIO, *, url: str = "", cursor: Cursor | None = None, on_bad: OnBad | None = None
    ) -> Iterator[Sample]:
        cursor = Cursor() if cursor is None else cursor
        ends = cursor.ends
        content = self._open(stream, url, cursor)
        if ends is not None and content.compressed:
            cursor.frames = content.frames
        head = cursor.head
        for start, stop, made_of in self._records(content, head, take=True):
            number = cursor.number
            if ends is not None:
                if not number:
                    cursor.first = start
                ends.append(stop)
            cursor.number = number + 1
            cursor.offset = stop
            try:
                sample = self._sample(made_of, head, url, number)
            except DecodeError as error:
                if on_bad is None:
                    raise
                cursor.number = number
                on_bad(error)
                cursor.number = number + 1
                continue
            yield sample
        if ends is not None and content.compressed:
            content.drain()
            cursor.frames = content.frames
            if cursor.frames is None:
                cursor.ends = None

    def _open(self, stream: BinaryIO, url: str, cursor: Cursor) -> Content:
        start = 0 if self._has_head and not cursor.head else cursor.offset
        record = cursor.ends is not None
        content = open_content(
            stream, url=url, offset=start, frames=cursor.frames if start else None, record=record, plain=self._plain
        )
        if not start:
            cursor.head = self._head(content)
            if cursor.offset:
                content.seek(cursor.offset)
        return content

    def scan(self, stream: BinaryIO, *, url: str = "", size: int | None = None) -> ShardIndex:  # noqa: ARG002
        content = open_content(stream, url=url, record=True, indexable=True, plain=self._plain)
        head = self._head(content)
        first = 0
        ends = array("Q")
        for start, stop, _ in self._records(content, head, take=False):
            if not ends:
                first = start
            ends.append(stop)
        frames = None
        if content.compressed:
            content.drain()
            frames = content.frames
        return ShardIndex(ends, first, frames, head)

    def decode(self, frame: memoryview, *, head: bytes = b"", start: int = 0) -> memoryview:  # noqa: ARG002
        return decompress(frame)

    def parse(
        self, content: Any, start: int, stop: int, *, head: bytes = b"", url: str = "", number: int = 0
    ) -> Sample:
        part = Slice(memoryview(content)[start:stop], url=url)
        for _, _, made_of in self._records(part, head, take=True):
            return self._sample(made_of, head, url, number)
        raise broken(
            url,
            f"the {stop - start} bytes of sample {number} hold none. The index belongs to other data: make it anew",
        )

    def writer(self, stream: BinaryIO, *, compression: Compression | None = None) -> "StreamedWriter":
        sink = open_sink(stream, compression)
        return StreamedWriter(sink, self._encoder(sink))


class Encoder:
    """Makes bytes of samples, for one shard."""

    head: bytes = b""
    """What stands before the samples, once the first is known."""

    def encode(self, sample: dict[str, Any]) -> Sequence[Part]:
        """The sample's bytes, in pieces.

        Raises:
            ValueError: The format cannot hold it.
        """
        raise NotImplementedError

    def end(self) -> bytes:
        """What stands behind the last sample."""
        return b""


class StreamedWriter:
    """A `ShardWriter` over an encoder."""

    def __init__(self, sink: Sink, encoder: Encoder) -> None:
        self._sink = sink
        self._encoder = encoder
        self._ends = array("Q")
        self._first: int | None = None
        self._index: ShardIndex | None = None

    @property
    def nbytes(self) -> int:
        return self._sink.nbytes

    def write(self, sample: dict[str, Any]) -> None:
        if self._index is not None:
            raise ValueError("this shard is finished; begin another one")
        parts = self._encoder.encode(sample)
        sink = self._sink
        if self._first is None:
            if self._encoder.head:
                sink.write(self._encoder.head)
            self._first = sink.content_bytes
        for part in parts:
            if isinstance(part, StreamedField):
                self._write_streamed(part)
            else:
                sink.write(part)
        self._ends.append(sink.content_bytes)
        sink.cut()

    def _write_streamed(self, field: StreamedField) -> None:
        begin = self._sink.content_bytes
        for piece in field.pieces():
            self._sink.write(piece)
        came = self._sink.content_bytes - begin
        if came != field.size:
            raise ValueError(f"{came} bytes came of a field that was to have {field.size}; the shard is damaged now")

    def finish(self) -> ShardIndex:
        if self._index is None:
            end = self._encoder.end()
            if end:
                self._sink.write(end)
            self._sink.finish()
            self._index = ShardIndex(self._ends, self._first or 0, self._sink.frames, self._encoder.head)
        return self._index

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if failure[0] is None:
            self.finish()
