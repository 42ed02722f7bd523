"""Makes `.venv` ready: `python3 tools/setup_env.py EXTRA... [--no-native] [--newest]`. Needs only Python.

The extras are those of pyproject.toml. Packages are installed with uv where it is on PATH or can be had from PyPI, else
with pip, in the versions of tools/locks/dev.txt (`--newest`: in the newest ones that pyproject.toml allows). It is
quick when nothing changed. `UV_TORCH_BACKEND=cpu` saves three gigabytes on Linux without a GPU.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / "tools" / "locks" / "dev.txt"
OLDEST = (3, 11)


def restart_with_newer_python():
    """This file must parse on old interpreters, so that they can be told what is missing."""
    for minor in range(14, OLDEST[1] - 1, -1):
        found = shutil.which("python3.%d" % minor)
        if found:
            os.execv(found, [found, *sys.argv])
    sys.exit("s3dataset needs Python %d.%d or later; this is %s. Set PYTHON=..." % (*OLDEST, sys.version.split()[0]))


if sys.version_info < OLDEST:
    restart_with_newer_python()

import tomllib

import build_native


def requirements(extras: list[str]) -> list[str]:
    """What pyproject.toml asks for, with references to its own extras resolved; the build's requirements come along."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    optional = pyproject["project"]["optional-dependencies"]
    wanted = [*pyproject["build-system"]["requires"], *pyproject["project"]["dependencies"]]
    queue, seen = list(extras), set()
    while queue:
        extra = queue.pop()
        if extra in seen:
            continue
        if extra not in optional:
            sys.exit(f"pyproject.toml has no extra {extra!r}; it has {', '.join(sorted(optional))}")
        seen.add(extra)
        for requirement in optional[extra]:
            own = re.fullmatch(r"s3dataset\[(.+)\]", requirement)
            if own:
                queue += [name.strip() for name in own[1].split(",")]
            else:
                wanted.append(requirement)
    return sorted(set(wanted))


def venv_python() -> Path:
    return VENV / "bin" / "python"


def find_uv() -> list[str] | None:
    """The command that runs uv, installing it into `.venv` when it is nowhere else."""
    for candidate in (shutil.which("uv"), VENV / "bin" / "uv"):
        if candidate and Path(candidate).exists():
            return [str(candidate)]
    if venv_python().exists():
        got = subprocess.run(
            [venv_python(), "-m", "pip", "install", "-q", "--disable-pip-version-check", "uv"], check=False
        )
        if got.returncode == 0:
            return [str(VENV / "bin" / "uv")]
    return None


def make_venv() -> None:
    if venv_python().exists():
        return
    uv = shutil.which("uv")
    print(f"creating {VENV.name} with {'uv' if uv else 'venv'}, Python {sys.version.split()[0]}", flush=True)
    command = (
        [uv, "venv", "-q", "--allow-existing", "--python", sys.executable] if uv else [sys.executable, "-m", "venv"]
    )
    if subprocess.run([*command, VENV], check=False).returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        sys.exit(
            "Could not create a virtual environment. On Debian and Ubuntu: apt-get install python3-venv; or install uv."
        )


def pip_install(arguments: list[str]) -> None:
    """Installs into `.venv`; ends the program with the installer's own words when that fails."""
    uv = find_uv()
    if uv:
        command = [*uv, "pip", "install", "--python", str(venv_python())]
    else:
        command = [str(venv_python()), "-m", "pip", "install", "--disable-pip-version-check"]
    result = subprocess.run([*command, *arguments], cwd=ROOT, check=False)
    if result.returncode:
        sys.exit(f"Installing failed (exit {result.returncode}): {' '.join(command)}")


def install(extras: list[str], newest: bool) -> None:
    stamp = VENV / ".s3dataset-packages.json"
    installed = json.loads(stamp.read_text()) if stamp.exists() else {"extras": [], "digest": ""}
    extras = sorted({*installed["extras"], *extras})
    wanted = requirements(extras)
    lock = "" if newest else LOCK.read_text()
    state = {"extras": extras, "digest": hashlib.sha256("\n".join([*wanted, lock]).encode()).hexdigest()}
    if state["digest"] != installed["digest"]:
        print("installing packages (PyTorch is large; the next checkout takes it from the cache)", flush=True)
        # Constraints, not requirements: which packages are needed depends on the platform and on the build of PyTorch.
        pip_install([*wanted, *(["--upgrade"] if newest else ["--constraint", str(LOCK)])])
        stamp.write_text(json.dumps(state))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extras", nargs="*", metavar="EXTRA")
    parser.add_argument("--no-native", action="store_true", help="leave the Rust part and the package itself out")
    parser.add_argument("--newest", action="store_true", help="do not keep to the versions of tools/locks/dev.txt")
    arguments = parser.parse_args()
    if not arguments.no_native:
        build_native.demand_rust()  # before gigabytes are downloaded in vain
    make_venv()
    install(arguments.extras, arguments.newest)
    if not arguments.no_native:
        build_native.build_and_install(VENV, pip_install)


if __name__ == "__main__":
    main()
