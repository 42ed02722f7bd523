"""Checkpoints that are damaged are told of and skipped; records that are not understood are not."""

import json
import random
import threading

import pytest
import torch
from tests.process.manager.world import BUCKET, MIB, URI, catalog, file_of, state

from s3dataset import CheckpointManager, S3ClientConfig, S3Exception
from s3dataset._client import ClientRef
from s3dataset._commits import Attempt, Catalog, CommitRecord, Layout, find_damage
from s3dataset.testing import Fault, LocalS3


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
