"""The byte budget: it bounds what nobody has taken, and never stops whoever waits."""

import random
import threading
from collections.abc import Iterator

import pytest

from s3dataset import errors
from s3dataset._client import Body, Client, RequestQueue
from s3dataset._config import S3ClientConfig
from s3dataset.testing import Fault, LocalS3

BUCKET = "bucket"
MIB = 1 << 20
LIMIT = 16 * MIB
TIMEOUT_S = 60.0
DATA = random.Random(7).randbytes(40 * MIB)


@pytest.fixture(scope="module")
def running() -> Iterator[LocalS3]:
    with LocalS3(BUCKET, sinks=["sink"]) as server:
        server.put(BUCKET, "k", DATA[:MIB])
        server.put(BUCKET, "head", DATA[:MIB])
        server.put(BUCKET, "oversized", DATA)
        yield server


@pytest.fixture
def server(running: LocalS3) -> Iterator[LocalS3]:
    yield running
    running.clear_faults()


def small_client(**settings: object) -> Client:
    return Client(s3client_config=S3ClientConfig(memory_limit_bytes=LIMIT, **settings))


def fill(queue: RequestQueue, size: int | None, count: int = 100) -> range:
    """Asks for more than the budget holds, and waits until no more comes."""
    indices = queue.get([(BUCKET, "k", None, None, size, None)] * count)
    seen = -1
    while queue.untaken != seen:
        seen = queue.untaken
        threading.Event().wait(0.1)
    return indices


def bodies(results: list[object]) -> list[Body]:
    assert all(type(result) is Body for result in results), results
    return results  # type: ignore[return-value]


@pytest.mark.parametrize("size", [MIB, None])
def test_what_nobody_takes_stays_within_the_budget(server: LocalS3, size: int | None) -> None:
    with small_client().queue() as queue:
        indices = fill(queue, size)
        assert 1 <= queue.untaken <= 17
        for index in indices:
            assert queue.take(index, TIMEOUT_S).nbytes == MIB  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [MIB, None])
@pytest.mark.parametrize("connections", [2, 4, 32])
def test_a_full_prefetch_while_the_loop_saves_and_reads(server: LocalS3, size: int | None, connections: int) -> None:
    client = small_client(max_connections=connections, part_size=5 * MIB)
    with client.queue() as prefetch, client.queue() as saving:
        indices = fill(prefetch, size)
        puts = saving.put([("sink", f"{i}", DATA[: 6 * MIB], ()) for i in range(6)])
        for result in saving.take_many(puts, TIMEOUT_S):
            assert not isinstance(result, errors.S3Exception)
        read = saving.get([(BUCKET, "oversized", None, None, None, None), (BUCKET, "k", None, None, None, None)])
        assert [body.nbytes for body in bodies(saving.take_many(read, TIMEOUT_S))] == [40 * MIB, MIB]
        into = bytearray(20 * MIB)
        saving.take(saving.get_into([(BUCKET, "oversized", 0, None, into)])[0], TIMEOUT_S)
        assert into == DATA[: 20 * MIB]
        assert sum(body.nbytes for body in bodies(prefetch.take_many(indices, TIMEOUT_S))) == 100 * MIB


@pytest.mark.parametrize("size", [MIB, None])
def test_later_objects_against_the_head(server: LocalS3, size: int | None) -> None:
    server.add_fault(Fault.delay(0.5, key="head"))
    with small_client().queue() as queue:
        queue.get([(BUCKET, "head", None, None, size, None)])
        indices = queue.get([(BUCKET, "k", None, None, size, None)] * 50)
        assert queue.take(0, TIMEOUT_S).nbytes == MIB  # type: ignore[union-attr]
        assert len(bodies(queue.take_many(indices, TIMEOUT_S))) == 50


@pytest.mark.parametrize("size", [MIB, None])
def test_results_are_asked_for_from_the_end(server: LocalS3, size: int | None) -> None:
    """All before the last must be fetched for it, though nobody makes room."""
    with small_client().queue() as queue:
        for index in reversed(fill(queue, size, 50)):
            assert type(queue.take(index, TIMEOUT_S)) is Body


@pytest.mark.parametrize("size", [MIB, None])
def test_more_at_once_than_the_budget_holds(server: LocalS3, size: int | None) -> None:
    with small_client().queue() as queue:
        fill(queue, size, 60)
        got = queue.next(60, 60, TIMEOUT_S)
        assert len(bodies([result for _, result in got])) == 60


def test_a_poll_without_waiting_gets_there(server: LocalS3) -> None:
    with small_client().queue() as queue:
        indices = fill(queue, MIB, 40)
        for _ in range(2000):
            try:
                queue.take_many(indices, 0.0)
                return
            except TimeoutError:
                threading.Event().wait(0.01)
    pytest.fail("the results never came")


@pytest.mark.parametrize("size", [40 * MIB, None])
def test_objects_larger_than_the_budget(server: LocalS3, size: int | None) -> None:
    client = small_client(part_size=5 * MIB)
    with client.queue() as queue:
        indices = queue.get([(BUCKET, "oversized", None, None, size, None)] * 4)
        for index in indices:
            assert bytes(memoryview(queue.take(index, TIMEOUT_S))) == DATA  # type: ignore[arg-type]


def test_many_queues_at_once(server: LocalS3) -> None:
    """Each has more than the budget before it; every one gets on."""
    client = small_client(max_connections=4)
    queues = [client.queue() for _ in range(10)]
    for queue in queues:
        queue.get([(BUCKET, "k", None, None, None, None)] * 20)
    for index in range(20):
        for queue in queues:
            assert type(queue.take(index, TIMEOUT_S)) is Body
    for queue in queues:
        queue.close()


def test_cancelled_heads_make_room(server: LocalS3) -> None:
    with small_client(max_connections=4).queue() as queue:
        indices = fill(queue, None, 60)
        queue.cancel(indices[:59])
        assert type(queue.take(59, TIMEOUT_S)) is Body


def test_a_budget_that_buffers_hold(server: LocalS3) -> None:
    client = small_client()
    held = client.buffer(LIMIT)
    assert held is not None
    assert client.buffer(1) is None
    assert client.buffer(1, force=True) is not None
    with client.queue() as queue:
        indices = queue.get([(BUCKET, "k", None, None, MIB, None)] * 5)
        assert len(bodies(queue.take_many(indices, TIMEOUT_S))) == 5
    del held
    assert client.buffer(1) is not None
