"""A cell of the matrix: a wait, an ending, a server that is silent or slow; and what is there afterwards."""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import psutil
import torch
from tests.process.kills.endings import Ending
from tests.process.kills.waits import BUCKET, OLD, Wait

from s3dataset import _shared_files
from s3dataset.testing import Fault, LocalS3

__all__ = ["Cell", "Manner", "applies", "fill", "run_cell"]

Manner = Literal["silent", "slow"]

BOUND_S: Final = 20.0
_START_S: Final = 60.0
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of it.

    Attributes:
        seconds: From the strike to the end of the last process.
        wrong: What is not as it should be; "" when all is.
    """

    wait: str
    ending: str
    manner: Manner
    seconds: float
    wrong: str


def applies(wait: Wait, ending: Ending) -> bool:
    return wait.threads or not ending.in_thread


def fill(server: LocalS3) -> None:
    """The objects that the programs read."""
    for i in range(40):
        server.put(BUCKET, f"images/{i:02}", bytes(50_000))
    server.put(BUCKET, "large", bytes(12 * MIB))
    server.add_synthetic(BUCKET, "listed/{}", size_bytes=1, count=20_000)
    saved = io.BytesIO()
    torch.save(torch.zeros(4 * MIB), saved)
    server.put(BUCKET, "saved.pt", saved.getvalue())


def _fault(wait: Wait, manner: Manner) -> Fault:
    if manner == "silent":
        return Fault.stall(at=None, times=None, operation=wait.operation)
    if wait.saves or wait.operation == "ListObjectsV2":
        return Fault.delay(5.0, times=None, operation=wait.operation)
    return Fault.slow(1000.0, times=None, operation=wait.operation)


def run_cell(server: LocalS3, wait: Wait, ending: Ending, manner: Manner) -> Cell:
    """Runs it. The server is as before afterwards."""
    server.put(BUCKET, "target", OLD)
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        path = Path(folder, "program.py")
        path.write_text(wait.program(ending.main))
        temporary = Path(folder, "tmp")
        temporary.mkdir()
        struck, strike = os.pipe()
        program = subprocess.Popen(
            [sys.executable, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            pass_fds=[struck],
            env={**os.environ, **server.environment, "TMPDIR": str(temporary), "STRUCK": str(struck)},
        )
        os.close(struck)
        family: list[psutil.Process] = []
        wrong: list[str] = []
        seconds = 0.0
        try:
            family = _let_it_wait(server, program, wait, manner)
            began = time.monotonic()
            ending.strike(program)
            with contextlib.suppress(BrokenPipeError):
                os.write(strike, b".")
            output = _end_of(program)
            if program.returncode != ending.code:
                wrong.append(f"exit code {program.returncode}, not {ending.code}: {output[-500:]}")
            if any(word in output for word in ("PanicException", "panicked", "Fatal Python error")):
                wrong.append(output[-500:])
            _, alive = psutil.wait_procs(family, BOUND_S)
            if alive:
                wrong.append(f"orphans: {alive}")
            seconds = time.monotonic() - began
            wrong += _left(server, wait, ending, temporary)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            wrong.append(f"{type(error).__name__}: {error}")
        finally:
            os.close(strike)
            server.clear_faults()
            for process in family:
                if process.is_running():
                    process.kill()
            program.kill()
            program.communicate()
            _abort_uploads(server)
    return Cell(wait.title, ending.title, manner, seconds, "; ".join(wrong))


def _let_it_wait(server: LocalS3, program: "subprocess.Popen[str]", wait: Wait, manner: Manner) -> list[psutil.Process]:
    """Returns when the program waits for an answer, with its other processes."""
    assert program.stdin is not None
    assert program.stdout is not None
    line = program.stdout.readline()
    if line != "begun\n":
        raise AssertionError(f"the program did not begin: {line}{program.communicate(timeout=_START_S)[0]}")
    number = server.add_fault(_fault(wait, manner))[0]
    program.stdin.write("\n")
    program.stdin.flush()
    deadline = time.monotonic() + _START_S
    me = psutil.Process(program.pid)
    while server.fault_counts()[number] == 0 or len(family := me.children(recursive=True)) < wait.workers:
        if time.monotonic() > deadline or program.poll() is not None:
            raise AssertionError(f"it did not come to its wait: {program.poll()}")
        time.sleep(0.02)
    time.sleep(0.1)  # the answer that does not come is waited for by now
    return family


def _end_of(program: "subprocess.Popen[str]") -> str:
    """What it printed. Forked workers have its output too, so that its end says nothing."""
    assert program.stdout is not None
    try:
        program.wait(BOUND_S)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"it does not end within {BOUND_S:.0f} s") from None
    os.set_blocking(program.stdout.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        return os.read(program.stdout.fileno(), 1 << 20).decode(errors="replace")
    return ""


def _left(server: LocalS3, wait: Wait, ending: Ending, temporary: Path) -> list[str]:
    """What is there and should not be."""
    server.clear_faults()
    wrong = []
    if server.get(BUCKET, "target") not in (OLD, wait.whole):
        wrong.append("something was published")
    if ending.orderly and (uploads := server.uploads(BUCKET)):
        wrong.append(f"uploads are left: {uploads}")
    left = sorted(path.name for path in temporary.glob("*s3dataset-*"))
    if ending.orderly and left:
        wrong.append(f"files are left: {left}")
    _shared_files.sweep(str(temporary))
    if left := sorted(path.name for path in temporary.glob("*s3dataset-*")):
        wrong.append(f"files are left after a sweep: {left}")
    return wrong


def _abort_uploads(server: LocalS3) -> None:
    for upload in server.uploads(BUCKET):
        server.boto3_client().abort_multipart_upload(Bucket=BUCKET, Key=upload["key"], UploadId=upload["upload_id"])
