"""Bars on terminals."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

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
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=its, stderr=its)
    os.close(its)
    seen = b""
    try:
        while data := os.read(ours, 4096):
            seen += data
    except OSError:  # the end of a terminal
        pass
    os.close(ours)
    assert process.wait(60) == 0
    assert b"saving it" in seen
