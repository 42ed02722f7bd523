"""The command `s3dataset` in a process of its own."""

import subprocess
import sys

TIMEOUT_S = 60


def command(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "s3dataset", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        stdin=subprocess.DEVNULL,
        **options,
    )
