"""What a shard is compressed with: told by its first bytes when it is read, chosen when it is written."""

from bisect import bisect_right
from collections.abc import Callable
from typing import BinaryIO, Final, Protocol

from s3dataset.errors import UnindexableError
from s3dataset.formats import _gzip, _zstd
from s3dataset.formats._content import PIECE_BYTES, Content, PlainPieces, Slice, ViewContent, broken
from s3dataset.formats._format import Compression, Frames

__all__ = ["Sink", "decompress", "open_content", "open_sink"]

_FIRST_BYTES: Final = 64

# Known, and not read here.
_OTHERS: Final = (
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x04\x22\x4d\x18", "lz4"),
    *((b"BZh%d1AY&SY" % level, "bzip2") for level in range(1, 10)),
)

# From here on it pays to ask the end of a file for its table of frames, before reading up to a position.
_SEEK_TABLE_PAYS: Final = 8 << 20


def open_content(
    stream: BinaryIO,
    *,
    url: str = "",
    offset: int = 0,
    frames: Frames | None = None,
    record: bool = False,
    indexable: bool = False,
    plain: Callable[[bytes], bool] | None = None,
) -> Content:
    """The content of a shard from `offset` on.

    Args:
        stream: The shard.
        url: What to call it.
        offset: Where in the content to begin.
        frames: The shard's frames, as far as known.
        record: Tell in `Content.frames` what frames pass; those of `frames` up to `offset` come first.
        indexable: Raise UnindexableError for what can only be read from its beginning; the content is for an index, and
            large parts of it may be skipped.
        plain: Tells from the first bytes that the content is not compressed, though it looks like that.
    """
    plain_pieces = PlainPieces(stream, first_bytes=_FIRST_BYTES if offset else PIECE_BYTES)
    raw = (ViewContent if plain_pieces.views else Content)(plain_pieces, url=url)
    first = raw.peek(_FIRST_BYTES)
    kind = None if plain is not None and plain(first) else _kind(first, url)
    if kind is None:
        raw.hops = indexable
        raw.seek(offset)
        return raw
    if indexable and kind == "gz" and not _gzip.is_bgzf(first):
        raise UnindexableError(
            f"{url or 'The shard given'}: plain gzip can only be read from its beginning. Read it as a stream, or "
            "write it anew: s3dataset pack --compression zst, or bgzip",
            uri=url,
        )
    known = frames
    if known is None and not record and kind == "zst" and offset > _SEEK_TABLE_PAYS:
        known = _zstd.read_seek_table(stream)
        raw = Content(PlainPieces(stream, first_bytes=_FIRST_BYTES), url=url)
        stream.seek(0)
    passed = None
    begin = 0
    if known is not None:
        count = bisect_right(known.ends, offset)
        passed = Frames(known.starts[:count], known.stops[:count], known.ends[:count])
        if count:
            begin = known.ends[count - 1]
            raw.seek(known.stops[count - 1])
            if count < len(known.starts):
                raw.seek(known.starts[count])
    if record and passed is None:
        passed = Frames()
    pieces: _gzip.GzipPieces | _zstd.ZstdPieces
    recorded = passed if record else None
    if kind == "gz":
        pieces = _gzip.GzipPieces(raw, frames=recorded, content_offset=begin)
    else:
        pieces = _zstd.ZstdPieces(raw, frames=recorded, content_offset=begin, indexable=indexable)
    content = Content(pieces, url=url, offset=begin)
    content.seek(offset)
    return content


def _kind(first: bytes, url: str) -> Compression | None:
    if first.startswith(_gzip.MAGIC):
        return "gz"
    if _zstd.is_zstd(first):
        return "zst"
    for magic, name in _OTHERS:
        if first.startswith(magic):
            raise broken(url, f"it is compressed with {name}, which is not read here. Use zstd or gzip instead")
    return None


def decompress(frame: memoryview, *, url: str = "") -> memoryview:
    """The content of adjacent frames.

    Raises:
        DecodeError: They are broken, or are no such frames.
    """
    raw = Slice(frame, url=url)
    first = bytes(frame[:_FIRST_BYTES])
    pieces: _gzip.GzipPieces | _zstd.ZstdPieces
    if _gzip.is_bgzf(first):
        pieces = _gzip.GzipPieces(raw)
    elif _zstd.is_zstd(first):
        pieces = _zstd.ZstdPieces(raw, frames=Frames())
    else:
        raise broken(url, f"a frame of zstd or BGZF was to be there, and there is {first[:8]!r}. Index the shard anew")
    parts = []
    while part := pieces.next():
        parts.append(part)
    return memoryview(parts[0] if len(parts) == 1 else b"".join(parts))


class Sink(Protocol):
    """Takes content, and writes it to a stream as it is or compressed."""

    content_bytes: int
    frames: Frames | None

    @property
    def nbytes(self) -> int:
        """Bytes of the object so far; what is held back is estimated."""

    def write(self, data: bytes | memoryview) -> None: ...
    def cut(self) -> None:
        """A sample ends here."""

    def finish(self) -> None:
        """Writes what is held back, and what ends a shard."""


def open_sink(stream: BinaryIO, compression: Compression | None) -> Sink:
    if compression is None:
        return _PlainSink(stream)
    if compression == "zst":
        return _ZstdSink(stream)
    if compression == "gz":
        return _BgzfSink(stream)
    raise ValueError(f'compression={compression!r}: there are "zst", "gz" and None')


class _PlainSink:
    """Small pieces go to the stream together."""

    _HELD: Final = 256 << 10

    def __init__(self, stream: BinaryIO) -> None:
        self.content_bytes = 0
        self.frames: Frames | None = None
        self._stream = stream
        self._held = bytearray()

    @property
    def nbytes(self) -> int:
        return self.content_bytes

    def write(self, data: bytes | memoryview) -> None:
        self.content_bytes += len(data)
        if len(self._held) + len(data) < self._HELD:
            self._held += data
            return
        self._flush()
        if len(data) < self._HELD:
            self._held += data
        else:
            write_all(self._stream, data)

    def cut(self) -> None:
        pass

    def finish(self) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, bytearray()
            write_all(self._stream, held)


class _FramedSink:
    """Holds content back until there is a frame of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self.content_bytes = 0
        self.frames: Frames | None = Frames()
        self._stream = stream
        self._held = bytearray()
        self._packed = 0  # of the content
        self._written = 0  # to the stream

    @property
    def nbytes(self) -> int:
        ratio = self._written / self._packed if self._packed else 1.0
        return self._written + int(len(self._held) * ratio)

    def _take(self, data: bytes | memoryview, frame_bytes: int) -> None:
        self.content_bytes += len(data)
        at = 0
        while len(data) - at + len(self._held) >= frame_bytes:
            stop = at + frame_bytes - len(self._held)
            self._held += data[at:stop]
            at = stop
            self._emit()
        self._held += data[at:]

    def _emit(self) -> None:
        if not self._held:
            return
        assert self.frames is not None
        frame = self._compress(self._held)
        self.frames.starts.append(self._written)
        self._put(frame)
        self.frames.stops.append(self._written)
        self._packed += len(self._held)
        self.frames.ends.append(self._packed)
        self._held = bytearray()

    def _put(self, data: bytes) -> None:
        write_all(self._stream, data)
        self._written += len(data)

    def _compress(self, content: bytearray) -> bytes:
        raise NotImplementedError


class _ZstdSink(_FramedSink):
    """Frames of whole samples, and the table of them at the end, so that other readers find them too."""

    _FRAME: Final = 1 << 20
    # A larger sample is cut: no frame is larger than what one is decoded for.
    _LARGEST: Final = 4 << 20

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        library = _zstd.zstandard()
        self._compressor = library.ZstdCompressor(write_checksum=True, write_content_size=True)

    def write(self, data: bytes | memoryview) -> None:
        self._take(data, self._LARGEST)

    def cut(self) -> None:
        if len(self._held) >= self._FRAME:
            self._emit()

    def finish(self) -> None:
        self._emit()
        assert self.frames is not None
        self._put(_zstd.seek_table(self.frames))

    def _compress(self, content: bytearray) -> bytes:
        frame: bytes = self._compressor.compress(content)
        return frame


class _BgzfSink(_FramedSink):
    """Blocks as bgzip makes them; a sample may lie in several, and several in one."""

    _LEVEL: Final = 6

    def write(self, data: bytes | memoryview) -> None:
        self._take(data, _gzip.BGZF_CONTENT_BYTES)

    def cut(self) -> None:
        pass

    def finish(self) -> None:
        self._emit()
        self._put(_gzip.bgzf_block(b"", self._LEVEL))  # the mark of the end

    def _compress(self, content: bytearray) -> bytes:
        return _gzip.bgzf_block(content, self._LEVEL)


def write_all(stream: BinaryIO, data: bytes | bytearray | memoryview) -> None:
    """Writes all of it, to a raw stream too, which may take less at once."""
    written = stream.write(data)
    if written != len(data):
        left = memoryview(data)[written:]
        while left:
            left = left[stream.write(left) :]
