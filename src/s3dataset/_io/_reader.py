"""S3Reader: an object of S3 as a file to read from."""

import io
import operator
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, cast

from s3dataset._client import Client, ClientRef
from s3dataset._io._policy import DCP_OPTIMIZED, SEQUENTIAL, ReaderPolicy, range_based
from s3dataset._io._source import Source
from s3dataset._io._window import TAIL_BYTES, Window

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from s3dataset._client import Body

__all__ = ["DCPOptimizedS3Reader", "Ledger", "RangedS3Reader", "S3Reader", "SequentialS3Reader"]

_PICKLED_BYTES: Final = 8 << 20  # a batch of images crosses with its bytes, a shard by reference
_LINE_BLOCK_BYTES: Final = 64 << 10
_READ1_BYTES: Final = 1 << 20
_BEYOND_BYTES: Final = 1 << 62  # behind the end of any object; what is more does not fit into a request

_NO_BLOCK: Final = b""


class Ledger(Protocol):
    """What became of the readers that a dataset delivered.

    Attributes:
        read: How many were read, or pickled.
        unread: How many were closed or collected without that since the last one that was.
    """

    read: int
    unread: int


class _ForkLock:
    """Guards the renewal of readers' locks in forked children."""

    lock = threading.Lock()

    @classmethod
    def renew(cls) -> None:
        cls.lock = threading.Lock()


os.register_at_fork(after_in_child=_ForkLock.renew)


class S3Reader(io.BufferedIOBase):
    """An object of S3 as a seekable binary file.

    Nothing is fetched before the first read, and then what is read: all of it in parallel ranges by `read()`, the tail
    after a seek to the end, a window ahead of sequential reads, which grows with them. A large `readinto` lands in the
    caller's memory without a copy. Archives of torch.save are recognised: `torch.load(reader)` finds its tensors
    fetched ahead.

    All bytes come from one version of the object; when it is replaced meanwhile, the next fetch raises
    `ObjectChangedError`. Partial reads are not checksummed.

    Safe to share between threads (they take turns; position is shared), and to use in a forked child, which fetches
    anew what was under way. Pickles as its options, position and up to 8 MiB of what was fetched; the rest is fetched
    from the same version again. Memory: at most the policy's window (64 MiB; 150 MB for archives of torch.save) or half
    of the client's byte budget, and 8 MiB behind the position.

    Readers come from datasets, `S3Client.get_object` and `S3Checkpoint.reader`.

    Attributes:
        bucket: Name of the bucket.
        key: Key of the object.
    """

    _default_policy: ReaderPolicy = SEQUENTIAL

    def __init__(
        self,
        client: Client | ClientRef,
        bucket: str,
        key: str,
        *,
        policy: ReaderPolicy | None = None,
        size: int | None = None,
        etag: str | None = None,
        version_id: str | None = None,
        body: "Body | None" = None,
        ledger: "Ledger | None" = None,
    ) -> None:
        """Opens the object; sends nothing.

        Args:
            client: Whose connections and credentials are used.
            bucket: Name of the bucket.
            key: Key of the object.
            policy: Read-ahead; default: that of the class.
            size: Bytes of the object where known, from a listing: saves finding out.
            etag: Version to read; default: the one found first.
            version_id: Of a bucket with versions; default: the current one.
            body: Bytes fetched already. They tell size and version too.
            ledger: Where the reader notes whether it was read before it was dropped.
        """
        self._ledger = ledger
        self._lock = threading.RLock()
        self._policy = policy or self._default_policy
        self._position = 0
        self._block = _NO_BLOCK
        self._block_start = 0
        self._closed = False
        self._masked: BaseException | None = None
        if body is not None:
            size, etag = body.object_size, body.etag or etag
        self._source = Source(client, bucket, key, size=size, etag=etag, version_id=version_id)
        self._window = Window(self._source, self._policy)
        if body is not None:
            self._window.add(body.start, memoryview(body))

    # -- What it is -------------------------------------------------------------------------------------------------

    @property
    def bucket(self) -> str:
        return self._source.bucket

    @property
    def key(self) -> str:
        return self._source.key

    @property
    def uri(self) -> str:
        """The object: "s3://bucket/key"."""
        return self._source.uri

    @property
    def size(self) -> int:
        """Bytes of the object. Fetches its beginning when that is not known yet."""
        if self._source.size is None:
            with self._use():
                return self._window.size()
        return self._source.size

    @property
    def etag(self) -> str:
        """The version being read, as the service names it; "" where it names none. Fetches when not known yet."""
        if self._source.etag is None:
            with self._use():
                if self._source.etag is None:
                    self._window.view_at(0)
                if self._source.etag is None:
                    self._source.identify()  # an empty object's bytes do not tell
        return self._source.etag or ""

    @property
    def closed(self) -> bool:
        return self._closed

    def __repr__(self) -> str:
        size = self._source.size
        facts = "size not known yet" if size is None else f"{size:,} byte{'s' * (size != 1)}"
        return f"<{type(self).__name__} {self.uri} ({facts}{', closed' * self._closed})>"

    # -- Reading ----------------------------------------------------------------------------------------------------

    def read(self, size: int | None = -1) -> bytes:
        """Reads `size` bytes, fewer at the end of the object; everything up to its end when negative or None.

        Raises:
            ValueError: The reader is closed.
            TypeError: `size` is no integer.
        """
        if self._masked is not None:
            self._raise_masked()
        nbytes = -1 if size is None else operator.index(size)
        with self._use():
            if nbytes < 0:
                data = self._window.read_rest(self._position)
            elif nbytes:
                data = self._window.read(self._position, nbytes)
            else:
                return b""
            self._position += len(data)
            return data

    def read1(self, size: int | None = -1, /) -> bytes:
        """Reads at least a byte and at most `size`, with one request at most: what is there."""
        nbytes = -1 if size is None else operator.index(size)
        with self._use():
            view = self._window.view_at(self._position)[: nbytes if nbytes >= 0 else _READ1_BYTES]
            self._position += len(view)
            return view.tobytes()

    def readinto(self, buf: "Buffer") -> int:
        """Fills `buf` -> the number of bytes, less than its length at the end of the object only.

        What is missing lands in it directly; large pieces in parallel ranges. When this returns or raises, nobody
        writes to `buf` any more.

        Raises:
            ValueError: The reader is closed.
            TypeError: `buf` is read-only, or not contiguous.
        """
        view = _writable(buf)
        self._masked = None
        with self._use():
            try:
                nbytes = self._window.readinto(self._position, view) if len(view) else 0
            except BaseException as error:
                if cast("object | None", view.obj) is None:
                    self._masked = error
                raise
            self._position += nbytes
            return nbytes

    def readinto1(self, buffer: "Buffer", /) -> int:
        """Fills `buffer` with what one request at most brings -> the number of bytes."""
        view = _writable(buffer)
        with self._use():
            if not len(view):
                return 0
            piece = self._window.view_at(self._position)[: len(view)]
            view[: len(piece)] = piece
            self._position += len(piece)
            return len(piece)

    def peek(self, size: int = 0, /) -> bytes:
        """What is there from the position on, at least a byte unless at the end; the position stays."""
        with self._use():
            return self._window.view_at(self._position)[: max(size, _LINE_BLOCK_BYTES)].tobytes()

    def readline(self, size: int | None = -1, /) -> bytes:
        """Reads up to the next newline, or the end, or `size` bytes."""
        limit = -1 if size is None else operator.index(size)
        with self._use():
            end = None if limit < 0 else self._position + limit
            pieces = []
            while end is None or self._position < end:
                at = self._position - self._block_start
                if not 0 <= at < len(self._block):
                    self._block_start, at = self._position, 0
                    self._block = self._window.view_at(self._position)[:_LINE_BLOCK_BYTES].tobytes()
                    if not self._block:
                        break
                stop = len(self._block) if end is None else min(end - self._block_start, len(self._block))
                newline = self._block.find(b"\n", at, stop) + 1
                stop = newline or stop
                pieces.append(self._block[at:stop])
                self._position = self._block_start + stop
                if newline:
                    break
            return b"".join(pieces) if len(pieces) != 1 else pieces[0]

    def getbuffer(self) -> memoryview:
        """The whole object in one piece of memory, without a copy; the position stays.

        Writing to it changes what this reader reads. It stays valid after `close()`; its memory is given back when the
        last view of it dies.
        """
        with self._use():
            return self._window.whole()

    def expect(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Names the bytes [start, end) that will be read, in the order of the file, to be fetched ahead."""
        with self._use():
            self._window.expect(ranges)

    # -- Position ---------------------------------------------------------------------------------------------------

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Moves the position -> the new one. Past the end it stays at the end.

        From the end of an object of unknown size this fetches its tail, which tells the size.

        Raises:
            ValueError: The position would be negative, `whence` is none of 0, 1, 2, or the reader is closed.
            TypeError: An argument is no integer.
        """
        offset = operator.index(offset)
        whence = operator.index(whence)
        with self._use():
            if whence == os.SEEK_SET:
                position = offset
            elif whence == os.SEEK_CUR:
                position = self._position + offset
            elif whence == os.SEEK_END:
                position = self._window.size_for_tail(min(max(-offset, TAIL_BYTES), _BEYOND_BYTES)) + offset
            else:
                raise ValueError(f"whence must be 0, 1 or 2 (SEEK_SET, SEEK_CUR, SEEK_END), not {whence}")
            if position < 0:
                raise ValueError(f"negative seek value {position} in {self.uri}")
            if position > self._position:
                size = self._window.size_if_shorter_than(min(position, _BEYOND_BYTES))
                position = position if size is None else size
            self._position = position
            return position

    def tell(self) -> int:
        """The position: of the byte that is read next."""
        self._check_open()
        return self._position

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    # -- Life -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Cancels what is under way and lets the memory go. Any number of times."""
        if getattr(self, "_closed", True):
            return
        if self._ledger is not None:
            self._ledger.unread += 1
            self._ledger = None
        if self._source.in_other_process:
            self._after_fork()
        with self._lock:
            self._closed = True
            self._masked = None
            self._block = _NO_BLOCK
            self._source.close_queue()
            self._window.clear()

    def _raise_masked(self) -> None:
        """Raises once more what the last `readinto` raised.

        torch.load ignores it and goes on to `read`, with the exception still set, after which nobody would learn of it
        ("object has no attribute 'read'"). Its targets are known by memory that no Python object owns. The readers'
        classes name `read` themselves, because a lookup with an exception set ends at the first class.
        """
        error, self._masked = self._masked, None
        if error is not None:
            raise error

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"I/O operation on the closed reader of {self.uri}")

    def _use(self) -> threading.RLock:
        if self._ledger is not None:
            self._note_read(self._ledger)
        if self._source.in_other_process:
            self._after_fork()
        if self._closed:
            self._check_open()
        return self._lock

    def _note_read(self, ledger: "Ledger") -> None:
        self._ledger = None
        ledger.read += 1
        ledger.unread = 0

    def _after_fork(self) -> None:
        with _ForkLock.lock:
            if self._source.in_other_process:
                # Another thread of the parent may have held the lock, which nobody will release here.
                self._lock = threading.RLock()
                self._window.forget_pending()
                self._source.forget_queue()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._ledger is not None:
            self._note_read(self._ledger)  # whoever unpickles it will read it, and is not to fetch it again
        if self._source.in_other_process:
            self._after_fork()
        with self._lock:
            source = self._source
            state = {
                "client": source.client_ref,
                "bucket": source.bucket,
                "key": source.key,
                "policy": self._policy,
                "size": source.size,
                "etag": source.etag,
                "version_id": source.version_id,
                "position": self._position,
                "closed": self._closed,
                "fetched": self._window.landed(_PICKLED_BYTES),
            }
            return _unpickled, (type(self), state)

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> Self:
        reader = cls(
            state["client"],
            state["bucket"],
            state["key"],
            policy=state["policy"],
            size=state["size"],
            etag=state["etag"],
            version_id=state["version_id"],
        )
        reader._source.etag = state["etag"]  # "" says that the service has none
        for start, data in state["fetched"]:
            reader._window.add(start, memoryview(data))
        reader._position = state["position"]
        reader._closed = state["closed"]
        return reader


class SequentialS3Reader(S3Reader):
    """A reader with the default read-ahead: `S3ReaderConstructor.sequential()` makes it."""

    read = S3Reader.read

    def prefetch(self) -> None:
        """Begins to fetch at the position, unless something of the object is there or under way already.

        Waits for the first bytes only where the object's size is not known yet.

        Raises:
            ValueError: The reader is closed.
        """
        with self._use():
            self._window.begin(self._position)


class RangedS3Reader(S3Reader):
    """A reader that fetches one buffer where a read misses, nothing ahead: `S3ReaderConstructor.range_based()`."""

    read = S3Reader.read
    _default_policy = range_based(8 << 20)


class DCPOptimizedS3Reader(S3Reader):
    """A reader for files of torch.distributed.checkpoint: `S3ReaderConstructor.dcp_optimized()` makes it."""

    read = S3Reader.read
    _default_policy = DCP_OPTIMIZED


def _unpickled(cls: type[S3Reader], state: dict[str, Any]) -> S3Reader:
    return cls._from_state(state)


def _writable(buffer: "Buffer") -> memoryview:
    try:
        view = memoryview(buffer)
    except TypeError:
        raise TypeError("argument must be a writable bytes-like object") from None
    if view.readonly:
        raise TypeError("argument must be a writable bytes-like object")
    if not view.c_contiguous:
        raise TypeError("argument must be a contiguous writable bytes-like object")
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")
