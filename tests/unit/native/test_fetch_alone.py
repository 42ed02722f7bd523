"""A fetch that is served on the thread that waits for it."""

import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from s3dataset import errors
from s3dataset._client import Client
from s3dataset._config import S3ClientConfig
from s3dataset.testing import Fault, LocalS3

BUCKET = "bucket"
MIB = 1 << 20
DATA = random.Random(3).randbytes(40 * MIB)


@pytest.fixture(scope="module")
def running() -> Iterator[LocalS3]:
    with LocalS3(BUCKET) as server:
        server.put(BUCKET, "large", DATA)
        server.put(BUCKET, "empty", b"")
        for i in range(40):
            server.put(BUCKET, f"{i}", b"%d" % i * 1000)
        yield server


@pytest.fixture
def server(running: LocalS3) -> Iterator[LocalS3]:
    yield running
    running.clear_faults()


def test_more_threads_than_may_serve_themselves(server: LocalS3) -> None:
    client = Client()
    together = threading.Barrier(40)

    def read(i: int) -> None:
        together.wait()
        for _ in range(20):
            assert bytes(client.fetch(BUCKET, f"{i}")) == b"%d" % i * 1000

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(read, range(40)))


def test_connections_stay_within_the_limit_and_are_used_again(server: LocalS3) -> None:
    client = Client(s3client_config=S3ClientConfig(max_connections=2))
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda i: client.fetch(BUCKET, f"{i % 40}"), range(400)))
    for _ in range(50):
        client.fetch(BUCKET, "0")
    stats = client.stats()
    assert stats["connections_reused"] > stats["connections_opened"]


def test_a_large_object_of_unknown_size_has_the_lanes_help(server: LocalS3) -> None:
    server.reset_stats()
    body = Client().fetch(BUCKET, "large")
    assert bytes(body) == DATA
    assert server.stats()["requests"] == 5
    assert bytes(Client().fetch(BUCKET, "large", size=len(DATA))) == DATA
    assert bytes(Client().fetch(BUCKET, "large", 3, 20 * MIB)) == DATA[3 : 20 * MIB]
    assert bytes(Client().fetch(BUCKET, "large", -7)) == DATA[-7:]
    assert bytes(Client().fetch(BUCKET, "large", limit=5)) == DATA[:5]
    assert bytes(Client().fetch(BUCKET, "empty")) == b""


def test_a_full_budget_does_not_stop_it(server: LocalS3) -> None:
    client = Client(s3client_config=S3ClientConfig(memory_limit_bytes=16 * MIB))
    with client.queue() as queue:
        queue.get([(BUCKET, "large", 0, MIB, len(DATA), None)] * 100)
        assert len(client.fetch(BUCKET, "large", 0, 12 * MIB)) == 12 * MIB
        assert bytes(client.fetch(BUCKET, "7")) == b"7" * 1000


def test_it_is_tried_again_and_goes_on_where_it_broke(server: LocalS3) -> None:
    client = Client()
    for fault in (Fault.status(500), Fault.truncate(at=MIB), Fault.reset(at=MIB)):
        server.add_fault(fault)
        assert bytes(client.fetch(BUCKET, "large", 0, 4 * MIB)) == DATA[: 4 * MIB]
    assert client.stats()["retries"] == 3


def test_failures_are_those_of_a_queue(server: LocalS3) -> None:
    with pytest.raises(errors.ObjectNotFoundError, match="s3://bucket/none"):
        Client().fetch(BUCKET, "none")
    with pytest.raises(errors.ObjectChangedError):
        Client().fetch(BUCKET, "0", etag='"another"')
    with pytest.raises(errors.S3Exception, match="key is empty"):
        Client().fetch(BUCKET, "")


def test_closing_the_client_closes_the_connections(server: LocalS3) -> None:
    def sockets() -> set[object]:  # other clients' may be going meanwhile
        return {connection.laddr for connection in psutil.Process().net_connections() if connection.raddr}

    client = Client()
    before = sockets()
    client.fetch(BUCKET, "0")
    opened = sockets() - before
    assert opened
    client.close()
    until = time.monotonic() + 30
    while sockets() & opened and time.monotonic() < until:
        threading.Event().wait(0.01)
    assert not sockets() & opened


def test_ctrl_c_ends_it(server: LocalS3) -> None:
    program = f"""
        from s3dataset._client import Client
        client = Client()
        client.fetch("{BUCKET}", "0", limit=1)
        print("waiting", flush=True)
        client.fetch("{BUCKET}", "stalled")
    """
    server.put(BUCKET, "stalled", b"x" * 1000)
    server.add_fault(Fault.stall(at=500, times=None, key="stalled"))
    arguments = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(arguments, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert stderr.strip().endswith("KeyboardInterrupt")
