"""`s3dataset demo`: the whole run, in a bucket of the user's, and interrupted."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from s3dataset.testing import LocalS3

TIMEOUT_S = 150
DEMO = [sys.executable, "-m", "s3dataset", "demo"]


@pytest.fixture
def server():
    with LocalS3("mine") as running:
        running.put("mine", "theirs/precious.txt", b"keep me")
        yield running


def demo(*arguments, **options):
    return subprocess.run(
        [*DEMO, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL, **options
    )


@pytest.mark.slow
def test_it_trains_and_a_fresh_process_finds_the_same(tmp_path):
    done = demo("--output", str(tmp_path / "pictures"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "uploaded 1,799 pictures" in done.stdout
    assert done.stdout.count("saved s3://s3dataset-demo/checkpoints/") == 8
    assert "the very result of the training" in done.stdout
    assert "0 retries" in done.stdout
    for name in ("samples.png", "training.png"):
        assert (tmp_path / "pictures" / name).read_bytes().startswith(b"\x89PNG")
    assert "Warning" not in done.stderr


@pytest.mark.slow
def test_in_a_users_bucket_it_leaves_nothing_behind(server, tmp_path):
    done = demo("--uri", "s3://mine/theirs", "--yes", "--epochs", "1", "--workers", "0", "--output", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "removed 1,800 objects below s3://mine/theirs/s3dataset-demo-" in done.stdout
    assert server.keys("mine") == ["theirs/precious.txt"]
    written = {record.key.split("/")[1] for record in server.requests("PutObject")}
    assert len(written) == 1
    assert written.pop().startswith("s3dataset-demo-")


def test_without_a_terminal_and_without_yes_it_writes_nothing(server, tmp_path):
    done = demo("--uri", "s3://mine/", "--output", str(tmp_path))
    assert done.returncode == 2
    assert "--yes" in done.stdout
    assert server.keys("mine") == ["theirs/precious.txt"]


def test_a_bad_uri_is_wrong_usage(tmp_path):
    done = demo("--uri", "https://mine/", "--yes", "--output", str(tmp_path))
    assert done.returncode == 2
    assert "Only s3:// URIs are supported" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_ctrl_c_in_training_removes_what_was_written_and_leaves_no_process(server, tmp_path):
    process = subprocess.Popen(
        [*DEMO, "--uri", "s3://mine/", "--yes", "--epochs", "500", "--output", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    try:
        for line in process.stdout:
            if "saved s3://" in line:
                break
        else:
            pytest.fail(process.stderr.read())
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    # A worker whose tensor is on its way says so by a thread of multiprocessing's, now and then.
    assert errors.count("Traceback") == errors.count("resource_sharer.py")
    assert errors.splitlines()[-1] == "s3dataset: interrupted"
    assert "removed" in output
    assert server.keys("mine") == ["theirs/precious.txt"]
    deadline = time.monotonic() + 20
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in family):
        assert time.monotonic() < deadline, family
        time.sleep(0.1)
