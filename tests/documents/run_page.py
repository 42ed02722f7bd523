"""Runs a page's blocks one after the other, as somebody would who types them in: `run_page.py PAGE SETTING`.

Python goes into this module's names, so that functions pickle. A block with a title is a file of that name, and
commands that the setting names are run where they stand.
"""

import json
import multiprocessing
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def run_page(page: str, setting: dict) -> None:
    text = Path(page).read_text()
    commands = set(setting["commands"])
    execute(setting["before"], f"<before {page}>")
    for block in BLOCK.finditer(text):
        language, title, code = block.groups()
        line = text.count("\n", 0, block.start()) + 1
        if language == "python" and title:
            Path(title).write_text(code)
        elif language == "python":
            execute("\n" * line + code, page)
        else:
            for command in filter(commands.__contains__, code.splitlines()):
                commands.remove(command)
                run(command)
    assert not commands, f"{page} does not have these lines in a block of its own: {commands}"
    execute(setting["after"], f"<after {page}>")


def execute(code: str, name: str) -> None:
    exec(compile(code, name, "exec"), globals())


def run(command: str) -> None:
    words = shlex.split(command)
    modules = {"torchrun": ["-m", "torch.distributed.run"], "pytest": ["-m", "pytest"], "python": []}
    sys.stdout.flush()
    subprocess.run([sys.executable, "-W", "ignore", *modules[words[0]], *words[1:]], check=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    # Under the other ways workers import the main module, and pages would have to say so in every block.
    multiprocessing.set_start_method("fork")
    sys.path.insert(0, str(Path.cwd()))
    run_page(sys.argv[1], json.loads(sys.argv[2]))
