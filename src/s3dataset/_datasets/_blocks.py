"""Fetching blocks of a shuffled order whole, or in pieces where memory is short, where samples are small."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from s3dataset._datasets._extent_store import ExtentStore, Holding, Spans
from s3dataset._datasets._extents import GAP_BYTES, Extent, extents_of
from s3dataset._datasets._held import HeldBytes
from s3dataset._datasets._shard_samples import IndexedShards

if TYPE_CHECKING:
    from s3dataset._datasets._positions_ahead import Planned, RowPlaces
    from s3dataset._manifest import SamplePlace
    from s3dataset._order import SampleOrder

__all__ = ["SMALL_SAMPLE_BYTES", "BlockRuns", "BlockSizes", "WholeBlocks"]

SMALL_SAMPLE_BYTES: Final = 32 << 10
"""Samples up to this mean size are fetched by the block: a request for each would take more CPU than its bytes, and 256
connections at 25 ms would not reach 330 MB/s."""

_LEAST_SHARE: Final = 8
_FEW_STREAMS: Final = 8
"""With fewer the next block is fetched ahead beside those in hand; with more these end one after the other."""

_LEAST_EXTENT_BYTES: Final = 64 << 10
_FRAMES_LOOKED_AT: Final = 64
_WASTED_TIMES: Final = 8
_LEAST_GAP_BYTES: Final = 8 << 10
"""In pieces between two samples up to 8 times their size is fetched along, and so much in any case: less would be a
request for each of tiny ones, more would be the whole block many times over."""


class BlockSizes:
    """What blocks and samples take in memory, and how much of a block one piece may be.

    Args:
        shards: Where the samples are.
        sample_bytes: The mean of what a sample takes of its shard.
        block_bytes: Of a block in its shards.
        limit_bytes: That a reader may hold and have under way.
        at_once: Blocks that it takes from at the same time.
        most_bytes: Of a request.
    """

    def __init__(
        self,
        shards: IndexedShards[Any],
        num_samples: int,
        sample_bytes: int,
        block_bytes: int,
        limit_bytes: int,
        at_once: int,
        most_bytes: int,
    ) -> None:
        growth = 1.0
        if shards.has_frames(0):
            some = shards.places(range(min(_FRAMES_LOOKED_AT, num_samples)))
            decoded = sum(max(place.end - place.offset, sample_bytes) for place in some) / max(1, len(some))
            growth = max(1.0, decoded / max(1, sample_bytes))
        self.sample_bytes = max(1, int(sample_bytes * growth))
        self.limit_bytes = limit_bytes
        self._at_once = at_once + (at_once < _FEW_STREAMS)
        self.is_whole = min(self._at_once * block_bytes, num_samples * sample_bytes) * growth <= limit_bytes
        self.gap_bytes = GAP_BYTES
        if not self.is_whole:
            self.gap_bytes = min(GAP_BYTES, max(_LEAST_GAP_BYTES, _WASTED_TIMES * sample_bytes))
        # In pieces a block is fetched several times over, and what is not wanted needs room too until it is let go of.
        self.most_bytes = most_bytes if self.is_whole else max(_LEAST_EXTENT_BYTES, min(most_bytes, limit_bytes // 16))

    def room(self) -> int:
        """Bytes that may be held beside what this process holds already."""
        return self.limit_bytes - HeldBytes.of_process().total()

    def piece_bytes(self, held: int) -> int:
        """Of a piece that is begun now, by a reader that holds so much itself."""
        limit = self.limit_bytes if self.is_whole else 3 * self.limit_bytes // 4
        limit = max(limit - (HeldBytes.of_process().total() - held), limit // _LEAST_SHARE)
        return limit // self._at_once


class _Extents:
    """Extents of samples of a block, each fetched once for all who take of it meanwhile.

    Memory: 24 bytes a sample where these are copied out of longer extents; else a little for each extent.

    Args:
        shards: Where the samples are.
        sizes: What fits.
        places: The samples'.
        block: The block's places in the row, where several streams take them.
        covers: Theirs, then.
    """

    def __init__(
        self,
        shards: IndexedShards[Any],
        sizes: BlockSizes,
        places: Iterable["SamplePlace"],
        block: range = range(0),
        covers: Sequence[range] = (),
    ) -> None:
        places = sorted(places)
        self.block = block
        self.users = 0
        self._covers = covers
        framed = shards.has_frames(places[0].shard)
        self._extents, extent_of = extents_of(places, shards.has_frames, sizes.most_bytes, sizes.gap_bytes)
        self._starts = None if framed else [(extent.shard, extent.start) for extent in self._extents]
        self._numbers = {extent: number for number, extent in enumerate(self._extents)} if framed else {}
        self._holdings: list[Holding | None] = [None] * len(self._extents)
        self._costs: list[int] = []
        self._spans: list[Spans | None] = []
        members: list[list[SamplePlace]] = [[] for _ in self._extents]
        for place, number in zip(places, extent_of, strict=True):
            members[number].append(place)
        for extent, mine in zip(self._extents, members, strict=True):
            wanted = sum(cost_of(place, sizes, framed=framed) for place in mine)
            spans = None
            if 2 * wanted <= extent.stop - extent.start or (framed and not sizes.is_whole):
                spans = Spans(mine, [shards.span(place, extent) for place in mine])
            self._spans.append(spans)
            self._costs.append(wanted if framed or spans is not None else extent.stop - extent.start)

    def cover(self, places: range) -> bool:
        """Whether these places of the row are among them."""
        return any(covered.start <= places.start and places.stop <= covered.stop for covered in self._covers)

    def number(self, place: "SamplePlace") -> int:
        """In which extent a sample lies."""
        if self._starts is None:
            return self._numbers[Extent(place.shard, place.start, place.stop)]
        return bisect_right(self._starts, (place.shard, place.start)) - 1

    def hold(self, places: Iterable["SamplePlace"], store: ExtentStore[Any]) -> dict[int, Holding]:
        """Asks for these samples -> their extents, by number."""
        held = {}
        for number, count in sorted(Counter(map(self.number, places)).items()):
            holding = self._holdings[number]
            if holding is not None and holding.left:
                holding.left += count
            else:
                holding = store.want(self._extents[number], count, self._costs[number], self._spans[number])
                self._holdings[number] = holding
            held[number] = holding
        return held


def cost_of(place: "SamplePlace", sizes: BlockSizes, *, framed: bool) -> int:
    """Bytes of a sample at hand."""
    return max(place.end - place.offset, sizes.sample_bytes) if framed else place.stop - place.start


class _Piece:
    """Extents of samples of a block, and where each sample is in them.

    Attributes:
        places: Of its samples in the row.
        left: So many of them, the last ones, were not planned yet.
        extents: What it takes them from, alone or beside others; None: nothing.
    """

    __slots__ = ("extents", "holdings", "left", "places")

    def __init__(
        self, places: range, count: int, extents: _Extents | None = None, holdings: dict[int, Holding] | None = None
    ) -> None:
        self.places = places
        self.left = count
        self.extents = extents
        self.holdings = holdings or {}

    def holding(self, place: "SamplePlace") -> Holding:
        if self.extents is None:
            raise RuntimeError("a piece of no samples has no extents")
        return self.holdings[self.extents.number(place)]


class _Blocks:
    """What both ways to go through blocks have in common."""

    def __init__(self, shards: IndexedShards[Any], order: "SampleOrder", sizes: BlockSizes) -> None:
        self._shards = shards
        self._order = order
        self._sizes = sizes

    @property
    def limit_bytes(self) -> int:
        """See `ExtentPlan`."""
        return self._sizes.limit_bytes

    def _fits(self, count: int, limit: int) -> bool:
        return min(limit, count * self._sizes.sample_bytes) <= self._sizes.room()

    def _most(self, count: int, limit: int) -> int:
        """How many of so many samples are looked at for a piece, which are more than will be taken."""
        return count if self._sizes.is_whole else min(count, 5 * limit // (4 * self._sizes.sample_bytes) + 1)

    def _begin(
        self, row_places: Sequence[int], limit: int, store: ExtentStore[Any], extents: _Extents | None = None
    ) -> _Piece:
        """Asks for the samples at as many of these places as fit; of `extents`, where others take of them too."""
        shards = self._shards
        places = shards.places(self._order.take(row_places))
        framed = shards.has_frames(places[0].shard)
        count = len(places)
        if not self._sizes.is_whole or count * self._sizes.sample_bytes > limit:
            total = 0
            for number, place in enumerate(places):
                total += cost_of(place, self._sizes, framed=framed)
                if total > limit and number:
                    count = number
                    break
        places = places[:count]
        extents = extents or _Extents(shards, self._sizes, places)
        mine = range(row_places[0], row_places[count - 1] + 1)
        return _Piece(mine, count, extents, extents.hold(places, store))


class Share(Protocol):
    """Says what a reader takes of a block."""

    def of(self, place: int, block: range) -> range:
        """The block's places that are in the same stream as this one."""

    def beside(self, place: int, block: range) -> list[range]:
        """What other streams of the same reader take of the block while that one goes through it from this place on."""


class WholeBlocks(_Blocks):
    """An `ExtentPlan` that asks for a reader's whole share of a block when its first sample is due.

    All samples of a block come soon after one another, in whatever order: so its bytes are fetched once, in large
    pieces, and kept until the last of them was made. Streams of one reader that take of a block at the same time, as
    they do where blocks are fewer than streams, share them. Where the blocks of all streams of a reader do not fit into
    its memory, the samples that come first are asked for first, as many as fit, and the others when those were made.
    The order is the same.

    Args:
        shards: Where the samples are.
        order: The epoch's row.
        share: Which of a block's places this reader takes.
        sizes: What fits.
    """

    def __init__(
        self,
        shards: IndexedShards[Any],
        order: "SampleOrder",
        share: Share,
        sizes: BlockSizes,
    ) -> None:
        super().__init__(shards, order, sizes)
        self._share = share
        self._pieces: dict[range, _Piece] = {}
        self._shared: dict[range, _Extents] = {}  # by the block

    def __call__(self, coming: "RowPlaces", count: int, store: ExtentStore[Any], *, busy: bool) -> "list[Planned]":
        """See `ExtentPlan`."""
        row_places = coming.take(count)
        planned: list[Planned] = []
        mine = range(0)
        piece = _Piece(mine, 0)
        for row_place, place in zip(row_places, self._shards.places(self._order.take(row_places)), strict=True):
            if not piece.left or row_place not in piece.places:
                block = self._order.block(row_place).places
                mine = self._share.of(row_place, block)
                known = self._pieces.get(mine)
                if known is None:
                    left = range(row_place, mine.stop)
                    limit = self._sizes.piece_bytes(store.nbytes)
                    if (busy or planned) and not self._fits(len(left), limit):
                        coming.give_back(row_places[len(planned) :])
                        break
                    extents = self._together(left, block) if self._sizes.is_whole else None
                    most = self._most(len(left), limit)
                    known = self._pieces[mine] = self._begin(left[:most], limit, store, extents)
                piece = known
            if row_place < piece.places.stop - piece.left:
                planned.append((row_place, place, self._again(place, store)))
                continue
            planned.append((row_place, place, piece.holding(place)))
            piece.left -= 1
            if not piece.left:
                del self._pieces[mine]
                self._leave(piece.extents)
        store.send()
        return planned

    def _together(self, places: range, block: range) -> _Extents | None:
        """What the streams that take of a block at the same time take of it; None where this one is alone."""
        extents = self._shared.get(block)
        if extents is None or not extents.cover(places):
            beside = self._share.beside(places.start, block)
            if not beside:
                return None
            covers = [places, *beside]
            samples = self._order.take([place for covered in covers for place in covered])
            extents = _Extents(self._shards, self._sizes, self._shards.places(samples), block, covers)
            self._shared[block] = extents
        extents.users += 1
        return extents

    def _leave(self, extents: _Extents | None) -> None:
        if extents is None:
            return
        extents.users -= 1
        if not extents.users and self._shared.get(extents.block) is extents:
            del self._shared[extents.block]

    def _again(self, place: "SamplePlace", store: ExtentStore[Any]) -> Holding:
        """A sample that its piece gave already.

        A row that repeats fills its last batch with its first samples, and then begins with them.
        """
        cost = cost_of(place, self._sizes, framed=self._shards.has_frames(place.shard))
        return store.want(Extent(place.shard, place.start, place.stop), 1, cost)


class BlockRuns(_Blocks):
    """An `ExtentPlan` for a reader whose samples of a block follow one another: what it takes of one comes together."""

    def __call__(self, coming: "RowPlaces", count: int, store: ExtentStore[Any], *, busy: bool) -> "list[Planned]":  # noqa: ARG002
        """See `ExtentPlan`."""
        limit = self._sizes.piece_bytes(store.nbytes)
        first = coming.take(1)
        if not first:
            return []
        block = self._order.block(first[0]).places
        row_places = first + coming.take_below(block.stop, max(0, self._most(len(block), limit) - 1))
        if busy and not self._fits(len(row_places), limit):
            coming.give_back(row_places)
            return []
        piece = self._begin(row_places, limit, store)
        coming.give_back(row_places[piece.left :])
        row_places = row_places[: piece.left]
        places = self._shards.places(self._order.take(row_places))
        store.send()
        return [(row, place, piece.holding(place)) for row, place in zip(row_places, places, strict=True)]
