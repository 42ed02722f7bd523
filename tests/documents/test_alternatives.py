"""docs/alternatives.md: its figures are those of docs/performance.md."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "alternatives.md").read_text().split("## Sources")[0]
MEASURED = (DOCS / "performance.md").read_text()
FIGURES = sorted(
    {figure for figure in re.findall(r"\b\d{1,3}(?:,\d{3})+\b|\b\d{3}\b", PAGE) if figure not in ("100", "256")}
)


def test_there_are_figures():
    assert len(FIGURES) >= 10


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure(figure):
    assert re.search(rf"\| {figure} \|", MEASURED), f"{figure} is not measured in docs/performance.md"
