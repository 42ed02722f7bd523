"""Prints what CHANGELOG.md says of a version: `python3 tools/release_notes.py v1.2.0`.

Ends with an error where the tag, pyproject.toml, Cargo.toml and CHANGELOG.md do not agree on the version.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    tag = sys.argv[1] if len(sys.argv) == 2 else ""
    python = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    rust = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    if tag != f"v{python}" or rust.replace("-rc.", "rc") != python:
        sys.exit(f"the tag is {tag!r}, pyproject.toml has {python}, Cargo.toml {rust}: they have to be one version")
    sections = re.split(r"(?m)^## ", (ROOT / "CHANGELOG.md").read_text())
    section = next((text for text in sections if text.startswith(f"[{python}]")), None)
    if section is None:
        sys.exit(f"CHANGELOG.md has no section [{python}]")
    print(section.split("\n", 1)[1].strip())


if __name__ == "__main__":
    main()
