"""States: what they hold, what is refused, and how those of single readers become one."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from s3dataset._order import (
    BadSample,
    BadSamples,
    EpochState,
    Reader,
    ShardPosition,
    ShardsState,
    StreamState,
    deal_shards,
    default_streams,
    merge_states,
    reader_streams,
    resume_state,
)
from s3dataset.errors import ManifestMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable

INDEXED = EpochState(
    fingerprint="0123456789abcdef" * 4,
    num_samples=10**9,
    seed=2**63,
    epoch=7,
    shuffle=True,
    block_bytes=1 << 28,
    streams=64,
    batch_size=32,
    batches=1000,
)
SHARDS = ShardsState(
    fingerprint="0123456789abcdef" * 4,
    num_shards=12,
    seed=0,
    epoch=7,
    shuffle=True,
    block_bytes=1 << 20,
    block_samples=100,
    open_shards=2,
    streams=4,
    parts=tuple(StreamState(i, 50, 0, 3, 2, 10, (ShardPosition(i, 7, 4096),)) for i in range(4)),
)


def of_reader(worker: int, taken: int, *, rank: int = 0, world_size: int = 1, num_workers: int = 2) -> dict[str, Any]:
    return replace(INDEXED, reader=Reader(rank, world_size, worker, num_workers), taken=taken).to_dict()


def of_streams(*streams: int, **changes: Any) -> dict[str, Any]:
    return replace(SHARDS, parts=tuple(SHARDS.parts[stream] for stream in streams), **changes).to_dict()


# -- One state ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [INDEXED, replace(INDEXED, reader=Reader(1, 2, 3, 4), taken=9), SHARDS])
def test_a_state_survives_json_in_little_room(state: EpochState | ShardsState) -> None:
    text = json.dumps(state.to_dict())
    assert type(state).from_dict(json.loads(text)) == state
    assert len(text) < 600


def test_a_state_of_many_batch_sizes_stays_small_and_then_says_so() -> None:
    state = INDEXED
    for size in range(100, 164):
        state = replace(state.with_batch_size(size), batches=10**7)
    assert len(json.dumps(state.to_dict())) < 4096
    with pytest.raises(ValueError, match=r"64 times in this epoch.*keep batch_size=163"):
        state.with_batch_size(1)
    assert state.with_batch_size(163) == state
    assert state.next_epoch().segments == ()


def test_a_new_batch_size_at_the_start_of_an_epoch_needs_no_segment() -> None:
    state = replace(INDEXED, batches=0).with_batch_size(5)
    assert (state.batch_size, state.segments) == (5, ())
    with pytest.raises(ValueError, match="at least 1"):
        state.with_batch_size(0)
    with pytest.raises(ValueError, match="merge_states"):
        EpochState.from_dict(of_reader(0, 32)).with_batch_size(5)


def test_other_data_is_refused() -> None:
    INDEXED.check(fingerprint=INDEXED.fingerprint, num_samples=10**9)
    with pytest.raises(ManifestMismatchError, match=r"1000000000 samples.*has 5 with abc"):
        INDEXED.check(fingerprint="abc", num_samples=5)
    SHARDS.check(fingerprint=SHARDS.fingerprint, num_shards=12)
    with pytest.raises(ManifestMismatchError, match=r"12 shards.*Manifest\.save"):
        SHARDS.check(fingerprint="abc", num_shards=12)


@pytest.mark.parametrize("kind", [EpochState, ShardsState])
@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "no state of s3dataset"),
        ({}, "no state of s3dataset"),
        ({"kind": "indexed"}, "no state of s3dataset"),
        ({"kind": "other", "version": 1}, "kind 'other'"),
        ({"kind": "indexed", "version": 2}, "newer release"),
        ({"kind": "indexed", "version": "1"}, "from 1 on"),
    ],
)
def test_what_is_no_state_is_refused(kind: type[EpochState | ShardsState], state: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind.from_dict(state)


@pytest.mark.parametrize("state", [INDEXED.to_dict(), SHARDS.to_dict()])
def test_a_state_with_something_missing_or_odd_is_refused(state: dict[str, Any]) -> None:
    read: Callable[[dict[str, Any]], Any] = (
        EpochState.from_dict if state["kind"] == "indexed" else ShardsState.from_dict
    )
    for key in state.keys() - {"bad"}:
        with pytest.raises(ValueError, match=r"no state|damaged"):
            read({name: value for name, value in state.items() if name != key})
        with pytest.raises(ValueError, match=r"no state|damaged|kind|version"):
            read(state | {key: ["nonsense"]})
    with pytest.raises(ValueError, match="bad samples"):
        read(state | {"bad": 3})


@pytest.mark.parametrize(
    "parts",
    [
        [[0, 0, 0, 0, 0, 0, []], [0, 0, 0, 0, 0, 0, []]],
        [[4, 0, 0, 0, 0, 0, []]],
        [[0, 0, 0, 0, 0, 0, [[12, 0, 0]]]],
        [[0, 0, 0, 0, 0, 0, [[1, 0]]]],
        [[0, 0, 0, 0, 0, -1, []]],
    ],
)
def test_streams_that_cannot_be_are_refused(parts: list[Any]) -> None:
    with pytest.raises(ValueError, match="damaged"):
        ShardsState.from_dict(SHARDS.to_dict() | {"parts": parts})


@pytest.mark.parametrize("reader", [[0, 0, 0, 1], [2, 2, 0, 1], [0, 1, 1, 1], [0, 1]])
def test_readers_that_cannot_be_are_refused(reader: list[int]) -> None:
    with pytest.raises(ValueError, match="damaged"):
        EpochState.from_dict(INDEXED.to_dict() | {"reader": reader, "taken": 0})


# -- Streams --------------------------------------------------------------------------------------------------------


def test_the_streams_of_a_run() -> None:
    assert default_streams(1, 0) == 64
    assert default_streams(3, 4) == 72
    assert default_streams(16, 8) == 128
    assert default_streams(2, 4, held_bytes=64 << 20, budget=256 << 20) == 32
    assert default_streams(2, 4, held_bytes=64 << 20, budget=1) == 8
    with pytest.raises(ValueError, match="ranks >= 1"):
        default_streams(0, 1)
    with pytest.raises(ValueError, match="come with budget"):
        default_streams(1, 1, held_bytes=5)


def test_more_ranks_than_streams_are_refused() -> None:
    with pytest.raises(ValueError, match="Resume with at most 4 ranks"):
        reader_streams(4, rank=0, world_size=5)
    with pytest.raises(ValueError, match="worker 2 of 2"):
        reader_streams(4, rank=0, world_size=1, worker=2, num_workers=2)
    with pytest.raises(ValueError, match="rank 1 of 1"):
        reader_streams(4, rank=1, world_size=1)


def test_shards_are_dealt_in_the_same_way_for_ever() -> None:
    dealt = deal_shards(7, 3, range(3), seed=1, epoch=0, shuffle=True)
    assert {stream: list(shards) for stream, shards in dealt.items()} == GOLDEN
    assert [list(shards) for shards in deal_shards(7, 3, range(3), seed=1, epoch=0, shuffle=False).values()] == [
        [0, 3, 6],
        [1, 4],
        [2, 5],
    ]


# -- Several states -------------------------------------------------------------------------------------------------


def test_equal_states_of_ranks_merge_and_their_ledgers_add_up() -> None:
    bad = [BadSamples().added(BadSample("s3://b/k", number, "bad")) for number in (1, 2)]
    merged = EpochState.from_dict(merge_states([replace(INDEXED, bad=one).to_dict() for one in bad]))
    assert merged == replace(INDEXED, bad=merged.bad)
    assert merged.bad.count == 2


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ([], "no states"),
        ([INDEXED.to_dict(), SHARDS.to_dict()], "'indexed', 'shards' do not merge"),
        ([{"kind": "new", "version": 1}], "'new' do not merge"),
        ([INDEXED.to_dict(), replace(INDEXED, epoch=8).to_dict()], "epoch is 7, 8"),
        ([INDEXED.to_dict(), replace(INDEXED, batches=8).to_dict()], "batches is 1000, 8"),
        ([of_reader(0, 32), INDEXED.to_dict()], "of one kind"),
        ([of_reader(0, 32), of_reader(0, 32)], "two states of worker 0 of rank 0"),
        ([of_reader(0, 32)], r"workers \[1\] of rank 0 are missing"),
        ([of_reader(0, 33), of_reader(1, 32)], "in the middle of a batch of 32"),
        ([of_reader(0, 96), of_reader(1, 32)], "not in turn"),
        ([of_reader(0, 32), of_reader(1, 64)], "not in turn"),
        ([of_reader(0, 32), of_reader(1, 32, num_workers=3)], "different numbers of ranks or workers"),
        (
            [of_reader(0, 32 * (2 - rank), rank=rank, world_size=2, num_workers=1) for rank in range(2)],
            "rank 1 was saved after 1 steps and another one after 2",
        ),
        ([of_streams(0, 1), of_streams(1, 2)], "two states of stream 1"),
        ([of_streams(0, 1), of_streams(3)], "missing are 2: give the states of all ranks"),
        ([of_streams(0, 1), of_streams(2, 3, seed=1)], "seed is 0, 1"),
    ],
)
def test_states_that_do_not_belong_together_are_refused(states: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        merge_states(states)


def test_parts_of_ranks_make_the_whole() -> None:
    assert merge_states([of_streams(3, 1), of_streams(0, 2)]) == SHARDS.to_dict()
    assert ShardsState.from_dict(of_streams(0, 2)).missing == [1, 3]
    with pytest.raises(ValueError, match=r"stream 1 is not among them.*merge_states"):
        ShardsState.from_dict(of_streams(0, 2)).part(1)


# -- States of torchdata's loader, in the layout of torchdata 0.11 ----------------------------------------------------


def with_workers(*states: dict[str, Any], since: int = 0, finished: bool = False) -> dict[str, Any]:
    return {
        "_iterator_finished": finished,
        "_snapshot": {
            "_last_yielded_worker_id": 0,
            "_main_snapshot": {"_num_workers": len(states), "_index_sampler_state": None, "_sampler_iter_yielded": 4},
            "_snapshot_step": 4,
            "_worker_snapshots": {
                f"worker_{worker}": {
                    "dataset_state": state,
                    "fetcher_state": {"dataset_iter_state": None, "fetcher_ended": False},
                    "worker_id": worker,
                }
                for worker, state in enumerate(states)
            },
        },
        "_steps_since_snapshot": since,
    }


def test_the_state_of_a_loader_with_workers_becomes_elastic() -> None:
    resumed = resume_state(with_workers(of_reader(0, 64), of_reader(1, 32)))
    assert resumed == replace(INDEXED, batches=1003).to_dict()


def test_batches_after_the_last_snapshot_count() -> None:
    states = [of_reader(worker, 64, rank=2, world_size=4) for worker in range(2)]
    assert resume_state(with_workers(*states, since=3))["batches"] == 1000 + 4 * (4 + 3)


def test_a_finished_epoch_becomes_the_beginning_of_the_next() -> None:
    small = replace(INDEXED, num_samples=1003 * 32 - 5)
    ends = [replace(small, reader=Reader(0, 1, 0, 2), taken=59), replace(small, reader=Reader(0, 1, 1, 2), taken=32)]
    assert resume_state(with_workers(*(end.to_dict() for end in ends), finished=True)) == small.next_epoch().to_dict()
    ended = replace(SHARDS, parts=tuple(StreamState(i, 50, 0, 3, 9) for i in range(4)))
    assert resume_state(with_workers(ended.to_dict(), finished=True)) == SHARDS.next_epoch().to_dict()


def test_a_rank_that_finished_before_the_others_waits_for_them() -> None:
    state = replace(INDEXED, num_samples=1003 * 32)
    one = resume_state(
        with_workers(replace(state, reader=Reader(3, 4, 0, 1), taken=0).to_dict(), finished=True),
    )
    assert one == state.to_dict()
    ended = replace(SHARDS, parts=(StreamState(0, 50, 0, 3, 9), StreamState(2, 50, 0, 3, 9)))
    ranks = [resume_state(with_workers(ended.to_dict(), finished=True)), of_streams(1, 3)]
    assert ShardsState.from_dict(merge_states(ranks)).epoch == SHARDS.epoch


def test_a_fixed_number_of_steps_ends_an_epoch_in_the_middle_of_the_data() -> None:
    state = replace(INDEXED, repeat=True)
    end = replace(state, reader=Reader(0, 2, 0, 1), taken=64).to_dict()
    assert resume_state(with_workers(end, finished=True)) == state.next_epoch().to_dict()
    assert resume_state(with_workers(end))["batches"] == 1004


def test_the_state_of_a_loader_without_workers_becomes_elastic() -> None:
    state = {
        "_index_sampler_state": None,
        "_iterator_finished": False,
        "_num_yielded": 4,
        "dataset_state": of_reader(0, 128, num_workers=1),
        "fetcher_state": {"dataset_iter_state": None, "fetcher_ended": False},
    }
    assert resume_state(state)["batches"] == 1004
    state["fetcher_state"] = {"dataset_iter_state": state.pop("dataset_state"), "fetcher_ended": False}
    assert resume_state(state)["batches"] == 1004


def test_the_sampler_of_a_map_dataset_has_the_position() -> None:
    state = with_workers({"other": 1}, {"other": 2})
    state["_snapshot"]["_main_snapshot"]["_index_sampler_state"] = INDEXED.to_dict()
    assert resume_state(state) == INDEXED.to_dict()
    state["_steps_since_snapshot"] = 2
    with pytest.raises(ValueError, match="snapshot_every_n_steps=1"):
        resume_state(state)
    state["_snapshot"]["_main_snapshot"]["_index_sampler_state"] = of_reader(0, 0, num_workers=1)
    assert resume_state(state)["batches"] == 1002


def test_un_indexed_streams_of_one_rank_wait_for_those_of_the_others() -> None:
    ranks = [resume_state(with_workers(of_streams(0), of_streams(2))), resume_state(with_workers(of_streams(1, 3)))]
    assert merge_states(ranks) == SHARDS.to_dict()
    with pytest.raises(ValueError, match="snapshot_every_n_steps=1"):
        resume_state(with_workers(of_streams(0), of_streams(2), since=1))


def test_a_state_of_ours_comes_back_as_it_is() -> None:
    assert resume_state(INDEXED.to_dict()) == INDEXED.to_dict()


@pytest.mark.parametrize("state", [{}, {"dataset_state": {"epoch": 3}}, with_workers({"offset": 3})])
def test_states_of_other_datasets_are_refused(state: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no state of s3dataset"):
        resume_state(state)
    with pytest.raises(ValueError, match="is a dict"):
        resume_state([state])  # type: ignore[arg-type]


GOLDEN = {0: [1, 4, 3], 1: [0, 6], 2: [2, 5]}
