"""Opening shards to be read from their beginnings, many requests under way, across their ends."""

import io
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from s3dataset._datasets._ahead import bytes_ahead, request_of
from s3dataset._datasets._shard_rows import ShardRows
from s3dataset._datasets._trace import WAIT_FOR_NETWORK, ranged
from s3dataset._io import S3Reader, open_reader
from s3dataset.errors import S3Exception

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from s3dataset._client import Client
    from s3dataset._datasets._samples import Row
    from s3dataset._manifest import Manifest

__all__ = ["ShardOpener"]

_WINDOW_BYTES: Final = 128 << 20
"""Fetched ahead over all open shards: with requests of 4 MiB, 32 connections that bring 90 MB/s each."""

_PART_BYTES: Final = 4 << 20
"""Of a request: 47 ms at 90 MB/s, to which 25 ms to the first byte add a half."""

_LEAST_PARTS: Final = 4


class ShardOpener:
    """Opens shards as files that are read forwards. One window of requests covers the open ones and those that follow.

    Belongs to one thread. A file that is read elsewhere than forwards goes on as an `S3Reader`.

    Args:
        client: This process's.
        manifest: The shards.
        reader_constructor: Readers of the user's choice, which fetch by themselves; None: fetch as above.
        window_bytes: Fetched ahead at most; default: 128 MiB, or half of the byte budget.
    """

    def __init__(
        self,
        client: "Client",
        manifest: "Manifest",
        reader_constructor: Any = None,
        window_bytes: int | None = None,
    ) -> None:
        self._client = client
        self._rows = ShardRows(client, manifest)
        self._constructor = reader_constructor
        self._window = window_bytes or min(_WINDOW_BYTES, bytes_ahead(client))
        self.part_bytes = max(1 << 16, min(_PART_BYTES, self._window // _LEAST_PARTS))
        self._queue = client.queue()
        self._open: dict[int, _ForwardFile] = {}
        self._coming: dict[int, _ForwardFile] = {}
        self._awaited: dict[int, None] = {}  # of those that follow, which the service was asked about
        self._sent_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (*self._open.values(), *self._coming.values()):
            file.sent.clear()  # it may be closed later, and gives up nothing then
        self._queue.close()
        self._rows.close()

    def open(self, shard: int, following: Sequence[int] = ()) -> "S3Reader | _ForwardFile":
        """Opens a shard, which must be closed before it is opened again.

        Args:
            shard: Its number in the manifest.
            following: Those that will be opened next, nearest first.
        """
        rows = self._rows
        if self._constructor is not None:
            return self.reader(rows.named(shard))
        self._awaited.pop(shard, None)
        self._awaited.update(dict.fromkeys(following))
        rows.coming(shard)  # asks for it first, and then for all of them at once
        self._take_in()
        row = rows.row(shard)
        if row[2] is None:
            self.top_up()
            return self.reader(row)
        file = self._coming.pop(shard, None) or _ForwardFile(self, shard, row)
        self._open[shard] = file
        self.top_up()
        return file

    def _take_in(self) -> None:
        """Has those shards come of which enough is known by now."""
        for number in list(self._awaited):
            row = None
            if number not in self._coming and number not in self._open and (row := self._rows.coming(number)) is None:
                continue
            del self._awaited[number]
            if row is not None and row[2] is not None:
                self._coming[number] = _ForwardFile(self, number, row)

    def top_up(self) -> None:
        """Sends what fits into the window: for the open shards alike, then for those that follow."""
        if self._awaited:
            self._take_in()
        wanted: list[tuple[_ForwardFile, int, int]] = []
        share = max(self.part_bytes, self._window // max(1, len(self._open)))
        for file in self._open.values():
            self._plan(file, share, wanted)
        for file in self._coming.values():
            if self._sent_bytes >= self._window:
                break
            self._plan(file, self._window, wanted)
        if wanted:
            requests = []
            for file, start, stop in wanted:
                bucket, key, _, _, size, etag = request_of(file.row)
                requests.append((bucket, key, start, stop, size, etag))
            for (file, start, stop), index in zip(wanted, self._queue.get(requests), strict=True):
                file.sent.append((start, stop, index))

    def _plan(self, file: "_ForwardFile", share: int, wanted: "list[tuple[_ForwardFile, int, int]]") -> None:
        while file.next_start < file.size and file.sent_bytes < share:
            if file.sent_bytes and self._sent_bytes >= self._window:
                return
            stop = min(file.next_start + self.part_bytes, file.size)
            wanted.append((file, file.next_start, stop))
            file.sent_bytes += stop - file.next_start
            self._sent_bytes += stop - file.next_start
            file.next_start = stop

    def take(self, file: "_ForwardFile") -> tuple[int, memoryview] | None:
        """Waits for the next part of a file: where it begins, and its bytes; None at the end.

        Raises:
            S3Exception: It could not be fetched.
        """
        if not file.sent:
            self.top_up()
            if not file.sent:
                return None
        start, stop, index = file.sent.popleft()
        file.sent_bytes -= stop - start
        self._sent_bytes -= stop - start
        body: Any = ranged(WAIT_FOR_NETWORK, self._queue.take_many, range(index, index + 1))[0]
        if isinstance(body, S3Exception):
            raise body
        self.top_up()
        return start, memoryview(body)

    def release(self, file: "_ForwardFile") -> None:
        """Gives up what is under way of a file."""
        self._open.pop(file.shard, None)
        while file.sent:
            start, stop, index = file.sent.popleft()
            self._sent_bytes -= stop - start
            self._queue.cancel(range(index, index + 1))
            self._queue.take_many(range(index, index + 1))
        file.sent_bytes = 0

    def reader(self, row: "Row") -> S3Reader:
        """A reader that fetches by itself."""
        bucket, key, size, etag = row
        return open_reader(self._client, bucket, key, reader_constructor=self._constructor, size=size, etag=etag)


class _ForwardFile(io.BufferedIOBase):
    """A shard as a file whose bytes are on their way, as long as it is read forwards."""

    def __init__(self, opener: ShardOpener, shard: int, row: "Row") -> None:
        self.shard = shard
        self.row = row
        self.size = row[2] or 0
        self.sent: deque[tuple[int, int, int]] = deque()
        self.sent_bytes = 0
        self.next_start = 0
        self._opener = opener
        self._position = 0
        self._part = memoryview(b"")
        self._part_start = 0
        self._reader: S3Reader | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position if self._reader is None else self._reader.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if self._reader is None:
            base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
            target = max(0, base + offset)
            if self._part_start <= target <= self._part_start + len(self._part) or self._skip_to(target):
                self._position = target
                return target
            self._opener.release(self)
            self._part = memoryview(b"")
            self._reader = self._opener.reader(self.row)
            offset, whence = target, io.SEEK_SET
        return self._reader.seek(offset, whence)

    def _skip_to(self, target: int) -> bool:
        """Goes to a place before which nothing was read, or that is already under way."""
        if not self._position and not len(self._part) and not self.sent and target <= self.size:
            self.next_start = self._part_start = target
            return True
        if not self.sent or not self.sent[0][0] <= target < self.next_start:
            return False
        while self.sent[0][1] <= target:
            self._opener.take(self)
        self._part, self._part_start = memoryview(b""), self.sent[0][0]
        taken = self._opener.take(self)
        if taken is not None:
            self._part_start, self._part = taken
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        if self._reader is not None:
            return self._reader.read(-1 if size is None else size)
        if size is None or size < 0:
            size = self.size - self._position
        pieces: list[memoryview] = []
        while size > 0 and (piece := self._piece(size)):
            pieces.append(piece)
            size -= len(piece)
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    def read_view(self, size: int) -> memoryview:
        """Up to `size` of the next bytes, as they came; none at the end."""
        return self._piece(size) if self._reader is None else memoryview(self._reader.read(size))

    def read1(self, size: int = -1, /) -> bytes:
        if self._reader is not None:
            return self._reader.read1(size)
        return bytes(self._piece(size if size >= 0 else self.size))

    def readinto(self, buffer: "Buffer", /) -> int:
        view = memoryview(buffer).cast("B")
        piece = self.read(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def _piece(self, most: int) -> memoryview:
        """Up to `most` bytes of the part at hand, or of the next one; empty at the end."""
        at = self._position - self._part_start
        if at >= len(self._part):
            self._part = memoryview(b"")  # its memory may go before more is asked for
            taken = self._opener.take(self)
            if taken is None:
                self._part_start = self._position
                return self._part
            self._part_start, self._part = taken
            at = self._position - self._part_start
        piece = self._part[at : at + most]
        self._position += len(piece)
        return piece

    def close(self) -> None:
        if not self.closed:
            self._opener.release(self)
            self._part = memoryview(b"")
            if self._reader is not None:
                self._reader.close()
        super().close()
