"""The picture of the losses."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import pytest
from conftest import Command
from matplotlib.figure import Figure

from charrnn.plotting import draw_loss
from charrnn.runs import Report

REPORTS = [
    Report(step, step / 50, 3 - step / 100, 3 - step / 120 + (step > 150), 0.01, 1.0, 1.0) for step in (100, 150, 200)
]


def test_losses_epochs_bits_and_the_best_point_are_drawn() -> None:
    figure = Figure()
    draw_loss({"run": REPORTS}, figure)
    [axes] = figure.axes
    training, validation, best = axes.lines
    assert list(training.get_ydata()) == [report.train_loss for report in REPORTS]
    assert list(validation.get_ydata()) == [report.val_loss for report in REPORTS]
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (150, REPORTS[1].val_loss)
    in_bits, in_epochs = axes.child_axes
    figure.draw_without_rendering()
    assert in_bits.get_ylim() == pytest.approx([limit / math.log(2) for limit in axes.get_ylim()])
    assert in_epochs.get_xlim() == pytest.approx([limit / 50 for limit in axes.get_xlim()])


def test_several_runs_have_a_legend_of_their_own() -> None:
    figure = Figure()
    draw_loss({"one": REPORTS, "two": REPORTS}, figure)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert [label.split(":")[0] for label in labels] == [" one"] * 3 + [" two"] * 3


@pytest.mark.parametrize(("out", "magic"), [(None, b"\x89PNG"), ("x.svg", b"<?xml"), ("x.pdf", b"%PDF")])
def test_the_command_writes_the_picture_and_prints_its_path(
    trained: Path, charrnn: Command, tmp_path: Path, out: str | None, magic: bytes
) -> None:
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    result = charrnn("plot-loss", *(["--out", out] if out else []))
    assert result.returncode == 0, result.stderr
    path = out or os.path.join("checkpoints", "small", "loss.png")
    assert result.stdout == f"{path}\n"
    assert result.stderr == ""
    assert (tmp_path / path).read_bytes().startswith(magic)


def test_a_link_in_the_pictures_place_is_replaced_not_followed(trained: Path, charrnn: Command, tmp_path: Path) -> None:
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "mine.txt").write_text("keep this")
    (tmp_path / "checkpoints" / "small" / "loss.png").symlink_to(tmp_path / "mine.txt")
    assert charrnn("plot-loss").returncode == 0
    assert (tmp_path / "mine.txt").read_text() == "keep this"
    assert (tmp_path / "checkpoints" / "small" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_several_runs_go_into_one_picture(trained: Path, charrnn: Command, tmp_path: Path) -> None:
    for name in ("checkpoints/a", "checkpoints/b", "elsewhere/a"):
        shutil.copytree(trained / "checkpoints" / "small", tmp_path / name)
    result = charrnn("plot-loss", "a", "checkpoints/b")
    assert result.stdout.strip() == os.path.join("checkpoints", "loss.png")
    result = charrnn("plot-loss", "elsewhere/a", "checkpoints/a", "--out", "same.svg")
    assert result.returncode == 0, result.stderr
    both = (tmp_path / "same.svg").read_text()
    assert "elsewhere/a: training" in both  # the labels are in the file as comments
    assert "checkpoints/a: training" in both


def test_names_that_matplotlib_would_read_otherwise(trained: Path, charrnn: Command, tmp_path: Path) -> None:
    for name in ("a$\\foo$", "_b", "\u54ea\u5412"):
        shutil.copytree(trained / "checkpoints" / "small", tmp_path / "checkpoints" / name)
        result = charrnn("plot-loss", name)
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
    result = charrnn("plot-loss", "a$\\foo$", "_b", "--out", "x.svg")
    assert "_b: training" in (tmp_path / "x.svg").read_text()


def test_what_cannot_be_drawn_is_said(trained: Path, charrnn: Command, tmp_path: Path) -> None:
    where = ("--checkpoints-dir", trained / "checkpoints")
    assert "no such run" in charrnn("plot-loss", "absent", *where).stderr
    result = charrnn("plot-loss", *where, "--out", "x.bmp")
    assert result.returncode == 2
    assert ".png, .svg, .pdf" in result.stderr
    result = charrnn("plot-loss", *where, "--out", "absent/x.png")
    assert result.returncode == 1
    assert "absent/x.png: cannot be written" in result.stderr


def test_a_window_without_a_display_is_an_error_and_the_picture_is_there(
    trained: Path, charrnn: Command, tmp_path: Path
) -> None:
    where = ("--checkpoints-dir", str(trained / "checkpoints"))
    result = charrnn("plot-loss", *where, "--out", "x.png", "--show", DISPLAY="", WAYLAND_DISPLAY="", MPLBACKEND="agg")
    assert result.returncode == 1
    assert "no window can be opened here" in result.stderr
    assert result.stdout == "x.png\n"
    assert (tmp_path / "x.png").exists()
