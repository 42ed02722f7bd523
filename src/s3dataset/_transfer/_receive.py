"""An object's bytes in their order, by many requests at once, in bounded memory."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from s3dataset._client import (
    CHECKSUM_MODE,
    Body,
    Client,
    Reply,
    StoredChecksum,
    checksum,
    combine_checksums,
    stored_checksum,
    take_head,
)
from s3dataset._progress import Progress
from s3dataset._transfer._span import Span
from s3dataset._uri import S3Uri
from s3dataset.errors import ChecksumMismatchError, ObjectChangedError, ObjectNotFoundError, S3Exception

__all__ = ["Received", "receive"]

_MIB: Final = 1 << 20
_MOST_AT_ONCE: Final = 32
_MOST_BYTES: Final = 256 * _MIB

Write = Callable[[memoryview], object]


@dataclass(frozen=True, slots=True)
class Received:
    """What came.

    Attributes:
        uri: The object.
        nbytes: Bytes handed over.
        etag: Of the version they are of.
        compared: Whether they were compared with the checksum stored: not where the service has none of the whole
            object, and never for ranges.
    """

    uri: str
    nbytes: int
    etag: str
    compared: bool


def receive(
    client: Client, uri: S3Uri, write: Write, *, span: Span | None = None, progress: Progress | None = None
) -> Received:
    """Hands an object's bytes to `write`, in their order, all of one version of it.

    An object of one part takes a GET, and a HEAD beside it for the checksum. Memory: at most 256 MiB, and half the
    client's byte budget.

    Args:
        client: Whose connections and credentials are used.
        uri: The object.
        write: Gets memory that changes once it returns.
        span: Which bytes; default: all.
        progress: Is told (bytes done, all bytes).

    Raises:
        ObjectNotFoundError: There is no such object. A note says so where there are objects below that name.
        ChecksumMismatchError: These are not the bytes that were stored. `write` has had all of them.
        ObjectChangedError: The object was replaced meanwhile.
        S3Exception: It could not be read.
    """
    try:
        if span is None:
            return _whole(client, uri, write, progress)
        info = client.head_object(uri.bucket, uri.key)
        start, end = span.within(info.size, str(uri))
        _pieces(client, uri, write, (start, end), info.etag, None, progress, origin=start)
        return Received(str(uri), end - start, info.etag, compared=False)
    except ObjectNotFoundError as error:
        _note_prefix(client, uri, error)
        raise


def _whole(client: Client, uri: S3Uri, write: Write, progress: Progress | None) -> Received:
    with client.queue() as queue:
        # Both at once: the answer to a limited GET has no checksum, which is one of the whole object.
        asked = queue.head(uri.bucket, uri.key, [CHECKSUM_MODE])
        first = queue.get([(uri.bucket, uri.key, None, None, None, None)], limit=client.part_size).start
        body = cast(Body, queue.take(first))
        head = take_head(queue, asked)
    size, etag, held = body.object_size, body.etag, len(body)
    if head is not None and not etag:
        etag = head.etag  # of an empty object a ranged answer tells none
    if head is not None and (head.etag, head.object_size) != (etag, size):
        raise ObjectChangedError(f"{uri} was replaced while it was read: read it again", uri=str(uri))
    stored = None if head is None else stored_checksum(dict(head.headers()))
    write(memoryview(body))
    if progress is not None:
        progress(held, size)
    parts = [] if stored is None else [(checksum(stored.algorithm, body), held)]
    del body
    if held < size:
        parts += _pieces(client, uri, write, (held, size), etag, stored, progress)
    if stored is None:
        return Received(str(uri), size, etag, compared=False)
    found = combine_checksums(stored.algorithm, parts)
    if found != stored.value:
        raise ChecksumMismatchError(
            f"{uri} came with other bytes than were stored: their {stored.algorithm} is {found}, and {stored.value} is "
            "stored. Try again; if it is the same, the object is damaged, or something between here and the service "
            "changes bytes",
            uri=str(uri),
        )
    return Received(str(uri), size, etag, compared=True)


def _pieces(
    client: Client,
    uri: S3Uri,
    write: Write,
    span: tuple[int, int],
    etag: str,
    stored: StoredChecksum | None,
    progress: Progress | None,
    origin: int = 0,
) -> list[tuple[str, int]]:
    """Reads [start, end) -> (checksum, length) of each piece; progress counts from `origin` on."""
    start, end = span
    piece = client.part_size
    at_once = max(2, min(_MOST_AT_ONCE, _MOST_BYTES // piece, client.memory_limit_bytes // 2 // piece))
    spare = [bytearray(min(piece, end - start)) for _ in range(min(at_once, -(-(end - start) // piece)))]
    under_way: deque[tuple[int, bytearray, int]] = deque()
    checksums = []
    done = start
    algorithm = None if stored is None else stored.algorithm
    with client.queue() as queue:
        while start < end or under_way:
            while spare and start < end:
                memory = spare.pop()
                length = min(piece, end - start)
                row = (uri.bucket, uri.key, start, etag or None, memoryview(memory)[:length])
                under_way.append((queue.get_into([row], checksum=algorithm).start, memory, length))
                start += length
            index, memory, length = under_way.popleft()
            reply = cast(Reply, queue.take(index))
            write(memoryview(memory)[:length])
            spare.append(memory)
            checksums.append((reply.checksum, length))
            done += length
            if progress is not None:
                progress(done - origin, end - origin)
    return checksums


def _note_prefix(client: Client, uri: S3Uri, error: ObjectNotFoundError) -> None:
    """Says so where the name is that of a prefix."""
    try:
        for page in client.list_objects(uri.bucket, uri.key.rstrip("/") + "/", max_keys=1):
            if page.object_info:
                error.add_note(
                    f"It is no object but a prefix: there are objects below it, as "
                    f"{S3Uri(uri.bucket, page.object_info[0].key)}. This is about one object; see 's3dataset cp --help'"
                )
            return
    except S3Exception:  # whoever may not list gets the error alone
        return
