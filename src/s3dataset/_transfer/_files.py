"""Files and pipes of this machine, to and from objects."""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from s3dataset._client import Client, ObjectInfo
from s3dataset._io import S3Writer
from s3dataset._object_headers import object_headers
from s3dataset._progress import Progress
from s3dataset._transfer._receive import Received, receive
from s3dataset._transfer._span import Span
from s3dataset._uri import S3Uri
from s3dataset.errors import AccessDeniedError, ObjectNotFoundError, PreconditionFailedError

__all__ = ["download", "upload", "write_all"]

_CHUNK_BYTES: Final = 8 << 20


def download(
    client: Client,
    uri: S3Uri,
    target: Path,
    *,
    span: Span | None = None,
    replace: bool = True,
    progress: Progress | None = None,
) -> Received:
    """Fetches an object, or a range of it, to a file, which appears whole and compared, or stays as it was.

    Raises:
        FileExistsError: There is such a file, and `replace` is False.
        OSError: It cannot be written.
        S3Exception: As `receive` says.
    """
    if not replace and target.exists():
        raise _exists(str(target))
    if target.exists() and not target.is_file():  # a pipe, /dev/stdout
        with target.open("wb", buffering=0) as pipe:
            return receive(client, uri, lambda data: write_all(pipe, data), span=span, progress=progress)
    with _beside(target.resolve(), replace=replace) as file:
        return receive(client, uri, lambda data: write_all(file, data), span=span, progress=progress)


@contextmanager
def _beside(target: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """A file beside the target, which takes its place if the block ends well, and is removed if not."""
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "There is no such folder", str(target.parent))
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb", buffering=0) as file:
            if target.exists():
                shutil.copymode(target, temporary)
            yield file
        if replace:
            temporary.replace(target)
        else:
            os.link(temporary, target)  # fails if somebody else was faster
            temporary.unlink()
    except FileExistsError as error:
        temporary.unlink(missing_ok=True)
        raise _exists(str(target)) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_all(file: BinaryIO, data: memoryview) -> None:
    """Writes to an unbuffered file, which may take less than it is given."""
    while len(data):
        written: int | None = file.write(data)
        data = data[len(data) if written is None else written :]


def upload(
    client: Client,
    source: BinaryIO,
    uri: S3Uri,
    *,
    name: str,
    content_type: str | None = None,
    replace: bool = True,
    progress: Progress | None = None,
) -> ObjectInfo:
    """Sends a file, or what comes through a pipe until its end, to an object, which appears whole or stays as it was.

    Args:
        client: Whose connections and credentials are used.
        source: Open for reading, unbuffered.
        uri: The object.
        name: What to call the source in messages.
        content_type: Media type.
        replace: Whether an object that is there may be replaced.
        progress: Is told (bytes read, all bytes); of a pipe (bytes read, bytes read).

    Raises:
        FileExistsError: There is such an object, and `replace` is False.
        OSError: The source cannot be read, or a file changed its length meanwhile.
        S3Exception: The object was not saved.
    """
    found = os.fstat(source.fileno())
    size = found.st_size if stat.S_ISREG(found.st_mode) else None
    at = source.tell() if size is not None else 0
    expected = None if size is None else max(size - at, 0)
    headers = object_headers(content_type=content_type)
    if not replace:  # before it is sent, and for stores that ignore the condition, as some do of large uploads
        with suppress(ObjectNotFoundError, AccessDeniedError):
            client.head_object(uri.bucket, uri.key)
            raise _exists(str(uri))
    buffer = memoryview(bytearray(_CHUNK_BYTES if expected is None else min(_CHUNK_BYTES, max(expected, 1))))
    done = 0
    try:
        with S3Writer(client, uri.bucket, uri.key, headers=headers, if_none_match=not replace, size=expected) as writer:
            while nbytes := source.readinto(buffer):  # type: ignore[attr-defined] # of raw files
                writer.write(buffer[:nbytes])
                done += nbytes
                if progress is not None:
                    progress(done, done if expected is None else max(done, expected))
            if expected is not None and done != expected:
                raise OSError(f"{name} had {expected:,} bytes at first, and {done:,} were read: it changed meanwhile")
    except PreconditionFailedError as error:
        raise _exists(str(uri)) from error
    return writer.result


def _exists(name: str) -> FileExistsError:
    return FileExistsError(f"{name} exists, and --no-clobber was given")
