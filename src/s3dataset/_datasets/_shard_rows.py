"""What is to be known of shards before they can be fetched in parts: size and ETag."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from s3dataset.errors import S3Exception

if TYPE_CHECKING:
    from s3dataset._client import Client, Reply
    from s3dataset._datasets._samples import Row
    from s3dataset._manifest import Manifest

__all__ = ["ShardRows"]


class ShardRows:
    """Rows of a manifest; what it does not know of those that were named one by one, the service is asked for.

    Belongs to one thread. A shard that cannot be asked about keeps its row: reading it tells what is wrong.

    Args:
        client: This process's.
        manifest: The shards.
    """

    def __init__(self, client: "Client", manifest: "Manifest") -> None:
        self._manifest = manifest
        self._queue = client.queue()
        self._asked: dict[int, int] = {}
        self._known: dict[int, Row] = {}

    def close(self) -> None:
        """Gives up what was asked."""
        self._queue.close()

    def named(self, shard: int) -> "Row":
        """The row as the manifest has it."""
        return self._manifest.rows((shard,))[0]

    def row(self, shard: int, following: Iterable[int]) -> "Row":
        """The row of a shard that is opened now. Where it has to be waited for, those that follow are too."""
        row = self._known.pop(shard, None) or self.named(shard)
        if row[2] is not None:
            return row
        alone = shard in self._asked
        self._ask((shard, *following))
        for number in (shard,) if alone else tuple(self._asked):
            self._take(number)
        return self._known.pop(shard, row)

    def known(self, shard: int) -> "Row | None":
        """The row of a shard that will be opened later, if its size is known by now; else it is asked for."""
        row = self._known.get(shard) or self.named(shard)
        if row[2] is not None:
            return row
        self._ask((shard,))
        if self._queue.ready(self._asked[shard]):
            self._take(shard)
        return self._known.get(shard)

    def _ask(self, shards: Iterable[int]) -> None:
        for shard in shards:
            if shard not in self._asked and shard not in self._known:
                bucket, key, size, _ = self.named(shard)
                if size is None:
                    self._asked[shard] = self._queue.head(bucket, key)

    def _take(self, shard: int) -> None:
        index = self._asked.pop(shard)
        (result,) = self._queue.take_many(range(index, index + 1))
        if not isinstance(result, S3Exception):
            bucket, key, _, etag = self.named(shard)
            reply = cast("Reply", result)
            self._known[shard] = bucket, key, reply.object_size, etag or reply.etag or None
