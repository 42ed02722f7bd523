"""MixedDataset: several datasets as one stream, in given shares."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import torch.utils.data
from torch.utils.data import IterableDataset

from s3dataset._datasets._bad_samples import SKIPPED
from s3dataset._datasets._base import S3Dataset
from s3dataset._datasets._epochs import LOADER, MAIN, WORKERS
from s3dataset._datasets._iterable import S3IterableDataset
from s3dataset._datasets._map import S3MapDataset
from s3dataset._datasets._mixed_sources import Numbered, Streamed, checked_source, iterable_twin, source_of
from s3dataset._datasets._mixed_taken import MixedTaken
from s3dataset._datasets._torchdata import asked_by_torchdata
from s3dataset._order import BadSamples, MixPlan, state_kind, whole_number
from s3dataset._stats import Stats, together
from s3dataset.errors import ManifestMismatchError

if TYPE_CHECKING:
    from s3dataset._datasets._epochs import Turn
    from s3dataset._datasets._position import Part

__all__ = ["MixedDataset"]

_KIND: Final = "mixed"
_VERSION: Final = 1


class MixedDataset(IterableDataset[Any]):
    """Several datasets as one stream, each with its share: `MixedDataset([web, books], [0.7, 0.3])`.

    Which dataset a slot of the stream takes its sample from depends on seed, epoch and slot only; shares are exact to
    within 2 samples at every thousandth slot. Each dataset goes through its own order, shuffled as it says; map
    datasets are shuffled by `seed`. What becomes of bad samples is said by each dataset's `on_error`; one that is left
    out leaves its slot empty, so that its batch is shorter.

    Of objects, indexed shards and map datasets the stream is cut into batches, which ranks and workers take in turns,
    so it is the same for every topology, and a state, which is a slot, fits every one. Shards without an index are
    mixed in too: each reader takes the samples of its own, so that the state holds where each stream of shards stands,
    and ranks may differ in their number of batches unless `Split(steps_per_epoch=)` says it. Such a state is elastic as
    long as no reader has come to its end: `merge_states` puts those of several ranks together.

    How ranks and workers share is said by `enable_sharding` of the first `S3IterableDataset`; map datasets alone are
    split over all. With several ranks all take as many batches: with stop="first" the last few slots are left out for
    that, with stop="all" a few more are added.

    All sources are fetched ahead at the same time, and share the byte budget.

    Args:
        datasets: `S3IterableDataset`s and `S3MapDataset`s.
        weights: Of the datasets, in any unit; 0 for one that has a pause. A run that goes on from a state may have
            others, which hold from there on.
        seed: Of the choice; the same on every rank.
        stop: When an epoch ends: before the first dataset would have to begin again, or when all have ended once,
            until when those that end begin again in another order. Of shards without an index that is so for each
            reader by itself. `Split(steps_per_epoch=)` ends it after so many batches of each rank instead.

    Raises:
        TypeError: A dataset is of another kind.
        ValueError: There are no datasets, not as many weights, or a weight is impossible.
    """

    def __init__(
        self,
        datasets: Sequence[S3IterableDataset[Any] | S3MapDataset[Any]],
        weights: Sequence[float],
        *,
        seed: int = 0,
        stop: Literal["first", "all"] = "first",
    ) -> None:
        self._datasets: list[S3Dataset[Any]] = list(datasets)
        self._weights = tuple(weights)
        self._seed = whole_number("seed", seed)
        self._stop = stop
        if not self._datasets or len(self._datasets) != len(self._weights):
            raise ValueError(f"there are {len(self._datasets)} datasets and {len(self._weights)} weights")
        for dataset in self._datasets:
            checked_source(dataset)
        if stop not in {"first", "all"}:
            raise ValueError(f'stop must be "first" or "all", got {stop!r}')
        MixPlan(weights)
        iterable = [dataset for dataset in self._datasets if isinstance(dataset, S3IterableDataset)]
        self._first = iterable[0] if iterable else iterable_twin(self._datasets[0])
        self._begin_process()

    def _begin_process(self) -> None:
        self._run: _MixedRun | None = None
        self._loaded: dict[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        names = ("_datasets", "_weights", "_seed", "_stop", "_first")
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
            ManifestMismatchError: A state was loaded that belongs to other data.
            ValueError: A state was loaded that is another reader's, or samples are left out and nothing says that ranks
                may differ.
        """
        first, part = self._first, self._part()
        for dataset in self._datasets:
            if isinstance(dataset, S3IterableDataset):
                dataset._check_skipping(part)  # noqa: SLF001 - of the same package, like all that follow
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            first._position.loaded = loaded  # noqa: SLF001
        turn = first._begin_turn()  # noqa: SLF001
        state = self._resolved(turn.epoch, turn.resume, part)
        reader, taken = state.pop("reader", None), int(state.pop("taken", 0))
        readers = state.pop("readers", None)
        if readers is not None:
            self._check_readers(readers, part)
            taken = readers["taken"][part.worker]
        if reader is not None and tuple(reader) != tuple(part.reader):
            raise ValueError(
                f"the state is that of one reader, {reader} (rank, ranks, worker, workers), in mid-batch or "
                f"in a worker, and this is {tuple(part.reader)}: s3dataset.DataLoader's states fit every topology"
            )
        batch_size = turn.batch_size or self._batch_size
        sources = self._sources
        ends = self._end(sources, MixPlan.from_dict(state["plan"]), state["slot"], part, batch_size)
        self._run = run = _MixedRun(state, part, batch_size, sources, ends, taken, done=turn.has_ended)
        return first._position.follow(self._follow(run, in_loader=turn.in_loader), run)  # noqa: SLF001

    def _check_readers(self, readers: Mapping[str, Any], part: "Part") -> None:
        now = part.rank.rank, part.rank.world_size, part.num_workers
        saved = readers["rank"], readers["world_size"], len(readers["taken"])
        if saved != now:
            raise ValueError(
                "the state was saved by rank {} of {} with {} workers, of which some had come to the end of their "
                "shards without an index, and this is rank {} of {} with {}: which batches are left then depends on "
                "who read them, so such a state fits the same topology only".format(*saved, *now)
            )

    def _follow(self, run: "_MixedRun", *, in_loader: bool) -> Iterator[Any]:
        if run.done:
            return
        state, part, batch_size, sources, taken = run.begun, run.part, run.batch_size, run.sources, run.taken
        plan, end, least = MixPlan.from_dict(state["plan"]), run.end, run.least
        used = [number for number, weight in enumerate(plan.weights) if weight]
        samples: dict[int, Iterator[Any]] = {}
        for number in used:
            source = sources[number]
            if isinstance(source, Streamed):
                samples[number] = source.begin(self._turned(part, state, batch_size), state["streams"][str(number)])
            else:
                counts = _counts_of(
                    number, MixPlan.from_dict(state["plan"]), _slots(state, part, batch_size, end), taken
                )
                samples[number] = source.samples(state["epoch"], counts, len(used))
        streamed = [source for number, source in enumerate(sources) if number in used and isinstance(source, Streamed)]
        try:
            for slot in islice(_slots(state, part, batch_size, end), taken, None):
                at_batch = not run.taken % batch_size
                if least is not None and slot >= least and at_batch and all(s.was_gone_through for s in streamed):
                    break
                sample = next(samples[plan.source(slot)], _END)
                if sample is _END:
                    break
                run.taken += 1
                if sample is not SKIPPED or in_loader:
                    yield sample
                del sample
        finally:
            for iterator in samples.values():
                iterator.close()  # type: ignore[attr-defined] # generators, all of them

    def _turned(self, part: "Part", state: Mapping[str, Any], batch_size: int) -> "Part":
        """Whose streams of shards a reader takes: where a run goes on, the worker that is next comes first."""
        steps = state["slot"] // (batch_size * part.rank.world_size)
        return replace(part, worker=(part.worker + steps) % part.num_workers)

    def _end(
        self, sources: Sequence[Numbered | Streamed], plan: MixPlan, slot: int, part: "Part", batch_size: int
    ) -> tuple[int | None, int | None]:
        """The slot at which an epoch ends, for a run that goes on at `slot`; and that from which on it may end.

        The former is None where only shards without an index can tell, the latter where they need not.
        """
        world_size, steps = part.rank.world_size, part.split.steps_per_epoch
        if steps is not None:
            return max(slot, steps * batch_size * world_size), None
        ends = []
        for number, source in enumerate(sources):
            if not plan.weights[number] or source.length is None:
                continue
            wanted = source.length if self._stop == "first" else source.length - 1
            ends.append(plan.first if plan.base[number] > wanted else plan.slot_of(number, wanted))
        streamed = any(source.length is None and plan.weights[n] for n, source in enumerate(sources))
        if not ends or (streamed and self._stop == "all"):
            return None, (max(slot, max(ends) + 1) if ends else slot) if self._stop == "all" else None
        end = max(slot, min(ends) if self._stop == "first" else max(ends) + 1)
        if world_size > 1:
            rounds, rest = divmod(end - slot, batch_size * world_size)
            end = slot + (rounds + (rest > 0 and self._stop == "all")) * batch_size * world_size
        return end, None

    # -- What it consists of ----------------------------------------------------------------------------------------

    @property
    def datasets(self) -> tuple[S3Dataset[Any], ...]:
        """What is mixed, in the order given; each has its own `stats()` and `bad_samples()`."""
        return tuple(self._datasets)

    def _part(self) -> "Part":
        for dataset in (*self._datasets, self._first):
            if isinstance(dataset, S3IterableDataset):
                dataset._outer = self  # noqa: SLF001
        return self._first._part()  # noqa: SLF001

    @property
    def _batch_size(self) -> int:
        return self._first._known_batch_size() or 1  # noqa: SLF001

    @property
    def _sources(self) -> list[Numbered | Streamed]:
        steps = self._part().split.steps_per_epoch
        laps = self._stop == "all" or steps is not None
        if steps is not None:
            self._first._batch_size_for_steps()  # noqa: SLF001
        return [source_of(dataset, self._seed, laps) for dataset in self._datasets]

    def prepare(self) -> Self:
        """Lists all datasets now. See `S3IterableDataset.prepare`."""
        for dataset in self._datasets:
            dataset.prepare()
        return self

    def stats(self) -> Stats:
        """What reading cost, summed over the datasets. See `S3IterableDataset.stats`."""
        different = {id(dataset._listing): dataset for dataset in self._datasets}.values()  # noqa: SLF001
        return together([(dataset._client_ref, dataset.stats()) for dataset in different])  # noqa: SLF001

    def bad_samples(self) -> BadSamples:
        """What the datasets left out or replaced because of their `on_error`."""
        different = {id(dataset._listing): dataset for dataset in self._datasets}.values()  # noqa: SLF001
        return BadSamples().merged(dataset.bad_samples() for dataset in different)

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
        in_worker = torch.utils.data.get_worker_info() is not None
        if run is None:
            first = self._first
            turn = first._epochs.coming(first._rank_for_epochs(), WORKERS if in_worker else MAIN)  # noqa: SLF001
            return self._resolved(turn.epoch, turn.resume, self._part())
        if in_worker:  # others may still be in this epoch
            return run.of_reader()
        if run.done and not at_end:
            return self._resolved(run.begun["epoch"] + 1, None, run.part)
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
        if state_kind(state) != _KIND:
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
                loaded = self._resolved(int(state["epoch"]) + 1, None, self._part())
        if in_worker:
            self._loaded = loaded
        else:
            first._epochs.name(first._rank_for_epochs(), int(loaded["epoch"]), loaded)  # noqa: SLF001

    def _resolved(
        self, epoch: int, loaded: Mapping[str, Any] | None, part: "Part", num_workers: int | None = None
    ) -> dict[str, Any]:
        """Where an epoch begins."""
        sources = self._sources
        data = [source.data for source in sources]
        if loaded is None:
            plan = MixPlan(self._weights, seed=self._seed, epoch=epoch)
            state: dict[str, Any] = {
                "version": _VERSION, "kind": _KIND, "epoch": epoch, "slot": 0, "plan": plan.to_dict(), "data": data,
            }  # fmt: skip
            streams = {
                str(number): source.first_state(part, epoch, part.num_workers if num_workers is None else num_workers)
                for number, source in enumerate(sources)
                if isinstance(source, Streamed)
            }
            return {**state, "streams": streams} if streams else state
        if loaded.get("kind") != _KIND:
            raise ValueError(f"the state is of kind {loaded.get('kind')!r}, and a mixture needs one of kind {_KIND!r}")
        if [list(entry) for entry in loaded["data"]] != data:
            raise ManifestMismatchError(
                f"the state was saved over other data, {loaded['data']} (fingerprint and samples of each dataset), and "
                f"this is {data}: resume on the manifests of the first run, or begin a new epoch"
            )
        plan = MixPlan.from_dict(loaded["plan"])
        if plan.weights != MixPlan(self._weights).weights:
            if loaded.get("reader") is not None or loaded.get("readers") is not None:
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
        state = self._resolved(turn.epoch, turn.resume, part, max(1, num_workers))
        if "reader" in state:
            raise ValueError(
                "the state is that of one reader in the middle of a batch: s3dataset.DataLoader goes on from its own "
                "states"
            )
        turn = turn._replace(resume=state, batch_size=batch_size)
        first._note_handed(rank, turn, num_workers)  # noqa: SLF001
        end, _ = self._end(self._sources, MixPlan.from_dict(state["plan"]), state["slot"], part, batch_size)
        return MixedTaken(self, state, part.rank, batch_size, num_workers, end), turn

    def _carried(self) -> dict[str, Any] | None:
        """What a worker's batch tells of where it stands; None: the number of batches tells enough."""
        run, info = self._run, torch.utils.data.get_worker_info()
        streams = None if run is None else run.streams()
        if run is None or info is None or not streams:
            return None
        return {"worker": info.id, "taken": run.taken, "streams": streams}

    def _coming_to_loader(self, num_workers: int) -> dict[str, Any]:
        first = self._first
        turn = first._epochs.coming(first._rank_for_epochs(), LOADER)  # noqa: SLF001
        return self._resolved(turn.epoch, turn.resume, self._part(), max(1, num_workers))


class _MixedRun:
    """One reader's epoch of a mixture.

    Args:
        begun: The state that it began at.
        part: The reader.
        batch_size: Of the batches that slots are dealt in.
        sources: What is mixed.
        ends: The slot at which the epoch ends, and that from which on it may end; see `MixedDataset._end`.
        taken: How many samples the reader took already, those that were left out among them.
        done: Whether nothing is left.
    """

    def __init__(
        self,
        begun: dict[str, Any],
        part: "Part",
        batch_size: int,
        sources: list[Numbered | Streamed],
        ends: tuple[int | None, int | None],
        taken: int,
        *,
        done: bool,
    ) -> None:
        self.begun = begun
        self.part = part
        self.batch_size = batch_size
        self.sources = sources
        self.end, self.least = ends
        self.taken = taken
        self.done = done

    def streams(self) -> dict[str, dict[str, Any]]:
        """Where this reader's streams of shards without an index stand, by the number of their source."""
        return {
            str(number): source.standing()
            for number, source in enumerate(self.sources)
            if isinstance(source, Streamed) and source.is_begun
        }

    def of_reader(self) -> dict[str, Any]:
        """Where this reader stands."""
        streams = self.streams()
        state = {**self.begun, "streams": {**self.begun["streams"], **streams}} if streams else self.begun
        return {**state, "reader": list(self.part.reader), "taken": self.taken}

    def standing(self) -> dict[str, Any]:
        """Where it stands, elastic between batches."""
        steps, rest = divmod(self.taken, self.batch_size)
        state = self.of_reader()
        if rest or self.part.num_workers > 1:
            return state
        del state["reader"], state["taken"]
        return {**state, "slot": state["slot"] + steps * self.batch_size * self.part.rank.world_size}


_END: Final = object()


def _slots(state: Mapping[str, Any], part: "Part", batch_size: int, end: int | None) -> Iterator[int]:
    """The slots of a reader: of the batches from `slot` on, those whose turn is its."""
    begin, step = state["slot"], part.rank.world_size * part.num_workers * batch_size
    own = begin + (part.worker * part.rank.world_size + part.rank.rank) * batch_size
    for start in range(own, end, step) if end is not None else count(own, step):
        yield from range(start, start + batch_size if end is None else min(start + batch_size, end))


def _counts_of(number: int, plan: MixPlan, slots: Iterator[int], taken: int) -> Iterator[int]:
    """How many samples a dataset gave before each of those slots that are its."""
    behind, given = None, 0
    for slot in islice(slots, taken, None):
        if slot != behind:
            given = plan.counts(slot)[number]
        behind = slot + 1
        if plan.source(slot) == number:
            yield given
            given += 1
