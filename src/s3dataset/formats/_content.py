"""The content of a shard, read forwards in large pieces and handed out in exact ones."""

from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol

from s3dataset.errors import DecodeError
from s3dataset.formats._format import Frames

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PIECE_BYTES", "Content", "Pieces", "PlainPieces", "Slice", "ViewContent", "broken", "looks_like"]

PIECE_BYTES: Final = 1 << 20

# A seek costs about the first byte's latency, in which a connection would have carried this much: 25 ms at 90 MB/s.
_HOP_BYTES: Final = 2 << 20
# Read after a hop: a few headers with their small members, and little of the next large one.
_AFTER_HOP_BYTES: Final = 16 << 10


def broken(url: str, what: str) -> DecodeError:
    """The error for a shard that is not what it was told to be; `what` ends with what to do about it."""
    return DecodeError(f"{url or 'The shard given'}: {what}", uri=url)


_SIGNATURES: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PAR1", "Parquet"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"<", "HTML or XML, perhaps a message of error"),
    (b"{", "JSON"),
)


def looks_like(first: bytes) -> str:
    """As "; that looks like ..." for a message, or nothing."""
    if not first:
        return "; it is empty"
    if bytes(first[257:262]) == b"ustar":
        return "; that looks like tar"
    return next((f"; that looks like {name}" for magic, name in _SIGNATURES if first.startswith(magic)), "")


class Pieces(Protocol):
    """Where content comes from, piece by piece."""

    def next(self) -> bytes:
        """Some of what comes next, b"" at the end."""

    def hop(self, length: int) -> bool:
        """Leaves out the next `length` bytes without reading them; False where that is not possible."""


class PlainPieces:
    """The bytes of a stream as they are; where it has `read_view`, as memoryviews (`views`)."""

    def __init__(self, stream: BinaryIO, *, first_bytes: int = PIECE_BYTES) -> None:
        self.offset = 0  # in the stream, of the next piece
        self._stream = stream
        read_view = getattr(stream, "read_view", None)
        self.views = read_view is not None
        self._read: Callable[[int], Any] = stream.read if read_view is None else read_view
        self._size = first_bytes

    def next(self) -> bytes:
        piece: bytes | None = self._read(self._size)
        if piece is None:
            raise BlockingIOError("a shard is read from a stream that blocks; this one has no data yet")
        self._size = min(4 * self._size, PIECE_BYTES) if self._size >= _AFTER_HOP_BYTES else PIECE_BYTES
        self.offset += len(piece)
        return piece

    def expect(self, length: int) -> None:
        """At least `length` bytes will be read over, and a header behind them."""
        self._size = min(max(self._size, length + _AFTER_HOP_BYTES), PIECE_BYTES)

    def hop(self, length: int) -> bool:
        try:
            self._stream.seek(self.offset + length)
        except (OSError, AttributeError):  # io.UnsupportedOperation is an OSError
            return False
        self.offset += length
        self._size = _AFTER_HOP_BYTES
        return True


class Content:
    """Hands out what `pieces` bring.

    Holds one piece, and of what is asked for only bytes that have come: a length that a header claims costs no memory.
    """

    __slots__ = ("_base", "_next", "_pieces", "_plain", "_skipped", "_skips", "buffer", "hops", "position", "url")

    def __init__(self, pieces: Pieces, *, url: str = "", offset: int = 0) -> None:
        self.url = url
        self._plain = pieces if isinstance(pieces, PlainPieces) else None
        self.buffer = b""
        self.position = 0
        self._pieces = pieces
        self._next: Callable[[], bytes] = pieces.next
        self._base = offset
        self.hops = False  # whether large contents are skipped by seeking
        self._skips = 0
        self._skipped = 0

    @property
    def compressed(self) -> bool:
        return self._plain is None

    @property
    def offset(self) -> int:
        """Where in the content the next byte lies."""
        return self._base + self.position

    @property
    def frames(self) -> Frames | None:
        """The frames that passed; None where there are none, or none that an index could name."""
        return getattr(self._pieces, "frames", None)

    def fill(self) -> bool:
        """Takes the next piece, once the last one is used up; False at the end."""
        self._base += len(self.buffer)
        self.buffer = self._next()
        self.position = 0
        return bool(self.buffer)

    def take(self, length: int) -> bytes:
        """The next `length` bytes; fewer at the end."""
        start = self.position
        stop = start + length
        if stop <= len(self.buffer):
            self.position = stop
            return self.buffer[start:stop]
        parts = [self.buffer[start:]]
        missing = length - len(parts[0])
        while missing:
            if not self.fill():
                break
            part = self.buffer[:missing]
            self.position = len(part)
            missing -= len(part)
            parts.append(part)
        return b"".join(parts)

    def peek(self, length: int) -> bytes:
        """The next `length` bytes, which stay; fewer at the end."""
        while len(self.buffer) - self.position < length:
            piece = self._next()
            if not piece:
                break
            self._base += self.position
            self.buffer = self.buffer[self.position :] + piece
            self.position = 0
        return self.buffer[self.position : self.position + length]

    def some(self, limit: int) -> bytes:
        """The next bytes, at most `limit`, as many as come without waiting for more; b"" at the end."""
        if self.position == len(self.buffer) and not self.fill():
            return b""
        part = self.buffer[self.position : self.position + limit]
        self.position += len(part)
        return part

    def untake(self, length: int) -> None:
        """Puts back the last bytes of what `some` gave."""
        self.position -= length

    def line(self, limit: int) -> bytes:
        """The bytes to the next line feed, with it; b"" at the end.

        Raises:
            DecodeError: There is none within `limit` bytes.
        """
        start = self.position
        stop = self.buffer.find(b"\n", start) + 1
        if stop and stop - start <= limit:
            self.position = stop
            return self.buffer[start:stop]
        begin = self.offset
        parts = [self.buffer[start:]]
        length = len(parts[0])
        while length <= limit and self.fill():
            stop = self.buffer.find(b"\n") + 1
            self.position = stop or len(self.buffer)
            parts.append(self.buffer[: self.position])
            length += self.position
            if stop:
                break
        else:
            self.position = len(self.buffer)
        if length > limit:
            raise broken(
                self.url,
                f"the line at byte {begin} of the content is longer than {limit} bytes. If that is meant, give the "
                "format a larger max_sample_bytes=; if not, this is no file of lines",
            )
        return b"".join(parts)

    def skip(self, length: int, *, hop: bool = False) -> int:
        """Leaves out `length` bytes, reading over them or, where that pays or is asked for, by a seek.

        Seeks pay where the mean of what is skipped exceeds `latency x bandwidth` of a connection, about 2 MiB: below
        that the next header has arrived sooner by reading on.

        Returns:
            How many bytes there were to leave out: fewer at the end.
        """
        self._skips += 1
        self._skipped += length
        left = length - (len(self.buffer) - self.position)
        if left <= 0:
            self.position += length
            return length
        self.position = len(self.buffer)
        pays = hop or (self.hops and left > _HOP_BYTES and self._skipped > _HOP_BYTES * self._skips)
        if pays and left > 1 and self._pieces.hop(left - 1):
            # To the last byte, so that reading on shows whether it is there.
            self._base += len(self.buffer) + left - 1
            self.buffer, self.position = b"", 0
            left = 1
        elif self._plain is not None:
            self._plain.expect(left)
        while left and self.fill():
            self.position = min(left, len(self.buffer))
            left -= self.position
        return length - left

    def seek(self, offset: int) -> None:
        """Goes forward to `offset`.

        Raises:
            DecodeError: The content ends before.
        """
        ahead = offset - self.offset
        if ahead and self.skip(ahead, hop=True) < ahead:
            raise broken(
                self.url,
                f"reading is to go on at byte {offset} of the content, which ends before. It is not the shard that the "
                "position was taken from",
            )

    def drain(self) -> None:
        """Reads to the end."""
        while self.fill():
            pass
        self.position = 0


class ViewContent(Content):
    """Content of pieces that are memoryviews: only what is taken is copied."""

    __slots__ = ("_searched",)

    buffer: Any

    def __init__(self, pieces: Pieces, *, url: str = "", offset: int = 0) -> None:
        super().__init__(pieces, url=url, offset=offset)
        self._searched = False

    def fill(self) -> bool:
        self._base += len(self.buffer)
        self.buffer = b""  # lets go of its memory before more is asked for
        self.position = 0
        piece = self._next()
        self.buffer = bytes(piece) if self._searched else piece
        return bool(self.buffer)

    def take(self, length: int) -> bytes:
        start = self.position
        stop = start + length
        if stop <= len(self.buffer):
            self.position = stop
            return bytes(self.buffer[start:stop])
        parts = [bytes(self.buffer[start:])]
        missing = length - len(parts[0])
        while missing and self.fill():
            part = bytes(self.buffer[:missing])
            self.position = len(part)
            missing -= len(part)
            parts.append(part)
        return b"".join(parts)

    def peek(self, length: int) -> bytes:
        if len(self.buffer) - self.position < length:
            self.buffer = bytes(self.buffer)
        return bytes(super().peek(length))

    def some(self, limit: int) -> bytes:
        return bytes(super().some(limit))

    def line(self, limit: int) -> bytes:
        if not self._searched:
            self._searched = True  # a memoryview has no find
            self.buffer = bytes(self.buffer)
        return super().line(limit)


class _Nothing:
    def next(self) -> bytes:
        return b""

    def hop(self, length: int) -> bool:  # noqa: ARG002
        return False


_NOTHING: Final = _Nothing()


class Slice(Content):
    """Content that lies in memory: one sample's bytes."""

    __slots__ = ()

    def __init__(self, view: memoryview, *, url: str = "") -> None:
        super().__init__(_NOTHING, url=url)
        self.buffer: Any = view

    def take(self, length: int) -> bytes:
        start = self.position
        self.position = min(start + length, len(self.buffer))
        return bytes(self.buffer[start : self.position])
