"""Any run that stops anywhere and goes on with others is the run that did not stop: under real loaders, at random.

HYPOTHESIS_PROFILE=thorough takes twenty times as many examples.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from tests.process.resume_world import LAYOUTS, Run, epochs_of, interleaved, put_all
from tests.process.shard_world import flat

from s3dataset import Manifest, merge_states
from s3dataset.testing import LocalS3

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:This DataLoader will create", "ignore:.*multi-threaded.*fork", "ignore:.* is deprecated"
    ),
    pytest.mark.timeout(3000),
]

# An example starts up to a dozen processes.
few = settings(
    max_examples=max(1, settings().max_examples // 33), suppress_health_check=list(HealthCheck), print_blob=True
)

World = dict[tuple[str, str, bool], Manifest]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with LocalS3("bucket") as server:
        found: World = {}
        for (kind, layout), manifest in put_all(server).items():
            found[kind, layout, False] = manifest
            found[kind, layout, True] = manifest if kind == "objects" else manifest.index(kind)
        yield found


@st.composite
def runs(draw: st.DrawFn, data: tuple[str, ...], loaders: tuple[str, ...]) -> tuple[str, str, dict[str, Any]]:
    """What is read, of which layout, and how."""
    what = draw(st.sampled_from(data))
    kind = draw(st.sampled_from(["tar", "jsonl", "parquet", *(["objects"] if what != "unindexed" else [])]))
    options = {
        "data": what,
        "loader": draw(st.sampled_from(loaders)),
        "seed": draw(st.none() | st.integers(0, 99)),
        "batch": draw(st.sampled_from([1, 2, 5, 8, 33, 200])),
        "persistent": draw(st.booleans()),
        "ahead": draw(st.booleans()),
    }
    return kind, draw(st.sampled_from(sorted(LAYOUTS))), options


def made(world: World, drawn: tuple[str, str, dict[str, Any]]) -> Run:
    kind, layout, options = drawn
    return Run(world[kind, layout, options["data"] != "unindexed"], kind, **options)


workers = st.integers(0, 3)
ranks = st.integers(1, 3)
epochs = st.integers(0, 3)


@few
@given(
    drawn=runs(("indexed", "map", "mixed"), ("ours", "torch", "stateful")),
    segments=st.lists(st.tuples(ranks, workers, st.floats(0, 1)), min_size=1, max_size=3),
    last=st.tuples(ranks, workers),
    epoch=epochs,
)
def test_what_has_numbers_is_one_sequence_for_all_ranks_and_workers(
    world: World, drawn: Any, segments: list[tuple[int, int, float]], last: tuple[int, int], epoch: int
) -> None:
    run = made(world, drawn)
    if run.data == "mixed" and run.loader != "ours":
        run = made(world, (*drawn[:2], drawn[2] | {"loader": "ours"}))
    expected, following = epochs_of(run, epoch, 2)
    if run.data != "mixed":
        assert sorted(flat(expected)) == sorted(flat(following)) == list(range(sum(LAYOUTS[drawn[1]])))
    taken: list[list[int]] = []
    state = None
    most = 1 if run.data == "mixed" else 3  # several ranks leave out the last slots
    for wanted, num_workers, share in segments:
        world_size, left = min(wanted, most), len(expected) - len(taken)
        steps = round(share * (left // world_size))
        by_rank, states = [], []
        for rank in range(world_size):
            begun = run.of(rank, world_size, num_workers).begin()
            if state is None:
                begun.set_epoch(epoch)
            else:
                begun.load(state)
            batches, known = begun.stopped(steps)
            by_rank.append(batches)
            states.append(known)
        assert all(one == states[0] for one in states)
        state = states[0]
        taken += interleaved(by_rank)
        note(f"{world_size} ranks, {num_workers} workers, {steps} steps: {state}")
        assert taken == expected[: len(taken)]
        assert state["epoch"] == epoch + (len(taken) == len(expected))
        if len(taken) == len(expected):
            break
    assert state is not None
    world_size, num_workers = min(last[0], most), last[1]
    by_rank, later = [], []
    for rank in range(world_size):
        begun = run.of(rank, world_size, num_workers).begin()
        begun.load(state)
        if state["epoch"] == epoch:
            by_rank.append(begun.take())
        later.append(begun.take())
    assert taken + interleaved(by_rank) == expected
    assert interleaved(later) == following


@few
@given(
    drawn=runs(("unindexed",), ("ours", "stateful")),
    segments=st.lists(st.tuples(ranks, workers, st.integers(0, 9)), min_size=1, max_size=3),
    last=st.tuples(ranks, workers),
    epoch=epochs,
)
def test_without_an_index_each_sample_comes_once(
    world: World, drawn: Any, segments: list[tuple[int, int, int]], last: tuple[int, int], epoch: int
) -> None:
    run = made(world, drawn)
    everything = list(range(sum(LAYOUTS[drawn[1]])))
    taken: list[int] = []
    state: dict[str, Any] | None = None
    for wanted, num_workers, steps in [*segments, (*last, 10**6)]:
        world_size = wanted if state is None else min(wanted, state["streams"])
        states = []
        for rank in range(world_size):
            begun = run.of(rank, world_size, num_workers).begin()
            if state is None:
                begun.set_epoch(epoch)
            else:
                begun.load(state)
            batches = begun.take(steps)
            taken += flat(batches)
            states.append(begun.state(len(batches)))
        state = merge_states(states)
        note(f"{world_size} ranks, {num_workers} workers, {steps} steps: {state}")
        assert state is not None
        if state["epoch"] > epoch:
            break
    assert Counter(taken) == Counter(everything)


@few
@given(
    drawn=runs(("indexed", "unindexed", "map", "mixed", "staged"), ("ours", "stateful")),
    workers=workers,
    rank=st.tuples(ranks, st.integers(0, 2)),
    stop=st.floats(0, 1) | st.just(2.0),
    epoch=st.integers(0, 1),
)
def test_the_same_topology_goes_on_where_it_stopped(
    world: World, drawn: Any, workers: int, rank: tuple[int, int], stop: float, epoch: int
) -> None:
    """Every kind of data, with the loader's own state: batch by batch, and the epochs behind it."""
    world_size = 1 if drawn[2]["data"] == "mixed" else rank[0]
    run = made(world, drawn).of(rank[1] % world_size, world_size, workers)
    expected = list(epochs_of(run, 0, 4))
    first = run.begin()
    for n in range(epoch):
        assert first.take() == expected[n]
    size = len(expected[epoch])
    ended = stop > 1 or not size
    batches = iter(first.loader)
    before = [[int(n) for n in next(batches)] for _ in range(size if ended else round(stop * size))]
    if ended:
        assert next(batches, None) is None
    state = first.loader.state_dict()
    note(f"{len(before)} of {size}, {'ended' if ended else 'stopped'}: {state}")
    del batches
    second = run.begin()
    second.loader.load_state_dict(state)
    if run.loader == "ours" and "kind" in state:
        rest = second.take() if state["epoch"] == epoch else []
    else:
        rest = [] if ended else second.take()
    assert before + rest == expected[epoch]
    assert [second.take() for _ in range(2)] == expected[epoch + 1 : epoch + 3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "data", "loader"),
    [
        ("spawn", "indexed", "ours"),
        ("spawn", "map", "stateful"),
        ("forkserver", "unindexed", "stateful"),
        ("forkserver", "mixed", "ours"),
    ],
)
def test_workers_that_are_not_forked_go_on_too(world: World, method: str, data: str, loader: str) -> None:
    manifest = world["tar", "even", data != "unindexed"]
    run = Run(manifest, "tar", data, loader, seed=3, batch=8, workers=2, method=method, ahead=True)
    expected = list(epochs_of(Run(manifest, "tar", data, loader, seed=3, batch=8, workers=2), 0, 2))
    first = run.begin()
    batches = iter(first.loader)
    before = [[int(n) for n in next(batches)] for _ in range(3)]
    state = first.loader.state_dict()
    del batches
    second = run.begin()
    second.loader.load_state_dict(state)
    assert before + second.take() == expected[0]
    assert second.take() == expected[1]
