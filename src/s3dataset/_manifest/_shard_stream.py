"""A shard as a file that a scan reads forwards: views of what came, and little fetched where it is hopped through."""

import io
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from s3dataset._client import Client
from s3dataset._io import ReaderPolicy, S3Reader
from s3dataset._manifest._columns import Row
from s3dataset._uri import S3Uri
from s3dataset.errors import ObjectChangedError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Pace", "ShardStream"]

_WINDOW_BYTES: Final = 128 << 20
"""On their way over all shards: 4 MiB on each of 32 connections, as where shards are streamed."""
_PART_BYTES: Final = (256 << 10, 4 << 20)
_FIRST_BYTES: Final = 256 << 10
"""Of a shard of which it is not known whether it will be hopped through: the first header and some small members."""
_LEAST_WINDOW_BYTES: Final = 4 << 20
_GROWTH: Final = 16
_READ_IN_A_ROW: Final = 1 << 20
"""From so many bytes without a hop on the shards are taken for ones that are read in full."""


class Pace:
    """What the scans of one run share: how far ahead each fetches, and whether shards are read in full.

    Args:
        client: Whose budget it is.
        count: Of the shards that are scanned at a time.

    Attributes:
        window: Bytes on their way for each shard.
        part_bytes: Of a request.
        policy: Of readers, for what is read elsewhere than forwards.
        in_full: Whether shards are read in full; else each begins with little.
    """

    def __init__(self, client: Client, count: int) -> None:
        self.window = max(min(_WINDOW_BYTES, client.memory_limit_bytes // 2) // count, _PART_BYTES[0])
        self.part_bytes = min(max(self.window // 2, _PART_BYTES[0]), _PART_BYTES[1])
        self.policy = ReaderPolicy("sequential", window_bytes=max(self.window, _LEAST_WINDOW_BYTES), keep_bytes=1 << 20)
        self.in_full = False


class ShardStream(io.BufferedIOBase):
    """Belongs to one thread, but for `position` and `stop`. Read backwards, it goes on as a reader.

    Memory: the pace's window, and the part at hand.

    Args:
        client: Whose connections fetch it.
        shard: With its size, and the version that is read.
        pace: Shared by those that are scanned beside.
    """

    def __init__(self, client: Client, shard: Row, pace: Pace) -> None:
        super().__init__()
        self._client = client
        self._shard = shard
        self._pace = pace
        self._size = shard[2] or 0
        self._queue = client.queue()
        self._sent: deque[tuple[int, int, int]] = deque()
        self._sent_bytes = 0
        self._next_start = 0
        self._part = memoryview(b"")
        self._part_start = 0
        self._position = 0
        self._run_start = 0  # since when nothing was left out
        self._reader: S3Reader | None = None

    @property
    def position(self) -> int:
        """How far it was read; to be asked in any thread."""
        reader = self._reader
        return self._position if reader is None or reader.closed else reader.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position if self._reader is None else self._reader.tell()

    # -- Reading ------------------------------------------------------------------------------------------------------

    def read_view(self, size: int) -> memoryview:
        """Up to `size` of the next bytes, as they came; none at the end.

        Raises:
            ObjectChangedError: The shard was replaced.
            S3Exception: They could not be fetched.
        """
        if self._reader is not None:
            return memoryview(self._reader.read(size))
        at = self._position - self._part_start
        if not 0 <= at < len(self._part):
            self._part = memoryview(b"")  # its memory may go before more is asked for
            if self._position >= self._size or size <= 0:
                return self._part
            self._send(size)
            self._take()
            at = self._position - self._part_start
        view = self._part[at : at + size]
        self._position += len(view)
        return view

    def read(self, size: int | None = -1, /) -> bytes:
        if self._reader is not None:
            return self._reader.read(-1 if size is None else size)
        left = max(self._size - self._position, 0) if size is None or size < 0 else size
        pieces = []
        while left > 0 and (piece := self.read_view(left)):
            pieces.append(piece)
            left -= len(piece)
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    def read1(self, size: int = -1, /) -> bytes:
        return bytes(self.read_view(size if size >= 0 else _READ_IN_A_ROW))

    def readinto(self, buffer: "Buffer", /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if self._reader is not None:
            return self._reader.seek(offset, whence)
        target = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence] + offset
        if self._part_start <= target < self._part_start + len(self._part):
            self._position = target
        elif target >= self._position:
            self._position = min(target, self._size)
            self._go_on()
        else:
            self._drop()
            bucket, key, size, etag = self._shard
            self._reader = S3Reader(self._client, bucket, key, policy=self._pace.policy, size=size, etag=etag)
            self._reader.seek(target)
        return self.tell()

    def _go_on(self) -> None:
        """To the position, which lies behind the part at hand: over what is under way, or by a hop."""
        if self._position >= self._next_start:
            if self._next_start:
                self._pace.in_full = False
            self._drop()
            self._next_start = self._part_start = self._run_start = self._position
            return
        self._part = memoryview(b"")
        while self._sent[0][0] <= self._position:
            self._take()
            if self._position < self._part_start + len(self._part):
                return

    # -- Fetching -----------------------------------------------------------------------------------------------------

    def _send(self, size: int) -> None:
        """Sends for the `size` bytes that are read now, if nothing is under way; for more where that pays."""
        pace = self._pace
        run = self._position - self._run_start
        if run >= _READ_IN_A_ROW:
            pace.in_full = True
        if run >= _READ_IN_A_ROW or (pace.in_full and not self._run_start):
            ahead = pace.window
        elif self._sent:
            return
        elif self._run_start:
            ahead = min(size, pace.window)
        else:
            ahead = min(max(size, _GROWTH * run), pace.window) if run else min(size, _FIRST_BYTES)
        ranges: list[tuple[int, int]] = []
        while self._next_start < self._size:
            length = min(pace.part_bytes, ahead - self._sent_bytes)
            if self._sent_bytes and length < pace.part_bytes // 2:
                break
            stop = min(self._next_start + length, self._size)
            ranges.append((self._next_start, stop))
            self._sent_bytes += stop - self._next_start
            self._next_start = stop
        if ranges:
            bucket, key, whole, etag = self._shard
            indices = self._queue.get([(bucket, key, start, stop, whole, etag) for start, stop in ranges])
            self._sent.extend((start, stop, index) for (start, stop), index in zip(ranges, indices, strict=True))

    def _take(self) -> None:
        start, stop, index = self._sent.popleft()
        self._sent_bytes -= stop - start
        body: Any = self._queue.take(index)
        if body.object_size != self._size or len(body) != stop - start or body.etag not in ("", self._shard[3]):
            uri = S3Uri(self._shard[0], self._shard[1])
            raise ObjectChangedError(f"{uri} was replaced while it was being read", operation="GetObject", uri=str(uri))
        self._part, self._part_start = memoryview(body), start

    def _drop(self) -> None:
        """Gives up what is under way."""
        while self._sent:
            _, _, index = self._sent.popleft()
            self._queue.cancel(range(index, index + 1))
            self._queue.take_many(range(index, index + 1))
        self._sent_bytes = 0
        self._part = memoryview(b"")

    def stop(self) -> None:
        """Ends what another thread waits for."""
        self._queue.close()
        if self._reader is not None:
            self._reader.close()

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._part = memoryview(b"")
            self.stop()
