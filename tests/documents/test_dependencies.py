"""docs/dependencies.md: each package and crate that is depended on is there, with its reason."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "dependencies.md").read_text().lower()
CRATES = sorted([ROOT / "Cargo.toml", *ROOT.glob("rust/*/Cargo.toml")])
OWN = {"s3dataset", "s3dataset-engine", "s3dataset-local-s3"}


def packages() -> set[str]:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = told["project"]["optional-dependencies"].values()
    released = [line for line in (ROOT / "tools/locks/release.in").read_text().splitlines() if not line.startswith("#")]
    every = [told["build-system"]["requires"], told["project"]["dependencies"], *extras, released]
    return {re.split(r"[^\w.-]", requirement, maxsplit=1)[0] for some in every for requirement in some}


def crates() -> set[str]:
    return {name for file in CRATES for name in dependencies(tomllib.loads(file.read_text()))}


def dependencies(table: dict[str, Any]) -> Iterator[str]:
    for name, value in table.items():
        if name in ("dependencies", "dev-dependencies", "build-dependencies"):
            yield from value
        elif isinstance(value, dict):
            yield from dependencies(value)


def test_there_are_some() -> None:
    assert len(packages()) > 30
    assert len(crates()) > 15


@pytest.mark.parametrize("name", sorted((packages() | crates()) - OWN))
def test_it_is_named(name: str) -> None:
    spelled = {name.lower(), name.lower().replace("-", "_")}
    assert any(re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", PAGE) for word in spelled), name
