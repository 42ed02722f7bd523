"""`s3dataset cat` and `cp`: one object, whole or not at all."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
from tests.terminal import on_terminal

from s3dataset._cli import main
from s3dataset._transfer import _receive
from s3dataset.testing import Fault, LocalS3

TIMEOUT_S = 60
MIB = 1 << 20
COMMAND = [sys.executable, "-m", "s3dataset"]
LARGE = random.Random(7).randbytes(40 * MIB + 12345)


@pytest.fixture(scope="module")
def running():
    with LocalS3("bucket") as server:
        server.put("bucket", "data/small.txt", b"hello world\n")
        server.put("bucket", "data/empty", b"")
        server.put("bucket", "data/large.bin", LARGE)
        yield server


@pytest.fixture
def server(running):
    running.clear_faults()
    running.set_traffic(latency_s=0.0)
    running.reset_stats()
    yield running
    running.clear_faults()


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


# -- cat ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["s3://bucket/data/small.txt"], b"hello world\n"),
        (["s3://bucket/data/empty"], b""),
        (["s3://bucket/data/large.bin"], LARGE),
        (["s3://bucket/data/small.txt", "--range", "0-4"], b"hello"),
        (["s3://bucket/data/small.txt", "--range", "-6"], b"world\n"),
        (["s3://bucket/data/large.bin", "--range", "1000-"], LARGE[1000:]),
        (["s3://bucket/data/large.bin", "--range", "8388600-25165830"], LARGE[8388600:25165831]),
    ],
)
@pytest.mark.usefixtures("server")
def test_cat_prints_exactly_these_bytes(arguments, expected, capsysbinary):
    assert main(["cat", *arguments]) == 0
    printed = capsysbinary.readouterr()
    assert printed.out == expected
    assert printed.err == b""


def test_cat_of_a_small_object_is_a_get_and_a_head_beside_it_for_the_checksum(server, capsysbinary):
    assert main(["cat", "s3://bucket/data/small.txt"]) == 0
    assert sorted(record.operation for record in server.requests()) == ["GetObject", "HeadObject"]


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/", "s3://bucket/data/"])
def test_cat_refuses_prefixes(uri, capsys):
    assert "s3dataset ls" in refused(capsys, "cat", uri)


@pytest.mark.usefixtures("server")
def test_a_missing_object_that_is_a_prefix_is_told(capsys):
    assert main(["cat", "s3://bucket/data"]) == 1
    said = capsys.readouterr().err
    assert "The key does not exist: s3://bucket/data" in said
    assert "It is no object but a prefix: there are objects below it, as s3://bucket/data/empty" in said


@pytest.mark.usefixtures("server")
def test_a_range_behind_the_end(capsys):
    assert main(["cat", "s3://bucket/data/small.txt", "--range", "12-"]) == 1
    assert "s3://bucket/data/small.txt has 12 bytes" in capsys.readouterr().err
    assert "is no range of bytes" in refused(capsys, "cat", "s3://bucket/data/small.txt", "--range", "4-1")


@pytest.mark.usefixtures("server")
def test_cat_into_a_pipe_whose_reader_goes_away_is_quiet():
    line = f"{sys.executable} -m s3dataset cat s3://bucket/data/large.bin | head -c 10; echo ${{PIPESTATUS[0]}} >&2"
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=TIMEOUT_S)
    assert done.stdout == LARGE[:10]
    assert done.stderr == b"141\n"


# -- cp: down ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(("key", "data"), [("small.txt", b"hello world\n"), ("empty", b""), ("large.bin", LARGE)])
def test_down_to_a_file_and_into_a_folder(key, data, tmp_path, capsys):
    assert main(["cp", f"s3://bucket/data/{key}", str(tmp_path / "copy")]) == 0
    assert main(["cp", f"s3://bucket/data/{key}", str(tmp_path)]) == 0
    assert (tmp_path / "copy").read_bytes() == (tmp_path / key).read_bytes() == data
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["copy", key])  # nothing temporary
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("checksum compared)") == 2


@pytest.mark.usefixtures("server")
def test_json_has_one_document(tmp_path, capsys):
    target = str(tmp_path / "copy")
    assert main(["cp", "s3://bucket/data/large.bin", target, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts.pop("seconds") >= 0
    assert facts.pop("etag")
    assert facts == {
        "source": "s3://bucket/data/large.bin",
        "target": target,
        "bytes": len(LARGE),
        "integrity": "checksum compared",
    }


@pytest.mark.usefixtures("server")
def test_json_names_the_file_in_a_folder(tmp_path, capsys):
    assert main(["cp", "s3://bucket/data/large.bin", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["target"] == str(tmp_path / "large.bin")


@pytest.mark.usefixtures("server")
def test_a_range_to_a_file(tmp_path):
    assert main(["cp", "s3://bucket/data/large.bin", str(tmp_path / "part"), "--range", "100-199"]) == 0
    assert (tmp_path / "part").read_bytes() == LARGE[100:200]


@pytest.mark.usefixtures("server")
def test_the_target_keeps_its_mode_and_stays_a_link(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    assert main(["cp", "s3://bucket/data/small.txt", str(tmp_path / "link")]) == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"hello world\n"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o640


@pytest.mark.usefixtures("server")
def test_no_clobber(tmp_path, capsys):
    (tmp_path / "there").write_bytes(b"old")
    assert main(["cp", "-n", "s3://bucket/data/small.txt", str(tmp_path / "there")]) == 1
    assert f"{tmp_path / 'there'} exists" in capsys.readouterr().err
    assert (tmp_path / "there").read_bytes() == b"old"
    assert main(["cp", "-n", "s3://bucket/data/small.txt", str(tmp_path / "new")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "there"]


@pytest.mark.usefixtures("server")
def test_a_folder_that_is_not_there(tmp_path, capsys):
    assert main(["cp", "s3://bucket/data/small.txt", str(tmp_path / "none" / "file")]) == 1
    assert f"There is no such folder: '{tmp_path / 'none'}'" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["small.txt", "large.bin"])
def test_damaged_bytes_are_no_file(server, key, tmp_path, capsys):
    server.add_fault(Fault.corrupt(at=5, key=f"data/{key}", operation="GetObject", times=None))
    (tmp_path / "copy").write_bytes(b"old")
    assert main(["cp", f"s3://bucket/data/{key}", str(tmp_path / "copy")]) == 1
    said = capsys.readouterr().err
    assert f"s3://bucket/data/{key}" in said
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    assert (tmp_path / "copy").read_bytes() == b"old"


def test_an_object_that_is_replaced_meanwhile_is_no_file(server, tmp_path, capsys):
    server.put("bucket", "data/changing", LARGE)
    server.add_fault(Fault.replace(key="data/changing", operation="GetObject", times=1))
    assert main(["cp", "s3://bucket/data/changing", str(tmp_path / "copy")]) == 1
    assert "s3://bucket/data/changing" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_memory_is_bounded_by_the_window_not_by_the_object(server, monkeypatch, tmp_path):
    monkeypatch.setattr(_receive, "_MOST_AT_ONCE", 2)
    server.set_traffic(latency_s=0.05)
    assert main(["cp", "s3://bucket/data/large.bin", str(tmp_path / "copy")]) == 0
    assert (tmp_path / "copy").read_bytes() == LARGE


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_no_file(server, number, status, tmp_path):
    server.add_fault(Fault.stall(at=1 << 20, key="data/large.bin", operation="GetObject", times=None))
    process = subprocess.Popen(
        [*COMMAND, "cp", "s3://bucket/data/large.bin", str(tmp_path / "copy")], stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not server.stats()["requests"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode == status
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


# -- cp: up ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"small", LARGE])
def test_up_from_a_file(server, data, tmp_path, capsys):
    (tmp_path / "model.pt").write_bytes(data)
    assert main(["cp", str(tmp_path / "model.pt"), "s3://bucket/up/", "--content-type", "application/zip"]) == 0
    assert server.get("bucket", "up/model.pt") == data
    assert "checksum compared by the service" in capsys.readouterr().err
    assert server.uploads("bucket") == []


def test_up_from_a_pipe(server):
    done = subprocess.run(
        [*COMMAND, "cp", "-", "s3://bucket/up/piped"], input=LARGE, capture_output=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    assert server.get("bucket", "up/piped") == LARGE


def test_no_clobber_of_objects(server, tmp_path, capsys):
    (tmp_path / "new").write_bytes(b"new")
    assert main(["cp", "-n", str(tmp_path / "new"), "s3://bucket/data/small.txt"]) == 1
    assert "s3://bucket/data/small.txt exists" in capsys.readouterr().err
    assert server.get("bucket", "data/small.txt") == b"hello world\n"


@pytest.mark.parametrize("name", ["small.txt", "large.bin"])
def test_no_clobber_where_conditions_are_ignored(server, tmp_path, capsys, name):
    server.add_fault(Fault.ignore_conditions(times=None))
    before = server.get("bucket", f"data/{name}")
    (tmp_path / "new").write_bytes(LARGE[1:])
    server.reset_stats()
    assert main(["cp", "-n", str(tmp_path / "new"), f"s3://bucket/data/{name}"]) == 1
    assert f"s3://bucket/data/{name} exists" in capsys.readouterr().err
    assert server.get("bucket", f"data/{name}") == before
    assert set(server.stats()["operations"]) <= {"HeadObject", "GetObject"}


def test_no_clobber_for_those_who_may_only_write(server, tmp_path):
    server.add_fault(Fault.status(403, code="AccessDenied", operation="*eadObject", times=None))
    server.add_fault(Fault.status(403, code="AccessDenied", operation="GetObject", times=None))
    (tmp_path / "new").write_bytes(b"new")
    assert main(["cp", "-n", str(tmp_path / "new"), "s3://bucket/up/blind"]) == 0
    assert main(["cp", "-n", str(tmp_path / "new"), "s3://bucket/up/blind"]) == 1


def test_an_upload_that_fails_leaves_nothing_and_says_it_once(server, tmp_path):
    (tmp_path / "large").write_bytes(LARGE)
    server.add_fault(Fault.status(403, code="AccessDenied", operation="UploadPart", times=None))
    done = subprocess.run(
        [*COMMAND, "cp", str(tmp_path / "large"), "s3://bucket/up/denied"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("s3dataset: ")
    assert done.stderr.count("was NOT saved") == 1
    assert server.keys("bucket", "up/denied") == []
    assert server.uploads("bucket") == []


def test_ctrl_c_aborts_the_upload(server):
    process = subprocess.Popen(
        [*COMMAND, "cp", "-", "s3://bucket/up/cut"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        process.stdin.write(LARGE)
        process.stdin.flush()
        deadline = time.monotonic() + TIMEOUT_S
        while not server.requests("UploadPart"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode == 130
    assert b"s3://bucket/up/cut was NOT saved" in errors
    assert server.keys("bucket", "up/cut") == []
    assert server.uploads("bucket") == []


def test_a_file_that_grows_meanwhile_is_not_saved(server, tmp_path, capsys):
    """As what a program still writes to: a part of it would look whole."""
    script = (
        "import io, sys; from pathlib import Path\n"
        "from s3dataset._client import Client; from s3dataset._transfer import upload; "
        "from s3dataset._uri import S3Uri\n"
        "path = Path(sys.argv[1]); path.write_bytes(b'x' * 100)\n"
        "class Growing(io.FileIO):\n"
        "    def readinto(self, buffer):\n"
        "        with path.open('ab') as file: file.write(b'y') if path.stat().st_size < 200 else None\n"
        "        return super().readinto(buffer)\n"
        "try: upload(Client(), Growing(path), S3Uri('bucket', 'up/growing'), name=str(path))\n"
        "except OSError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "log")], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert "had 100 bytes at first" in done.stdout
    assert server.keys("bucket", "up/growing") == []


# -- cp: within --------------------------------------------------------------------------------------------------------


def test_within_s3_no_bytes_pass_here(server, capsys):
    assert main(["cp", "s3://bucket/data/large.bin", "s3://bucket/copies/"]) == 0
    assert server.get("bucket", "copies/large.bin") == LARGE
    assert server.requests("GetObject") == server.requests("PutObject") == server.requests("UploadPart") == []
    assert "copied by the service" in capsys.readouterr().err
    assert main(["cp", "-n", "s3://bucket/data/small.txt", "s3://bucket/copies/large.bin"]) == 1
    assert "s3://bucket/copies/large.bin exists" in capsys.readouterr().err


# -- Refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["s3://bucket/data/", "."], "aws s3 sync"),
        (["s3://bucket", "."], "aws s3 sync"),
        (["-r", "s3://bucket/data", "."], "aws s3 sync"),
        ([".", "s3://bucket/data/"], "is a folder"),
        (["s3://bucket/a", ""], "must not be empty"),
        (["", "s3://bucket/a"], "must not be empty"),
        (["here", "there"], "neither 'here' nor 'there' is in S3"),
        (["-", "s3://bucket/data/"], "standard input has no name"),
        (["s3://bucket/a", "s3://bucket/a"], "are the same object"),
        (["s3://bucket/a", "-", "--json"], "both want standard output"),
        (["s3://bucket/a", "-", "-n"], "nothing about standard output"),
        (["s3://bucket/a", "s3://bucket/b", "--range", "0-1"], "--range is for downloads"),
        (["s3://bucket/a", "b", "--content-type", "text/plain"], "--content-type is for uploads"),
    ],
)
@pytest.mark.usefixtures("server")
def test_what_is_no_copy_of_one_object_is_refused_before_anything_is_sent(arguments, says, capsys):
    assert says in refused(capsys, "cp", *arguments)


# -- On a terminal -----------------------------------------------------------------------------------------------------

SLOWLY = """
import sys
from s3dataset import _progress
_progress._PATIENCE_S = 0.0
from s3dataset._cli import main
sys.exit(main(sys.argv[1:]))
"""


def with_a_bar(*arguments):
    return on_terminal([sys.executable, "-c", SLOWLY, *arguments])


def test_a_bar_on_a_terminal_and_none_when_not_wanted(server, tmp_path):
    server.set_traffic(latency_s=0.1)
    status, seen = with_a_bar("cp", "s3://bucket/data/large.bin", str(tmp_path / "copy"))
    assert status == 0
    assert b"large.bin" in seen.split(b"s3dataset: ")[0]
    assert b"%|" in seen
    status, seen = with_a_bar("cp", "--no-progress", "s3://bucket/data/large.bin", str(tmp_path / "copy"))
    assert status == 0
    assert b"%|" not in seen
