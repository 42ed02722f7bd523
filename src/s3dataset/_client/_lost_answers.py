"""Lost answers: whether a write that failed was carried out all the same.

A conditional PUT that is sent again meets its own first attempt as 412, a CompleteMultipartUpload as NoSuchUpload. The
object itself tells: it carries a nonce of the write that made it in its metadata.
"""

import logging
import secrets
from typing import TYPE_CHECKING, Final, cast

from s3dataset._uri import S3Uri
from s3dataset.errors import ConflictError, ObjectNotFoundError, PreconditionFailedError, S3Exception

if TYPE_CHECKING:
    from s3dataset._client._queue import RequestQueue
    from s3dataset._native import Reply

__all__ = ["Nonce"]

_LOGGER = logging.getLogger("s3dataset")

NONCE_HEADER: Final = "x-amz-meta-s3dataset-upload"
_NOT_FOUND: Final = 404


class Nonce:
    """What says of an object whether one particular write made it. Immutable."""

    __slots__ = ("header",)

    def __init__(self) -> None:
        self.header: Final = (NONCE_HEADER, secrets.token_hex(16))
        """Goes with the request that makes the object: PutObject or CreateMultipartUpload."""

    def saved_after_all(self, queue: "RequestQueue", bucket: str, key: str, error: S3Exception) -> "Reply":
        """The object that the write made though it failed with `error`, as HEAD shows it.

        Raises:
            S3Exception: `error`, when the object is not there, is another write's, or cannot be asked for.
        """
        if not _may_be_saved(error):
            raise error
        try:
            reply = cast("Reply", queue.take(queue.head(bucket, key)))
        except ObjectNotFoundError:
            raise error from None
        except S3Exception as unknown:
            error.add_note(f"Whether the object was saved all the same could not be found out: {unknown}")
            raise error from None
        if self.header not in reply.headers():
            raise error
        _LOGGER.info("the answer was lost, but %s was saved: %s", S3Uri(bucket, key), error)
        return reply


def _may_be_saved(error: S3Exception) -> bool:
    if error.status in (0, 200) or error.status >= 500:
        return True
    # What the first attempt was told is so; later ones may have met what an earlier one did.
    no_upload = error.code == "NoSuchUpload" or (error.status == _NOT_FOUND and not error.code)
    answers = isinstance(error, PreconditionFailedError | ConflictError) or no_upload
    return answers and error.attempts != 1
