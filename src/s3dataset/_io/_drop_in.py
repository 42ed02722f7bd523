"""S3Client: the stateless client with a face for files."""

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from s3dataset._client import Client, Headers, UserAgent
from s3dataset._config import S3ClientConfig
from s3dataset._io._constructor import S3ReaderConstructorProtocol, check_constructor, open_reader
from s3dataset._io._reader import S3Reader
from s3dataset._io._writer import S3Writer
from s3dataset._object_headers import Encryption, object_headers
from s3dataset._uri import S3Uri
from s3dataset.errors import InvalidUriError, ObjectNotFoundError

if TYPE_CHECKING:
    from s3dataset._client import ObjectInfo

__all__ = ["S3Client"]


class S3Client(Client):
    """Reads, writes, lists and manages objects of S3, one call an operation or many at once.

    Nothing is read, resolved or opened before the first request. Safe to share between threads; lives through forks.
    Connections stay open for the next request until the client is closed or dropped; as a context manager it closes
    at the block's end those that are idle by then. A closed client opens what it needs anew::

        with S3Client(region="us-west-2") as client:
            client.put_many(("bucket", f"numbers/{i}", str(i).encode()) for i in range(1000))

    Args:
        region: Where buckets are first looked for; default: AWS_REGION, AWS_DEFAULT_REGION, the profile, else the
            bucket itself tells.
        endpoint: URL of a service of one's own; default: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile, else
            Amazon's.
        user_agent: Put before the library's own in the User-Agent header: text, or a `UserAgent`.
        s3client_config: Everything else.

    Raises:
        InvalidConfigError: `endpoint` is no URL.
    """

    def __init__(
        self,
        region: str | None = None,
        *,
        endpoint: str | None = None,
        user_agent: str | UserAgent | None = None,
        s3client_config: S3ClientConfig | None = None,
    ) -> None:
        text = user_agent.prefix if isinstance(user_agent, UserAgent) else user_agent
        super().__init__(region, endpoint=endpoint, user_agent=text, s3client_config=s3client_config)
        self.preload()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def user_agent_prefix(self) -> str:
        """What the User-Agent header begins with."""
        return self.user_agent or UserAgent.get_default_prefix()

    def head_object(self, bucket: str, key: str, *, version_id: str | None = None) -> "ObjectInfo":
        """Asks for an object's size, ETag, time, storage class and restore status.

        Args:
            bucket: Name of the bucket.
            key: Key of the object.
            version_id: Of a bucket with versions; default: the current one.

        Raises:
            ObjectNotFoundError: There is none. `str()` of it is "Service error: The object was not found"; the rest
                stands in fields and notes.
            S3Exception: It failed otherwise.
        """
        try:
            return super().head_object(bucket, key, version_id=version_id)
        except ObjectNotFoundError as error:
            # Programs compare this text whole, so what belongs to it stands in a note.
            told = str(error)
            error.args = ("Service error: The object was not found",)
            error.add_note(told)
            raise

    def get_object(
        self,
        bucket: str,
        key: str,
        *,
        object_info: "ObjectInfo | None" = None,
        version_id: str | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
    ) -> S3Reader:
        """Opens an object for reading; sends nothing before the first read.

        Args:
            bucket: Name of the bucket.
            key: Key of the object.
            object_info: From a listing or `head_object`: saves finding out the size, and pins the ETag.
            version_id: Of a bucket with versions; default: the current one. Wants s3:GetObjectVersion.
            reader_constructor: Read-ahead, from `S3ReaderConstructor`.

        Raises:
            InvalidUriError: `bucket` or `key` is empty.
            TypeError: `reader_constructor` is none.
        """
        _check_names(bucket, key)
        check_constructor(reader_constructor)
        return open_reader(
            self,
            bucket,
            key,
            reader_constructor=reader_constructor,
            size=None if object_info is None else object_info.size,
            etag=None if object_info is None else object_info.etag or None,
            version_id=version_id,
        )

    def put_object(
        self,
        bucket: str,
        key: str,
        storage_class: str | None = None,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | str | None = None,
        sse: Encryption | None = None,
        kms_key_id: str | None = None,
        headers: Headers = (),
        if_none_match: bool = False,
        if_match: str | None = None,
        size: int | None = None,
    ) -> S3Writer:
        """Opens an object for writing; it appears when the writer is closed.

        What is left out is as the configuration says, else as the bucket has it.

        Args:
            bucket: Name of the bucket.
            key: Key of the object.
            storage_class: "STANDARD_IA", "INTELLIGENT_TIERING" ...
            content_type: Media type of the object.
            metadata: Of the user's, names without "x-amz-meta-"; ASCII, 2 KiB in all.
            tags: At most 10.
            sse: How the service encrypts it: "AES256", "aws:kms" or "aws:kms:dsse".
            kms_key_id: Id or ARN of the KMS key; means "aws:kms" where `sse` is left out.
            headers: Others, names in lower case: cache-control, x-amz-object-lock-mode ...
            if_none_match: Write only if there is no object of that name.
            if_match: Write only if the object there has this ETag.
            size: Bytes that will be written, where known: parts are then alike, and large enough for up to 50 TB.

        Raises:
            InvalidUriError: `bucket` or `key` is empty.
            InvalidConfigError: Something of it cannot be said in a header, or contradicts something else.
            ValueError: `part_size` of the configuration is more than S3 takes, or the conditions exclude each other.
        """
        _check_names(bucket, key)
        own = object_headers(
            content_type=content_type, metadata=metadata, tags=tags, sse=sse, kms_key_id=kms_key_id, headers=headers
        )
        return S3Writer(
            self,
            bucket,
            key,
            headers=own,
            storage_class=storage_class,
            if_none_match=if_none_match,
            if_match=if_match,
            size=size,
        )


def _check_names(bucket: str, key: str) -> None:
    if not bucket:
        raise InvalidUriError(f"Bucket name must be non-empty, got {bucket!r} with the key {key!r}")
    if not key:
        raise S3Uri.no_key(bucket)
