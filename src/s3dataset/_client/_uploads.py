"""ListMultipartUploads and AbortMultipartUpload: uploads that nobody goes on with cost money until they are aborted."""

from collections.abc import Iterator
from typing import NamedTuple, cast

from s3dataset._client._core import ClientCore
from s3dataset._native import Reply
from s3dataset._uri import S3Uri
from s3dataset.errors import S3Exception

__all__ = ["UnfinishedUpload", "UploadOperations"]


class UnfinishedUpload(NamedTuple):
    """A multipart upload that was begun, and neither completed nor aborted.

    Attributes:
        key: Of the object that it would make.
        upload_id: The service's name of it.
        initiated: Epoch seconds at which it was begun; 0 where the service does not tell.
    """

    key: str
    upload_id: str
    initiated: int


class UploadOperations(ClientCore):
    """Uploads under way."""

    def list_uploads(self, bucket: str, prefix: str = "") -> Iterator[UnfinishedUpload]:
        """Lists the multipart uploads under way whose keys begin with `prefix`.

        Args:
            bucket: Name of the bucket.
            prefix: "" lists all; in directory buckets it must end in a slash.

        Raises:
            S3Exception: It failed, at the first use of the iterator.
        """
        markers: tuple[str, str] | None = ("", "")
        with self.queue() as queue:
            while markers is not None:
                page = cast(Reply, queue.take(queue.list_uploads(bucket, prefix, markers)))
                if page.next_uploads is not None and page.next_uploads in (markers, ("", "")):
                    raise S3Exception(
                        f"Service error: The listing of uploads of {S3Uri(bucket, prefix)} says that there is more, "
                        "and does not go on",
                        operation="ListMultipartUploads",
                        uri=str(S3Uri(bucket, prefix)),
                    )
                markers = page.next_uploads
                for key, upload_id, initiated in page.uploads:
                    yield UnfinishedUpload(key, upload_id, initiated)

    def abort_upload(self, bucket: str, key: str, upload_id: str) -> None:
        """Aborts a multipart upload, and deletes its parts. One that is not there counts as aborted.

        Raises:
            S3Exception: It failed.
        """
        with self.queue() as queue:
            try:
                queue.take(queue.abort_upload(bucket, key, upload_id))
            except S3Exception as error:
                if error.code != "NoSuchUpload":
                    raise
