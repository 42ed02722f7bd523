"""The watch over a loop: when it warns, when it does not, and what it says."""

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from s3dataset import Stats
from s3dataset._datasets import _loop_watch
from s3dataset._datasets._loop_watch import LoopWatch, Settings, Watched
from s3dataset.monitoring import DataWaitWarning


class World:
    """A clock that goes on only where a test says, and a dataset that counts what is asked of it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.stats = Stats()
        self.counted = 0.0

    def count(self, wait_s: float) -> None:
        self.counted += wait_s

    def watch(self, settings: Settings | None = None, *, warn: bool | None = None) -> LoopWatch:
        settings = settings or Settings(num_workers=0)
        return LoopWatch(lambda: self.stats, lambda: settings, settings.num_workers, warn=warn)

    def batches(self, waits: Iterator[float], *, transform: float = 0.0, network: float = 1.0) -> Iterator[int]:
        """Batches that take so long, for whose samples S3 and a transform were waited in these shares."""
        for number, wait_s in enumerate(waits):
            self.now += wait_s
            self.stats = Stats(
                samples=8 * (number + 1),
                requests=8 * (number + 1),
                network_wait_s=self.stats.network_wait_s + network * wait_s,
                transform_s=self.stats.transform_s + transform * wait_s,
            )
            yield number

    def loop(self, watch: LoopWatch, batches: Iterator[Any], steps: Iterator[float], count: int) -> list[str]:
        """Takes so many batches, each for a step of training; -> what was warned of."""
        watch.begin(self.count)
        watched = Watched(batches, watch, 0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for step_s in itertools.islice(steps, count):
                next(watched)
                self.now += step_s
        assert all(warning.category is DataWaitWarning for warning in caught)
        assert all(warning.filename == __file__ for warning in caught)
        return [str(warning.message) for warning in caught]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(_loop_watch, "clock", lambda: made.now)
    return made


def test_a_loop_that_waits_a_third_of_its_time_is_warned_once(world: World) -> None:
    told = world.loop(world.watch(), world.batches(itertools.repeat(0.5)), itertools.repeat(1.0), 200)
    assert len(told) == 1
    assert "waited for data 33% of 10 s" in told[0] or "waited for data 33% of 11 s" in told[0]
    assert "The bottleneck is the network" in told[0]
    assert "S3DATASET_WARN_WAITS=0" in told[0]


def test_a_loop_that_waits_a_tenth_of_its_time_is_not(world: World) -> None:
    assert not world.loop(world.watch(), world.batches(itertools.repeat(0.1)), itertools.repeat(0.9), 500)


def test_a_slow_consumer_is_not(world: World) -> None:
    assert not world.loop(world.watch(), world.batches(itertools.repeat(0.001)), itertools.repeat(5.0), 100)


def test_the_first_batches_of_every_epoch_do_not_count(world: World) -> None:
    watch = world.watch(Settings(num_workers=2))
    for _ in range(30):
        waits = itertools.chain([6.0, 3.0, 3.0, 3.0], itertools.repeat(0.0))
        assert not world.loop(watch, world.batches(waits), itertools.repeat(0.2), 20)


def test_what_lies_between_epochs_does_not_count(world: World) -> None:
    watch = world.watch()
    for _ in range(30):
        assert not world.loop(watch, world.batches(itertools.repeat(0.01)), itertools.repeat(1.0), 6)
        world.now += 60.0  # validation


def test_short_epochs_count_together(world: World) -> None:
    watch = world.watch()
    told = [
        text
        for _ in range(10)
        for text in world.loop(watch, world.batches(itertools.repeat(0.5)), itertools.repeat(0.1), 8)
    ]
    assert len(told) == 1


def test_one_late_answer_is_no_reason(world: World) -> None:
    waits = itertools.cycle([*[0.0] * 20, 9.0])
    assert not world.loop(world.watch(), world.batches(waits), itertools.repeat(0.5), 300)


def test_less_than_ten_seconds_are_no_reason(world: World) -> None:
    assert not world.loop(world.watch(), world.batches(itertools.repeat(1.0)), itertools.repeat(0.0), 11)


def test_all_waits_are_counted_the_first_ones_too(world: World) -> None:
    world.loop(world.watch(), world.batches(itertools.repeat(0.5)), itertools.repeat(2.0), 4)
    assert world.counted == 2.0


def test_a_loop_that_becomes_slow_is_warned(world: World) -> None:
    watch = world.watch()
    assert not world.loop(watch, world.batches(itertools.repeat(0.0)), itertools.repeat(1.0), 1000)
    assert world.loop(watch, world.batches(itertools.repeat(1.0), network=0.1), itertools.repeat(1.0), 30)


@pytest.mark.parametrize(
    ("argument", "variable", "warned"), [(False, "1", 0), (None, "0", 0), (None, "off", 0), (True, "0", 1)]
)
def test_it_can_be_turned_off(
    world: World, monkeypatch: pytest.MonkeyPatch, argument: bool | None, variable: str, warned: int
) -> None:
    monkeypatch.setenv("S3DATASET_WARN_WAITS", variable)
    watch = world.watch(warn=argument)
    assert len(world.loop(watch, world.batches(itertools.repeat(1.0)), itertools.repeat(0.1), 100)) == warned
    assert world.counted == pytest.approx(100.0)


def test_as_an_error_it_costs_no_batch(world: World) -> None:
    watch = world.watch()
    watch.begin(world.count)
    watched = Watched(world.batches(itertools.repeat(1.0)), watch, 0)
    taken, errors = [], 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(40):
            try:
                taken.append(next(watched))
            except DataWaitWarning:
                errors += 1
    assert errors == 1
    assert taken == list(range(39))


# -- What it says ------------------------------------------------------------------------------------------------------

NETWORK = Stats(samples=10, requests=100, network_wait_s=9.0, transform_s=1.0, consumer_wait_s=3.0)
TRANSFORM = Stats(samples=10, requests=100, network_wait_s=1.0, transform_s=9.0, consumer_wait_s=3.0)
HANDED = Stats(samples=10, requests=100, network_wait_s=1.0, transform_s=1.0, consumer_wait_s=9.0)


@pytest.mark.parametrize(
    ("window", "settings", "said"),
    [
        (NETWORK, Settings(2, None, 32, looks_ahead=True, max_connections=512), "ahead=16 (now 4)"),
        (NETWORK, Settings(2, 0, 32, looks_ahead=True, max_connections=64), "ahead=4 (now 0)"),
        (NETWORK, Settings(2, 8, 32, looks_ahead=True, max_connections=64), "max_connections=128) (now 64"),
        (NETWORK, Settings(0, None, 8, max_connections=50), "max_connections=100) (now 50"),
        (NETWORK, Settings(3, None, 8, has_index=False), "num_workers=6 (now 3)"),
        (NETWORK, Settings(2, None, 8, looks_ahead=True, not_ahead="in_order=True"), "in_order=True"),
        (NETWORK, Settings(3, on_demand=True), "num_workers=6 (now 3)"),
        (TRANSFORM, Settings(0), "num_workers=2 (now 0)"),
        (TRANSFORM, Settings(2), "num_workers=4 (now 2)"),
        (TRANSFORM, Settings(6), "num_workers=8 (now 6)"),
        (TRANSFORM, Settings(8), "a worker for each of 8 CPU cores"),
        (HANDED, Settings(2), "collate_fn="),
        (HANDED, Settings(2, staged=True), "num_workers=4 (now 2)"),
        (HANDED, Settings(8, staged=True), "the stages' functions, or collate_fn=: there is a worker for each of 8"),
    ],
)
def test_it_names_one_setting(monkeypatch: pytest.MonkeyPatch, window: Stats, settings: Settings, said: str) -> None:
    monkeypatch.setattr(_loop_watch, "cores", lambda: 8)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    text = _loop_watch.told(window, 5.0, 10.0, settings)
    assert said in text
    assert text.count("Change first: ") == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            Settings(1, None, 1, looks_ahead=True, memory_limit_bytes=32 << 20),
            "memory_limit_bytes=67108864) (now 33554432",
        ),
        (Settings(1, 2, 1, looks_ahead=True, memory_limit_bytes=32 << 20), "ahead="),
        (Settings(1, memory_limit_bytes=32 << 20, max_connections=64), "memory_limit_bytes=67108864"),
        (Settings(1, memory_limit_bytes=1 << 30, max_connections=64), "max_connections=128"),
    ],
)
def test_more_requests_at_once_need_memory(settings: Settings, said: str) -> None:
    """Of 32 MiB half is fetched ahead: four objects of 4 MiB, whatever the connections."""
    window = Stats(samples=50, requests=50, bytes=50 * (4 << 20), network_wait_s=9.0)
    text = _loop_watch.told(window, 5.0, 10.0, settings)
    assert f"Change first: {said}" in text.replace("S3ClientConfig(", "")


def test_the_ranks_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_loop_watch, "cores", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert "a worker for each of 2 CPU cores" in _loop_watch.told(TRANSFORM, 5.0, 10.0, Settings(2))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "four")  # the launcher's affair
    assert "a worker for each of 8 CPU cores" in _loop_watch.told(TRANSFORM, 5.0, 10.0, Settings(8))


def test_a_service_that_asks_for_less_is_not_asked_for_more() -> None:
    text = _loop_watch.told(
        Stats(samples=10, requests=100, throttles=5, network_wait_s=9.0), 5.0, 10.0, Settings(2, max_connections=8)
    )
    assert "s3dataset pack" in text
    assert "max_connections" not in text


def test_in_the_loops_own_process_its_training_is_no_bottleneck() -> None:
    window = Stats(samples=10, network_wait_s=4.0, transform_s=1.0, consumer_wait_s=50.0)
    assert _loop_watch.bottleneck_of(window, 5.0, 0) == "network"
    assert _loop_watch.bottleneck_of(window, 20.0, 0) == "consumer"  # a collate_fn takes three quarters of the wait
