"""Runs the engine's tests, and the Python tests of its memory, with AddressSanitizer.

Python itself is not instrumented: the sanitizer's library is loaded before it, and sees every allocation of the process
and what the extension module does with it.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "asan"
TESTS = ("tests/unit/native",)
# An engine lives as long as its process, so what it holds at the end is no leak.
OPTIONS = "detect_leaks=0:detect_stack_use_after_return=1:abort_on_error=1"


def cargo(*arguments: str) -> str:
    """-> the target that was built for, which has to be named so that build scripts are not instrumented."""
    told = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    target = re.search(r"^host: (\S+)$", told, re.MULTILINE)[1]
    # The flag is one of nightly compilers; RUSTC_BOOTSTRAP has a stable one take it.
    environment = {"RUSTC_BOOTSTRAP": "1", "RUSTFLAGS": "-Zsanitizer=address", "ASAN_OPTIONS": OPTIONS}
    command = ["cargo", arguments[0], "--quiet", "--target", target, "--target-dir", str(FOLDER), *arguments[1:]]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, **environment})
    return target


def runtime() -> str:
    """The sanitizer as a shared library."""
    told = subprocess.run(
        ["cc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
    ).stdout.strip()
    if not Path(told).is_absolute():
        sys.exit("the sanitizer's library was not found: apt-get install gcc")
    return str(Path(told).resolve())


def main() -> None:
    tests = sys.argv[1:] or TESTS
    cargo("test", "-p", "s3dataset-engine", "--lib", "--tests")
    target = cargo("build", "-p", "s3dataset-python")
    package = FOLDER / "package"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "src", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(FOLDER / target / "debug" / "lib_native.so", package / "s3dataset" / "_native.abi3.so")
    environment = {
        "LD_PRELOAD": runtime(),
        "ASAN_OPTIONS": OPTIONS,
        "PYTHONPATH": str(package),
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *tests]
    sys.exit(subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=False).returncode)


if __name__ == "__main__":
    main()
