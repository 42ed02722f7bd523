"""Fetching blocks of a shuffled order whole, where samples are small."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from s3dataset._datasets._extents import Extent
from s3dataset._datasets._shard_samples import IndexedShards

if TYPE_CHECKING:
    from s3dataset._manifest import SamplePlace
    from s3dataset._order import SampleOrder

__all__ = ["SMALL_SAMPLE_BYTES", "WholeBlocks"]

SMALL_SAMPLE_BYTES: Final = 32 << 10
"""Samples up to this mean size are fetched by the block: a request for each would take more CPU than its bytes, and 256
connections at 25 ms would not reach 330 MB/s."""


class _Share:
    """A reader's share of a block: extents sorted by where they begin."""

    __slots__ = ("extents", "left", "starts")

    def __init__(self, extents: list[Extent], left: int) -> None:
        self.extents = extents
        self.starts = [(extent.shard, extent.start) for extent in extents]
        self.left = left


class WholeBlocks:
    """An `ExtentPlan` that asks for a reader's whole share of a block when its first sample is due.

    All samples of a block come soon after one another, in whatever order: so its bytes are fetched once, in large
    pieces, and kept until the last of them was made. Memory: a block for each stream that the reader has, and the next.

    Args:
        shards: Where the samples are.
        order: The epoch's row.
        share: Which of a block's places this reader takes, given one of them.
        most_bytes: Of an extent.
    """

    def __init__(
        self,
        shards: IndexedShards[Any],
        order: "SampleOrder",
        share: Callable[[int, range], range],
        most_bytes: int,
    ) -> None:
        self._shards = shards
        self._order = order
        self._share_of = share
        self._most_bytes = most_bytes
        self._shares: dict[range, _Share] = {}

    def __call__(self, row_places: Sequence[int]) -> "tuple[list[SamplePlace], list[Extent], list[tuple[Extent, int]]]":
        """See `ExtentPlan`."""
        order = self._order
        places = self._shards.places(order.take(row_places))
        wanted: list[tuple[Extent, int]] = []
        extents: list[Extent] = []
        mine = range(0)
        share = _Share([], 0)
        for row_place, place in zip(row_places, places, strict=True):
            if row_place not in mine or not share.left:
                mine = self._share_of(row_place, order.block(row_place).places)
                known = self._shares.get(mine)
                if known is None:
                    known = self._shares[mine] = self._ask_for(mine, wanted)
                share = known
            if self._shards.has_frames(place.shard):
                extents.append(Extent(place.shard, place.start, place.stop))
            else:
                extents.append(share.extents[bisect_right(share.starts, (place.shard, place.start)) - 1])
            share.left -= 1
            if not share.left:
                del self._shares[mine]
        return places, extents, wanted

    def _ask_for(self, mine: range, wanted: list[tuple[Extent, int]]) -> _Share:
        _, extents, extent_of = self._shards.plan(sorted(self._order.take(mine)), self._most_bytes)
        counts = [0] * len(extents)
        for number in extent_of:
            counts[number] += 1
        wanted.extend(zip(extents, counts, strict=True))
        return _Share(extents, len(mine))
