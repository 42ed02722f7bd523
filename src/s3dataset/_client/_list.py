"""ListObjectsV2, page by page, as the drop-in API has it. Manifests list in parallel by themselves."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, cast

from s3dataset._client._core import ClientCore
from s3dataset._client._object_info import ObjectInfo, infos_of_page
from s3dataset._native import ListPage
from s3dataset._uri import S3Uri, is_directory_bucket
from s3dataset.errors import S3Exception

__all__ = ["ListObjectResult", "ListOperations", "ListingGuard"]


@dataclass(frozen=True, slots=True)
class ListObjectResult:
    """One page of a listing.

    Attributes:
        object_info: Its objects, in the service's order.
        common_prefixes: With a delimiter: what stands for the keys behind it.
    """

    object_info: list[ObjectInfo] = field(default_factory=list)
    common_prefixes: list[str] = field(default_factory=list)


class ListOperations(ClientCore):
    """Listing."""

    def list_objects(
        self, bucket: str, prefix: str = "", delimiter: str = "", max_keys: int = 1000
    ) -> Iterator[ListObjectResult]:
        """Lists the keys that begin with `prefix`, in the service's order (by the bytes of their UTF-8).

        The next page is fetched while the caller looks at this one. Directory buckets have no order, and no delimiter
        but "/"; a prefix may end anywhere there too, by listing what is in its directory.

        Args:
            bucket: Name of the bucket.
            prefix: "" lists everything.
            delimiter: Keys that contain it behind the prefix are gathered to common prefixes.
            max_keys: Keys of one page; the service gives at most 1,000.

        Yields:
            One page after the other, at least one.

        Raises:
            S3Exception: It failed (`BucketNotFoundError`, `AccessDeniedError`, ...), at the first use of the iterator.
            ValueError: `max_keys` is less than 1.
        """
        if max_keys < 1:
            raise ValueError(f"max_keys must be at least 1, not {max_keys}")
        return self._list_objects(bucket, prefix, delimiter, max_keys)

    def _list_objects(self, bucket: str, prefix: str, delimiter: str, max_keys: int) -> Iterator[ListObjectResult]:
        if is_directory_bucket(bucket) and prefix and not prefix.endswith("/"):
            yield from self._list_within_directory(bucket, prefix, delimiter, max_keys)
            return
        guard = ListingGuard(S3Uri(bucket, prefix))
        with self.queue() as queue:
            waiting = queue.list_page(bucket, prefix, delimiter=delimiter, max_keys=max_keys)
            more = True
            while more:
                page = cast(ListPage, queue.take(waiting))
                guard.check(page)
                more = page.is_truncated
                if more:
                    waiting = queue.list_page(
                        bucket, prefix, delimiter=delimiter, max_keys=max_keys, token=page.next_token
                    )
                yield ListObjectResult(infos_of_page(page), page.common_prefixes)

    def _list_within_directory(
        self, bucket: str, prefix: str, delimiter: str, max_keys: int
    ) -> Iterator[ListObjectResult]:
        """What begins with a prefix that ends within a name: some of its directory, and all below some of its names."""
        directory = prefix[: prefix.rfind("/") + 1]
        below: list[str] = []
        for page in self._list_objects(bucket, directory, "/", max_keys):
            names = [name for name in page.common_prefixes if name.startswith(prefix)]
            infos = [info for info in page.object_info if info.key.startswith(prefix)]
            below += names
            yield ListObjectResult(infos, names if delimiter else [])
        for name in [] if delimiter else below:
            yield from self._list_objects(bucket, name, "", max_keys)


_EMPTY_PAGES: Final = 1000
"""In a row: stores that skip deleted keys answer with some, but each stands for a thousand keys."""


class ListingGuard:
    """Sees to it that a listing in pages gets on, and so comes to its end.

    Args:
        uri: What is listed.
    """

    def __init__(self, uri: S3Uri) -> None:
        self._uri = str(uri)
        self._token: str | None = None
        self._keys = b""
        self._empty = 0

    def check(self, page: ListPage) -> None:
        """Looks at the next page.

        Raises:
            S3Exception: There is more, and it does not lead there.
        """
        keys = page.key_blob
        self._empty = 0 if keys or page.common_prefixes else self._empty + 1
        if not page.is_truncated:
            return
        token = page.next_token
        if token is None or token == self._token or self._empty > _EMPTY_PAGES or (keys and keys == self._keys):
            raise S3Exception(
                f"Service error: The listing of {self._uri} says that there is more, and does not go on. The service "
                "is no faithful S3; give the keys by Manifest.from_objects instead",
                operation="ListObjectsV2",
                uri=self._uri,
            )
        self._token, self._keys = token, keys
