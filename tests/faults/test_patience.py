"""Services that ask for less, and answers that do not begin: what it costs, and that everything arrives."""

import threading
from collections.abc import Iterator

import pytest

from s3dataset import errors
from s3dataset._client import Body, Client
from s3dataset._config import S3ClientConfig
from s3dataset.testing import Fault, LocalS3

BUCKET = "bucket"
SIZE = 20_000
ROWS = [(BUCKET, f"k{i}", None, None, SIZE, None) for i in range(256)]
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def running() -> Iterator[LocalS3]:
    with LocalS3(BUCKET) as server:
        for _, key, *_ in ROWS:
            server.put(BUCKET, key, bytes(SIZE))
        yield server


@pytest.fixture
def server(running: LocalS3) -> Iterator[LocalS3]:
    running.reset_stats()
    yield running
    running.clear_faults()


def client(**settings: object) -> Client:
    return Client(s3client_config=S3ClientConfig(**{"max_connections": 64, **settings}))


def read_all(reader: Client, times: int = 1) -> None:
    with reader.queue() as queue:
        results = queue.take_many(queue.get(ROWS * times), TIMEOUT_S)
    assert all(type(result) is Body and len(result) == SIZE for result in results)


def test_slow_answers_are_not_waited_for(server: LocalS3) -> None:
    reader = client()
    read_all(reader)
    server.add_fault(Fault.delay(10.0, probability=0.01, times=None, operation="GetObject", seed=5))
    for _ in range(8):
        read_all(reader)
    stats = reader.stats()
    assert 0 < stats["hedges"] <= 0.05 * stats["requests"]
    assert not any(count for bound_s, count in stats["ttfb_s"] if bound_s > 8), "none was waited for to its end"


def test_slow_listings_and_heads_too(server: LocalS3) -> None:
    reader = client()
    read_all(reader)
    server.add_fault(Fault.delay(10.0, operation="HeadObject"), Fault.delay(10.0, operation="ListObjectsV2"))
    assert reader.head_object(BUCKET, "k0").size == SIZE
    assert sum(len(page.object_info) for page in reader.list_objects(BUCKET, "")) == len(ROWS)
    assert reader.stats()["hedges"] == 2


def test_slow_writes_are_waited_for(server: LocalS3) -> None:
    writer = client()
    read_all(writer)
    server.add_fault(Fault.delay(0.7, operation="PutObject"), Fault.delay(0.7, operation="DeleteObject"))
    writer.put_many([(BUCKET, "new", b"x")])
    writer.delete_object(BUCKET, "new")
    assert writer.stats()["hedges"] == 0
    assert server.stats()["operations"] == {"GetObject": 256, "PutObject": 1, "DeleteObject": 1}


def test_a_service_that_refuses_for_a_while_costs_time(server: LocalS3) -> None:
    reader = client(max_attempts=2)
    server.add_fault(Fault.status(503, times=None, operation="GetObject"))
    timer = threading.Timer(1.5, server.clear_faults)
    timer.start()
    read_all(reader, 4)
    timer.join()
    # One request at a time asks on, not all that there are.
    assert 0 < reader.stats()["throttles"] < 400


def test_a_limited_service_is_not_flooded() -> None:
    with LocalS3(BUCKET, latency_s=0.01, traffic={"reads_per_s": 500}, activate=False) as limited:
        for _, key, *_ in ROWS:
            limited.put(BUCKET, key, bytes(SIZE))
        reader = Client(
            endpoint=limited.endpoint,
            s3client_config=S3ClientConfig(credentials=(limited.access_key, limited.secret_key), max_connections=64),
        )
        read_all(reader, 6)
        stats = reader.stats()
        assert 0 < stats["throttles"] < 0.25 * stats["requests"]


def test_refused_reads_do_not_hold_writes_back(server: LocalS3) -> None:
    both = client(max_connections=4)
    server.add_fault(Fault.status(503, times=None, operation="GetObject"))
    with both.queue() as reading:
        reading.get(ROWS)
        threading.Event().wait(0.3)
        both.put_many([(BUCKET, f"new{i}", b"x") for i in range(50)])
        assert reading.untaken == 0


def test_a_service_that_never_stops_refusing(server: LocalS3) -> None:
    server.add_fault(Fault.status(503, times=None))
    reader = client(retry_max_elapsed_s=0.5)
    with reader.queue() as queue:
        results = queue.take_many(queue.get(ROWS), TIMEOUT_S)
    assert {type(result) for result in results} == {errors.ThrottledError}
    assert all("retry_max_elapsed_s" in str(result) for result in results)
