"""Makes one elastic state of those that single ranks and workers know of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

from s3dataset._order._fields import is_count, state_kind
from s3dataset._order._shards import StreamState
from s3dataset._order._shards_state import ShardsState
from s3dataset._order._state import EpochState, Reader

_INDEXED_RUN: Final = (
    "fingerprint",
    "num_samples",
    "seed",
    "epoch",
    "shuffle",
    "block_bytes",
    "streams",
    "batch_size",
    "batches",
    "repeat",
    "segments",
)
_MIXED: Final = "mixed"
_SHARDS_RUN: Final = (
    "fingerprint",
    "num_shards",
    "seed",
    "epoch",
    "shuffle",
    "block_bytes",
    "block_samples",
    "open_shards",
    "streams",
)


def merge_states(states: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Makes one elastic state of the states of all readers: any number of ranks and workers can go on from it.

    Shards without an index need the states of all ranks, as each knows of its own streams only. For indexed data those
    of one rank are enough, and more are compared with one another.

    States at the end of an epoch become one at the beginning of the next.

    Args:
        states: What `state_dict()` gave on each rank, or in each worker, at the same step.

    Raises:
        ValueError: They belong to different runs, epochs or steps; a stream or a worker is missing or there twice; or
            one is no state.
    """
    return _merged(list(states), complete=True)


def resume_state(loader_state: Mapping[str, Any]) -> dict[str, Any]:
    """Makes an elastic state of what torchdata's StatefulDataLoader saved on one rank.

    Such a state fits the same number of workers only; the one made of it fits any number of ranks and workers, and
    loads into `s3dataset.DataLoader` and the datasets. When all ranks have finished the epoch it is the beginning of
    the next one. For shards without an index it speaks of this rank's streams: `merge_states` puts the ranks together.
    A state that s3dataset made comes back as it is.

    Args:
        loader_state: What `StatefulDataLoader.state_dict()` gave.

    Raises:
        ValueError: No state of s3dataset is in it; or the loader was between two snapshots (snapshot_every_n_steps over
            1) of shards without an index; or the dataset did not know the loader's batch size.
    """
    if not isinstance(loader_state, Mapping):
        raise ValueError(f"the state of a loader is a dict, not {str(loader_state)[:100]}")
    if "kind" in loader_state:
        state_kind(loader_state)
        return dict(loader_state)
    states, since = _states_of_loader(loader_state)
    if not states:
        raise ValueError(
            "no state of s3dataset is in this state of a loader: it comes from StatefulDataLoader over another "
            "dataset, or over a map dataset without s3dataset.BatchSampler"
        )
    merged = _merged(states, complete=False)
    if since:
        merged = _gone_on(merged, states, since)
    ended = all(state.get("ended") is True for state in states) and merged["epoch"] == states[0]["epoch"]
    if merged["kind"] == EpochState.KIND and (
        ended or (loader_state.get("_iterator_finished") is True and merged.get("repeat") is True)
    ):
        return EpochState.from_dict(merged).next_epoch().to_dict()  # after as many steps on every rank
    return merged


def _states_of_loader(loader_state: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], int]:
    """The states of ours that are in a state of StatefulDataLoader, and batches yielded since they were taken.

    Without workers they lie at the top; with workers there is a snapshot of each, and one of the main process, which
    holds that of the sampler.
    """
    since = 0
    snapshot = loader_state.get("_snapshot")
    if isinstance(snapshot, Mapping):
        workers = snapshot.get("_worker_snapshots") or {}
        readers: list[Any] = list(workers.values())
        main = snapshot.get("_main_snapshot") or {}
        since = loader_state.get("_steps_since_snapshot", 0)
    else:
        readers = [loader_state]
        main = loader_state
    found = []
    for reader in readers:
        fetcher = reader.get("fetcher_state") or {}
        found += _ours(reader.get("dataset_state"), fetcher.get("dataset_iter_state"))
    # A map dataset has no position of its own: that of its sampler counts.
    return (found or _ours(main.get("_index_sampler_state"), main.get("_sampler_iter_state"))), int(since)


def _ours(*candidates: object) -> list[Mapping[str, Any]]:
    return [state for state in candidates if isinstance(state, Mapping) and "kind" in state and "version" in state][:1]


def _merged(states: Sequence[Mapping[str, Any]], *, complete: bool) -> dict[str, Any]:
    if not states:
        raise ValueError("there are no states to merge")
    kinds = sorted({state_kind(state) for state in states})
    if kinds == [EpochState.KIND]:
        indexed = _merged_indexed([EpochState.from_dict(state) for state in states])
        return (indexed.next_epoch() if indexed.is_over else indexed).to_dict()
    if kinds == [ShardsState.KIND]:
        shards = _merged_shards([ShardsState.from_dict(state) for state in states], complete=complete)
        return (shards.next_epoch() if shards.is_over else shards).to_dict()
    if kinds == [_MIXED]:
        return _merged_mixed(states, complete=complete)
    raise ValueError(f"states of the kinds {', '.join(map(repr, kinds))} do not merge")


def _merged_mixed(states: Sequence[Mapping[str, Any]], *, complete: bool) -> dict[str, Any]:
    """Puts together what ranks know of the streams of shards that they mix in."""
    for name in ("epoch", "slot", "plan", "data"):
        values = [state[name] for state in states]
        if any(value != values[0] for value in values):
            raise ValueError(
                f"the states do not belong together: {name} is {', '.join(str(value)[:80] for value in values[:4])}. "
                "Merge states that the ranks of one run saved at the same step"
            )
    if len(states) > 1 and any("reader" in state or "readers" in state for state in states):
        raise ValueError(
            "states of mixtures merge where each rank took as many whole batches, and none of its readers had come to "
            "the end of its shards without an index: save with s3dataset.DataLoader, or give "
            "Split(steps_per_epoch=), which lets no reader end before the others"
        )
    merged = dict(states[0])
    if "streams" in merged:
        merged["streams"] = {
            number: _merged_shards(
                [ShardsState.from_dict(state["streams"][number]) for state in states], complete=complete
            ).to_dict()
            for number in merged["streams"]
        }
    return merged


def _check_same_run(states: Sequence[Any], names: Iterable[str]) -> None:
    for name in names:
        values = {getattr(state, name) for state in states}
        if len(values) > 1:
            shown = ", ".join(sorted(map(str, values))[:4])
            raise ValueError(
                f"the states do not belong together: {name} is {shown}. Merge states that the ranks of one run saved "
                "at the same step"
            )


def _merged_indexed(states: Sequence[EpochState]) -> EpochState:
    _check_same_run(states, _INDEXED_RUN)
    first = states[0]
    merged = replace(first, bad=first.bad.merged(state.bad for state in states[1:]), reader=None, taken=0)
    readers: dict[Reader, EpochState] = {}
    for state in states:
        if state.reader is None:
            continue
        if state.reader in readers:
            raise ValueError(f"there are two states of worker {state.reader.worker} of rank {state.reader.rank}")
        readers[state.reader] = state
    if not readers:
        return merged
    if len(readers) < len(states):
        raise ValueError("states of single workers and of whole ranks do not merge: give those of one kind")
    if len({(reader.world_size, reader.num_workers) for reader in readers}) > 1:
        raise ValueError("the states come from runs with different numbers of ranks or workers")
    world_size = next(iter(readers)).world_size
    num_batches = first.plan().num_batches
    steps = {}
    for rank in sorted({reader.rank for reader in readers}):
        steps[rank] = _steps_of_rank(rank, readers, num_batches)
    furthest = max(steps.values())
    for rank, taken in steps.items():
        # At the end of an epoch with an exact tail some ranks have one step less than others.
        ended = not first.repeat and first.batches + taken * world_size + rank >= num_batches
        if taken < furthest and not ended:
            raise ValueError(
                f"rank {rank} was saved after {taken} steps and another one after {furthest}: merge states of one step"
            )
    return merged.after(furthest * world_size)


def _steps_of_rank(rank: int, readers: Mapping[Reader, EpochState], num_batches: int) -> int:
    """How many steps a rank took, by what its workers say, who take them in turn."""
    mine = {reader.worker: state for reader, state in readers.items() if reader.rank == rank}
    reader = next(reader for reader in readers if reader.rank == rank)
    missing = sorted(set(range(reader.num_workers)) - mine.keys())
    if missing:
        raise ValueError(f"the states of workers {missing[:10]} of rank {rank} are missing")
    size = mine[0].batch_size
    steps = {worker: -(-state.taken // size) for worker, state in mine.items()}
    total = sum(steps.values())
    begin = mine[0].batches
    ended = not mine[0].repeat and begin + total * reader.world_size + rank >= num_batches
    if any(state.taken % size for state in mine.values()) and not ended:
        raise ValueError(
            f"a worker of rank {rank} was saved in the middle of a batch of {size} samples: give the dataset the "
            "loader's batch size (batch_size=)"
        )
    if any(taken != max(0, -(-(total - worker) // reader.num_workers)) for worker, taken in steps.items()):
        raise ValueError(
            f"the workers of rank {rank} took {[steps[worker] for worker in sorted(steps)][:10]} batches of {size} "
            "samples, which is not in turn: give the dataset the loader's batch size (batch_size=), and leave the "
            "loader's in_order=True"
        )
    return total


def _merged_shards(states: Sequence[ShardsState], *, complete: bool) -> ShardsState:
    states = _of_one_epoch(states)
    _check_same_run(states, _SHARDS_RUN)
    parts = sorted((part for state in states for part in state.parts), key=lambda part: part.stream)
    for part, following in pairwise(parts):
        if part.stream == following.stream:
            raise ValueError(f"there are two states of stream {part.stream}: each rank's state is to be given once")
    merged = replace(states[0], parts=tuple(parts), bad=states[0].bad.merged(state.bad for state in states[1:]))
    if complete and merged.missing:
        raise ValueError(
            f"the states hold {len(parts)} of {merged.streams} streams; missing are {str(merged.missing[:10])[1:-1]}"
            f"{', ...' if len(merged.missing) > 10 else ''}: give the states of all ranks"
        )
    return merged


def _of_one_epoch(states: Sequence[ShardsState]) -> Sequence[ShardsState]:
    """Sets ranks that are at the beginning of the next epoch back to the end of this one, where others still are."""
    epoch = min(state.epoch for state in states)
    aligned = []
    for state in states:
        fresh = all(part == StreamState(part.stream) for part in state.parts)
        if state.epoch == epoch + 1 and fresh:
            of_each, longer = divmod(state.num_shards, state.streams)
            ended = (StreamState(part.stream, next_shard=of_each + (part.stream < longer)) for part in state.parts)
            state = replace(state, epoch=epoch, parts=tuple(ended))  # noqa: PLW2901
        aligned.append(state)
    return aligned


def _gone_on(merged: dict[str, Any], states: Sequence[Mapping[str, Any]], since: int) -> dict[str, Any]:
    """The state so many batches of one rank later."""
    reader = states[0].get("reader")
    if merged["kind"] != EpochState.KIND or not isinstance(reader, list | tuple) or not is_count(since):
        raise ValueError(
            f"the loader yielded {since} batches after its last snapshot, and where these end is not in its state: "
            "make it with snapshot_every_n_steps=1, which is the default, or save at a multiple of it"
        )
    gone_on = EpochState.from_dict(merged).after(since * reader[1])
    return (gone_on.next_epoch() if gone_on.is_over else gone_on).to_dict()
