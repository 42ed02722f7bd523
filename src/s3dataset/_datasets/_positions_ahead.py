"""Iterating over samples of indexed shards, fetching ahead of the consumer."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from s3dataset._datasets._ahead import bytes_ahead
from s3dataset._datasets._extent_store import ExtentStore
from s3dataset._datasets._shard_samples import IndexedShards

if TYPE_CHECKING:
    from s3dataset._client import Client
    from s3dataset._datasets._bad_samples import BadPolicy
    from s3dataset._datasets._counters import Counters
    from s3dataset._datasets._extents import Extent
    from s3dataset._manifest import SamplePlace

__all__ = ["ExtentPlan", "PositionsAhead", "neighbours_together"]

T_co = TypeVar("T_co", covariant=True)

_FIRST_GROUP: Final = 16  # the first sample is not to wait for many others
_MOST_GROUP: Final = 2048
_GROUP_BYTES: Final = 8 << 20
_KEPT_SHARE: Final = 4


class ExtentPlan(Protocol):
    """Says which extents a group of samples needs."""

    def __call__(self, row_places: Sequence[int]) -> "tuple[list[SamplePlace], list[Extent], list[tuple[Extent, int]]]":
        """Plans the next samples, by their places in the epoch's row, in order of delivery.

        Returns:
            Where each lies, the extent of each, and what to ask the store for: extents with numbers of samples.
        """


def neighbours_together(
    shards: IndexedShards[Any], most_bytes: int, take: Callable[[Sequence[int]], Sequence[int]] | None = None
) -> ExtentPlan:
    """Fetches samples that lie close to each other in one group together.

    Args:
        shards: Where the samples are.
        most_bytes: Of an extent of several samples.
        take: Which samples stand at places of the row; default: those of the same number.
    """

    def plan(row_places: Sequence[int]) -> "tuple[list[SamplePlace], list[Extent], list[tuple[Extent, int]]]":
        places, extents, extent_of = shards.plan(row_places if take is None else take(row_places), most_bytes)
        counts = [0] * len(extents)
        for number in extent_of:
            counts[number] += 1
        return places, [extents[number] for number in extent_of], list(zip(extents, counts, strict=True))

    return plan


class PositionsAhead(Generic[T_co]):
    """Iterates over samples by their places in a row, within a window of bytes and of requests under way.

    Belongs to one thread of one process. Leaving the iteration, in whichever way, cancels what is under way.

    Args:
        shards: Where the samples are.
        client: This process's.
        chunks: Places in the epoch's row, in the order of delivery.
        counters: Where time and bytes are counted.
        plan: Which samples stand there, and which extents to fetch for them; default: `neighbours_together`, in order.
        window_bytes: Fetched ahead at most; default: half of the byte budget.
        bad: What becomes of bad samples; default: they raise.
    """

    def __init__(
        self,
        shards: IndexedShards[T_co],
        client: "Client",
        chunks: Iterable[Sequence[int]],
        counters: "Counters",
        plan: ExtentPlan | None = None,
        window_bytes: int | None = None,
        bad: "BadPolicy[T_co] | None" = None,
    ) -> None:
        self._shards = shards
        self._client = client
        self._row_places = (place for chunk in chunks for place in chunk)
        self._counters = counters
        self._plan = plan or neighbours_together(shards, client.part_size)
        self._window_bytes = window_bytes or bytes_ahead(client)
        self._window_requests = 2 * client.max_connections
        self._bad = bad
        self._group = _FIRST_GROUP

    def __iter__(self) -> Iterator[T_co]:
        sample_of, counters, clock = self._shards.sample, self._counters, time.perf_counter
        bad = self._bad
        coming: deque[tuple[int, SamplePlace, Extent]] = deque()
        more = True
        with self._client.queue() as queue:
            store = ExtentStore(self._shards, queue, self._window_bytes // _KEPT_SHARE)
            try:
                while True:
                    while more and self._has_room(store, len(coming)):
                        more = self._send_for(store, coming)
                    if not coming:
                        return
                    # By the group, so that requests go out together.
                    for _ in range(min(len(coming), max(1, self._group // 2))):
                        row_place, place, extent = coming.popleft()
                        begun, waited, fetched = clock(), store.waited_s, store.fetched
                        try:
                            sample = sample_of(place, extent, store.content(extent))
                        except Exception as error:
                            if bad is None:
                                raise
                            store.done(extent)
                            yield from bad.settle(error, self._shards.url(place), place.number, row_place)
                            continue
                        if bad is not None:
                            bad.good()
                        store.done(extent)
                        made = clock()
                        yield sample
                        del sample
                        waited = store.waited_s - waited
                        counters.count(1, store.fetched - fetched, waited, made - begun - waited, clock() - made)
            finally:
                counters.publish()

    def _has_room(self, store: ExtentStore[T_co], coming: int) -> bool:
        if not coming:
            return True
        if store.nbytes >= self._window_bytes or store.requests >= self._window_requests:
            return False
        return coming < 4 * _MOST_GROUP

    def _send_for(self, store: ExtentStore[T_co], coming: "deque[tuple[int, SamplePlace, Extent]]") -> bool:
        row_places = list(islice(self._row_places, self._group))
        if not row_places:
            return False
        places, extents, wanted = self._plan(row_places)
        store.want(wanted)
        coming.extend(zip(row_places, places, extents, strict=True))
        mean = max(1, sum(extent.stop - extent.start for extent, _ in wanted) // len(row_places))
        self._group = max(_FIRST_GROUP, min(_MOST_GROUP, _GROUP_BYTES // mean, 2 * self._group))
        return True
