"""MixedDataset: several datasets as one stream, in given shares."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import torch.utils.data
from torch.utils.data import IterableDataset

from s3dataset._datasets._ahead import FetchAhead, bytes_ahead
from s3dataset._datasets._base import ROWS_AT_ONCE
from s3dataset._datasets._epoch_order import EpochOrder, first_state
from s3dataset._datasets._epochs import LOADER, MAIN, WORKERS
from s3dataset._datasets._iterable import S3IterableDataset
from s3dataset._datasets._positions_ahead import PositionsAhead, neighbours_together
from s3dataset._datasets._torchdata import asked_by_torchdata
from s3dataset._order import BadSamples, MixPlan
from s3dataset.errors import ManifestMismatchError

if TYPE_CHECKING:
    from s3dataset._datasets._epochs import Turn
    from s3dataset._datasets._position import Part

__all__ = ["MixedDataset", "MixedTaken"]

_KIND: Final = "mixed"
_VERSION: Final = 1
_LAP: Final = 1 << 32  # beyond every epoch that can be named, so that no lap repeats the order of an epoch


class MixedDataset(IterableDataset[Any]):
    """Several datasets as one stream, each with its share: `MixedDataset([web, books], [0.7, 0.3])`.

    Which dataset a slot of the stream takes its sample from depends on seed, epoch and slot only; shares are exact to
    within 2 samples at every thousandth slot. Each dataset goes through its own order, shuffled as it says. The stream
    is cut into batches, which ranks and workers take in turns, so it is the same for every topology, and a state, which
    is a slot, fits every one.

    How ranks and workers share is said by the first dataset's `enable_sharding`. With several ranks all take as many
    batches: with stop="first" the last few slots are left out for that, with stop="all" a few more are added.

    Args:
        datasets: `S3IterableDataset`s of objects or of indexed shards.
        weights: Of the datasets, in any unit; 0 for one that has a pause. A run that goes on from a state may have
            others, which hold from there on.
        seed: Of the choice; the same on every rank.
        stop: When an epoch ends: before the first dataset would have to begin again, or when all have ended once,
            until when those that end begin again in another order.

    Raises:
        TypeError: A dataset is of another kind.
        ValueError: There are no datasets, not as many weights, or a weight is impossible.
    """

    def __init__(
        self,
        datasets: Sequence[S3IterableDataset[Any]],
        weights: Sequence[float],
        *,
        seed: int = 0,
        stop: Literal["first", "all"] = "first",
    ) -> None:
        self._datasets = list(datasets)
        self._weights = tuple(weights)
        self._seed = seed
        self._stop = stop
        if not self._datasets or len(self._datasets) != len(self._weights):
            raise ValueError(f"there are {len(self._datasets)} datasets and {len(self._weights)} weights")
        for dataset in self._datasets:
            if not isinstance(dataset, S3IterableDataset):
                raise TypeError(f"MixedDataset takes S3IterableDatasets, got a {type(dataset).__name__}")
        if stop not in {"first", "all"}:
            raise ValueError(f'stop must be "first" or "all", got {stop!r}')
        MixPlan(weights)
        self._begin_process()

    def _begin_process(self) -> None:
        self._run: _MixedRun | None = None
        self._loaded: dict[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        names = ("_datasets", "_weights", "_seed", "_stop")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin_process()

    def __repr__(self) -> str:
        return f"<MixedDataset of {len(self._datasets)} datasets with weights {list(self._weights)}>"

    def __bool__(self) -> bool:
        return True

    # -- Iterating --------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        """Iterates over this reader's part of the next epoch.

        Raises:
            TypeError: A dataset's samples have no numbers: shards without an index.
            ManifestMismatchError: A state was loaded that belongs to other data.
            ValueError: A state was loaded that is another reader's.
        """
        first, part = self._first, self._part()
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            first._position.loaded = loaded  # noqa: SLF001 - of the same package, like all that follow
        turn = first._begin_turn()  # noqa: SLF001
        state = self._resolved(turn.epoch, turn.resume)
        reader, taken = state.pop("reader", None), int(state.pop("taken", 0))
        if reader is not None and tuple(reader) != tuple(part.reader):
            raise ValueError(
                f"the state is that of one reader, {reader} (rank, ranks, worker, workers), in mid-batch or "
                f"in a worker, and this is {tuple(part.reader)}: s3dataset.DataLoader's states fit every topology"
            )
        batch_size = turn.batch_size or self._batch_size
        end = self._end(MixPlan.from_dict(state["plan"]), state["slot"], part.rank.world_size, batch_size)
        self._run = run = _MixedRun(state, part, batch_size, end, taken, done=turn.has_ended)
        return first._position.follow(self._follow(run), run)  # noqa: SLF001

    def _follow(self, run: "_MixedRun") -> Iterator[Any]:
        if run.done:
            return
        state, part, batch_size, taken = run.begun, run.part, run.batch_size, run.taken
        plan, end = MixPlan.from_dict(state["plan"]), run.end
        sources = [
            self._source(
                number,
                state["epoch"],
                _counts_of(number, MixPlan.from_dict(state["plan"]), self._slots(state, part, batch_size, end), taken),
            )
            for number in range(len(self._datasets))
        ]
        for slot in islice(self._slots(state, part, batch_size, end), taken, None):
            sample = next(sources[plan.source(slot)])
            run.taken += 1
            yield sample
            del sample

    @staticmethod
    def _slots(state: dict[str, Any], part: "Part", batch_size: int, end: int) -> Iterator[int]:
        """The slots of a reader: of the batches from `slot` on, those whose turn is its."""
        begin, step = state["slot"], part.rank.world_size * part.num_workers * batch_size
        own = begin + (part.worker * part.rank.world_size + part.rank.rank) * batch_size
        for start in range(own, end, step):
            yield from range(start, min(start + batch_size, end))

    def _source(self, number: int, epoch: int, counts: Iterator[int]) -> Iterator[Any]:
        """The samples of a dataset, by how many it gave before each."""
        dataset, length = self._datasets[number], self._lengths[number]
        for lap, places in groupby(counts, lambda count: count // length):
            yield from self._lap(dataset, epoch + lap * _LAP, (count % length for count in places))

    def _lap(self, dataset: S3IterableDataset[Any], epoch: int, places: Iterator[int]) -> Iterator[Any]:
        shuffle, manifest = dataset._shuffle, dataset.manifest  # noqa: SLF001
        in_shards = dataset._shards is not None  # noqa: SLF001
        state = first_state(
            manifest, epoch=epoch, batch_size=1, shuffle=shuffle, in_shards=in_shards, ranks=1, workers=1
        )
        order = EpochOrder(manifest, state, in_shards=in_shards)
        client = dataset._maker.client  # noqa: SLF001
        window = max(1, bytes_ahead(client) // len(self._datasets))
        bad = dataset._bad_policy(seed=state.seed, epoch=epoch)  # noqa: SLF001
        chunks = iter(lambda: list(islice(places, ROWS_AT_ONCE if in_shards else 64)), [])
        shards = dataset._shards_drawing(state.seed, epoch)  # noqa: SLF001
        if shards is not None:
            fetch = neighbours_together(shards, client.part_size, order.take)
            return iter(PositionsAhead(shards, client, chunks, dataset._count, fetch, window, bad))  # noqa: SLF001
        rows = dataset._row_chunks(map(order.take, chunks))  # noqa: SLF001
        maker = cast(Any, dataset._maker_drawing(state.seed, epoch))  # noqa: SLF001
        return iter(
            FetchAhead(
                maker,
                rows,
                dataset._count,  # noqa: SLF001
                begin_at_once=torch.utils.data.get_worker_info() is not None,
                bad=bad,
                position_of=dataset._position_of,  # noqa: SLF001
            )
        )

    def _end(self, plan: MixPlan, slot: int, world_size: int, batch_size: int) -> int:
        """The slot at which an epoch ends, for a run that goes on at `slot`."""
        ends = []
        for number, length in enumerate(self._lengths):
            wanted = length if self._stop == "first" else length - 1
            if not plan.weights[number]:
                continue
            ends.append(plan.first if plan.base[number] > wanted else plan.slot_of(number, wanted))
        end = max(slot, min(ends) if self._stop == "first" else max(ends) + 1)
        if world_size > 1:
            rounds, rest = divmod(end - slot, batch_size * world_size)
            end = slot + (rounds + (rest > 0 and self._stop == "all")) * batch_size * world_size
        return end

    # -- What it consists of ----------------------------------------------------------------------------------------

    @property
    def _first(self) -> S3IterableDataset[Any]:
        return self._datasets[0]

    def _part(self) -> "Part":
        for dataset in self._datasets:
            dataset._outer = self  # noqa: SLF001
        return self._first._part()  # noqa: SLF001

    @property
    def _batch_size(self) -> int:
        return self._first._known_batch_size() or 1  # noqa: SLF001

    @property
    def _lengths(self) -> list[int]:
        lengths = []
        for dataset in self._datasets:
            if dataset._reads_unindexed is not None:  # noqa: SLF001
                raise TypeError(
                    f"MixedDataset needs to know the samples of {dataset._listing.origin}, "  # noqa: SLF001
                    "whose shards have no index: make one with `s3dataset index`"
                )
            if dataset._on_error == "skip":  # noqa: SLF001
                raise ValueError('on_error="skip" leaves slots of a mixture empty: use "replace"')
            in_shards = dataset._shards is not None  # noqa: SLF001
            length = dataset.manifest.num_samples if in_shards else len(dataset.manifest)
            if not length:
                raise ValueError(f"{dataset._listing.origin} is empty, so it has nothing to give")  # noqa: SLF001
            lengths.append(length)
        return lengths

    # -- Epochs and state -------------------------------------------------------------------------------------------

    def set_epoch(self, epoch: int) -> None:
        """Names the epoch that the next iteration begins; each further one is the next epoch."""
        self._first.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the mixture stands, as values for JSON. See `S3IterableDataset.state_dict`."""
        return self._with_ledger(self._standing(at_end=asked_by_torchdata()))

    def _standing(self, *, at_end: bool) -> dict[str, Any]:
        if self._loaded is not None:
            return dict(self._loaded)
        run = self._run
        if run is None:
            first, in_worker = self._first, torch.utils.data.get_worker_info() is not None
            turn = first._epochs.coming(first._rank_for_epochs(), WORKERS if in_worker else MAIN)  # noqa: SLF001
            return self._resolved(turn.epoch, turn.resume)
        if torch.utils.data.get_worker_info() is not None:
            return {**run.begun, "reader": list(run.part.reader), "taken": run.taken}
        if run.done and not at_end:
            return self._resolved(run.begun["epoch"] + 1, None)
        return run.standing() | ({"ended": True} if run.done else {})

    def _with_ledger(self, state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "bad": [dataset.bad_samples().to_dict() for dataset in self._datasets]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state in the next iteration, which finishes that epoch; the one after it begins the next.

        Other weights than the state's hold from its slot on.

        Raises:
            RuntimeError: An iteration is going on.
            ValueError: It is no state of a mixture.
        """
        first = self._first
        first._position.check_idle()  # noqa: SLF001
        if state.get("kind") != _KIND or state.get("version") != _VERSION:
            raise ValueError(f"the state is of kind {state.get('kind')!r}, and a mixture needs one of kind {_KIND!r}")
        self._run = None
        in_worker = torch.utils.data.get_worker_info() is not None
        for dataset, bad in zip(self._datasets, state.get("bad", ()), strict=False):
            dataset._ledger.knows(BadSamples.from_dict(bad), alone=not in_worker)  # noqa: SLF001
        loaded = {name: value for name, value in state.items() if name != "bad"}
        if loaded.pop("ended", False):
            if asked_by_torchdata():
                loaded["ended"] = True
            else:
                loaded = self._resolved(int(state["epoch"]) + 1, None)
        if in_worker:
            self._loaded = loaded
        else:
            first._epochs.name(first._rank_for_epochs(), int(loaded["epoch"]), loaded)  # noqa: SLF001

    def _resolved(self, epoch: int, loaded: Mapping[str, Any] | None) -> dict[str, Any]:
        """Where an epoch begins."""
        data = [
            [dataset.manifest.fingerprint, length]
            for dataset, length in zip(self._datasets, self._lengths, strict=True)
        ]
        if loaded is None:
            plan = MixPlan(self._weights, seed=self._seed, epoch=epoch)
            return {
                "version": _VERSION, "kind": _KIND, "epoch": epoch, "slot": 0, "plan": plan.to_dict(), "data": data,
            }  # fmt: skip
        if loaded.get("kind") != _KIND:
            raise ValueError(f"the state is of kind {loaded.get('kind')!r}, and a mixture needs one of kind {_KIND!r}")
        if [list(entry) for entry in loaded["data"]] != data:
            raise ManifestMismatchError(
                f"the state was saved over other data, {loaded['data']} (fingerprint and samples of each dataset), and "
                f"this is {data}: resume on the manifests of the first run, or begin a new epoch"
            )
        plan = MixPlan.from_dict(loaded["plan"])
        if plan.weights != MixPlan(self._weights).weights:
            if loaded.get("reader") is not None:
                raise ValueError("weights can change where a batch ends: load a state of s3dataset.DataLoader")
            plan = plan.changed(int(loaded["slot"]), self._weights)
        return {name: value for name, value in loaded.items() if name != "ended"} | {"plan": plan.to_dict()}

    # -- For DataLoader ---------------------------------------------------------------------------------------------

    def _begin_loader(self, batch_size: int, num_workers: int) -> "tuple[MixedTaken, Turn]":
        first, part = self._first, self._part()
        for dataset in self._datasets:
            dataset._compare_ranks(part.rank.world_size)  # noqa: SLF001
        first._listing.page.set("batch_size", batch_size)  # noqa: SLF001
        rank = first._rank_for_epochs()  # noqa: SLF001
        turn = first._epochs.begin(rank, LOADER)  # noqa: SLF001
        state = self._resolved(turn.epoch, turn.resume)
        if "reader" in state:
            raise ValueError(
                "the state is that of one reader in the middle of a batch: s3dataset.DataLoader goes on from its own "
                "states"
            )
        turn = turn._replace(resume=state, batch_size=batch_size)
        first._note_handed(rank, turn, num_workers)  # noqa: SLF001
        end = self._end(MixPlan.from_dict(state["plan"]), state["slot"], part.rank.world_size, batch_size)
        return MixedTaken(self, state, part.rank.world_size * batch_size, end), turn

    def _coming_to_loader(self) -> dict[str, Any]:
        first = self._first
        turn = first._epochs.coming(first._rank_for_epochs(), LOADER)  # noqa: SLF001
        return self._resolved(turn.epoch, turn.resume)


class _MixedRun:
    """One reader's epoch of a mixture."""

    def __init__(
        self, begun: dict[str, Any], part: "Part", batch_size: int, end: int, taken: int, *, done: bool
    ) -> None:
        self.begun = begun
        self.part = part
        self.batch_size = batch_size
        self.end = end
        self.taken = taken
        self.done = done

    def standing(self) -> dict[str, Any]:
        """Where it stands, elastic between batches."""
        steps, rest = divmod(self.taken, self.batch_size)
        if rest or self.part.num_workers > 1:
            return {**self.begun, "reader": list(self.part.reader), "taken": self.taken}
        return {**self.begun, "slot": self.begun["slot"] + steps * self.batch_size * self.part.rank.world_size}


def _counts_of(number: int, plan: MixPlan, slots: Iterator[int], taken: int) -> Iterator[int]:
    """How many samples a dataset gave before each of those slots that are its."""
    behind, count = None, 0
    for slot in islice(slots, taken, None):
        if slot != behind:
            count = plan.counts(slot)[number]
        behind = slot + 1
        if plan.source(slot) == number:
            yield count
            count += 1


class MixedTaken:
    """What a loop took of a mixture: so many batches."""

    def __init__(self, dataset: MixedDataset, begun: dict[str, Any], round_slots: int, end: int) -> None:
        self._dataset = dataset
        self._end = end
        self._begun = begun
        self._round = round_slots
        self._batches = 0
        self._done = False
        self.going_on = False

    def batch(self) -> None:
        """See `Taken`."""
        self._batches += 1

    def carried(self, state: bytes) -> None:
        """See `Taken`."""

    def reads(self, run: Any) -> None:
        """See `Taken`."""

    def end(self) -> None:
        """See `Taken`."""
        self._done = True

    def state(self) -> "MixedTaken":
        """See `Taken`."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """The state, as values for JSON."""
        slot = self._begun["slot"] + self._batches * self._round
        if self._done or slot >= self._end:
            return self._dataset._resolved(self._begun["epoch"] + 1, None)  # noqa: SLF001
        return {**self._begun, "slot": slot}
