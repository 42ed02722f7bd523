"""Which samples stand where in an epoch over samples with numbers, and how to fetch them."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from s3dataset._datasets._blocks import SMALL_SAMPLE_BYTES, BlockRuns, BlockSizes, WholeBlocks
from s3dataset._datasets._positions_ahead import ExtentPlan, Neighbours
from s3dataset._datasets._shard_samples import IndexedShards
from s3dataset._order import EpochState, Permutation, SampleOrder, Shuffle, default_streams

if TYPE_CHECKING:
    from s3dataset._manifest import Manifest
    from s3dataset._order import BatchPlan

__all__ = ["EpochOrder", "first_state"]

_HELD_BYTES: Final = 512 << 20
"""What the blocks of a reader may take when the number of streams is chosen. A constant, since it decides the order,
which must not depend on the memory of a machine."""

_LARGE_FRAME_BYTES: Final = 4 << 20


def first_state(
    manifest: "Manifest",
    *,
    epoch: int,
    batch_size: int,
    shuffle: Shuffle | None,
    in_shards: bool,
    ranks: int,
    workers: int,
    repeat: bool = False,
) -> EpochState:
    """The beginning of an epoch.

    Args:
        manifest: The data; with an index where the samples are in shards.
        epoch: The epoch.
        batch_size: Samples of a batch.
        shuffle: How it is shuffled; None: not at all.
        in_shards: Whether samples are in shards; else they are objects.
        ranks: World size, for the number of streams, like `workers`.
        workers: Of each rank.
        repeat: Whether the samples repeat until the steps of the epoch are full.
    """
    num_samples = manifest.num_samples if in_shards else len(manifest)
    block_bytes = None
    streams = 1
    if in_shards and (shuffle is not None or _frame_bytes(manifest) > _LARGE_FRAME_BYTES):
        wanted = shuffle or Shuffle()
        block_bytes = max(wanted.resolved_block_bytes(num_samples, manifest.num_bytes), 1)
        held = max(block_bytes, _frame_bytes(manifest)) if _is_held(manifest) else None
        streams = wanted.streams or default_streams(ranks, workers, held_bytes=held, budget=_HELD_BYTES)
    elif shuffle is not None:
        streams = shuffle.streams or 1
    return EpochState(
        fingerprint=manifest.fingerprint,
        num_samples=num_samples,
        seed=shuffle.seed if shuffle is not None else 0,
        epoch=epoch,
        shuffle=shuffle is not None,
        block_bytes=block_bytes,
        streams=streams,
        batch_size=batch_size,
        repeat=repeat,
    )


def _is_held(manifest: "Manifest") -> bool:
    """Whether blocks are fetched whole, as requests for single samples would be too many or decode too much."""
    if not manifest.num_samples:
        return False
    return manifest.num_bytes // manifest.num_samples <= SMALL_SAMPLE_BYTES or _frame_bytes(manifest) > 0


def _frame_bytes(manifest: "Manifest") -> int:
    """The mean size of the first shard's frames; 0 without frames."""
    if not len(manifest) or not (frames := manifest.num_frames(0)):
        return 0
    return (manifest.size(0) or 0) // frames


class EpochOrder:
    """The samples of an epoch by their places in the row that its batches are cut from.

    Args:
        manifest: The data.
        state: Where the epoch stands.
        in_shards: Whether samples are in shards.
    """

    def __init__(self, manifest: "Manifest", state: EpochState, *, in_shards: bool) -> None:
        self._row = state.row()
        self._state = state
        self._order: SampleOrder | Permutation | None = None
        self._mean_bytes = manifest.num_bytes // max(1, state.num_samples)
        if in_shards and state.block_bytes is not None:
            ends = manifest.shard_ends
            counts = [ends[0], *(ends[i] - ends[i - 1] for i in range(1, len(ends)))] if len(ends) else []
            sizes = [size or 0 for _, _, size, _ in manifest.rows(range(len(manifest)))]
            self._order = SampleOrder(
                counts, sizes, seed=state.seed, epoch=state.epoch, block_bytes=state.block_bytes, shuffle=state.shuffle
            )
        elif state.shuffle:
            self._order = Permutation(state.num_samples, seed=state.seed, epoch=state.epoch)

    def take(self, places: Sequence[int]) -> Sequence[int]:
        """The samples at places of the row."""
        if self._state.segments:
            places = self._row.take(places)
        return places if self._order is None else self._order.take(places)

    def slot(self, place: int) -> int:
        """Which slot of the epoch a place of the row is: the same whatever batch sizes the row was cut by."""
        return self._row.take((place,))[0] if self._state.segments else place

    def sample(self, slot: int) -> int:
        """The sample of a slot."""
        return slot if self._order is None else self._order.take((slot,))[0]

    def block(self, slot: int) -> range | None:
        """The slots of the same block; None where nothing is cut into blocks."""
        return self._order.block(slot).places if isinstance(self._order, SampleOrder) else None

    def fetching(
        self, shards: IndexedShards[object], plan: "BatchPlan | None", readers: int, most_bytes: int, window_bytes: int
    ) -> ExtentPlan:
        """How a reader fetches what it takes.

        Args:
            shards: Where the samples are.
            plan: The epoch's batches; None: the reader takes ascending places of the row.
            readers: Ranks x workers.
            most_bytes: Of a request.
            window_bytes: What may be held and under way.
        """
        order, block_bytes = self._order, self._state.block_bytes
        if isinstance(order, SampleOrder) and len(order) and block_bytes is not None and not self._state.segments:
            at_once = 2 if plan is None else min(-(-plan.streams // readers), order.num_blocks)
            alone = plan is None or plan.streams % readers == 0
            if alone and (shards.has_frames(0) or self._mean_bytes <= SMALL_SAMPLE_BYTES):
                sizes = BlockSizes(shards, len(order), self._mean_bytes, block_bytes, window_bytes, at_once, most_bytes)
                if plan is None:
                    return BlockRuns(shards, order, sizes)
                return WholeBlocks(shards, order, _Share(plan, readers), sizes)
        return Neighbours(shards, most_bytes, self.take)


class _Share:
    """What a reader takes of a block: its streams go through theirs in step, a batch each in turn.

    Args:
        plan: The epoch's batches.
        readers: Ranks x workers, which share the streams.
    """

    def __init__(self, plan: "BatchPlan", readers: int) -> None:
        self._readers = readers
        self._streams = [places for places in map(plan.stream, range(plan.streams)) if places]
        self._starts = [places.start for places in self._streams]

    def of(self, place: int, block: range) -> range:
        """The block's places that are in the same stream as this one."""
        stream = self._streams[bisect_right(self._starts, place) - 1]
        return range(max(block.start, stream.start), min(block.stop, stream.stop))

    def beside(self, place: int, block: range) -> list[range]:
        """What other streams of the same reader take of the block while that one goes through it from this place on."""
        number = bisect_right(self._starts, place) - 1
        gone = place - self._streams[number].start
        last = self.of(place, block).stop - self._streams[number].start
        found = []
        for other in range(max(0, bisect_right(self._starts, block.start) - 1), bisect_left(self._starts, block.stop)):
            stream = self._streams[other]
            places = range(max(block.start, stream.start + gone), min(block.stop, stream.stop))
            is_other = other != number and (other - number) % self._readers == 0
            if is_other and places and places.start - stream.start < last:
                found.append(places)
        return found
