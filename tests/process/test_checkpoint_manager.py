"""CheckpointManager of one process, against a server."""

import contextlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from s3dataset import (
    CheckpointManager,
    InvalidUriError,
    ObjectNotFoundError,
    PreconditionFailedError,
    S3ClientConfig,
    S3Exception,
)
from s3dataset._client import ClientRef
from s3dataset._commits import (
    Attempt,
    Catalog,
    CommitRecord,
    Layout,
    Marks,
    Pruner,
    _conditions,
    find_damage,
)
from s3dataset.errors import ConflictError, WeakConditionsWarning
from s3dataset.testing import Fault, LocalS3

BUCKET = "bucket"
URI = "s3://bucket/run"
MIB = 1 << 20


@pytest.fixture(scope="module")
def running() -> Iterator[LocalS3]:
    with LocalS3(BUCKET) as server:
        yield server


@pytest.fixture
def server(running: LocalS3) -> Iterator[LocalS3]:
    running.reset_stats()
    yield running
    running.clear_faults()
    running.configure(variant="s3")
    for key in running.keys(BUCKET):
        running.delete(BUCKET, key)


@pytest.fixture
def manager(server: LocalS3) -> Iterator[CheckpointManager]:
    with CheckpointManager(URI) as manager:
        yield manager


def state(value: float, count: int = 1000) -> dict[str, Any]:
    return {"weights": torch.full((count,), value)}


def steps(manager: CheckpointManager) -> list[int]:
    return [info.step for info in manager.list()]


def catalog() -> Catalog:
    return Catalog(Layout.at(URI), ClientRef())


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


# -- Damage ------------------------------------------------------------------------------------------------------------


def file_of(server: LocalS3, step: int) -> str:
    (key,) = server.keys(BUCKET, f"run/data/{step}.")
    return key


@pytest.mark.parametrize("how", ["missing", "shorter", "replaced", "record"])
def test_damage_is_skipped_and_told(
    manager: CheckpointManager, server: LocalS3, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    for step in (1, 2, 3):
        manager.save(step, state(float(step)))
    for step in (2, 3):
        key = file_of(server, step)
        if how == "missing":
            server.delete(BUCKET, key)
        if how == "shorter":
            server.put(BUCKET, key, server.get(BUCKET, key)[:-1])
        if how == "replaced":
            server.put(BUCKET, key, server.get(BUCKET, key)[:-1] + b"x")
        if how == "record":
            server.put(BUCKET, catalog().layout.commit(step), b"{}")
    restored = manager.restore()
    assert restored is not None
    assert restored.step == 1
    assert [skipped.step for skipped in restored.skipped] == [3, 2]
    expected = {"missing": "is missing", "shorter": "were committed", "replaced": "ETag", "record": "no version"}[how]
    assert all(expected in skipped.reason for skipped in restored.skipped)
    assert sum("is damaged, and an older one is tried" in record.getMessage() for record in caplog.records) == 2
    caplog.clear()
    with pytest.raises(S3Exception, match="can be restored: step 3"):
        manager.restore(step=3)
    assert "step 3 of s3://bucket/run/ is damaged: " in caplog.text
    assert "older one" not in caplog.text
    manager.save(2, state(2.5))  # training goes on from there
    again = manager.restore()
    assert again is not None
    assert (again.step, again.state["weights"][0]) == (2, 2.5)
    with pytest.raises(S3Exception, match="step 3"):
        manager.restore(step=3)


def test_all_are_damaged(manager: CheckpointManager, server: LocalS3) -> None:
    for step in (1, 2):
        manager.save(step, state(1.0))
        server.delete(BUCKET, file_of(server, step))
    with pytest.raises(S3Exception, match=r"no checkpoint of s3://bucket/run/ can be restored: step 2: .*; step 1: "):
        manager.restore()


def test_bytes_that_change_in_the_store_are_found_by_their_checksum(
    manager: CheckpointManager, server: LocalS3
) -> None:
    manager.save(1, state(1.0))
    manager.save(2, state(2.0))
    key = file_of(server, 2)
    server.add_fault(Fault.corrupt(at=500, of="object", key=key, operation="GetObject", times=None))
    (damage,) = manager.verify(2)
    assert damage.uri == f"s3://bucket/{key}"
    assert "has other bytes: their CRC64NVME is" in damage.reason
    restored = manager.restore()
    assert restored is not None
    assert restored.step == 1
    assert restored.skipped[0].step == 2


def test_a_network_that_fails_does_not_make_training_go_back(server: LocalS3) -> None:
    with CheckpointManager(URI, s3client_config=S3ClientConfig(max_attempts=2)) as manager:
        manager.save(1, state(1.0))
        manager.save(2, state(2.0))
        server.add_fault(Fault.status(500, key="*/data/2.*", operation="GetObject", times=None))
        with pytest.raises(S3Exception, match="HTTP 500"):
            manager.restore()


def test_a_file_that_is_no_checkpoint_is_an_error_and_not_skipped(manager: CheckpointManager, server: LocalS3) -> None:
    """It is what was committed; taking an older one instead would hide a mistake."""
    manager.save(1, state(1.0))
    manager.save(2, {"weights": torch.ones(3), "odd": threading.Event})
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        manager.restore()
    restored = manager.restore(weights_only=False)
    assert restored is not None
    assert restored.step == 2


def test_a_record_of_a_newer_version_is_an_error_and_not_skipped(manager: CheckpointManager, server: LocalS3) -> None:
    manager.save(1, state(1.0))
    server.put(BUCKET, catalog().layout.commit(2), json.dumps({"version": 99}).encode())
    with pytest.raises(S3Exception, match=r"has version 99.*upgrade"):
        manager.restore()
    with pytest.raises(S3Exception, match="version 99"):
        manager.list()
    restored = manager.restore(step=1)
    assert restored is not None


def test_verify_reads_many_files_of_any_size(server: LocalS3) -> None:
    config = S3ClientConfig(part_size=5 * MIB)
    there = Catalog(Layout.at(URI), ClientRef(None, None, config))
    attempt = Attempt.new(1)
    files = {f"{number:03}": random.Random(number).randbytes(number * 1000) for number in range(60)}
    files["large"] = random.Random(0).randbytes(23 * MIB + 17)
    prefix = there.layout.files(attempt)
    for name, data in files.items():
        server.put(BUCKET, prefix + name, data)
    committed = CommitRecord(
        step=1, attempt=attempt.name, format="dcp", world_size=1, time=0.0, objects=there.stored(attempt)
    )
    told: list[tuple[int, int]] = []
    assert find_damage(there, committed, lambda done, total: told.append((done, total))) == []
    assert told[-1] == (sum(map(len, files.values())),) * 2
    server.add_fault(Fault.corrupt(at=6 * MIB, of="object", key="*/large", operation="GetObject", times=None))
    server.delete(BUCKET, prefix + "007")
    missing, changed = find_damage(there, committed)
    assert missing.uri.endswith("/007")
    assert changed.uri.endswith("/large")
    assert "CRC64NVME" in changed.reason


# -- Pins, restores elsewhere, retention -------------------------------------------------------------------------------


def test_what_is_pinned_stays(manager: CheckpointManager) -> None:
    manager.save(1, state(1.0))
    manager.pin(1)
    for step in range(2, 8):
        manager.save(step, state(1.0))
    assert steps(manager) == [7, 6, 5, 1]
    assert [info.pinned for info in manager.list()] == [False, False, False, True]
    with CheckpointManager(URI, keep_last=1) as other:  # pins outlive who made them
        other.prune()
        assert steps(other) == [7, 1]
        with pytest.raises(ConflictError, match=r"step 7 .*pinned"):
            other.pin(7)
            other.rollback(1)
        other.unpin(7)
        other.unpin(1)
        other.unpin(1)
        assert other.prune(dry_run=True).steps == [1]
        assert steps(other) == [7, 1]
        assert other.prune().steps == [1]
    with pytest.raises(ObjectNotFoundError, match="has no checkpoint of step 1"):
        manager.pin(1)
    assert manager.list()[0].pinned is False


def test_keep_every(server: LocalS3) -> None:
    with CheckpointManager(URI, keep_last=2, keep_every=100) as manager:
        for step in range(50, 501, 50):
            manager.save(step, state(1.0))
        assert steps(manager) == [500, 450, 400, 300, 200, 100]


@pytest.mark.parametrize("how", ["files", "record"])
def test_damaged_ones_do_not_count_among_those_that_are_kept(
    manager: CheckpointManager, server: LocalS3, how: str
) -> None:
    """Else retention could delete the last one that can be restored."""
    for step in (1, 2, 3):
        manager.save(step, state(float(step)))
    for step in (2, 3):
        if how == "files":
            server.delete(BUCKET, file_of(server, step))
        else:
            server.put(BUCKET, catalog().layout.commit(step), b"garbage")
    with CheckpointManager(URI, keep_last=1) as other:
        assert other.prune().steps == []
        restored = other.restore()
        assert restored is not None
        assert restored.step == 1
        assert other.latest() == 3
        other.save(4, state(4.0))
        assert steps(other) == [4]
    assert len(server.keys(BUCKET)) == 2


def test_what_another_job_restores_stays_until_it_is_done(manager: CheckpointManager, server: LocalS3) -> None:
    for step in (1, 2, 3):
        manager.save(step, state(float(step)))
    with Marks(catalog()).restore(1), Marks(catalog()).restore(3):
        manager.save(4, state(4.0))
        assert steps(manager) == [4, 3, 2, 1]
        with pytest.raises(ConflictError, match=r"step 3 .* is being restored"):
            manager.rollback(2)
        assert steps(manager) == [3, 2, 1]
        assert manager.verify(3) == []
        replaced = file_of(server, 3)
        manager.save(3, state(3.5), overwrite=True)
        assert replaced in server.keys(BUCKET)  # the other one reads it
    assert manager.rollback(2) == [3]
    assert server.keys(BUCKET, "run/restores/") == []


def test_a_restore_marks_what_it_reads(manager: CheckpointManager, server: LocalS3) -> None:
    """Another job that prunes at each moment of a restore takes nothing away from it."""
    with CheckpointManager(URI, keep_last=1) as pruning:
        for moment in range(1, 8):
            for key in server.keys(BUCKET):
                server.delete(BUCKET, key)
            manager.save(1, state(1.0))
            manager.save(2, state(2.0))
            server.reset_stats()
            pruned = threading.Thread(target=_prune_at, args=(pruning, server, moment))
            server.set_traffic(latency_s=0.01)
            pruned.start()
            restored = manager.restore(step=1)
            pruned.join()
            server.set_traffic(latency_s=0.0)
            assert restored is not None
            assert restored.state["weights"][0] == 1.0


def _prune_at(pruning: CheckpointManager, server: LocalS3, moment: int) -> None:
    deadline = time.monotonic() + 5
    while server.stats()["requests"] < moment and time.monotonic() < deadline:
        time.sleep(0.001)
    pruning.prune()


def test_reading_alone_needs_no_right_to_write(manager: CheckpointManager, server: LocalS3) -> None:
    manager.save(1, state(1.0))
    for operation in ("PutObject", "DeleteObject*"):
        server.add_fault(Fault.status(403, operation=operation, times=None))
    restored = manager.restore()
    assert restored is not None
    assert manager.verify() == []


def test_a_pin_that_comes_while_it_is_deleted_brings_the_record_back(
    manager: CheckpointManager, server: LocalS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 3):
        manager.save(step, state(float(step)))
    delete = Catalog.delete

    def pin_before(own: Catalog, keys: Any) -> None:
        keys = list(keys)
        if own.layout.commit(1) in keys:
            Marks(catalog()).pin(1)  # the record is still there, so this succeeds
        delete(own, keys)

    monkeypatch.setattr(Catalog, "delete", pin_before)
    with CheckpointManager(URI, keep_last=1) as other:
        assert other.prune().steps == [2]
    assert steps(manager) == [3, 1]
    assert manager.verify(1) == []


# -- What crashes leave ------------------------------------------------------------------------------------------------


def test_what_another_job_writes_for_a_step_that_goes_stays(manager: CheckpointManager, server: LocalS3) -> None:
    """Else it would commit a checkpoint that lacks files."""
    for step in range(1, 4):
        manager.save(step, state(float(step)))
    layout = catalog().layout
    written = [layout.files(Attempt(step, "00000000ffffffff")) + "checkpoint.pt" for step in (1, 2)]
    for key in written:
        server.put(BUCKET, key, b"half of it")
    assert Pruner(catalog()).prune(keep_last=2, keep_every=None).steps == [1]
    assert Pruner(catalog()).delete_steps([2]) == [2]
    files = [key for key in server.keys(BUCKET) if key.startswith((f"{layout.data}1.", f"{layout.data}2."))]
    assert sorted(files) == written


def test_what_nobody_goes_on_with_is_deleted_after_a_day(manager: CheckpointManager, server: LocalS3) -> None:
    manager.save(5, state(5.0))
    layout = catalog().layout
    server.put(BUCKET, layout.files(Attempt(6, "00000000ffffffff")) + "checkpoint.pt", b"half of it")
    server.put(BUCKET, layout.files(Attempt(5, "00000000ffffffff")) + "checkpoint.pt", b"replaced")
    server.put(BUCKET, layout.data + "notes.txt", b"somebody's")
    server.put(BUCKET, layout.new_mark(5), b"")
    client = ClientRef().get()
    for key in (layout.files(Attempt(7, "00000000ffffffff")) + "checkpoint.pt", "elsewhere/large.bin"):
        with client.queue() as queue:
            queue.take(queue.create_upload(BUCKET, key))
    before = server.keys(BUCKET)
    fresh = Pruner(catalog())
    assert fresh.prune(keep_last=3, keep_every=None) == ([], [], [])
    assert server.keys(BUCKET) == before
    old = Pruner(catalog(), stale_s=-5.0)
    would = old.prune(keep_last=3, keep_every=None, dry_run=True)
    assert server.keys(BUCKET) == before
    assert would == old.prune(keep_last=3, keep_every=None)
    assert sorted(would.attempts) == ["5.00000000ffffffff", "6.00000000ffffffff"]
    assert would.uploads == [layout.files(Attempt(7, "00000000ffffffff")) + "checkpoint.pt"]
    (other,) = server.uploads(BUCKET)
    assert other["key"] == "elsewhere/large.bin"
    client.abort_upload(BUCKET, other["key"], other["upload_id"])
    assert len(server.keys(BUCKET)) == 3
    assert manager.verify() == []


def test_uploads_are_listed_page_by_page(server: LocalS3) -> None:
    client = ClientRef().get()
    with client.queue() as queue:
        indices = [queue.create_upload(BUCKET, f"up/{n % 3} ü/{n:04}") for n in range(1100)]
        assert len({queue.take(index).upload_id for index in indices}) == 1100  # type: ignore[union-attr]
    found = list(client.list_uploads(BUCKET, "up/"))
    assert sorted(upload.key for upload in found) == sorted(f"up/{n % 3} ü/{n:04}" for n in range(1100))
    assert all(abs(upload.initiated - time.time()) < 60 for upload in found)
    assert len(list(client.list_uploads(BUCKET, "up/1 ü/"))) == 367
    for upload in found:
        client.abort_upload(BUCKET, upload.key, upload.upload_id)
    client.abort_upload(BUCKET, found[0].key, found[0].upload_id)  # counts as aborted
    assert list(client.list_uploads(BUCKET)) == []


@pytest.mark.slow
def test_killed_at_any_moment(server: LocalS3) -> None:
    """The process that saves is killed eight times: what was said to be committed is there, whole, and the newest."""
    server.set_traffic(latency_s=0.002)
    rounds = 8
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("checkpoint_program.py")), URI, str(rounds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    moments = random.Random(5)
    restored: list[int | None] = []
    said = 0
    try:
        for line in process.stdout:
            told = json.loads(line)
            if "pid" in told:
                target = server.stats()["requests"] + moments.randrange(8, 90)
                threading.Thread(target=_kill_at, args=(told["pid"], server, target)).start()
            elif "committed" in told:
                said = told["committed"]
            else:
                restored.append(told["restored"])
                assert (told["restored"] or 0) >= said
                assert told["latest"] == told["restored"]
                assert told["restored"] is None or (told["whole"] and not told["skipped"])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        server.set_traffic(latency_s=0.0)
    assert len(restored) == rounds
    assert restored[-1] is not None
    assert restored == sorted(restored, key=lambda step: step or 0)
    with CheckpointManager(URI, keep_last=1) as manager:
        Pruner(catalog(), stale_s=-5.0).prune(keep_last=1, keep_every=None)
        assert steps(manager) == [restored[-1]]
    assert len(server.keys(BUCKET)) == 2
    assert server.uploads(BUCKET) == []


def _kill_at(pid: int, server: LocalS3, requests: int) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and server.stats()["requests"] < requests:
        time.sleep(0.0005)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# -- Stores that are not quite S3 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["s3", "ignore_write_conditions", "refuse_write_conditions", "minio", "r2", "gcs"])
def test_other_stores(server: LocalS3, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    named = variant in ("s3", "minio", "r2", "gcs")
    server.configure(variant=variant if named else {variant: True})
    monkeypatch.setattr(_conditions, "_known", {})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with CheckpointManager(URI, keep_last=2) as manager:
            for step in (1, 2, 3):
                manager.save(step, state(float(step), 3 * MIB), dataset_state=step)
                if variant == "gcs":
                    time.sleep(0.1)
            with pytest.raises(PreconditionFailedError):
                manager.save(3, state(0.0))
            manager.save(3, state(3.5), overwrite=True)
            restored = manager.restore()
            assert restored is not None
            assert (restored.step, restored.state["weights"][0], restored.dataset_state) == (3, 3.5, None)
            assert steps(manager) == [3, 2]
            assert manager.verify() == []
            manager.pin(2)
            manager.rollback(2)
            assert manager.latest() == 2
    weak = [str(warning.message) for warning in caught if warning.category is WeakConditionsWarning]
    if variant == "s3":
        assert weak == []
    if "conditions" in variant:
        (said,) = weak
        assert ("ignores" if "ignore" in variant else "refuses") in said
        assert "the later one wins" in said


def test_a_store_without_conditions_still_looks_before_it_commits(
    server: LocalS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.configure(variant={"ignore_write_conditions": True})
    monkeypatch.setattr(_conditions, "_known", {})
    with pytest.warns(WeakConditionsWarning), CheckpointManager(URI) as manager:
        manager.save(1, state(1.0))
        files = manager._files
        write = files.save

        def save(*arguments: Any) -> None:
            write(*arguments)
            with CheckpointManager(URI) as other:
                files.save = write  # type: ignore[method-assign]
                other.save(2, state(2.5))

        files.save = save  # type: ignore[method-assign]
        with pytest.raises(PreconditionFailedError, match="committed by somebody else meanwhile"):
            manager.save(2, state(2.0))
        restored = manager.restore()
        assert restored is not None
        assert restored.state["weights"][0] == 2.5


def test_directory_buckets(running: LocalS3) -> None:
    """They list in no order, and whole directories only."""
    bucket = "runs--usw2-az1--x-s3"
    running.create_bucket(bucket)
    with CheckpointManager(f"s3://{bucket}/a/run", keep_last=2) as manager:
        for step in (1, 2, 3):
            manager.save(step, state(float(step)))
        assert manager.latest() == 3
        restored = manager.restore()
        assert restored is not None
        assert restored.step == 3
        assert steps(manager) == [3, 2]
        assert manager.verify() == []
        manager.prune()
    assert len(running.keys(bucket)) == 4


def test_moto() -> None:
    moto_server = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    moto = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        host, port = moto.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        keys = {"aws_access_key_id": "any", "aws_secret_access_key": "any"}
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
        client.create_bucket(Bucket="bucket")
        client.close()
        config = S3ClientConfig(credentials=("any", "any"), part_size=5 * MIB)
        with (
            warnings.catch_warnings(),
            CheckpointManager(
                URI, keep_last=2, region="us-east-1", endpoint=endpoint, s3client_config=config
            ) as manager,
        ):
            warnings.simplefilter("ignore", WeakConditionsWarning)
            for step in (1, 2, 3):
                manager.save(step, state(float(step), 4 * MIB), dataset_state={"step": step})
            manager.save(3, state(3.5), overwrite=True)
            restored = manager.restore()
            assert restored is not None
            assert (restored.step, restored.state["weights"][0]) == (3, 3.5)
            assert steps(manager) == [3, 2]
            assert manager.verify() == []
    finally:
        moto.stop()
