"""Queues used by several threads at once, at random but repeatably: each request ends once, and each byte is right."""

import contextlib
import faulthandler
import random
import threading
from collections.abc import Iterator

import pytest

from s3dataset import errors
from s3dataset._client import Body, Client, Reply, RequestQueue
from s3dataset._config import S3ClientConfig
from s3dataset.testing import Fault, LocalS3

BUCKET = "bucket"
MIB = 1 << 20
TIMEOUT_S = 60.0
DATA = random.Random(11).randbytes(12 * MIB)
SIZES = {"small": 3000, "medium": 300_000, "large": 12 * MIB}


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    faults = [
        Fault.truncate(at=1500, probability=0.03, times=None, seed=1, operation="GetObject"),
        Fault.reset(probability=0.02, times=None, seed=2),
        Fault.status(503, probability=0.02, times=None, seed=3),
        Fault.delay(0.02, probability=0.2, times=None, seed=4),
    ]
    with LocalS3(BUCKET, faults=faults) as server:
        for key, size in SIZES.items():
            server.put(BUCKET, key, DATA[:size])
        yield server


def right(result: object) -> bool:
    """Whether a result is what was asked for; everything is asked for from byte 0 on."""
    match result:
        case Body():
            view = memoryview(result)
            return view == DATA[: len(view)]
        case Reply():
            return True
        case errors.CancelledError():
            return True
        case _:
            return False


class Shared:
    """A queue, what was asked of it, and what has come; checked by `judge` when all threads are done."""

    def __init__(self, queue: RequestQueue, seed: int) -> None:
        self.queue = queue
        self.seed = seed
        self.lock = threading.Lock()
        self.taken: list[int] = []
        self.wrong: list[object] = []
        self.submitted = 0
        self.buffers: list[tuple[bytearray, bytes]] = []

    def submit(self, rng: random.Random) -> None:
        key = rng.choices(list(SIZES), weights=[10, 4, 1])[0]
        size = rng.choice([SIZES[key], None])
        count = rng.randint(1, 8) if key != "large" else 1
        match rng.randrange(4):
            case 0 | 1:
                indices = self.queue.get([(BUCKET, key, None, None, size, None)] * count)
            case 2:
                buffers = [bytearray(SIZES[key]) for _ in range(count)]
                indices = self.queue.get_into([(BUCKET, key, 0, None, buffer) for buffer in buffers])
            case _:
                indices = self.queue.put([(BUCKET, f"put/{rng.randrange(99)}", DATA[:50_000], ())] * count)
        with self.lock:
            self.submitted = max(self.submitted, indices.stop)

    def note(self, results: list[tuple[int, object]]) -> None:
        with self.lock:
            self.taken += [index for index, _ in results]
            self.wrong += [result for _, result in results if not right(result)]

    def step(self, rng: random.Random) -> None:
        with self.lock:
            submitted = self.submitted
        action = rng.random()
        if action < 0.4 or not submitted:
            self.submit(rng)
        elif action < 0.7:
            self.note(list(self.queue.next(rng.randint(1, 5), rng.randint(1, 20), rng.choice([0.0, 0.005, 0.05]))))
        elif action < 0.9:
            first = rng.randrange(submitted)
            indices = range(first, min(first + rng.randint(1, 3), submitted))
            with contextlib.suppress(TimeoutError, IndexError):
                self.note(list(zip(indices, self.queue.take_many(indices, 0.02), strict=True)))
        elif action < 0.97:
            first = rng.randrange(submitted)
            self.queue.cancel(range(first, first + rng.randint(1, 10)))
        else:
            assert self.queue.unfinished >= 0
            self.queue.ready(rng.randrange(submitted))

    def finish(self) -> None:
        while results := self.queue.next(1, 1000, TIMEOUT_S):
            self.note(list(results))

    def judge(self) -> None:
        assert self.wrong == []
        assert sorted(self.taken) == list(range(self.submitted)), "each request has one result"
        assert (self.queue.unfinished, self.queue.untaken) == (0, 0)


def run_together(threads: list[threading.Thread]) -> None:
    faulthandler.dump_traceback_later(2 * TIMEOUT_S)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_S)
            assert not thread.is_alive(), "a thread hangs"
    finally:
        faulthandler.cancel_dump_traceback_later()


def client(**settings: object) -> Client:
    return Client(
        s3client_config=S3ClientConfig(memory_limit_bytes=16 * MIB, part_size=5 * MIB, max_attempts=50, **settings)
    )


@pytest.mark.parametrize("seed", range(6))
def test_threads_share_queues(server: LocalS3, seed: int) -> None:
    """Two threads a queue, two queues a client whose connections and budget are too few for all."""
    fetching = client(max_connections=2 + 3 * seed)
    shared = [Shared(fetching.queue(), seed) for _ in range(2)]
    finished = threading.Barrier(4)

    def work(mine: Shared, number: int) -> None:
        rng = random.Random(f"{seed} {number}")
        for _ in range(60):
            mine.step(rng)
        mine.finish()
        finished.wait(TIMEOUT_S)
        mine.finish()

    run_together([threading.Thread(target=work, args=(shared[i % 2], i), daemon=True) for i in range(4)])
    for one in shared:
        one.judge()
        one.queue.close()
    assert fetching.stats()["in_flight"] == 0


@pytest.mark.parametrize("seed", range(6))
def test_queues_are_closed_in_the_midst(server: LocalS3, seed: int) -> None:
    """Whatever the other threads are doing: after `close` nobody holds a buffer, and nobody writes to one."""
    fetching = client()
    for turn in range(6):
        queue = fetching.queue()
        buffers = [bytearray(rng_size) for rng_size in random.Random(turn).choices([3000, 300_000, 11 * MIB], k=10)]
        closing = threading.Event()

        def work(number: int, queue: RequestQueue = queue, closing: threading.Event = closing) -> None:
            one = Shared(queue, seed)
            rng = random.Random(f"{seed} {number}")
            while not closing.is_set():
                one.step(rng)

        def read_and_close(
            queue: RequestQueue = queue, buffers: list[bytearray] = buffers, closing: threading.Event = closing
        ) -> None:
            queue.get_into([(BUCKET, "large", 0, None, buffer) for buffer in buffers])
            closing.wait(random.Random(f"{seed} {id(queue)}").random() / 20)
            closing.set()
            queue.close()
            for buffer in buffers:
                buffer[:] = b"\xa5" * len(buffer)

        run_together(
            [
                *(threading.Thread(target=work, args=(i,), daemon=True) for i in range(2)),
                threading.Thread(target=read_and_close, daemon=True),
            ]
        )
        queue.close()
        for buffer in buffers:
            assert buffer.count(0xA5) == len(buffer), "written to after it was given up"
            buffer.append(0)  # nobody exports it


def test_two_threads_wait_on_one_queue(server: LocalS3) -> None:
    with client().queue() as queue:
        total = len(queue.get([(BUCKET, "small", None, None, 3000, None)] * 2000))
        got: list[list[int]] = [[], []]

        def work(mine: list[int]) -> None:
            while results := queue.next(1, 7, TIMEOUT_S):
                mine += [index for index, _ in results]

        run_together([threading.Thread(target=work, args=(mine,), daemon=True) for mine in got])
        assert sorted(got[0] + got[1]) == list(range(total))
        for index in (0, total - 1, total, 1 << 60):
            with pytest.raises(IndexError):
                queue.take(index, 1.0)
