"""S3MapDataset: random access to objects, and to samples in shards."""

import operator
import os
from collections.abc import Iterator, Sequence
from typing import Any, Self, SupportsIndex, TypeVar, cast, overload

from torch.utils.data import Dataset

from s3dataset._datasets._ahead import FetchAhead
from s3dataset._datasets._bad_samples import OnError
from s3dataset._datasets._base import S3Dataset, client_ref
from s3dataset._datasets._batch_fetch import BatchFetcher
from s3dataset._datasets._map_constructors import MapConstructors
from s3dataset._datasets._origin import Origin
from s3dataset._datasets._positions_ahead import PositionsAhead
from s3dataset._datasets._work import ObjectWork, ShardWork, Work
from s3dataset.formats import Format

__all__ = ["S3MapDataset"]

T_co = TypeVar("T_co", covariant=True)


class S3MapDataset(MapConstructors[T_co], S3Dataset[T_co], Dataset[T_co]):
    """Objects in S3 as a dataset with random access: `dataset[i]` is `transform(S3Reader)` of the i-th.

    With `format` the objects are shards, and `dataset[i]` is `transform(Sample)` of the i-th sample in them, for which
    only its bytes are fetched; samples that lie close together in a batch come together. That takes an index of the
    shards: made by `s3dataset index` beside the data, or by `Manifest.index`.

    Make one with `from_prefix`, `from_objects` or `from_manifest`. Syntax is checked there; the network is used at the
    first access, which lists once, in parallel, for this process and all DataLoader workers. The order is the
    service's, by key.

    An index is a number (negative ones count from the end), a slice, or a text: a full URI or key. A DataLoader's
    batches are fetched whole, each in one submission; `s3dataset.DataLoader` and `BatchSampler` also fetch the next
    batches ahead. Iterating fetches ahead too. Without a transform samples are `S3Reader`s, which fetch when they are
    first read unless they were fetched ahead; a DataLoader makes lists of them.

    What was listed is what is read: an object that was replaced since raises `ObjectChangedError`.

    Works under fork, spawn and forkserver, and with persistent workers. Safe to share between threads. Memory: within
    the byte budget of `S3ClientConfig.memory_limit_bytes`, beside what the program holds.
    """

    def __init__(
        self,
        origin: Origin,
        transform: Any,
        reader_constructor: Any,
        connection: tuple[Any, Any, Any],
        format: Format | None = None,  # noqa: A002
        on_error: OnError = "raise",
    ) -> None:
        """Private: use `from_prefix`, `from_objects` or `from_manifest`."""
        super().__init__(origin, client_ref(*connection), transform, reader_constructor, format, on_error)
        if on_error == "skip":
            raise ValueError(
                'on_error="skip" would make batches shorter than the indices that were asked for: a map dataset takes '
                '"raise" or "replace", S3IterableDataset also "skip"'
            )

    @classmethod
    def _make(cls, *arguments: Any) -> Self:
        return cls(*arguments)

    # -- Access -----------------------------------------------------------------------------------------------------

    def _begin_process(self) -> None:
        super()._begin_process()
        self._fetcher: tuple[int, BatchFetcher[T_co]] | None = None

    def __len__(self) -> int:
        """The number of samples: objects, or what is in them. Lists at first use.

        Raises:
            UnindexedError: They are shards without an index.
        """
        return self._length

    @property
    def _length(self) -> int:
        """The same where a derived class counts otherwise."""
        return len(self.manifest) if self._shards is None else self.manifest.num_samples

    @overload
    def __getitem__(self, index: SupportsIndex | str) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> list[T_co]: ...
    def __getitem__(self, index: SupportsIndex | str | slice) -> T_co | list[T_co]:
        """Returns a sample, or for a slice a list of them, fetched together.

        Raises:
            IndexError: There are not so many samples.
            KeyError: There is no object of that URI or key; close ones are named.
            UnindexedError: The objects are shards without an index.
            S3Exception: The object could not be fetched. Without a transform, reading the reader raises it.
        """
        if isinstance(index, slice):
            return self._fetch(range(self._length)[index])
        shards = self._shards
        if isinstance(index, str):
            if shards is not None:
                raise KeyError(
                    f"{index!r}: samples of shards have numbers, from 0 to {self._length - 1:,}; a URI names a whole "
                    "shard"
                )
            position = self.manifest.find(index)
        else:
            position = operator.index(index)
        if shards is not None or self._on_error != "raise":
            return self._fetch((position,))[0]
        (position,) = self._positions((position,))
        row = self.manifest.rows((position,))[0]
        asked = self._count.asked()
        sample = self._maker_drawing(0, 0).make(self._maker.client, row)
        self._count.made(asked)
        self._count.pause()  # nobody said that there will be another
        return sample

    def __getitems__(self, indices: Sequence[int]) -> list[T_co]:
        """Returns the samples of a batch, fetched together: as many as indices were given, in their order.

        A DataLoader calls it for every batch. Where a derived class has a `__getitem__` of its own, that makes the
        samples, one after the other.

        Raises:
            IndexError: There are not so many objects.
            S3Exception: One of the objects could not be fetched.
        """
        return [self[index] for index in indices] if self._has_own_samples else self._fetch(indices)

    @property
    def _has_own_samples(self) -> bool:
        """Whether a derived class makes the samples: nothing may go past its `__getitem__`."""
        return type(self).__getitem__ is not S3MapDataset.__getitem__

    def _fetch(self, indices: Sequence[int]) -> list[T_co]:
        if self._shards is None and not self._maker.reads_ahead:
            return self._on_demand(indices)
        fetcher = self._fetcher
        if fetcher is None or fetcher[0] != os.getpid():
            made = BatchFetcher(self._maker.client, self._work, self._count)
            fetcher = self._fetcher = os.getpid(), made
        return fetcher[1].fetch(indices)

    def _work(self, indices: Sequence[int]) -> Work[T_co]:
        positions = self._positions(indices)
        seed, epoch = getattr(indices, "drawn", (0, 0))
        client, shards = self._maker.client, self._shards_drawing(seed, epoch)
        bad = self._bad_policy(seed=seed, epoch=epoch)
        if shards is None:
            maker = self._maker_drawing(seed, epoch)
            return ObjectWork(maker, client, self.manifest.rows(positions), positions, bad)
        return ShardWork(shards, positions, client.part_size, bad)

    def _on_demand(self, indices: Sequence[int]) -> list[T_co]:
        """Readers that were chosen for sparse access fetch what is read of them, and nothing before."""
        asked = self._count.asked()
        client, make = self._maker.client, self._maker_drawing(*getattr(indices, "drawn", (0, 0))).make
        samples = [make(client, row) for row in self.manifest.rows(self._positions(indices))]
        self._count.made(asked, len(samples))
        self._count.publish()
        return samples

    def _positions(self, indices: Sequence[int]) -> list[int]:
        length = self._length
        positions = []
        for index in indices:
            position = operator.index(index)
            if not -length <= position < length:
                raise IndexError(f"index {position} is out of range for {self!r}")
            positions.append(position % length)
        return positions

    def __iter__(self) -> Iterator[T_co]:
        """Iterates over all samples in the order of the listing, fetching ahead.

        Where a derived class has a `__getitem__` of its own, that makes the samples, one after the other.
        """
        if self._has_own_samples:
            return map(self.__getitem__, range(len(self)))
        if self._shards is not None:
            everything = [range(self._length)]
            return iter(
                PositionsAhead(self._shards, self._maker.client, everything, self._count, bad=self._bad_policy())
            )
        chunks = self._row_chunks(iter((range(len(self.manifest)),)))
        bad = self._bad_policy()
        return iter(
            FetchAhead(
                cast(Any, self._maker_drawing(0, 0)), chunks, self._count, bad=bad, position_of=self._position_of
            )
        )

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        del state["_fetcher"]
        return state
