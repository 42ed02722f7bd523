"""Programs on a terminal of their own."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence

_TIMEOUT_S = 120


def on_terminal(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, size: tuple[int, int] | None = None
) -> tuple[int, bytes]:
    """Runs a program on a terminal of so many (rows, columns) -> its exit status, and what the terminal showed."""
    ours, its = pty.openpty()
    if size is not None:
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    process = subprocess.Popen(command, stdout=its, stderr=its, env=env)
    os.close(its)
    seen = b""
    try:
        while select.select([ours], [], [], _TIMEOUT_S)[0] and (data := os.read(ours, 65536)):
            seen += data
    except OSError:  # the end of a terminal
        pass
    os.close(ours)
    return process.wait(_TIMEOUT_S), seen
