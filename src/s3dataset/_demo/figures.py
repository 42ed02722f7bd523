"""The demo's two pictures: samples with what the model says they are, and how it learned."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter
from numpy.typing import NDArray
from PIL import Image

from s3dataset._demo.model import EpochResult, Validation

INK, QUIET, RULE, PAPER = "#1c2733", "#6b7885", "#dfe4e8", "#ffffff"
RIGHT, WRONG, TRAIN, VALID = "#1f7a5c", "#c8452f", "#8aa0b4", "#1d5fa8"
COLUMNS, ROWS = 12, 4
DPI = 160


def draw_samples(path: Path, result: Validation, photographs: Sequence[tuple[str, Image.Image]], source: str) -> None:
    """A grid of validation images, each with its label and the model's word; mistakes come first and are marked."""
    wrong = [i for i in range(result.samples) if result.predictions[i] != result.labels[i]]
    shown = wrong[: COLUMNS * ROWS // 2]
    right = [i for i in range(result.samples) if result.predictions[i] == result.labels[i]]
    shown += random.Random(0).sample(right, min(len(right), COLUMNS * ROWS - len(shown)))

    figure = Figure(figsize=(11.5, 8.6), facecolor=PAPER)
    FigureCanvasAgg(figure)
    figure.text(0.035, 0.957, "What the model says", color=INK, fontsize=19, fontweight="bold", va="center")
    mistakes = f"{len(wrong)} mistake{'s' if len(wrong) != 1 else ''} in {result.samples}"
    summary = f"{result.accuracy:.2%} right on images it never trained on ({mistakes}, marked red)"
    figure.text(0.035, 0.916, summary, color=QUIET, fontsize=11.5, va="center")
    grid = figure.add_gridspec(ROWS, COLUMNS, left=0.035, right=0.965, top=0.855, bottom=0.345, hspace=0.42, wspace=0.2)
    for place, index in enumerate(shown):
        axes = figure.add_subplot(grid[place // COLUMNS, place % COLUMNS])
        draw_digit(axes, result.images[index].squeeze(0).numpy(), result.labels[index], result.predictions[index])
    draw_by_digit(figure, result)
    figure.text(0.515, 0.275, "Also in the bucket", color=INK, fontsize=13, fontweight="bold", va="center")
    strip = figure.add_gridspec(1, 2, left=0.515, right=0.965, top=0.245, bottom=0.065, wspace=0.06)
    for place, (name, image) in enumerate(photographs[:2]):
        axes = figure.add_subplot(strip[0, place])
        axes.imshow(image, interpolation="lanczos")
        axes.set_anchor("NW")
        axes.set_axis_off()
        caption = f"{name}, {image.width} x {image.height}"
        axes.text(0, -0.05, caption, transform=axes.transAxes, color=QUIET, fontsize=8.5, va="top")
    figure.text(0.035, 0.02, source, color=QUIET, fontsize=8.5, va="center")
    figure.savefig(path, dpi=DPI)


def draw_by_digit(figure: Figure, result: Validation) -> None:
    """How many of each digit were right, as bars over how many there were."""
    figure.text(0.035, 0.275, "Right, by digit", color=INK, fontsize=13, fontweight="bold", va="center")
    axes = figure.add_axes((0.035, 0.085, 0.42, 0.14))
    digits = range(10)
    total = [result.labels.count(digit) for digit in digits]
    pairs = list(zip(result.labels, result.predictions, strict=True))
    right = [pairs.count((digit, digit)) for digit in digits]
    axes.bar(digits, total, color=WRONG, width=0.68)
    axes.bar(digits, right, color=RIGHT, width=0.68)
    for digit in digits:
        text = f"{right[digit]}/{total[digit]}"
        axes.text(digit, total[digit] + 0.8, text, color=QUIET, fontsize=8, ha="center", va="bottom")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.set_xticks(digits)
    axes.set_yticks([])
    axes.set_xlim(-0.5, 9.5)
    axes.tick_params(colors=INK, length=0, labelsize=11)


def draw_digit(axes: Axes, pixels: NDArray[np.uint8], label: int, prediction: int) -> None:
    right = label == prediction
    axes.imshow(255 - pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(RULE if right else WRONG)
        spine.set_linewidth(1 if right else 2.4)
    text = f"{prediction}" if right else f"{prediction}, is {label}"
    axes.set_title(text, color=RIGHT if right else WRONG, fontsize=11, fontweight="bold", pad=3.5)


def draw_training(path: Path, results: Sequence[EpochResult], source: str) -> None:
    """Loss and accuracy by epoch, on what was trained with and on what was held back."""
    figure = Figure(figsize=(11.5, 4.9), facecolor=PAPER)
    FigureCanvasAgg(figure)
    figure.text(0.06, 0.93, "How it learned", color=INK, fontsize=19, fontweight="bold", va="center")
    best = max(result.valid_accuracy for result in results)
    last = results[-1].valid_accuracy
    text = f"{len(results)} epochs; validation accuracy {last:.2%} at the end, {best:.2%} at its best"
    figure.text(0.06, 0.857, text, color=QUIET, fontsize=11.5, va="center")
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.06, right=0.965, top=0.73, bottom=0.155, wspace=0.17)
    epochs = [result.epoch for result in results]
    losses = [result.train_loss for result in results], [result.valid_loss for result in results]
    draw_lines(left, "Loss (cross-entropy, log scale)", epochs, *losses)
    left.set_yscale("log")
    left.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    left.yaxis.set_minor_locator(NullLocator())
    left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    accuracy = [result.train_accuracy for result in results], [result.valid_accuracy for result in results]
    draw_lines(right, "Accuracy", epochs, *accuracy)
    lowest = min(map(min, accuracy))
    right.set_ylim(max(0.0, lowest - 0.03), 1.005)
    right.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.text(0.06, 0.03, source, color=QUIET, fontsize=8.5, va="center")
    figure.savefig(path, dpi=DPI)


def draw_lines(axes: Axes, title: str, epochs: list[int], train: list[float], valid: list[float]) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=12, fontweight="bold", pad=10)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=QUIET, length=0, labelsize=9.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch", color=QUIET, fontsize=9.5, loc="right")
    for values, color, name in ((train, TRAIN, "training"), (valid, VALID, "validation")):
        axes.plot(epochs, values, color=color, linewidth=2.2, marker="o", markersize=4.5, clip_on=False, label=name)
    axes.legend(frameon=False, fontsize=10, labelcolor=INK, loc="best", handlelength=1.6)
    axes.set_xlim(min(epochs) - 0.15, max(epochs) + 0.15)
