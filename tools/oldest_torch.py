"""Runs the tests of checkpoints with the oldest PyTorch that is supported, in an environment of its own.

The package is used from where its sources are, with the Rust part that `make env` has built.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import setup_env

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-oldest"
PYTHONS = ("3.11", "3.12")  # for which that PyTorch has wheels
PACKAGES = (
    "torch==2.4.1",
    "numpy<2",  # which it was built with
    "boto3>=1.35",
    "hypothesis>=6.100",
    "psutil>=5.9",
    "pytest>=8.2",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
)
TESTS = (
    "tests/unit/dcp",
    "tests/process/checkpoints",
    "tests/process/test_dcp.py",
    "tests/process/test_torch_save_load.py",
    "tests/faults/test_dcp_faults.py",
    "tests/distributed/test_dcp.py",
    "tests/interop/test_dcp_files.py",
)


def environment() -> Path:
    """Made once, and again when what it consists of has changed; -> its interpreter."""
    python, stamp = FOLDER / "bin" / "python", FOLDER / ".packages"
    digest = hashlib.sha256("\n".join(PACKAGES).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return python
    uv = setup_env.find_uv()
    if uv is None:
        sys.exit("uv was not found and could not be installed: https://docs.astral.sh/uv/getting-started/installation/")
    own = "%d.%d" % sys.version_info[:2]
    version = sys.executable if own in PYTHONS else PYTHONS[-1]  # uv fetches one that is not there
    print(f"installing {PACKAGES[0]} into {FOLDER.name}", flush=True)
    subprocess.run([*uv, "venv", "-q", "--allow-existing", "--python", version, FOLDER], check=True)
    subprocess.run([*uv, "pip", "install", "-q", "--python", python, *PACKAGES], check=True)
    stamp.write_text(digest)
    return python


def main() -> None:
    python = environment()
    given = sys.argv[1:]
    tests = () if any(argument.startswith("tests") for argument in given) else TESTS
    # What that PyTorch says of later ones is no error here.
    command = [python, "-m", "pytest", "-p", "no:cacheprovider", "-W", "ignore::FutureWarning", *given, *tests]
    paths = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    sys.exit(subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, check=False).returncode)


if __name__ == "__main__":
    main()
