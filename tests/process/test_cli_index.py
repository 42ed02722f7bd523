"""The command `s3dataset index`, as a shell starts it."""

import io
import json
import signal
import subprocess
import sys
import tarfile
import time

import pytest
from tests.process.cli_command import TIMEOUT_S, command

import s3dataset
from s3dataset.testing import Fault, LocalS3


def shard(number, samples=5):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for sample in range(samples):
            for suffix in ("jpg", "cls"):
                member = tarfile.TarInfo(f"{number:03d}{sample:03d}.{suffix}")
                member.size = 100 + sample
                tar.addfile(member, io.BytesIO(bytes(member.size)))
    return archive.getvalue()


PLACE = "s3://shards/train/.s3dataset/tar-index.manifest"


class TestIndex:
    @pytest.fixture
    def server(self):
        with LocalS3("shards") as server:
            for number in range(10):
                server.put("shards", f"train/{number:03d}.tar", shard(number))
            yield server

    def test_scans_only_what_changed(self, server, tmp_path):
        place = PLACE
        done = command("index", "s3://shards/train/", "--check")
        assert (done.returncode, done.stdout) == (1, f"there is no index of these 10 shards: {place}\n")
        done = command("index", "s3://shards/train/")
        assert done.returncode == 0, done.stderr
        first, second = done.stdout.splitlines()
        assert first.startswith("50 samples in 10 shards of tar, 204.8 kB: 10 scanned (204.8 kB), 0 unchanged, in ")
        assert second == f"written to {place}"
        assert done.stderr == ""
        done = command("index", "s3://shards/train/", "--check")
        assert (done.returncode, done.stdout) == (0, f"up to date: {place} (50 samples in 10 shards)\n")

        server.put("shards", "train/003.tar", shard(3, samples=7))
        server.put("shards", "train/100.tar", shard(100))
        done = command("index", "s3://shards/train/", "--check")
        assert done.returncode == 1
        assert done.stdout == (
            f"out of date: {place} does not know 1 shard and is of earlier contents of 1 shard, "
            "as s3://shards/train/003.tar\n"
        )
        done = command("index", "s3://shards/train/", "--json")
        facts = json.loads(done.stdout)
        assert (facts["samples"], facts["shards"], facts["scanned"], facts["kept"]) == (57, 11, 2, 9)
        assert facts["written"]
        assert facts["index"] == place
        done = command("index", "s3://shards/train/")
        assert f"up to date: {place}" in done.stdout
        done = command("index", "s3://shards/train/", "--full")
        assert "11 scanned" in done.stdout
        assert f"up to date: {place}" in done.stdout
        done = command("index", "s3://shards/train/", "--output", str(tmp_path / "m"), "--pattern", "00?.tar")
        assert done.returncode == 0, done.stderr
        manifest = s3dataset.Manifest.load(tmp_path / "m")
        assert (manifest.num_objects, manifest.num_samples) == (10, 52)

    def test_objects_of_several_kinds(self, server):
        server.put("shards", "train/README.md", b"read me")
        done = command("index", "s3://shards/train/")
        assert done.returncode == 1
        assert (
            '1 of no format (s3://shards/train/README.md). Choose the shards with --pattern, as "*.tar"' in done.stderr
        )
        done = command("index", "s3://shards/train/", "--pattern", "*.md")
        assert done.returncode == 1
        assert "README.md is that of no format; name it with --format" in done.stderr
        assert command("index", "s3://shards/train/", "--pattern", "*.tar").returncode == 0

    def test_failures_are_a_line(self, server):
        server.put("shards", "train/bad.tar", b"no archive" * 100)
        done = command("index", "s3://shards/train/")
        assert done.returncode == 1
        assert "s3://shards/train/bad.tar" in done.stderr
        assert f"are kept in {PLACE}" in done.stderr
        assert "Traceback" not in done.stderr
        done = command("index", "s3://shards/none/")
        assert done.returncode == 1
        assert "train/" in done.stderr

    def test_ctrl_c_keeps_what_is_done(self, server):
        server.add_fault(Fault.delay(30, key="train/009.tar", times=None))
        server.reset_stats()
        process = subprocess.Popen(
            [sys.executable, "-m", "s3dataset", "index", "s3://shards/train/"], stderr=subprocess.PIPE, text=True
        )
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while server.stats()["requests"] < 11:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            time.sleep(0.5)
            begin = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=TIMEOUT_S)
            assert time.monotonic() - begin < 20  # the shard that is not done would take 30
        finally:
            process.kill()
        assert process.returncode == 130
        assert errors.splitlines() == [
            f"s3dataset: 9 of 10 shards are kept in {PLACE}: the same command goes on from there",
            "s3dataset: interrupted",
        ]
