"""gzip: one stream, or blocks of BGZF that decode by themselves.

Source: RFC 1952; BGZF is in the SAM specification, 4.1: members of at most 64 KiB, each of which tells its own length
in an extra field named BC.
"""

import struct
import zlib
from typing import Final

from s3dataset.errors import DecodeError
from s3dataset.formats._content import PIECE_BYTES, Content, broken
from s3dataset.formats._format import Frames

__all__ = ["BGZF_CONTENT_BYTES", "MAGIC", "GzipPieces", "bgzf_block", "is_bgzf"]

MAGIC: Final = b"\x1f\x8b\x08"

BGZF_CONTENT_BYTES: Final = 0xFF00
"""Content of a block: as much as fits if it cannot be compressed."""

_HEADER: Final = struct.Struct("<3sBIBB")
_TRAILER: Final = struct.Struct("<II")
_BGZF_HEADER: Final = struct.Struct("<3sBIBBH2sHH")
_FEXTRA: Final = 4
# What goes into zlib at once: it copies what it left over.
_INPUT_BYTES: Final = 64 << 10
_BGZF_MAX: Final = 64 << 10


def is_bgzf(first: bytes) -> bool:
    """Whether what begins so is in blocks of BGZF; needs 18 bytes where BC is the first extra field."""
    if len(first) < _BGZF_HEADER.size or not first.startswith(MAGIC) or not first[3] & _FEXTRA:
        return False
    (length,) = struct.unpack_from("<H", first, 10)
    return _bgzf_size(first[12 : 12 + length]) is not None


def _bgzf_size(extra: bytes) -> int | None:
    """The length of the block, from the extra fields of its header; None where it does not tell."""
    at = 0
    while at + 4 <= len(extra):
        name, length = extra[at : at + 2], int.from_bytes(extra[at + 2 : at + 4], "little")
        if name == b"BC" and length == 2 and at + 6 <= len(extra):
            return int.from_bytes(extra[at + 4 : at + 6], "little") + 1
        at += 4 + length
    return None


class GzipPieces:
    """The content of gzip data, member after member.

    Args:
        raw: The compressed bytes, at the beginning of a member.
        frames: Gets the blocks, if they are those of BGZF.
    """

    def __init__(self, raw: Content, *, frames: Frames | None = None, content_offset: int = 0) -> None:
        self.frames = frames
        self._raw = raw
        self._offset = content_offset
        self._member: zlib._Decompress | None = None
        self._tail = b""
        self._begin = 0

    def hop(self, length: int) -> bool:  # noqa: ARG002
        return False

    def next(self) -> bytes:
        parts: list[bytes] = []
        length = 0
        while length < PIECE_BYTES:
            try:
                part = self._inflate() if self._member is not None else self._next_member()
            except zlib.error as error:
                raise self._broken(f"is broken ({error})") from error
            if part is None:
                break
            if part:
                parts.append(part)
                length += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _next_member(self) -> bytes | None:
        """Begins a member; the whole of it if it is a block of BGZF. None at the end."""
        raw = self._raw
        self._begin = raw.offset
        header = raw.take(_HEADER.size)
        if not header or header[0] == 0:
            self._padding(header)
            return None
        if len(header) < _HEADER.size:
            raise self._broken("ends in the header of a member")
        if not header.startswith(MAGIC):
            raise self._broken(f"is followed by bytes that are no gzip ({header[:4]!r})")
        if not header[3] & _FEXTRA:
            return self._stream(header)
        length = raw.take(2)
        extra = raw.take(int.from_bytes(length, "little"))
        size = _bgzf_size(extra)
        if size is None or header[3] != _FEXTRA:
            return self._stream(header + length + extra)
        return self._block(size - _HEADER.size - 2 - len(extra))

    def _stream(self, header: bytes) -> bytes:
        self.frames = None  # it does not tell its length, so nothing behind it can be found
        self._member = zlib.decompressobj(wbits=31)
        self._tail = header
        return b""

    def _inflate(self) -> bytes:
        member = self._member
        assert member is not None
        data = self._tail or self._raw.some(_INPUT_BYTES)
        if not data:
            raise self._broken("ends inside of a member")
        part = member.decompress(data, PIECE_BYTES)
        self._tail = member.unconsumed_tail
        if member.eof:
            unused = len(member.unused_data)
            if unused:
                self._raw.untake(unused)
            self._member, self._tail = None, b""
        self._offset += len(part)
        return part

    def _block(self, left: int) -> bytes:
        data = self._raw.take(max(left, 0))
        if left < _TRAILER.size:
            raise self._broken("has a block whose length is too small")
        if len(data) < left:
            raise self._broken("ends inside of a block")
        crc, size = _TRAILER.unpack_from(data, left - _TRAILER.size)
        inflater = zlib.decompressobj(wbits=-15)
        part = inflater.decompress(data[: -_TRAILER.size], _BGZF_MAX + 1)
        if not inflater.eof or inflater.unused_data or len(part) != size or zlib.crc32(part) != crc:
            raise self._broken("has a block that does not decode to what it should")
        self._offset += size
        if size and self.frames is not None:
            self.frames.starts.append(self._begin)
            self.frames.stops.append(self._raw.offset)
            self.frames.ends.append(self._offset)
        return part

    def _padding(self, first: bytes) -> None:
        """Zeros behind the last member, as tapes have them, are let pass."""
        while first:
            if first.strip(b"\0"):
                raise self._broken("is followed by bytes that are no gzip")
            first = self._raw.some(_INPUT_BYTES)

    def _broken(self, what: str) -> DecodeError:
        return broken(
            self._raw.url,
            f"its gzip data {what}, in the member at byte {self._begin}, about byte {self._raw.offset}. "
            "It was cut short or damaged: write it again from its source",
        )


def bgzf_block(content: bytes | bytearray | memoryview, level: int) -> bytes:
    """One block; at most `BGZF_CONTENT_BYTES` of content."""
    for attempt in (level, 0):
        deflater = zlib.compressobj(attempt, zlib.DEFLATED, -15)
        data = deflater.compress(content) + deflater.flush()
        size = _BGZF_HEADER.size + len(data) + _TRAILER.size
        if size <= _BGZF_MAX:
            break
    header = _BGZF_HEADER.pack(MAGIC, _FEXTRA, 0, 0, 255, 6, b"BC", 2, size - 1)
    return b"".join([header, data, _TRAILER.pack(zlib.crc32(content), len(content))])
