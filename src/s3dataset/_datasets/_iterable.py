"""S3IterableDataset: objects, or samples of shards, as a stream that ranks and workers share."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, Self, TypeVar, cast

import torch.utils.data
from torch.utils.data import IterableDataset

from s3dataset._datasets._ahead import FetchAhead, bytes_ahead
from s3dataset._datasets._base import ROWS_AT_ONCE
from s3dataset._datasets._epoch_order import EpochOrder
from s3dataset._datasets._iterable_constructors import IterableConstructors
from s3dataset._datasets._position import NumberedRun, Part, ShardsRun, without_first
from s3dataset._datasets._positions_ahead import PositionsAhead
from s3dataset._datasets._resumable import ResumableDataset
from s3dataset._datasets._shard_samples import ShardSampleMaker
from s3dataset._datasets._stages import StagedDataset
from s3dataset._datasets._unindexed import UnindexedEpoch, exactly, samples_of_reader
from s3dataset._order import reader_positions, reader_streams
from s3dataset.formats import Format

__all__ = ["S3IterableDataset"]

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class S3IterableDataset(IterableConstructors[T_co], ResumableDataset[T_co], IterableDataset[T_co]):
    """Objects in S3 as a stream: iterating gives `transform(S3Reader)` of one after the other, many requests under way.

    Make one with `from_prefix`, `from_objects` or `from_manifest`. Syntax is checked there; the network is used when
    iteration begins, which lists once, in parallel, for this process and all DataLoader workers. The order is the
    service's, by key.

    With `format` the objects are shards, and it gives `transform(Sample)` of the samples in them. Shards with an index
    (`s3dataset index`, `Manifest.index`) are read by sample, so a shuffle goes over the whole epoch and a state fits
    any number of ranks and workers; others are streamed from their beginnings, each by one reader.

    With `shuffle` each epoch is an order of its own. An iteration is the next epoch, unless `set_epoch` names another;
    `state_dict` and `load_state_dict` go on in the middle of one.

    No sample goes to two workers of a DataLoader. Over ranks samples are split when `enable_sharding` says so; with
    several ranks and nothing said the first iteration raises ValueError, as either guess would be wrong for somebody:
    samples twice, or lost. Ranks and workers are found out when an iteration begins. Parts are disjoint and, but for
    the tail's policy (`Split`), complete, whatever the numbers of ranks and workers. With `batch_size`, or in an
    `s3dataset.DataLoader`, the loader's batches come in the order of the listing.

    What was listed is what is read: an object that was replaced since raises `ObjectChangedError`.

    Several loaders may read a dataset at the same time: each reads an epoch of its own. Which epoch is decided when an
    `s3dataset.DataLoader` makes its iterator; the workers of PyTorch's agree among themselves, so that there the order
    of two loaders is open. A copy (`copy.copy`) shares the listing and counts epochs by itself.

    Works under fork, spawn and forkserver, and with persistent workers. Memory: a window of half the byte budget
    (`S3ClientConfig.memory_limit_bytes`) at most, and of two objects for each connection. Of objects larger than
    `part_size` only the first part is fetched ahead. Blocks of small samples, which a
    shuffle over indexed shards holds, are within that window too: where they do not fit, they come in pieces, in the
    same order. Of shards without an index a shuffle holds one block for each stream (`Shuffle`), whatever the budget.
    Without a transform fetching ahead begins when a reader was read,
    and stops when several in a row were not.
    """

    @classmethod
    def _make(cls, *arguments: Any) -> Self:
        return cls(*arguments)

    _steps: int | None = None
    """Instead of those that the split says, while stages begin an iteration."""

    # -- Iterating --------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[T_co]:
        """Iterates over this process's part of the next epoch.

        Raises:
            ValueError: There are several ranks, and nothing says how they share.
            ManifestMismatchError: Another rank lists other objects, or a state was loaded that belongs to others.
            S3Exception: Listing failed, or, while iterating, an object could not be fetched.
        """
        part = self._part()
        if self._steps is not None:
            part = replace(part, split=replace(part.split, steps_per_epoch=self._steps))
        in_worker = torch.utils.data.get_worker_info() is not None
        if part.rank.world_size > 1 and not in_worker:
            self._compare_ranks(part.rank.world_size)
        kind = self._reads_unindexed
        if kind is not None:
            return self._unindexed_epoch(part, kind)
        return self._numbered_epoch(part, in_worker=in_worker)

    def _numbered_epoch(self, part: Part, *, in_worker: bool) -> Iterator[T_co]:
        """Iterates over samples that have numbers: objects, or samples of indexed shards."""
        turn = self._begin_turn()
        state = self._resolved(turn, part)
        shards = self._shards_drawing(state.seed, state.epoch)
        order = EpochOrder(self.manifest, state, in_shards=shards is not None)
        plan = self._batch_plan(part, state)
        places: Iterator[Sequence[int]] = without_first(
            reader_positions(
                plan, rank=part.rank.rank, worker=part.worker, num_workers=part.num_workers, chunk=ROWS_AT_ONCE
            ),
            state.taken,
        )
        if turn.has_ended:
            places = iter(())
        bad = self._bad_policy(seed=state.seed, epoch=state.epoch, order=order)
        self._check_skipping(part)
        if bad is not None:
            bad.marks_skipped = turn.in_loader
        client = self._maker.client
        samples: Iterator[T_co]
        if shards is None:
            rows = self._row_chunks(map(order.take, places))
            # What a worker delivers without a transform is read elsewhere, so there is no waiting to see whether it is.
            samples = iter(
                FetchAhead(
                    cast(Any, self._maker_drawing(state.seed, state.epoch)),
                    rows,
                    self._count,
                    ordered=self._ordered,
                    begin_at_once=in_worker,
                    bad=bad,
                    position_of=self._position_of,
                )
            )
        else:
            readers, window_bytes = part.rank.world_size * part.num_workers, bytes_ahead(client)
            fetch = order.fetching(cast(Any, shards), plan, readers, client.part_size, window_bytes)
            samples = iter(PositionsAhead(shards, client, places, self._count, fetch, window_bytes, bad))
        run = NumberedRun(state, part, plan, (lambda: bad.skipped) if bad is not None else (lambda: 0))
        return self._position.follow(run.follow(samples), run)

    def _unindexed_epoch(self, part: Part, kind: Format) -> Iterator[T_co]:
        """Iterates over the samples of shards from their beginnings on."""
        turn = self._begin_turn()
        part = replace(part, worker=(part.worker + turn.first_worker) % part.num_workers)
        state = self._shards_state(part, turn)
        reader = part.reader
        streams = reader_streams(
            state.streams,
            rank=reader.rank,
            world_size=reader.world_size,
            worker=reader.worker,
            num_workers=reader.num_workers,
        )
        if self._on_error == "replace":
            raise ValueError(
                f'on_error="replace" needs to know the other samples of the shards of {self._listing.origin}: make an '
                'index with `s3dataset index`, or use "skip"'
            )
        steps = part.split.steps_per_epoch
        batch_size = turn.batch_size or self._known_batch_size()
        epoch = UnindexedEpoch(
            ShardSampleMaker(self._client_ref, kind, self._maker.transform),
            self.manifest,
            state,
            streams,
            batch_size or 1,
            self._count,
            repeat=steps is not None,
            bad=self._bad_policy(),
            reader_constructor=self._maker.reader_constructor,
        )
        samples: Iterator[T_co] = iter(epoch)
        if steps is not None and batch_size is not None:
            samples = exactly(samples, samples_of_reader(state, reader, steps, batch_size))
        return self._position.follow(samples, ShardsRun(epoch, part.worker))

    def _check_skipping(self, part: Part) -> None:
        """Ranks that leave out samples take different numbers of steps.

        Raises:
            ValueError: They would, and nothing says that they may.
        """
        if self._on_error == "skip" and part.rank.world_size > 1 and part.split.tail != "exact":
            raise ValueError(
                'on_error="skip" makes ranks differ in their number of steps: give enable_sharding=Split(tail="exact") '
                'and a loop that bears it (torch.distributed.algorithms.Join), or use on_error="replace"'
            )

    def __len__(self) -> int:
        """The number of samples of this rank, all its workers together. Lists at first use.

        Raises:
            ValueError: There are several ranks, and nothing says how they share.
            TypeError: A derived class has an `__iter__` of its own, and does not say how many samples that gives.
        """
        self._check_countable()
        part = self._part()
        self._check_numbered()
        return self._batch_plan(part, self._first_state(part, 0)).samples(part.rank.rank)

    def _check_numbered(self) -> None:
        if self._reads_unindexed is not None:
            raise TypeError(
                f"how many samples the shards of {self._listing.origin} hold is not known without an index: "
                "`s3dataset index` makes one"
            )

    def __bool__(self) -> bool:
        """True, also of nothing: `if dataset` is asked before there is anything to list, and on every rank."""
        return True

    def _check_countable(self) -> None:
        """Refuses to count what a derived class makes: training loops end an epoch after so many batches."""
        kind = type(self)
        if kind.__iter__ is not S3IterableDataset.__iter__ and kind.__len__ is S3IterableDataset.__len__:
            raise TypeError(
                f"object of type {kind.__name__!r} has no len(): it has an __iter__ of its own, and no __len__"
            )

    # -- Stages -----------------------------------------------------------------------------------------------------

    def filter(self, fn: Callable[[T_co], Any]) -> StagedDataset[T_co]:
        """The samples for which `fn` is true, as a dataset: `dataset.filter(is_long).pack_sequences(2048)`.

        Args:
            fn: Called in the workers; pickles where they are spawned. The same for the same sample whenever it is
                asked.
        """
        return StagedDataset[T_co](self).filter(fn)

    def flat_map(self, fn: Callable[[T_co], Iterable[U]]) -> StagedDataset[U]:
        """All that `fn` makes of each sample, one after the other: `dataset.flat_map(sentences)`.

        Args:
            fn: Gives an iterable, perhaps a generator or nothing; called in the workers. A state says how many were
                taken of it, so it must give the same ones for the same sample.
        """
        return StagedDataset[T_co](self).flat_map(fn)

    def pack_sequences(
        self, length: int, *, key: Any = None, tail: Literal["keep", "drop"] = "keep"
    ) -> StagedDataset[Any]:
        """Joins sequences end to end and cuts them to one length, as language models are trained on.

        Each reader packs its own samples. What a batch leaves of a sequence begins the next chunk, also after a resume.

        Args:
            length: Of each, in tokens.
            key: Where in a sample its sequence is: a list, array or tensor of one dimension. None: the sample is it.
            tail: What becomes of the last, shorter one of each reader.

        Raises:
            ValueError: The length is not positive, or tail neither of the two.
        """
        return StagedDataset[T_co](self).pack_sequences(length, key=key, tail=tail)

    # -- For DataLoader ---------------------------------------------------------------------------------------------

    def _batches_of_rank(self, batch_size: int, num_workers: int, drop_last: bool) -> int:
        """How many batches a loader on this rank gives in an epoch."""
        self._check_countable()
        self._check_numbered()
        part = self._part()
        plan = self._batch_plan(part, self._first_state(part, 0, batch_size))
        steps = plan.steps(part.rank.rank)
        if drop_last and steps and len(plan.rank_batch(part.rank.rank, steps - 1)) < batch_size:
            steps -= 1
        shared = self._sharding is not False and part.split.workers
        return steps if shared else steps * max(1, num_workers)
