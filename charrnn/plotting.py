"""Training history -> picture."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrnn import CharrnnError
from charrnn.checkpoint import write_atomically
from charrnn.messages import one_line
from charrnn.runs import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")


def draw_loss(histories: Mapping[str, Sequence[Report]], figure: Figure) -> None:
    """Draw training and validation loss against steps.

    Args:
        histories: for each run's name its reports, at least one.
        figure: an empty one. It gets a second axis in epochs where one run is drawn (runs differ in
            the steps of an epoch), and bits per character on the right.
    """
    axes = figure.add_subplot()
    alone = len(histories) == 1
    for index, (name, reports) in enumerate(histories.items()):
        steps = [report.step for report in reports]
        marker = "." if len(steps) < 60 else None
        # matplotlib reads $ as mathematics, and leaves out what starts with _.
        prefix = "" if alone else f" {one_line(name)}: ".replace("$", r"\$")
        training, validation = ("C0", "C1") if alone else (f"C{index}", f"C{index}")
        axes.plot(
            steps,
            [report.train_loss for report in reports],
            color=training,
            linestyle="--",
            linewidth=1.2,
            marker="." if len(steps) == 1 else None,  # of one point a line shows nothing
            label=f"{prefix}training",
        )
        axes.plot(
            steps,
            [report.val_loss for report in reports],
            color=validation,
            marker=marker,
            label=f"{prefix}validation",
        )
        best = min(reports, key=lambda report: report.val_loss)
        axes.plot(
            [best.step],
            [best.val_loss],
            color=validation,
            marker="*",
            markersize=13,
            markeredgecolor="black",
            linestyle="none",
            label=f"{prefix}best {best.val_loss:.3f} at step {best.step:,}",
        )
    axes.set_xlabel("step")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes.set_ylabel("loss (nats per character)")
    axes.grid(alpha=0.3)
    axes.legend()
    in_bits = axes.secondary_yaxis("right", functions=_scale(1 / math.log(2)))
    in_bits.set_ylabel("bits per character")
    if alone:
        [(name, reports)] = histories.items()
        per_epoch = reports[-1].step / reports[-1].epoch
        in_epochs = axes.secondary_xaxis("top", functions=_scale(1 / per_epoch))
        in_epochs.set_xlabel("epoch")
        axes.set_title(one_line(name), parse_math=False)


def _scale(factor: float) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    return lambda value: value * factor, lambda value: value / factor


def save_loss(histories: Mapping[str, Sequence[Report]], path: Path, for_window: bool = False) -> None:
    """Draw the losses and write the picture to a PNG, SVG or PDF file.

    Args:
        histories: as `draw_loss` takes them.
        path: ends in one of `FORMATS`.
        for_window: draw it so that `show_window` can show it afterwards.

    Raises:
        CharrnnError: another ending, or not writable.
    """
    if path.suffix.lower() not in FORMATS:
        raise CharrnnError(f"{path}: a picture's name ends in {', '.join(FORMATS)}", exit_code=2)
    size = (8, 5)
    if for_window:
        import matplotlib.pyplot as plt

        figure = plt.figure("charrnn plot-loss", figsize=size, layout="constrained")
    else:
        from matplotlib.figure import Figure as FigureWithoutDisplay

        figure = FigureWithoutDisplay(figsize=size, layout="constrained")
    draw_loss(histories, figure)
    try:
        with warnings.catch_warnings():
            # A name in a script that the font lacks is drawn as boxes; the picture is good otherwise.
            warnings.filterwarnings("ignore", "Glyph .* missing")
            picture = io.BytesIO()
            figure.savefig(picture, dpi=150, format=path.suffix[1:].lower())
        write_atomically(path, picture.getvalue())
    except OSError as error:
        raise CharrnnError(f"{path}: cannot be written: {error.strerror or error}") from None


def show_window() -> None:
    """Show what `save_loss` drew for a window, until it is closed.

    Raises:
        CharrnnError: there is no display.
    """
    import matplotlib.pyplot as plt

    if plt.get_backend().lower() == "agg":  # what matplotlib falls back to without a display
        raise CharrnnError(
            "no window can be opened here, which takes a display and a toolkit such as tkinter or PySide6; "
            "the picture is in the file all the same"
        )
    plt.show()
