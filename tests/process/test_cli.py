"""The command `s3dataset`, as a shell starts it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from tests.process.cli_command import TIMEOUT_S, command
from tests.terminal import on_terminal

import s3dataset
from s3dataset._cli import main
from s3dataset.testing import LocalS3


@pytest.fixture(scope="module")
def filled():
    with LocalS3("bucket", "empty") as server:
        for number in range(12):
            server.put("bucket", f"images/{number:02d}.jpg", b"x" * number)
        server.put("bucket", "images/notes.txt", b"notes")
        yield server


def test_version():
    assert command("--version").stdout == f"s3dataset {s3dataset.__version__}\n"


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-command"],
        ["ls"],
        ["ls", "bucket/images/"],
        ["ls", "s3://"],
        ["ls", "s3://bucket", "--sum"],
        ["ls", "s3://bucket", "--pattern", "{a"],
        ["ls", "s3://bucket", "--endpoint", "localhost:9000"],
        ["cat", "s3://bucket"],
        ["cat", "bucket/key"],
        ["cp", "s3://", "."],
        ["cp", "s3://bucket", "."],
        ["doctor", "bucket"],
        ["bench", "bucket"],
        ["pack", "s3://bucket/images/", "packed"],
        ["pack", "images", "s3://bucket/packed/"],
        ["index", "bucket"],
        ["checkpoint", "ls", "bucket/run"],
        ["demo", "--uri", "bucket"],
        ["ls", "s3://bucket", "--unsigned", "--profile", "mine"],
        ["ls", "s3://bucket", "--count", "--summary"],
        ["cat"],
        ["cp", "s3://bucket/key"],
        ["bench"],
        ["doctor", "s3://bucket/", "s3://bucket/"],
        ["completion", "tcsh"],
        ["demo", "--epochs", "0"],
        ["demo", "--workers", "-1"],
        ["serve", "--port", "65536"],
        ["index"],
        ["index", "s3://bucket/", "--full", "--check"],
        ["index", "s3://bucket/images/", "--format", "zip"],
        ["checkpoint"],
        ["checkpoint", "ls"],
        ["checkpoint", "verify", "s3://bucket/run", "--step", "-1"],
        ["checkpoint", "verify", "s3://bucket/run", "--step", "1", "--all"],
        ["checkpoint", "prune", "s3://bucket/run", "--keep-last", "0"],
        ["checkpoint", "prune", "s3://bucket/run", "--keep-every", "5"],
    ],
)
def test_wrong_usage_exits_with_2_and_says_how(arguments):
    done = command(*arguments)
    assert done.returncode == 2
    assert "usage: s3dataset" in done.stderr


@pytest.mark.usefixtures("filled")
class TestStreams:
    """Standard streams as a cron job, a daemon or a machine without locales may have them."""

    def shell(self, line, **variables):
        command = f"{sys.executable} -m s3dataset {line}"
        environment = {**os.environ, **variables}
        return subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)

    @pytest.mark.parametrize(
        "line",
        [
            "ls s3://bucket/images/ >&-",
            "ls s3://bucket/images/ --summary --json >&-",
            "cat s3://bucket/images/notes.txt >&-",
            "doctor s3://bucket/images/ >&-",
            "cp - s3://bucket/new <&-",
        ],
    )
    def test_one_that_is_closed_is_a_line(self, line):
        done = self.shell(line)
        assert done.returncode == 1
        assert "s3dataset: [Errno 9] Bad file descriptor\n" in done.stderr
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr

    def test_messages_never_go_to_standard_output(self):
        done = self.shell("ls s3://bucket/images/ 2>&-")
        assert (done.returncode, done.stdout.count("\n")) == (0, 13)
        assert self.shell("cat s3://bucket/images/notes.txt 2>&-").stdout == "notes"

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
    def test_what_an_encoding_has_no_place_for_is_escaped(self, filled, encoding):
        filled.put("bucket", "named/\u65e5.jpg", b"x" * 20)
        variables = {"PYTHONIOENCODING": encoding}
        assert "s3://bucket/named/\\u65e5.jpg" in self.shell("ls s3://bucket/named/", **variables).stdout
        (entry,) = json.loads(self.shell("ls s3://bucket/named/ --json", **variables).stdout)["entries"]
        assert entry["uri"] == "s3://bucket/named/\u65e5.jpg"
        assert "16 B - 64 B  ####" in self.shell("ls s3://bucket/named/ --summary", **variables).stdout
        assert "> --write tries them" in self.shell("doctor s3://bucket/named/", **variables).stdout


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["ls", "s3://no-such-bucket/"], "BucketNotFoundError"),
        (["cp", "s3://bucket/none", "-n", "x"], "ObjectNotFoundError"),
        (["cp", "no-such-file", "s3://bucket/new"], "FileNotFoundError"),
        (["bench", "s3://empty/"], "ObjectNotFoundError"),
        (["index", "s3://bucket/images/"], "S3Exception"),
        (["index", "s3://empty/"], None),
        (["pack", "s3://bucket/images/", "s3://no-such-bucket/x/"], "BucketNotFoundError"),
        (["checkpoint", "ls", "s3://no-such-bucket/run/"], "BucketNotFoundError"),
    ],
)
def test_failures_are_a_json_document_too(arguments, kind, capsys):
    assert main([*arguments, "--json"]) == 1
    printed = capsys.readouterr()
    error = json.loads(printed.out)["error"]
    assert error["type"] == kind
    assert set(error) == {"type", "message", "code", "status", "uri", "notes"}
    assert "s3dataset: " in printed.err


@pytest.mark.usefixtures("filled")
def test_to_pack_nothing_is_no_success(capsys):
    assert main(["pack", "s3://bucket/imges/", "s3://empty/packed/", "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["error"]["type"] == "ObjectNotFoundError"
    assert "There is no object below s3://bucket/imges/" in printed.err
    assert "nothing was written" in printed.err
    assert main(["ls", "s3://empty/", "--count"]) == 1


def test_ctrl_c_while_it_is_loaded_is_one_line():
    program = """
import signal, sys
import s3dataset.__main__
class Finder:  # a module that the command loads gets the signal
    def find_spec(self, name, *_):
        if name == "s3dataset._cli._ls":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.exit(s3dataset.__main__.main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (done.returncode, done.stderr) == (130, "s3dataset: interrupted\n")


class TestHelp:
    def test_it_begins_with_first_steps_and_exit_statuses(self):
        done = command("--help")
        assert done.returncode == 0
        for text in ("s3dataset doctor s3://bucket/prefix/", "s3dataset demo", "exit status: 0: done; 1: it failed"):
            assert text in done.stdout

    @pytest.mark.parametrize(
        "name", ["demo", "serve", "doctor", "bench", "ls", "cat", "cp", "index", "pack", "checkpoint", "completion"]
    )
    def test_each_command_has_examples_and_its_description_wrapped(self, name, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        printed = capsys.readouterr().out
        assert "\nexamples:\n  " in printed
        description = printed.split("\n\n")[1]
        assert max(map(len, description.splitlines())) <= 80

    def test_examples_fit_the_terminal_and_stay_whole(self, capsys, monkeypatch):
        printed = {}
        for columns in (80, 200):
            monkeypatch.setenv("COLUMNS", f"{columns}")
            with pytest.raises(SystemExit):
                main(["bench", "--help"])
            printed[columns] = capsys.readouterr().out.splitlines()
        assert "  s3dataset bench s3://bucket/scratch/ --write" in printed[80]
        assert "      with temporary objects of 16KiB to 64MiB" in printed[80]
        long = [line for line in printed[80] if len(line) > 80]
        assert long == ["  s3dataset bench s3://bucket/train/ --transform mypackage.data:decode --workers 0,2,4,8"]
        assert any(line.endswith("--write                      with temporary objects of 16KiB to 64MiB")
                   for line in printed[200])  # fmt: skip

    def test_it_is_quick_because_it_loads_nothing(self):
        heavy = ["torch", "botocore", "numpy", "tqdm", "matplotlib", "s3dataset._native"]
        script = (
            "import sys; from s3dataset._cli import build_parser; build_parser().format_help(); "
            f"print([name for name in {heavy} if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=TIMEOUT_S)
        assert done.stdout == "[]\n"

    @pytest.mark.parametrize("name", ["bench", "cat", "cp", "doctor", "index", "ls", "pack"])
    def test_the_same_connection_options_everywhere(self, name, capsys):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        printed = capsys.readouterr().out
        for option in ("--region", "--endpoint", "--profile", "--unsigned"):
            assert option in printed


@pytest.mark.usefixtures("filled")
class TestLs:
    def test_rows_are_in_key_order_with_sizes_and_counts_on_standard_error(self):
        done = command("ls", "s3://bucket/images/")
        assert done.returncode == 0, done.stderr
        rows = [line.split() for line in done.stdout.splitlines()]
        assert [row[-1] for row in rows] == [f"s3://bucket/images/{n:02d}.jpg" for n in range(12)] + [
            "s3://bucket/images/notes.txt"
        ]
        assert [int(row[0]) for row in rows] == [*range(12), 5]
        assert done.stderr.startswith("13 objects, 71 bytes (71 B), listed in ")

    def test_pattern_and_count(self):
        done = command("ls", "s3://bucket/images/", "--pattern", "*.jpg", "--count")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("12 objects, 66 bytes (66 B), listed in ")

    def test_a_summary_draws_the_sizes_and_says_what_to_do(self):
        done = command("ls", "s3://bucket/images/", "--summary")
        assert done.returncode == 0, done.stderr
        first, *rest = done.stdout.splitlines()
        assert first.startswith("13 objects, 71 bytes (71 B), listed in ")
        drawn = {line.split("█")[0].strip(): line for line in rest if "█" in line}
        assert set(drawn) == {"empty", "1 B – 4 B", "4 B – 16 B"}
        assert "█" * 40 in drawn["4 B – 16 B"]
        assert " 9  " in drawn["4 B – 16 B"]
        assert "suffixes: .jpg 92 %, .txt 8 %" in rest
        assert any(line.startswith("→ 13 objects of 5 bytes: each can be a sample") for line in rest)
        assert command("ls", "s3://bucket/images/", "--histogram").stdout.splitlines()[2:] == rest[1:]

    @pytest.mark.parametrize("columns", [40, 60, 80])
    def test_a_summary_fits_the_terminal(self, columns):
        line = [sys.executable, "-m", "s3dataset", "ls", "s3://bucket/images/", "--summary"]
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "dumb"}
        status, seen = on_terminal(line, env=environment, size=(40, columns))
        assert status == 0
        lines = seen.decode().split("\r\n")
        bars = [line for line in lines if "█" in line]
        assert len(bars) == 3
        assert max(map(len, bars)) <= columns

    def test_json(self):
        done = command("ls", "s3://bucket/images/", "--json")
        facts = json.loads(done.stdout)
        assert (facts["objects"], facts["bytes"]) == (13, 71)
        assert [entry["size"] for entry in facts["entries"]] == [*range(12), 5]
        assert set(facts["entries"][0]) == {"uri", "size", "mtime", "etag"}
        summary = json.loads(command("ls", "s3://bucket/images/", "--summary", "--json").stdout)
        assert "entries" not in summary
        assert sum(band["objects"] for band in summary["histogram"]) == 13
        assert sum(band["bytes"] for band in summary["histogram"]) == 71
        assert len(summary["advice"]) == 2
        count = json.loads(command("ls", "s3://bucket/images/", "--count", "--json").stdout)
        assert set(count) == {"uri", "objects", "bytes", "seconds"}
        nothing = command("ls", "s3://bucket/none/", "--json")
        assert nothing.returncode == 1
        assert json.loads(nothing.stdout)["entries"] == []

    def test_a_key_is_one_line_and_nothing_that_a_terminal_obeys(self, filled):
        filled.put("bucket", "odd/new\nline\x1b[31m\u00e9.jpg", b"x")
        done = command("ls", "s3://bucket/odd/")
        assert done.stdout.endswith(" s3://bucket/odd/new\\nline\\x1b[31m\u00e9.jpg\n")
        assert done.stdout.count("\n") == 1
        (entry,) = json.loads(command("ls", "s3://bucket/odd/", "--json").stdout)["entries"]
        assert entry["uri"] == "s3://bucket/odd/new\nline\x1b[31m\u00e9.jpg"

    def test_an_empty_prefix_exits_with_1_and_names_what_there_is(self):
        done = command("ls", "s3://bucket/imges/")
        assert done.returncode == 1
        assert done.stdout == ""
        assert "images/" in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_missing_bucket_is_one_line_with_the_uri(self):
        done = command("ls", "s3://no-such-bucket/")
        assert done.returncode == 1
        assert "s3://no-such-bucket" in done.stderr
        assert "Traceback" not in done.stderr

    def test_signing_is_a_matter_of_options(self, tmp_path):
        done = command("ls", "s3://bucket/images/", "--unsigned")
        assert done.returncode == 1
        assert "Access denied" in done.stderr
        (tmp_path / "credentials").write_text("[mine]\naws_access_key_id = AKIAWRONG\naws_secret_access_key = wrong\n")
        environment = {**os.environ, "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")}
        done = command("ls", "s3://bucket/images/", "--profile", "mine", env=environment)
        assert done.returncode == 1
        assert "InvalidAccessKeyId" in done.stderr

    def test_ctrl_c_is_one_line(self, filled):
        filled.add_synthetic("bucket", "endless/{}.jpg", count=3_000_000, size_bytes=1)
        filled.set_traffic(latency_s=0.5)
        filled.reset_stats()
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "s3dataset", "ls", "s3://bucket/endless/"], stderr=subprocess.PIPE, text=True
            )
            deadline = time.monotonic() + TIMEOUT_S
            while not filled.stats()["requests"]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
            filled.set_traffic(latency_s=0.0)
        assert process.returncode == 130
        assert errors == "s3dataset: interrupted\n"

    def test_a_temporary_folder_that_is_none_is_one_line(self, filled, tmp_path):
        filled.add_synthetic("bucket", "enough/{}.jpg", count=120_000, size_bytes=1)
        script = (
            "import sys, tempfile; from s3dataset._cli import main; "
            f"tempfile.tempdir = {str(tmp_path / 'none')!r}; sys.exit(main(['ls', 's3://bucket/enough/', '--count']))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=TIMEOUT_S)
        assert done.returncode == 1
        assert "No such file or directory" in done.stderr
        assert "Traceback" not in done.stderr

    def test_no_uri_of_s3(self):
        done = command("ls", "images/")
        assert done.returncode == 2
        assert "Only s3:// URIs are supported" in done.stderr

    def test_a_reader_that_goes_away_is_no_error(self, filled):
        filled.add_synthetic("bucket", "many/{}.jpg", count=20_000, size_bytes=1)
        line = f"{sys.executable} -m s3dataset ls s3://bucket/many/ | head -n 1; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=TIMEOUT_S)
        assert done.returncode == 141
        assert done.stdout.count("\n") == 1
        assert done.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_prints_how_to_reach_it_and_ends_cleanly(number, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "s3dataset", "serve", "pictures", "--directory", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = []
        while not lines or "Ctrl-C" not in lines[-1]:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            lines.append(line)
        exported = dict(line.split(maxsplit=1)[1].rstrip().split("=", 1) for line in lines if "export " in line)
        upload = "import s3dataset; s3dataset.S3Client().put_many([('pictures', 'a/b.txt', b'hello')])"
        subprocess.run([sys.executable, "-c", upload], env={**os.environ, **exported}, check=True, timeout=TIMEOUT_S)
        assert (tmp_path / "pictures" / "a" / "b.txt").read_bytes() == b"hello"
        process.send_signal(number)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode == 0
    assert errors == ""


def test_serve_on_a_port_that_is_taken_says_so():
    with LocalS3("bucket", activate=False) as other:
        done = command("serve", "--port", str(other.port))
    assert done.returncode == 1
    assert "did not start" in done.stderr
    assert "Traceback (most recent call last):\n  File" not in done.stderr.split("did not start")[0]


class TestCheckpoint:
    URI = "s3://checkpoints/run"

    @pytest.fixture
    def server(self):
        with LocalS3("checkpoints") as server, s3dataset.CheckpointManager(self.URI, keep_last=None) as manager:
            for step in (5, 60, 700):
                manager.save(step, {"step": step}, metadata={"loss": step / 2})
            manager.pin(5)
            yield server

    def test_ls(self, server):
        done = command("checkpoint", "ls", self.URI)
        assert done.returncode == 0, done.stderr
        header, *rows = [line.split() for line in done.stdout.splitlines()]
        assert header == ["STEP", "TIME", "(UTC)", "SIZE", "FILES", "RANKS", "FORMAT", "PINNED"]
        assert [row[0] for row in rows] == ["700", "60", "5"]
        assert [row[-1] for row in rows] == ["torch", "torch", "yes"]
        assert done.stderr.startswith("3 checkpoints, ")
        assert '{"loss": 30.0}' in command("checkpoint", "ls", self.URI, "--metadata").stdout
        facts = json.loads(command("checkpoint", "ls", self.URI, "--json").stdout)
        assert facts["uri"] == "s3://checkpoints/run/"
        assert [(one["step"], one["pinned"], one["metadata"]) for one in facts["checkpoints"]] == [
            (700, False, {"loss": 350.0}),
            (60, False, {"loss": 30.0}),
            (5, True, {"loss": 2.5}),
        ]
        nothing = command("checkpoint", "ls", "s3://checkpoints/other")
        assert nothing.returncode == 1
        assert nothing.stderr == "s3dataset: s3://checkpoints/other/ has no committed checkpoint\n"

    def test_ls_with_a_record_that_is_none(self, server):
        server.put("checkpoints", "run/commits/000000000000.json", b"junk")
        done = command("checkpoint", "ls", self.URI)
        assert done.returncode == 1
        assert "is no commit record" in done.stdout
        assert "700" in done.stdout

    def test_verify(self, server):
        newest = command("checkpoint", "verify", self.URI)
        assert (newest.returncode, newest.stderr) == (0, "")
        assert newest.stdout.startswith("step 700: whole (1 file, ")
        (key,) = server.keys("checkpoints", "run/data/60.")
        server.put("checkpoints", key, b"x")
        every = command("checkpoint", "verify", self.URI, "--all")
        assert every.returncode == 1
        assert [line.split(" ")[2] for line in every.stdout.splitlines() if line[0] != " "] == [
            "whole",
            "DAMAGED",
            "whole",
        ]
        assert f"s3://checkpoints/{key} has 1 bytes" in every.stdout
        assert command("checkpoint", "verify", self.URI, "--step", "5").returncode == 0
        document = command("checkpoint", "verify", self.URI, "--all", "--json")
        assert document.returncode == 1
        found = json.loads(document.stdout)
        assert (found["uri"], found["ok"]) == ("s3://checkpoints/run/", False)
        assert [(one["step"], one["whole"]) for one in found["checkpoints"]] == [(700, True), (60, False), (5, True)]
        assert key in found["checkpoints"][1]["damages"][0]
        document = json.loads(command("checkpoint", "verify", self.URI, "--step", "6", "--json").stdout)
        assert "has no checkpoint of step 6" in document["checkpoints"][0]["error"]
        missing = command("checkpoint", "verify", self.URI, "--step", "6")
        assert missing.returncode == 1
        assert "has no checkpoint of step 6" in missing.stderr

    def test_prune(self, server):
        assert command("checkpoint", "prune", self.URI).stderr == "nothing to delete below s3://checkpoints/run/\n"
        before = server.keys("checkpoints")
        would = command("checkpoint", "prune", self.URI, "--keep-last", "1", "--dry-run")
        assert (would.returncode, would.stdout) == (0, "would delete step 60\n")
        assert server.keys("checkpoints") == before
        assert command("checkpoint", "prune", self.URI, "--keep-last", "1", "--keep-every", "20").stdout == ""
        document = command("checkpoint", "prune", self.URI, "--keep-last", "1", "--dry-run", "--json").stdout
        assert json.loads(document) == {
            "uri": "s3://checkpoints/run/",
            "dry_run": True,
            "steps": [60],
            "attempts": [],
            "uploads": [],
        }
        done = command("checkpoint", "prune", self.URI, "--keep-last", "1")
        assert (done.returncode, done.stdout) == (0, "deleted step 60\n")
        assert len(server.keys("checkpoints", "run/commits/")) == 2

    def test_it_needs_no_torch(self, server):
        program = (
            "import sys; from s3dataset._cli import main; "
            f"codes = [main(['checkpoint', action, {self.URI!r}]) for action in ('ls', 'verify', 'prune')]; "
            "sys.exit(any(codes) or 'torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=TIMEOUT_S).returncode == 0
