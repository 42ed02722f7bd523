"""A client in forked and spawned processes, and at exit."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from s3dataset._client import Body, Client, ClientRef, ForeignProcessError
from s3dataset._config import S3ClientConfig
from s3dataset.testing import Fault, LocalS3

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

BUCKET = "bucket"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3(BUCKET) as server:
        server.put(BUCKET, "k", b"hello")
        yield server


def read(ref: ClientRef, answers: "SimpleQueue[object]") -> None:
    try:
        answers.put([bytes(body) for _, body in ref.get().get_many([(BUCKET, "k")] * 50)])
    except Exception as error:  # noqa: BLE001 - told to the parent, whatever it is
        answers.put(error)


def in_process(method: str, target: object, *args: object) -> object:
    context = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    process = context.Process(target=target, args=(*args, answers))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    return answers.get()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_reference_works_in_every_kind_of_process(server: LocalS3, method: str) -> None:
    ref = ClientRef()
    assert bytes(ref.get().get_range(BUCKET, "k", 0, 5)) == b"hello"  # the engine is warm
    assert in_process(method, read, ref) == [b"hello"] * 50
    assert bytes(ref.get().get_range(BUCKET, "k", 0, 5)) == b"hello"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_credentials_given_in_code_reach_workers(server: LocalS3, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    keys = (server.access_key, server.secret_key)
    for credentials in (keys, lambda: keys):
        ref = ClientRef(config=S3ClientConfig(credentials=credentials))
        ref.get().head_object(BUCKET, "k")
        assert in_process(method, read, ref) == [b"hello"] * 50


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_keys_found_by_the_parent_reach_workers(server: LocalS3, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker must not have to log in: what its parent signs with is enough."""
    region = "eu-central-1"  # a client of this test alone
    ref = ClientRef(region)
    ref.get().head_object(BUCKET, "k")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")

    assert in_process(method, read_without_environment, ref, server.access_key) == server.access_key


def read_without_environment(ref: ClientRef, access_key: str, answers: "SimpleQueue[object]") -> None:
    loaded = ref.get().loaded
    answers.put(loaded and loaded.keys.access_key)


def test_a_forked_child_reads_bodies_but_not_queues_of_its_parent(server: LocalS3) -> None:
    client = Client()
    queue = client.queue()
    body = client.get_range(BUCKET, "k", 0, 5)
    answer = in_process("fork", use_inherited, queue, body)
    assert answer == (b"hello", "ForeignProcessError")
    queue.close()


def use_inherited(queue: object, body: Body, answers: "SimpleQueue[object]") -> None:
    try:
        queue.next(1, 1, 0.1)  # type: ignore[attr-defined]
        error = "none"
    except ForeignProcessError as foreign:
        error = type(foreign).__name__
    answers.put((bytes(body), error))


def test_many_forks_in_the_midst_of_requests(server: LocalS3) -> None:
    client = Client()
    bodies = client.get_many((BUCKET, "k") for _ in range(2000))
    for _ in range(5):
        next(bodies)
        assert in_process("fork", read, client.ref) == [b"hello"] * 50
    assert sum(1 for _ in bodies) == 1995


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("credentials", ["None", "lambda: KEYS"])
def test_exit_with_requests_in_flight_is_quick_and_quiet(server: LocalS3, credentials: str) -> None:
    done = run(
        f"""
        import os
        from s3dataset._client import Client
        from s3dataset._config import S3ClientConfig
        KEYS = (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
        client = Client(s3client_config=S3ClientConfig(credentials={credentials}))
        bodies = client.get_many(("{BUCKET}", "k") for _ in range(100000))
        print(bytes(next(bodies)[1]).decode())
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")


def test_ctrl_c_ends_a_wait(server: LocalS3) -> None:
    program = f"""
        from s3dataset._client import Client
        with Client().queue() as queue:
            queue.get([("{BUCKET}", "k", None, None, None, None)])
            print("waiting", flush=True)
            queue.take(0)
    """
    with LocalS3(BUCKET, faults=[Fault.stall(at=None, times=None)], activate=False) as stalling:
        environment = {**os.environ, **stalling.environment}
        arguments = [sys.executable, "-c", textwrap.dedent(program)]
        with subprocess.Popen(arguments, env=environment, stdout=-1, stderr=-1, text=True) as process:
            assert process.stdout.readline() == "waiting\n"
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=30)
    assert stderr.strip().endswith("KeyboardInterrupt")


def test_the_thread_that_renews_ends_with_its_client(server: LocalS3) -> None:
    keys = (server.access_key, server.secret_key)
    others = set(threading.enumerate())  # of clients that were just dropped
    client = Client(s3client_config=S3ClientConfig(credentials=lambda: keys))
    client.head_object(BUCKET, "k")
    (thread,) = (t for t in set(threading.enumerate()) - others if t.name == "s3dataset-credentials")
    del client
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


def test_clients_leave_no_sockets_and_threads(server: LocalS3) -> None:
    done = run(
        f"""
        import gc, os, threading
        from s3dataset._client import Client
        def use():
            list(Client().get_many([("{BUCKET}", "k")] * 50))
            gc.collect()
            return len(os.listdir("/proc/self/fd")), threading.active_count()
        first = [use() for _ in range(5)][-1]
        print(first, [use() for _ in range(20)][-1])
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, last = done.stdout.strip()[1:-1].split(") (")
    assert first.split(", ")[1] == last.split(", ")[1]
    # The last client's may still be closing; those of the nineteen before must be gone.
    assert int(last.split(", ")[0]) <= int(first.split(", ")[0]) + 60


def test_the_request_log_of_the_environment_reaches_forked_and_spawned_processes(
    server: LocalS3, tmp_path: Path
) -> None:
    program = f"""
        import multiprocessing
        from s3dataset._client import Client
        def work():
            Client().head_object("{BUCKET}", "k")
        if __name__ == "__main__":
            work()
            for method in ("fork", "spawn"):
                process = multiprocessing.get_context(method).Process(target=work)
                process.start()
                process.join()
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")],
        env={**os.environ, "S3DATASET_LOG": f"debug:{tmp_path}/log-%p.jsonl"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    logs = [file.read_text() for file in tmp_path.glob("log-*.jsonl")]
    assert len(logs) == 3
    assert all('"operation": "HeadObject"' in log and '"key": "k"' in log for log in logs)


def test_a_request_log_setting_that_is_none(server: LocalS3) -> None:
    done = run(f'from s3dataset._client import Client; Client().head_object("{BUCKET}", "k")', S3DATASET_LOG="loud")
    assert "InvalidConfigError" in done.stderr
    assert "loud" in done.stderr
