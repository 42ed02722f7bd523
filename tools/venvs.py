"""Environments beside `.venv`, each made once and again when what it consists of has changed."""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import setup_env

ROOT = Path(__file__).resolve().parent.parent


def uv_command() -> list[str]:
    setup_env.make_venv()  # where uv is installed if it is nowhere
    uv = setup_env.find_uv()
    if uv is None:
        sys.exit("uv was not found and could not be installed: https://docs.astral.sh/uv/getting-started/installation/")
    return uv


def make(
    folder: Path, arguments: Sequence[str], *, about: str, python: str = sys.executable, inputs: bytes = b""
) -> Path:
    """Makes an environment by `uv pip install ARGUMENTS`; -> its interpreter.

    `python` is a path or a version (uv fetches one that is not there). `inputs` is the content of files that the
    arguments name.
    """
    interpreter, stamp = folder / "bin" / "python", folder / ".packages"
    digest = hashlib.sha256("\n".join([python, *arguments]).encode() + b"\0" + inputs).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return interpreter
    print(f"installing {about} into {folder.name}", flush=True)
    uv = uv_command()
    for command in (
        [*uv, "venv", "-q", "--clear", "--python", python, folder],
        [*uv, "pip", "install", "-q", "--python", interpreter, *arguments],
    ):
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            sys.exit(f"{folder.name} could not be made; the installer's words stand above")
    stamp.write_text(digest)
    return interpreter
