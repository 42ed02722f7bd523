"""What holds for every document of the repository: its links lead somewhere."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def documents():
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        return []
    return [pytest.param(ROOT / name, id=name) for name in listed.stdout.split()]


def anchors(text):
    """What the headings of a document are linked as."""
    headings = re.findall(r"(?m)^#+ +(.+)$", re.sub(r"(?ms)^```.*?^```", "", text))
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("path", documents())
def test_links_to_files_and_headings_lead_somewhere(path):
    text = re.sub(r"(?s)```.*?```|`[^`\n]*`", "", path.read_text())
    for link in re.findall(r"\[[^]]*\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{path.name} links to {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.read_text()), f"{path.name} links to {link}"
