"""DeleteObject and DeleteObjects."""

from collections.abc import Iterable
from itertools import islice
from typing import Final, cast

from s3dataset import errors
from s3dataset._client._core import ClientCore
from s3dataset._native import Reply
from s3dataset.errors import S3Exception

__all__ = ["DeleteOperations"]

_MOST_KEYS: Final = 1000  # the service's limit


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

        Returns:
            (key, reason) of those that the service refused to delete; [] when all are gone.

        Raises:
            S3Exception: A whole request failed. Others may have deleted their keys.
        """
        refused = []
        with self.queue() as queue:
            submitted = 0
            source = iter(keys)
            while chunk := list(islice(source, _MOST_KEYS)):
                submitted = queue.delete_many(bucket, chunk) + 1
            for result in queue.take_many(range(submitted)):
                if isinstance(result, S3Exception):
                    raise result
                for key, code, message in cast(Reply, result).key_errors:
                    refused.append((key, _refusal(bucket, key, code, message)))
        return refused


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
