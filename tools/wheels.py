"""Builds what is released, into dist/: `python3 tools/wheels.py [--target TRIPLE] [--only abi3|free-threaded|sdist]`.

On Linux the wheels are for glibc 2.17 and later, whatever this machine has: they are linked by zig, which comes from
PyPI. One wheel is for all versions of Python from 3.11 on; free-threaded Python, which that cannot serve, has one of
its own. No interpreter of the Python that a wheel is for is needed.
"""

import setup_env  # noqa: F401 - first: it goes on with a newer Python where this one is too old

# isort: split
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import build_native
import third_party
import venvs

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-release"
LOCK = ROOT / "tools" / "locks" / "release.txt"
FREE_THREADED = ("3.14t",)  # 3.13's was an experiment, which PyO3 no longer supports
GLIBC = "manylinux2014"  # glibc 2.17: the oldest that Rust and PyTorch run on


def tools() -> Path:
    """The folder of the release's programs, pinned with their hashes."""
    arguments = ["--require-hashes", "-r", str(LOCK)]
    return venvs.make(FOLDER, arguments, about="maturin and zig", inputs=LOCK.read_bytes()).parent


def host() -> str:
    told = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    return next(line.removeprefix("host: ") for line in told.splitlines() if line.startswith("host: "))


def environment(programs: Path) -> dict[str, str]:
    """The compiler writes names of source files into messages of panics: without this machine's folders."""
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    flags = [f"--remap-path-prefix={ROOT}=/s3dataset", f"--remap-path-prefix={home}=/cargo"]
    inherited = os.environ.get("RUSTFLAGS", "").split()
    return {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "RUSTFLAGS": " ".join([*inherited, *flags]),
        "VIRTUAL_ENV": str(FOLDER),
    }


def build(programs: Path, arguments: list[str]) -> None:
    command = [str(programs / "maturin"), *arguments]
    if subprocess.run(command, cwd=ROOT, env=environment(programs), check=False).returncode:
        sys.exit(f"That did not build; the words of maturin and cargo stand above: {' '.join(command[1:])}")


def build_wheel(programs: Path, target: str, interpreter: str, out: Path) -> None:
    linux = "-linux-" in target
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    with tempfile.TemporaryDirectory() as folder:
        materials = Path(folder) / "s3dataset.cdx.json"
        materials.write_text(third_party.bill_of_materials(target, version))
        common = [
            "build",
            "--release",
            "--locked",
            "--target",
            target,
            "--out",
            str(out),
            "--sbom-include",
            str(materials),
        ]
        build(
            programs, [*common, "--interpreter", interpreter, *(["--zig", "--compatibility", GLIBC] if linux else [])]
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--target", metavar="TRIPLE", help="Rust's name of what the wheels are for (default: this machine)"
    )
    parser.add_argument(
        "--only", choices=("abi3", "free-threaded", "sdist"), action="append", help="leave the others out"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    arguments = parser.parse_args()
    build_native.demand_rust()
    target = arguments.target or host()
    if "-linux-musl" in target or "-windows-" in target:
        parser.error(f"s3dataset does not run on {target}; see README.md, 'When to use something else'")
    if third_party.OUTPUT.read_text(encoding="utf-8") != third_party.licences():
        sys.exit(f"{third_party.OUTPUT.name} does not tell what Cargo.lock brings: make licenses")
    programs = tools()
    wanted = arguments.only or ["abi3", "free-threaded", "sdist"]
    shutil.rmtree(arguments.out, ignore_errors=True)
    if "sdist" in wanted:
        build(programs, ["sdist", "--out", str(arguments.out)])
    if "abi3" in wanted:
        build_wheel(programs, target, "python3.11", arguments.out)
    if "free-threaded" in wanted:
        for version in FREE_THREADED:
            build_wheel(programs, target, f"python{version}", arguments.out)
    for made in sorted(arguments.out.iterdir()):
        print(f"{made.stat().st_size / 1e6:6.1f} MB  {made}")


if __name__ == "__main__":
    main()
