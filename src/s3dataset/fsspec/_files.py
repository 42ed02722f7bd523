"""One object as a file, with what fsspec expects of files."""

import atexit
import contextlib
import errno
import io
import os
import sys
import time
import weakref
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, cast

from s3dataset._client import Client, ObjectInfo
from s3dataset._io import S3Reader, S3ReaderConstructor, S3Writer
from s3dataset._object_headers import Headers
from s3dataset.errors import ObjectNotFoundError, PreconditionFailedError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from s3dataset.fsspec._filesystem import S3FileSystem
    from s3dataset.fsspec._listing import Entry

__all__ = ["CompressedFile", "ReadFile", "TextFile", "WriteFile", "exists_error"]

_COPY_BYTES: Final = 8 << 20
_PATIENCE_S: Final = 0.5
_TICK_S: Final = 0.005
_QUIET_TICKS: Final = 3

_SEQUENTIAL: Final = S3ReaderConstructor.sequential()
_EXACT: Final = S3ReaderConstructor.range_based(0)


_open_files: "weakref.WeakSet[ReadFile]" = weakref.WeakSet()


def _let_others_close() -> None:
    """At the interpreter's end: waits as long as other threads are closing files, half a second at most.

    pyarrow drops its files in threads of its own, after the call that read them has returned. Such a thread gets
    Python's lock no more once the end has come, and ends the process by std::terminate; with any file system made in
    Python.
    """
    deadline = time.monotonic() + _PATIENCE_S
    count, quiet = len(_open_files), 0
    while count and quiet < _QUIET_TICKS and time.monotonic() < deadline:
        time.sleep(_TICK_S)
        before, count = count, len(_open_files)
        quiet = quiet + 1 if count == before else 0


atexit.register(_let_others_close)


def exists_error(uri: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "There is an object already, and it stays as it was", uri)


class ReadFile(S3Reader):
    """A file opened with "rb": an `S3Reader` that knows its file system.

    Its size and version are asked for when it is opened, so that what is missing is a FileNotFoundError there.

    Attributes:
        fs: The file system.
        path: Its name there.
        mode: "rb".
        blocksize: What `open` was told; the reader chooses by itself.
    """

    read = S3Reader.read  # by name, for torch.load: see S3Reader
    mode = "rb"

    def __init__(
        self,
        fs: "S3FileSystem",
        path: str,
        details: "Entry",
        *,
        client: Client,
        bucket: str,
        key: str,
        version_id: str | None = None,
        block_size: int | None = None,
        cache_type: str = "readahead",
        cache_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.fs = fs
        self.path = path
        self.blocksize = block_size or fs.blocksize
        self._details = details
        self._version_id = version_id
        self._cache_type = cache_type
        super().__init__(
            client,
            bucket,
            key,
            policy=(_EXACT if cache_type == "none" else _SEQUENTIAL).policy,
            size=details["size"],
            etag=details.get("ETag") or None,
            version_id=version_id,
        )
        _open_files.add(self)
        # fsspec.parquet fetches what it needs first, and opens with it.
        for (start, _), data in ((cache_options or {}).get("data") or {}).items():
            self._window.add(start, memoryview(data))

    def close(self) -> None:
        """Cancels what is under way and lets the memory go. Any number of times."""
        super().close()
        _open_files.discard(self)

    @property
    def details(self) -> "Entry":
        """What `S3FileSystem.info` told when it was opened."""
        return self._details

    def info(self) -> "Entry":
        """What `S3FileSystem.info` told when it was opened."""
        return self._details

    @property
    def full_name(self) -> str:
        """The URL."""
        return str(self.fs.unstrip_protocol(self.path))

    @property
    def loc(self) -> int:
        """The position."""
        return self.tell()

    @property
    def _fetch_range(self) -> NoReturn:
        """What fsspec's "blockcache" puts into other files is not in this one."""
        raise NotImplementedError('"blockcache" does not work with s3dataset.fsspec: use "filecache" or "simplecache"')

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.fs, self.path, self._details, self._version_id, self._cache_type, self.tell())


def _reopened(
    fs: "S3FileSystem", path: str, details: "Entry", version_id: str | None, cache_type: str, position: int
) -> ReadFile:
    file: ReadFile = fs.open(path, details=details, version_id=version_id, cache_type=cache_type)
    file.seek(position)
    return file


class WriteFile(io.BufferedIOBase):
    """A file opened with "wb", "xb" or "ab": an `S3Writer` that knows its file system, and its transaction.

    It appears when it is closed, or in a transaction at its end, whole or not at all. An exception that leaves its
    `with` block publishes nothing, nor does one that leaves that of `fsspec.open`, and forgetting to close does not.

    Attributes:
        fs: The file system.
        path: Its name there.
        mode: How it was opened.
        autocommit: Whether closing it publishes it; otherwise `commit` does.
    """

    def __init__(
        self,
        fs: "S3FileSystem",
        path: str,
        *,
        client: Client,
        bucket: str,
        key: str,
        mode: str,
        headers: Headers = (),
        autocommit: bool = True,
        block_size: int | None = None,
    ) -> None:
        self.fs = fs
        self.path = path
        self.mode = mode
        self.autocommit = autocommit
        self.blocksize = block_size or fs.blocksize
        self._closed = True  # until there is a writer
        old = _existing(client, bucket, key) if mode == "ab" else None
        self._writer = S3Writer(
            client,
            bucket,
            key,
            headers=headers,
            if_none_match=mode == "xb" or (mode == "ab" and old is None),
            if_match=old.etag if old is not None and old.etag else None,
        )
        self._closed = False
        if old is not None:
            self._begin_with(client, bucket, old)

    def _begin_with(self, client: Client, bucket: str, old: ObjectInfo) -> None:
        """What is there already comes first: objects cannot grow, so it is written anew."""
        try:
            with S3Reader(client, bucket, old.key, size=old.size, etag=old.etag or None) as reader:
                while data := reader.read(_COPY_BYTES):
                    self._writer.write(data)
        except BaseException:
            self.abort()
            raise

    # -- Writing ----------------------------------------------------------------------------------------------------

    def write(self, data: "Buffer") -> int:
        """Appends `data` -> its length in bytes. See `S3Writer.write`."""
        self._check_open()
        return self._writer.write(data)

    def tell(self) -> int:
        """Bytes written so far."""
        return self._writer.tell()

    def flush(self, force: bool = False) -> None:
        """Does nothing: an object appears whole, when it is closed."""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Raises io.UnsupportedOperation: what was written may be on its way already."""
        return self._writer.seek(offset, whence)

    def truncate(self, size: int | None = None, /) -> int:
        """Raises io.UnsupportedOperation, as `seek` does."""
        return self._writer.truncate(size)

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return not self._closed

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def loc(self) -> int:
        """Bytes written so far."""
        return self.tell()

    @property
    def full_name(self) -> str:
        """The URL."""
        return str(self.fs.unstrip_protocol(self.path))

    def info(self) -> NoReturn:
        """Raises ValueError: there is no such object yet."""
        raise ValueError(f"{self._writer.uri} is being written: there is nothing to tell of it yet")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._writer!r}>"

    # -- The end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Publishes the object, or leaves that to the transaction. A second call does nothing.

        Raises:
            FileExistsError: It was opened with "xb", and somebody else was first.
            S3Exception: The object was not saved.
        """
        if self._closed:
            return
        if _is_left_by_an_exception():
            self.abort()
            return
        self._closed = True
        if self.autocommit:
            self.commit()

    def commit(self) -> None:
        """Publishes what a transaction has gathered."""
        try:
            self._writer.close()
        except PreconditionFailedError as error:
            if self.mode != "xb":
                raise
            raise exists_error(self._writer.uri) from error
        finally:
            self.fs.invalidate_cache(self.path)

    def abort(self) -> None:
        """Publishes nothing; an object that was there stays as it was."""
        self._closed = True
        self._writer.abort()

    def discard(self) -> None:
        """Publishes nothing of what a transaction has gathered."""
        self.abort()

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is None:
            self.close()
        elif not self._closed:
            self._closed = True
            self._writer.__exit__(exc_type, exc, traceback)

    def __del__(self) -> None:
        """Nothing, where io's would close and so publish: the writer says that it was forgotten."""

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(f"{self._writer.uri}, open for writing, cannot be pickled: open it in the process that writes")

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"I/O operation on the closed file {self._writer.uri}")


def _existing(client: Client, bucket: str, key: str) -> ObjectInfo | None:
    try:
        return client.head_object(bucket, key)
    except ObjectNotFoundError:
        return None


_CLOSERS: Final = frozenset({"contextlib", "fsspec.core", "pandas.io.common", "pyarrow.parquet.core"})
"""Modules whose `with` blocks close the files in them in the same way, whether an exception leaves the block or not."""


def _is_left_by_an_exception() -> bool:
    """Whether `close` is called because an exception leaves the `with` block of one of these.

    They do not say so, but their frames do: they were handed the exception.
    """
    exception = sys.exception()
    if exception is None:
        return False
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - the caller of close()
    while frame is not None and frame.f_globals.get("__name__") in _CLOSERS:
        if frame.f_code.co_name == "__exit__":
            handed = [*frame.f_locals.values()]
            handed += [item for value in handed if isinstance(value, tuple) for item in value]
            return any(value is exception for value in handed)
        frame = frame.f_back
    return False


class TextFile(io.TextIOWrapper):
    """Text on a file that is written: an exception, or forgetting to close it, publishes nothing here too."""

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is not None:
            self._abort()
        self.close()

    def __del__(self) -> None:
        if not self.closed:
            self._abort()

    def _abort(self) -> None:
        cast("WriteFile | CompressedFile", self.buffer).abort()


class CompressedFile(io.BufferedIOBase):
    """A compressor on a file that is written, and the file: closing it closes both, aborting it the latter alone."""

    def __init__(self, compressor: Any, file: WriteFile) -> None:
        self._compressor = compressor
        self._file = file

    def write(self, data: "Buffer") -> int:
        """Appends `data` -> its length in bytes."""
        self._compressor.write(data)
        return memoryview(data).nbytes

    def writable(self) -> bool:
        return not self.closed

    @property
    def closed(self) -> bool:
        return self._file.closed

    def flush(self) -> None:
        """Does nothing: an object appears whole, when it is closed."""

    def close(self) -> None:
        """Publishes the object, as `WriteFile.close` does."""
        if self.closed:
            return
        if _is_left_by_an_exception():
            self.abort()
            return
        try:
            self._compressor.close()
        except BaseException:
            self._file.abort()
            raise
        self._file.close()

    def abort(self) -> None:
        """Publishes nothing; an object that was there stays as it was."""
        self._file.abort()
        with contextlib.suppress(Exception):  # it cannot write its end any more
            self._compressor.close()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        if not self._file.closed:
            self.abort()
