"""The measurement as a picture: four panels, one for each question."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from s3dataset._bench._result import Result

INK, QUIET, RULE, PAPER = "#1c2733", "#6b7885", "#dfe4e8", "#ffffff"
MAIN, SECOND, THIRD = "#1d5fa8", "#1f7a5c", "#c8452f"
DPI = 160


def draw(path: Path, result: Result, source: str) -> None:
    """Throughput and latency by concurrency, throughput by request size, samples by workers."""
    figure = Figure(figsize=(11.5, 8.2), facecolor=PAPER)
    FigureCanvasAgg(figure)
    figure.text(
        0.06, 0.955, "How fast this bucket reads from here", color=INK, fontsize=19, fontweight="bold", va="center"
    )
    figure.text(0.06, 0.915, _summary(result), color=QUIET, fontsize=11, va="center")
    axes = figure.subplots(2, 2)
    figure.subplots_adjust(left=0.075, right=0.97, top=0.83, bottom=0.105, wspace=0.2, hspace=0.5)
    throughput(axes[0][0], result)
    latency(axes[0][1], result)
    sizes(axes[1][0], result)
    workers(axes[1][1], result)
    figure.text(0.06, 0.025, source, color=QUIET, fontsize=8.5, va="center")
    figure.savefig(path, dpi=DPI)


def _summary(result: Result) -> str:
    best = result.best
    if best is None:
        return f"{result.uri}: nothing was measured"
    return (
        f"{result.uri}: at most {_number(best.bytes_per_s / 1e6)} MB/s and {best.requests_per_s:,.0f} requests/s, with "
        f"{best.concurrency} at once; limited by {result.bottleneck}"
    )


def throughput(axes: Axes, result: Result) -> None:
    dress(axes, "Throughput, MB/s", "requests at once")
    if not result.curve:
        return missing(axes)
    at_once = [step.concurrency for step in result.curve]
    axes.plot(at_once, [step.bytes_per_s / 1e6 for step in result.curve], color=MAIN, linewidth=2.2, marker="o")
    doublings(axes, at_once)
    axes.set_ylim(bottom=0)
    return None


def latency(axes: Axes, result: Result) -> None:
    dress(axes, "Time of a request, ms (log scale)", "requests at once")
    if not result.curve:
        return missing(axes)
    at_once = [step.concurrency for step in result.curve]
    for name, color in (("p50", MAIN), ("p90", SECOND), ("p99", THIRD)):
        values = [1e3 * getattr(step.latencies, name) for step in result.curve]
        axes.plot(at_once, values, color=color, linewidth=2.0, marker="o", markersize=4, label=name)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "25" else ""))
    lowest, highest = axes.get_ylim()
    steps = [digit * 10.0**exponent for exponent in range(-3, 7) for digit in (1, 2, 5)]  # those that have labels
    axes.set_ylim(max(step for step in steps if step <= lowest), min(step for step in steps if step >= highest))
    doublings(axes, at_once)
    axes.legend(frameon=False, fontsize=9.5, labelcolor=INK, loc="upper left", ncols=3, handlelength=1.4)
    return None


def sizes(axes: Axes, result: Result) -> None:
    dress(axes, "Throughput, MB/s, by size of a request", "size")
    if not result.sizes:
        return missing(axes)
    places = range(len(result.sizes))
    values = [step.bytes_per_s / 1e6 for step in result.sizes]
    axes.bar(places, values, color=MAIN, width=0.62)
    for place, step, value in zip(places, result.sizes, values, strict=True):
        axes.text(
            place, value, f"{_number(value)}\n×{step.concurrency}", color=QUIET, fontsize=8, ha="center", va="bottom"
        )
    axes.set_xticks(list(places), [_size(step.request_bytes) for step in result.sizes])
    axes.margins(y=0.2)
    return None


def workers(axes: Axes, result: Result) -> None:
    dress(axes, "DataLoader, samples/s", "num_workers")
    if not result.workers:
        return missing(axes)
    places = range(len(result.workers))
    values = [step.samples_per_s for step in result.workers]
    axes.bar(places, values, color=SECOND, width=0.62)
    for place, value in zip(places, values, strict=True):
        axes.text(place, value, _number(value), color=QUIET, fontsize=8, ha="center", va="bottom")
    axes.set_xticks(list(places), [str(step.workers) for step in result.workers])
    axes.margins(y=0.15)
    return None


def dress(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=12, fontweight="bold", pad=10)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=QUIET, length=0, labelsize=9.5, which="both")
    axes.set_xlabel(below, color=QUIET, fontsize=9.5, loc="right")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))


def doublings(axes: Axes, values: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(values, [str(value) for value in values])


def missing(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, "not measured", color=QUIET, fontsize=11, ha="center", va="center", transform=axes.transAxes)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


def _size(count: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count //= 1024
    return f"{count:.0f} GiB"
