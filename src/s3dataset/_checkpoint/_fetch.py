"""Bytes of one object on their way into an image."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol, cast

from s3dataset._checkpoint._image import Image, UnusualArchiveError
from s3dataset._client import CHECKSUM_MODE, StoredChecksum, combine_checksums, stored_checksum, take_head
from s3dataset._progress import Progress
from s3dataset._torch_archive import begins_torch_archive, directory_range, parse_records
from s3dataset._uri import S3Uri
from s3dataset.errors import InternalError, ObjectChangedError, S3Exception

if TYPE_CHECKING:
    from s3dataset._client import Body, Reply, RequestQueue

__all__ = ["Fetch", "Fetching", "Opened", "cut", "open_object"]

_HEAD_BYTES: Final = 256
_TAIL_BYTES: Final = 128 << 10
_BEFORE_DIRECTORY_BYTES: Final = 4 << 10
"""Small records, which torch.load asks for first, lie there."""
_ATTEMPTS: Final = 3


# -- What is known beforehand ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """An archive of torch.save in S3."""

    uri: S3Uri
    nbytes: int
    etag: str | None
    stored: StoredChecksum | None
    """Of the whole."""
    directory_start: int
    directory: bytes
    known: tuple[tuple[int, bytes], ...]
    """Bytes that were read already, with their offsets."""

    def image(self) -> Image:
        """Raises:
        UnusualArchiveError: It is none that can be taken apart.
        """  # noqa: D205 - only what it raises is worth a word
        records = parse_records(self.directory)
        if records is None:
            raise UnusualArchiveError
        image = Image(self.nbytes, records, self.directory_start)
        for start, data in self.known:
            image.fill(start, memoryview(data))
        return image

    def read_around(self, queue: "RequestQueue") -> "Opened":
        """With everything known that is no storage."""
        unknown = self.image().unknown_around()
        if not unknown:
            return self
        requests = [(self.uri.bucket, self.uri.key, start, end, self.nbytes, self.etag) for start, end in unknown]
        known = list(self.known)
        for (start, _), result in zip(unknown, queue.take_many(queue.get(requests)), strict=True):
            if isinstance(result, S3Exception):
                raise result
            known.append((start, bytes(memoryview(cast("Body", result)))))
        return replace(self, known=tuple(known))


def open_object(queue: "RequestQueue", uri: S3Uri) -> Opened:
    """Asks for an object's end, its beginning, and the checksum stored, all at once.

    Raises:
        UnusualArchiveError: It is no archive of torch.save.
        S3Exception: It could not be read.
    """
    for _ in range(_ATTEMPTS):
        asked = queue.head(uri.bucket, uri.key, [CHECKSUM_MODE])
        both = [(-_TAIL_BYTES, None), (0, _HEAD_BYTES)]
        indices = queue.get([(uri.bucket, uri.key, start, end, None, None) for start, end in both])
        told = take_head(queue, asked)
        tail, head = (cast("Body", queue.take(index)) for index in indices)
        if not tail.object_size or not begins_torch_archive(memoryview(head)):
            raise UnusualArchiveError
        if tail.etag == head.etag and (told is None or told.etag == tail.etag):
            break
    else:
        raise ObjectChangedError(f"{uri} was replaced while it was opened", operation="GetObject", uri=str(uri))
    found = directory_range(memoryview(tail), tail.object_size)
    if found is None:
        raise UnusualArchiveError
    start, end = found
    known_start, known = tail.start, bytes(memoryview(tail))
    if start < known_start:
        more_start = max(start - _BEFORE_DIRECTORY_BYTES, 0)
        more = queue.get([(uri.bucket, uri.key, more_start, known_start, tail.object_size, tail.etag or None)])
        known_start, known = more_start, bytes(memoryview(cast("Body", queue.take(more.start)))) + known
    return Opened(
        uri=uri,
        nbytes=tail.object_size,
        etag=tail.etag or None,
        stored=None if told is None else stored_checksum(dict(told.headers())),
        directory_start=start,
        directory=known[start - known_start : end - known_start],
        known=((known_start, known),),
    )


# -- What is asked for -----------------------------------------------------------------------------------------------


def cut(ranges: Iterable[tuple[int, int]], nbytes: int) -> list[tuple[int, int]]:
    """Into pieces of at most so many bytes."""
    return [(at, min(at + nbytes, end)) for start, end in ranges for at in range(start, end, nbytes)]


class Fetching(Protocol):
    """How bytes come."""

    def wait(self, start: int, end: int) -> None:
        """Returns when those of [start, end) are there that come at all."""
        ...

    def finish(self) -> str:
        """Waits for all -> their checksum, if one was named."""
        ...

    def give_up(self, error: Exception) -> None:
        """The image cannot be used; what comes still is of no interest."""
        ...


class Fetch:
    """Every range at once, each piece straight into its place.

    Args:
        queue: Of nobody else. Whoever made it closes it before the image's memory goes.
        opened: The object.
        image: Its memory.
        ranges: [start, end), in order.
        part_bytes: How much one request fetches at most.
        algorithm: Of a checksum of all ranges together.
        progress: Is told of what is there.
    """

    def __init__(
        self,
        queue: "RequestQueue",
        opened: Opened,
        image: Image,
        ranges: Iterable[tuple[int, int]],
        *,
        part_bytes: int,
        algorithm: str | None,
        progress: Progress | None,
    ) -> None:
        self._queue = queue
        self._uri = opened.uri
        self._spans = cut(ranges, part_bytes)
        self._ends = [end for _, end in self._spans]
        self._replies: list[Reply | None] = [None] * len(self._spans)
        self._algorithm = algorithm
        self._progress = progress
        self._total = sum(end - start for start, end in self._spans)
        self._done = 0
        requests = (
            (opened.uri.bucket, opened.uri.key, start, opened.etag, image.pieces(start, end))
            for start, end in self._spans
        )
        self._first = queue.get_into(requests, checksum=algorithm).start

    def wait(self, start: int, end: int) -> None:
        at = bisect_right(self._ends, start)
        while at < len(self._spans) and self._spans[at][0] < end:
            while self._replies[at] is None:
                self._take()
            at += 1

    def finish(self) -> str:
        self.wait(0, self._ends[-1] if self._ends else 0)
        if not self._algorithm:
            return ""
        parts = zip(self._replies, self._spans, strict=True)
        return combine_checksums(
            self._algorithm, [(cast("Reply", reply).checksum, end - start) for reply, (start, end) in parts]
        )

    def give_up(self, error: Exception) -> None:
        """Nobody else waits for it."""

    def _take(self) -> None:
        results = self._queue.next(1)
        if not results:
            raise InternalError(f"a result of a read of {self._uri} is missing", uri=str(self._uri))
        for index, result in results:
            if isinstance(result, S3Exception):
                raise result
            at = index - self._first
            self._replies[at] = cast("Reply", result)
            self._done += self._spans[at][1] - self._spans[at][0]
        if self._progress is not None:
            self._progress(self._done, self._total)
