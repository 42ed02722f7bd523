"""Trainings that keep their checkpoints in S3, are killed, and go on."""

import io
import json
import socket
import time
import uuid
from importlib.util import find_spec

import pytest
import torch
from tests.process.trainer.training import EVERY, STEPS, Training

from s3dataset.testing import Fault, LocalS3

pytestmark = pytest.mark.skipif(find_spec("lightning") is None, reason="Lightning is not installed")

TIMEOUT_S = 120


@pytest.fixture(scope="module")
def server():
    with LocalS3("bucket", activate=False) as server:
        yield server


@pytest.fixture
def s3(server):
    server.clear_faults()
    server.reset_stats()
    return server


@pytest.fixture
def run():
    return f"run-{uuid.uuid4().hex[:8]}"


def finish(process, training):
    process.join(TIMEOUT_S)
    if process.exitcode != 0:
        process.kill()
        raise AssertionError(training.answer.with_suffix(".log").read_text())
    return json.loads(training.answer.read_text())


def wait_for(condition, process, training):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert process.is_alive(), training.answer.with_suffix(".log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def loaded(data):
    return torch.load(io.BytesIO(data), weights_only=False)


@pytest.fixture(scope="module")
def undisturbed(server, tmp_path_factory):
    """How it ends when nothing happens."""
    training = Training("s3://bucket/undisturbed", tmp_path_factory.mktemp("undisturbed") / "answer")
    return finish(training.start(server.environment), training)


def test_it_trains_and_keeps_the_best(s3, undisturbed):
    assert undisturbed["from"] is None
    assert undisturbed["to"] == STEPS
    assert s3.keys("bucket", "undisturbed/") == [
        f"undisturbed/epoch=0-step={STEPS - EVERY}.ckpt",
        f"undisturbed/epoch=0-step={STEPS}.ckpt",
        "undisturbed/last.ckpt",
    ]
    assert loaded(s3.get("bucket", "undisturbed/last.ckpt"))["global_step"] == STEPS


KINDS = {
    "plugin": {},
    "fsspec": {"by_fsspec": True},
    "asynchronous": {"asynchronous": True},
    "pytorch_lightning": {"framework": "pytorch_lightning"},
    "in parts": {"width": 1 << 18},
    "in parts by fsspec": {"width": 1 << 18, "by_fsspec": True},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_killed_in_the_middle_of_a_save_it_goes_on_from_the_one_before(s3, run, tmp_path, undisturbed, kind):
    key = f"{run}/epoch=0-step={3 * EVERY}.ckpt"
    operation = "UploadPart" if "width" in kind else "PutObject"
    number = s3.add_fault(Fault.stall(at=1000, operation=operation, key=key, times=None))[0]
    training = Training(f"s3://bucket/{run}", tmp_path / "answer", **kind)
    process = training.start(s3.environment)
    wait_for(lambda: s3.fault_counts()[number], process, training)
    process.kill()
    process.join()
    s3.clear_faults()

    left = {name: s3.get("bucket", name) for name in s3.keys("bucket", f"{run}/")}
    assert key not in left
    newest = max(loaded(data)["global_step"] for data in left.values())  # each of them is whole
    assert newest == 2 * EVERY
    answer = finish(training.start(s3.environment), training)
    assert answer["at"] == newest
    assert answer["to"] == STEPS
    if "width" not in kind:
        assert answer["weights"] == undisturbed["weights"]
    assert f"{run}/epoch=0-step={STEPS}.ckpt" in s3.keys("bucket", run)


def test_of_several_ranks_one_writes(s3, run, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    trainings = [Training(f"s3://bucket/{run}", tmp_path / f"answer{rank}", ranks=2) for rank in range(2)]
    processes = []
    for rank, training in enumerate(trainings):
        world = {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes.append(training.start(s3.environment | world))
    try:
        answer = finish(processes[0], trainings[0])
        processes[1].join(TIMEOUT_S)
        assert processes[1].exitcode == 0, trainings[1].answer.with_suffix(".log").read_text()
    finally:
        for process in processes:
            process.kill()
    assert answer["to"] == STEPS
    saves = STEPS // EVERY
    assert s3.stats()["operations"]["PutObject"] == 2 * saves + 1  # the best ones, the last one, and that by hand
    assert loaded(s3.get("bucket", f"{run}/by-hand.ckpt"))["global_step"] == STEPS
