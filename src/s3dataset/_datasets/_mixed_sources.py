"""What a mixture takes samples from: datasets whose samples have numbers, and shards read from their beginnings."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby, islice
from typing import Any, Final, Protocol, cast

import torch.utils.data

from s3dataset._datasets._ahead import FetchAhead, bytes_ahead
from s3dataset._datasets._base import ROWS_AT_ONCE, S3Dataset
from s3dataset._datasets._epoch_order import EpochOrder, first_state
from s3dataset._datasets._epochs import Turn
from s3dataset._datasets._iterable import S3IterableDataset
from s3dataset._datasets._map import S3MapDataset
from s3dataset._datasets._position import Part
from s3dataset._datasets._positions_ahead import PositionsAhead
from s3dataset._datasets._shard_samples import ShardSampleMaker
from s3dataset._datasets._unindexed import UnindexedEpoch
from s3dataset._order import Shuffle, reader_streams
from s3dataset.errors import ManifestMismatchError

__all__ = ["Numbered", "Source", "Streamed", "checked_source", "iterable_twin", "source_of"]

_LAP: Final = 1 << 32  # beyond every epoch that can be named, so that no lap repeats the order of an epoch
_OBJECTS_AT_ONCE: Final = 64


class Source(Protocol):
    """One of a mixture's datasets.

    Attributes:
        length: Samples of a lap; None: nobody knows.
        data: What a state names it by: fingerprint, and number of samples.
    """

    @property
    def length(self) -> int | None: ...
    @property
    def data(self) -> list[Any]: ...


def checked_source(dataset: object) -> S3Dataset[Any]:
    """Refuses what is no source.

    Raises:
        TypeError: It is none of s3dataset's datasets.
    """
    if not isinstance(dataset, S3IterableDataset | S3MapDataset):
        raise TypeError(
            f"MixedDataset takes S3IterableDatasets and S3MapDatasets, got a {type(dataset).__name__}"
            + (": mix its source, and put the stages behind" if type(dataset).__name__ == "StagedDataset" else "")
        )
    return dataset


def iterable_twin(dataset: S3Dataset[Any]) -> S3IterableDataset[Any]:
    """An iterable dataset over the same listing, which counts epochs and knows of ranks where there is no other."""
    if isinstance(dataset, S3IterableDataset):
        return dataset
    ref, maker = dataset._client_ref, dataset._maker  # noqa: SLF001 - of the same package, like all that follow
    twin: S3IterableDataset[Any] = S3IterableDataset._make(
        dataset._listing.origin,  # noqa: SLF001
        maker.transform,
        maker.reader_constructor,
        (ref.region, ref.endpoint, ref.config),
        dataset._format,  # noqa: SLF001
        True,
        True,
        None,
        True,
    )
    twin._listing = dataset._listing  # noqa: SLF001
    return twin


def source_of(dataset: S3Dataset[Any], seed: int, laps_without_end: bool) -> "Numbered | Streamed":
    """What stands for a dataset.

    Args:
        dataset: The dataset.
        seed: Of the epochs of a map dataset.
        laps_without_end: Whether shards without an index begin again when they end.

    Raises:
        ValueError: The dataset is empty.
    """
    if dataset._reads_unindexed is not None and isinstance(dataset, S3IterableDataset):  # noqa: SLF001
        return Streamed(dataset, laps_without_end)
    return Numbered(dataset, seed)


class Numbered:
    """Samples with numbers, of which every reader takes those that are its own in the mixture.

    Args:
        dataset: Of objects, or of indexed shards.
        seed: Of the epochs of a map dataset, which are shuffled.
    """

    def __init__(self, dataset: S3Dataset[Any], seed: int) -> None:
        self._dataset = dataset
        in_shards = dataset._shards is not None  # noqa: SLF001
        self.length: int = dataset.manifest.num_samples if in_shards else len(dataset.manifest)
        if not self.length:
            raise ValueError(f"{dataset._listing.origin} is empty, so it has nothing to give")  # noqa: SLF001
        self._in_shards = in_shards
        self._shuffle = dataset._shuffle if isinstance(dataset, S3IterableDataset) else Shuffle(seed=seed)  # noqa: SLF001

    @property
    def data(self) -> list[Any]:
        """See `Source`."""
        return [self._dataset.manifest.fingerprint, self.length]

    def samples(self, epoch: int, counts: Iterator[int], share: int) -> Iterator[Any]:
        """The samples of a reader, by how many the dataset gave before each; SKIPPED for one that was left out.

        When the dataset was gone through it begins again in another order, which is fetched ahead too.

        Args:
            epoch: The epoch.
            counts: How many samples all readers took before.
            share: How many sources share the byte budget.
        """
        laps = groupby(counts, lambda count: count // self.length)
        begun: deque[_Lap] = deque()

        def begin() -> None:
            following = next(laps, None)
            if following is not None:
                lap, places = following
                begun.append(_Lap(self._lap(epoch + lap * _LAP, share), (count % self.length for count in places)))

        begin()
        while begun:
            lap = begun[0]
            for sample in lap.samples:
                yield sample
                if lap.is_planned and len(begun) == 1:
                    begin()
            begun.popleft()
            if not begun:
                begin()

    def _lap(self, epoch: int, share: int) -> "Callable[[Iterator[int]], Iterator[Any]]":
        dataset = self._dataset
        if isinstance(dataset, S3MapDataset) and dataset._has_own_samples:  # noqa: SLF001
            order = self._order(epoch, 0)[0]
            return lambda places: (dataset[order.take((place,))[0]] for place in places)
        client = dataset._maker.client  # noqa: SLF001
        window = max(1, bytes_ahead(client) // share)
        order, seed = self._order(epoch, window)
        bad = dataset._bad_policy(seed=seed, epoch=epoch, order=order)  # noqa: SLF001
        if bad is not None:
            bad.marks_skipped = True
        shards = dataset._shards_drawing(seed, epoch)  # noqa: SLF001

        def samples(places: Iterator[int]) -> Iterator[Any]:
            chunks = iter(lambda: list(islice(places, ROWS_AT_ONCE if shards is not None else _OBJECTS_AT_ONCE)), [])
            if shards is not None:
                fetch = order.fetching(cast(Any, shards), None, 1, client.part_size, window)
                ahead = PositionsAhead(shards, client, chunks, dataset._count, fetch, window, bad)  # noqa: SLF001
                return ahead.begun()
            return iter(
                FetchAhead(
                    cast(Any, dataset._maker_drawing(seed, epoch)),  # noqa: SLF001
                    dataset._row_chunks(map(order.take, chunks)),  # noqa: SLF001
                    dataset._count,  # noqa: SLF001
                    begin_at_once=torch.utils.data.get_worker_info() is not None,
                    bad=bad,
                    position_of=dataset._position_of,  # noqa: SLF001
                )
            )

        return samples

    def _order(self, epoch: int, window: int) -> tuple[EpochOrder, int]:  # noqa: ARG002
        state = first_state(
            self._dataset.manifest,
            epoch=epoch,
            batch_size=1,
            shuffle=self._shuffle,
            in_shards=self._in_shards,
            ranks=1,
            workers=1,
        )
        return EpochOrder(self._dataset.manifest, state, in_shards=self._in_shards), state.seed


class _Lap:
    """One time through a dataset; says when all of its places are planned, so that the next may begin to be fetched."""

    def __init__(self, samples: Callable[[Iterator[int]], Iterator[Any]], places: Iterator[int]) -> None:
        self.is_planned = False
        self.samples = samples(self._watched(places))

    def _watched(self, places: Iterator[int]) -> Iterator[int]:
        yield from places
        self.is_planned = True


class Streamed:
    """Shards without an index, of which each reader has its own.

    Args:
        dataset: The dataset.
        laps_without_end: Whether they begin again when they end.
    """

    length: int | None = None

    def __init__(self, dataset: S3IterableDataset[Any], laps_without_end: bool) -> None:
        self.dataset = dataset
        self._repeat = laps_without_end
        self._epoch: UnindexedEpoch[Any] | None = None

    @property
    def data(self) -> list[Any]:
        """See `Source`."""
        return [self.dataset.manifest.fingerprint, None]

    def first_state(self, part: Part, epoch: int, num_workers: int) -> dict[str, Any]:
        """Where the streams of a rank stand at the beginning of an epoch."""
        return self.dataset._shards_state(part, Turn(epoch, None), num_workers).to_dict()  # noqa: SLF001

    def begin(self, part: Part, state: Mapping[str, Any]) -> Iterator[Any]:
        """The samples of a reader.

        Raises:
            ValueError: There is nothing for this reader, or the state does not say where it stands.
            ManifestMismatchError: It belongs to other data.
        """
        dataset, reader = self.dataset, part.reader
        kind = dataset._reads_unindexed  # noqa: SLF001
        if kind is None:
            raise ManifestMismatchError(
                f"the state is of shards without an index, and {dataset._listing.origin} has one now"  # noqa: SLF001
            )
        if dataset._on_error == "replace":  # noqa: SLF001
            raise ValueError(
                f'on_error="replace" needs to know the other samples of the shards of {dataset._listing.origin}: make '  # noqa: SLF001
                'an index with `s3dataset index`, or use "skip"'
            )
        begun = dataset._shards_state(part, Turn(int(state["epoch"]), dict(state)))  # noqa: SLF001
        streams = reader_streams(
            begun.streams,
            rank=reader.rank,
            world_size=reader.world_size,
            worker=reader.worker,
            num_workers=reader.num_workers,
        )
        if not streams or streams.start >= begun.num_shards:
            raise ValueError(
                f"{dataset._listing.origin} has {begun.num_shards} shards without an index in {begun.streams} streams, "  # noqa: SLF001
                f"and worker {reader.worker} of {reader.num_workers} on rank {reader.rank} of {reader.world_size} has "
                "none of them to mix in: have at most so many readers (Shuffle(streams=) makes more streams), or make "
                "an index with `s3dataset index`"
            )
        self._epoch = UnindexedEpoch(
            ShardSampleMaker(dataset._client_ref, kind, dataset._maker.transform),  # noqa: SLF001
            dataset.manifest,
            begun,
            streams,
            1,
            dataset._count,  # noqa: SLF001
            repeat=self._repeat,
            bad=dataset._bad_policy(),  # noqa: SLF001
            reader_constructor=dataset._maker.reader_constructor,  # noqa: SLF001
        )
        return iter(self._epoch)

    @property
    def is_begun(self) -> bool:
        """Whether this process reads it."""
        return self._epoch is not None

    def standing(self) -> dict[str, Any]:
        """Where this reader's streams stand."""
        if self._epoch is None:
            raise RuntimeError("the source was not begun")
        return self._epoch.state().to_dict()

    @property
    def was_gone_through(self) -> bool:
        """Whether this reader has taken all of its shards at least once."""
        return self._epoch is not None and all(part.lap > 0 for part in self._epoch.state().parts)
