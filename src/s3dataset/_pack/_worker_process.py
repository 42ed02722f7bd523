"""The program of a worker: makes shards that come over standard input, and tells of them.

A program of its own, neither forked nor started by multiprocessing: no thread is lost, and scripts need no
`if __name__ == "__main__"`.
"""

import os
import pickle
import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

from s3dataset._client import configure_process, end_with_parent
from s3dataset._pack._messages import receive, send
from s3dataset._pack._plan import ShardTask
from s3dataset._pack._shards import ShardMaker
from s3dataset.errors import S3Exception

__all__ = ["main"]


def main() -> None:
    """Receives (count of workers, spec), then tasks, then None; sends numbers of bytes, `Finished`, or an exception."""
    # Not sys.stdin: the interpreter closes that when it ends, and dies of it while a thread waits for tasks there.
    source = os.fdopen(os.dup(0), "rb")
    with suppress(BrokenPipeError), os.fdopen(os.dup(1), "wb") as out:  # the parent may have gone
        os.dup2(2, 1)  # a transform that prints must not print into the messages
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent decides
        signal.signal(signal.SIGTERM, _end)
        end_with_parent()
        try:
            share, spec = receive(source)
            configure_process(lanes=1, share=share)
            _make_all(spec, source, out)
        except BaseException as error:  # noqa: BLE001 - raised where the pack was called
            if not isinstance(error, SystemExit):
                send(out, _portable(error))


def _end(number: int, frame: Any) -> None:  # noqa: ARG001
    """What is open is given up on the way out."""
    raise SystemExit(1)


def _make_all(spec: Any, source: BinaryIO, out: BinaryIO) -> None:
    tasks: queue.SimpleQueue[ShardTask | None] = queue.SimpleQueue()
    threading.Thread(target=_receive_tasks, args=[source, tasks], name="s3dataset-pack-tasks", daemon=True).start()
    ahead: list[ShardTask | None] = []

    def more() -> ShardTask | None:
        if ahead:
            return None  # one ahead is enough, and the end may be it
        try:
            task = tasks.get_nowait()
        except queue.Empty:
            return None
        ahead.append(task)
        return task

    def all_tasks() -> Iterator[ShardTask]:  # a failure puts None behind the tasks, too
        while (task := ahead.pop() if ahead else tasks.get()) is not None:
            yield task

    with ShardMaker(spec, more, lambda nbytes: send(out, nbytes)) as maker:
        maker.make_all(all_tasks(), lambda finished: send(out, finished), lambda: tasks.put(None))


def _receive_tasks(source: BinaryIO, tasks: "queue.SimpleQueue[ShardTask | None]") -> None:
    try:
        while (task := receive(source)) is not None:
            tasks.put(task)
    except EOFError:
        pass  # the parent has gone
    finally:
        tasks.put(None)


def _portable(error: BaseException) -> BaseException:
    """The error itself, if it survives the way."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - just made
    except Exception:  # noqa: BLE001 - whatever an exception's own code raises
        return S3Exception(f"{type(error).__name__}: {error}")
    return error
