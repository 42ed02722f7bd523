"""Forks, signals and exits in the midst of requests: what each side keeps, and that nothing hangs."""

import _thread
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from s3dataset._client import Body, Client, ForeignProcessError, RequestQueue
from s3dataset._config import S3ClientConfig
from s3dataset._io import S3Reader, S3Writer
from s3dataset.testing import Fault, LocalS3

BUCKET = "bucket"
MIB = 1 << 20
TIMEOUT_S = 60.0
DATA = bytes(range(256)) * 4096 * 12
ROW = (BUCKET, "k", None, None, 5, None)

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(scope="module")
def running() -> Iterator[LocalS3]:
    with LocalS3(BUCKET) as server:
        server.put(BUCKET, "k", b"hello")
        server.put(BUCKET, "large", DATA)
        yield server


@pytest.fixture
def server(running: LocalS3) -> Iterator[LocalS3]:
    yield running
    running.clear_faults()


def in_fork(work: Callable[[], object]) -> object:
    """What `work` returns in a forked child, which is given a minute."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(TIMEOUT_S))
        try:
            answer = work()
        except BaseException as error:  # noqa: BLE001 - told to the parent, whatever it is
            answer = repr(error)
        os.write(writing, pickle.dumps(answer))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with {status}"
    return pickle.loads(answer)


def sockets() -> set[str]:
    links = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            links.add(str(fd.readlink()))
        except OSError:
            continue  # the directory's own
    return {link for link in links if link.startswith("socket:")}


def foreign(queue: RequestQueue) -> list[str]:
    """The exceptions of everything that a queue can be asked."""
    uses: list[Callable[[], object]] = [
        lambda: queue.next(1, 1, 0.1),
        lambda: queue.take(0, 0.1),
        lambda: queue.take_many(range(2), 0.1),
        lambda: queue.get([ROW]),
        lambda: queue.get_into([(BUCKET, "k", 0, None, bytearray(5))]),
        lambda: queue.put([(BUCKET, "never", b"x", ())]),
        lambda: queue.head(BUCKET, "k"),
        lambda: queue.ready(0),
        lambda: queue.unfinished,
        lambda: queue.untaken,
        lambda: queue.cancel(range(1)),
        queue.close,
    ]
    caught = []
    for use in uses:
        try:
            use()
            caught.append("nothing")
        except ForeignProcessError:
            continue
    return caught


# -- Fork ------------------------------------------------------------------------------------------------------------


def test_a_fork_in_the_midst_of_requests_harms_neither_side(server: LocalS3) -> None:
    client = Client()
    body = client.get_range(BUCKET, "large", 0, 3 * MIB)
    view = memoryview(client.get_range(BUCKET, "large", 256, 512))
    into = bytearray(len(DATA))
    server.add_fault(Fault.slow(40e6, key="large", times=None))
    with client.queue() as queue:
        queue.get([ROW] * 2000)
        large = queue.get_into([(BUCKET, "large", 0, None, into)])
        opened = client.stats()["connections_opened"]

        def child() -> object:
            reads = bytes(memoryview(body)) == DATA[: 3 * MIB], bytes(view) == DATA[256:512]
            asked = foreign(queue)
            own = [bytes(result) for _, result in client.get_many([(BUCKET, "k")] * 20)]
            return reads, asked, own == [b"hello"] * 20

        for _ in range(4):
            queue.take(queue.get([ROW])[0], TIMEOUT_S)
            assert in_fork(child) == ((True, True), [], True)
        queue.take(large[0], TIMEOUT_S)
        rest = [result for _, result in queue.next(2000, 2000, TIMEOUT_S)]
    assert into == DATA
    assert [bytes(memoryview(result)) for result in rest if isinstance(result, Body)] == [b"hello"] * 2000
    # No connection of the parent's died, so none had to be replaced.
    stats = client.stats()
    assert stats["retries"] == 0
    assert stats["connections_opened"] <= opened + client.max_connections


def test_idle_connections_survive_children(server: LocalS3) -> None:
    others = in_fork(sockets)  # what other libraries of this process have open
    client = Client()
    client.get_range(BUCKET, "k", 0, 5)
    opened = client.stats()["connections_opened"]
    for _ in range(5):
        inherited, read = in_fork(lambda: (sockets(), bytes(client.get_range(BUCKET, "k", 0, 5))))  # type: ignore[misc]
        assert (inherited - others, read) == (set(), b"hello")  # type: ignore[operator]
        client.get_range(BUCKET, "k", 0, 5)
    assert client.stats()["connections_opened"] == opened
    assert client.stats()["retries"] == 0


def test_a_child_drops_what_it_inherited(server: LocalS3) -> None:
    """Queues with requests and results, buffers, bodies: dropping them in the child takes no time and harms nobody."""
    client = Client()
    large = [client.get_range(BUCKET, "large", 0, 5 * MIB)]
    server.add_fault(Fault.stall(at=100, key="large", times=1))
    held = {
        "queue": client.queue(),
        "body": client.get_range(BUCKET, "k", 0, 5),
        "large body": large,
        "buffer": client.buffer(3 * MIB),
    }
    into = bytearray(MIB)
    held["queue"].get_into([(BUCKET, "large", 0, None, into)])
    held["queue"].get([ROW] * 10)

    def child() -> object:
        held.clear()
        large.clear()
        gc.collect()
        return bytes(client.get_range(BUCKET, "k", 0, 5))

    assert in_fork(child) == b"hello"
    assert bytes(held["body"]) == b"hello"
    assert bytes(large[0]) == DATA[: 5 * MIB]
    held["queue"].close()
    into.append(0)


def test_forks_from_a_thread_while_others_work(server: LocalS3) -> None:
    client = Client()
    stop = threading.Event()
    failures: list[object] = []

    def work() -> None:
        while not stop.is_set():
            got = [bytes(body) for _, body in client.get_many([(BUCKET, "k")] * 200)]
            if got != [b"hello"] * 200:
                failures.append(got)

    def fork_often() -> list[object]:
        return [in_fork(lambda: bytes(client.get_range(BUCKET, "k", 0, 5))) for _ in range(8)]

    with ThreadPoolExecutor(4) as threads:
        workers = [threads.submit(work) for _ in range(3)]
        try:
            answers = threads.submit(fork_often).result(TIMEOUT_S)
        finally:
            stop.set()
        for worker in workers:
            worker.result(TIMEOUT_S)
    assert answers == [b"hello"] * 8
    assert failures == []


def descend(client: Client, depth: int) -> list[tuple[int, int]]:
    """(file descriptors, sockets) of each generation, the youngest last."""
    client.get_range(BUCKET, "k", 0, 5)
    own = (len(list(Path("/proc/self/fd").iterdir())), len(sockets()))
    if depth == 0:
        return [own]
    return [own, *in_fork(lambda: descend(client, depth - 1))]  # type: ignore[misc]


def test_many_generations(server: LocalS3) -> None:
    generations = descend(Client(), 6)
    assert len(generations) == 7, generations
    assert all(own <= generations[0][1] for _, own in generations[1:]), "no socket is inherited"
    # What stays of each parent is this test's pipe.
    assert generations[-1][0] - generations[0][0] <= 6 * 2, generations


def test_a_child_keeps_no_descriptor_of_the_engine(server: LocalS3) -> None:
    text = """
        descriptors = lambda: set(os.listdir("/proc/self/fd"))
        before = descriptors()
        with client.queue() as queue:
            queue.get([ROW] * 100)
            queue.take_many(range(50))
            pid = os.fork()
            if pid == 0:
                kept = descriptors() - before
                client.get_range("bucket", "k", 0, 5)
                print(sorted(kept), len(descriptors() - before) > 3, flush=True)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            queue.take_many(range(50, 100))
        print(client.stats()["retries"], flush=True)
    """
    with program(text, {**server.environment, "PYTHONWARNINGS": "ignore"}) as process:
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, stdout, stderr) == (0, "[] True\n0\n", "")


def use_inherited_reference(answers: "multiprocessing.queues.SimpleQueue[object]", client: Client) -> None:
    answers.put([bytes(body) for _, body in client.get_many([(BUCKET, "k")] * 20)])


def test_a_process_spawned_in_the_midst_of_requests(server: LocalS3) -> None:
    client = Client()
    with client.queue() as queue:
        indices = queue.get([ROW] * 500)
        context = multiprocessing.get_context("spawn")
        answers = context.SimpleQueue()
        process = context.Process(target=use_inherited_reference, args=(answers, client))
        process.start()
        assert answers.get() == [b"hello"] * 20
        process.join(TIMEOUT_S)
        assert process.exitcode == 0
        assert len(queue.take_many(indices, TIMEOUT_S)) == 500


def test_a_program_started_in_the_midst_of_requests_has_no_sockets(server: LocalS3) -> None:
    client = Client()
    with client.queue() as queue:
        queue.get([ROW] * 500)
        listing = subprocess.run(
            [sys.executable, "-c", "import os; print([os.readlink(f'/proc/self/fd/{n}') for n in (0, 1, 2)])"],
            capture_output=True,
            text=True,
            check=True,
            close_fds=False,
            timeout=TIMEOUT_S,
        )
        assert "pipe" in listing.stdout
        found = subprocess.run(
            ["/bin/sh", "-c", "ls -l /proc/$$/fd"], capture_output=True, text=True, check=True, close_fds=False
        )
    assert "socket:" not in found.stdout


# -- Exit and signals ------------------------------------------------------------------------------------------------

PREAMBLE = f"""
import os, signal, sys, threading, time
from s3dataset._client import Client
from s3dataset._config import S3ClientConfig
ROW = ("{BUCKET}", "k", None, None, 5, None)
client = Client()
"""


def program(text: str, environment: dict[str, str]) -> "subprocess.Popen[str]":
    code = PREAMBLE + textwrap.dedent(text)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def silent() -> Iterator[LocalS3]:
    """A server that never answers GETs."""
    fault = Fault.stall(at=None, times=None, operation="GetObject")
    with LocalS3(BUCKET, faults=[fault], activate=False) as server:
        server.put(BUCKET, "k", b"hello")
        yield server


EXITS = {
    "daemon threads that wait": """
        for wait in ("queue.next()", "queue.take(0)", "queue.next(5, 5, 100.0)", "queue.take_many(range(3))"):
            queue = client.queue()
            queue.get([ROW] * 10)
            threading.Thread(target=eval, args=(wait, {"queue": queue}), daemon=True).start()
        time.sleep(0.2)
        print("bye", flush=True)
    """,
    "a daemon thread that iterates": """
        threading.Thread(target=lambda: list(client.get_many([("bucket", "k")] * 10)), daemon=True).start()
        time.sleep(0.2)
        print("bye", flush=True)
    """,
    "queues that nobody closes": """
        queues = [client.queue() for _ in range(5)]
        memory = bytearray(1 << 20)
        for queue in queues:
            queue.get([ROW] * 10)
            queue.get_into([("bucket", "k", 0, None, memoryview(memory)[:5])])
            queue.put([("bucket", "up", memory, ())])
        builtins = sys.modules["builtins"]
        builtins.kept = queues  # outlives the modules
        print("bye", flush=True)
    """,
    "a forked child": """
        queue = client.queue()
        queue.get([ROW] * 100)
        pid = os.fork()
        if pid == 0:
            other = client.queue()
            other.get([ROW] * 100)
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print("bye", flush=True)
    """,
}


@pytest.mark.parametrize("case", EXITS)
def test_exits_with_requests_in_flight(silent: LocalS3, case: str) -> None:
    with program(EXITS[case], {**silent.environment, "PYTHONWARNINGS": "ignore"}) as process:
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, stdout, stderr) == (0, "bye\n", "")


class InterruptionError(Exception):
    pass


TAKES = [lambda queue: queue.take(0, TIMEOUT_S), lambda queue: queue.next(1, 1, TIMEOUT_S)[0][1]]


@pytest.mark.parametrize("take", TAKES, ids=["take", "next"])
def test_an_answer_behind_a_signal_is_not_lost(server: LocalS3, take: Callable[[RequestQueue], Body]) -> None:
    """The exception of the signal's handler comes in place of what the call would have returned."""
    waiting = interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal waiting
        if waiting:
            waiting = False
            raise InterruptionError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(20):
            server.add_fault(Fault.delay(0.05, operation="GetObject", times=1))
            with Client().queue() as queue:
                queue.get([ROW])
                signal.setitimer(signal.ITIMER_REAL, 0.02)
                try:
                    waiting = True
                    body = take(queue)
                    waiting = False
                except InterruptionError:
                    interrupted = True
                    body = take(queue)
                assert bytes(body) == b"hello"
            server.clear_faults()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signals_that_kill_do(silent: LocalS3, number: signal.Signals) -> None:
    text = """
        queue = client.queue()
        queue.get([ROW] * 10)
        print("waiting", flush=True)
        queue.take(0)
    """
    with program(text, silent.environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == -number


def test_what_a_signal_handler_raises_ends_a_wait(silent: LocalS3) -> None:
    text = """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        with client.queue() as queue:
            queue.get([ROW] * 10)
            print("waiting", flush=True)
            queue.next()
    """
    with program(text, silent.environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, stderr) == (7, "")


def writes(client: Client, size: int) -> None:
    with S3Writer(client, BUCKET, "written") as writer:
        writer.write(bytes(size))


WAITS: dict[str, Callable[[Client], object]] = {
    "get_range": lambda client: client.get_range(BUCKET, "k", 0, 5),
    "get_many": lambda client: list(client.get_many([(BUCKET, "k")] * 50)),
    "get_many in order": lambda client: list(client.get_many([(BUCKET, "k")] * 50, ordered=True)),
    "read_into": lambda client: client.read_into([(BUCKET, "large", 0, bytearray(8 * MIB))]),
    "put_many": lambda client: client.put_many([(BUCKET, f"put/{i}", bytes(MIB)) for i in range(20)]),
    "list_objects": lambda client: list(client.list_objects(BUCKET, "")),
    "head_object": lambda client: client.head_object(BUCKET, "k"),
    "delete_object": lambda client: client.delete_object(BUCKET, "nothing"),
    "delete_objects": lambda client: client.delete_objects(BUCKET, ["nothing"]),
    "copy_object": lambda client: client.copy_object(BUCKET, "k", BUCKET, "copy"),
    "a reader": lambda client: S3Reader(client, BUCKET, "large").read(),
    "a writer": lambda client: writes(client, 100),
    "a writer of parts": lambda client: writes(client, 30 * MIB),
}


@pytest.mark.parametrize("wait", WAITS)
def test_ctrl_c_ends_every_wait(server: LocalS3, wait: str) -> None:
    """The server stalls every request; the wait ends all the same, and what it began is called off."""
    # An upload that has begun is aborted, so that much must be answered.
    operation = "UploadPart" if "parts" in wait else "*"
    server.add_fault(Fault.stall(at=None, times=None, operation=operation))
    client = Client(s3client_config=S3ClientConfig(part_size=5 * MIB))
    client.queue().close()  # what is resolved at first use is not what this is about
    timer = threading.Timer(0.3, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        WAITS[wait](client)
    timer.join()
    server.clear_faults()
    gc.collect()
    assert bytes(client.get_range(BUCKET, "k", 0, 5)) == b"hello"
    assert client.stats()["in_flight"] == 0
    assert not set(server.keys(BUCKET)) & {"written", "copy"}
    assert server.uploads(BUCKET) == []


def test_the_end_of_file_descriptors_is_an_error_and_passes(server: LocalS3, tmp_path: Path) -> None:
    text = """
        import resource
        from s3dataset import _native, errors
        client.queue().close() if os.environ.get("WARM") else client.max_connections
        import botocore.session
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        files = []
        try:
            while True:
                files.append(open(os.devnull))
        except OSError:
            pass
        native = _native.Client if not os.environ.get("WARM") else None
        try:
            if native is not None:
                native(user_agent="t")
            else:
                client.get_range("bucket", "k", 0, 5)
            print("no error")
        except (OSError, errors.S3Exception) as error:
            print("Too many open files" in str(error))
        files.clear()
        print(bytes(client.get_range("bucket", "k", 0, 5)).decode(), flush=True)
    """
    for environment in ({}, {"WARM": "1"}):
        with program(text, {**server.environment, **environment, "AWS_MAX_ATTEMPTS": "2"}) as process:
            stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        assert (process.returncode, stdout, stderr) == (0, "True\nhello\n", "")
