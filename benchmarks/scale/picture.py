"""The run with a SlowDown phase as a picture: throughput over time, and what each process got."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.chart import COLOR, INK, PAPER, QUIET, RULE
from benchmarks.scale.throttling import Outcome

BAND = "#f1e3d3"


def draw(outcome: Outcome, path: Path) -> None:
    setting = outcome.setting
    figure = Figure(figsize=(12, 4.2), facecolor=PAPER)
    FigureCanvasAgg(figure)
    title = f"{setting.processes} processes under a limit of {setting.limit:,.0f} requests/s"
    figure.text(0.055, 0.94, title, color=INK, fontsize=15, fontweight="bold", va="center")
    grid = figure.add_gridspec(1, 2, left=0.055, right=0.985, top=0.78, bottom=0.14, wspace=0.14, width_ratios=(2, 1))
    draw_timeline(figure.add_subplot(grid[0]), outcome)
    draw_processes(figure.add_subplot(grid[1]), outcome)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def draw_timeline(axes: Axes, outcome: Outcome) -> None:
    setting = outcome.setting
    begins = setting.warm_up_s + setting.before_s
    axes.axvspan(begins, begins + setting.slow_down_s, color=BAND, linewidth=0)
    axes.axhline(setting.limit, color=QUIET, linewidth=0.8, linestyle=":")
    seconds = [second + 0.5 for second in range(len(outcome.timeline))]
    axes.plot(seconds, outcome.timeline, color=COLOR, linewidth=1.4)
    top = 1.15 * max(outcome.timeline)
    axes.text(
        begins + setting.slow_down_s / 2, top * 0.9, "every request refused", color=QUIET, fontsize=9, ha="center"
    )
    axes.set_ylim(0, top)
    axes.set_xlim(0, len(outcome.timeline))
    axes.set_xlabel("seconds", color=QUIET, fontsize=9)
    finish(axes, "Requests done a second (dotted: the limit)")


def draw_processes(axes: Axes, outcome: Outcome) -> None:
    done = sorted(outcome.done)
    axes.bar(range(len(done)), done, width=0.8, color=COLOR)
    axes.axhline(sum(done) / len(done), color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlabel("processes, sorted (dotted: the mean)", color=QUIET, fontsize=9)
    axes.set_xticks([])
    finish(axes, f"Of each in {outcome.setting.before_s:.0f} s; Jain's index {outcome.jain:.2f}")


def finish(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=10.5, fontweight="bold")
    axes.tick_params(colors=QUIET, labelsize=8.5, length=2)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(RULE)
