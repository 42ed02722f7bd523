"""Counters: how the time of a thread is shared out, over one dataset and over several that it serves in turn."""

from typing import Any

import pytest

from s3dataset import Stats
from s3dataset._datasets import _counters
from s3dataset._datasets._counters import Counters


class World:
    """A clock, what a thread received by then, and a page for each dataset."""

    def __init__(self) -> None:
        self.now = self.waited_s = 0.0
        self.nbytes = 0

    def perf_counter(self) -> float:
        return self.now

    def received(self) -> tuple[float, int]:
        return self.waited_s, self.nbytes

    def fetch(self, seconds: float, nbytes: int) -> None:
        self.now += seconds
        self.waited_s += seconds
        self.nbytes += nbytes

    def counters(self) -> Counters:
        page: dict[str, int] = {}
        add = lambda deltas: page.update({name: page.get(name, 0) + more for name, more in deltas.items()})  # noqa: E731
        fake: Any = type("Page", (), {"add_many": staticmethod(add), "items": staticmethod(lambda: page)})
        return Counters(lambda: fake, dict)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Any:
    world = World()
    monkeypatch.setattr(_counters, "time", world)
    monkeypatch.setattr(_counters, "received_by_thread", world.received)
    world.counters().pause()
    yield world
    world.counters().pause()


def waits(stats: Stats) -> tuple[float, float, float]:
    return stats.network_wait_s, stats.transform_s, stats.consumer_wait_s


def test_all_of_the_time_of_an_iteration_is_shared_out(world: World) -> None:
    counters = world.counters()
    for _ in range(3):
        asked = counters.asked()
        world.fetch(2.0, 100)
        world.now += 3.0
        counters.made(asked)
        world.now += 5.0
    counters.asked()
    total = counters.totals()
    assert waits(total) == (6.0, 9.0, 15.0)
    assert (total.samples, total.bytes) == (3, 300)


def test_a_batch_is_asked_for_once(world: World) -> None:
    counters = world.counters()
    asked = counters.asked()
    for _ in range(4):
        world.fetch(1.0, 10)
        world.now += 0.5
        asked = counters.made(asked)
    counters.asked()
    total = counters.totals()
    assert waits(total) == (4.0, 2.0, 0.0)
    assert (total.samples, total.bytes) == (4, 40)


def test_datasets_that_a_thread_reads_in_turn_share_its_time(world: World) -> None:
    """None counts as its consumer's what another one took, and what nobody took counts once."""
    sources = [world.counters(), world.counters()]
    for n in range(6):
        source = sources[n % 2]
        asked = source.asked()
        world.fetch(1.0 + n % 2, 1)
        source.made(asked)
        world.now += 0.25
    sources[0].asked()
    assert [waits(source.totals()) for source in sources] == [(3.0, 0.0, 0.75), (6.0, 0.0, 0.75)]


def test_between_two_iterations_nobody_waits_for_samples(world: World) -> None:
    counters = world.counters()
    counters.made(counters.asked())
    counters.pause()
    world.now += 100.0
    counters.made(counters.asked())
    assert waits(counters.totals()) == (0.0, 0.0, 0.0)


def test_what_came_before_an_iteration_is_nobodys(world: World) -> None:
    """A look at a sample, and minutes later an epoch."""
    world.counters().made(world.counters().asked())
    world.now += 100.0
    counters = world.counters()
    counters.made(counters.begun())
    assert waits(counters.totals()) == (0.0, 0.0, 0.0)


def test_what_a_transform_takes_of_a_dataset_counts_once(world: World) -> None:
    outer, inner = world.counters(), world.counters()
    asked = outer.asked()
    world.fetch(1.0, 10)
    for _ in range(2):
        within = inner.asked()
        world.fetch(2.0, 5)
        world.now += 1.0
        inner.made(within)
        world.now += 0.5
    inner.pause()
    world.now += 3.0
    outer.made(asked)
    outer.pause()
    assert waits(outer.totals()) == (1.0, 3.5, 0.0)
    assert waits(inner.totals()) == (4.0, 2.0, 0.5)
    assert (outer.totals().bytes, inner.totals().bytes) == (10, 10)


def test_an_iterator_that_is_collected_meanwhile_publishes_nothing_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = world.counters()

    def rounded(value: float) -> int:
        """The collector may run in any call, and end an iterator there, which publishes."""
        if not within:
            within.append(True)
            counters.publish()
        return round(value)

    within: list[bool] = []
    monkeypatch.setattr(_counters, "round", rounded, raising=False)
    asked = counters.asked()
    world.fetch(1.0, 100)
    counters.made(asked)
    total = counters.totals()
    assert (total.samples, total.bytes, waits(total)) == (1, 100, (1.0, 0.0, 0.0))
