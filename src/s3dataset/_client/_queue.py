"""RequestQueue: requests go in by the hundred, results come out as they are done.

What stands between the engine and its users here is counted in fractions of a microsecond a request: one tuple, one
look into a dictionary, one test of a type.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

from s3dataset._client._failures import exception_of
from s3dataset._native import Body, Failure, ForeignProcessError, ListPage, Reply
from s3dataset._object_headers import ENCRYPTION_PREFIX, TAGGING, Headers
from s3dataset._uri import S3Uri, is_arn, is_directory_bucket
from s3dataset.errors import S3Exception

if TYPE_CHECKING:
    from typing_extensions import Buffer as ReadableBuffer

    from s3dataset import _native
    from s3dataset._client._core import Routes

__all__ = ["Get", "GetInto", "Headers", "Pieces", "Put", "RequestQueue", "Result"]

Result: TypeAlias = Body | Reply | ListPage

Get: TypeAlias = tuple[str, str, int | None, int | None, int | None, str | None]
"""(bucket, key, start, end, size of the object, ETag); None where it is not known or not wanted."""
Pieces: TypeAlias = list[memoryview]
"""Memory in several pieces, which count as one behind the other."""
GetInto: TypeAlias = "tuple[str, str, int, str | None, ReadableBuffer | Pieces]"
"""(bucket, key, start, ETag, writable memory that is filled exactly)."""
Put: TypeAlias = "tuple[str, str, ReadableBuffer | Pieces, Headers]"
"""(bucket, key, data, further headers in lower case)."""


class RequestQueue:
    """Requests of one caller. Indices count up from 0 in the order of submission.

    Use it as a context manager: leaving it, by an exception or Ctrl-C too, cancels what is unfinished and returns when
    the engine has given up the callers' memory. Belongs to the process that made it.
    """

    __slots__ = ("_checksum", "_copy_headers", "_native", "_prefixes", "_routes", "_write_headers")

    def __init__(
        self,
        native: "_native.Queue",
        routes: "Routes",
        checksum: str | None,
        write_headers: Headers,
        copy_headers: Headers = (),
    ) -> None:
        self._native = native
        self._routes = routes
        self._checksum = checksum
        self._write_headers = write_headers
        self._prefixes: dict[int, str] = {}  # listed, by index, for what is said of failures
        self._copy_headers = copy_headers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ForeignProcessError):  # a forked child collects what it inherited: its parent's requests go on
            self._native.close()

    # -- Many at once ------------------------------------------------------------------------------------------------

    def get(
        self,
        requests: Iterable[Get],
        *,
        limit: int | None = None,
        version_id: str | None = None,
        verify: bool = False,
    ) -> range:
        """Fetches objects or ranges -> Body each; with `limit` at most so many bytes of each.

        With `version_id`, that version of the one object that all of them are about. With `verify`, whole objects that
        come in parallel ranges are compared with the checksum stored, as those that come with one answer always are.

        Returns:
            Their indices.
        """
        routes = self._routes
        rows = [(routes[bucket], key, start, end, size, etag) for bucket, key, start, end, size, etag in requests]
        first = self._native.get(rows, limit=limit, version_id=version_id, verify=verify)
        return range(first, first + len(rows))

    def get_into(
        self, requests: Iterable[GetInto], *, version_id: str | None = None, checksum: str | None = None
    ) -> range:
        """Fetches ranges into callers' memory -> Reply each, with the `checksum` of what came if one is named."""
        routes = self._routes
        rows = [(routes[bucket], key, start, etag, buffer) for bucket, key, start, etag, buffer in requests]
        first = self._native.get_into(rows, version_id=version_id, checksum=checksum)
        return range(first, first + len(rows))

    def put(self, requests: Iterable[Put], *, checksum: str | EllipsisType | None = ...) -> range:
        """Writes objects, one request each -> Reply each. Data must not change until its result is there."""
        routes = self._routes
        if self._write_headers:
            rows = [
                (routes[bucket], _object(bucket, key), data, self._for_write(headers))
                for bucket, key, data, headers in requests
            ]
        else:
            rows = [(routes[bucket], _object(bucket, key), data, headers) for bucket, key, data, headers in requests]
        first = self._native.put(rows, checksum=self._or_own(checksum))
        return range(first, first + len(rows))

    # -- One at a time -----------------------------------------------------------------------------------------------

    def head(self, bucket: str, key: str, headers: Headers = (), *, version_id: str | None = None) -> int:
        """HeadObject -> Reply; an empty key asks for the bucket."""
        return self._native.head(self._routes[bucket], key, headers, version_id=version_id)

    def list_page(
        self,
        bucket: str,
        prefix: str,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        max_keys: int = 1000,
    ) -> int:
        """One page of a listing -> ListPage.

        Directory buckets list whole directories: `prefix` must be "" or end in "/", and keys come in no order.
        """
        index = self._native.list(
            self._routes[bucket], prefix, delimiter=delimiter, start_after=start_after, token=token, max_keys=max_keys
        )
        if prefix:
            self._prefixes[index] = prefix
        return index

    def list_uploads(self, bucket: str, prefix: str, markers: tuple[str, str] = ("", "")) -> int:
        """One page of the multipart uploads under way -> Reply with `uploads`, and `next_uploads` as next markers."""
        key_marker, upload_id_marker = markers
        index = self._native.list_uploads(
            self._routes[bucket], prefix, key_marker=key_marker, upload_id_marker=upload_id_marker
        )
        if prefix:
            self._prefixes[index] = prefix
        return index

    def delete(self, bucket: str, key: str, headers: Headers = (), *, version_id: str | None = None) -> int:
        """DeleteObject -> Reply. With `version_id`, that version goes for good."""
        return self._native.delete(self._routes[bucket], _object(bucket, key), headers, version_id=version_id)

    def delete_many(self, bucket: str, keys: Sequence[str]) -> int:
        """DeleteObjects, at most 1,000 keys -> Reply with `key_errors`."""
        return self._native.delete_many(self._routes[bucket], keys)

    def copy(self, bucket: str, key: str, source_bucket: str, source_key: str, headers: Headers = ()) -> int:
        """CopyObject, up to 5 GiB -> Reply. The copy keeps its source's tags, and has none in a directory bucket."""
        own = self._for_copy(headers)
        if is_directory_bucket(bucket):
            own = (*own, ("x-amz-tagging-directive", "REPLACE"))  # it refuses tags, copied ones too
        source = _copy_source(source_bucket, source_key)
        return self._native.copy(self._routes[bucket], _object(bucket, key), source, (*own, *self._copy_headers))

    def create_upload(
        self,
        bucket: str,
        key: str,
        headers: Headers = (),
        *,
        checksum: str | EllipsisType | None = ...,
        of_copy: bool = False,
    ) -> int:
        """CreateMultipartUpload -> Reply with `upload_id`."""
        own = self._for_copy(headers) if of_copy else self._for_write(headers)
        return self._native.create_upload(
            self._routes[bucket], _object(bucket, key), own, checksum=self._or_own(checksum)
        )

    def upload_part(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        part_number: int,
        data: "ReadableBuffer | Pieces",
        headers: Headers = (),
        *,
        checksum: str | EllipsisType | None = ...,
    ) -> int:
        """UploadPart -> Reply. Data must not change until its result is there."""
        return self._native.upload_part(
            self._routes[bucket], key, upload_id, part_number, data, headers, checksum=self._or_own(checksum)
        )

    def copy_part(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        part_number: int,
        source_bucket: str,
        source_key: str,
        start: int,
        end: int,
        headers: Headers = (),
    ) -> int:
        """UploadPartCopy of bytes [start, end) -> Reply."""
        source = _copy_source(source_bucket, source_key)
        own = (*headers, *self._copy_headers)
        return self._native.copy_part(self._routes[bucket], key, upload_id, part_number, source, start, end, own)

    def complete_upload(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        parts: Sequence[tuple[int, str, str | None]],
        headers: Headers = (),
        *,
        checksum: str | EllipsisType | None = ...,
        object_size: int | None = None,
    ) -> int:
        """CompleteMultipartUpload of (number, ETag, checksum) -> Reply."""
        return self._native.complete_upload(
            self._routes[bucket],
            key,
            upload_id,
            parts,
            headers,
            checksum=self._or_own(checksum),
            object_size=object_size,
        )

    def abort_upload(self, bucket: str, key: str, upload_id: str) -> int:
        """AbortMultipartUpload -> Reply."""
        return self._native.abort_upload(self._routes[bucket], key, upload_id)

    # -- Results -----------------------------------------------------------------------------------------------------

    def next(
        self, min_items: int = 1, max_items: int = 4096, timeout_s: float | None = None
    ) -> list[tuple[int, Result | S3Exception]]:
        """Waits for `min_items` results, or until nothing is unfinished; takes those that are there, as completed.

        Failures are returned, not raised. [] when nothing is left or the time is over.
        """
        results = self._native.next(min_items, max_items, timeout_s)
        prefixes = self._prefixes_of(index for index, _ in results)
        return [
            (index, exception_of(result, prefixes.get(index, "")) if type(result) is Failure else result)
            for index, result in results
        ]

    def take(self, index: int, timeout_s: float | None = None) -> Result:
        """Waits for one result and takes it.

        Raises:
            S3Exception: The request failed.
            TimeoutError: The time is over; the request goes on.
        """
        result = self.take_many(range(index, index + 1), timeout_s)[0]
        if isinstance(result, S3Exception):
            raise result
        return result

    def take_many(self, indices: range, timeout_s: float | None = None) -> list[Result | S3Exception]:
        """Waits for all of these results and takes them, in order. Failures are returned, not raised.

        Raises:
            TimeoutError: The time is over; nothing was taken.
        """
        results = self._native.take(indices.start, len(indices), timeout_s)
        if results is None:
            raise TimeoutError(f"{len(indices)} results from {indices.start} on were not there after {timeout_s} s")
        prefixes = self._prefixes_of(indices)
        return [
            exception_of(result, prefixes.get(index, "")) if type(result) is Failure else result
            for index, result in zip(indices, results, strict=True)
        ]

    def _prefixes_of(self, indices: Iterable[int]) -> dict[int, str]:
        """What these listed, which nobody asks for again."""
        if not self._prefixes:
            return self._prefixes
        return {index: self._prefixes.pop(index) for index in indices if index in self._prefixes}

    def ready(self, index: int) -> bool:
        """Whether this result is there."""
        return self._native.ready(index)

    @property
    def unfinished(self) -> int:
        """Requests whose results are not there yet."""
        return self._native.unfinished

    @property
    def untaken(self) -> int:
        """Results that wait to be taken."""
        return self._native.untaken

    def cancel(self, indices: range) -> None:
        """Asks for the end of these; each still has a result, a `CancelledError` or what it had become."""
        self._native.cancel(indices.start, len(indices))

    def close(self) -> None:
        """Cancels everything, waits until callers' memory is given up, drops what was not taken. Idempotent."""
        self._native.close()

    def _or_own(self, checksum: str | EllipsisType | None) -> str | None:
        return self._checksum if isinstance(checksum, EllipsisType) else checksum

    def _for_write(self, headers: Headers) -> Headers:
        given = {name for name, _ in headers}
        # Whoever says how an object is encrypted says all of it: a KMS key is of no use to AES256.
        encrypts = any(name.startswith(ENCRYPTION_PREFIX) for name in given)
        return (
            *headers,
            *(
                header
                for header in self._write_headers
                if header[0] not in given and not (encrypts and header[0].startswith(ENCRYPTION_PREFIX))
            ),
        )

    def _for_copy(self, headers: Headers) -> Headers:
        return tuple(header for header in self._for_write(headers) if header[0] != TAGGING)


def _copy_source(bucket: str, key: str) -> str:
    """As CopyObject wants it named; of an access point's object, by that object's ARN."""
    return f"{bucket}/object/{key}" if is_arn(bucket) else f"{bucket}/{key}"


def _object(bucket: str, key: str) -> str:
    """The key, unless it is empty: then DELETE would be about the bucket, and so would PUT."""
    if not key:
        raise S3Uri.no_key(bucket)
    return key
