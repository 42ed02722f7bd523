"""Tries what is in dist/ as a user would get it: `python3 tools/check_wheels.py [--contents] [--no-demo] [--no-sdist]`.

The wheel: what it holds, which glibc it needs, and, in a fresh environment without Rust, its import and the demo. The
source distribution: built and imported in a fresh environment. Wheels for other machines are only looked into.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

import venvs
import wheels

ROOT = Path(__file__).resolve().parent.parent
GLIBC = (2, 17)
IMPORT_SECONDS = 0.2
TRIES = 10  # the best of them counts: this machine may have other work
IMPORT = """
import json, sys, time
begin = time.perf_counter()
import s3dataset
seconds = time.perf_counter() - begin
heavy = [name for name in ("torch", "botocore", "numpy") if name in sys.modules]
gil = getattr(sys, "_is_gil_enabled", lambda: True)()
from s3dataset import _native
print(json.dumps([s3dataset.__file__, s3dataset.__version__, seconds, heavy, gil]))
"""
VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(sys.stdin.read())
sys.exit(str(error) if error else 0)
"""


def demand(true: object, words: str) -> None:
    if not true:
        sys.exit(f"wheel-check: {words}")


def look_into(wheel: Path, programs: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        native = next(name for name in names if re.fullmatch(r"s3dataset/_native\..*so", name))
        for ending in ("/licenses/LICENSE", "/licenses/THIRD-PARTY-LICENSES.txt", "/py.typed", "/_native.pyi"):
            demand(any(name.endswith(ending) for name in names), f"{wheel.name} holds no ...{ending}")
        strays = [n for n in names if not n.startswith("s3dataset") or "__pycache__" in n or n.endswith(".pyc")]
        demand(not strays, f"{wheel.name} holds {strays[:3]}")
        code = archive.read(native)
        for folder in {str(ROOT), str(Path.home() / ".cargo")}:
            demand(folder.encode() not in code, f"{native} names {folder}, a folder of this machine")
        bills = [name for name in names if "/sboms/" in name]
        demand(len(bills) == 1, f"{wheel.name} holds {len(bills)} bills of materials instead of one")
        bill = archive.read(bills[0])
    subprocess.run([programs / "python", "-c", VALIDATE], input=bill, check=True)
    crates = len(json.loads(bill)["components"])
    if "linux" in wheel.name:
        told = subprocess.run(
            [programs / "auditwheel", "show", wheel], capture_output=True, text=True, check=True
        ).stdout
        needed = {tuple(map(int, version.split("."))) for version in re.findall(r"GLIBC_([\d.]+)", told)}
        demand(needed, f"auditwheel found no symbols of glibc in {wheel.name}: {told}")
        newest = max(needed)
        demand(newest <= GLIBC, f"{wheel.name} needs glibc {newest}, which is later than {GLIBC}: {told}")
        about = "needs glibc %s" % ".".join(map(str, newest[:2]))
    else:
        about = "not for Linux"
    print(f"{wheel.name}: {len(names)} files, {crates} crates in a valid bill of materials, {about}")


def without_rust(venv: Path) -> dict[str, str]:
    """The environment of somebody who has no Rust and knows nothing of this checkout."""
    folders = [
        f for f in os.environ["PATH"].split(os.pathsep) if not any(Path(f, p).exists() for p in ("cargo", "rustc"))
    ]
    unwanted = ("PYTHON", "VIRTUAL_ENV", "CARGO", "RUST", "S3DATASET", "AWS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    made = {**kept, "PATH": os.pathsep.join([str(venv / "bin"), *folders])}
    demand(shutil.which("cargo", path=made["PATH"]) is None, "cargo is still on PATH")
    return made


def install(venv: Path, python: str, what: list[str], environment: dict[str, str]) -> Path:
    uv = [shutil.which(venvs.uv_command()[0]) or venvs.uv_command()[0]]
    subprocess.run([*uv, "venv", "-q", "--python", python, venv], check=True, env=environment)
    subprocess.run(
        [*uv, "pip", "install", "-q", "--python", venv / "bin" / "python", *what], check=True, env=environment
    )
    return venv / "bin" / "python"


def imports(interpreter: Path, folder: Path, environment: dict[str, str]) -> bool:
    """Imports in fresh processes; -> whether Python runs with its lock."""
    best = float("inf")
    for _ in range(TRIES):
        told = subprocess.run(
            [interpreter, "-c", IMPORT], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        demand(told.returncode == 0, f"the import failed:\n{told.stderr}")
        file, version, seconds, heavy, gil = json.loads(told.stdout)
        demand(Path(file).is_relative_to(folder), f"{file} was imported instead of what was installed")
        demand(not heavy, f"import s3dataset imports {heavy}")
        best = min(best, seconds)
        if best < IMPORT_SECONDS:
            break
    demand(best < IMPORT_SECONDS, f"the import took {best:.2f} s in the best of {TRIES} tries")
    print(f"  s3dataset {version} imported in {best * 1000:.0f} ms, without torch, botocore and numpy")
    return gil


def try_wheel(wheel: Path, demo: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        environment = without_rust(folder / "venv")
        extra = "[demo]" if demo else ""
        interpreter = install(folder / "venv", sys.executable, [f"s3dataset{extra} @ {wheel.as_uri()}"], environment)
        imports(interpreter, folder, environment)
        if demo:
            command = [interpreter, "-m", "s3dataset", "demo"]
            ran = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1200, check=False
            )
            demand(ran.returncode == 0, f"the demo ended with {ran.returncode}:\n{ran.stdout}\n{ran.stderr}")
            print("  python -m s3dataset demo: " + (ran.stdout.strip().splitlines() or ["(no words)"])[-1])


def try_free_threaded(wheel: Path) -> None:
    version = wheels.FREE_THREADED[-1]
    command = [*venvs.uv_command(), "python", "find", "--no-python-downloads", version]
    found = subprocess.run(command, capture_output=True, check=False)
    if found.returncode:
        print(f"{wheel.name}: NOT TRIED, there is no Python {version} on this machine")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        environment = without_rust(folder / "venv")
        python = found.stdout.decode().strip()
        interpreter = install(folder / "venv", python, ["--no-deps", str(wheel)], environment)
        demand(not imports(interpreter, folder, environment), "importing s3dataset brought Python's lock back")


def try_sdist(sdist: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "RUSTFLAGS"))}
        environment = {**kept, "CARGO_TARGET_DIR": str(folder / "target")}
        what = ["--no-cache", "--no-deps", "--no-binary", "s3dataset", str(sdist)]
        interpreter = install(folder / "venv", sys.executable, what, environment)
        print(f"{sdist.name}: built and installed")
        imports(interpreter, folder, environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    parser.add_argument("--contents", action="store_true", help="only look into the wheels")
    parser.add_argument("--no-demo", action="store_true", help="import what is in the wheel, and leave it at that")
    parser.add_argument("--no-sdist", action="store_true", help="leave the source distribution out")
    arguments = parser.parse_args()
    found = sorted(arguments.dist.resolve().glob("*.whl"))
    demand(found, f"there is no wheel in {arguments.dist}: make wheel")
    programs = wheels.tools()
    here = platform.machine().replace("arm64", "aarch64") if sysconfig.get_platform().startswith("linux") else "macosx"
    for wheel in found:
        look_into(wheel, programs)
        if arguments.contents:
            continue
        if not wheel.stem.endswith(here) and here != "macosx":
            print("  not tried: it is for another machine")
        elif "-abi3-" in wheel.name:
            try_wheel(wheel, not arguments.no_demo)
        else:
            try_free_threaded(wheel)
    if not arguments.no_sdist and not arguments.contents:
        sdists = sorted(arguments.dist.resolve().glob("*.tar.gz"))
        demand(len(sdists) == 1, f"there are {len(sdists)} source distributions in {arguments.dist} instead of one")
        try_sdist(sdists[0])
    print("wheel-check: all is well")


if __name__ == "__main__":
    main()
