"""Opening shards to be read from a position on, the beginnings of the next ones under way."""

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from s3dataset._datasets._ahead import request_of
from s3dataset._io import S3Reader, open_reader
from s3dataset.errors import S3Exception

if TYPE_CHECKING:
    from s3dataset._client import Client
    from s3dataset._manifest import Manifest

__all__ = ["ShardOpener"]

_AHEAD: Final = 2
"""Shards whose first part is fetched before they are opened: a part takes a consumer of 400 MB/s 20 ms, about as long
as the first byte of the next one takes."""


class ShardOpener:
    """Opens shards as readers whose first part is there, and sends for those of the next. Belongs to one thread.

    Args:
        client: This process's.
        manifest: The shards.
        reader_constructor: The user's choice; None: the default.
        ahead: How many shards are fetched ahead.
    """

    def __init__(
        self, client: "Client", manifest: "Manifest", reader_constructor: Any = None, ahead: int = _AHEAD
    ) -> None:
        self._client = client
        self._manifest = manifest
        self._constructor = reader_constructor
        self._ahead = ahead
        self._queue = client.queue()
        self._sent: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.close()

    def open(self, shard: int, following: Sequence[int] = ()) -> S3Reader:
        """Opens a shard.

        Args:
            shard: Its number in the manifest.
            following: Those that will be opened next.

        Raises:
            S3Exception: Its first part could not be fetched.
        """
        wanted = [number for number in (shard, *following[: self._ahead]) if number not in self._sent]
        if wanted:
            requests = [request_of(row) for row in self._manifest.rows(wanted)]
            self._sent.update(zip(wanted, self._queue.get(requests, limit=self._client.part_size), strict=True))
        index = self._sent.pop(shard)
        body: Any = self._queue.take_many(range(index, index + 1))[0]
        if isinstance(body, S3Exception):
            raise body
        bucket, key, size, etag = self._manifest.rows((shard,))[0]
        return open_reader(
            self._client, bucket, key, reader_constructor=self._constructor, size=size, etag=etag, body=body
        )
