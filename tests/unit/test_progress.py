"""Bars on terminals."""

import sys

import pytest
from tests.terminal import on_terminal

PROGRAM = """
import time
from s3dataset import _progress
_progress._PATIENCE_S = 0.1
with _progress.showing(None, "saving it") as tell:
    for i in range(10):
        tell(i, 10)
        time.sleep(0.05)
"""


@pytest.mark.parametrize("columns", [0, 100])
def test_a_bar_is_drawn_whatever_the_terminal_tells(columns):
    status, seen = on_terminal([sys.executable, "-c", PROGRAM], size=(24 if columns else 0, columns))
    assert status == 0
    assert b"saving it" in seen
