"""Extents on their way and at hand, each fetched once for all samples in it that are wanted."""

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from s3dataset._datasets._extents import Extent
from s3dataset._datasets._shard_samples import IndexedShards
from s3dataset._datasets._trace import WAIT_FOR_NETWORK, ranged
from s3dataset.errors import S3Exception

if TYPE_CHECKING:
    from s3dataset._client import RequestQueue

__all__ = ["ExtentStore"]

T_co = TypeVar("T_co", covariant=True)


class _Held:
    """An extent: `wanted` samples of it are still to be made."""

    __slots__ = ("content", "error", "index", "wanted")

    def __init__(self, index: int) -> None:
        self.index: int | None = index
        self.content: Any = None
        self.error: Exception | None = None
        self.wanted = 0


class ExtentStore(Generic[T_co]):
    """Fetches extents and keeps them until the last sample wanted of them was made.

    Those made of frames are kept for a while longer, within `keep_bytes`, as the samples that follow often lie in the
    same frame, whose decoding costs more than its fetching. Belongs to one thread.

    Attributes:
        nbytes: Of extents that are under way or wanted.
        requests: How many of them are under way.
        waited_s: How long this thread waited for bodies.
        fetched: Bytes that arrived.

    Args:
        shards: Whose extents they are.
        queue: Fetches them.
        keep_bytes: See above.
    """

    def __init__(self, shards: IndexedShards[T_co], queue: "RequestQueue", keep_bytes: int) -> None:
        self._shards = shards
        self._queue = queue
        self._keep_bytes = keep_bytes
        self._held: dict[Extent, _Held] = {}
        self._idle: OrderedDict[Extent, _Held] = OrderedDict()
        self._idle_bytes = 0
        self.nbytes = 0
        self.requests = 0
        self.waited_s = 0.0
        self.fetched = 0

    def want(self, wanted: Sequence[tuple[Extent, int]]) -> None:
        """Sends for extents that are not there yet, each with the number of samples that will be made of it."""
        missing: list[Extent] = []
        for extent, count in wanted:
            held = self._held.get(extent)
            if held is None:
                held = self._idle.pop(extent, None)
                if held is None:
                    missing.append(extent)
                    held = _Held(0)
                else:
                    self._idle_bytes -= extent.stop - extent.start
                self._held[extent] = held
                self.nbytes += extent.stop - extent.start
            held.wanted += count
        if missing:
            indices = self._queue.get([self._shards.request(extent) for extent in missing])
            for extent, index in zip(missing, indices, strict=True):
                self._held[extent].index = index
            self.requests += len(missing)

    def content(self, extent: Extent) -> Any:
        """Waits for an extent.

        Raises:
            S3Exception: It could not be fetched, or not be decoded.
        """
        held = self._held[extent]
        if held.error is not None:
            raise held.error
        if held.index is not None:
            started = time.perf_counter()
            body: Any = ranged(WAIT_FOR_NETWORK, self._queue.take_many, range(held.index, held.index + 1))[0]
            self.waited_s += time.perf_counter() - started
            held.index = None
            self.requests -= 1
            if isinstance(body, S3Exception):
                held.error = body
                raise body
            self.fetched += len(body)
            try:
                held.content = self._shards.content(extent, body)
            except Exception as error:
                held.error = error
                raise
        return held.content

    def done(self, extent: Extent) -> None:
        """One of the samples wanted was made."""
        held = self._held[extent]
        held.wanted -= 1
        if held.wanted > 0:
            return
        del self._held[extent]
        nbytes = extent.stop - extent.start
        self.nbytes -= nbytes
        if held.error is None and self._shards.has_frames(extent.shard) and nbytes <= self._keep_bytes:
            self._idle[extent] = held
            self._idle_bytes += nbytes
            while self._idle_bytes > self._keep_bytes:
                oldest, _ = self._idle.popitem(last=False)
                self._idle_bytes -= oldest.stop - oldest.start
