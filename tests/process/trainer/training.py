"""A small training, to be run in a process of its own, which may be killed."""

import contextlib
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.preloaded import start

STEPS = 24
EVERY = 4


@dataclass(frozen=True)
class Training:
    """What to train, and how.

    Attributes:
        directory: Of the checkpoints.
        answer: File that is told what came of it.
        framework: Which of the two packages a user has.
        by_fsspec: Whether Lightning's own plugin saves, through fsspec.
        asynchronous: Whether a thread saves.
        width: Of the model: some kilobytes a checkpoint, or some megabytes.
        ranks: Of a world.
    """

    directory: str
    answer: Path
    framework: str = "lightning"
    by_fsspec: bool = False
    asynchronous: bool = False
    width: int = 16
    ranks: int = 1

    def start(self, environment: dict[str, str]) -> Any:
        """The process, in which it has begun."""
        return start(_run, self, environment)


def _run(training: Training, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    warnings.simplefilter("ignore")
    with training.answer.with_suffix(".log").open("a") as log, contextlib.redirect_stderr(log):
        sys.stdout = log
        from tests.process.trainer.program import train

        train(training)
