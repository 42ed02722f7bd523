"""A file of torch.save in memory, with each storage where the loaded object will have it."""

import io
import os
import sys
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Final, cast

import torch
from torch import serialization

from s3dataset._checkpoint._memory import allocate, view_of
from s3dataset._torch_archive import STORAGE_NAME, Record, data_start

__all__ = ["Image", "UnusualArchiveError"]

_LOCAL_HEADER_BYTES: Final = 30


class UnusualArchiveError(Exception):
    """The archive is none that torch.save writes today: torch.load has to read it by itself."""


class Image:
    """All bytes of an archive: its storages in memory of torch's, what lies around them in memory of Python's.

    Args:
        nbytes: Of the archive.
        records: What its directory has.
        directory_start: Where that begins.

    Raises:
        UnusualArchiveError: Its storages are compressed, or there are none.
    """

    def __init__(self, nbytes: int, records: list[Record], directory_start: int) -> None:
        self.nbytes = nbytes
        ordered = sorted(records, key=lambda record: record.header_start)
        ends = [record.header_start for record in ordered[1:]] + [directory_start]
        self._storages: dict[int, torch.UntypedStorage] = {}
        self._headers: dict[int, int] = {}
        self._starts: list[int] = []
        self._memory: list[memoryview] = []
        at = 0
        for record, end in zip(ordered, ends, strict=True):
            if record.header_start + _LOCAL_HEADER_BYTES > end or end > directory_start:
                raise UnusualArchiveError  # else a directory that lies would have us take any amount of memory
            if not record.nbytes or not STORAGE_NAME.fullmatch(record.name):
                continue
            start = end - record.descriptor_bytes - record.nbytes
            if not record.is_plain or start < record.header_start + _LOCAL_HEADER_BYTES:
                raise UnusualArchiveError
            storage = allocate(record.nbytes)
            self._storages[start] = storage
            self._headers[start] = record.header_start
            self._add(at, memoryview(bytearray(start - at)))
            self._add(start, view_of(storage))
            at = start + record.nbytes
        if not self._storages:
            raise UnusualArchiveError
        self._add(at, memoryview(bytearray(nbytes - at)))
        self._order = next((record for record in records if record.name.endswith("/byteorder")), None)

    def _add(self, start: int, memory: memoryview) -> None:
        if len(memory):
            self._starts.append(start)
            self._memory.append(memory)

    def pieces(self, start: int, end: int) -> list[memoryview]:
        """The memory of bytes [start, end)."""
        found: list[memoryview] = []
        at = bisect_right(self._starts, start) - 1
        while start < end:
            begin = self._starts[at]
            found.append(self._memory[at][start - begin : end - begin])
            start += len(found[-1])
            at += 1
        return found

    def check(self) -> None:
        """With all bytes there: whether the storages are where they were taken to be.

        Raises:
            UnusualArchiveError: They are not, or are in another byte order.
        """
        for start, header_start in self._headers.items():
            header = b"".join(self.pieces(header_start, header_start + _LOCAL_HEADER_BYTES))
            if data_start(header, header_start) != start:
                raise UnusualArchiveError
        if self._read_byteorder() != sys.byteorder.encode():
            raise UnusualArchiveError

    def _read_byteorder(self) -> bytes:
        """As the file has it; without a word of its own, little endian unless torch was told otherwise."""
        order = self._order
        if order is None:
            return b"little" if serialization.get_default_load_endianness() is None else b""
        header = b"".join(self.pieces(order.header_start, order.header_start + _LOCAL_HEADER_BYTES))
        start = data_start(header, order.header_start)
        if start is None or start + order.nbytes > self.nbytes:
            return b""
        return b"".join(self.pieces(start, start + order.nbytes))

    def load(self, map_location: Any, **arguments: Any) -> Any:
        """torch.load of it. The object has the storages of this image, which is of no use any more then."""
        file = _File(self)
        restore = _restorer(map_location)

        def place(dummy: torch.UntypedStorage, location: str) -> Any:
            storage = self._storages.get(file.skipped)
            file.skipped = -1
            if storage is None or storage.nbytes() != dummy.nbytes():
                storage = dummy  # an empty one is not read, and one that is read in pieces has its bytes
            return restore(storage, location)

        return torch.load(cast("Any", file), map_location=cast("Any", place), **arguments)


class _File(io.RawIOBase):
    """What torch.load reads. A storage that it wants whole is not copied: `Image.load` puts it in its place."""

    def __init__(self, image: Image) -> None:
        super().__init__()
        self._image = image
        self._position = 0
        self.skipped = -1
        """Where the storage begins that was asked for last."""

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
        if start >= end:
            return 0
        storage = self._image._storages.get(start)  # noqa: SLF001 - its own file
        if storage is not None and len(target) == storage.nbytes():
            self.skipped = start
        else:
            at = 0
            for piece in self._image.pieces(start, end):
                target[at : at + len(piece)] = piece
                at += len(piece)
        self._position = end
        return end - start


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
