"""S3Writer: an object of S3 as a file to write to."""

import atexit
import io
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Never, Self

from s3dataset._client import Client, ObjectInfo
from s3dataset._io._part_sizes import PartSizes
from s3dataset._io._upload import Saved, Upload
from s3dataset._uri import S3Uri
from s3dataset._warnings import warn_caller
from s3dataset.errors import S3Exception

if TYPE_CHECKING:
    from typing_extensions import Buffer as ReadableBuffer

    from s3dataset._client import Buffer, Pieces

__all__ = ["S3Writer"]

_LOGGER = logging.getLogger("s3dataset")

_MIB: Final = 1 << 20
_SMALL_BYTES: Final = 64 << 10  # objects up to this size take no pooled memory
_FIRST_BUFFER_BYTES: Final = 8 * _MIB
_DIRECT_BYTES: Final = 64 * _MIB  # from this size on waiting for the acknowledgement costs less than the copy

_EXIT_PATIENCE_S: Final = 15.0  # with a thread that gives up an upload

_open_writers: "weakref.WeakSet[S3Writer]" = weakref.WeakSet()


class S3Writer(io.BufferedIOBase):
    """An object of S3 as a binary file to write to, from its beginning to its end.

    The object appears when `close()` returns, whole or not at all; until then an object of the same name stays as it
    was. What fits into one part is sent as a single PUT, more in parallel parts while you write on. Leaving the `with`
    block by an exception, a failed write, forgetting to close, and the end of the interpreter publish nothing, and a
    log record of level ERROR says so. Each part and the whole object are checksummed.

    `write()` never refers to your memory after it returns: small pieces are copied, a piece of 64 MiB or more is sent
    from where it is and awaited. Errors of parts sent in the background surface in the next `write` or in `close`.

    Safe to share between threads (they take turns). Belongs to the process that opened it, and does not pickle. Memory:
    parts being filled or sent, up to half of the client's byte budget and at least two parts.
    """

    def __init__(
        self,
        client: Client,
        bucket: str,
        key: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        if_none_match: bool = False,
        if_match: str | None = None,
        storage_class: str | None = None,
        size: int | None = None,
    ) -> None:
        """Opens the object for writing; sends nothing.

        Args:
            client: Whose connections and credentials are used.
            bucket: Name of the bucket.
            key: Key of the object.
            headers: Further headers of the object, names in lower case: content-type, x-amz-meta-*, x-amz-tagging.
            if_none_match: Write only if there is no object of that name.
            if_match: Write only if the object there has this ETag.
            storage_class: Default: the configuration's, else the bucket's.
            size: Bytes that will be written, where known: parts are then alike, and large enough for up to 50 TB.

        Raises:
            ValueError: `part_size` of the configuration is more than S3 takes, or the conditions exclude each other.
        """
        # Before anything can fail: the finalizer looks at them.
        self._closed = True
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._position = 0
        self._small = bytearray()
        self._buffer: Buffer | None = None
        self._capacity = 0
        self._filled = 0
        self._error: BaseException | None = None
        self._saved: Saved | None = None
        self._bucket = bucket
        self._key = key
        self._storage_class = storage_class
        if if_none_match and if_match is not None:
            raise ValueError(
                "if_none_match and if_match exclude each other: the object cannot be absent and have an ETag"
            )
        conditions = []
        if if_none_match:
            conditions.append(("if-none-match", "*"))
        if if_match is not None:
            conditions.append(("if-match", if_match if if_match.startswith('"') else f'"{if_match}"'))
        own_headers = list(headers)
        if storage_class is not None:
            own_headers.append(("x-amz-storage-class", storage_class))
        sizes = PartSizes(client.part_size, size)
        self._part_bytes = sizes.first
        self._upload = Upload(client, bucket, key, headers=own_headers, conditions=conditions, sizes=sizes)
        self._closed = False
        _open_writers.add(self)

    # -- What it is -------------------------------------------------------------------------------------------------

    @property
    def bucket(self) -> str:
        return self._bucket

    @property
    def key(self) -> str:
        return self._key

    @property
    def uri(self) -> str:
        """The object: "s3://bucket/key"."""
        return str(S3Uri(self._bucket, self._key))

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def result(self) -> ObjectInfo:
        """The saved object.

        Raises:
            ValueError: Nothing was saved (yet).
        """
        if self._saved is None:
            raise ValueError(
                f"{self.uri} {'was not' if self._closed else 'is not'} saved{'' if self._closed else ' yet'}"
            )
        return ObjectInfo(
            key=self._key,
            etag=self._saved.etag,
            size=self._position,
            last_modified=int(self._saved.last_modified or 0),
            storage_class=self._storage_class,
            version_id=self._saved.version_id,
        )

    @property
    def etag(self) -> str:
        """ETag of the saved object. Raises ValueError as `result` does."""
        return self.result.etag

    def __repr__(self) -> str:
        state = "saved" if self._saved is not None else "not saved" if self._closed else "open"
        return f"<{type(self).__name__} {self.uri} ({self._position:,} bytes, {state})>"

    # -- Writing ----------------------------------------------------------------------------------------------------

    def write(self, data: "ReadableBuffer") -> int:
        """Appends `data` -> its length in bytes.

        Raises:
            ValueError: The writer is closed.
            TypeError: `data` is not bytes-like.
            S3Exception: This part or an earlier one could not be sent. Nothing will be saved.
        """
        if isinstance(data, str):
            raise TypeError(f"{self.uri} takes bytes, not str: wrap its writer in io.TextIOWrapper for text")
        view = memoryview(data)
        if not view.c_contiguous:
            view = memoryview(view.tobytes())
        elif view.format != "B" or view.ndim != 1:
            view = view.cast("B")
        with self._lock:
            self._check_usable()
            try:
                self._append(view)
            except BaseException as error:
                self._fail(error)
                raise
            self._position += len(view)
            return len(view)

    def save_held(
        self,
        nbytes: int,
        take: "Callable[[int], tuple[Pieces, object]]",
        progress: Callable[[int], None] | None = None,
        most_parts: int | None = None,
    ) -> ObjectInfo:
        """Writes the whole object, from memory that nobody changes until this returns or raises, without a copy of it.

        Args:
            nbytes: Of the object: the `size` that the writer was made for.
            take: Gives the next so many bytes, in pieces, and what keeps their memory.
            progress: Is told how many bytes the service has, now and then.
            most_parts: On their way at once, where `take` makes the memory; default: 64, of memory that is there.

        Raises:
            S3Exception: The object was not saved.
        """
        with self._lock:
            self._check_usable()
            try:
                self._saved = self._send_held(nbytes, take, progress, most_parts)
            except BaseException as error:
                self._fail(error)
                self._closed = True
                raise
            self._position = nbytes
            self._end()
            return self.result

    def _send_held(
        self,
        nbytes: int,
        take: "Callable[[int], tuple[Pieces, object]]",
        progress: Callable[[int], None] | None,
        most_parts: int | None,
    ) -> Saved:
        upload = self._upload
        tell = progress or (lambda _: None)
        if nbytes <= upload.next_part_bytes:
            pieces, keeps = take(nbytes)
            saved = upload.put(pieces)
            del keeps
            tell(nbytes)
            return saved
        left = nbytes
        while left:
            part_bytes = min(left, upload.next_part_bytes)
            upload.send_held(*take(part_bytes), most_parts)
            left -= part_bytes
            tell(upload.acknowledged_bytes)
        while upload.wait_for_one():
            tell(upload.acknowledged_bytes)
        return upload.complete()

    def tell(self) -> int:
        """Bytes written so far."""
        return self._position

    def flush(self) -> None:
        """Does nothing: an object appears whole, when it is closed."""

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return not self._closed

    def seekable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:  # noqa: ARG002 - a file's
        """Raises io.UnsupportedOperation: what was written may be on its way already."""
        raise self._one_way("seek in it")

    def truncate(self, size: int | None = None, /) -> int:  # noqa: ARG002 - a file's
        """Raises io.UnsupportedOperation, as `seek` does."""
        raise self._one_way("truncate it")

    def _one_way(self, wish: str) -> io.UnsupportedOperation:
        return io.UnsupportedOperation(
            f"{self.uri} is written from its beginning to its end, so nobody can {wish}: write to an io.BytesIO or a "
            "temporary file first, and then its bytes"
        )

    def __reduce_ex__(self, protocol: Any) -> Never:
        raise TypeError(f"the writer of {self.uri} cannot be pickled or copied: open one in the process that writes")

    def _append(self, view: memoryview) -> None:
        if self._buffer is None and not self._upload.in_parts:
            if len(self._small) + len(view) <= _SMALL_BYTES:
                self._small += view
                return
            if len(view) < _DIRECT_BYTES or self._small:
                self._take_buffer()
        while len(view):
            if self._filled == self._capacity:
                if self._capacity:
                    self._send_or_enlarge()
                if not self._filled and len(view) >= max(_DIRECT_BYTES, self._upload.next_part_bytes + 1):
                    view = view[self._upload.send_from(view) :]
                    continue
                if self._buffer is None:
                    self._take_buffer()
            view = self._fill(view)

    def _fill(self, view: memoryview) -> memoryview:
        if self._buffer is None:
            return view
        copied = self._buffer.copy_from(self._filled, view)
        self._filled += copied
        return view[copied:]

    def _take_buffer(self) -> None:
        self._part_bytes = self._upload.next_part_bytes
        self._capacity = min(self._part_bytes, max(_FIRST_BUFFER_BYTES, len(self._small)))
        self._buffer = self._upload.buffer(self._capacity)
        if self._small:
            self._fill(memoryview(self._small))
            self._small = bytearray()

    def _send_or_enlarge(self) -> None:
        """Called with the buffer full and more to come."""
        buffer = self._buffer
        if buffer is None:
            return
        if self._capacity < self._part_bytes:
            # Parts larger than 8 MiB get their memory as they fill up, so that small objects do not take it.
            capacity = min(4 * self._capacity, self._part_bytes)
            larger = self._upload.buffer(capacity)
            larger.copy_from(0, memoryview(buffer)[: self._filled])
            self._buffer, self._capacity = larger, capacity
            return
        self._upload.send(buffer, self._filled)
        self._buffer, self._capacity, self._filled = None, 0, 0

    # -- The end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Sends what is left, waits for all parts and publishes the object. A second call does nothing.

        Raises:
            S3Exception: The object was not saved.
        """
        if self._pid != os.getpid():
            self._closed = True
            return
        with self._lock:
            if self._closed:
                return
            self._check_usable()
            try:
                self._saved = self._finish()
            except BaseException as error:
                self._fail(error)
                self._closed = True
                raise
            self._end()

    def _finish(self) -> Saved:
        if self._upload.in_parts:
            if self._buffer is not None:
                self._upload.send(self._buffer, self._filled)
                self._buffer = None
            return self._upload.complete()
        data = self._small if self._buffer is None else memoryview(self._buffer)[: self._filled]
        return self._upload.put(data)

    def abort(self) -> None:
        """Gives up: nothing is published, what was sent is removed. Does nothing when closed already."""
        self._abandon("it was aborted", level=logging.INFO)

    def __enter__(self) -> Self:
        self._check_usable()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            self.close()
            return
        if self._error is not None and _is_torch_giving_up(exc_value, self._error):
            self._end()
            raise self._error from None
        if exc_value is not None and not self._closed and self._error is None:
            exc_value.add_note(f"{self.uri} was NOT saved: the exception left the 'with' block of its writer.")
        self._abandon(f"{exc_type.__name__} left the 'with' block of its writer")

    def __del__(self) -> None:
        if getattr(self, "_closed", True):
            return
        self._abandon("its writer was dropped without close()", warn=True)

    def _abandon(self, reason: str, *, level: int = logging.ERROR, warn: bool = False) -> None:
        if self._pid != os.getpid():
            self._closed = True
            return
        with self._lock:
            if self._closed:
                return
            if self._error is None:
                _LOGGER.log(level, "%s was NOT saved: %s", self.uri, reason)
            self._upload.abort()
            self._end()
        if warn:
            warn_caller(
                f"{self.uri} was NOT saved: {reason}. Use 'with', or call close()",
                ResourceWarning,
                source=self,
            )

    def _end_with_the_interpreter(self) -> None:
        reason = "the interpreter ended before its writer was closed"
        deadline = time.monotonic() + _EXIT_PATIENCE_S
        while self._pid == os.getpid() and not self._lock.acquire(timeout=0.1):
            # A daemon thread waits in it, for as long as the service is silent.
            self._upload.interrupt()
            if time.monotonic() > deadline:
                _LOGGER.error("%s was NOT saved: %s", self.uri, reason)
                return
        self._abandon(reason, warn=True)  # the lock is kept: that thread may not go on

    def _fail(self, error: BaseException) -> None:
        """After an error of the upload: nothing can be saved any more."""
        if self._error is None:
            self._error = error
            outcome, note = "was NOT saved", "was NOT saved."
            if self._upload.published and not isinstance(error, S3Exception):  # interrupted: nobody knows the answer
                outcome, note = "may have been saved", "may have been saved: the request that does it was under way."
            error.add_note(f"{self.uri} {note}")
            _LOGGER.error("%s %s: %s", self.uri, outcome, error if str(error) else type(error).__name__)
        self._upload.abort()
        self._buffer = None
        self._small = bytearray()

    def _end(self) -> None:
        self._closed = True
        self._buffer = None
        self._small = bytearray()
        self._upload.close()
        _open_writers.discard(self)

    def _check_usable(self) -> None:
        if self._pid != os.getpid():
            raise S3Exception(
                f"the writer of {self.uri} belongs to the process that opened it: open one in this process",
                uri=self.uri,
            )
        if self._closed:
            raise ValueError(f"I/O operation on the closed writer of {self.uri}")
        if self._error is not None:
            self._end()
            raise S3Exception(
                f"{self.uri} was NOT saved, because an earlier write failed: {self._error}", uri=self.uri
            ) from self._error


def _is_torch_giving_up(raised: BaseException | None, error: BaseException) -> bool:
    """Whether torch.save raised `raised` because of `error`.

    After a failed write it tries to finish its archive, misses the bytes that were not taken, and hides the reason
    behind "enforce fail ... unexpected pos": Ctrl-C would not end the program, and a refusal would not be one.
    """
    if type(raised) is not RuntimeError or raised.__cause__ is not None or "inline_container" not in str(raised):
        return False
    context = raised.__context__
    while context is not None and context is not error:
        context = context.__context__
    return context is error


def _abandon_open_writers() -> None:
    for writer in list(_open_writers):
        writer._end_with_the_interpreter()  # noqa: SLF001


atexit.register(_abandon_open_writers)
