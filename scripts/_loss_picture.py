"""The picture of a race to a low loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

STYLES = (  # a colour and a width for each curve in turn, told apart by those who see few colours too
    ("#0b5394", 2.8),
    ("#4f9fd8", 2.2),
    ("#c76a00", 1.9),
    ("#1b8a5a", 1.9),
    ("#8a5aa8", 1.9),
)
LOWEST, HIGHEST = 1.3, 2.6  # loss
KNOWN = {  # what a mark is, and at which side no curve is in the way of saying it
    1.88: ("nanoGPT's own figure for a CPU", "left"),
    1.4697: ("nanoGPT's own figure for a GPU, with 10.7 million weights", "left"),
}
GRID, TEXT = "#d9dde2", "#4a5058"
TICKS = {1: "1 s", 3: "3 s", 10: "10 s", 30: "30 s"} | {60 * m: f"{m} min" for m in (1, 3, 10, 30, 100)}
LABEL_HEIGHT = 0.075  # of the axis, two lines


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move what is too close apart, both of two by as much; in the order given, which rises."""
    places = list(heights)
    for _ in range(100):
        for index in range(1, len(places)):
            lacking = gap - (places[index] - places[index - 1])
            if lacking > 0:
                places[index - 1 : index + 1] = places[index - 1] - lacking / 2, places[index] + lacking / 2
    return places


def height(loss: float) -> float:
    """Of a loss on the axis: 0 at its lower end, 1 at its upper."""
    return math.log(loss / LOWEST) / math.log(HIGHEST / LOWEST)


def draw(curves: Mapping[str, Sequence[Mapping[str, float]]], marks: Sequence[float], title: str, path: Path) -> None:
    """Draw loss against seconds, both axes logarithmic, and write the picture to a file.

    Args:
        curves: for each contender its validations, with `seconds` and `loss`.
        marks: losses to be reached, drawn as faint lines.
        title: of the picture.
        path: of the picture; its ending says in which format.
    """
    figure = Figure(figsize=(8, 5.6), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    longest = max(curve[-1]["seconds"] for curve in curves.values())
    axes.set(xscale="log", yscale="log", xlim=(1, longest), ylim=(LOWEST, HIGHEST))
    for mark in marks:
        axes.axhline(mark, color=GRID, linewidth=1, zorder=0)
        if mark in KNOWN:
            words, side = KNOWN[mark]
            place = 0.012 if side == "left" else 0.988, height(mark) + 0.006
            axes.text(*place, words, transform=axes.transAxes, color=TEXT, fontsize=8, ha=side, va="bottom")
    at_edge: list[tuple[float, str, str]] = []
    for (name, curve), (color, width) in zip(curves.items(), STYLES, strict=True):
        seconds, losses = [point["seconds"] for point in curve], [point["loss"] for point in curve]
        axes.plot(seconds, losses, color=color, linewidth=width, solid_capstyle="round")
        end = seconds[-1], losses[-1]
        if not LOWEST < end[1] < HIGHEST:
            continue
        axes.plot(*end, marker="o", color=color, markersize=2.2 * width, clip_on=False)
        if end[0] > 0.6 * longest:
            at_edge.append((height(end[1]), name, color))
        else:
            label = axes.annotate(name, end, (0, -7), textcoords="offset points", ha="center", va="top", color=color)
            label.set(fontsize=9.5, path_effects=[withStroke(linewidth=3, foreground="white")])
    at_edge.sort()
    for (_, name, color), place in zip(at_edge, spread([y for y, *_ in at_edge], LABEL_HEIGHT), strict=True):
        lines = name.replace(", ", ",\n")
        axes.text(1.02, place, lines, transform=axes.transAxes, color=color, fontsize=9.5, va="center")
    ticks = [second for second in TICKS if second <= longest * 1.02]
    axes.xaxis.set(major_locator=FixedLocator(ticks), major_formatter=FixedFormatter([TICKS[tick] for tick in ticks]))
    losses_shown = sorted({*marks, 2.0, 2.2, 2.4, 2.6})
    axes.yaxis.set(
        major_locator=FixedLocator(losses_shown),
        major_formatter=FixedFormatter([f"{loss:.2f}" for loss in losses_shown]),
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.tick_params(length=3, color=GRID, labelcolor=TEXT, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.set_xlabel("time of training", color=TEXT)
    axes.set_ylabel("validation loss, nats per character", color=TEXT)
    axes.set_title(title, loc="left", fontsize=11, color="#20252b")
    figure.savefig(path, dpi=200)
