"""Zstandard: frames that decode by themselves, and the table of them at the end of a seekable file.

Source: RFC 8878 for frames and blocks; zstd's contrib/seekable_format for the seek table.

Frames are cut into blocks here, without decompressing, and go into the decompressor a few blocks at a time. A block
makes at most 128 KiB, so memory stays bounded whatever the data claims, and where a frame ends is known exactly.
"""

import struct
from array import array
from typing import Any, BinaryIO, Final

from s3dataset.errors import DecodeError, UnindexableError
from s3dataset.formats._content import Content, broken
from s3dataset.formats._format import Frames

__all__ = ["FRAME_LIMIT", "MAGIC", "SINGLE_FRAME_LIMIT", "ZstdPieces", "is_zstd", "read_seek_table", "seek_table"]

MAGIC: Final = b"\x28\xb5\x2f\xfd"

SINGLE_FRAME_LIMIT: Final = 4 << 20
"""A shard in one frame of more content than this counts as not seekable: a sample costs the whole frame."""
FRAME_LIMIT: Final = 64 << 20
"""A frame of more content than this has no place in an index, also beside others."""

_SKIPPABLE: Final = frozenset(struct.pack("<I", 0x184D2A50 + n) for n in range(16))
_SEEK_TABLE_FRAME: Final = 0x184D2A5E
_SEEK_TABLE_MAGIC: Final = 0x8F92EAB1
_SEEK_FOOTER: Final = struct.Struct("<IBI")
_SEEK_TABLE_MAX: Final = 64 << 20

_BLOCK_MAX: Final = 128 << 10
_OUTPUT_BYTES: Final = 1 << 20
# The most that the command `zstd` takes without --long. A frame that needs more would need that much memory.
_WINDOW_MAX: Final = 128 << 20

_WINDOW_BYTES: Final = 1
_DICTIONARY_BYTES: Final = (0, 1, 2, 4)
_CONTENT_SIZE_BYTES: Final = (0, 2, 4, 8)
_RLE, _RESERVED, _RAW = 1, 3, 0


def is_zstd(first: bytes) -> bool:
    """Whether what begins so is Zstandard; frames to skip may come first."""
    return first.startswith(MAGIC) or first[:4] in _SKIPPABLE


def zstandard() -> Any:
    """The library, imported when it is needed.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import zstandard as module  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("shards in zstd need the package zstandard: pip install 's3dataset[shards]'") from error
    return module


class ZstdPieces:
    """The content of frames, one after the other.

    Args:
        raw: The compressed bytes, at the beginning of a frame.
        frames: Gets the frames as they pass.
        content_offset: Where in the content the first frame's begins.
        indexable: Raise UnindexableError once a frame is too large for an index; else `frames` becomes None then.
    """

    def __init__(
        self, raw: Content, *, frames: Frames | None = None, content_offset: int = 0, indexable: bool = False
    ) -> None:
        self.frames = frames
        self._library = zstandard()
        self._decompressor = self._library.ZstdDecompressor(max_window_size=_WINDOW_MAX)
        self._raw = raw
        self._offset = content_offset
        self._indexable = indexable
        self._frame: Any = None
        self._begin = 0  # of the frame, in the object
        self._made = 0  # of its content
        self._checksummed = False

    def hop(self, length: int) -> bool:  # noqa: ARG002
        return False

    def next(self) -> bytes:
        while True:
            if self._frame is None and not self._begin_frame():
                self._end()
                return b""
            part = self._blocks()
            if part:
                return part

    def _begin_frame(self) -> bool:
        raw = self._raw
        while True:
            self._begin = raw.offset
            magic = raw.take(4)
            if not magic:
                return False
            if magic in _SKIPPABLE:
                length = int.from_bytes(self._exactly(4), "little")
                if raw.skip(length) < length:
                    raise self._broken("ends inside of a skippable frame")
                continue
            if magic != MAGIC:
                raise self._broken(f"is followed by bytes that are no zstd ({magic!r})")
            break
        descriptor = self._exactly(1)
        flags = descriptor[0]
        single_segment = bool(flags & 0x20)
        if flags & 0x08:
            raise self._broken("has a reserved bit set in the header of a frame")
        if flags & 3:
            raise self._broken("was compressed with a dictionary, which is not in the file; it cannot be read without")
        size_bytes = _CONTENT_SIZE_BYTES[flags >> 6] or (1 if single_segment else 0)
        rest = self._exactly((0 if single_segment else _WINDOW_BYTES) + size_bytes)
        self._checksummed = bool(flags & 0x04)
        self._made = 0
        if size_bytes:
            claimed = int.from_bytes(rest[-size_bytes:], "little") + (256 if size_bytes == 2 else 0)
            self._check_size(claimed)
        self._frame = self._decompressor.decompressobj()
        self._decompress(magic + descriptor + rest)
        return True

    def _blocks(self) -> bytes:
        """Decompresses the next blocks of the frame, about 1 MiB of content."""
        data: list[bytes] = []
        bound = 0
        last = 0
        while bound < _OUTPUT_BYTES and not last:
            header = self._exactly(3)
            value = int.from_bytes(header, "little")
            last, kind, size = value & 1, value >> 1 & 3, value >> 3
            if kind == _RESERVED or size > _BLOCK_MAX:
                raise self._broken("has a block of no known kind, or one longer than 128 KiB")
            data += (header, self._exactly(1 if kind == _RLE else size))
            bound += size if kind in {_RAW, _RLE} else _BLOCK_MAX
        if last and self._checksummed:
            data.append(self._exactly(4))
        part = self._decompress(b"".join(data))
        self._made += len(part)
        self._check_size(self._made)
        if last:
            if not self._frame.eof:
                raise self._broken("has a frame that does not end where its blocks do")
            self._end_frame()
        return part

    def _decompress(self, data: bytes) -> bytes:
        try:
            part: bytes = self._frame.decompress(data)
        except self._library.ZstdError as error:
            raise self._broken(f"cannot be decompressed ({error})") from error
        return part

    def _end_frame(self) -> None:
        self._frame = None
        self._offset += self._made
        if self._made and self.frames is not None:
            self.frames.starts.append(self._begin)
            self.frames.stops.append(self._raw.offset)
            self.frames.ends.append(self._offset)

    def _check_size(self, size: int) -> None:
        if size > FRAME_LIMIT and (self.frames is not None or self._indexable):
            self._not_indexable(f"has a frame of {size} bytes or more")

    def _end(self) -> None:
        frames = self.frames
        if frames is not None and len(frames.ends) == 1 and frames.ends[0] > SINGLE_FRAME_LIMIT:
            self._not_indexable(f"is one frame of {frames.ends[0]} bytes")

    def _not_indexable(self, what: str) -> None:
        self.frames = None
        if self._indexable:
            url = self._raw.url
            raise UnindexableError(
                f"{url or 'The shard given'}: its zstd data {what}, which can only be read from its beginning. Read "
                "it as a stream, or write it anew in small frames: s3dataset pack --compression zst",
                uri=url,
            )

    def _exactly(self, length: int) -> bytes:
        data = self._raw.take(length)
        if len(data) < length:
            raise self._broken("ends inside of a frame")
        return data

    def _broken(self, what: str) -> DecodeError:
        return broken(
            self._raw.url,
            f"its zstd data {what}, in the frame at byte {self._begin}, about byte {self._raw.offset}. "
            "If it was cut short or damaged, write it again from its source",
        )


def seek_table(frames: Frames) -> bytes:
    """The table for the end of a file: a skippable frame with the sizes of all others."""
    entries = array("I")
    content = 0
    for start, stop, end in zip(frames.starts, frames.stops, frames.ends, strict=True):
        entries.extend((stop - start, end - content))
        content = end
    body = struct.pack(f"<{len(entries)}I", *entries) + _SEEK_FOOTER.pack(len(frames.ends), 0, _SEEK_TABLE_MAGIC)
    return struct.pack("<II", _SEEK_TABLE_FRAME, len(body)) + body


def read_seek_table(stream: BinaryIO) -> Frames | None:
    """The frames that the table at the end of the stream tells of; None without one, or if it cannot be right."""
    try:
        size = stream.seek(-_SEEK_FOOTER.size, 2) + _SEEK_FOOTER.size
        footer = stream.read(_SEEK_FOOTER.size)
        if len(footer) < _SEEK_FOOTER.size:
            return None
        count, descriptor, magic = _SEEK_FOOTER.unpack(footer)
        width = 12 if descriptor & 0x80 else 8
        length = 8 + count * width + _SEEK_FOOTER.size
        if magic != _SEEK_TABLE_MAGIC or descriptor & 0x7C or length > min(size, _SEEK_TABLE_MAX):
            return None
        stream.seek(size - length)
        table = stream.read(length)
    except (OSError, AttributeError, ValueError):  # no seeking here, or nothing to seek in
        return None
    if len(table) < length or struct.unpack_from("<II", table) != (_SEEK_TABLE_FRAME, length - 8):
        return None
    frames = Frames()
    at = content = 0
    for compressed, decompressed, *_ in struct.iter_unpack(f"<{width // 4}I", table[8 : -_SEEK_FOOTER.size]):
        content += decompressed
        if decompressed:
            frames.starts.append(at)
            frames.stops.append(at + compressed)
            frames.ends.append(content)
        at += compressed
    return frames if at == size - length else None
