"""The command `s3dataset pack`, as a shell starts it, and its workers."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.process.cli_command import command

from s3dataset.testing import LocalS3

COUNT = 60
SOURCE, DEST = "s3://source/data/", "s3://dest/packed/"


@pytest.fixture
def server() -> Iterator[LocalS3]:
    with LocalS3("source", "dest") as server:
        for number in range(COUNT):
            server.put("source", f"data/{'cat' if number < 20 else 'dog'}/{number:03d}.txt", bytes(1000))
        yield server


@pytest.mark.usefixtures("server")
def test_summary() -> None:
    done = command("pack", SOURCE, DEST, "--shard-size", "20KB", "--label", "folder", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["samples"], facts["kept"], facts["shards"]) == (COUNT, 0, facts["made"])
    again = command("pack", SOURCE, DEST, "--shard-size", "20KB", "--label", "folder")
    assert f"{COUNT} samples in {facts['shards']} shards of tar" in again.stdout
    assert ": 0 made of " in again.stdout


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "tarr"], "did you mean 'tar'"),
        (["--shard-size", "big"], "is no size"),
        (["--transform", "tests.pack_transforms"], "MODULE:NAME"),
        (["--transform", "tests.pack_transforms:none"], "has no attribute 'none'"),
        (["--format", "parquet", "--compression", "zst"], "compression"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str) -> None:
    done = command("pack", SOURCE, DEST, *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_failure(server: LocalS3) -> None:
    server.put("dest", "packed/x", b"")
    done = command("pack", SOURCE, DEST)
    assert done.returncode == 1
    assert "--overwrite" in done.stderr


def test_a_worker_whose_parent_has_gone_ends_quietly() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "from s3dataset._pack._worker_process import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b""
