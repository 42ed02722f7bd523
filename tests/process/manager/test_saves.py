"""What a manager saves and restores, now and in the background, in each format."""

import logging
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import torch
from tests.process.manager.world import BUCKET, MIB, URI, catalog, state, steps

from s3dataset import (
    CheckpointManager,
    InvalidUriError,
    ObjectNotFoundError,
    PreconditionFailedError,
    S3ClientConfig,
    S3Exception,
)
from s3dataset.testing import Fault, LocalS3

# -- Saving and restoring ----------------------------------------------------------------------------------------------


def test_nothing_is_there(manager: CheckpointManager) -> None:
    assert manager.latest() is None
    assert manager.restore() is None
    assert manager.list() == []
    assert manager.prune() == ([], [], [])
    with pytest.raises(ObjectNotFoundError, match="has no checkpoint"):
        manager.verify()
    with pytest.raises(ObjectNotFoundError, match="has no checkpoint of step 7"):
        manager.restore(step=7)


def test_a_checkpoint_and_what_is_told_of_it(manager: CheckpointManager) -> None:
    model = torch.nn.Linear(8, 8)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(8)).sum().backward()
    optimizer.step()
    before = time.time()
    info = manager.save(
        1000,
        {"model": model.state_dict(), "optimizer": optimizer.state_dict()},
        dataset_state={"epoch": 1},
        metadata={"loss": 0.5},
    )
    assert (info.step, info.format, info.world_size, info.num_files, info.pinned) == (1000, "torch", 1, 1, False)
    assert (info.dataset_state, info.metadata) == ({"epoch": 1}, {"loss": 0.5})
    assert before - 1 < info.time < time.time() + 1
    assert info.uri.startswith("s3://bucket/run/data/1000.")
    assert set(info.libraries) == {"s3dataset", "torch", "python"}
    assert manager.list() == [info]
    restored = manager.restore()
    assert restored is not None
    assert (restored.step, restored.dataset_state, restored.metadata) == (1000, {"epoch": 1}, {"loss": 0.5})
    assert restored.skipped == []
    torch.testing.assert_close(restored.state["model"], dict(model.state_dict()))
    torch.nn.Linear(8, 8).load_state_dict(restored.state["model"])
    torch.optim.Adam(model.parameters()).load_state_dict(restored.state["optimizer"])
    assert manager.verify() == []
    assert manager.restore(step=1000) is not None


def test_latest_is_one_request(manager: CheckpointManager, server: LocalS3) -> None:
    for step in (5, 70, 600):
        manager.save(step, state(1.0))
    server.reset_stats()
    assert manager.latest() == 600
    assert server.stats()["operations"] == {"ListObjectsV2": 1}


def test_a_step_is_committed_once(manager: CheckpointManager) -> None:
    manager.save(3, state(1.0))
    with pytest.raises(PreconditionFailedError, match=r"step 3 of s3://bucket/run/ is committed already: .*overwrite"):
        manager.save(3, state(2.0))
    first = manager.list()[0].uri
    manager.save(3, state(2.0), overwrite=True)
    restored = manager.restore()
    assert restored is not None
    assert restored.state["weights"][0] == 2.0
    assert manager.list()[0].uri != first


def test_an_overwritten_checkpoint_leaves_nothing(manager: CheckpointManager, server: LocalS3) -> None:
    for value in (1.0, 2.0, 3.0):
        manager.save(3, state(value), overwrite=True)
    assert len(server.keys(BUCKET)) == 2


def test_a_step_older_than_the_newest_is_refused_until_rolled_back(manager: CheckpointManager) -> None:
    for step in (10, 20, 30):
        manager.save(step, state(float(step)))
    with pytest.raises(ValueError, match=r"step 15 is older than the newest .* step 30 .*rollback"):
        manager.save(15, state(15.0))
    assert manager.rollback(10) == [20, 30]
    manager.save(15, state(15.0))
    assert steps(manager) == [15, 10]
    manager.save(12, state(12.0), overwrite=True)
    assert steps(manager) == [15, 12, 10]
    with pytest.raises(ObjectNotFoundError, match="no checkpoint of step 11"):
        manager.rollback(11)


def test_two_jobs_that_commit_one_step_notice(manager: CheckpointManager, server: LocalS3) -> None:
    manager.save(1, state(1.0))
    server.set_traffic(latency_s=0.05)
    outcomes: list[Any] = []

    def job(value: float) -> None:
        with CheckpointManager(URI) as own:
            try:
                outcomes.append(own.save(2, state(value)))
            except PreconditionFailedError as error:
                outcomes.append(error)

    threads = [threading.Thread(target=job, args=(value,)) for value in (2.0, 2.5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.set_traffic(latency_s=0.0)
    (lost,) = (outcome for outcome in outcomes if isinstance(outcome, Exception))
    (won,) = (outcome for outcome in outcomes if not isinstance(outcome, Exception))
    assert "committed by somebody else meanwhile" in str(lost) or "committed already" in str(lost)
    assert manager.list()[0] == won
    assert manager.verify(2) == []
    assert len(server.keys(BUCKET, "run/data/")) == 2  # the loser's files are gone


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"uri": "/local"}, InvalidUriError, "s3://"),
        ({"format": "pickle"}, ValueError, "format must be one of 'torch'"),
        ({"keep_last": 0}, ValueError, "keep_last must be at least 1"),
        ({"keep_every": 1.5}, TypeError, "keep_every must be a whole number"),
        ({"s3client_config": "x"}, TypeError, "s3client_config"),
        ({"endpoint": "no url"}, ValueError, "no url"),
        ({"process_group": "nonsense"}, ValueError, "torch.distributed is not initialized"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        CheckpointManager(**({"uri": URI} | arguments)).latest()


def test_bad_arguments_of_a_save_save_nothing(manager: CheckpointManager, server: LocalS3) -> None:
    for arguments, error in [
        ({"step": -1}, ValueError),
        ({"step": "1"}, TypeError),
        ({"metadata": {"loss": float("nan")}}, ValueError),
        ({"dataset_state": {1: 2}}, TypeError),
        ({"state": lambda: 1}, Exception),
    ]:
        with pytest.raises(error):
            manager.save(**({"step": 1, "state": state(1.0)} | arguments))
        with pytest.raises(error):
            manager.save_async(**({"step": 1, "state": state(1.0)} | arguments)).result()
    assert server.keys(BUCKET) == []
    with pytest.raises(TypeError, match="makes the state anew"):
        manager.restore({"weights": torch.zeros(1)})


# -- In the background -------------------------------------------------------------------------------------------------


def test_what_changes_after_the_call_is_not_saved(manager: CheckpointManager, server: LocalS3) -> None:
    server.set_traffic(latency_s=0.05)
    changing = state(1.0, 3 * MIB)
    future = manager.save_async(1, changing, dataset_state={"n": 1})
    changing["weights"].fill_(2.0)
    assert not future.done()
    assert manager.latest() == 1  # which waits
    server.set_traffic(latency_s=0.0)
    assert future.result().step == 1
    restored = manager.restore()
    assert restored is not None
    assert (restored.state["weights"] == 1.0).all()


def test_an_error_in_the_background_is_raised_by_the_next_call_and_logged(
    manager: CheckpointManager, server: LocalS3, caplog: pytest.LogCaptureFixture
) -> None:
    manager.save(1, state(1.0))
    server.add_fault(Fault.status(403, operation="PutObject", times=None))
    future = manager.save_async(2, state(2.0))
    with pytest.raises(S3Exception, match="Access denied"):
        manager.save_async(3, state(3.0))
    assert future.exception() is not None
    asked = manager.save_async(3, state(3.0))
    with pytest.raises(S3Exception, match="Access denied"):
        asked.result()
    server.clear_faults()
    manager.save(4, state(4.0))
    assert steps(manager) == [4, 1]
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert any("the checkpoint of step 2 of s3://bucket/run/ was NOT saved" in text for text in said)


def test_a_commit_of_which_nobody_knows_keeps_its_files(manager: CheckpointManager, server: LocalS3) -> None:
    """The answer is lost, and the store cannot be asked: the record may be there, so its files stay."""
    manager.save(1, state(1.0))
    key = catalog().layout.commit(2)
    server.add_fault(Fault.lost_answer(operation="PutObject", key=key, times=None))
    server.add_fault(Fault.status(403, operation="HeadObject", key=key, times=None))
    server.add_fault(Fault.status(403, operation="GetObject", key=key, times=None))
    with (
        CheckpointManager(URI, s3client_config=S3ClientConfig(max_attempts=1)) as own,
        pytest.raises(S3Exception) as caught,
    ):
        own.save(2, state(2.0))
    assert any("could not be found out" in note for note in caught.value.__notes__)
    server.clear_faults()
    restored = manager.restore()
    assert restored is not None
    assert (restored.step, restored.skipped) == (2, [])


def test_close_raises_what_nobody_has_asked_about(server: LocalS3) -> None:
    server.add_fault(Fault.status(403, operation="PutObject", times=None))
    manager = CheckpointManager(URI)
    manager.save_async(1, state(1.0))
    with pytest.raises(S3Exception, match="Access denied"):
        manager.close()
    manager.close()
    with pytest.raises(ZeroDivisionError), CheckpointManager(URI) as other:
        other.save_async(1, state(1.0))
        raise ZeroDivisionError
    server.clear_faults()
    manager.save(1, state(1.0))  # it opens again
    assert manager.latest() == 1


def test_the_end_of_the_interpreter_waits(server: LocalS3) -> None:
    server.set_traffic(latency_s=0.1)
    program = (
        "import torch; from s3dataset import CheckpointManager\n"
        f"CheckpointManager({URI!r}).save_async(7, {{'w': torch.ones(3_000_000)}})"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    server.set_traffic(latency_s=0.0)
    with CheckpointManager(URI) as manager:
        assert manager.latest() == 7
        assert manager.verify() == []


# -- Formats -----------------------------------------------------------------------------------------------------------


def test_safetensors(server: LocalS3) -> None:
    model = torch.nn.Linear(8, 8)
    with CheckpointManager(URI, format="safetensors") as manager:
        manager.save(1, model.state_dict(), metadata={"of": "model"})
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        future = manager.save_async(2, model.state_dict())
        with torch.no_grad():
            model.weight.zero_()
        assert future.result().format == "safetensors"
        restored = manager.restore()
        assert restored is not None
        torch.testing.assert_close(restored.state, before)
        assert manager.verify() == []
        for wrong in ({"optimizer": {"lr": 1}}, {"step": 1}, [torch.ones(1)]):
            with pytest.raises(TypeError, match="flat dict of tensors"):
                manager.save(3, wrong)
        with pytest.raises(TypeError, match="makes the tensors anew"):
            manager.restore({})
    with CheckpointManager(URI) as other:  # the record tells the format
        again = other.restore()
        assert again is not None
        torch.testing.assert_close(again.state, before)


@pytest.mark.filterwarnings("ignore:torch.distributed is:UserWarning", "ignore:TypedStorage:UserWarning")
def test_dcp_of_one_process(server: LocalS3) -> None:
    model = torch.nn.Linear(8, 8)
    with CheckpointManager(URI, format="dcp", keep_last=2) as manager:
        assert manager.restore({"model": model.state_dict()}) is None
        for step in (1, 2, 3):
            manager.save(step, {"model": model.state_dict(), "step": step})
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        future = manager.save_async(4, {"model": model.state_dict(), "step": 4})
        with torch.no_grad():
            model.weight.zero_()
        future.result()
        restored = manager.restore({"model": model.state_dict(), "step": 0})
        assert restored is not None
        assert restored.state["step"] == 4
        torch.testing.assert_close(dict(model.state_dict()), before)
        assert manager.verify() == []
        assert steps(manager) == [4, 3]
        # A byte of a tensor that changes in the store: the ranges that dcp reads have no checksum.
        (key,) = (key for key in server.keys(BUCKET, "run/data/4.") if key.endswith(".distcp"))
        server.add_fault(Fault.corrupt(at=900, of="object", key=key, operation="GetObject", times=None))
        restored = manager.restore({"model": model.state_dict(), "step": 0}, verify=True)
        assert restored is not None
        assert restored.step == 3
        assert "CRC64NVME" in restored.skipped[0].reason
        with pytest.raises(TypeError, match="fills a state dict in place"):
            manager.restore()
        with pytest.raises(S3Exception, match=rf"^{URI}/data/3\.\w+/: rank 0: RuntimeError: Missing key .* other"):
            manager.restore({"other": torch.zeros(1)}, step=3)
        with pytest.raises(TypeError, match="saves a state dict"):
            manager.save(5, [model])
