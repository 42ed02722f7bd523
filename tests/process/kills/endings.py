"""What ends a program that waits."""

import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

__all__ = ["ENDINGS", "Ending"]


@dataclass(frozen=True, slots=True)
class Ending:
    """A way to end.

    Attributes:
        title: Its name.
        code: The exit code that is right.
        strike: Ends the program, from outside, if it does not end itself.
        main: What the program does. `work()` waits for the server, `struck()` for the end to come.
        orderly: Python gets to clean up: no file and no upload stays.
        in_thread: It is a thread that waits.
    """

    title: str
    code: int
    strike: "Callable[[subprocess.Popen[str]], object]"
    main: str = "work()"
    orderly: bool = False
    in_thread: bool = False


def _signal(number: signal.Signals) -> "Callable[[subprocess.Popen[str]], object]":
    return lambda program: program.send_signal(number)


ENDINGS: Final = (
    # As a terminal does: to all processes of the group.
    Ending("Ctrl-C", -signal.SIGINT, lambda program: os.killpg(program.pid, signal.SIGINT), orderly=True),
    Ending("SIGINT to it alone", -signal.SIGINT, _signal(signal.SIGINT), orderly=True),
    Ending("SIGTERM", -signal.SIGTERM, _signal(signal.SIGTERM)),
    Ending("SIGKILL", -signal.SIGKILL, _signal(signal.SIGKILL)),
    Ending(
        "os._exit",
        3,
        lambda program: None,
        "threading.Thread(target=lambda: (struck(), os._exit(3)), daemon=True).start()\nwork()",
    ),
    Ending(
        "sys.exit by a signal handler",
        7,
        _signal(signal.SIGTERM),
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\nwork()",
        orderly=True,
    ),
    Ending(
        "the end of the program, a thread waits",
        0,
        lambda program: None,
        "threading.Thread(target=work, daemon=True).start()\nstruck()",
        orderly=True,
        in_thread=True,
    ),
)
