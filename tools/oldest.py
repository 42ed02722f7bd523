"""Runs tests with the oldest versions that pyproject.toml allows, in an environment of its own.

`python3 tools/oldest.py [--checkpoints] [PYTEST ARGUMENTS]`: the fast tests, or those of checkpoints, which depend on
PyTorch's version most. The package is installed there as `make env` does it, from where its sources are.
"""

import subprocess
import sys
from pathlib import Path

import build_native
import setup_env
import venvs

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-oldest"
PYTHON = "3.11"  # for which all of them have wheels
EXTRAS = ["dev", "ray"]
CHECKPOINTS = (
    "tests/unit/dcp",
    "tests/process/checkpoints",
    "tests/process/test_dcp.py",
    "tests/process/test_torch_save_load.py",
    "tests/faults/test_dcp_faults.py",
    "tests/distributed/test_dcp.py",
    "tests/interop/test_dcp_files.py",
)


def main() -> None:
    own = "%d.%d" % sys.version_info[:2]
    wanted = ["--resolution", "lowest-direct", *setup_env.requirements(EXTRAS)]
    python = sys.executable if own == PYTHON else PYTHON
    interpreter = venvs.make(FOLDER, wanted, about="the oldest versions of pyproject.toml", python=python)

    def install(arguments: list[str]) -> None:
        subprocess.run([*venvs.uv_command(), "pip", "install", "--python", interpreter, *arguments], check=True)

    build_native.build_and_install(FOLDER, install)
    given = sys.argv[1:]
    tests: tuple[str, ...] = ("-m", "not slow")
    if "--checkpoints" in given:
        given.remove("--checkpoints")
        tests = CHECKPOINTS
    if any(argument.startswith("tests") for argument in given):
        tests = ()
    # What those versions say of later ones is no error here.
    quiet = ["-W", "ignore::FutureWarning", "-W", "ignore::DeprecationWarning"]
    command = [interpreter, "-m", "pytest", "-p", "no:cacheprovider", *quiet, *given, *tests]
    sys.exit(subprocess.run(command, cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main()
