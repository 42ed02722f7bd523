"""Builds the Rust part and installs the package so that Python sources are used from where they are.

A finished build is kept in the user's cache under the hash of what went into it, so that a second checkout of the same
sources needs no compiler at all. The three newest are kept.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "s3dataset"
KEPT_BUILDS = 3
NO_RUST = """\
s3dataset has a Rust part, and there is no Rust toolchain on PATH.
Install one, then run this again:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh      (https://rustup.rs)
or your system's packages of rustc and cargo, 1.92 or later."""


def demand_rust() -> None:
    if shutil.which("cargo") is None or shutil.which("rustc") is None:
        sys.exit(NO_RUST)


def sources() -> Iterable[Path]:
    yield from (ROOT / "Cargo.toml", ROOT / "Cargo.lock", ROOT / "pyproject.toml")
    yield from sorted(path for path in (ROOT / "rust").rglob("*") if path.suffix in {".rs", ".toml"})


def build_key() -> str:
    """Names a build by everything that it depends on."""
    compiler = subprocess.run(["rustc", "-vV"], capture_output=True, check=True, cwd=ROOT).stdout
    digest = hashlib.sha256(compiler)
    free_threaded = sysconfig.get_config_var("Py_GIL_DISABLED") or 0
    for setting in (os.environ.get("RUSTFLAGS", ""), sysconfig.get_platform(), f"free-threaded {free_threaded}"):
        digest.update(setting.encode() + b"\0")
    for path in sources():
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:24]


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s3dataset" / "native"


def built_wheel(key: str, venv: Path) -> Path:
    """The wheel of these sources: from the cache, or built now."""
    cached = cache_folder() / f"{key}.whl"
    if cached.exists():
        cached.touch()
        return cached
    print("building the Rust part (a minute or two; only when its sources change)", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [venv / "bin" / "maturin", "build", "--release", "--compatibility", "linux"]
        command += [] if sys.stdout.isatty() else ["--quiet"]
        command += ["--interpreter", venv / "bin" / "python", "--out", folder]
        command += ["--locked"] if os.environ.get("CI") else []
        environment = {
            **os.environ,
            "VIRTUAL_ENV": str(venv),
            "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }
        if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
            sys.exit("The Rust part did not build; the compiler's words stand above.")
        cached.parent.mkdir(parents=True, exist_ok=True)
        partial = cached.with_suffix(f".{os.getpid()}")
        shutil.copyfile(next(Path(folder).glob("*.whl")), partial)
        partial.replace(cached)
    for old in sorted(cached.parent.glob("*.whl"), key=lambda path: path.stat().st_mtime)[:-KEPT_BUILDS]:
        old.unlink(missing_ok=True)
    return cached


def editable_wheel(wheel: Path, folder: Path) -> Path:
    """Makes a wheel with the metadata of `wheel` whose only content is a pointer to this checkout's `src`."""
    with zipfile.ZipFile(wheel) as source:
        entries = {name: source.read(name) for name in source.namelist() if ".dist-info/" in name}
    record = next(name for name in entries if name.endswith("/RECORD"))
    del entries[record]
    entries["s3dataset-editable.pth"] = f"{ROOT / 'src'}\n".encode()
    lines = []
    for name, data in entries.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\n")
    entries[record] = "".join([*lines, f"{record},,\n"]).encode()
    version = record.removesuffix("/RECORD").removesuffix(".dist-info")
    made = folder / f"{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as target:
        for name, data in entries.items():
            target.writestr(name, data)
    return made


def build_and_install(venv: Path, pip_install: Callable[[list[str]], None]) -> None:
    """Brings `src/s3dataset/_native*.so` and the installed package up to date; does nothing when they are."""
    key = build_key()
    stamp = venv / ".s3dataset-native"
    if stamp.exists() and stamp.read_text() == key and any(PACKAGE.glob("_native*.so")):
        return
    wheel = built_wheel(key, venv)
    with zipfile.ZipFile(wheel) as source:
        for name in source.namelist():
            if name.startswith("s3dataset/_native") and name.endswith((".so", ".pyd")):
                target = PACKAGE / Path(name).name
                partial = target.with_suffix(".partial")
                partial.write_bytes(source.read(name))
                partial.chmod(0o755)
                partial.replace(target)  # a running process keeps the file that it has mapped
    with tempfile.TemporaryDirectory() as folder:
        pip_install(["--quiet", "--no-deps", "--force-reinstall", str(editable_wheel(wheel, Path(folder)))])
    stamp.write_text(key)
