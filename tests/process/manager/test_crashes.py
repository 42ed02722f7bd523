"""What killed jobs leave behind, and what becomes of it."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.process.manager.world import BUCKET, URI, catalog, state, steps

from s3dataset import CheckpointManager
from s3dataset._client import ClientRef
from s3dataset._commits import Attempt, Pruner
from s3dataset.testing import LocalS3


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
