"""The results as one picture: a panel a case, a bar a client, ours in colour."""

import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from benchmarks.cases import Case
from benchmarks.results import OURS, Results

INK, QUIET, RULE, PAPER, COLOR, PEER = "#1c2733", "#6b7885", "#dfe4e8", "#ffffff", "#1d5fa8", "#b9c4ce"
COLUMNS = 3
PANEL_WIDTH, PANEL_HEIGHT = 4.6, 1.75
_TITLE_CHARACTERS = 50


def draw(results: Results, path: Path) -> None:
    cases = results.cases()
    rows = -(-len(cases) // COLUMNS)
    height = rows * PANEL_HEIGHT + 1.5
    canvas = Canvas(figsize=(COLUMNS * PANEL_WIDTH, height), facecolor=PAPER)
    FigureCanvasAgg(canvas)
    machine = results.content["machine"]
    place = (
        f"{results.date}, {machine['cores']} cores of {machine['cpu']}, server on the same machine. Longer is better."
    )
    canvas.text(
        0.02, 1 - 0.38 / height, "s3dataset beside its peers", color=INK, fontsize=18, fontweight="bold", va="center"
    )
    canvas.text(0.02, 1 - 0.74 / height, place, color=QUIET, fontsize=10.5, va="center")
    grid = canvas.add_gridspec(
        rows, COLUMNS, left=0.135, right=0.965, top=1 - 1.35 / height, bottom=0.28 / height, hspace=0.7, wspace=0.78
    )
    for number, case in enumerate(cases):
        draw_case(canvas.add_subplot(grid[number // COLUMNS, number % COLUMNS]), results, case)
    canvas.savefig(path, dpi=130)


def draw_case(axes: Axes, results: Results, case: Case) -> None:
    figures = results.figures(case)[::-1]
    places = range(len(figures))
    rates = [figure.rate for figure in figures]
    axes.barh(places, rates, height=0.66, color=[COLOR if figure.client in OURS else PEER for figure in figures])
    for place, figure in zip(places, figures, strict=True):
        text = f"{figure.rate:,.0f}" + (f" {case.unit}" if place == len(figures) - 1 else "")
        axes.text(figure.rate + max(rates) * 0.015, place, text, color=INK, fontsize=8.5, va="center")
    axes.set_yticks(places, [figure.client for figure in figures])
    for label, figure in zip(axes.get_yticklabels(), figures, strict=True):
        label.set_fontweight("bold" if figure.client in OURS else "normal")
        label.set_color(INK)
        label.set_fontsize(9)
    axes.set_xticks([])
    axes.set_xlim(0, max(rates) * 1.38)
    axes.set_ylim(-0.6, max(len(figures), 4) - 0.4)
    axes.tick_params(length=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(RULE)
    title = textwrap.fill(case.title[0].upper() + case.title[1:], _TITLE_CHARACTERS)
    axes.set_title(title, loc="left", x=-0.36, color=INK, fontsize=10, fontweight="bold", pad=7)
