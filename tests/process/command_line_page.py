"""Runs the commands of docs/command-line.md. `python -m tests.process.command_line_page` writes what they print there.

A block ```console holds commands, each behind "$ ", and below each what it prints.
"""

import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from s3dataset.testing import LocalS3

PAGE = Path(__file__).resolve().parents[2] / "docs" / "command-line.md"
LATENCY_S = 0.025
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Run(NamedTuple):
    """A command of the page and what the page says that it prints."""

    line: str
    printed: str


def blocks(text: str) -> list[list[Run]]:
    """The commands of each block."""
    found = []
    for block in _BLOCK.findall(text):
        parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
        found.append([Run(line, printed) for line, printed in zip(parts[1::2], parts[2::2], strict=True)])
    return found


def fill(server: LocalS3) -> None:
    """What the page speaks of."""
    generator = random.Random(0)
    for number in range(1797):
        size = int(generator.gauss(140, 12))
        server.put("my-bucket", f"digits/{number % 10}/{number // 10:04d}.png", generator.randbytes(size))
    rows = "".join(f"digits/{number % 10}/{number // 10:04d}.png,{number % 10}\n" for number in range(1797))
    server.put("my-bucket", "labels.csv", f"key,label\n{rows}".encode())
    server.put("my-bucket", "run-7/epoch-3.pt", generator.randbytes(50 << 20))


def run(line: str, folder: str, *more: str) -> str:
    """What a terminal of 100 columns would show of a command, standard error included."""
    words = line.replace("s3dataset ", f"{sys.executable} -m s3dataset ", 1)
    done = subprocess.run(
        ["bash", "-c", " ".join([words, *more])],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        timeout=300,
        env={name: value for name, value in os.environ.items() if "proxy" not in name.lower()} | {"COLUMNS": "100"},
    )
    return done.stdout


def running(folder: str, *more: str) -> Iterator[tuple[Run, str]]:
    """Runs the page's commands in their order."""
    with LocalS3("my-bucket") as server:
        fill(server)
        for block in blocks(PAGE.read_text()):
            for told in block:
                server.set_traffic(latency_s=LATENCY_S if " bench " in told.line else 0.0)
                yield told, run(told.line, folder, *(more if " bench " in told.line else ()))


def main() -> None:
    os.environ |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    text = PAGE.read_text()
    with tempfile.TemporaryDirectory() as folder:
        picture = PAGE.with_name("command-line-bench.png")
        printed = {told.line: shown for told, shown in running(folder, "--plot", str(picture))}

    def filled(match: re.Match[str]) -> str:
        lines = re.findall(r"^\$ (.*)\n", match[1], flags=re.MULTILINE)
        inside = "".join(f"$ {line}\n{_without_folder(printed[line])}" for line in lines)
        return f"```console\n{inside}```"

    PAGE.write_text(_BLOCK.sub(filled, text))


def _without_folder(shown: str) -> str:
    kept = [line for line in shown.splitlines() if not line.startswith("s3dataset: drawn: ")]
    return "\n".join(kept).rstrip("\n") + "\n" if shown else ""


if __name__ == "__main__":
    main()
