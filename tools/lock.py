"""Writes tools/locks/: `python3 tools/lock.py [UV'S ARGUMENTS]`, such as `--upgrade`, or `--upgrade-package torch`.

dev.txt holds the versions of everything that development needs, for every platform and Python: constraints of
setup_env.py. release.txt holds the programs that make a release, with their hashes. Neither names an index.
"""

import subprocess
import sys
from pathlib import Path

import venvs

ROOT = Path(__file__).resolve().parent.parent
COMMON = ["--universal", "--python-version", "3.11", "--no-emit-index-url", "--no-annotate", "--quiet"]
EXTRAS = ("all", "dev", "docs", "ray")


def main() -> None:
    uv = venvs.uv_command()
    extras = [part for extra in EXTRAS for part in ("--extra", extra)]
    for output, what in (
        ("dev.txt", ["pyproject.toml", *extras]),
        ("release.txt", ["tools/locks/release.in", "--generate-hashes"]),
    ):
        named = ["--custom-compile-command", "make lock", "--output-file", f"tools/locks/{output}"]
        command = [*uv, "pip", "compile", *COMMON, *named, *what, *sys.argv[1:]]
        if subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode:
            sys.exit(f"tools/locks/{output} could not be made; uv's words stand above")


if __name__ == "__main__":
    main()
