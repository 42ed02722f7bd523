"""The series of a run as one picture."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tests.soak.measure import Sample
from tests.soak.weather import Spell

__all__ = ["draw"]

INK, QUIET, RULE, PAPER = "#1c2733", "#6b7885", "#dfe4e8", "#ffffff"
COLORS: Final = ("#1d5fa8", "#d1701f", "#3f8f4f", "#8a4fa0")
FAULT: Final = "#f1e3d3"

Panel = tuple[str, tuple[tuple[str, Callable[[Sample], float]], ...]]
PANELS: Final[tuple[Panel, ...]] = (
    (
        "Memory, MB",
        (
            ("resident", lambda s: s.rss_mb),
            ("own, without files and pool", lambda s: s.anonymous_mb),
            ("heap in use", lambda s: s.heap_mb),
        ),
    ),
    (
        "Engine's memory, MB",
        (("pooled", lambda s: s.memory_pooled_mb), ("byte budget in use", lambda s: s.memory_in_use_mb)),
    ),
    (
        "Others' memory, MB",
        (("workers that stay, own", lambda s: s.children_anonymous_mb), ("the server", lambda s: s.server_rss_mb)),
    ),
    ("Processes", (("threads", lambda s: s.num_threads), ("children", lambda s: s.children))),
    (
        "Descriptors",
        (
            ("descriptors", lambda s: s.descriptors),
            ("sockets", lambda s: s.sockets),
            ("established", lambda s: s.tcp.get("ESTABLISHED", 0)),
        ),
    ),
    (
        "Files, requests",
        (("files in the temporary folder", lambda s: s.files), ("requests in flight", lambda s: s.in_flight)),
    ),
    ("Python objects, 1000", (("followed by the collector", lambda s: s.python_objects / 1000),)),
    (
        "The server's descriptors",
        (("descriptors", lambda s: s.server_descriptors),),
    ),
)


def draw(samples: Sequence[Sample], spells: Sequence[Spell], title: str, note: str, path: Path) -> None:
    """Lines are samples at rest, points those in the midst of work; bands are faults."""
    height = 11.5
    figure = Figure(figsize=(14, height), facecolor=PAPER)
    FigureCanvasAgg(figure)
    figure.text(0.045, 1 - 0.4 / height, title, color=INK, fontsize=17, fontweight="bold", va="center")
    figure.text(0.045, 1 - 0.78 / height, note, color=QUIET, fontsize=10, va="center")
    grid = figure.add_gridspec(
        4, 2, left=0.045, right=0.985, top=1 - 1.35 / height, bottom=0.055, hspace=0.5, wspace=0.1
    )
    for place, panel in enumerate(PANELS):
        axes = figure.add_subplot(grid[place // 2, place % 2])
        _draw_panel(axes, samples, spells, panel)
        if place >= len(PANELS) - 2:
            axes.set_xlabel("minutes", color=QUIET, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw_panel(axes: Axes, samples: Sequence[Sample], spells: Sequence[Spell], panel: Panel) -> None:
    title, series = panel
    rest = [sample for sample in samples if sample.at_rest]
    for spell in spells:
        axes.axvspan(spell.began_s / 60, spell.ended_s / 60, color=FAULT, linewidth=0, alpha=0.55)
    for (name, of), color in zip(series, COLORS, strict=False):
        if "Python" not in title:
            busy = [sample for sample in samples if not sample.at_rest]
            axes.plot([s.at_s / 60 for s in busy], [of(s) for s in busy], ".", color=color, markersize=2, alpha=0.35)
        axes.plot([s.at_s / 60 for s in rest], [of(s) for s in rest], color=color, linewidth=1.1, label=name)
    axes.set_title(title, loc="left", color=INK, fontsize=10.5, fontweight="bold")
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, samples[-1].at_s / 60)
    axes.tick_params(colors=QUIET, labelsize=8.5, length=2)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(RULE)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(0.36, 1.17), ncols=3, labelcolor=QUIET)
