"""What is to be known of shards before they can be fetched in parts: size and ETag."""

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
        self._told: dict[int, Row] = {}  # of those that could not be asked about, what the manifest has

    def close(self) -> None:
        """Gives up what was asked."""
        self._queue.close()

    def named(self, shard: int) -> "Row":
        """The row as the manifest has it."""
        return self._manifest.rows((shard,))[0]

    def row(self, shard: int) -> "Row":
        """The row of a shard that is opened now; waits for the answer where the service has to be asked."""
        if self.coming(shard) is None:
            self._take(shard)
        return self._told.pop(shard, None) or self.named(shard)

    def coming(self, shard: int) -> "Row | None":
        """The row of a shard that will be opened later; None as long as the service has not answered."""
        if shard not in self._told:
            row = self.named(shard)
            if row[2] is not None:
                return row
            if shard not in self._asked:
                self._asked[shard] = self._queue.head(row[0], row[1])
            if not self._queue.ready(self._asked[shard]):
                return None
            self._take(shard)
        return self._told[shard]

    def _take(self, shard: int) -> None:
        index = self._asked.pop(shard)
        (result,) = self._queue.take_many(range(index, index + 1))
        row = self.named(shard)
        if not isinstance(result, S3Exception):
            reply = cast("Reply", result)
            row = (*row[:2], reply.object_size, row[3] or reply.etag or None)
        self._told[shard] = row
