"""HeadObject."""

from typing import cast

from s3dataset._client._core import ClientCore
from s3dataset._client._object_info import ObjectInfo, info_of_reply
from s3dataset._native import Reply
from s3dataset._uri import S3Uri

__all__ = ["HeadOperations"]


class HeadOperations(ClientCore):
    """Metadata of one object."""

    def head_object(self, bucket: str, key: str, *, version_id: str | None = None) -> ObjectInfo:
        """Asks for an object's size, ETag, time, storage class and restore status.

        Args:
            bucket: Name of the bucket.
            key: Key of the object.
            version_id: Of a bucket with versions; default: the current one.

        Raises:
            ObjectNotFoundError: There is none.
            S3Exception: It failed otherwise.
        """
        if not key:
            raise S3Uri.no_key(bucket)
        with self.queue() as queue:
            return info_of_reply(key, cast(Reply, queue.take(queue.head(bucket, key, version_id=version_id))))
