"""A run that is killed at any moment, several times, and started again each time is the run that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.process.shard_world import put_shards

import s3dataset
from s3dataset.testing import LocalS3

COUNTS = [31, 8, 50, 1, 20, 33]
EPOCHS = 2
KILLS = 3


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3("bucket") as running:
        put_shards(running, "small/", "tar", COUNTS)
        manifest = s3dataset.Manifest.from_prefix("s3://bucket/small/").index("tar")
        manifest.save("s3://bucket/small/index.manifest")
        yield running


def start(kind: str, run: str, workers: int) -> "subprocess.Popen[str]":
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-m", "tests.process.killed_trainer", kind, "s3://bucket/small/", run]
    return subprocess.Popen(
        [*command, str(workers), str(EPOCHS)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root}/src:{root}", "PYTHONWARNINGS": "ignore"},
    )


def ended(process: "subprocess.Popen[str]") -> None:
    try:
        process.communicate(timeout=250)
    finally:
        process.kill()


def log_of(run: str) -> list[Any]:
    with s3dataset.CheckpointManager(run) as manager:
        restored = manager.restore()
    assert restored is not None
    log: list[Any] = restored.metadata["log"]
    return log


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("kind", "workers"), [("stream", [2, 0, 3, 1]), ("map", [1, 3, 0, 2]), ("stateful", [2])])
def test_losses_and_samples_are_those_of_a_run_that_was_not_killed(
    server: LocalS3, kind: str, workers: list[int]
) -> None:
    choose = random.Random(f"{kind}{time.time_ns()}")
    process = start(kind, f"s3://bucket/runs/{kind}-whole", 0 if kind != "stateful" else workers[0])
    ended(process)
    assert process.returncode == 0
    whole = log_of(f"s3://bucket/runs/{kind}-whole")
    assert sorted(n for epoch, _, batch in whole if epoch == 1 for n in batch) == list(range(sum(COUNTS)))
    run = f"s3://bucket/runs/{kind}"
    steps, story = 0, []
    for attempt in range(KILLS + 1):
        process = start(kind, run, workers[attempt % len(workers)])
        assert process.stdout is not None
        if attempt < KILLS and steps < len(whole) - 2:
            for _ in range(choose.randint(1, max(1, (len(whole) - steps) // 3))):
                line = process.stdout.readline()
                steps = int(line or steps)
            pause = choose.uniform(0, 0.05)
            time.sleep(pause)
            story.append((steps, pause))
            process.send_signal(signal.SIGKILL)
        ended(process)
    assert process.returncode == 0, story
    assert log_of(run) == whole, story
