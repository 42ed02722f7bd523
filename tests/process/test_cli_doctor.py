"""`s3dataset doctor`: what it looks at, what it says, what it never prints."""

import json
import re
import socket
import subprocess
import sys
import time
from email.utils import formatdate

import pytest

from s3dataset._cli import main
from s3dataset._doctor import _machine
from s3dataset._limits import ProcessLimits
from s3dataset.testing import Fault, LocalS3

TIMEOUT_S = 60
URI = "s3://bucket/data/"


@pytest.fixture(scope="module")
def running():
    with LocalS3("bucket") as server:
        server.put("bucket", "data/one.bin", b"1" * 100)
        yield server


@pytest.fixture
def server(running):
    running.clear_faults()
    running.reset_stats()
    yield running
    running.clear_faults()


def examined(capsys, *arguments):
    """-> exit status, checks by name."""
    status = main(["doctor", *arguments, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is (status == 0)
    return status, {check["name"]: check for check in document["checks"]}


def statuses(checks, *names):
    return [checks[name]["status"] for name in names]


def test_a_place_where_all_is_well(server, capsys):
    status, checks = examined(capsys, URI, "--write")
    assert status == 0
    assert {check["status"] for check in checks.values()} <= {"ok", "info", "warn"}
    places = (
        "list",
        "get",
        "put",
        "read back",
        "conditional writes",
        "multipart uploads",
        "delete",
        "checksums",
        "clock",
    )
    assert statuses(checks, *places) == ["ok"] * len(places)
    assert server.keys("bucket") == ["data/one.bin"]
    assert server.uploads("bucket") == []
    written = {record.key for record in server.requests("PutObject")}
    assert len(written) == 1
    assert re.fullmatch(r"data/s3dataset-doctor-[0-9a-f]{16}", written.pop())


class TestVersions:
    """In a bucket that keeps them."""

    def test_neither_versions_nor_delete_markers_stay(self, versioned, capsys):
        status, checks = examined(capsys, "s3://versioned/", "--write")
        assert status == 0
        assert statuses(checks, "delete", "versions") == ["ok", "info"]
        assert "are deleted" in checks["versions"]["said"]
        assert versioned.versions("versioned") == []

    def test_those_that_may_not_be_deleted_are_told(self, versioned, capsys):
        versioned.add_fault(Fault.status(403, code="AccessDenied", operation="DeleteObject", after=1, times=None))
        status, checks = examined(capsys, "s3://versioned/", "--write")
        assert status == 0
        assert "s3:DeleteObjectVersion" in checks["versions"]["said"]
        assert len(versioned.versions("versioned")) == 2

    def test_where_a_condition_was_ignored_both_go(self, versioned, capsys):
        versioned.add_fault(Fault.ignore_conditions(times=None))
        examined(capsys, "s3://versioned/", "--write")
        assert versioned.versions("versioned") == []


def test_nothing_is_written_unasked(server, capsys):
    status, checks = examined(capsys, URI)
    assert status == 0
    assert checks["put, delete"]["status"] == "info"
    # "Unknown" is the HEAD without a signature, for the clock.
    asked = {record.operation for record in server.requests()}
    assert asked == {"Unknown", "ListObjectsV2", "GetObject", "HeadObject"}


def test_lines_for_people(server, capsys, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["doctor", URI]) == 0
    printed = capsys.readouterr().out
    for section in ("versions", "machine", "identity", "network", "place", "features"):
        assert f"{section}\n" in printed
    assert re.search(r"^  OK    list +allowed; s3://bucket/data/one.bin is one of them, \d+ ms$", printed, re.MULTILINE)
    assert re.search(r"^\d+ OK, \d+ warnings?, 0 failures$", printed, re.MULTILINE)
    assert "\x1b" not in printed


def test_no_secret_is_printed(server, capsys, monkeypatch):
    secrets = ["local-s3-secret-key", server.access_key, "proxy-password"]
    monkeypatch.setenv("HTTPS_PROXY", "http://me:proxy-password@proxy.example:3128")
    for arguments in (["doctor", URI, "--write"], ["doctor", URI, "--json"]):
        main(arguments)
        printed = capsys.readouterr()
        for secret in secrets:
            assert secret not in printed.out + printed.err
        assert "http://me:***@proxy.example:3128" in printed.out
        assert "LOCA…SKEY" in printed.out


def test_where_things_come_from(server, capsys, monkeypatch, tmp_path):
    _, checks = examined(capsys)
    assert checks["credentials"]["facts"]["source"] == "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
    assert checks["region"]["facts"] == {"region": "us-east-1", "origin": "AWS_REGION"}
    assert checks["endpoint"]["facts"]["origin"] == "AWS_ENDPOINT_URL"
    (tmp_path / "config").write_text(
        f"[profile mine]\nregion = eu-west-1\nendpoint_url = {server.endpoint}\n"
        f"aws_access_key_id = {server.access_key}\naws_secret_access_key = {server.secret_key}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    _, checks = examined(capsys, "--profile", "mine")
    assert checks["credentials"]["facts"]["source"] == "shared configuration file"
    assert checks["region"]["facts"] == {"region": "eu-west-1", "origin": "the profile 'mine'"}
    assert checks["endpoint"]["facts"] == {"endpoint": server.endpoint, "origin": "the profile 'mine'"}
    _, checks = examined(capsys, "--profile", "mine", "--region", "us-west-2", "--endpoint", server.endpoint)
    assert checks["region"]["facts"]["origin"] == checks["endpoint"]["facts"]["origin"] == "the argument"


@pytest.mark.parametrize(
    ("operation", "name", "grant"),
    [
        ("ListObjectsV2", "list", "s3:ListBucket"),
        ("GetObject", "get", "s3:GetObject"),
        ("PutObject", "put", "s3:PutObject"),
        ("DeleteObject", "delete", "s3:DeleteObject"),
    ],
)
def test_each_permission_that_is_missing_is_named(server, capsys, operation, name, grant):
    server.add_fault(Fault.status(403, code="AccessDenied", operation=operation, times=None))
    status, checks = examined(capsys, URI, "--write")
    assert status == 1
    failed = [check["name"] for check in checks.values() if check["status"] == "fail"]
    assert name in failed
    assert grant in checks[name]["advice"]
    left = [key for key in server.keys("bucket") if key != "data/one.bin"]
    if name == "delete":
        assert f"s3://bucket/{left[0]} stays there" in checks["delete"]["advice"]
        server.delete("bucket", left[0])
    else:
        assert left == []


def test_missing_and_wrong_credentials(server, capsys, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    status, checks = examined(capsys, URI)
    assert status == 1
    assert checks["list"]["facts"]["code"] == "SignatureDoesNotMatch"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    status, checks = examined(capsys, URI)
    assert status == 1
    assert "--unsigned" in checks["credentials"]["advice"]
    assert checks["permissions"]["status"] == "info"


def test_temporary_keys_that_nobody_renews(server, capsys, monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    _, checks = examined(capsys)
    assert checks["expiry"]["status"] == "warn"
    assert "temporary" in checks["credentials"]["said"]


@pytest.mark.usefixtures("server")
def test_a_bucket_that_is_not_there_and_a_prefix_that_is_empty(capsys):
    status, checks = examined(capsys, "s3://no-such-bucket/x")
    assert status == 1
    assert checks["list"]["status"] == "fail"
    assert "get" not in checks
    status, checks = examined(capsys, "s3://bucket/nothing/")
    assert status == 0
    assert checks["list"]["status"] == "warn"
    assert checks["get"]["status"] == "info"


def test_an_endpoint_where_nobody_listens_ends_soon(server, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
    status, checks = examined(capsys, URI, "--endpoint", endpoint)
    assert status == 1
    assert checks["TCP"]["status"] == "fail"
    assert checks["list"]["status"] == "fail"


def test_an_endpoint_that_is_no_url_is_told_once(server, capsys, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:99")
    assert main(["doctor", "s3://bucket/data/", "--json"]) == 1
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [check["name"] for check in checks if check["status"] == "fail"] == ["address"]
    assert "was not asked: it has no address" in checks[-1]["said"]


def test_a_host_without_an_address(server, capsys):
    status, checks = examined(capsys, "--endpoint", "http://no-such-host.invalid:9000")
    assert status == 1
    assert checks["DNS"]["status"] == "fail"


@pytest.mark.parametrize(("skew_s", "status"), [(0, "ok"), (-300, "warn"), (7200, "fail"), (-7200, "fail")])
def test_clocks_that_differ(server, capsys, skew_s, status):
    server.add_fault(Fault.headers({"date": formatdate(time.time() + skew_s, usegmt=True)}, times=None))
    _, checks = examined(capsys)
    assert checks["clock"]["status"] == status
    assert checks["clock"]["facts"]["skew_s"] == pytest.approx(-skew_s, abs=10)


@pytest.mark.parametrize("skew_s", [1200, -1200])
def test_a_clock_that_is_wrong_is_told_and_does_not_hinder(server, capsys, skew_s):
    server.add_fault(Fault.clock_skew(skew_s, times=None))
    status, checks = examined(capsys, URI, "--write")
    assert status == 1
    assert [name for name, check in checks.items() if check["status"] == "fail"] == ["clock"]
    assert main(["ls", URI]) == 0


def test_stores_that_ignore_conditions_and_keep_no_checksums(server, capsys):
    server.add_fault(Fault.ignore_conditions(times=None))
    status, checks = examined(capsys, URI, "--write")
    assert status == 0
    assert checks["conditional writes"]["status"] == "warn"
    assert "written over" in checks["conditional writes"]["said"]
    assert server.keys("bucket") == ["data/one.bin"]


def test_tls_is_looked_at_and_an_unknown_root_is_told(capsys, monkeypatch):
    with LocalS3("secure", tls=True) as server:
        server.put("secure", "x", b"x")
        _, checks = examined(capsys, "s3://secure/")
        assert checks["TLS"]["said"].startswith("TLSv1.3")
        with monkeypatch.context() as elsewhere:
            elsewhere.delenv("AWS_CA_BUNDLE")
            status, checks = examined(capsys, "s3://secure/")
        assert status == 1
        assert "AWS_CA_BUNDLE" in checks["TLS"]["advice"]


def test_machines_that_are_too_small(monkeypatch, capsys):
    monkeypatch.setattr(_machine, "process_limits", lambda: ProcessLimits(1, 32 << 20, 16))
    monkeypatch.setattr(_machine, "memory_of_machine_bytes", lambda: 512 << 20)
    monkeypatch.setattr(_machine.resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(_machine, "_quota", lambda: 0.5)
    monkeypatch.setenv("HTTP_PROXY", "socks5://proxy:1080")
    found = {check.name: check for check in _machine.look_at_machine()}
    assert found["memory"].status == found["open files"].status == found["cores"].status == "warn"
    assert "limited to 512 MiB" in found["memory"].said
    assert "ulimit -n 1024" in found["open files"].advice
    assert found["HTTP_PROXY"].status == "fail"


def test_wrong_usage(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--write"])
    assert ended.value.code == 2
    assert "--write needs a place" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "https://bucket"])
    assert ended.value.code == 2


def test_it_loads_no_torch(server):
    script = (
        "import sys; from s3dataset._cli import main; "
        f"status = main(['doctor', {URI!r}]); sys.exit(status or ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
