"""Iterating over samples of indexed shards, fetching ahead of the consumer."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeAlias, TypeVar, cast

from s3dataset._datasets._ahead import bytes_ahead
from s3dataset._datasets._bad_samples import SKIPPED
from s3dataset._datasets._extent_store import ExtentStore, Holding
from s3dataset._datasets._shard_samples import IndexedShards

if TYPE_CHECKING:
    from s3dataset._client import Client
    from s3dataset._datasets._bad_samples import BadPolicy
    from s3dataset._datasets._counters import Counters
    from s3dataset._manifest import SamplePlace

__all__ = ["ExtentPlan", "Neighbours", "Planned", "PositionsAhead", "RowPlaces"]

T_co = TypeVar("T_co", covariant=True)

_FIRST_GROUP: Final = 16  # the first sample is not to wait for many others
_MOST_GROUP: Final = 2048
_GROUP_BYTES: Final = 8 << 20
_KEPT_SHARE: Final = 4


Planned: TypeAlias = "tuple[int, SamplePlace, Holding]"
"""A sample to come: its place in the epoch's row, where it lies, and what it will be made of."""


class RowPlaces:
    """Places in the epoch's row that are not planned yet, in the order of delivery.

    Args:
        chunks: The places, some at a time.
    """

    def __init__(self, chunks: Iterable[Sequence[int]]) -> None:
        self._places = (place for chunk in chunks for place in chunk)
        self._returned: deque[int] = deque()

    def take(self, count: int) -> list[int]:
        """The next ones, fewer at the end."""
        taken = [self._returned.popleft() for _ in range(min(count, len(self._returned)))]
        taken += islice(self._places, count - len(taken))
        return taken

    def take_below(self, stop: int, most: int) -> list[int]:
        """The next ones as long as they ascend, below `stop`."""
        taken: list[int] = []
        while len(taken) < most and (one := self.take(1)):
            if one[0] >= stop or (taken and one[0] <= taken[-1]):
                self.give_back(one)
                break
            taken += one
        return taken

    def give_back(self, places: Sequence[int]) -> None:
        """These are the next ones again."""
        self._returned.extendleft(reversed(places))


class ExtentPlan(Protocol):
    """Says which extents the next samples need."""

    @property
    def limit_bytes(self) -> int | None:
        """Of what is under way and at hand, where it minds that itself."""

    def __call__(self, coming: RowPlaces, count: int, store: ExtentStore[Any], *, busy: bool) -> list[Planned]:
        """Plans the next samples, about `count`, and asks the store for what they need.

        Returns:
            In order of delivery. Where not `busy`, one at least, unless there are none; else none if there is no room.
        """


class Neighbours:
    """An `ExtentPlan` that fetches samples that lie close to each other in one group together.

    Args:
        shards: Where the samples are.
        most_bytes: Of an extent of several samples.
        take: Which samples stand at places of the row; default: those of the same number.
    """

    limit_bytes: int | None = None

    def __init__(
        self, shards: IndexedShards[Any], most_bytes: int, take: Callable[[Sequence[int]], Sequence[int]] | None = None
    ) -> None:
        self._shards = shards
        self._most_bytes = most_bytes
        self._take = take

    def __call__(self, coming: RowPlaces, count: int, store: ExtentStore[Any], *, busy: bool) -> list[Planned]:  # noqa: ARG002
        """See `ExtentPlan`."""
        row_places = coming.take(count)
        positions = row_places if self._take is None else self._take(row_places)
        places, extents, extent_of = self._shards.plan(positions, self._most_bytes)
        counts = [0] * len(extents)
        for number in extent_of:
            counts[number] += 1
        holdings = [store.want(extent, count) for extent, count in zip(extents, counts, strict=True)]
        store.send()
        return list(zip(row_places, places, map(holdings.__getitem__, extent_of), strict=True))


class PositionsAhead(Generic[T_co]):
    """Iterates over samples by their places in a row, within a window of bytes and of requests under way.

    Belongs to one thread of one process. Leaving the iteration, in whichever way, cancels what is under way.

    Args:
        shards: Where the samples are.
        client: This process's.
        chunks: Places in the epoch's row, in the order of delivery.
        counters: Where time and bytes are counted.
        plan: Which samples stand there, and which extents to fetch for them; default: `Neighbours`, in order.
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
        self._row_places = RowPlaces(chunks)
        self._counters = counters
        self._plan = plan or Neighbours(shards, client.part_size)
        self._window_bytes = window_bytes or bytes_ahead(client)
        self._window_requests = 2 * client.max_connections
        self._bad = bad
        self._group = _FIRST_GROUP

    def begun(self) -> Iterator[T_co]:
        """Iterates, and has sent for the first samples before the first is asked for."""
        samples = self._samples(begins=True)
        next(samples)
        return samples

    def __iter__(self) -> Iterator[T_co]:
        return self._samples(begins=False)

    def _samples(self, *, begins: bool) -> Iterator[T_co]:
        counters, bad = self._counters, self._bad
        coming: deque[Planned] = deque()
        with self._client.queue() as queue:
            store = ExtentStore(self._shards, queue, self._window_bytes // _KEPT_SHARE, self._plan.limit_bytes)
            try:
                if begins:
                    self._send_for(store, coming)
                    yield cast("T_co", None)
                asked = counters.begun()
                while True:
                    while self._has_room(store, len(coming)) and self._send_for(store, coming):
                        pass
                    if not coming:
                        return
                    store.settle()
                    # By the group, so that requests go out together.
                    for _ in range(min(len(coming), max(1, self._group // 2))):
                        row_place, place, holding = coming.popleft()
                        try:
                            sample = store.sample(place, holding)
                        except Exception as error:
                            if bad is None:
                                raise
                            store.done(holding)
                            for other in bad.settle(error, self._shards.url(place), place.number, row_place):
                                counters.made(asked, int(other is not SKIPPED))
                                yield other
                                asked = counters.asked()
                            continue
                        if bad is not None:
                            bad.good()
                        store.done(holding)
                        counters.made(asked)
                        yield sample
                        del sample
                        asked = counters.asked()
            finally:
                store.close()
                counters.pause()
                counters.publish()

    def _has_room(self, store: ExtentStore[T_co], coming: int) -> bool:
        if not coming:
            return True
        if self._plan.limit_bytes is None and store.nbytes >= self._window_bytes:
            return False
        if store.requests >= self._window_requests:
            return False
        return coming < 4 * _MOST_GROUP

    def _send_for(self, store: ExtentStore[T_co], coming: "deque[Planned]") -> bool:
        before = store.nbytes
        planned = self._plan(self._row_places, self._group, store, busy=bool(coming))
        if not planned:
            return False
        coming.extend(planned)
        mean = max(1, (store.nbytes - before) // len(planned))
        most_bytes = min(_GROUP_BYTES, max(1, self._window_bytes // _KEPT_SHARE))
        self._group = max(_FIRST_GROUP, min(_MOST_GROUP, most_bytes // mean, 2 * self._group))
        return True
