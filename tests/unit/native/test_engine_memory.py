"""Who may touch memory, and when: callers' buffers, bodies with live views, and queues that are closed or dropped."""

import ctypes
import gc
import mmap
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3dataset import _native, errors
from s3dataset._client import Body, Client, RequestQueue
from s3dataset._config import S3ClientConfig
from s3dataset.testing import Fault, LocalS3

BUCKET = "bucket"
MIB = 1 << 20
PAGE = mmap.PAGESIZE
TIMEOUT_S = 60.0
LARGE = random.Random(7).randbytes(24 * MIB)


@pytest.fixture(scope="module")
def running() -> Iterator[LocalS3]:
    with LocalS3(BUCKET) as server:
        server.put(BUCKET, "large", LARGE)
        server.put(BUCKET, "small", LARGE[:100_000])
        yield server


@pytest.fixture
def server(running: LocalS3) -> Iterator[LocalS3]:
    yield running
    running.clear_faults()


def client(**settings: object) -> Client:
    return Client(s3client_config=S3ClientConfig(**settings))


class Guarded:
    """Memory between two pages that nobody may touch: who goes one byte too far is killed by SIGSEGV.

    The buffer begins where the first guard ends, or ends where the second begins.
    """

    def __init__(self, size: int, *, at_end: bool) -> None:
        self._pages = -(-size // PAGE) * PAGE
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        libc.mprotect.argtypes = libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        libc.mprotect.argtypes = [*libc.munmap.argtypes, ctypes.c_int]
        self._libc = libc
        self._base = libc.mmap(None, self._pages + 2 * PAGE, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        assert libc.mprotect(self._base + PAGE, self._pages, mmap.PROT_READ | mmap.PROT_WRITE) == 0
        start = self._base + PAGE + (self._pages - size if at_end else 0)
        self.buffer = (ctypes.c_ubyte * size).from_address(start)

    def read_only(self) -> None:
        assert self._libc.mprotect(self._base + PAGE, self._pages, mmap.PROT_READ) == 0

    def free(self) -> None:
        self._libc.munmap(self._base, self._pages + 2 * PAGE)


@pytest.fixture
def guarded() -> Iterator[list[Guarded]]:
    made: list[Guarded] = []
    yield made
    for memory in made:
        memory.free()


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("fault", ["none", "truncate", "reset", "chunked"])
def test_reads_stay_within_the_callers_memory(
    server: LocalS3, guarded: list[Guarded], fault: str, at_end: bool
) -> None:
    match fault:
        case "truncate":
            server.add_fault(Fault.truncate(at=70_001, times=5))
        case "reset":
            server.add_fault(Fault.reset(at=33, times=5))
        case "chunked":
            server.add_fault(Fault.chunked(times=None))
    sizes = [1, PAGE - 1, PAGE, PAGE + 1, 99_999, 5 * MIB + 7, 20 * MIB + 1]
    guarded += [Guarded(size, at_end=at_end) for size in sizes]
    reader = client(part_size=5 * MIB)
    requests = [(BUCKET, "large", 3, memory.buffer) for memory in guarded]
    if fault == "chunked":  # a range is read into place only where its length is known
        requests = requests[:5]
    reader.read_into(requests)
    for memory, size in zip(guarded[: len(requests)], sizes, strict=False):
        assert bytes(memory.buffer) == LARGE[3 : 3 + size]


def test_writes_stay_within_the_callers_memory(server: LocalS3, guarded: list[Guarded]) -> None:
    server.add_fault(Fault.status(500, operation="PutObject", scope="request"))
    sizes = [1, PAGE, 99_999, 6 * MIB + 5]
    for at_end in (False, True):
        for size in sizes:
            memory = Guarded(size, at_end=at_end)
            ctypes.memmove(memory.buffer, LARGE, size)
            memory.read_only()
            guarded.append(memory)
    client().put_many([(BUCKET, f"guarded/{i}", memory.buffer) for i, memory in enumerate(guarded)])
    for i, size in enumerate(sizes * 2):
        assert server.get(BUCKET, f"guarded/{i}") == LARGE[:size]


def test_an_object_shorter_than_the_buffer_is_an_error(server: LocalS3) -> None:
    for start in (99_990, 100_000, 200_000):
        with pytest.raises(errors.S3Exception, match="s3://bucket/small") as caught:
            client().read_into([(BUCKET, "small", start, bytearray(20))])
        assert caught.value.status == 416


def test_nothing_is_written_after_close(server: LocalS3) -> None:
    """The server goes on sending when the queue is closed; poison put there afterwards stays."""
    server.add_fault(Fault.stall(at=50_000, duration_s=0.3, times=None))
    buffers = [bytearray(6 * MIB) for _ in range(8)]
    reader = client(part_size=5 * MIB)
    with reader.queue() as queue:
        queue.get_into([(BUCKET, "large", 0, None, buffer) for buffer in buffers])
        while not any(any(buffer[:50_000]) for buffer in buffers):
            queue.next(1, 1, 0.01)
    poison = bytes([0xA5]) * (6 * MIB)
    for buffer in buffers:
        buffer[:] = poison
    server.clear_faults()
    reader.read_into([(BUCKET, "large", 0, bytearray(20 * MIB))])  # time goes by, and sockets are used again
    threading.Event().wait(0.4)
    assert all(buffer == poison for buffer in buffers)


@pytest.mark.parametrize("how", ["close", "drop", "cancel"])
def test_buffers_are_given_up(server: LocalS3, how: str) -> None:
    server.add_fault(Fault.stall(at=1000, times=None))
    buffer, data = bytearray(6 * MIB), bytearray(6 * MIB)
    queue = client().queue()
    queue.get_into([(BUCKET, "large", 0, None, buffer)])
    queue.put([(BUCKET, "given-up", data, ())])
    with pytest.raises(BufferError):
        buffer.append(0)
    if how == "close":
        queue.close()
    elif how == "cancel":
        queue.cancel(range(2))
        results = queue.take_many(range(2), TIMEOUT_S)
        assert all(isinstance(result, errors.CancelledError) for result in results)
    else:
        del queue
        gc.collect()
    buffer.append(0)
    data.append(0)
    assert "given-up" not in server.keys(BUCKET)


def test_cancelling_reaches_no_later_request(server: LocalS3) -> None:
    with client().queue() as queue:
        queue.cancel(range(1 << 40))
        queue.get([(BUCKET, "small", None, None, 100_000, None)])
        queue.cancel(range(1, 1 << 62))
        queue.get([(BUCKET, "small", None, None, 100_000, None)])
        assert all(type(body) is Body for body in queue.take_many(range(2), TIMEOUT_S))


def test_a_closed_queue_starts_nothing(server: LocalS3) -> None:
    before = server.stats()["requests"]
    queue = client().queue()
    queue.close()
    buffer = bytearray(10)
    queue.get_into([(BUCKET, "small", 0, None, buffer)])
    queue.put([(BUCKET, "late", b"x", ())])
    with pytest.raises(errors.CancelledError):
        queue.take(0, TIMEOUT_S)
    queue.close()
    buffer.append(0)
    assert server.stats()["requests"] == before


def test_overlapping_closes(server: LocalS3) -> None:
    """Several threads close, wait and submit at once: each returns, and no buffer stays exported."""
    server.add_fault(Fault.stall(at=1000, times=None))
    for _ in range(10):
        close_all_at_once(client().queue())


def close_all_at_once(queue: RequestQueue) -> None:
    buffers = [bytearray(100_000) for _ in range(20)]
    start = threading.Barrier(5)

    def submit() -> None:
        start.wait()
        for buffer in buffers:
            queue.get_into([(BUCKET, "large", 0, None, buffer)])

    def close() -> None:
        start.wait()
        queue.close()

    def wait() -> None:
        start.wait()
        queue.next(1, 1, 0.2)

    threads = [threading.Thread(target=f) for f in (submit, close, close, close, wait)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
    queue.close()
    for buffer in buffers:
        buffer.append(0)


def test_a_bodys_memory_is_used_again_when_its_last_view_dies(server: LocalS3) -> None:
    reader = client(part_size=5 * MIB)
    body = reader.get_range(BUCKET, "large", 0, 11 * MIB)
    address = ctypes.addressof(ctypes.c_char.from_buffer(body))
    inner = memoryview(memoryview(body)[5 * MIB :])
    del body
    gc.collect()
    for _ in range(5):
        other = reader.get_range(BUCKET, "large", 7, 11 * MIB + 7)
        assert ctypes.addressof(ctypes.c_char.from_buffer(other)) != address
        memoryview(other)[:] = bytes(11 * MIB)
    assert inner == LARGE[5 * MIB : 11 * MIB]
    pooled = _native.process_stats()["memory_pooled_bytes"]
    inner.release()
    assert _native.process_stats()["memory_pooled_bytes"] >= pooled + 11 * MIB


def test_an_object_that_no_memory_holds(server: LocalS3) -> None:
    """A size that is wrong, or right and beyond this machine, ends no engine thread."""
    with client().queue() as queue:
        for index, size in enumerate([1 << 47, 1 << 62, (1 << 64) - 1]):
            queue.get([(BUCKET, "small", None, None, size, None)])
            assert bytes(queue.take(index, TIMEOUT_S)) == LARGE[:100_000]
    server.add_fault(
        Fault.raw(f'HTTP/1.1 200 OK\r\nContent-Length: {1 << 48}\r\nETag: "x"\r\n\r\nabc', key="small", times=None)
    )
    with pytest.raises(errors.S3Exception, match=r"no memory for 281474976710656 bytes"):
        list(client().get_many([(BUCKET, "small")]))
    server.clear_faults()
    with pytest.raises(MemoryError):
        client().buffer(1 << 60)
    assert bytes(client().get_range(BUCKET, "small", 0, 5)) == LARGE[:5]


@pytest.mark.parametrize("etag", ["a\r\nx-amz-acl: public-read", "a\nb", "a\0"])
def test_nobody_writes_headers_through_an_etag(server: LocalS3, etag: str) -> None:
    before = server.stats()["requests"]
    with pytest.raises(errors.S3Exception, match="no ETag"):
        client().get_range(BUCKET, "small", 0, 5, etag=etag)
    with pytest.raises(errors.S3Exception, match="header"), client().queue() as queue:
        queue.put([(BUCKET, "k", b"", [("x\r\ny", "z")])])
        queue.take(0, TIMEOUT_S)
    assert server.stats()["requests"] == before


def entries(name: str) -> int:
    return len(list(Path("/proc/self", name).iterdir()))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts through /proc")
def test_thousands_of_queues_leave_nothing(server: LocalS3) -> None:
    reader = client(max_connections=8)
    row = (BUCKET, "small", 0, 1000, None, None)

    def use(times: int) -> tuple[int, int, int]:
        for i in range(times):
            with reader.queue() as queue:
                queue.get([row] * 2)
                if i % 3 == 0:
                    queue.take(0, TIMEOUT_S)
                elif i % 3 == 1:
                    queue.next(1, 1, TIMEOUT_S)
        gc.collect()
        return entries("fd"), entries("task"), resident_bytes()

    first, last = use(600), use(3000)
    assert last[0] <= first[0] + 8
    assert last[1] <= first[1]
    assert last[2] <= first[2] + 8 * MIB
