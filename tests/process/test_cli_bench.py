"""`s3dataset bench`: within its bounds, with a verdict, and with nothing left behind."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
import warnings

import pytest
from tests.terminal import on_terminal

from s3dataset._cli import main
from s3dataset.testing import Fault, LocalS3

TIMEOUT_S = 120
COMMAND = [sys.executable, "-m", "s3dataset", "bench"]
QUICK = ["--seconds", "2", "--concurrency", "1,4,16", "--workers", ""]
ENOUGH = [*QUICK, "--seconds", "8"]  # that no step is left out on a busy machine
MIB = 1 << 20


@pytest.fixture(scope="module")
def running():
    with LocalS3("bucket", "empty") as server:
        for number in range(300):
            server.put("bucket", f"small/{number:03d}.jpg", b"x" * (500 + number))
        server.put("bucket", "small/.s3dataset/tar-index.manifest", b"no data")
        server.put("bucket", "small/folder/", b"")
        for number in range(3):
            server.put("bucket", f"large/{number}.bin", bytes(20 * MIB))
        yield server


@pytest.fixture
def server(running):
    running.clear_faults()
    running.reset_stats()
    yield running
    running.clear_faults()


def measured(capsys, *arguments):
    assert main(["bench", *arguments, "--json"]) == 0
    printed = capsys.readouterr()
    return json.loads(printed.out), " ".join(printed.err.split())


def sizes_of(found):
    """Of the requests that were measured, and of those that a busy machine did not answer in time."""
    measured = {step["request_bytes"] for step in found["sizes"]}
    assert measured
    said = (re.match(r"requests of (\d+) ([KM])iB: none was answered", why) for why in found["skipped"])
    return measured | {int(match[1]) << (20 if match[2] == "M" else 10) for match in said if match}


def test_small_objects_are_measured_and_the_advice_is_to_pack(server, capsys):
    found, said = measured(capsys, "s3://bucket/small/", *ENOUGH)
    assert (found["objects"], found["complete"]) == (300, True)
    assert 500 <= found["mean_bytes"] < 800
    assert [step["concurrency"] for step in found["curve"]] == [1, 4, 16]
    for step in (found["single"], *found["curve"]):
        assert step["requests"] > 0
        assert step["latencies"]["p50"] <= step["latencies"]["p90"] <= step["latencies"]["p99"]
        assert 500 <= step["request_bytes"] < 800
    assert found["first_byte"]["count"] > 0
    assert any("s3dataset pack s3://bucket/small/" in sentence for sentence in found["advice"])
    assert found["bottleneck"] in {"CPU", "request rate", "latency"}
    assert "at most 4.0 GB and 200,000 requests" in said
    assert "$0.08 for requests" in said
    assert {record.key.split("/")[0] for record in server.requests("GetObject")} == {"small"}
    assert not [record for record in server.requests("GetObject") if "/.s3dataset/" in record.key]
    assert server.requests("PutObject") == []


def test_large_objects_are_read_in_ranges_of_several_sizes(server, capsys):
    found, _ = measured(capsys, "s3://bucket/large/", *ENOUGH)
    assert sizes_of(found) == {16384, 131072, MIB, 4 * MIB, 8 * MIB, 16 * MIB}
    assert {step["request_bytes"] for step in found["curve"]} == {8 * MIB}


def test_bytes_and_requests_are_bounded(server, capsys):
    found, said = measured(capsys, "s3://bucket/large/", *QUICK, "--max-bytes", "100MB", "--max-requests", "500")
    assert "at most 100.0 MB and 500 requests" in said
    assert found["bytes"] <= 100e6
    assert server.stats()["bytes_out"] <= 100e6
    assert len(server.requests("GetObject")) <= 500
    assert found["skipped"]


@pytest.mark.slow
def test_a_dataloader_with_each_number_of_workers(server, capsys):
    found, _ = measured(capsys, "s3://bucket/small/", "--seconds", "4", "--concurrency", "4", "--workers", "0,1")
    assert [step["workers"] for step in found["workers"]] == [0, 1]
    assert all(step["samples_per_s"] > 0 for step in found["workers"])
    assert any(re.match(r"num_workers=[01] gives [\d,]+ samples/s", sentence) for sentence in found["advice"])


def test_more_workers_than_cores_are_no_warning(server, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, _ = measured(capsys, "s3://bucket/small/", "--seconds", "2", "--concurrency", "1", "--workers", "5")
    assert [step["workers"] for step in found["workers"]] == [5]


def test_a_few_batches_that_came_at_once_are_no_rate(server, capsys):
    bounds = ["--seconds", "4", "--concurrency", "1", "--max-bytes", "500MB"]
    found, _ = measured(capsys, "s3://bucket/large/", *bounds, "--workers", "2")
    assert found["workers"] == []
    assert any("a DataLoader with 2 workers" in why for why in found["skipped"])


def test_what_there_is_no_time_for_is_told_as_that(server, capsys):
    server.add_fault(Fault.delay(1.5, operation="GetObject", times=None))
    found, _ = measured(capsys, "s3://bucket/small/", "--seconds", "2", "--concurrency", "1,2,4", "--workers", "")
    assert any(why.endswith("requests at once and more: raise --seconds") for why in found["skipped"])
    assert not any("none was answered in time" in why for why in found["skipped"])


def test_more_requests_at_once_than_the_process_may_have_are_told(server, capsys, monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 1024))
    found, _ = measured(capsys, "s3://bucket/small/", "--seconds", "1", "--concurrency", "1,1024", "--workers", "")
    assert "1024 requests at once: this process has 512 connections at most" in found["skipped"]


def test_more_requests_at_once_than_by_default_are_measured_where_they_are_named(server, capsys):
    server.add_fault(Fault.delay(0.1, operation="GetObject", times=None))
    found, _ = measured(capsys, "s3://bucket/small/", *ENOUGH, "--concurrency", "1,300")
    assert found["curve"][-1]["concurrency"] == 300
    assert server.stats()["max_in_flight"] > 256


def test_shards_are_streamed_sample_by_sample(capsys):
    with LocalS3("shards") as server:
        for shard in range(4):
            file = io.BytesIO()
            with tarfile.open(fileobj=file, mode="w") as archive:
                for number in range(200):
                    member = tarfile.TarInfo(f"{shard}{number:03d}.bin")
                    member.size = 2000
                    archive.addfile(member, io.BytesIO(bytes(2000)))
            server.put("shards", f"train/{shard:03d}.tar", file.getvalue())
        arguments = [
            "s3://shards/train/",
            "--seconds",
            "2",
            "--concurrency",
            "1",
            "--workers",
            "0",
            "--batch-size",
            "8",
        ]
        found, _ = measured(capsys, *arguments)
    assert found["format"] == "tar"
    (step,) = found["workers"]
    assert step["samples"] % 8 == 0
    assert step["samples"] > 0
    assert step["bytes"] > 0


def test_a_transform_of_ones_own(server, capsys, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def decode(reader):\n    raise ValueError(f'cannot decode {reader.key}')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = ["s3://bucket/small/", "--seconds", "1", "--concurrency", "1", "--workers", "0"]
    assert main(["bench", *arguments, "--transform", "mine:decode"]) == 1
    said = capsys.readouterr().err
    assert "--transform raised ValueError: cannot decode small/" in said
    with pytest.raises(SystemExit):
        main(["bench", *arguments, "--transform", "mine:nothing"])


def test_a_transform_that_fails_in_a_worker(server, capsys, tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text("def decode(reader):\n    return len(reader.read()) / 0\n")
    monkeypatch.chdir(tmp_path)
    arguments = ["s3://bucket/small/", "--seconds", "1", "--concurrency", "1", "--workers", "1"]
    assert main(["bench", *arguments, "--transform", "theirs:decode"]) == 1
    assert "--transform raised ZeroDivisionError" in capsys.readouterr().err


def test_pictures_for_people_come_with_a_verdict(server):
    done = subprocess.run([*COMMAND, "s3://bucket/small/", *QUICK], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    for title in ("one request at a time", "requests at once", "what it means"):
        assert f"\n{title}\n" in done.stdout
    rows = re.findall(
        r"^ +(1|4|16)  [█▏▎▍▌▋▊▉ ]{32}  +[\d.]+ [kM]?B/s +[\d,]+ requests/s  p50 ", done.stdout, re.MULTILINE
    )
    assert rows == ["1", "4", "16"]
    assert re.search(r"read in [\d,]+ requests, [\d.]+ s; limited by: ", done.stdout)
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_rows_fit_the_terminal(columns):
    with LocalS3("bucket") as server:
        server.put("bucket", "x", b"x" * 1000)
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "dumb"}
        status, seen = on_terminal([*COMMAND, "s3://bucket/", *QUICK], env=environment, size=(40, columns))
    assert status == 0
    lines = [line.rpartition("\r")[2].rpartition("\x1b[K")[2] for line in seen.decode().split("\r\n")]
    rows = [line for line in lines if "requests/s" in line and "█" in line]
    assert len(rows) == 3
    assert max(map(len, lines)) <= columns
    assert all(("p99" in row) is (columns == 200) for row in rows)


def test_a_terminal_tells_what_is_measured():
    with LocalS3("bucket") as server:
        server.put("bucket", "x", b"x" * 1000)
        status, seen = on_terminal([*COMMAND, "s3://bucket/", *QUICK], env={**os.environ, "TERM": "xterm"})
    assert status == 0
    assert b"measuring: 4 done" in seen
    assert b"\x1b[32m" in seen


def test_a_picture_to_keep(server, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    measured(capsys, "s3://bucket/large/", *QUICK, "--plot", str(tmp_path / "bench.png"))
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_in_a_folder_that_is_not_there_is_told_before_anything_is_read(server, capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["bench", "s3://bucket/small/", "--plot", str(tmp_path / "none" / "bench.png")])
    assert ended.value.code == 2
    assert "there is no folder" in capsys.readouterr().err
    assert server.requests() == []


def test_a_picture_without_matplotlib_names_the_extra_before_anything_is_read(server, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert main(["bench", "s3://bucket/small/", "--plot", "x.png"]) == 1
    assert "pip install 's3dataset[demo]'" in capsys.readouterr().err
    assert server.requests() == []


# -- Writing -----------------------------------------------------------------------------------------------------------

WRITING = ["--write", "--sizes", "1KiB,1MiB,10MiB", *ENOUGH, "--max-bytes", "1GB"]


def test_temporary_objects_are_written_measured_and_removed(server, capsys):
    before = server.keys("bucket")
    found, said = measured(capsys, "s3://bucket/small", *WRITING, "--yes")
    assert [write["size"] for write in found["writes"]] == [1024, MIB, 10 * MIB]
    assert sizes_of(found) == {MIB, 4 * MIB, 8 * MIB, 16384, 131072}
    assert server.keys("bucket") == before
    assert server.stats()["operations"]["PutObject"] >= 3
    # Their requests, not the writing of them alone: the server's log forgets the oldest where a machine is fast.
    written = {record.key.rsplit("/", 2)[0] for record in server.requests() if record.key.startswith("small/s3dataset")}
    assert len(written) == 1
    assert re.fullmatch(r"small/s3dataset-bench-[0-9a-f]{16}", written.pop())
    assert "temporary objects below s3://bucket/small/s3dataset-bench-" in said


def test_without_a_terminal_and_without_yes_nothing_is_written(server):
    done = subprocess.run(
        [*COMMAND, "s3://bucket/small/", *WRITING],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2
    assert "--yes" in done.stdout
    assert server.requests() == []


def stopped(server, number, operation, uri="s3://bucket/small/"):
    """A measurement with `--write` that gets a signal after the first request of an operation."""
    process = subprocess.Popen(
        [*COMMAND, uri, *WRITING, "--seconds", "60", "--yes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not server.requests(operation):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_removes_what_was_written(server, number):
    before = server.keys("bucket")
    stopped(server, number, "GetObject")
    assert server.keys("bucket") == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_objects_are_written_waits_for_those_that_are_under_way(server, number):
    before = server.keys("bucket")
    server.add_fault(Fault.delay(1.0, operation="PutObject", after=1, times=None))
    stopped(server, number, "PutObject")
    assert server.keys("bucket") == before
    assert [record.status for record in server.requests("PutObject")] == [200] * 128


def test_what_cannot_be_removed_is_named(server, capsys):
    server.add_fault(Fault.status(403, code="AccessDenied", operation="DeleteObjects", times=None))
    assert main(["bench", "s3://bucket/small/", "--write", "--sizes", "1KiB", *QUICK, "--yes"]) == 1
    assert "aws s3 rm --recursive s3://bucket/small/s3dataset-bench-" in capsys.readouterr().err
    server.clear_faults()
    for key in server.keys("bucket", "small/s3dataset-bench-"):
        server.delete("bucket", key)


class TestVersions:
    """In a bucket that keeps them."""

    WRITING = ("--write", "--sizes", "1KiB,10MiB", *QUICK, "--max-bytes", "1GB", "--yes")

    def test_neither_versions_nor_delete_markers_stay(self, versioned, capsys):
        measured(capsys, "s3://versioned/", *self.WRITING)
        assert versioned.versions("versioned") == []

    def test_those_that_may_not_be_deleted_are_told(self, versioned, capsys):
        versioned.add_fault(Fault.status(403, code="AccessDenied", operation="DeleteObject", times=None))
        found, said = measured(capsys, "s3://versioned/", *self.WRITING)
        assert versioned.keys("versioned") == []
        assert f"{found['objects']} versions of them stay there, with delete markers" in said
        assert "s3:DeleteObjectVersion" in said

    def test_a_signal_leaves_none(self, versioned):
        versioned.add_fault(Fault.delay(1.0, operation="PutObject", after=1, times=None))
        stopped(versioned, signal.SIGTERM, "PutObject", "s3://versioned/")
        assert versioned.versions("versioned") == []


# -- Failures ----------------------------------------------------------------------------------------------------------


def test_nothing_to_read_says_what_to_do(server, capsys):
    assert main(["bench", "s3://empty/"]) == 1
    assert "There is nothing to read below s3://empty/" in capsys.readouterr().err


def test_a_pattern_that_fits_nothing(server, capsys):
    assert main(["bench", "s3://bucket/small/", "--pattern", "*.png"]) == 1
    assert "There is nothing to read" in capsys.readouterr().err


def test_objects_that_may_not_be_read(server, capsys):
    server.add_fault(Fault.status(403, code="AccessDenied", operation="GetObject", times=None))
    assert main(["bench", "s3://bucket/small/", *QUICK]) == 1
    assert "Access denied" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seconds", "0"],
        ["--concurrency", "0"],
        ["--concurrency", "1,x"],
        ["--workers", "-1"],
        ["--max-bytes", "lots"],
        ["--sizes", "1MiB"],
        ["--transform", "nothing"],
    ],
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["bench", "s3://bucket/small/", *arguments])
    assert ended.value.code == 2
    assert "usage: s3dataset bench" in capsys.readouterr().err
