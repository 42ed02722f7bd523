"""Connections that end, stall or crawl."""

import socket
import ssl
import time
from typing import Any

import pytest
from tests.interop.wire import Wire

from s3dataset.testing import Fault, LocalS3

from . import DATA, get


def test_reset_and_close(server: LocalS3) -> None:
    for fault, expected in ((Fault.reset(), ConnectionResetError), (Fault.close(), EOFError)):
        server.add_fault(fault)
        with Wire(server) as wire, pytest.raises(expected):
            get(wire)
    assert [record.status for record in server.requests()] == [0, 0]


@pytest.mark.parametrize("at", [0, 1, 5000])
def test_truncation(server: LocalS3, wire: Wire, at: int) -> None:
    server.add_fault(Fault.truncate(at=at))
    answer = get(wire)
    assert (answer.status, answer.short, answer.body) == (200, True, DATA[:at])


def test_reset_within_a_body(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.reset(at=5000))
    with pytest.raises(ConnectionResetError):
        get(wire)
    assert wire.received == DATA[:5000]


def test_a_cut_within_an_upload(server: LocalS3) -> None:
    for fault in (Fault.reset(at=100, operation="PutObject"), Fault.truncate(at=100, operation="PutObject")):
        server.add_fault(fault)
        with Wire(server) as wire:
            wire.send(wire.head("PUT", "/bucket/k", Content_Length="1000") + bytes(200))
            with pytest.raises((ConnectionResetError, EOFError)):
                wire.answer()
    assert server.get("bucket", "k") == DATA


def test_stalls(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.stall(at=100, duration_s=0.3))
    start = time.monotonic()
    assert get(wire).body == DATA
    assert time.monotonic() - start >= 0.3
    server.add_fault(Fault.stall(at=100))
    wire.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        get(wire)
    assert wire.received == DATA[:100]


def test_close_after_an_answer(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.close_after())
    answer = get(wire)
    assert (answer.body, "connection" in answer.headers) == (DATA, False)
    assert wire.ended()


def test_slow_bodies(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.slow(len(DATA) / 0.3))
    start = time.monotonic()
    assert get(wire).body == DATA
    assert time.monotonic() - start >= 0.25


def test_outage() -> None:
    # A server of its own, because the others would not find theirs.
    with LocalS3("bucket", public=True, faults=[Fault.outage(60)], activate=False) as server, Wire(server) as idle:
        with Wire(server) as wire, pytest.raises(ConnectionResetError):
            get(wire)
        with pytest.raises(ConnectionResetError):
            idle.socket.recv(1)
        with pytest.raises(ConnectionRefusedError):
            Wire(server)
        # The control API stays.
        assert server.stats()["requests"] == 1


@pytest.mark.parametrize("at", [0, 1, 30, 200])
@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_head_that_ends_early(server: LocalS3, wire: Wire, at: int, ending: Any) -> None:
    server.add_fault(Fault.cut_head(at=at, ending=ending))
    with pytest.raises((EOFError, ConnectionResetError)):
        get(wire)
    assert len(wire.received) == at


def test_a_head_that_takes_a_rest(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.cut_head(at=10, ending="stall", duration_s=0.3))
    start = time.monotonic()
    assert get(wire).body == DATA
    assert time.monotonic() - start >= 0.3


def test_an_announced_close(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.close_after(announced=True))
    answer = get(wire)
    assert (answer.body, answer.headers["connection"]) == (DATA, "close")
    assert wire.ended()


class TestBeforeTheFirstRequest:
    @pytest.mark.parametrize("fault", [Fault.reset, Fault.close])
    def test_ended(self, server: LocalS3, fault: Any) -> None:
        server.add_fault(fault(operation="Connect"))
        # It may already be over when the connection is made.
        with pytest.raises((EOFError, ConnectionResetError)), Wire(server) as wire:
            get(wire)
        with Wire(server) as wire:
            assert get(wire).body == DATA
        assert server.stats()["requests"] == 1

    def test_silent(self, server: LocalS3) -> None:
        server.add_fault(Fault.stall(operation="Connect"))
        with Wire(server) as wire:
            wire.socket.settimeout(0.2)
            with pytest.raises(TimeoutError):
                get(wire)

    def test_late(self, server: LocalS3) -> None:
        server.add_fault(Fault.delay(0.2, operation="Connect"))
        start = time.monotonic()
        with Wire(server) as wire:
            assert get(wire).body == DATA
        assert time.monotonic() - start >= 0.2

    def test_something_else_than_http(self, server: LocalS3) -> None:
        server.add_fault(Fault.raw("220 mail.example ESMTP\r\n", operation="Connect"))
        with Wire(server) as wire:
            assert wire.socket.recv(100).startswith(b"220")

    def test_rules_for_all_requests_leave_connections_alone(self, server: LocalS3) -> None:
        (number,) = server.add_fault(Fault.status(503))
        with Wire(server) as wire:
            assert server.fault_counts()[number] == 0
            assert get(wire).status == 503

    def test_tls(self) -> None:
        with LocalS3("bucket", tls=True, faults=[Fault.close(operation="Connect")], activate=False) as server:
            context = ssl.create_default_context(cafile=server.ca_bundle)
            for is_closed in (True, False):
                plain = socket.create_connection(("127.0.0.1", server.port), timeout=10)
                try:
                    with context.wrap_socket(plain, server_hostname="localhost"):
                        assert not is_closed
                except OSError:
                    assert is_closed
                finally:
                    plain.close()


def test_a_server_that_hangs() -> None:
    with LocalS3("bucket", public=True, activate=False) as server, Wire(server) as old:
        server.put("bucket", "k", DATA)
        assert get(old).body == DATA
        server.outage(0.7, silent=True)
        old.send(old.head("GET", "/bucket/k"))
        with Wire(server) as new:
            new.send(new.head("GET", "/bucket/k"))
            new.socket.settimeout(0.1)
            with pytest.raises(TimeoutError):
                new.socket.recv(1)
            new.socket.settimeout(30)
            assert new.answer().body == DATA
        with pytest.raises(ConnectionResetError):
            old.socket.recv(1)
