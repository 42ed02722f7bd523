"""Whether a shard is what was written: by the service's checksum, or read again, byte by byte and sample by sample."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from s3dataset._client import CHECKSUM_MODE, Client, checksum, combine_checksums, stored_checksum, take_head
from s3dataset._io import S3Reader, open_reader
from s3dataset._manifest import WrittenShard
from s3dataset.errors import ChecksumMismatchError, S3Exception
from s3dataset.formats import Format, ShardIndex

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from s3dataset._io import S3Writer

__all__ = ["Checksummed", "Running", "verify_shard"]

_ALGORITHM: Final = "crc64nvme"
_PIECES: Final = 1024
_READ_BYTES: Final = 1 << 20


class Running:
    """The checksum of bytes that pass."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, int]] = []

    def update(self, data: "Buffer") -> None:
        size = memoryview(data).nbytes
        if size:
            self._parts.append((checksum(_ALGORITHM, data), size))
        if len(self._parts) == _PIECES:
            self._parts = [(self.value, sum(nbytes for _, nbytes in self._parts))]

    @property
    def value(self) -> str:
        return combine_checksums(_ALGORITHM, self._parts) if self._parts else checksum(_ALGORITHM, b"")


class Checksummed(io.RawIOBase):
    """What a shard is written to: a writer, and the checksum of what it was given."""

    def __init__(self, writer: "S3Writer") -> None:
        super().__init__()
        self.running = Running()
        self._writer = writer

    def writable(self) -> bool:
        return True

    def write(self, data: "Buffer", /) -> int:
        self.running.update(data)
        return self._writer.write(data)


class _Read(io.BufferedIOBase):
    """A reader whose bytes are checksummed in their order, whatever order they are read in."""

    def __init__(self, reader: S3Reader) -> None:
        super().__init__()
        self._reader = reader
        self._running = Running()
        self._passed = 0  # so far the bytes are in the checksum

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._reader.tell()

    def read(self, size: int | None = -1, /) -> bytes:
        at = self._reader.tell()
        data = self._reader.read(-1 if size is None else size)
        if at <= self._passed < at + len(data):
            self._running.update(memoryview(data)[self._passed - at :])
            self._passed = at + len(data)
        return data

    def read1(self, size: int = -1, /) -> bytes:
        return self.read(size if size >= 0 else _READ_BYTES)

    def readinto(self, buffer: "Buffer", /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        base = (0, self._reader.tell(), self._reader.size)[whence]
        target = base + offset
        if target > self._passed:
            self._reader.seek(self._passed)
            while (left := target - self._reader.tell()) > 0 and self.read(min(left, _READ_BYTES)):
                pass
        return self._reader.seek(target)

    def finish(self) -> str:
        """Reads what nobody has read -> the checksum of all."""
        self._reader.seek(self._passed)
        while self.read(_READ_BYTES):
            pass
        return self._running.value


def verify_shard(
    client: Client,
    shard: WrittenShard,
    format: Format,  # noqa: A002
    written: str,
    *,
    read: bool = False,
) -> None:
    """Compares a shard with what was written: by the checksum that the service keeps of all its bytes, else by reading.

    Args:
        client: Asks.
        shard: The shard, with its index.
        format: Of the shard.
        written: CRC64NVME of what was written.
        read: Read it in any case, which also compares where its samples lie.

    Raises:
        ChecksumMismatchError: It has other bytes, or its samples lie elsewhere. The message names the shard.
        S3Exception: It could not be read.
    """
    uri = f"s3://{shard.bucket}/{shard.key}"
    if not read and (stored := _stored(client, shard)) is not None:
        if stored != written:
            raise _differs(uri, "other bytes than were written, as the service's checksum tells")
        return
    with open_reader(client, shard.bucket, shard.key, size=shard.size, etag=shard.etag or None) as reader:
        stream = _Read(reader)
        try:
            found = format.scan(cast(BinaryIO, stream), url=uri, size=shard.size)
        except S3Exception as error:
            # What the service has differs from what was sent only if bytes do, which says more than where it shows.
            if stream.finish() == written:
                raise
            raise _differs(uri, "other bytes than were written") from error
        if stream.finish() != written:
            raise _differs(uri, "other bytes than were written")
    if len(found) != len(shard.index):
        raise _differs(uri, f"{len(found):,} samples, and {len(shard.index):,} were written")
    if not _same(found, shard.index):
        raise _differs(uri, "samples in other places than were written")


def _stored(client: Client, shard: WrittenShard) -> str | None:
    """The checksum that the service keeps of the whole shard; None where it keeps none, or it is another object."""
    with client.queue() as queue:
        reply = take_head(queue, queue.head(shard.bucket, shard.key, [CHECKSUM_MODE]))
    if reply is None or reply.object_size != shard.size or (shard.etag and reply.etag != shard.etag):
        return None
    stored = stored_checksum(dict(reply.headers()))
    return stored.value if stored is not None and stored.algorithm.lower() == _ALGORITHM else None


def _differs(uri: str, what: str) -> ChecksumMismatchError:
    return ChecksumMismatchError(
        f"{uri} was looked at after it was written, and has {what}. It was removed; the same command makes it again. "
        "If that repeats, the service or something before it alters data",
        operation="GetObject",
        uri=uri,
    )


def _same(one: ShardIndex, other: ShardIndex) -> bool:
    frames, others = one.frames, other.frames
    if not _equal(one.ends, other.ends) or (len(one) and one.first != other.first) or one.head != other.head:
        return False
    if frames is None or others is None:
        return frames is others
    return (frames.starts, frames.stops, frames.ends) == (others.starts, others.stops, others.ends)


def _equal(one: Sequence[int], other: Sequence[int]) -> bool:
    return len(one) == len(other) and all(a == b for a, b in zip(one, other, strict=True))
