"""Training history -> picture."""

from __future__ import annotations

import contextlib
import io
import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrnn import CharrnnError
from charrnn.files import write_atomically
from charrnn.messages import one_line
from charrnn.runs.history import Report
from charrnn.surroundings import prepare_for_training_and_pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")

_SIZE = (8, 5)  # inches, without the legend for several runs
_NAME_WIDTH = 32  # characters
_TRAINING: dict[str, Any] = {"linestyle": "--", "zorder": 1.9}  # below every run's validation (2) and best
_BEST: dict[str, Any] = {"linestyle": "none", "marker": "*", "markeredgecolor": "black", "zorder": 2.1}


def draw_loss(histories: Mapping[str, Sequence[Report]], figure: Figure) -> None:
    """Draw training and validation loss against steps.

    Args:
        histories: maps each run's name to its reports; each run has at least one.
        figure: an empty figure. It gets a right axis in bits per character and the size that everything needs.
            For a single run it also gets a top axis in epochs, since runs differ in the number of steps per epoch.
    """
    figure.set_layout_engine("constrained")
    figure.set_size_inches(_SIZE)
    axes = figure.add_subplot()
    alone = len(histories) == 1
    for index, reports in enumerate(histories.values()):
        _draw_run(axes, reports, index, alone)
    axes.set_xlabel("step")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes.set_ylabel("loss (nats per character)")
    axes.grid(alpha=0.3)
    in_bits = axes.secondary_yaxis("right", functions=_scale(1 / math.log(2)))
    in_bits.set_ylabel("bits per character")
    names = _shorten([one_line(name) for name in histories])
    if alone:
        [reports] = histories.values()
        per_epoch = reports[-1].step / reports[-1].epoch
        in_epochs = axes.secondary_xaxis("top", functions=_scale(1 / per_epoch))
        in_epochs.set_xlabel("epoch")
        axes.set_title(names[0], parse_math=False)
        figure.legend(handles=axes.lines, loc="outside lower center", ncols=3)
    else:
        _name_runs(axes, names, figure)


def _draw_run(axes: Axes, reports: Sequence[Report], index: int, alone: bool) -> None:
    """Draw three lines: training, validation, best."""
    color, marker = _look(index)
    in_validation = "C1" if alone else color
    steps = [report.step for report in reports]
    axes.plot(
        steps,
        [report.train_loss for report in reports],
        color=color,
        linewidth=1.2 if alone else 1,
        marker="." if len(steps) == 1 else None,  # a line through a single point is invisible
        label="training",
        **_TRAINING,
    )
    dense = len(steps) >= 60  # markers would hide the line
    axes.plot(
        steps,
        [report.val_loss for report in reports],
        color=in_validation,
        marker="" if dense and marker == "." else marker,
        markersize=6 if marker == "." else 4,
        markevery=len(steps) // 10 if dense else 1,
        label="validation",
    )
    best = min(reports, key=lambda report: report.val_loss)
    axes.plot(
        [best.step],
        [best.val_loss],
        color=in_validation,
        markersize=13 if alone else 9,
        markeredgewidth=1 if alone else 0.7,
        label=f"best {best.val_loss:.3f} at step {best.step:,}",
        **_BEST,
    )


def _look(index: int) -> tuple[tuple[float, ...], str]:
    """A run's color and marker. No two of 210 runs share both, and no two of 30 runs share the color.

    The colors are the ten default ones, then the same mixed with black, then mixed with white. Each group of ten
    has its own marker. A share of about a third makes the 30 colors about as distinct to the eye as possible.
    """
    from matplotlib.colors import to_rgb

    tens = index // 10
    part, other = [(0.0, 0.0), (0.35, 0.0), (0.35, 1.0)][tens % 3]
    return tuple((1 - part) * value + part * other for value in to_rgb(f"C{index % 10}")), ".s^DvPX"[tens % 7]


def _shorten(names: Sequence[str]) -> list[str]:
    """Shorten long names in the middle, but only so far that all names stay distinct."""
    for width in range(_NAME_WIDTH, max(map(len, names))):
        tail = width // 2
        short = [name if len(name) <= width else f"{name[: width - tail - 1]}…{name[-tail:]}" for name in names]
        if len(set(short)) == len(names):
            return short
    return list(names)


def _name_runs(axes: Axes, names: Sequence[str], figure: Figure) -> None:
    """Add a legend for the three lines above the axes and one for the runs on the right, and enlarge the figure."""
    from matplotlib.lines import Line2D

    key = [
        Line2D([], [], color="black", linewidth=1, label="training", **_TRAINING),
        Line2D([], [], color="black", label="validation"),
        Line2D([], [], color="white", markersize=9, label="best validation", **_BEST),
    ]
    axes.legend(handles=key, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    columns = math.ceil(len(names) / 40)
    legend = figure.legend(axes.lines[1::3], names, loc="outside right upper", ncols=columns, fontsize=9)
    for text, name, best in zip(legend.get_texts(), names, axes.lines[2::3], strict=True):
        # Set afterwards, because the legend would skip a label that starts with _ and read $ as mathematics.
        text.set(text=f"{name}: {best.get_label()}", parse_math=False)
    box = legend.get_window_extent()
    figure.set_size_inches(_SIZE[0] + box.width / figure.dpi, max(_SIZE[1], box.height / figure.dpi + 0.3))


def _scale(factor: float) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    return lambda value: value * factor, lambda value: value / factor


def save_loss(histories: Mapping[str, Sequence[Report]], path: Path) -> None:
    """Draw the losses and write the picture to a PNG, SVG or PDF file.

    Args:
        histories: see `draw_loss`.
        path: must end in one of `FORMATS`.

    Raises:
        CharrnnError: the path has another ending, or cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise CharrnnError(f"{path}: a picture's name must end in one of {', '.join(FORMATS)}", exit_code=2)
    prepare_for_training_and_pictures()
    with contextlib.chdir(sys.prefix):  # a matplotlibrc file in the working folder would take precedence
        from matplotlib.figure import Figure

    with warnings.catch_warnings():
        # A name in a script that the font lacks appears as boxes; the rest of the picture is fine.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure = Figure()
        draw_loss(histories, figure)
        picture = io.BytesIO()
        suffix = path.suffix.lower()
        undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
        figure.savefig(picture, dpi=150, format=suffix[1:], metadata=undated.get(suffix))
    write_atomically(path, picture.getvalue())
