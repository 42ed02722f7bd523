"""Keys that a process and its workers share: one of them asks the provider, the others take what it was given.

Sixty-four workers whose keys run out in the same minute would otherwise ask sixty-four times, and services that give
keys throttle. The keys lie in memory that has no name (`memfd_create`), which forked children inherit and spawned ones
are handed as a descriptor; they are on no disk, and gone with the last of these processes.
"""

import contextlib
import fcntl
import json
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final, Self

from s3dataset import errors
from s3dataset._client import _process
from s3dataset._client._providers import Loaded
from s3dataset._secrets import AccessKeys, is_starting_a_process
from s3dataset.errors import CredentialsError, S3Exception

__all__ = ["SharedKeys"]

_PATIENCE_S: Final = 20.0
"""After so long with one process that asks, another asks by itself: the first may be stopped, or its provider hang."""
_LOOK_S: Final = 0.02
_MOST_BYTES: Final = 1 << 20


class SharedKeys:
    """What the last of these processes that asked was given, or why not. Make one with `create`.

    Safe between processes and threads. The pickle that starts a process takes the descriptor along, any other pickle
    nothing.
    """

    _known: ClassVar["weakref.WeakValueDictionary[tuple[int, int], SharedKeys]"] = weakref.WeakValueDictionary()

    def __init__(self, descriptor: int) -> None:
        """Takes the descriptor; private."""
        self._descriptor = descriptor
        self._handed: tuple[weakref.ref[Any], Any] | None = None
        self._lock = threading.Lock()
        _process.forget_at_fork(self)
        status = os.fstat(descriptor)
        self._known[status.st_dev, status.st_ino] = self
        closing = weakref.finalize(self, os.close, descriptor)
        closing.atexit = False

    @classmethod
    def create(cls) -> Self | None:
        """Memory to share; None where the system has none without a name: then each process asks by itself."""
        if not hasattr(os, "memfd_create"):
            return None
        try:
            return cls(os.memfd_create("s3dataset-keys", os.MFD_CLOEXEC))
        except OSError:
            return None

    def ask(self, load: Callable[[], Loaded], will_do: Callable[[Loaded, float], bool]) -> Loaded:
        """Takes the keys that are there if they will do, else asks for others and leaves them to the other processes.

        Who waited while another one asked takes what that was told, a refusal too.

        Args:
            load: Asks the provider.
            will_do: Whether these keys will, that another process was given so many seconds ago.

        Raises:
            S3Exception: What `load` raised, here or in the process that was waited for.
        """
        began = time.monotonic()  # one clock for all processes of a machine
        with self._lock, self._locked():
            at, known = self._read()
            if isinstance(known, Loaded):
                if will_do(known, time.monotonic() - at):
                    return known
            elif known is not None and at >= began:
                raise known
            try:
                loaded = load()
            except S3Exception as error:
                self._write({"failure": [type(error).__name__, str(error)]})
                raise
            keys = loaded.keys
            self._write(
                {
                    "keys": [keys.access_key, keys.secret_key, keys.session_token, keys.expires_at],
                    "renewable": loaded.renewable,
                }
            )
            return loaded

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        until = time.monotonic() + _PATIENCE_S
        held = False
        while not held and time.monotonic() < until:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
            except OSError:
                time.sleep(_LOOK_S)
        try:
            yield
        finally:
            if held:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def _read(self) -> tuple[float, Loaded | S3Exception | None]:
        """When this was written, and what."""
        try:
            content = json.loads(os.pread(self._descriptor, _MOST_BYTES, 0))
        except ValueError:
            return 0.0, None  # nothing yet, or half of it by a process that was killed
        if "failure" in content:
            name, message = content["failure"]
            return content["at"], getattr(errors, name, CredentialsError)(message)
        return content["at"], Loaded(AccessKeys(*content["keys"]), content["renewable"])

    def _write(self, content: dict[str, Any]) -> None:
        data = json.dumps({"at": time.monotonic(), **content}).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)

    def before_fork(self) -> None:
        pass

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        if not is_starting_a_process():
            return _nothing, ()
        from multiprocessing import context, reduction  # noqa: PLC0415 - loaded already, by whoever starts a process

        process = context.get_spawning_popen()
        if not hasattr(process, "duplicate_for_child"):
            return _nothing, ()  # somebody else's way to start processes
        # A descriptor can be handed to a process once, however often what holds it is pickled on the way.
        if self._handed is None or self._handed[0]() is not process:
            self._handed = weakref.ref(process), reduction.DupFd(self._descriptor)
        return _received, (self._handed[1],)


def _nothing() -> None:
    return None


def _received(handed: Any) -> SharedKeys:
    descriptor = handed.detach()
    status = os.fstat(descriptor)
    known = SharedKeys._known.get((status.st_dev, status.st_ino))  # noqa: SLF001
    if known is not None:
        return known
    os.set_inheritable(descriptor, False)
    return SharedKeys(descriptor)
