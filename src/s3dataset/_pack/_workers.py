"""Who makes the shards: this process, processes of this machine, or a Ray cluster."""

import importlib
import json
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing import context
from typing import Any, BinaryIO, Final, cast

from s3dataset._pack._messages import receive, send
from s3dataset._pack._options import PackSpec
from s3dataset._pack._plan import ShardTask
from s3dataset._pack._samples import name_of_callable
from s3dataset._pack._shards import Finished, ShardMaker
from s3dataset.errors import S3Exception

__all__ = ["choose_workers", "run_here", "run_on_ray", "run_processes"]

_TICK_S: Final = 0.2
_GOODBYE_S: Final = 10.0
_AHEAD: Final = 3
"""Tasks that a worker knows of: one that is finished, the one at hand, and one whose objects are fetched already."""
_WORTH_WORKERS_BYTES: Final = 4 << 30
"""One process moves 1 GB/s at 1 CPU s/GB, and another one costs half a CPU second to start."""
_PROGRAM: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from s3dataset._pack._worker_process import main; main()"
)

OnFinished = Callable[[Finished], None]
OnBytes = Callable[[int], None]


def choose_workers(workers: int | None, tasks: int, transform: Any, *, copied_bytes: int | None = None) -> int:
    """How many processes: 0 means this one.

    Args:
        workers: The caller's wish.
        tasks: There are so many.
        transform: What they run.
        copied_bytes: All that is to do is to move so many bytes.

    Raises:
        ValueError: That many cannot be, or the transform cannot go to another process.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"workers={workers}: give the number of processes, or 0 for this one")
    wanted = _cores() if workers is None else workers
    count = min(wanted, tasks)
    if workers is None and (count <= 1 or (copied_bytes is not None and copied_bytes < _WORTH_WORKERS_BYTES)):
        return 0
    if count and transform is not None and (reason := _cannot_travel(transform)):
        if workers is None:
            return 0
        raise ValueError(
            f"workers={workers} needs a transform that other processes can import, and {name_of_callable(transform)} "
            f"{reason}: put it into a module, or give workers=0"
        )
    return count


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cannot_travel(transform: Any) -> str:
    try:
        data = pickle.dumps(transform)
    except Exception as error:  # noqa: BLE001 - whatever pickling an object of the caller's raises
        return f"does not pickle ({error})"
    return "is defined in the program itself (__main__)" if b"__main__" in data else ""


def run_here(spec: PackSpec, tasks: Iterable[ShardTask], on_bytes: OnBytes, on_finished: OnFinished) -> None:
    """Makes all in this process.

    Raises:
        S3Exception: A task failed.
    """
    source = iter(tasks)
    ahead: deque[ShardTask] = deque()

    def more() -> ShardTask | None:
        if ahead or (task := next(source, None)) is None:
            return None
        ahead.append(task)
        return task

    def all_tasks() -> Iterator[ShardTask]:
        while (task := ahead.popleft() if ahead else next(source, None)) is not None:
            yield task

    with ShardMaker(spec, more, on_bytes) as maker:
        maker.make_all(all_tasks(), on_finished)


class _Worker:
    """One process, and a thread that hears it."""

    def __init__(self, spec: PackSpec, count: int, heard: "queue.SimpleQueue[tuple[_Worker, Any]]") -> None:
        command = [sys.executable, "-c", _PROGRAM, json.dumps(sys.path)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        self.tasks = 0
        self._heard = heard
        self._sending: queue.SimpleQueue[Any] = queue.SimpleQueue()
        context.set_spawning_popen(cast(Any, self.process))  # so that keys given in code go along
        try:
            first = pickle.dumps((count, spec), protocol=pickle.HIGHEST_PROTOCOL)
        finally:
            context.set_spawning_popen(None)
        self._sending.put(first)
        for target in (self._hear, self._send):
            threading.Thread(target=target, name="s3dataset-pack", daemon=True).start()

    def give(self, task: ShardTask | None) -> None:
        if task is not None:
            self.tasks += 1
        self._sending.put(pickle.dumps(task, protocol=pickle.HIGHEST_PROTOCOL))

    def _send(self) -> None:
        assert self.process.stdin is not None
        with suppress(OSError, ValueError):  # it has ended, which the other thread tells
            while True:
                data = self._sending.get()
                if data is None:
                    break
                send(cast(BinaryIO, self.process.stdin), data)
        with suppress(OSError):
            self.process.stdin.close()

    def _hear(self) -> None:
        assert self.process.stdout is not None
        with suppress(EOFError, OSError, ValueError), self.process.stdout as stream:
            while True:
                self._heard.put((self, receive(cast(BinaryIO, stream))))
        self._heard.put((self, None))

    def end(self) -> None:
        self._sending.put(None)


def run_processes(
    spec: PackSpec, tasks: Iterable[ShardTask], count: int, on_bytes: OnBytes, on_finished: OnFinished
) -> None:
    """Makes all in `count` processes; when this returns or raises they have ended.

    Raises:
        S3Exception: A task failed, or a process ended.
    """
    source = iter(tasks)
    heard: queue.SimpleQueue[tuple[_Worker, Any]] = queue.SimpleQueue()
    workers: list[_Worker] = []
    try:
        workers += [_Worker(spec, count, heard) for _ in range(count)]
        for _ in range(_AHEAD):
            for worker in workers:
                _give_next(worker, source)
        while any(worker.tasks for worker in workers):
            try:
                worker, message = heard.get(timeout=_TICK_S)
            except queue.Empty:
                continue
            if isinstance(message, int):
                on_bytes(message)
            elif isinstance(message, Finished):
                worker.tasks -= 1
                _give_next(worker, source)
                on_finished(message)
            elif isinstance(message, BaseException):
                raise message
            elif worker.tasks:
                raise _ended(worker)
        for worker in workers:
            worker.give(None)
            worker.end()
    except BaseException:
        for worker in workers:
            worker.process.terminate()
        raise
    finally:
        _wait(workers)


def _give_next(worker: _Worker, source: Iterator[ShardTask]) -> None:
    task = next(source, None)
    if task is not None:
        worker.give(task)


def _ended(worker: _Worker) -> S3Exception:
    status = worker.process.wait(_GOODBYE_S)
    why = f"by signal {-status}" if status < 0 else f"with status {status}"
    return S3Exception(
        f"a process that made shards ended {why}, without saying why on standard error perhaps. If the machine had no "
        "memory left, give fewer workers= or another transform; the same command goes on with what is finished"
    )


def _wait(workers: list[_Worker]) -> None:
    deadline = time.monotonic() + _GOODBYE_S
    for worker in workers:
        worker.end()
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


# -- Ray -------------------------------------------------------------------------------------------------------------


def run_on_ray(spec: PackSpec, tasks: Iterable[ShardTask], on_bytes: OnBytes, on_finished: OnFinished) -> None:
    """Makes each task's shards in a task of Ray, on whichever machine its scheduler chooses.

    Joins the cluster that RAY_ADDRESS or the program's own `ray.init` names, else begins one of this machine.

    Raises:
        ImportError: Ray is not installed.
        S3Exception: A task failed.
    """
    try:
        ray: Any = importlib.import_module("ray")  # an optional one
    except ImportError as error:
        raise ImportError("packing on a Ray cluster needs the package ray: pip install 's3dataset[ray]'") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    remote = ray.remote(num_cpus=1)(_on_ray)
    held = ray.put(spec)
    most = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    source = iter(tasks)
    waiting: dict[Any, int] = {}
    try:
        while True:
            while len(waiting) < most and (task := next(source, None)) is not None:
                waiting[remote.remote(held, task)] = task.nbytes
            if not waiting:
                return
            done, _ = ray.wait(list(waiting), num_returns=1, timeout=_TICK_S)
            for one in done:
                nbytes = waiting.pop(one)
                finished = ray.get(one)
                if isinstance(finished, BaseException):
                    raise finished
                on_bytes(nbytes)
                on_finished(finished)
    except BaseException:
        for one in waiting:
            ray.cancel(one)
        raise


def _on_ray(spec: PackSpec, task: ShardTask) -> Finished | S3Exception:
    """One task. Failures of ours are returned: Ray would wrap them."""
    from s3dataset._client import configure_process  # noqa: PLC0415 - of that process

    configure_process(lanes=1, share=_cores())
    try:
        finished: list[Finished] = []
        with ShardMaker(spec, lambda: None, lambda _: None) as maker:
            maker.make_all([task], finished.append)
        return finished[0]
    except S3Exception as error:
        return error
