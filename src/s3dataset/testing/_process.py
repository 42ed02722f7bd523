"""The server's process."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s3dataset.testing._control import Control, ServerError

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0
# Another binary in place of `python -m s3dataset.testing`: for work on the server itself.
_COMMAND_VARIABLE = "_S3DATASET_LOCAL_S3_COMMAND"


class Process:
    """The child process, which ends with this object, this process or `end`, whichever comes first."""

    def __init__(self, config: Mapping[str, object]) -> None:
        other = os.environ.get(_COMMAND_VARIABLE)
        command = [other] if other else [sys.executable, "-P", "-m", "s3dataset.testing"]
        environment = dict(os.environ)
        # The child imports this very package, wherever it was found.
        root = str(Path(__file__).parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
        ca_file: str | None = None
        if config["tls"]:
            # Here rather than by the server, which may be killed and then cannot remove it.
            descriptor, ca_file = tempfile.mkstemp(prefix="local-s3-ca-", suffix=".pem")
            os.close(descriptor)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._popen = subprocess.Popen(  # noqa: S603 - this interpreter or a developer's binary
            [*command, json.dumps({**config, "ca_file": ca_file})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            # Ctrl-C at the terminal is for the program that uses the server, which may still want to save to it.
            start_new_session=True,
        )
        self._owner = os.getpid()
        self._finalizer = weakref.finalize(self, _end, self._popen, self._errors, ca_file, self._owner)
        self.ready = self._wait()
        self.control = Control(str(self.ready["control"]))

    def _wait(self) -> dict[str, Any]:
        if self._popen.stdout is None:
            raise ServerError("the local S3 has no output")
        watchdog = threading.Timer(_START_TIMEOUT_S, self._popen.kill)
        watchdog.daemon = True
        watchdog.start()
        line = self._popen.stdout.readline()
        watchdog.cancel()
        if not line:
            self._popen.wait()
            self._errors.seek(0)
            reason = self._errors.read().decode(errors="replace").strip()
            self.end()
            raise ServerError(f"the local S3 did not start: {reason or 'it ended without a word'}")
        ready: dict[str, Any] = json.loads(line)
        return ready

    def end(self) -> None:
        self._finalizer()


def _end(popen: subprocess.Popen[bytes], errors: Any, ca_file: str | None, owner: int) -> None:
    # A forked child has a copy of everything; the server is its parent's.
    if os.getpid() != owner:
        return
    # SIGTERM as well as the end of stdin, because a forked child may hold the other end of the pipe open.
    popen.terminate()
    for pipe in (popen.stdin, popen.stdout):
        if pipe is not None:
            pipe.close()
    try:
        popen.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait()
    errors.close()
    if ca_file is not None:
        Path(ca_file).unlink(missing_ok=True)
