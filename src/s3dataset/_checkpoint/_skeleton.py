"""The file that torch.save would write, with its storages left where they are."""

import os
import pickle
from bisect import bisect_right
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Final, cast

import torch

from s3dataset._checkpoint._memory import crc32_of, view_of
from s3dataset._torch_archive import STORAGE_NAME, Record, directory_range, parse_records

__all__ = ["Skeleton"]

_CRC_IN_DESCRIPTOR: Final = 4
_DESCRIPTOR_MAGIC: Final = b"PK\x07\x08"
_ID_NAME: Final = "/.data/serialization_id"
_ID_DIGITS: Final = 20
_SIZE_T: Final = (1 << 64) - 1


class Skeleton:
    """torch.save's file as pieces of memory: what torch writes around the storages, and the storages themselves.

    Byte for byte what `torch.save(obj, file)` writes, checksums of the archive included. Those of storages follow their
    data in the file, so each is computed just before it is wanted: while earlier bytes are on their way.
    """

    def __init__(self, obj: Any) -> None:
        """Pickles `obj`.

        Raises:
            Whatever pickling it raises.
        """
        file = _File()
        pickler, storages = _recording_pickle()
        with torch.serialization.skip_data():
            torch.save(obj, cast("Any", file), pickle_module=pickler)
        self.nbytes = file.nbytes
        self._chunks = file.chunks
        self._starts = list(file.chunks)
        self._gaps = file.gaps
        self._directory_start, self._records = self._find_records()
        self._storage_at: dict[int, torch.UntypedStorage] = {}
        starts = sorted(file.gaps)
        keyed = sorted(
            (record for record in self._records if record.nbytes and STORAGE_NAME.fullmatch(record.name)),
            key=lambda record: record.header_start,
        )
        for start, record in zip(starts, keyed, strict=True):
            key = record.name.rpartition("/")[2]
            storage = storages[key]
            if storage.nbytes() != file.gaps[start] or record.nbytes != file.gaps[start]:
                raise RuntimeError(f"storage {key} has another size than its place in the archive")
            self._storage_at[start] = storage
        self._record_at = dict(zip(starts, keyed, strict=True))
        self._crcs: dict[str, int] = {}

    @classmethod
    def is_possible(cls) -> bool:
        """Whether this torch can write one: since 2.6."""
        return hasattr(torch.serialization, "skip_data")

    @property
    def storages(self) -> list[torch.UntypedStorage]:
        """All that are not empty, in the order of the file."""
        return [self._storage_at[start] for start in sorted(self._storage_at)]

    def replace(self, storages: list[torch.UntypedStorage]) -> None:
        """Puts copies in the place of all `storages`, in their order."""
        for start, copy in zip(sorted(self._storage_at), storages, strict=True):
            self._storage_at[start] = copy

    def pieces(self) -> Iterator[tuple[memoryview, object]]:
        """The file from beginning to end: (bytes, what keeps them). Storages of other devices are copied one by one."""
        last = max(self._storage_at, default=-1)
        for start in sorted([*self._chunks, *self._storage_at]):
            storage = self._storage_at.get(start)
            if storage is None:
                yield memoryview(self._chunks[start]), None
                continue
            if storage.device.type != "cpu":
                storage = cast("Any", storage).cpu()
            view = view_of(storage)
            yield view, storage
            self._note_crc(start, crc32_of(view))
            if start == last:
                self._note_id()

    # -- Checksums of the archive -----------------------------------------------------------------------------------

    def _find_records(self) -> tuple[int, list[Record]]:
        tail = b"".join(self._chunks[start] for start in self._starts if start > max(self._gaps, default=-1))
        found = directory_range(memoryview(tail), self.nbytes)
        if found is None:
            raise RuntimeError("torch.save has written no archive")
        start, end = found
        records = parse_records(self._bytes_of(start, end))
        if records is None:
            raise RuntimeError("torch.save has written a broken archive")
        return start, records

    def _bytes_of(self, start: int, end: int) -> bytes:
        at = bisect_right(self._starts, start) - 1
        found = bytearray()
        for chunk_start in self._starts[at:]:
            if chunk_start >= end:
                break
            chunk = self._chunks[chunk_start]
            found += chunk[max(start - chunk_start, 0) : end - chunk_start]
        return bytes(found)

    def _patch(self, at: int, data: bytes) -> None:
        for offset, value in enumerate(data, at):
            start = self._starts[bisect_right(self._starts, offset) - 1]
            self._chunks[start][offset - start] = value

    def _note_crc(self, start: int, crc: int) -> None:
        record = self._record_at[start]
        self._crcs[record.name] = crc
        after = start + record.nbytes
        if record.has_descriptor and self._bytes_of(after, after + 4) == _DESCRIPTOR_MAGIC:
            self._patch(after + _CRC_IN_DESCRIPTOR, crc.to_bytes(4, "little"))
        self._patch(self._directory_start + record.crc_at, crc.to_bytes(4, "little"))

    def _note_id(self) -> None:
        """Makes the archive's id, which is derived from all checksums, what torch would have made it."""
        found = next((record for record in self._records if record.name.endswith(_ID_NAME)), None)
        if found is None or found.nbytes != 2 * _ID_DIGITS:
            return
        combined = 0
        for record in self._records:
            if record is not found and record.nbytes:
                crc = self._crcs.get(record.name, record.crc)
                combined ^= (crc + 0x9E3779B9 + (combined << 6) + (combined >> 2)) & _SIZE_T
        following = [record.header_start for record in self._records if record.header_start > found.header_start]
        end = min([*following, self._directory_start]) - found.descriptor_bytes
        start = end - found.nbytes
        self._patch(start + _ID_DIGITS, b"%020d" % combined)
        crc = crc32_of(memoryview(self._bytes_of(start, end)))
        if found.has_descriptor:
            self._patch(end + _CRC_IN_DESCRIPTOR, crc.to_bytes(4, "little"))
        self._patch(self._directory_start + found.crc_at, crc.to_bytes(4, "little"))


class _File:
    """What torch writes to: chunks of bytes, and gaps where it skips the data of storages."""

    def __init__(self) -> None:
        self.nbytes = 0
        self.chunks: dict[int, bytearray] = {}
        self.gaps: dict[int, int] = {}
        self._last = -1

    def write(self, data: Any) -> int:
        view = memoryview(data)
        if self._last < 0:
            self._last = self.nbytes
            self.chunks[self._last] = bytearray()
        self.chunks[self._last] += view
        self.nbytes += len(view)
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_CUR or offset < 0:
            raise RuntimeError("torch.save moves about in its file")
        if offset:
            self.gaps[self.nbytes] = offset
            self.nbytes += offset
            self._last = -1
        return self.nbytes

    def flush(self) -> None:
        pass


def _recording_pickle() -> tuple[Any, dict[str, torch.UntypedStorage]]:
    """A pickle module for torch.save, and the storages that it has met, by the keys that torch gives them."""
    storages: dict[str, torch.UntypedStorage] = {}

    class Pickler(pickle.Pickler):
        def __init_subclass__(cls) -> None:
            # torch's own pickler is a subclass, whose persistent_id names each storage.
            of_torch: Any = cls.persistent_id

            def persistent_id(self: Any, obj: Any) -> Any:
                found = of_torch(self, obj)
                if isinstance(found, tuple) and found and found[0] == "storage":
                    storages[found[2]] = getattr(obj, "_untyped_storage", obj)
                return found

            cls.persistent_id = persistent_id  # type: ignore[method-assign]

    # torch asks a pickle module for its name too.
    return SimpleNamespace(__name__="pickle", Pickler=Pickler), storages
