"""A file of torch.save in memory, with each storage where the loaded object will have it."""

import io
import os
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, cast

import torch
from torch import serialization

from s3dataset._checkpoint._memory import allocate, crc32_of, view_of
from s3dataset._torch_archive import LOCAL_HEADER, STORAGE_NAME, Record, data_start

__all__ = ["Image", "Place", "UnusualArchiveError", "Wait"]

_LOCAL_HEADER_BYTES: Final = 30
_MAX_LENGTH_16: Final = 0xFFFF

Wait = Callable[[int, int], None]
"""Returns when bytes [start, end) of the file are there, of those that will be."""


class UnusualArchiveError(Exception):
    """The archive is none that torch.save writes today: torch.load has to read it by itself."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a storage lies in the file."""

    header_start: int
    start: int
    nbytes: int

    @property
    def end(self) -> int:
        return self.start + self.nbytes


class Image:
    """All bytes of an archive: its storages in memory of torch's, what lies around them in memory of Python's.

    A storage has memory once it is wanted.

    Args:
        nbytes: Of the archive.
        records: What its directory has.
        directory_start: Where that begins.

    Raises:
        UnusualArchiveError: Its storages are compressed, or there are none.
    """

    def __init__(self, nbytes: int, records: list[Record], directory_start: int) -> None:
        self.nbytes = nbytes
        self._records = records
        self._order = next((record for record in records if record.name.endswith("/byteorder")), None)
        self._places = {place.start: place for place in _places(records, directory_start)}
        self._others = _others(records, directory_start)
        self._place_at_header = {place.header_start: place for place in self._places.values()}
        if not self._places:
            raise UnusualArchiveError
        self._storages: dict[int, torch.UntypedStorage] = {}
        self._absent: dict[int, tuple[torch.UntypedStorage, Place]] = {}
        self._known: list[tuple[int, int]] = []
        self._starts: list[int] = []
        self._memory: list[memoryview | None] = []
        at = 0
        for place in self._places.values():
            self._add(at, memoryview(bytearray(place.start - at)))
            self._write_header(place, at)
            self._add(place.start, None)
            at = place.end
        self._add(at, memoryview(bytearray(nbytes - at)))

    def _add(self, start: int, memory: memoryview | None) -> None:
        if memory is None or len(memory):
            self._starts.append(start)
            self._memory.append(memory)

    def _write_header(self, place: Place, gap_start: int) -> None:
        """A local header that leads to the storage, which serves until the file's own is there."""
        padding = place.start - place.header_start - _LOCAL_HEADER_BYTES
        name_bytes = min(padding, _MAX_LENGTH_16)
        if padding - name_bytes > _MAX_LENGTH_16:
            raise UnusualArchiveError
        gap = cast("memoryview", self._memory[-1])
        at = place.header_start - gap_start
        gap[at : at + 4] = LOCAL_HEADER
        gap[at + 26 : at + 28] = name_bytes.to_bytes(2, "little")
        gap[at + 28 : at + 30] = (padding - name_bytes).to_bytes(2, "little")

    @property
    def places(self) -> list[Place]:
        """Of all storages that have bytes, in the order of the file."""
        return list(self._places.values())

    def place_of(self, absent: torch.UntypedStorage) -> Place | None:
        """Of a storage that an object of `load` has on "meta"."""
        return self._absent.get(absent._cdata, (None, None))[1]  # noqa: SLF001 - as above

    def want(self, places: Iterable[Place]) -> None:
        """Takes memory for these storages."""
        for place in places:
            if place.start not in self._storages:
                storage = self._storages[place.start] = allocate(place.nbytes)
                self._memory[bisect_left(self._starts, place.start)] = view_of(storage)

    def unknown_around(self) -> list[tuple[int, int]]:
        """[start, end) of what is no storage and was not filled in."""
        found: list[tuple[int, int]] = []
        for start, end in self._others:
            if self._is_known(start, end):
                continue
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], end)
            else:
                found.append((start, end))
        return found

    def pieces(self, start: int, end: int) -> list[memoryview]:
        """The memory of bytes [start, end), none of a storage that is not wanted."""
        return [cast("memoryview", memory)[lower:upper] for memory, lower, upper in self._parts(start, end)]

    def _parts(self, start: int, end: int) -> Iterator[tuple[memoryview | None, int, int]]:
        at = bisect_right(self._starts, start) - 1
        while start < end:
            begin = self._starts[at]
            upper = min(end, self._starts[at + 1] if at + 1 < len(self._starts) else self.nbytes)
            yield self._memory[at], start - begin, upper - begin
            start = upper
            at += 1

    def fill(self, start: int, data: memoryview) -> None:
        """Puts bytes of the file in their place, except those of storages."""
        end = start + len(data)
        at = bisect_right(self._starts, start) - 1
        for begin, memory in zip(self._starts[at:], self._memory[at:], strict=True):
            if begin >= end:
                break
            if memory is None or begin in self._places:
                continue
            lower, upper = max(start, begin), min(end, begin + len(memory))
            memory[lower - begin : upper - begin] = data[lower - start : upper - start]
        self._known.append((start, end))

    def _is_known(self, start: int, end: int) -> bool:
        return any(lower <= start and end <= upper for lower, upper in self._known)

    def load(self, map_location: Any, *, wait: Wait, **arguments: Any) -> Any:
        """torch.load of it. The object has the storages of this image; those that are not wanted are on "meta".

        Raises:
            UnusualArchiveError: The storages are not where they were taken to be, or are in another byte order.
        """
        order = self._read_record(self._order, wait) if self._order is not None else _default_order()
        if order != sys.byteorder.encode():
            raise UnusualArchiveError
        file = _File(self, wait)
        restore = _restorer(map_location)

        def put(dummy: torch.UntypedStorage, location: str) -> Any:
            place, file.skipped = file.skipped, None
            if place is None or place.nbytes != dummy.nbytes():
                return restore(
                    dummy, location
                )  # an empty one is not read, and one that is read in pieces has its bytes
            storage = self._storages.get(place.start)
            if storage is None:
                make: Any = torch.UntypedStorage
                absent = make(place.nbytes, device="meta")
                self._absent[absent._cdata] = (absent, place)  # noqa: SLF001 - torch's own name of a storage
                return absent
            try:
                wait(place.header_start, place.end)
            except BaseException as error:
                file.error = error  # some versions of torch make another one of it
                raise
            header = b"".join(self.pieces(place.header_start, place.header_start + _LOCAL_HEADER_BYTES))
            if data_start(header, place.header_start) != place.start:
                raise UnusualArchiveError
            return restore(storage, location)

        try:
            return torch.load(cast("Any", file), map_location=cast("Any", put), **arguments)
        except BaseException:
            if file.error is not None:
                raise file.error from None
            raise

    def _read_record(self, record: Record, wait: Wait) -> bytes:
        """One that is no storage; b"" when it is not where it is said to be."""
        header = self._read(record.header_start, record.header_start + _LOCAL_HEADER_BYTES, wait)
        start = data_start(header, record.header_start)
        if start is None or start + record.nbytes > self.nbytes:
            return b""
        return self._read(start, start + record.nbytes, wait)

    def _read(self, start: int, end: int, wait: Wait) -> bytes:
        if not self._is_known(start, end):
            wait(start, end)
        # torch looks for the directory's end beyond it, where storages that are not wanted may lie: any bytes serve.
        parts = self._parts(start, end)
        return b"".join(
            bytes(upper - lower) if memory is None else memory[lower:upper] for memory, lower, upper in parts
        )

    def differing(self) -> str:
        """The names of all records that are here, and are not what their checksums in the directory say."""
        return ", ".join(record.name for record in self._records if self._differs(record))

    def _differs(self, record: Record) -> bool:
        if not record.is_plain or not record.nbytes or not record.crc:
            return False  # without a checksum: torch may be told to compute none, and then writes 0
        place = self._place_at_header.get(record.header_start)
        if place is None:
            return crc32_of(memoryview(self._read_record(record, _no_wait))) != record.crc
        storage = self._storages.get(place.start)
        return storage is not None and crc32_of(view_of(storage)) != record.crc


def _no_wait(start: int, end: int) -> None:
    """All is there that will be."""


class _File(io.RawIOBase):
    """What torch.load reads. A storage that it wants whole is not copied: `Image.load` puts it in its place."""

    def __init__(self, image: Image, wait: Wait) -> None:
        super().__init__()
        self._image = image
        self._wait = wait
        self._position = 0
        self.skipped: Place | None = None
        """Of the storage that was asked for last."""
        self.error: BaseException | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._image.nbytes}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        target = memoryview(buffer).cast("B")
        start = self._position
        end = min(start + len(target), self._image.nbytes)
        if start >= end or self.error is not None:
            return 0
        place = self._image._places.get(start)  # noqa: SLF001 - its own file
        if place is not None and len(target) == place.nbytes:
            self.skipped = place
        else:
            try:
                target[: end - start] = self._image._read(start, end, self._wait)  # noqa: SLF001 - as above
            except BaseException as error:  # noqa: BLE001 - torch would make another one of it: `Image.load` raises it
                self.error = error
                return 0
        self._position = end
        return end - start


def _places(records: list[Record], directory_start: int) -> Iterator[Place]:
    ordered = sorted(records, key=lambda record: record.header_start)
    ends = [record.header_start for record in ordered[1:]] + [directory_start]
    for record, end in zip(ordered, ends, strict=True):
        if record.header_start + _LOCAL_HEADER_BYTES > end or end > directory_start:
            raise UnusualArchiveError  # else a directory that lies would have us take any amount of memory
        if not record.nbytes or not STORAGE_NAME.fullmatch(record.name):
            continue
        start = end - record.descriptor_bytes - record.nbytes
        if not record.is_plain or start < record.header_start + _LOCAL_HEADER_BYTES:
            raise UnusualArchiveError
        yield Place(record.header_start, start, record.nbytes)


def _others(records: list[Record], directory_start: int) -> list[tuple[int, int]]:
    """[start, end) of the records that are no storages."""
    starts = sorted(record.header_start for record in records)
    end_of = dict(pairwise([*starts, directory_start]))
    return sorted(
        (record.header_start, end_of[record.header_start])
        for record in records
        if not STORAGE_NAME.fullmatch(record.name)
    )


def _default_order() -> bytes:
    """Of a file without a word of its own: little endian unless torch was told otherwise."""
    return b"little" if serialization.get_default_load_endianness() is None else b""


def _restorer(map_location: Any) -> Callable[[Any, str], Any]:
    """As torch.load understands `map_location`."""
    default_restore_location: Any = serialization.default_restore_location
    if map_location is None:
        return cast("Callable[[Any, str], Any]", default_restore_location)
    if isinstance(map_location, dict):
        return lambda storage, location: default_restore_location(storage, map_location.get(location, location))
    if isinstance(map_location, str | bytes):
        return lambda storage, _: default_restore_location(storage, map_location)
    if isinstance(map_location, torch.device):
        return lambda storage, _: default_restore_location(storage, str(map_location))

    def restore(storage: Any, location: str) -> Any:
        result = map_location(storage, location)
        return default_restore_location(storage, location) if result is None else result

    return restore
