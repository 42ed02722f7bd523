"""Directories, which S3 does not have, out of keys, which it has.

Entries are dictionaries, as fsspec wants them, with the names that s3fs gives. A directory is there when a key goes on
behind its name and a slash. An empty object whose key is just that stands for the directory, and is no file.
"""

from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, cast

from s3dataset._client import Client, ListingGuard, ListPage, ObjectInfo, infos_of_page
from s3dataset._uri import S3Uri, is_directory_bucket
from s3dataset.errors import ObjectNotFoundError, S3Exception

__all__ = ["Entry", "Found", "directory_entry", "entry_of", "file_entry", "list_below", "list_directory", "list_levels"]

Entry = dict[str, Any]

_MOST_AT_ONCE: Final = 128
"""Directories listed side by side."""


def file_entry(bucket: str, info: ObjectInfo) -> Entry:
    name = f"{bucket}/{info.key}"
    return {
        "Key": name,
        "name": name,
        "type": "file",
        "Size": info.size,
        "size": info.size,
        "ETag": info.etag,
        "LastModified": datetime.fromtimestamp(info.last_modified, UTC),
        "mtime": float(info.last_modified),
        "StorageClass": info.storage_class or "STANDARD",
        "VersionId": info.version_id,
    }


def directory_entry(name: str) -> Entry:
    return {"Key": name, "name": name, "type": "directory", "Size": 0, "size": 0, "StorageClass": "DIRECTORY"}


def entry_of(client: Client, bucket: str, key: str, version_id: str | None = None) -> Entry:
    """The file or directory of this name.

    Raises:
        ObjectNotFoundError: There is neither.
        BucketNotFoundError: There is no such bucket.
        S3Exception: The service did not tell.
    """
    missing: ObjectNotFoundError | None = None
    if key:
        try:
            return file_entry(bucket, client.head_object(bucket, key, version_id=version_id))
        except ObjectNotFoundError as error:
            missing = error
    name = f"{bucket}/{key}" if key else bucket
    with client.queue() as queue:
        # One suffices, but a store may count a deleted one.
        page = cast(ListPage, queue.take(queue.list_page(bucket, f"{key}/" if key else "", delimiter="/", max_keys=2)))
    if missing is None or len(page) or page.common_prefixes:
        return directory_entry(name)
    raise missing


class Found:
    """What a listing found: files, and the directories that they are in."""

    def __init__(self, bucket: str, key: str) -> None:
        self.bucket = bucket
        self.root = f"{bucket}/{key}" if key else bucket
        self.exists = False
        self._files: dict[str, Entry] = {}
        self._directories: dict[str, Entry] = {}

    def add_directory(self, prefix: str) -> None:
        """Adds what stands for keys behind a slash; `prefix` ends in it."""
        self.exists = True
        name = f"{self.bucket}/{prefix[:-1]}"
        if name != self.root:
            self._directories.setdefault(name, directory_entry(name))

    def add(self, infos: Iterable[ObjectInfo], *, parents: bool = False) -> None:
        """Adds objects and, with `parents`, the directories between the root and them."""
        directories = self._directories
        for info in infos:
            self.exists = True
            if info.key.endswith("/") and not info.size:
                name = f"{self.bucket}/{info.key[:-1]}"
                if name != self.root:
                    self.add_directory(info.key)
            else:
                entry = file_entry(self.bucket, info)
                name = entry["name"]
                self._files[name] = entry
            if parents:
                parent = name.rpartition("/")[0]
                while len(parent) > len(self.root) and parent not in directories:
                    directories[parent] = directory_entry(parent)
                    parent = parent.rpartition("/")[0]

    def entries(self, *, withdirs: bool, withroot: bool = False) -> dict[str, Entry]:
        """By name, sorted; a file goes before a directory of the same name."""
        found = dict(self._directories) if withdirs else {}
        if withdirs and withroot and self.exists:
            found[self.root] = directory_entry(self.root)
        found.update(self._files)
        return {name: found[name] for name in sorted(found)}


def list_directory(client: Client, bucket: str, key: str) -> Found:
    """What is directly in a directory."""
    found = Found(bucket, key)
    for page in client.list_objects(bucket, f"{key}/" if key else "", "/"):
        for prefix in page.common_prefixes:
            found.add_directory(prefix)
        found.add(page.object_info)
    return found


def list_below(client: Client, bucket: str, key: str, beginning: str = "") -> Found:
    """All that is below a directory, in whatever depth, and whose name there has this beginning."""
    found = Found(bucket, key)
    for page in client.list_objects(bucket, (f"{key}/" if key else "") + beginning):
        found.add(page.object_info, parents=True)
    return found


def list_levels(client: Client, bucket: str, key: str, depth: int, beginning: str = "") -> Found:
    """What is below a directory, `depth` levels of it, by one listing a directory, many side by side."""
    found = Found(bucket, key)
    prefix = f"{key}/" if key else ""
    if is_directory_bucket(bucket):
        directory = prefix  # it lists whole directories
    else:
        directory = prefix + beginning
    waiting: deque[tuple[str, int, str | None, ListingGuard]] = deque()
    waiting.append((directory, depth, None, ListingGuard(S3Uri(bucket, directory))))
    asked: dict[int, tuple[str, int, ListingGuard]] = {}
    with client.queue() as queue:
        while waiting or asked:
            while waiting and len(asked) < _MOST_AT_ONCE:
                directory, depth, token, guard = waiting.popleft()
                asked[queue.list_page(bucket, directory, delimiter="/", token=token)] = directory, depth, guard
            for index, result in queue.next():
                if isinstance(result, S3Exception):
                    raise result
                page = cast(ListPage, result)
                directory, depth, guard = asked.pop(index)
                guard.check(page)
                if page.is_truncated:
                    waiting.append((directory, depth, page.next_token, guard))
                found.add(info for info in infos_of_page(page) if info.key.startswith(prefix + beginning))
                for name in page.common_prefixes:
                    if name.startswith(prefix + beginning):
                        found.add_directory(name)
                        if depth > 1:
                            waiting.append((name, depth - 1, None, ListingGuard(S3Uri(bucket, name))))
    return found
