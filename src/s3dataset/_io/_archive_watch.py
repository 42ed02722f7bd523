"""Follows the reads of torch.load, to tell when it begins to read tensors."""

from typing import Final

from s3dataset._io._chunks import Chunk, ChunkMap
from s3dataset._torch_archive import TorchArchive, begins_torch_archive, directory_range, parse_directory

__all__ = ["ArchiveWatch"]

_TAIL_BYTES: Final = 64 << 10  # where the end record is looked for; a comment behind it is no longer


class ArchiveWatch:
    """Recognises an archive of torch.save by its first bytes, and its directory once that was read."""

    __slots__ = ("_archive", "_hopeful")

    def __init__(self) -> None:
        self._hopeful = False
        self._archive: TorchArchive | None = None

    def see_head(self, chunk: Chunk) -> None:
        """Looks at bytes that landed."""
        if chunk.start == 0 and chunk.data is not None and self._archive is None:
            self._hopeful = begins_torch_archive(chunk.data)

    def is_header(self, position: int) -> bool:
        """Whether a storage's local header lies here, whose storage is then read next."""
        return self._archive is not None and position in self._archive.headers

    def storages_wanted(self, position: int, size: int, chunks: ChunkMap) -> TorchArchive | None:
        """The archive once, when a read at `position` is the first of a storage; else None.

        Looking for the directory in the object's last bytes, and reading headers alone, as torch does under
        FakeTensorMode, asks for no storage.
        """
        if self._hopeful:
            self._parse(size, chunks)
        archive = self._archive
        if archive is None or not archive.start <= position < archive.end - _TAIL_BYTES:
            return None
        if position in archive.headers:
            return None
        self._archive = None
        return archive

    def _parse(self, size: int, chunks: ChunkMap) -> None:
        tail = chunks.at(size - 1)
        if tail is None or tail.data is None:
            return
        found = directory_range(tail.data[-_TAIL_BYTES:], size)
        if found is None:
            self._hopeful = False
            return
        start, end = found
        pieces = []
        at = start
        while at < end:
            chunk = chunks.at(at)
            if chunk is None or chunk.data is None:
                return
            stop = min(end, chunk.end)
            pieces.append(chunk.part(at, stop))
            at = stop
        self._hopeful = False
        self._archive = parse_directory(b"".join(pieces), start)
