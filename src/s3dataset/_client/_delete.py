"""DeleteObject and DeleteObjects."""

import re
from collections.abc import Iterable
from itertools import islice
from typing import Final, cast

from s3dataset import errors
from s3dataset._client._core import ClientCore
from s3dataset._native import Reply
from s3dataset._uri import S3Uri
from s3dataset.errors import InvalidUriError, S3Exception

__all__ = ["DeleteOperations"]

_MOST_KEYS: Final = 1000  # the service's limit
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

        Keys with control characters, which DeleteObjects has no way to name, take a request each.

        Returns:
            (key, reason) of those that were not deleted: the service refused to, or no object can have such a key
            (`InvalidUriError`). [] when all are gone.

        Raises:
            S3Exception: A request for many keys failed. Others may have deleted theirs.
        """
        refused: list[tuple[str, S3Exception]] = []
        alone: dict[int, str] = {}
        requests = 0
        with self.queue() as queue:
            source = iter(keys)
            while chunk := list(islice(source, _MOST_KEYS)):
                together, others = _sorted(chunk)
                if together:
                    requests = queue.delete_many(bucket, together) + 1
                for key in others:
                    try:
                        index = queue.delete(bucket, key)
                    except ValueError as error:
                        refused.append((key, _no_key(bucket, key, error)))
                    else:
                        alone[index], requests = key, index + 1
            for index, result in enumerate(queue.take_many(range(requests))):
                if not isinstance(result, S3Exception):
                    refused += [(error[0], _refusal(bucket, *error)) for error in cast(Reply, result).key_errors]
                elif index in alone:
                    refused.append((alone[index], result))
                else:
                    raise result
        return refused


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
