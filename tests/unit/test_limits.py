"""What a process takes of the machine."""

import pytest

from s3dataset import _limits
from s3dataset._limits import memory_of_machine_bytes, process_limits

MIB = 1 << 20
GIB = 1 << 30


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_limits, "memory_of_machine_bytes", lambda: 64 * GIB)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(32)), raising=False)
    monkeypatch.setattr(_limits, "_files", lambda: 1 << 20)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


def test_a_large_machine_gives_a_gibibyte_and_256_connections() -> None:
    assert process_limits() == _limits.ProcessLimits(lanes=4, memory_limit_bytes=GIB, max_connections=256)


def test_a_small_container_gives_five_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_limits, "memory_of_machine_bytes", lambda: 4000 * MIB)
    assert process_limits().memory_limit_bytes == 200 * MIB


def test_ranks_and_workers_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    limits = process_limits(share=4, lanes=1)
    assert (limits.lanes, limits.memory_limit_bytes, limits.max_connections) == (1, GIB // 8, 32)


def test_nobody_gets_less_than_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    limits = process_limits(share=64)
    assert (limits.memory_limit_bytes, limits.max_connections) == (32 * MIB, 16)


def test_connections_leave_file_descriptors_to_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_limits, "_files", lambda: 256)
    assert process_limits().max_connections == 128


@pytest.mark.parametrize(
    ("target", "ranks", "lanes"), [(10.0, 1, 4), (60.0, 1, 6), (400.0, 1, 8), (100.0, 8, 2), (100.0, 64, 1)]
)
def test_engine_threads_follow_the_target_within_the_cores(
    monkeypatch: pytest.MonkeyPatch, target: float, ranks: int, lanes: int
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert process_limits(throughput_target_gbps=target).lanes == lanes


def test_a_launchers_nonsense_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "all")
    assert process_limits().max_connections == 256


def test_the_machines_memory_is_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 16 * MIB < memory_of_machine_bytes() < 1 << 50
