"""Whether the files of a checkpoint are those that were committed."""

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from s3dataset._client import combine_checksums
from s3dataset._commits._catalog import Catalog
from s3dataset._commits._names import Attempt
from s3dataset._commits._record import CommitRecord, StoredObject
from s3dataset._progress import Progress
from s3dataset.errors import ChecksumMismatchError, ObjectChangedError, ObjectNotFoundError, S3Exception

if TYPE_CHECKING:
    from s3dataset._client import Reply

__all__ = ["Damage", "find_damage", "missing_files"]

_IN_FLIGHT: Final = 16
_NOT_THERE: Final = (ObjectNotFoundError, ObjectChangedError, ChecksumMismatchError)


class Damage(NamedTuple):
    """What is wrong with a file of a checkpoint.

    Attributes:
        uri: The file.
        reason: Why it is not the one that was committed.
    """

    uri: str
    reason: str

    def __str__(self) -> str:
        return f"{self.uri} {self.reason}"


def missing_files(catalog: Catalog, record: CommitRecord) -> list[Damage]:
    """Compares names, sizes and ETags with a listing: a request for each thousand files.

    Raises:
        S3Exception: The service could not be asked.
    """
    attempt = Attempt(record.step, record.attempt)
    prefix = catalog.layout.files(attempt)
    there = {info.key: info for info in catalog.list_files(attempt)}
    damages = []
    for stored in record.objects:
        uri = catalog.layout.uri(prefix + stored.name)
        info = there.get(prefix + stored.name)
        if info is None:
            damages.append(Damage(uri, "is missing"))
        elif info.size != stored.size:
            damages.append(Damage(uri, f"has {info.size:,} bytes, and {stored.size:,} were committed"))
        elif stored.etag and info.etag and info.etag != stored.etag:
            damages.append(Damage(uri, f"was replaced: its ETag is {info.etag}, and {stored.etag} was committed"))
    return damages


def find_damage(
    catalog: Catalog, record: CommitRecord, progress: Progress | None = None, *, share: tuple[int, int] = (0, 1)
) -> list[Damage]:
    """Reads every byte, and compares sizes, ETags and checksums; [] when all is as it was committed.

    Where the store keeps no checksums, that the bytes can be read, and that the ETags are the same, is all that can be
    said.

    Args:
        catalog: Where it is.
        record: The checkpoint.
        progress: Is called with (bytes done, all bytes) now and then.
        share: (i, n): read every n-th file only, from the i-th on, where n look at it together.

    Raises:
        S3Exception: The service could not be asked.
    """
    damages = missing_files(catalog, record)
    damaged = {damage.uri for damage in damages}
    prefix = catalog.layout.files(Attempt(record.step, record.attempt))
    files = [
        _File(prefix + stored.name, stored)
        for stored in record.objects
        if catalog.layout.uri(prefix + stored.name) not in damaged
    ][share[0] :: share[1]]
    total, done = sum(file.stored.size for file in files), 0
    for file, nbytes in _read(catalog, files):
        done += nbytes
        if progress is not None:
            progress(done, total)
        if reason := file.damage():
            damages.append(Damage(catalog.layout.uri(file.key), reason))
    return damages


class _File:
    """A file that is being read, its ranges in their order."""

    __slots__ = ("_checksums", "_error", "_left", "algorithm", "key", "stored")

    def __init__(self, key: str, stored: StoredObject) -> None:
        self.key: Final = key
        self.stored: Final = stored
        self.algorithm: Final = stored.checksum[0] if stored.checksum else None
        self._checksums: list[tuple[str, int]] = []
        self._error: S3Exception | None = None
        self._left = stored.size

    def add(self, result: object, nbytes: int) -> None:
        """Takes what became of the next range.

        Raises:
            S3Exception: It failed for a reason that tells nothing of the file.
        """
        self._left -= nbytes
        if isinstance(result, S3Exception):
            if not isinstance(result, _NOT_THERE):
                raise result
            self._error = self._error or result
        else:
            self._checksums.append((cast("Reply", result).checksum, nbytes))

    def damage(self) -> str:
        """What is wrong, once all of it was read; "" when nothing is, or as long as there is more to read."""
        if self._left:
            return ""
        if self._error is not None:
            return f"cannot be read: {self._error}"
        if self.stored.checksum is None:
            return ""
        algorithm, expected = self.stored.checksum
        found = combine_checksums(algorithm, self._checksums)
        if found == expected:
            return ""
        return f"has other bytes: their {algorithm} is {found}, and {expected} was committed"


def _read(catalog: Catalog, files: list[_File]) -> Iterator[tuple[_File, int]]:
    """Reads files one behind the other, many ranges at once -> (file, bytes) for each range, when it is there."""
    client = catalog.client
    spare = [bytearray(client.part_size) for _ in range(_IN_FLIGHT)]
    under_way: deque[tuple[int, _File, int, bytearray]] = deque()
    with client.queue() as queue:

        def take() -> tuple[_File, int]:
            index, file, nbytes, memory = under_way.popleft()
            file.add(queue.take_many(range(index, index + 1))[0], nbytes)
            spare.append(memory)
            return file, nbytes

        for file in files:
            for start in range(0, file.stored.size, client.part_size):
                if not spare:
                    yield take()
                memory = spare.pop()
                piece = memoryview(memory)[: min(client.part_size, file.stored.size - start)]
                row = (catalog.bucket, file.key, start, file.stored.etag or None, piece)
                index = queue.get_into([row], checksum=file.algorithm).start
                under_way.append((index, file, len(piece), memory))
        while under_way:
            yield take()
