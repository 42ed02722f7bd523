"""Which checkpoints stay: pinned ones, those that others restore, those that a rule keeps."""

import threading
import time
from typing import Any

import pytest
from tests.process.manager.world import BUCKET, URI, catalog, file_of, state, steps

from s3dataset import CheckpointManager, ObjectNotFoundError
from s3dataset._commits import Catalog, Marks
from s3dataset.errors import ConflictError
from s3dataset.testing import Fault, LocalS3


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
