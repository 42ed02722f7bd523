"""Pages are in the site's navigation, and what they link to is there: on GitHub, which shows files, and on the site."""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
DECISIONS = DOCS / "decisions"
PAGES = sorted(
    {*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("[!.]*/README.md"), *ROOT.glob("examples/*.ipynb")}, key=str
)
CODE = re.compile(r"^(```+|~~~+).*?^\1\s*$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^()\s]+)\)")


def text_of(page: Path) -> str:
    """What is written, without code."""
    text = page.read_text()
    if page.suffix == ".ipynb":
        text = "\n\n".join(
            "".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"
        )
    return CODE.sub(lambda code: code[0].strip("`") if "\n" not in code[0] else "", text)


def links_of(page: Path) -> Iterator[tuple[str, str]]:
    """Paths and anchors of those that stay in the repository."""
    for target in LINK.findall(text_of(page)):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield path, anchor


@cache
def anchors_of(page: Path) -> frozenset[str]:
    """Those that GitHub and the site call alike; a heading whose anchors differ cannot be linked to."""
    found = set()
    for heading in re.findall(r"^#+ (.+?)\s*#*$", text_of(page), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        on_github = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        on_site = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", words.lower()).strip())
        if on_github == on_site:
            found.add(on_github)
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_it_links_to_is_there(page: Path) -> None:
    dead = []
    for path, anchor in links_of(page):
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            dead.append(f"{path}#{anchor}" if anchor else path)
    assert dead == []


def in_navigation() -> set[str]:
    _, navigation = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")
    return set(re.findall(r"^\s+- (?:.+: )?(\S+\.md)$", navigation, re.MULTILINE))


def test_every_page_is_in_the_navigation() -> None:
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert {page for page in pages - in_navigation() if not page.startswith("decisions/0")} == set()


def test_the_navigation_has_no_page_that_is_not_there() -> None:
    made = (ROOT / "tools" / "docs_site.py").read_text()  # those of README, examples, ..., and the reference
    for page in in_navigation():
        of_reference = page.startswith("reference/") and f'"{Path(page).stem}": (' in made
        of_program = (ROOT / page).with_suffix(".py").exists()
        assert (DOCS / page).exists() or f'"{page}"' in made or of_reference or of_program, page


def test_every_decision_is_listed() -> None:
    listed = [path for path, _ in links_of(DECISIONS / "README.md")]
    assert listed[0] == "0000-template.md"
    assert listed[1:] == sorted(page.name for page in DECISIONS.glob("0*.md") if page.name != listed[0])


def test_what_the_reference_leaves_out_is_there() -> None:
    import s3dataset

    made = ast.parse((ROOT / "tools" / "docs_site.py").read_text())
    (internal,) = [
        node.value for node in made.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INTERNAL"
    ]
    left_out = eval(ast.unparse(internal))  # of literals
    assert left_out
    for name, members in left_out.items():
        assert [member for member in members if not hasattr(getattr(s3dataset, name), member)] == []


def test_every_module_that_is_public_has_a_reference() -> None:
    import s3dataset

    made = (ROOT / "tools" / "docs_site.py").read_text()
    for name in [*s3dataset.__all__, "errors", "formats", "transforms", "testing", "monitoring"]:
        if not (name.startswith("__") or hasattr(s3dataset.errors, name)):
            assert f'"{name}"' in made, f"{name} is in no page of REFERENCE"
