"""Extents on their way and at hand, each fetched once for all samples in it that are wanted."""

from array import array
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Sequence
from copy import copy
from itertools import accumulate
from operator import sub
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from s3dataset._datasets._extents import Extent
from s3dataset._datasets._held import HeldBytes
from s3dataset._datasets._shard_samples import IndexedShards
from s3dataset._datasets._trace import WAIT_FOR_NETWORK, ranged
from s3dataset.errors import S3Exception

if TYPE_CHECKING:
    from s3dataset._client import RequestQueue
    from s3dataset._manifest import SamplePlace

__all__ = ["ExtentStore", "Holding", "Spans"]

T_co = TypeVar("T_co", covariant=True)

_WASTEFUL: Final = 2
"""Content that is so many times what is wanted of it is copied together, and given up."""


class Spans:
    """Where the samples wanted of an extent lie in its content: 24 bytes each.

    Args:
        places: Of the samples, by number.
        spans: Of each [start, stop) in the content.
    """

    def __init__(self, places: Sequence["SamplePlace"], spans: Sequence[tuple[int, int]]) -> None:
        self.numbers = array("Q", [place.number for place in places])
        self.starts = array("Q", [start for start, _ in spans])
        self.stops = array("Q", [stop for _, stop in spans])

    def copied(self, content: Any) -> "tuple[Any, Spans]":
        """The samples alone, end to end, and where they lie then; the content where that is not worth it."""
        wanted = sum(self.stops) - sum(self.starts)
        take = getattr(content, "take", None)
        length = content.num_rows if take is not None else len(content)
        if _WASTEFUL * wanted > length:
            return content, self
        if take is not None:  # a table: rows
            content = take([row for i in range(len(self.starts)) for row in range(self.starts[i], self.stops[i])])
        else:
            pieces = [content[start:stop] for start, stop in zip(self.starts, self.stops, strict=True)]
            content = memoryview(b"".join(pieces))
        ends = array("Q", accumulate(map(sub, self.stops, self.starts), initial=0))
        copied = copy(self)  # who else has these spans fetches the extent anew
        copied.starts, copied.stops = ends[:-1], ends[1:]
        return content, copied

    def of(self, number: int) -> tuple[int, int]:
        """Where a sample lies."""
        i = bisect_left(self.numbers, number)
        return self.starts[i], self.stops[i]


class Holding:
    """An extent of which `left` samples are still to be made.

    Attributes:
        extent: The extent.
        spans: Its samples, where they may be copied out of it.
        cost: Bytes that it will take once it is at hand, as far as is known.
    """

    __slots__ = ("content", "cost", "error", "extent", "index", "landed", "left", "nbytes", "spans")

    def __init__(self, extent: Extent, cost: int, spans: Spans | None) -> None:
        self.extent = extent
        self.cost = cost
        self.spans = spans
        self.index: int | None = None
        self.landed = False
        self.content: Any = None
        self.error: Exception | None = None
        self.left = 0
        self.nbytes = 0


class ExtentStore(Generic[T_co]):
    """Fetches extents and keeps them until the last sample wanted of them was made.

    Those made of frames are kept for a while longer, within `keep_bytes`, as the samples that follow often lie in the
    same frame, whose decoding costs more than its fetching. Belongs to one thread.

    Attributes:
        nbytes: That the extents wanted take, or will.
        requests: How many of them are under way.

    Args:
        shards: Whose extents they are.
        queue: Fetches them.
        keep_bytes: See above.
        limit_bytes: Of what is under way and at hand; what is beyond waits for its turn, and what is needed next comes
            always. None: everything wanted is sent for at once.
    """

    def __init__(
        self, shards: IndexedShards[T_co], queue: "RequestQueue", keep_bytes: int, limit_bytes: int | None = None
    ) -> None:
        self._shards = shards
        self._queue = queue
        self._keep_bytes = keep_bytes
        self._limit_bytes = limit_bytes
        self._process_holds = HeldBytes.of_process()
        self._held: dict[Extent, Holding] = {}
        self._idle: OrderedDict[Extent, Holding] = OrderedDict()
        self._idle_bytes = 0
        self._waiting: deque[Holding] = deque()
        self._under_way: deque[Holding] = deque()  # oldest first; some were taken meanwhile
        self._under_way_bytes = 0
        self._landed_bytes = 0
        self.nbytes = 0
        self.requests = 0

    # -- Wanting ----------------------------------------------------------------------------------------------------

    def want(self, extent: Extent, count: int, cost: int | None = None, spans: Spans | None = None) -> Holding:
        """An extent of which so many samples more will be made; `send` sends for what is not there yet.

        Args:
            extent: What to fetch.
            count: Samples.
            cost: Bytes that it takes at hand; default: its length.
            spans: The samples, where they may be copied out of a longer content.
        """
        holding = self._held.get(extent) if spans is None else None
        if holding is None and (holding := self._idle.pop(extent, None)) is not None:
            self._idle_bytes -= holding.nbytes
            holding.cost = holding.nbytes
            self._hold(holding)
        if holding is None:
            holding = Holding(extent, extent.stop - extent.start if cost is None else cost, spans)
            self._waiting.append(holding)
            self._hold(holding)
        if holding.spans is None:
            self._held[extent] = holding
        holding.left += count
        return holding

    def _hold(self, holding: Holding) -> None:
        self.nbytes += holding.cost
        if self._limit_bytes is not None:
            self._process_holds.add(holding.cost)

    def send(self, *, least: int = 0) -> None:
        """Sends for what waits, as far as the limit allows, and for so many at least."""
        batch: list[Holding] = []
        while self._waiting:
            nbytes = self._waiting[0].extent.stop - self._waiting[0].extent.start
            if (
                self._limit_bytes is not None
                and len(batch) >= least
                and self._under_way_bytes + self._landed_bytes + nbytes > self._limit_bytes
            ):
                break
            self._under_way_bytes += nbytes
            batch.append(self._waiting.popleft())
        if batch:
            indices = self._queue.get([self._shards.request(holding.extent) for holding in batch])
            for holding, index in zip(batch, indices, strict=True):
                holding.index = index
            self._under_way.extend(batch)
            self.requests += len(batch)

    def settle(self) -> None:
        """Takes what arrived, while something waits for its room."""
        while self._waiting and (holding := self._oldest()) is not None:
            if holding.index is None or not self._queue.ready(holding.index):
                break
            self._land(holding)
            self.send()

    def _oldest(self) -> Holding | None:
        return self._under_way[0] if self._under_way else None

    def _forget_landed(self) -> None:
        """Keeps the head of the queue one that is under way, so that the queue is no longer than what is."""
        while self._under_way and self._under_way[0].landed:
            self._under_way.popleft()

    # -- Taking -----------------------------------------------------------------------------------------------------

    def sample(self, place: "SamplePlace", holding: Holding) -> T_co:
        """Waits for an extent, and makes a sample of it.

        Raises:
            Exception: It could not be fetched, not be decoded, or the transform failed.
        """
        while not holding.landed:
            if holding.index is None:
                oldest = self._oldest()
                if oldest is not None:
                    self._land(oldest)
                self.send(least=1)
            else:
                self._land(holding)
                if self._waiting:
                    self.send()
        if holding.error is not None:
            raise holding.error
        if holding.spans is not None:
            return self._shards.sample_at(place, holding.content, *holding.spans.of(place.number))
        return self._shards.sample(place, holding.extent, holding.content)

    def _land(self, holding: Holding) -> None:
        index, extent = holding.index, holding.extent
        if index is None:
            raise RuntimeError("an extent that was not sent for cannot arrive")
        body: Any = ranged(WAIT_FOR_NETWORK, self._queue.take_many, range(index, index + 1))[0]
        holding.index, holding.landed = None, True
        self.requests -= 1
        self._under_way_bytes -= extent.stop - extent.start
        self._forget_landed()
        if isinstance(body, S3Exception):
            holding.error = body
            return
        try:
            content = self._shards.content(extent, body)
            del body
            if holding.spans is not None:
                content, holding.spans = holding.spans.copied(content)
            holding.content = content
        except Exception as error:  # noqa: BLE001 - it is raised for each of its samples
            holding.error = error
            return
        holding.nbytes = getattr(holding.content, "nbytes", None) or len(holding.content)
        self._landed_bytes += holding.nbytes
        if not self._shards.has_frames(extent.shard):
            return
        self.nbytes += holding.nbytes - holding.cost  # only now is known what it decodes to
        if self._limit_bytes is not None:
            self._process_holds.add(holding.nbytes - holding.cost)
        holding.cost = holding.nbytes

    def done(self, holding: Holding) -> None:
        """One of the samples wanted was made."""
        holding.left -= 1
        if holding.left > 0:
            return
        extent = holding.extent
        if self._held.get(extent) is holding:
            del self._held[extent]
        self.nbytes -= holding.cost
        if self._limit_bytes is not None:
            self._process_holds.add(-holding.cost)
        keeps = holding.error is None and holding.spans is None and self._shards.has_frames(extent.shard)
        if not keeps or holding.nbytes > self._keep_bytes:
            self._let_go(holding)
            return
        self._idle[extent] = holding
        self._idle_bytes += holding.nbytes
        while self._idle_bytes > self._keep_bytes:
            _, oldest = self._idle.popitem(last=False)
            self._idle_bytes -= oldest.nbytes
            self._let_go(oldest)

    def _let_go(self, holding: Holding) -> None:
        """Frees what it holds: it may stand in the queue yet, behind one that is under way."""
        self._landed_bytes -= holding.nbytes
        holding.content = None

    def close(self) -> None:
        """Nothing is held any more."""
        if self._limit_bytes is not None:
            self._process_holds.add(-self.nbytes)
        self.nbytes = 0
