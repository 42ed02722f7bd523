"""A sample of `make kills`, in which every wait and every ending occurs; and workers that are killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.process.kills.cells import BOUND_S, Manner, applies, fill, run_cell
from tests.process.kills.endings import ENDINGS, Ending
from tests.process.kills.waits import BUCKET, WAITS, Wait

from s3dataset.testing import Fault, LocalS3


def some_of(wait: Wait, i: int) -> tuple[Wait, Ending, Manner]:
    """Ctrl-C, which users do most, for every second wait; the others in turn for those between."""
    fitting = [ending for ending in ENDINGS if applies(wait, ending)]
    return wait, fitting[0 if i % 2 else (i // 2) % len(fitting)], "slow" if i % 3 == 2 else "silent"


SAMPLE: list[tuple[Wait, Ending, Manner]] = [some_of(wait, i) for i, wait in enumerate(WAITS)]


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3(BUCKET, activate=False) as server:
        fill(server)
        yield server


@pytest.mark.slow
@pytest.mark.parametrize(("wait", "ending", "manner"), SAMPLE, ids=[f"{w.title}, {e.title}, {m}" for w, e, m in SAMPLE])
def test_it_ends_and_leaves_nothing(server: LocalS3, wait: Wait, ending: Ending, manner: Manner) -> None:
    cell = run_cell(server, wait, ending, manner)
    assert not cell.wrong, cell


WORKERS = """
import os
import s3dataset

def size(reader):
    return len(reader.read())

if __name__ == "__main__":
    dataset = s3dataset.S3IterableDataset.from_prefix("s3://bucket/images/", transform=size).prepare()
    loader = s3dataset.DataLoader(dataset, num_workers=2, multiprocessing_context="{method}")
    batches = iter(loader)
    print(*(worker.pid for worker in batches._workers), flush=True)
    try:
        list(batches)
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)  # torch's signal handler raises wherever the program happens to be
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_that_are_killed_are_an_error_and_leave_no_others(
    server: LocalS3, method: str, number: signal.Signals, tmp_path: Path
) -> None:
    path = tmp_path / "program.py"
    path.write_text(WORKERS.format(method=method))
    fault = server.add_fault(Fault.stall(at=None, times=None, operation="GetObject"))[0]
    environment = {**os.environ, **server.environment}
    with subprocess.Popen([sys.executable, str(path)], stdout=-1, stderr=-1, text=True, env=environment) as program:
        try:
            assert program.stdout is not None
            workers = [psutil.Process(int(pid)) for pid in program.stdout.readline().split()]
            assert len(workers) == 2
            deadline = time.monotonic() + 60
            while server.fault_counts()[fault] == 0:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            workers[1].send_signal(number)
            assert "DataLoader worker" in program.stdout.readline()
            assert program.wait(BOUND_S) == 0
            assert psutil.wait_procs(workers, BOUND_S)[1] == []
        finally:
            program.kill()
            server.clear_faults()
