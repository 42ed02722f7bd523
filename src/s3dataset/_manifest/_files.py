"""A manifest's file: mapped from a path, written where only this process knows, or fetched from the service."""

import errno
import mmap
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from s3dataset._client import Client
from s3dataset._manifest._columns import Columns
from s3dataset._shared_files import create, hold, new_file, remove_own
from s3dataset._uri import S3Uri

SMALL_BYTES: Final = 4 << 20
"""A manifest up to this size is kept in memory; a larger one is a file that is mapped, and that workers share."""


def map_file(path: str, *, name: str | None = None) -> Columns:
    """Opens a manifest's file, to be called `name` in messages.

    Raises:
        FileNotFoundError: There is none.
        DecodeError: It is something else.
    """
    with Path(path).open("rb") as file:
        # The map keeps a descriptor of its own, and the hold with it.
        if not hold(file.fileno(), path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if not os.fstat(file.fileno()).st_size:
            return Columns(b"", name or path)
        return Columns(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), name or path, path=path)


def private_file(fill: Callable[[IO[bytes]], None], *, name: str | None = None) -> Columns:
    """Has `fill` write a file that only this user can read, and that goes with the columns.

    Raises:
        OSError: The disk is full.
        DecodeError: What `fill` wrote is no manifest.
    """
    descriptor, path = create("manifest")
    try:
        with os.fdopen(descriptor, "w+b") as file:
            fill(file)
            columns = map_file(path, name=name)  # while the file is still held
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise
    weakref.finalize(columns, remove_own, path, os.getpid())
    return columns


def write_file(columns: Columns, path: str) -> None:
    """Writes a manifest for whoever may read it, atomically.

    Raises:
        OSError: The path cannot be written to.
    """
    target = Path(path)
    if target.exists() and not target.is_file():  # a pipe, /dev/stdout: to rename something onto it would end it
        with target.open("wb") as special:
            special.write(columns.buffer)
        return
    target = target.resolve()  # a link stays one
    descriptor, temporary = new_file(target.parent, f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(columns.buffer)
            file.flush()
            os.fsync(file.fileno())
        # So far only the owner can read it; a manifest that was saved is for those whom the umask lets.
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def fetched(client: Client, uri: S3Uri) -> Columns:
    """`fetched_version` without the ETag."""
    return fetched_version(client, uri)[0]


def fetched_version(client: Client, uri: S3Uri) -> tuple[Columns, str]:
    """Fetches a manifest: a large one into a file, as if it had been made here -> with its ETag, "" where none is told.

    Raises:
        OSError: The disk is full.
        DecodeError: It is something else.
        S3Exception: It could not be fetched.
    """
    beginning = client.get_range(uri.bucket, uri.key, 0, SMALL_BYTES)
    if beginning.nbytes == beginning.object_size:
        return Columns(bytes(memoryview(beginning)), str(uri)), beginning.etag

    def fill(file: IO[bytes]) -> None:
        _reserve(file, beginning.object_size)
        with mmap.mmap(file.fileno(), beginning.object_size) as memory:
            memory[: beginning.nbytes] = memoryview(beginning)
            with memoryview(memory)[beginning.nbytes :] as rest, client.queue() as queue:
                queue.take(queue.get_into([(uri.bucket, uri.key, beginning.nbytes, beginning.etag or None, rest)])[0])

    return private_file(fill, name=str(uri)), beginning.etag


def _reserve(file: IO[bytes], size: int) -> None:
    """Gives a file its size, with room on the disk where that can be had: a hole in a full one is a SIGBUS later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)
