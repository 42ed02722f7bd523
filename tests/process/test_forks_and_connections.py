"""Forks while connections open and close, and beside other libraries' handlers of forks."""

import ctypes
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from s3dataset.testing import LocalS3

BUCKET = "bucket"
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3(BUCKET) as server:
        server.put(BUCKET, "k", b"hello")
        yield server


def run(beginning: str, text: str, server: LocalS3, timeout_s: float = TIMEOUT_S) -> str:
    """What a program prints, on stdout and stderr."""
    environment = {**os.environ, **server.environment, "PYTHONWARNINGS": "ignore"}
    # A session of its own: where a child hangs, it ends with this.
    with subprocess.Popen(
        [sys.executable, "-c", beginning + textwrap.dedent(text)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, output
    return output


def test_connections_that_come_and_go_during_a_fork_stay_out_of_the_child(server: LocalS3) -> None:
    """The kernel copies descriptors first and memory, with the list of what to close, later: the more, the later."""
    text = """
        def is_socket(descriptor):
            try:
                return os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
            except OSError:
                return False  # that of the folder

        def inherited():
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.write(writing, bytes([sum(map(is_socket, os.listdir("/proc/self/fd")))]))
                os._exit(0)
            os.close(writing)
            with open(reading, "rb") as pipe:
                count = pipe.read()[0]
            assert os.waitpid(pid, 0)[1] == 0
            return count

        def come_and_go():
            while not stop.is_set():
                fresh = Client()
                assert len(list(fresh.get_many([("bucket", "k")] * 200))) == 200

        ballast = mmap.mmap(-1, 512 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            ballast.madvise(mmap.MADV_NOHUGEPAGE)  # many pages take long
        ballast[:: mmap.PAGESIZE] = bytes(len(ballast) // mmap.PAGESIZE)
        stop = threading.Event()
        going = threading.Thread(target=come_and_go, daemon=True)
        going.start()
        counts = [inherited() for _ in range(150)]
        stop.set()
        going.join()
        print(len(ballast) >> 20, len(counts), sum(counts), flush=True)
    """
    beginning = "import mmap, os, threading\nfrom s3dataset._client import Client\n"
    assert run(beginning, text, server, 4 * TIMEOUT_S) == "512 150 0\n"


WITH_HANDLER = f"""
import ctypes
libc = ctypes.PyDLL(None)
before_fork = []

@ctypes.CFUNCTYPE(None)
def handler():
    if before_fork:
        before_fork.pop()()

libc["__register_atfork"](handler, None, None, None)  # before the engine's, so that it runs behind that

import os, threading
from s3dataset._client import Client
client = Client()

def read():
    for _ in range(3):
        fresh = Client()
        assert [bytes(body) for _, body in fresh.get_many([("{BUCKET}", "k")] * 16)] == [b"hello"] * 16
        fresh.close()

read()
"""


@pytest.fixture
def registers() -> None:
    if not hasattr(ctypes.CDLL(None), "__register_atfork"):
        pytest.skip("glibc's way to register a handler from here")


@pytest.mark.usefixtures("registers")
def test_a_child_of_a_fork_within_another_librarys_handler_goes_on(server: LocalS3) -> None:
    text = """
        before_fork.append(libc.fork)
        children = [os.fork()]  # by two processes
        read()
        if children[0] == 0:
            os._exit(0)
        read()
        while True:
            try:
                assert os.wait()[1] == 0
            except ChildProcessError:
                break
    """
    assert run(WITH_HANDLER, text, server) == ""


@pytest.mark.usefixtures("registers")
def test_a_fork_that_never_ends_holds_connections_up_once(server: LocalS3) -> None:
    text = """
        inside = threading.Event()
        before_fork.append(lambda: (inside.set(), threading.Event().wait()))
        threading.Thread(target=ctypes.CDLL(None).fork, daemon=True).start()
        inside.wait()
        read()
        os._exit(0)
    """
    assert run(WITH_HANDLER, text, server) == ""
