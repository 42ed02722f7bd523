"""BatchSampler: which samples make up each batch of a map dataset."""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sized
from dataclasses import replace
from typing import Any

from torch.utils.data import Sampler

from s3dataset._datasets._bad_samples import BadLedger
from s3dataset._datasets._look_ahead import DrawnBatch, look_ahead
from s3dataset._datasets._rank import Rank, find_rank
from s3dataset._datasets._taken import NumberedTaken
from s3dataset._datasets._torchdata import asked_by_torchdata
from s3dataset._manifest import Manifest
from s3dataset._order import BadSamples, BatchPlan, EpochState, Permutation, Split, Tail, whole_number

__all__ = ["BatchSampler"]


class BatchSampler(Sampler[list[int]]):
    """Batches of indices for a map dataset: seeded, split over ranks, and looking ahead.

    `s3dataset.DataLoader` makes one by itself. For PyTorch's own::

        sampler = BatchSampler(dataset, 32, shuffle=True, num_workers=4)
        loader = torch.utils.data.DataLoader(dataset, batch_sampler=sampler, num_workers=4)

    The batches of an epoch are one sequence that depends on the length of the dataset, `batch_size`, `seed` and the
    epoch only; rank r takes the batches r, r + world size, ... of it. So every rank has the same order in mind without
    a word exchanged, and it is the same on every machine and in every release. Rank and world size are found when an
    iteration begins, as `Split` says. Memory: a few batches, whatever the length of the dataset.

    The first iteration is epoch 0 and each further one the next epoch, unless `set_epoch` names another.

    With `num_workers` each batch also names those that the same worker gets next, which an `S3MapDataset` fetches
    ahead: at least 4, and enough for 128 samples, as far as they fit into the worker's byte budget. Batches go to
        workers in turn
    in a DataLoader with `in_order=True`; where something else deals them out (Accelerate), leave `num_workers` out.

    Args:
        data_source: The dataset, whose length is asked when an iteration begins, or the length itself.
        batch_size: Samples in a batch.
        shuffle: In an order of its own for every epoch; False: in that of the dataset.
        seed: Names the orders; the same on every rank.
        tail: What happens to samples that do not make up a batch for every rank: "pad", "drop" or "exact"; see
            `Split`. Default: that of `split`.
        split: Over which ranks; default: all that there are. `Split(ranks=False)`: every rank takes all batches.
        num_workers: Workers of the loader that takes the batches, 0 for none; default: not known, so no look-ahead.
        ahead: How many batches are named ahead; default: as above. 0: none.

    Raises:
        ValueError: A number is out of range, or `tail` and `split` contradict each other.
    """

    def __init__(
        self,
        data_source: Sized | int,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        tail: Tail | None = None,
        split: Split | None = None,
        num_workers: int | None = None,
        ahead: int | None = None,
    ) -> None:
        batch_size, seed = whole_number("batch_size", batch_size), whole_number("seed", seed)
        if batch_size < 1:
            raise ValueError(f"batch_size must be a number of samples, at least 1; got {batch_size!r}")
        if num_workers is not None and whole_number("num_workers", num_workers) < 0:
            raise ValueError(f"num_workers must not be negative, got {num_workers}")
        if ahead is not None and whole_number("ahead", ahead) < 0:
            raise ValueError(f"ahead must not be negative, got {ahead}")
        if split is not None and not isinstance(split, Split):
            raise TypeError(f"split must be a Split or None, got {split!r}")
        if tail is not None and split is not None and split.tail not in {None, tail}:
            raise ValueError(f"tail={tail!r} and split={split!r} contradict each other")
        self.data_source = data_source
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.split = split
        self.tail = Split(tail=tail).tail
        self.num_workers = num_workers
        self.ahead = ahead
        self._next_epoch = 0
        self._loaded: EpochState | None = None
        self._loaded_ended = False
        self._taken: NumberedTaken | None = None
        self._counting: NumberedTaken | None = None

    @property
    def drop_last(self) -> bool:
        """Whether all batches are full; PyTorch's name for it."""
        return self.tail == "drop" or (self.split is not None and self.split.tail == "drop")

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration begins."""
        return self._next_epoch

    def set_epoch(self, epoch: int) -> None:
        """Names the epoch that the next iteration begins; the one after that follows on.

        Raises:
            TypeError: The epoch is no integer.
            ValueError: It is negative.
        """
        epoch = whole_number("epoch", epoch)
        if epoch < 0:
            raise ValueError(f"an epoch is a number from 0 on, got {epoch}")
        self._next_epoch = epoch
        if self._taken is not None and not self._taken.going_on:
            self._taken = None

    @property
    def world_size(self) -> int:
        """How many ranks share the batches, as far as is known now."""
        return self._rank().world_size

    def __len__(self) -> int:
        """The number of batches of this rank in a whole epoch."""
        return self._plan(self._fresh()).steps(self._rank().rank)

    def __iter__(self) -> Iterator[list[int]]:
        """Iterates over this rank's batches of the next epoch.

        Raises:
            ManifestMismatchError: A state was loaded that belongs to other data.
        """
        taken = self._taken
        if taken is not None and taken.is_over and not taken.going_on:
            self._taken = None
        loaded = self._loaded
        if loaded is not None and self._loaded_ended:
            # torchdata's loader goes through the iteration that it restores, or only makes it.
            self._loaded, self._loaded_ended = None, False
            if self._next_epoch != loaded.epoch:  # another one was named
                return self._iterate(self._counting)
            self._next_epoch = loaded.epoch + 1
            self._taken = NumberedTaken(loaded, self._plan(loaded), self._rank().rank)
            self._taken.end()
            return iter(())
        return self._iterate(self._counting)

    def _iterate(self, counting: NumberedTaken | None) -> Iterator[list[int]]:
        # A generator, so that the epoch counts on when the first batch is taken: PyTorch makes two iterators and uses
        # one.
        self._taken = taken = self._begin(counting)
        batches = self._batches(taken)
        drawn = taken.begun.seed if taken.begun.shuffle else self.seed, taken.begun.epoch
        if self.num_workers is not None and self.ahead != 0:
            batches = look_ahead(batches, self.num_workers, self.ahead, drawn)
        else:
            batches = (DrawnBatch(batch, drawn) for batch in batches)
        taken.going_on = True
        try:
            for batch in batches:
                taken.batch()
                yield batch
            taken.end()
        finally:
            taken.going_on = False

    # -- State ------------------------------------------------------------------------------------------------------

    def state_dict(self, batches_consumed: int | None = None) -> dict[str, Any]:
        """Where the loop stands, as values for JSON; elastic, and equal on every rank.

        Args:
            batches_consumed: How many batches the loop took in this epoch. Needed where a loader has workers, which it
                gives batches ahead of the loop; default: all that were handed out. `s3dataset.DataLoader.state_dict`
                knows.

        Raises:
            ValueError: There are workers, and it was not given.
        """
        return {**self._standing(batches_consumed, at_end=asked_by_torchdata()), "bad": self._bad_samples().to_dict()}

    def _standing(self, batches_consumed: int | None, *, at_end: bool) -> dict[str, Any]:
        taken = self._taken
        if taken is None:
            return self._coming().to_dict()
        if at_end:
            return taken.standing().to_dict() | ({"ended": True} if taken.is_over else {})
        if batches_consumed is None:
            if self.num_workers:
                raise ValueError(
                    f"a loader with {self.num_workers} workers takes batches ahead of the loop: give "
                    "state_dict(batches_consumed=n), or use s3dataset.DataLoader or torchdata's StatefulDataLoader, "
                    "whose state_dict() counts them"
                )
            return taken.state().to_dict()
        return taken.after(batches_consumed).to_dict()

    def _bad_samples(self) -> BadSamples:
        bad_samples = getattr(self.data_source, "bad_samples", None)
        found = None if bad_samples is None else bad_samples()
        return found if isinstance(found, BadSamples) else BadSamples()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state in the next iteration, which finishes that epoch; the one after it begins the next.

        Raises:
            RuntimeError: An iteration is going on.
            ValueError: It is no state of samples with numbers.
        """
        if self._taken is not None and self._taken.going_on:
            raise RuntimeError("an iteration is going on: load a state before it begins, or end it first")
        self._load(state, ended_counts=asked_by_torchdata())

    def _load(self, state: Mapping[str, Any], *, ended_counts: bool = False) -> None:
        loaded, ended = EpochState.from_dict(state), state.get("ended") is True
        self._loaded_ended = ended and ended_counts
        if ended and not self._loaded_ended:
            loaded = loaded.next_epoch()
        ledger = getattr(self.data_source, "_ledger", None)
        if isinstance(ledger, BadLedger):
            ledger.knows(loaded.bad, alone=True)
        self._loaded = replace(loaded, bad=BadSamples())
        self._next_epoch = self._loaded.epoch
        # Later epochs keep the order of the run that was left.
        self.shuffle = self._loaded.shuffle
        self.seed = self._loaded.seed if self.shuffle else self.seed
        self._taken = None

    def _begin(self, counting: NumberedTaken | None) -> NumberedTaken:
        state = self._coming()
        self._loaded = None
        self._next_epoch = state.epoch + 1
        plan = self._plan(state)
        if counting is not None:
            counting.begin_at(state, plan)  # the epoch may have been named since the loader's iterator was made
        return NumberedTaken(state, plan, self._rank().rank)

    @contextlib.contextmanager
    def _counting_in(self) -> Iterator[NumberedTaken]:
        """What a loader counts in whose iterator is made within; it begins when that takes its first batch."""
        state = self._coming()
        self._counting = NumberedTaken(state, self._plan(state), self._rank().rank)
        try:
            yield self._counting
        finally:
            self._counting = None

    def _coming(self) -> EpochState:
        """Where the next iteration begins."""
        fresh, loaded = self._fresh(), self._loaded
        if loaded is None or loaded.epoch != self._next_epoch:
            return fresh
        loaded.check(fingerprint=fresh.fingerprint, num_samples=fresh.num_samples)
        return replace(loaded, repeat=fresh.repeat).with_batch_size(self.batch_size)

    def _fresh(self) -> EpochState:
        """The beginning of the next epoch."""
        length = self.data_source if isinstance(self.data_source, int) else len(self.data_source)
        manifest = getattr(self.data_source, "manifest", None)
        return EpochState(
            fingerprint=manifest.fingerprint if isinstance(manifest, Manifest) else "",
            num_samples=length,
            seed=self.seed if self.shuffle else 0,
            epoch=self._next_epoch,
            shuffle=self.shuffle,
            streams=1,
            batch_size=self.batch_size,
            repeat=self._steps_per_epoch is not None,
        )

    @property
    def _steps_per_epoch(self) -> int | None:
        return self.split.steps_per_epoch if self.split is not None and self.tail is None else None

    def _batches(self, taken: NumberedTaken) -> Iterator[list[int]]:
        state, plan, rank = taken.begun, taken.plan, taken.rank
        row = state.row()
        order = Permutation(state.num_samples, seed=state.seed, epoch=state.epoch) if state.shuffle else None
        for k in range(plan.steps(rank)):
            places = row.take(plan.rank_batch(rank, k))
            yield list(places) if order is None else order.take(places)

    def _plan(self, state: EpochState) -> BatchPlan:
        split, world_size = self.split or Split(), self._rank().world_size
        return state.plan(
            world_size=world_size,
            tail=self.tail or split.resolved_tail(world_size),
            steps_per_epoch=self._steps_per_epoch,
        )

    def _rank(self) -> Rank:
        rank = find_rank(self.split or Split(), None)
        if self.split is None and rank.world_size > 1 and _accelerate_splits():
            raise ValueError(
                f"Accelerate runs on {rank.world_size} ranks and splits the batches of a loader by itself, so "
                "splitting them "
                "here too would lose samples. Give split=Split(ranks=False) if the loader goes through "
                "Accelerator.prepare(), or split=Split() if it does not."
            )
        return rank


def _accelerate_splits() -> bool:
    """Whether Accelerate runs this process, going by what it loaded; it is not imported for the question."""
    state = sys.modules.get("accelerate.state")
    shared = getattr(getattr(state, "PartialState", None), "_shared_state", None)
    return bool(shared)
