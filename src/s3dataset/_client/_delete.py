"""DeleteObject and DeleteObjects."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final, cast

from s3dataset import errors
from s3dataset._client._core import ClientCore
from s3dataset._client._object_info import info_of_reply
from s3dataset._client._queue import RequestQueue
from s3dataset._native import Reply
from s3dataset._uri import S3Uri
from s3dataset.errors import AccessDeniedError, InvalidUriError, ObjectNotFoundError, S3Exception

__all__ = ["DeleteOperations"]

_MOST_KEYS: Final = 1000  # the service's limit
_NOT_IMPLEMENTED: Final = 501
_NOT_IN_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no way to write, and DeleteObjects none to name."""


class DeleteOperations(ClientCore):
    """Deleting."""

    def delete_object(self, bucket: str, key: str) -> None:
        """Deletes one object. One that is not there counts as deleted, as S3 has it.

        Raises:
            S3Exception: It failed.
        """
        with self.queue() as queue:
            queue.take(queue.delete(bucket, key))

    def delete_objects(self, bucket: str, keys: Iterable[str]) -> list[tuple[str, S3Exception]]:
        """Deletes objects, 1,000 a request and the requests side by side. Missing ones count as deleted.

        Keys with control characters, which DeleteObjects has no way to name, take a request each; so do all keys where
        the store knows no DeleteObjects.

        Returns:
            (key, reason) of those that were not deleted: the service refused to, or no object can have such a key
            (`InvalidUriError`). [] when all are gone.

        Raises:
            S3Exception: A request for many keys failed. Others may have deleted theirs.
        """
        refused: list[tuple[str, S3Exception]] = []
        chunks: dict[int, list[str]] = {}
        with self.queue() as queue:
            source = iter(keys)
            alone: list[str] = []
            while chunk := list(islice(source, _MOST_KEYS)):
                together, others = _sorted(chunk)
                if together:
                    chunks[queue.delete_many(bucket, together)] = together
                alone += others
            for index, chunk in chunks.items():
                try:
                    reply = cast(Reply, queue.take(index))
                except S3Exception as error:
                    if error.status != _NOT_IMPLEMENTED:
                        raise
                    alone += chunk
                else:
                    refused += [(error[0], _refusal(bucket, *error)) for error in reply.key_errors]
            for start in range(0, len(alone), _MOST_KEYS):
                refused += _one_by_one(queue, bucket, alone[start : start + _MOST_KEYS])
        return refused

    def remove_written(self, bucket: str, keys: Sequence[str], versions: Mapping[str, str | None]) -> int:
        """Deletes what was written, once each; where the bucket keeps versions, these, so that no marker stays.

        Args:
            bucket: Of all.
            keys: Of the objects.
            versions: Ids that the answers to the writes told, None where they told none. Of other keys it is asked.

        Returns:
            Of how many the version stays, behind a delete marker, because the caller may not delete versions.

        Raises:
            S3Exception: One could not be deleted.
        """
        found = dict(versions)
        with self.queue() as queue:
            asked = {queue.head(bucket, key): key for key in keys if key not in found}
            for index, key in asked.items():
                with suppress(ObjectNotFoundError, AccessDeniedError):
                    found[key] = info_of_reply(key, cast(Reply, queue.take(index))).version_id
            plain = [key for key in keys if found.get(key) is None]
            deleted = {queue.delete(bucket, key, version_id=found[key]): key for key in keys if found.get(key)}
            kept, failures = [], list[S3Exception]()
            for index, key in deleted.items():
                try:
                    queue.take(index)
                except AccessDeniedError:
                    kept.append(key)
                except S3Exception as error:
                    failures.append(error)
        failures += [error for _, error in self.delete_objects(bucket, [*plain, *kept])]
        if failures:
            raise failures[0]
        return len(kept)


def _one_by_one(queue: RequestQueue, bucket: str, keys: Iterable[str]) -> Iterator[tuple[str, S3Exception]]:
    """Deletes objects by a request each, side by side: -> those that were not deleted."""
    asked = {}
    for key in keys:
        try:
            asked[queue.delete(bucket, key)] = key
        except ValueError as error:
            yield key, _no_key(bucket, key, error)
    for index, key in asked.items():
        try:
            queue.take(index)
        except S3Exception as error:
            yield key, error


def _sorted(keys: list[str]) -> tuple[list[str], list[str]]:
    """The keys that DeleteObjects can name, and the others."""
    if all(keys) and not _NOT_IN_XML.search("".join(keys)):
        return keys, []
    others = [key for key in keys if not key or _NOT_IN_XML.search(key)]
    return [key for key in keys if key and not _NOT_IN_XML.search(key)], others


def _no_key(bucket: str, key: str, error: ValueError) -> S3Exception:
    if isinstance(error, S3Exception):
        return error
    uri = str(S3Uri(bucket, key))
    return InvalidUriError(f"{uri!r} is no URI of an object: its key cannot be UTF-8 ({error})")


def _refusal(bucket: str, key: str, code: str, message: str) -> S3Exception:
    uri = f"s3://{bucket}/{key}"
    cls = errors.AccessDeniedError if code == "AccessDenied" else S3Exception
    return cls(
        f"Service error: The object was not deleted: {uri} (DeleteObjects: {code}, {message!r})",
        operation="DeleteObjects",
        uri=uri,
        status=200,
        code=code,
    )
