"""The archives of torch.save: what lies where in them. Pure: no I/O.

Source: APPNOTE.TXT of PKWARE (local header 4.3.7, data descriptor 4.3.9, central directory 4.3.12,
zip64 4.3.14-15, end record 4.3.16).
"""

import re
import struct
from dataclasses import dataclass

__all__ = [
    "LOCAL_HEADER",
    "STORAGE_NAME",
    "Record",
    "TorchArchive",
    "begins_torch_archive",
    "data_start",
    "directory_range",
    "parse_directory",
    "parse_records",
]

LOCAL_HEADER = b"PK\x03\x04"
_LOCAL_HEADER_BYTES = 30
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_CENTRAL_MAGIC = b"PK\x01\x02"
_END = struct.Struct("<4s4H2IH")
_END_MAGIC = b"PK\x05\x06"
_LOCATOR = struct.Struct("<4sIQI")
_LOCATOR_MAGIC = b"PK\x06\x07"
_END64 = struct.Struct("<4sQ2H2I4Q")
_END64_MAGIC = b"PK\x06\x06"
_ABSENT_32 = 0xFFFFFFFF
_EXTRA_ZIP64 = 1
_CRC_AT = 16
_ENCRYPTED = 1
_HAS_DESCRIPTOR = 8
_DESCRIPTOR_BYTES, _DESCRIPTOR64_BYTES = 16, 24

STORAGE_NAME = re.compile(r"[^/]+/(?:data|tensors|constants)/(\d+)")


@dataclass(frozen=True, slots=True)
class TorchArchive:
    """Where the tensors' storages lie in the file."""

    storages: tuple[tuple[int, int], ...]
    """[start, end) of neighbouring storages, their local headers and padding included, in the order of the file."""
    headers: frozenset[int]
    """Offsets of the storages' local headers."""
    reading: tuple[tuple[int, int], ...] | None = None
    """Each storage's [start, end) in the order in which torch.load reads them; None: as they lie in the file."""

    @property
    def start(self) -> int:
        return self.storages[0][0]

    @property
    def end(self) -> int:
        return self.storages[-1][1]


def begins_torch_archive(head: memoryview) -> bool:
    """Whether the object's first bytes are those of torch.save's archive, whose first record is <name>/data.pkl."""
    if len(head) < _LOCAL_HEADER_BYTES or head[:4] != LOCAL_HEADER:
        return False
    name_bytes = int.from_bytes(head[26:28], "little")
    name = head[_LOCAL_HEADER_BYTES : _LOCAL_HEADER_BYTES + name_bytes].tobytes()
    return name.endswith((b"/data.pkl", b"/.data/version", b"/version"))


def directory_range(tail: memoryview, object_bytes: int) -> tuple[int, int] | None:
    """[start, end) of the central directory, from the object's last bytes; None when they do not tell."""
    data = tail.tobytes()
    tail_start = object_bytes - len(data)
    at = data.rfind(_END_MAGIC)
    if at < 0 or at + _END.size > len(data):
        return None
    _, _, _, _, _, nbytes, start, _ = _END.unpack_from(data, at)
    if _ABSENT_32 in (start, nbytes) or data[max(at - _LOCATOR.size, 0) : at][:4] == _LOCATOR_MAGIC:
        locator_at = at - _LOCATOR.size
        if locator_at < 0:
            return None
        magic, _, end64_start, _ = _LOCATOR.unpack_from(data, locator_at)
        end64_at = end64_start - tail_start
        if magic != _LOCATOR_MAGIC or end64_at < 0 or end64_at + _END64.size > len(data):
            return None
        magic, _, _, _, _, _, _, _, nbytes, start = _END64.unpack_from(data, end64_at)
        if magic != _END64_MAGIC:
            return None
    if start + nbytes > object_bytes:
        return None
    return start, start + nbytes


@dataclass(frozen=True, slots=True)
class Record:
    """One file of the archive, as its central directory has it."""

    name: str
    header_start: int
    """Offset of its local header in the archive."""
    nbytes: int
    """Of the data as it lies there."""
    is_plain: bool
    """Neither compressed nor encrypted."""
    has_descriptor: bool
    """Its checksum and sizes follow the data once more."""
    crc: int
    crc_at: int
    """Where in the directory its checksum stands."""

    @property
    def descriptor_bytes(self) -> int:
        if not self.has_descriptor:
            return 0
        is_large = self.nbytes >= _ABSENT_32 or self.header_start >= _ABSENT_32
        return _DESCRIPTOR64_BYTES if is_large else _DESCRIPTOR_BYTES


def parse_records(directory: bytes | bytearray) -> list[Record] | None:
    """All records, in the order of the directory; None when it is broken."""
    records: list[Record] = []
    at = 0
    while at + _CENTRAL.size <= len(directory):
        fields = _CENTRAL.unpack_from(directory, at)
        if fields[0] != _CENTRAL_MAGIC:
            return None
        flags, method = fields[3], fields[4]
        crc, stored_bytes, plain_bytes, name_bytes, extra_bytes, comment_bytes = fields[7:13]
        header_start = fields[16]
        name_at = at + _CENTRAL.size
        extra_at = name_at + name_bytes
        absent = [value == _ABSENT_32 for value in (plain_bytes, stored_bytes, header_start)]
        if any(absent):
            values = _zip64_values(bytes(directory[extra_at : extra_at + extra_bytes]), sum(absent))
            if values is None:
                return None
            taken = iter(values)
            plain_bytes, stored_bytes, header_start = (
                next(taken) if is_absent else value
                for value, is_absent in zip((plain_bytes, stored_bytes, header_start), absent, strict=True)
            )
        records.append(
            Record(
                name=bytes(directory[name_at:extra_at]).decode("utf-8", "replace"),
                header_start=header_start,
                nbytes=stored_bytes,
                is_plain=method == 0 and not flags & _ENCRYPTED and stored_bytes == plain_bytes,
                has_descriptor=bool(flags & _HAS_DESCRIPTOR),
                crc=crc,
                crc_at=at + _CRC_AT,
            )
        )
        at = extra_at + extra_bytes + comment_bytes
    return records


def data_start(local_header: bytes | bytearray | memoryview, header_start: int) -> int | None:
    """Where the data behind a local header begin; None when it is none."""
    if len(local_header) < _LOCAL_HEADER_BYTES or local_header[:4] != LOCAL_HEADER:
        return None
    name_bytes, extra_bytes = (
        int.from_bytes(local_header[26:28], "little"),
        int.from_bytes(local_header[28:30], "little"),
    )
    return header_start + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes


def parse_directory(directory: bytes, directory_start: int) -> TorchArchive | None:
    """The storages of an archive; None when the directory is broken or has none."""
    records = parse_records(directory)
    if records is None:
        return None
    found = ((record.header_start, _place_of_storage(record.name)) for record in records)
    return _archive_of(sorted(found, key=lambda one: one[0]), directory_start)


def _place_of_storage(name: str) -> tuple[str, int] | None:
    """The folder and number of a storage: torch.load reads those of a folder by their numbers."""
    named = STORAGE_NAME.fullmatch(name)
    return None if named is None else (name[: named.start(1)], int(named.group(1)))


def _zip64_values(extra: bytes, count: int) -> tuple[int, ...] | None:
    at = 0
    while at + 4 <= len(extra):
        kind, nbytes = struct.unpack_from("<2H", extra, at)
        if kind == _EXTRA_ZIP64 and nbytes >= 8 * count and at + 4 + nbytes <= len(extra):
            return struct.unpack_from(f"<{count}Q", extra, at + 4)
        at += 4 + nbytes
    return None


def _archive_of(records: list[tuple[int, tuple[str, int] | None]], directory_start: int) -> TorchArchive | None:
    storages: list[tuple[int, int]] = []
    folders: dict[str, list[tuple[int, tuple[int, int]]]] = {}
    headers: list[int] = []
    ends = [start for start, _ in records[1:]] + [directory_start]
    for (start, place), end in zip(records, ends, strict=False):
        if place is None or end <= start:
            continue
        headers.append(start)
        folders.setdefault(place[0], []).append((place[1], (start, end)))
        if storages and storages[-1][1] == start:
            storages[-1] = (storages[-1][0], end)
        else:
            storages.append((start, end))
    if not storages:
        return None
    reading = tuple(storage for folder in folders.values() for _, storage in sorted(folder))
    return TorchArchive(tuple(storages), frozenset(headers), None if list(reading) == sorted(reading) else reading)
