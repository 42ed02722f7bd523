"""What there is to read: some of the user's objects, or temporary ones."""

import random
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self, cast

from s3dataset._bench._plan import Options, objects_of
from s3dataset._bench._result import WriteStep
from s3dataset._client import Client, ObjectInfo, Reply, info_of_reply
from s3dataset._io import S3Writer
from s3dataset._manifest import Pattern
from s3dataset._uri import S3Uri
from s3dataset.errors import S3Exception

__all__ = ["Load", "Stored", "Temporary", "some_objects"]

_LISTED: Final = 20_000
_LAST_WRITES_S: Final = 30.0
"""For writes that are under way when a measurement is stopped."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object to read."""

    bucket: str
    key: str
    size: int
    etag: str | None


def some_objects(client: Client, place: S3Uri, pattern: str | None) -> tuple[list[Stored], bool]:
    """The first 20,000 objects below a prefix that have bytes -> these, and whether there are no others.

    Raises:
        S3Exception: They cannot be listed.
    """
    chosen = None if pattern is None else Pattern(pattern)
    found: list[Stored] = []
    seen = 0
    for page in client.list_objects(place.bucket, place.key):
        for info in page.object_info:
            seen += 1
            if not info.size or "/.s3dataset/" in f"/{info.key}":
                continue
            if chosen is None or chosen.matches(info.key[len(place.key) :]):
                found.append(Stored(place.bucket, info.key, info.size, info.etag or None))
        if seen >= _LISTED:
            return found, False
    return found, True


class Load:
    """Requests without end: of objects at random, whole, or one aligned range where they are larger.

    Args:
        objects: To choose from.
        most_bytes: Of a request.
        exact: Whether only objects count that are at least so large.
    """

    def __init__(self, objects: list[Stored], most_bytes: int, *, exact: bool = False) -> None:
        self._objects = [stored for stored in objects if not exact or stored.size >= most_bytes]
        self._most_bytes = most_bytes
        self._random = random.Random(0)

    def __bool__(self) -> bool:
        return bool(self._objects)

    @property
    def mean_bytes(self) -> int:
        """Of a request."""
        sizes = [min(stored.size, self._most_bytes) for stored in self._objects]
        return sum(sizes) // max(len(sizes), 1)

    def next(self) -> tuple[str, str, int, int, int, str | None]:
        """(bucket, key, start, end, size, ETag)."""
        stored = self._random.choice(self._objects)
        ranges = max(1, stored.size // self._most_bytes)
        start = self._random.randrange(ranges) * self._most_bytes
        return stored.bucket, stored.key, start, min(start + self._most_bytes, stored.size), stored.size, stored.etag


class Temporary:
    """Objects of chosen sizes below a new prefix, deleted at the block's end, whatever comes.

    Where the bucket keeps versions, those that were written are deleted, so that neither they nor delete markers stay.

    Attributes:
        place: The prefix.
        objects: What was written.
        removed: So many are deleted.
        kept_versions: Of so many the service let nobody delete the version: it stays behind a delete marker.

    Args:
        client: Whose connections and credentials are used.
        place: Below which the new prefix is.
        options: The sizes.
    """

    def __init__(self, client: Client, place: S3Uri, options: Options) -> None:
        folder = place.key + ("/" if place.key and not place.key.endswith("/") else "")
        self.place = S3Uri(place.bucket, f"{folder}s3dataset-bench-{secrets.token_hex(8)}/")
        self.objects: list[Stored] = []
        self.removed = 0
        self.kept_versions = 0
        self._versions: dict[str, str | None] = {}
        self._client = client
        self._options = options

    def __enter__(self) -> Self:
        return self

    def write(self) -> Iterator[WriteStep]:
        """Writes them, a size after the other.

        Raises:
            S3Exception: One could not be written.
        """
        for size in self._options.sizes:
            count = objects_of(size, self._options)
            data = memoryview(random.Random(size).randbytes(size))
            keys = [f"{self.place.key}{size}/{number:04d}" for number in range(count)]
            begin = time.perf_counter()
            if size <= self._client.part_size:
                infos = self._put_all(keys, data)
            else:
                infos = []
                for key in keys:
                    with S3Writer(self._client, self.place.bucket, key, size=size) as writer:
                        writer.write(data)
                    infos.append(writer.result)
            seconds = time.perf_counter() - begin
            self.objects += [Stored(self.place.bucket, info.key, size, info.etag or None) for info in infos]
            self._versions |= {info.key: info.version_id for info in infos}
            yield WriteStep(size, count, seconds)

    def _put_all(self, keys: list[str], data: memoryview) -> list[ObjectInfo]:
        """Writes them at once. None is under way when it ends: what came after the removal would stay."""
        with self._client.queue() as queue:
            try:
                results = queue.take_many(queue.put((self.place.bucket, key, data, ()) for key in keys))
            except BaseException:
                queue.next(queue.unfinished, timeout_s=_LAST_WRITES_S)
                raise
        for result in results:
            if isinstance(result, S3Exception):
                raise result
        return [info_of_reply(key, cast(Reply, result), len(data)) for key, result in zip(keys, results, strict=True)]

    def __exit__(self, kind: object, value: BaseException | None, trace: object) -> None:
        try:
            for page in self._client.list_objects(self.place.bucket, self.place.key):
                keys = [info.key for info in page.object_info]
                self.kept_versions += self._client.remove_written(self.place.bucket, keys, self._versions)
                self.removed += len(keys)
        except BaseException as error:
            (value or error).add_note(f"Not everything was removed: aws s3 rm --recursive {self.place}")
            if value is None or not isinstance(error, S3Exception):
                raise
