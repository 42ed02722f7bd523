"""The engine's life in this process: its shares of the machine, what a fork leaves, what an exit ends."""

import atexit
import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final, Protocol

from s3dataset import _native
from s3dataset._client import _request_log
from s3dataset._client._freed_memory import keep_freed_memory
from s3dataset._config import request_log_setting
from s3dataset._limits import ProcessLimits, process_limits

__all__ = ["configure_process", "end_with_parent", "ensure_started", "forget_at_fork", "limits", "run_until_closed"]

_PARENT_EVERY_S: Final = 1.0


class _Forgetful(Protocol):
    """Holds objects of the engine, and can do without those that a fork left useless."""

    def before_fork(self) -> None: ...

    def after_fork_in_child(self) -> None: ...


class _State:
    """What this process decided; a new one in a forked child."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.started: ProcessLimits | None = None
        self.share = 1
        self.lanes: int | None = None
        self.threads: weakref.WeakKeyDictionary[threading.Thread, Callable[[], None]] = weakref.WeakKeyDictionary()


_state = _State()
_forgetful: Final[weakref.WeakSet[_Forgetful]] = weakref.WeakSet()


def configure_process(*, lanes: int | None = None, share: int = 1) -> None:
    """Says that this process is one of several. Counts from the next client on; the engine itself starts only once.

    Args:
        lanes: Engine threads; 1 in a DataLoader worker, which has its core to itself.
        share: How many such processes divide what the rank may take of memory and connections.
    """
    _state.lanes, _state.share = lanes, share


def limits(throughput_target_gbps: float = 10.0) -> ProcessLimits:
    """What this process takes by default, or has taken when the engine runs."""
    return _state.started or process_limits(
        share=_state.share, lanes=_state.lanes, throughput_target_gbps=throughput_target_gbps
    )


def ensure_started(throughput_target_gbps: float) -> ProcessLimits:
    """Starts the engine on first use; the first caller's hint counts."""
    with _state.lock:
        if _state.started is None:
            chosen = limits(throughput_target_gbps)
            _native.start(lanes=chosen.lanes, memory_limit_bytes=chosen.memory_limit_bytes)
            _request_log.start(request_log_setting())
            keep_freed_memory()
            _state.started = chosen
        return _state.started


def forget_at_fork(holder: _Forgetful) -> None:
    """Has `holder` told of every fork, as long as it lives."""
    _forgetful.add(holder)


def end_with_parent() -> None:
    """From now on this process ends (SIGTERM) within two seconds after its parent, even while it waits for the network.

    A DataLoader worker looks after its parent between two batches only, and a service that is silent may keep it from
    the next one for minutes. The kernel's own way, PR_SET_PDEATHSIG, ends it with the thread that forked it.
    """
    given = os.getppid()
    parent = multiprocessing.parent_process()

    def is_alone() -> bool:
        # The pipe to the parent tells of one that ended before this began, but siblings may hold its other end too.
        return os.getppid() != given or (parent is not None and not parent.is_alive())

    def watch() -> None:
        while not is_alone():
            time.sleep(_PARENT_EVERY_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="s3dataset-parent", daemon=True).start()


def run_until_closed(name: str, target: Callable[[], None], close: Callable[[], None]) -> None:
    """Runs `target` in a daemon thread that is ended at exit: `close` makes it return.

    A thread inside the engine when the interpreter goes away would take the process down with it.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    _state.threads[thread] = close
    thread.start()


@atexit.register
def _end_threads() -> None:
    threads = list(_state.threads.items())
    for _, close in threads:
        close()
    for thread, _ in threads:
        thread.join(1.0)
    _request_log.stop()


def _before_fork() -> None:
    for holder in list(_forgetful):
        holder.before_fork()


def _after_fork_in_child() -> None:
    global _state
    old, _state = _state, _State()
    _state.lanes, _state.share = old.lanes, old.share
    _native.after_fork_in_child()
    _request_log.after_fork_in_child()
    for holder in list(_forgetful):
        holder.after_fork_in_child()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
