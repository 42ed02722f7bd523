"""Headers of tar: what one block says of the member behind it.

Source: POSIX.1-2017 pax (ustar, pax headers); GNU tar's manual for long names and base-256 numbers.
"""

import struct
from typing import Final
from zlib import adler32

__all__ = ["BLOCK", "ZEROS", "Extension", "checksum_holds", "member_name", "number", "ustar_headers"]

BLOCK: Final = 512
ZEROS: Final = bytes(BLOCK)

_GNU_MAGIC: Final = b"ustar  \0"
_NAME: Final = slice(0, 100)
_SIZE: Final = slice(124, 136)
_CHECKSUM: Final = slice(148, 156)
_MAGIC: Final = slice(257, 265)
_PREFIX: Final = slice(345, 500)

_OCTAL_SIZE_MAX: Final = 8**11 - 1


def number(field: bytes) -> int:
    """A number in octal digits, or in base 256 as GNU's tar has it for large ones; may be negative.

    Raises:
        ValueError: It is neither.
    """
    first = field[0]
    if first in {0x80, 0xFF}:
        value = int.from_bytes(field[1:], "big")
        return value if first == 0x80 else value - (1 << 8 * (len(field) - 1))
    return int(field.split(b"\0", 1)[0].strip() or b"0", 8)


def checksum_holds(header: bytes) -> bool:
    """Whether the header's checksum is that of its bytes. A sum of signed bytes, as old programs made, will do."""
    field = header[_CHECKSUM]
    try:
        told = int(field.split(b"\0", 1)[0], 8)
    except ValueError:
        return False
    own = sum(field) - 256  # the field itself counts as spaces
    # Adler-32 has the sum of all bytes, plus 1, modulo 65521 in its lower half: at C's speed.
    if (adler32(header) & 0xFFFF) - 1 - own == told:
        return True
    total = sum(header) - own
    signed = sum(struct.unpack_from("148b", header)) + 256 + sum(struct.unpack_from("356b", header, 156))
    return told in {total, signed}


def _text(data: bytes) -> str:
    """UTF-8; bytes that are not come as surrogates, so that two names stay two."""
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def member_name(header: bytes) -> str:
    """The name as the block itself has it."""
    name = _text(header[_NAME])
    if header[345] and header[_MAGIC] != _GNU_MAGIC:  # GNU keeps times there
        return f"{_text(header[_PREFIX])}/{name}"
    return name


class Extension:
    """What headers before a member's own say of it; of two that say the same the first counts."""

    __slots__ = ("path", "size", "sparse")

    def __init__(self) -> None:
        self.path: str | None = None
        self.size: int | None = None
        self.sparse = False

    def add(self, kind: int, data: bytes) -> None:
        """Reads one more such header.

        Raises:
            ValueError: It is broken, or says what cannot be kept to.
        """
        if kind == ord("L"):
            self._name(_text(data))
        elif kind in b"xXg":
            records = _pax_records(data)
            if kind == ord("g"):
                self._all_members(records)
            else:
                self._this_member(records)

    def _name(self, name: str) -> None:
        if self.path is None:
            self.path = name

    def _this_member(self, records: dict[str, bytes]) -> None:
        if any(keyword.startswith("GNU.sparse.") for keyword in records):
            self.sparse = True
        path = records.get("GNU.sparse.name", records.get("path"))
        if path is not None:
            self._name(path.decode("utf-8", "surrogateescape").rstrip("/"))
        if "size" in records and self.size is None:
            self.size = int(records["size"])

    @staticmethod
    def _all_members(records: dict[str, bytes]) -> None:
        told = sorted(
            keyword for keyword in records if keyword in {"path", "size"} or keyword.startswith("GNU.sparse.")
        )
        if told:
            raise ValueError(f"a global pax header gives {', '.join(told)} for every member behind it")


def _pax_records(data: bytes) -> dict[str, bytes]:
    records: dict[str, bytes] = {}
    at = 0
    while at < len(data) and data[at]:
        digits, space, _ = data[at : at + 20].partition(b" ")
        if not space or not digits.isdigit():
            raise ValueError("a record of a pax header has no length")
        stop = at + int(digits)
        keyword, equals, value = data[at + len(digits) + 1 : stop].partition(b"=")
        if stop > len(data) or not equals or not value.endswith(b"\n"):
            raise ValueError("a record of a pax header has the wrong length")
        records[keyword.decode("utf-8", "surrogateescape")] = value[:-1]
        at = stop
    return records


def ustar_headers(name: str, size: int) -> bytes:
    """The header of a file, with a pax header before it where the name or the size does not fit.

    Always the same for the same arguments: no times, no owners.
    """
    encoded = name.encode("utf-8", "surrogateescape")
    prefix = b""
    records = b""
    if len(encoded) > 100:
        cut = encoded.find(b"/", len(encoded) - 101)
        if 0 < cut <= 155 and cut + 1 < len(encoded):
            prefix, encoded = encoded[:cut], encoded[cut + 1 :]
        else:
            records += _pax_record(b"path", encoded)
            encoded = encoded[:100]
    if size > _OCTAL_SIZE_MAX:
        records += _pax_record(b"size", b"%d" % size)
    before = b""
    if records:
        before = _ustar(b"././@PaxHeader", b"", len(records), b"x") + records + bytes(-len(records) % BLOCK)
    return before + _ustar(encoded, prefix, min(size, _OCTAL_SIZE_MAX), b"0")


def _pax_record(keyword: bytes, value: bytes) -> bytes:
    rest = len(keyword) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, keyword, value)


def _ustar(name: bytes, prefix: bytes, size: int, kind: bytes) -> bytes:
    parts = (name, b"0000644\0", b"0000000\0", b"0000000\0", b"%011o\0" % size, b"%011o\0" % 0, b" " * 8, kind, b"")
    header = struct.pack(
        "100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x",
        *parts,
        b"ustar\x0000",
        b"",
        b"",
        b"0000000\0",
        b"0000000\0",
        prefix,
    )
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]
