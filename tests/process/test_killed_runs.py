"""A run that is killed at any moment, several times, and started again each time is the run that was not."""

import multiprocessing
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests import preloaded
from tests.process.killed_trainer import train
from tests.process.shard_world import COUNTS, put_shards

import s3dataset
from s3dataset.testing import LocalS3

EPOCHS = 2
KILLS = 3
PATIENCE_S = 250


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3("bucket") as running:
        put_shards(running, "small/", "tar", COUNTS)
        manifest = s3dataset.Manifest.from_prefix("s3://bucket/small/").index("tar")
        manifest.save("s3://bucket/small/index.manifest")
        yield running


def start(kind: str, run: str, workers: int) -> tuple[Any, Any]:
    """A trainer, and what says its steps."""
    steps, said = multiprocessing.Pipe(duplex=False)
    process = preloaded.start(train, kind, "s3://bucket/small/", run, workers, EPOCHS, said)
    said.close()
    return process, steps


def steps_of(steps: Any, most: int | None = None) -> int:
    """Waits for so many steps, or for the end; -> the last one."""
    last = 0
    try:
        while most is None or most > 0:
            assert steps.poll(PATIENCE_S)
            last = steps.recv()
            most = None if most is None else most - 1
    except EOFError:
        pass
    return last


def log_of(run: str) -> list[Any]:
    with s3dataset.CheckpointManager(run) as manager:
        restored = manager.restore()
    assert restored is not None
    log: list[Any] = restored.metadata["log"]
    return log


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("kind", "workers"), [("stream", [2, 0, 3, 1]), ("map", [1, 3, 0, 2]), ("stateful", [2, 2, 2, 2])]
)
def test_losses_and_samples_are_those_of_a_run_that_was_not_killed(
    server: LocalS3, kind: str, workers: list[int]
) -> None:
    choose = random.Random(f"{kind}{time.time_ns()}")
    process, steps = start(kind, f"s3://bucket/runs/{kind}-whole", workers[1])
    steps_of(steps)
    process.join(PATIENCE_S)
    assert process.exitcode == 0
    whole = log_of(f"s3://bucket/runs/{kind}-whole")
    assert sorted(n for epoch, _, batch in whole if epoch == 1 for n in batch) == list(range(sum(COUNTS)))
    run, story = f"s3://bucket/runs/{kind}", []
    for attempt, count in enumerate(workers):
        process, steps = start(kind, run, count)
        if attempt < KILLS:
            reached = steps_of(steps, choose.randint(1, len(whole) // KILLS))
            pause = choose.uniform(0, 0.05)
            time.sleep(pause)
            process.kill()
            story.append((reached, pause))
        else:
            steps_of(steps)
        process.join(PATIENCE_S)
    assert process.exitcode == 0, story
    assert log_of(run) == whole, story
