"""The local S3 as a process, and what it tells and changes from outside."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from s3dataset.testing import LocalS3, ServerError, synthetic_bytes

from .errors import refused
from .wire import Wire


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for(condition: Any, timeout_s: float = 30.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class TestEnvironment:
    def test_this_process_is_pointed_at_the_server_while_it_lives(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import boto3

        monkeypatch.setenv("AWS_PROFILE", "work")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
        monkeypatch.delenv("AWS_REGION", raising=False)
        before = dict(os.environ)
        with LocalS3("bucket", region="eu-west-1") as server:
            s3 = boto3.client("s3")
            s3.put_object(Bucket="bucket", Key="k", Body=b"x")
            s3.close()
            assert server.get("bucket", "k") == b"x"
            assert (os.environ["AWS_REGION"], "AWS_PROFILE" in os.environ) == ("eu-west-1", False)
        assert dict(os.environ) == before

    def test_nothing_changes_without_activation(self) -> None:
        before = dict(os.environ)
        with LocalS3(activate=False):
            assert dict(os.environ) == before

    def test_tls(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import boto3

        with LocalS3("bucket", tls=True) as server:
            assert server.endpoint.startswith("https://")
            s3 = boto3.client("s3")
            # Over TLS boto3 sends its checksum in a trailer.
            s3.put_object(Bucket="bucket", Key="k", Body=b"x" * 100_000)
            assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == b"x" * 100_000
            s3.close()
            assert "x-amz-trailer" in server.requests("PutObject")[0].headers
            bundle = server.ca_bundle
            assert bundle is not None
        assert not Path(bundle).exists()


class TestProcess:
    def test_it_ends_with_the_block(self) -> None:
        with LocalS3() as server:
            pid = server.pid
            assert is_alive(pid)
        assert not is_alive(pid)
        with pytest.raises(ServerError, match="not running"):
            server.stats()
        server.stop()

    def test_it_starts_again(self) -> None:
        server = LocalS3("bucket", activate=False)
        for _ in range(2):
            server.start()
            assert server.buckets() == ["bucket"]
            server.stop()

    @pytest.mark.parametrize("death", ["sys.exit(0)", "os._exit(0)", "os.kill(os.getpid(), 9)"])
    def test_it_ends_with_the_interpreter(self, death: str) -> None:
        program = f"""
            import os, sys
            from s3dataset.testing import LocalS3
            server = LocalS3().start()
            print(server.pid, flush=True)
            {death}
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, check=False, timeout=60
        )
        pid = int(done.stdout)
        wait_for(lambda: not is_alive(pid))

    def test_an_interrupt_at_the_terminal_is_not_for_it(self) -> None:
        with LocalS3("bucket") as server:
            assert os.getsid(server.pid) != os.getsid(0)
            server.put("bucket", "k", b"saved after Ctrl-C")

    def test_sigterm_ends_it(self) -> None:
        with LocalS3() as server:
            os.kill(server.pid, signal.SIGTERM)
            wait_for(lambda: not is_alive(server.pid))
            with pytest.raises(ServerError, match="does not answer"):
                server.stats()

    def test_a_forked_child_uses_it_and_does_not_end_it(self) -> None:
        with LocalS3("bucket") as server:
            child = multiprocessing.get_context("fork").Process(target=server.put, args=("bucket", "k", b"child"))
            child.start()
            child.join()
            assert (child.exitcode, server.get("bucket", "k")) == (0, b"child")

    def test_a_port_that_is_taken_is_told(self) -> None:
        with LocalS3() as server, pytest.raises(ServerError, match=r"did not start.*in use"):
            LocalS3(port=server.port).start()

    def test_it_answers_loopback_only(self) -> None:
        with LocalS3(activate=False) as server:
            listening = [line.split()[1] for line in Path(f"/proc/{server.pid}/net/tcp").read_text().splitlines()[1:]]
            assert f"0100007F:{server.port:04X}" in listening
            assert f"00000000:{server.port:04X}" not in listening


class TestWhatItTells:
    def test_requests_are_counted_and_logged(self, server: LocalS3, bucket: str, s3: Any) -> None:
        s3.put_object(Bucket=bucket, Key="a b", Body=b"12345")
        for _ in range(2):
            s3.get_object(Bucket=bucket, Key="a b", Range="bytes=1-3")["Body"].read()
        with refused(404, "NoSuchKey"):
            s3.get_object(Bucket=bucket, Key="missing")
        stats = server.stats()
        assert stats["operations"] == {"PutObject": 1, "GetObject": 3}
        assert stats["statuses"] == {"200": 1, "206": 2, "404": 1}
        assert (stats["requests"], stats["in_flight"], stats["bytes_in"]) == (4, 0, 5)
        first, second, missing = server.requests("GetObject")
        assert (first.key, first.range, first.status, first.attempt, first.bytes_out) == ("a b", "bytes=1-3", 206, 1, 3)
        assert (second.attempt, missing.attempt, missing.code) == (2, 1, "NoSuchKey")
        assert second.connection == first.connection
        assert first.headers["range"] == "bytes=1-3"
        assert server.secret_key not in str(first)
        assert first.headers["authorization"].endswith("Signature=...")
        assert [record.number for record in server.requests(after=first.number)] == [second.number, missing.number]
        server.reset_stats()
        assert (server.stats()["requests"], server.requests()) == (0, [])

    def test_requests_at_once(self) -> None:
        with LocalS3("bucket", public=True, latency_s=0.3, activate=False) as server:
            wires = [Wire(server) for _ in range(20)]
            for wire in wires:
                wire.send(wire.head("GET", "/bucket/k"))
            assert [wire.answer().status for wire in wires] == [404] * 20
            for wire in wires:
                wire.socket.close()
            stats = server.stats()
            assert (stats["max_in_flight"], stats["max_open_connections"]) == (20, 20)

    def test_objects_from_outside(self, server: LocalS3, bucket: str, s3: Any) -> None:
        etag = server.put(bucket, "a/ü%", b"x", content_type="image/png", x_amz_meta_label="7")
        head = s3.head_object(Bucket=bucket, Key="a/ü%")
        assert (head["ETag"], head["ContentType"], head["Metadata"]) == (f'"{etag}"', "image/png", {"label": "7"})
        assert server.keys(bucket, "a/") == ["a/ü%"]
        server.delete(bucket, "a/ü%")
        with pytest.raises(KeyError, match="a/ü%"):
            server.get(bucket, "a/ü%")
        with pytest.raises(ServerError, match="NoSuchBucket"):
            server.put("no-such-bucket", "k", b"")

    def test_settings_that_do_not_exist_are_refused(self, server: LocalS3) -> None:
        with pytest.raises(ServerError, match="unknown field"):
            server.configure(no_such_setting=1)
        with pytest.raises(ServerError, match="unknown field"):
            LocalS3(traffic={"no_such_setting": 1}).start()


class TestSynthetic:
    def test_bytes_are_those_of_the_seed(self, server: LocalS3, bucket: str, s3: Any) -> None:
        server.add_synthetic(bucket, "k", size_bytes=1_000_003, seed=5)
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == synthetic_bytes(5, 0, 1_000_003)
        part = s3.get_object(Bucket=bucket, Key="k", Range="bytes=999990-")["Body"].read()
        assert part == synthetic_bytes(5, 999_990, 1_000_003)
        server.add_synthetic(bucket, "many/{}", size_bytes=10, max_size_bytes=20, count=100, seed=40)
        body = s3.get_object(Bucket=bucket, Key="many/00000002")["Body"].read()
        assert body == synthetic_bytes(42, 0, len(body))

    def test_its_checksum_is_right(self, server: LocalS3, bucket: str, s3: Any) -> None:
        server.add_synthetic(bucket, "k", size_bytes=300_001, seed=1)
        server.put(bucket, "copy", synthetic_bytes(1, 0, 300_001))
        heads = [s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED") for key in ("k", "copy")]
        assert heads[0]["ChecksumCRC64NVME"] == heads[1]["ChecksumCRC64NVME"]

    def test_sizes_beyond_all_memory(self, server: LocalS3, bucket: str, s3: Any) -> None:
        size = 50 << 40
        server.add_synthetic(bucket, "k", size_bytes=size)
        assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == size
        part = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={size - 5}-")["Body"].read()
        assert part == synthetic_bytes(0, size - 5, size)


def test_a_sink_verifies_and_forgets(server: LocalS3, s3: Any) -> None:
    server.create_bucket("sink", sink=True)
    etag = s3.put_object(Bucket="sink", Key="k", Body=b"x" * 1000)["ETag"]
    head = s3.head_object(Bucket="sink", Key="k", ChecksumMode="ENABLED")
    assert (head["ETag"], head["ContentLength"], "ChecksumCRC32" in head) == (etag, 1000, True)
    with refused(403, "InvalidObjectState"):
        s3.get_object(Bucket="sink", Key="k")


class TestTraffic:
    def test_latency(self, bucket: str) -> None:
        with LocalS3("bucket", public=True, latency_s=0.2, activate=False) as server, Wire(server) as wire:
            start = time.monotonic()
            wire.request("GET", "/bucket/k")
            assert time.monotonic() - start >= 0.2
            server.set_traffic(latency_s=0)
            assert server.requests()[0].duration_s >= 0.2
            wire.request("GET", "/bucket/k")
            assert server.requests()[1].duration_s < 0.2

    def test_a_heavy_tail(self) -> None:
        with (
            LocalS3("bucket", public=True, tail_latency_s=0.3, tail_probability=0.1, activate=False) as server,
            Wire(server) as wire,
        ):
            for _ in range(40):
                wire.request("GET", "/bucket/k")
            slow = [record for record in server.requests() if record.duration_s >= 0.3]
            assert 0 < len(slow) < 20

    def test_bandwidth(self) -> None:
        with LocalS3("bucket", public=True, bandwidth_bytes_s=1e6, activate=False) as server, Wire(server) as wire:
            server.put("bucket", "k", bytes(500_000))
            start = time.monotonic()
            assert len(wire.request("GET", "/bucket/k").body) == 500_000
            assert time.monotonic() - start >= 0.45

    def test_rates_of_a_prefix(self) -> None:
        with LocalS3("bucket", public=True, traffic={"reads_per_s": 5}, activate=False) as server, Wire(server) as wire:
            statuses = [wire.request("GET", f"/bucket/hot/{number}").status for number in range(20)]
            assert statuses[:5] == [404] * 5
            assert 503 in statuses
            assert wire.request("GET", "/bucket/cold/k").status == 404
            # A listing is of the prefix that it lists.
            statuses = [wire.request("GET", "/bucket?list-type=2&prefix=listed/").status for _ in range(20)]
            assert (statuses[:5], 503 in statuses) == ([200] * 5, True)
            assert wire.request("GET", "/bucket?list-type=2&prefix=other/").status == 200

    def test_connections_that_end(self) -> None:
        traffic = {"max_requests_per_connection": 2, "idle_timeout_s": 0.2}
        with LocalS3("bucket", public=True, traffic=traffic, activate=False) as server:
            with Wire(server) as wire:
                assert [wire.request("GET", "/bucket/k").status for _ in range(2)] == [404, 404]
                assert wire.ended()
            with Wire(server) as wire:
                wire.request("GET", "/bucket/k")
                assert wire.ended()

    def test_an_outage(self) -> None:
        with LocalS3("bucket", public=True, activate=False) as server:
            server.put("bucket", "k", b"still there")
            with Wire(server) as wire:
                wire.request("GET", "/bucket/k")
                server.outage(0.3)
                with pytest.raises(ConnectionResetError):
                    wire.socket.recv(1)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", server.port))

            def answers() -> bool:
                try:
                    with Wire(server) as wire:
                        return wire.request("GET", "/bucket/k").body == b"still there"
                except OSError:
                    return False

            wait_for(answers)


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Host": "127.0.0.1", "Origin": "http://evil.example"}])
def test_web_pages_cannot_command_it(server: LocalS3, headers: dict[str, str]) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with Wire(server) as wire:
        wire.send(f"POST /_local/reset HTTP/1.1\r\n{lines}Content-Length: 0\r\n\r\n".encode())
        assert wire.ended()


def test_servers_that_end_in_another_order_leave_the_environment_as_it_was() -> None:
    before = dict(os.environ)
    first, second = LocalS3().start(), LocalS3().start()
    silent = LocalS3(activate=False).start()
    assert os.environ["AWS_ENDPOINT_URL"] == second.endpoint
    first.stop()
    silent.stop()
    assert os.environ["AWS_ENDPOINT_URL"] == second.endpoint
    second.stop()
    assert dict(os.environ) == before
