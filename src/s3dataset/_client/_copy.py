"""CopyObject, and UploadPartCopy for what is too large for it."""

from typing import TYPE_CHECKING, Final, cast

from s3dataset._client._core import ClientCore
from s3dataset._client._lost_answers import NONCE_HEADER, Nonce
from s3dataset._client._object_info import ObjectInfo, info_of_reply
from s3dataset._native import Reply
from s3dataset.errors import BucketNotFoundError, ObjectNotFoundError, S3Exception

if TYPE_CHECKING:
    from s3dataset._client._queue import RequestQueue

__all__ = ["CopyOperations"]

_GIB: Final = 1 << 30
_MOST_AT_ONCE_BYTES: Final = 5 * _GIB
"""The service's limit for one CopyObject."""
_PART_BYTES: Final = _GIB // 2
"""A part is copied within the service at some 100 MB/s; small enough that many run side by side."""
_MOST_PARTS: Final = 10_000
_ABORT_S: Final = 30.0

# A copy by parts makes a new object, which has none of these by itself.
_KEPT: Final = frozenset(
    {
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-type",
        "expires",
        "x-amz-storage-class",
        "x-amz-website-redirect-location",
    }
)


class CopyOperations(ClientCore):
    """Copying within the service."""

    def copy_object(self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str) -> None:
        """Copies an object with its metadata, of any size; no bytes pass through this machine.

        The copy appears whole or not at all. Above 5 GiB it is made of parts, all of one version of the source, and
        its tags are not copied; nor are they to a directory bucket, which has none.

        Raises:
            ObjectNotFoundError: There is no source.
            ObjectChangedError, PreconditionFailedError: The source was replaced meanwhile.
            S3Exception: It failed otherwise.
        """
        with self.queue() as queue:
            try:
                queue.take(queue.copy(dst_bucket, dst_key, src_bucket, src_key))
            except ObjectNotFoundError as error:
                raise _no_source(error, f"s3://{src_bucket}/{src_key}") from None
            except BucketNotFoundError as error:
                error.add_note(
                    f"The copy's source is s3://{src_bucket}/{src_key}; the answer does not say which bucket."
                )
                raise
            except S3Exception as error:
                # The service says InvalidRequest of too large a source, and of much else.
                if error.code not in ("InvalidRequest", "EntityTooLarge"):
                    raise
                reply = cast(Reply, queue.take(queue.head(src_bucket, src_key)))
                if reply.object_size <= _MOST_AT_ONCE_BYTES:
                    raise
                source = info_of_reply(src_key, reply)
                nonce = Nonce()
                headers = [*_kept_headers(reply), nonce.header]
                upload = cast(
                    Reply, queue.take(queue.create_upload(dst_bucket, dst_key, headers, checksum=None, of_copy=True))
                )
                try:
                    parts = self._copy_parts(src_bucket, source, dst_bucket, dst_key, upload.upload_id)
                    completing = queue.complete_upload(
                        dst_bucket, dst_key, upload.upload_id, parts, checksum=None, object_size=source.size
                    )
                    try:
                        queue.take(completing)
                    except S3Exception as failure:
                        nonce.saved_after_all(queue, dst_bucket, dst_key, failure)
                except BaseException as failure:
                    _abort(queue, dst_bucket, dst_key, upload.upload_id, failure)
                    raise

    def _copy_parts(
        self, src_bucket: str, source: ObjectInfo, dst_bucket: str, dst_key: str, upload_id: str
    ) -> list[tuple[int, str, None]]:
        part_bytes = max(_PART_BYTES, -(-source.size // _MOST_PARTS))
        pin = [("x-amz-copy-source-if-match", source.etag)] if source.etag else []
        # A queue of their own: once it is closed, no part is under way any more and the upload can be aborted.
        with self.queue() as queue:
            indices = [
                queue.copy_part(
                    dst_bucket,
                    dst_key,
                    upload_id,
                    number,
                    src_bucket,
                    source.key,
                    start,
                    min(start + part_bytes, source.size),
                    pin,
                )
                for number, start in enumerate(range(0, source.size, part_bytes), 1)
            ]
            return [(number, cast(Reply, queue.take(index)).etag, None) for number, index in enumerate(indices, 1)]


def _no_source(error: ObjectNotFoundError, source: str) -> ObjectNotFoundError:
    """The exception that names what is missing: of a copy that is the source, whereas the request is about the copy."""
    return ObjectNotFoundError(
        f"Service error: The object was not found: {source} (copying it to {error.uri}: HTTP {error.status} "
        f"{error.code}, request id {error.request_id}). Check its spelling (keys are case-sensitive)",
        operation=error.operation,
        uri=source,
        status=error.status,
        code=error.code,
        request_id=error.request_id,
        attempts=error.attempts,
        elapsed_s=error.elapsed_s,
    )


def _abort(queue: "RequestQueue", bucket: str, key: str, upload_id: str, failure: BaseException) -> None:
    try:
        queue.take(queue.abort_upload(bucket, key, upload_id), _ABORT_S)
    except (S3Exception, TimeoutError) as error:
        if isinstance(error, S3Exception) and error.code == "NoSuchUpload":
            return
        failure.add_note(f"Upload {upload_id} of s3://{bucket}/{key} could not be aborted, and costs money: {error}")


def _kept_headers(reply: Reply) -> list[tuple[str, str]]:
    return [
        (name.lower(), value)
        for name, value in reply.headers()
        if name.lower() in _KEPT or (name.lower().startswith("x-amz-meta-") and name.lower() != NONCE_HEADER)
    ]
