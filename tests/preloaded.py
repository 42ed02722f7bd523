"""Processes of tests that need PyTorch: forked from one that has imported it, once.

Importing it takes three seconds of a core, and a suite starts some hundreds of such processes. What is tested is what
they do; how a bare Python starts is for the tests that start one.
"""

import importlib.util
import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Program", "start"]

_MODULES = ["s3dataset._datasets._loader", "s3dataset.dcp", "tests.process.killed_trainer"]
if importlib.util.find_spec("lightning"):
    _MODULES.append("tests.process.trainer.program")  # Lightning takes ten seconds

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(_MODULES)


def start(function: Callable[..., Any], *arguments: Any) -> Any:
    """A process that calls a function of a module."""
    process = _processes.Process(target=_call, args=(function, arguments))
    process.start()
    return process


class Program:
    """A script that runs as `python script arguments` would.

    Args:
        script: Its file.
        arguments: What it is told.
        environment: All of its variables.
        output: File for what it prints, to either stream.
        errors: File for what it prints to the second one, if that is not to be in `output`.
        folder: Where it runs; default: here.

    Attributes:
        output: The file.
    """

    def __init__(
        self,
        script: Path,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        output: Path,
        errors: Path | None = None,
        folder: Path | None = None,
    ) -> None:
        self.output = output
        files = str(output), str(errors or output)
        told = str(script), list(arguments), dict(environment), str(folder or Path.cwd()), files
        self._process = start(_run, *told)

    def finish(self, timeout: float) -> int:
        """Its exit code, the negative number of the signal that ended it."""
        self._process.join(timeout)
        code: int | None = self._process.exitcode
        assert code is not None, f"it runs after {timeout} s: {self.output.read_text()}"
        return code

    def kill(self) -> None:
        """Ends it, if it has not ended."""
        self._process.kill()
        self._process.join()


def _call(function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    multiprocessing.set_start_method(None, force=True)  # it would be that of this process
    function(*arguments)


def _run(script: str, arguments: list[str], environment: dict[str, str], folder: str, files: tuple[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, name in enumerate(files, 1):
        with Path(name).open("ab") as file:
            os.dup2(file.fileno(), number)
    sys.path.insert(0, str(Path(script).parent))
    sys.argv[:] = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
