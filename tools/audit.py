"""Looks for what is known to be bad: vulnerable versions in tools/locks/ and Cargo.lock, weak spots of the workflows.

Asks PyPI about Python packages and the RustSec database about crates (cargo-deny has to be installed for that).
"""

import shutil
import subprocess
import sys
from pathlib import Path

import wheels

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    programs = wheels.tools()
    audit = [programs / "pip-audit", "--strict", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    commands = [
        [*audit, "-r", "tools/locks/dev.txt"],
        [*audit, "-r", "tools/locks/release.txt"],
        [programs / "zizmor", "--offline", "--persona", "pedantic", ".github"],
    ]
    if shutil.which("cargo-deny"):
        commands.append(["cargo", "deny", "--all-features", "check", "advisories"])
    failed = [command for command in commands if subprocess.run(command, cwd=ROOT, check=False).returncode]
    if not shutil.which("cargo-deny"):
        sys.exit("cargo-deny is not installed: crates were not looked up (cargo install --locked cargo-deny)")
    if failed:
        sys.exit(f"audit: {len(failed)} of {len(commands)} programs found something")


if __name__ == "__main__":
    main()
