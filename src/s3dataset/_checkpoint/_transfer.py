"""A checkpoint between torch's memory and one object: no copy, every byte compared."""

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, cast

from s3dataset._checkpoint._image import Image, UnusualArchiveError
from s3dataset._checkpoint._progress import Progress
from s3dataset._checkpoint._skeleton import Skeleton
from s3dataset._client import Client, ObjectInfo, combine_checksums
from s3dataset._io import S3Writer
from s3dataset._torch_archive import begins_torch_archive, directory_range, parse_records
from s3dataset._uri import S3Uri
from s3dataset.errors import ChecksumMismatchError, InternalError, ObjectChangedError, S3Exception

if TYPE_CHECKING:
    from s3dataset._client import Body, Pieces, Reply, RequestQueue

__all__ = ["load_image", "save_skeleton", "skeleton_of"]

_TAIL_BYTES: Final = 128 << 10
_ATTEMPTS: Final = 3
_ALGORITHMS: Final = {"CRC64NVME": 12, "CRC32C": 8, "CRC32": 8}
"""With the length of their values in base64: some stores tell values of another kind."""


# -- Saving ----------------------------------------------------------------------------------------------------------


class _Taker:
    """Cuts pieces of memory, of any lengths, into parts."""

    def __init__(self, pieces: Iterator[tuple[memoryview, object]]) -> None:
        self._pieces = pieces
        self._rest: tuple[memoryview, object] = (memoryview(b""), None)

    def __call__(self, nbytes: int) -> "tuple[Pieces, object]":
        taken: list[memoryview] = []
        keeps: list[object] = []
        while nbytes:
            memory, keep = self._rest
            if not len(memory):
                self._rest = next(self._pieces)
                continue
            taken.append(memory[:nbytes])
            keeps.append(keep)
            self._rest = (memory[nbytes:], keep)
            nbytes -= len(taken[-1])
        return taken, keeps


def save_skeleton(writer: S3Writer, skeleton: Skeleton, progress: Progress | None) -> ObjectInfo:
    """Sends torch.save's file straight from the storages.

    Raises:
        S3Exception: It was not saved.
    """
    total = skeleton.nbytes
    tell = None if progress is None else lambda done: progress(done, total)
    return writer.save_held(total, _Taker(skeleton.pieces()), tell)


# -- Loading ---------------------------------------------------------------------------------------------------------


def load_image(client: Client, uri: S3Uri, progress: Progress | None) -> Image:
    """Fetches an object of torch.save, each storage straight into the memory where it will stay.

    Raises:
        UnusualArchiveError: It is none that can be taken apart beforehand.
        ChecksumMismatchError: Several times other bytes came than are stored.
        S3Exception: It could not be read.
    """
    with client.queue() as queue:
        tail, stored = _open(queue, uri)
        image = _plan(queue, uri, tail)
        for attempt in range(_ATTEMPTS):
            found = _fetch(client, queue, uri, tail.etag or None, image, stored[0] if stored else None, progress)
            if stored is None or found == stored[1]:
                break
            if attempt == _ATTEMPTS - 1:
                raise ChecksumMismatchError(
                    f"{uri}: the {image.nbytes:,} bytes that came have the {stored[0]} {found}, the service has stored "
                    f"{stored[1]}: something on the way, or in this machine's memory, changes bytes",
                    operation="GetObject",
                    uri=str(uri),
                )
    image.check()
    return image


def _open(queue: "RequestQueue", uri: S3Uri) -> "tuple[Body, tuple[str, str] | None]":
    """-> the end of the object, and the checksum that is stored of the whole."""
    for _ in range(_ATTEMPTS):
        asked = queue.head(uri.bucket, uri.key, [("x-amz-checksum-mode", "ENABLED")])
        ends = queue.get([(uri.bucket, uri.key, -_TAIL_BYTES, None, None, None)])
        head = cast("Reply", queue.take(asked))
        tail = cast("Body", queue.take(ends.start))
        if not tail.object_size:
            raise UnusualArchiveError
        if head.etag == tail.etag:
            return tail, _stored_checksum(dict(head.headers()))
    raise ObjectChangedError(f"{uri} was replaced while it was opened", operation="GetObject", uri=str(uri))


def _stored_checksum(headers: dict[str, str]) -> tuple[str, str] | None:
    """Of the whole object; that of an upload in parts may be one of the parts' checksums, which tells nothing here."""
    if headers.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    values = ((name, headers.get(f"x-amz-checksum-{name.lower()}", "")) for name in _ALGORITHMS)
    return next(((name, value) for name, value in values if len(value) == _ALGORITHMS[name]), None)


def _plan(queue: "RequestQueue", uri: S3Uri, tail: "Body") -> Image:
    size = tail.object_size
    found = directory_range(memoryview(tail), size)
    if found is None:
        raise UnusualArchiveError
    start, end = found
    head = cast("Body", queue.take(queue.get([(uri.bucket, uri.key, 0, 256, size, tail.etag or None)]).start))
    if not begins_torch_archive(memoryview(head)):
        raise UnusualArchiveError
    if start >= tail.start:
        directory = bytes(memoryview(tail)[start - tail.start : end - tail.start])
    else:
        rest = queue.get([(uri.bucket, uri.key, start, end, size, tail.etag or None)])
        directory = bytes(memoryview(cast("Body", queue.take(rest.start))))
    records = parse_records(directory)
    if records is None:
        raise UnusualArchiveError
    return Image(size, records, start)


def _fetch(
    client: Client,
    queue: "RequestQueue",
    uri: S3Uri,
    etag: str | None,
    image: Image,
    algorithm: str | None,
    progress: Progress | None,
) -> str:
    """Fills the image -> the checksum of what came."""
    cuts = [*range(0, image.nbytes, client.part_size), image.nbytes]
    spans = list(pairwise(cuts))
    requests = ((uri.bucket, uri.key, start, etag, image.pieces(start, end)) for start, end in spans)
    indices = queue.get_into(requests, checksum=algorithm)
    checksums = [("", 0)] * len(spans)
    done = 0
    left = len(spans)
    while left:
        results = queue.next(1)
        if not results:
            raise InternalError(f"a result of a read of {uri} is missing", uri=str(uri))
        for index, result in results:
            if isinstance(result, S3Exception):
                raise result
            start, end = spans[index - indices.start]
            checksums[index - indices.start] = (cast("Reply", result).checksum, end - start)
            done += end - start
            left -= 1
        if progress is not None:
            progress(done, image.nbytes)
    return combine_checksums(algorithm, checksums) if algorithm else ""


def skeleton_of(obj: Any) -> Skeleton | None:
    """torch.save's file of an object; None where this torch, or a tensor in it, cannot be taken apart."""
    if not Skeleton.is_possible():
        return None
    try:
        return Skeleton(obj)
    except RuntimeError as error:
        if "skip_data" not in str(error):
            raise
    except NotImplementedError:
        pass
    return None
