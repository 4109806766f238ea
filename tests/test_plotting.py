"""The picture of the losses."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import pytest
from conftest import Command
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from charrnn.runs.history import Report
from charrnn.runs.plotting import draw_loss

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


def legend_of(figure: Figure) -> list[str]:
    [legend] = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_the_legend_of_one_run_hides_no_curve() -> None:
    figure = Figure()
    draw_loss({"run": REPORTS}, figure)
    figure.draw_without_rendering()
    assert legend_of(figure) == ["training", "validation", "best 1.750 at step 150"]
    assert not figure.legends[0].get_window_extent().overlaps(figure.axes[0].get_tightbbox())


@pytest.mark.parametrize("dpi", [72, 150])  # of an SVG or PDF, of a PNG
@pytest.mark.parametrize("count", [2, 5, 12, 30, 90])
def test_the_legend_of_several_runs_is_whole_and_beside_the_axes(count: int, dpi: int) -> None:
    figure = Figure()
    draw_loss({f"{index}-{'W' * 60}": REPORTS for index in range(count)}, figure)
    figure.set_dpi(dpi)
    figure.draw_without_rendering()
    [axes] = figure.axes
    assert len(legend_of(figure)) == count
    place = figure.legends[0].get_window_extent()
    around = axes.get_tightbbox()  # with the labels of its ticks, and what it says of the lines
    assert around.x1 < place.x0
    for box in (place, around):
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert 0 <= box.y0 < box.y1 <= figure.bbox.y1
    assert axes.bbox.width > 6 * dpi
    assert axes.bbox.height > 3.5 * dpi


@pytest.mark.parametrize("reports", [REPORTS, REPORTS[:1], REPORTS * 30])
def test_no_two_runs_look_the_same(reports: list[Report]) -> None:
    figure = Figure()
    draw_loss({str(index): reports for index in range(210)}, figure)
    validations = figure.axes[0].lines[1::3]
    assert len({(to_hex(line.get_color()), line.get_marker()) for line in validations}) == 210
    assert len({to_hex(line.get_color()) for line in validations[:30]}) == 30
    assert [to_hex(line.get_color()) for line in validations[:10]] == [to_hex(f"C{index}") for index in range(10)]
    for line, entry in zip(validations, figure.legends[0].legend_handles, strict=True):
        assert (entry.get_color(), entry.get_marker()) == (line.get_color(), line.get_marker())


def test_what_the_lines_of_a_run_are_is_said_once() -> None:
    figure = Figure()
    draw_loss({"one": REPORTS, "two": REPORTS}, figure)
    key = figure.axes[0].get_legend()
    assert [text.get_text() for text in key.get_texts()] == ["training", "validation", "best validation"]
    styles = [(line.get_linestyle(), line.get_marker()) for line in figure.axes[0].lines]
    assert styles == [("--", "None"), ("-", "."), ("None", "*")] * 2


def test_names_in_the_legend() -> None:
    figure = Figure()
    draw_loss(dict.fromkeys(["$x_1$", "_b", "a\nb", "start" + "-" * 60 + "end"], REPORTS), figure)
    best = ": best 1.750 at step 150"
    shortened = f"start{'-' * 10}\u2026{'-' * 13}end"
    assert legend_of(figure) == [f"$x_1${best}", f"_b{best}", f"a\\nb{best}", shortened + best]
    assert not any(text.get_parse_math() for text in figure.legends[0].get_texts())


def test_long_names_stay_different() -> None:
    figure = Figure()
    draw_loss({f"{'a' * 20}{middle}{'b' * 39}": REPORTS for middle in "123"}, figure)
    names = [label.split(":")[0] for label in legend_of(figure)]
    assert len(set(names)) == 3
    assert all("\u2026" in name for name in names)


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
    assert "elsewhere/a: best" in both  # the labels are in the file as comments
    assert "checkpoints/a: best" in both


def test_many_runs_go_into_one_picture_without_a_warning(trained: Path, charrnn: Command, tmp_path: Path) -> None:
    names = [f"{index}-{'long' * 20}" for index in range(30)]
    for name in names:
        shutil.copytree(trained / "checkpoints" / "small", tmp_path / "checkpoints" / name)
    result = charrnn("plot-loss", *names)
    assert result.returncode == 0
    assert result.stderr == ""


# What would change or break all that is drawn.
HOSTILE = """
backend: module://absent
no.such.key: 1
text.usetex: True
font.family: serif
font.size: 30
lines.linewidth: 9
path.sketch: (1, 100, 2)
axes.prop_cycle: cycler("color", ["white"])
axes.facecolor: black
figure.facecolor: black
savefig.facecolor: black
savefig.bbox: tight
savefig.dpi: 40
"""


@pytest.mark.parametrize("where", ["MATPLOTLIBRC", "MPLCONFIGDIR", "XDG_CONFIG_HOME", "the working folder"])
def test_a_configuration_of_matplotlib_changes_nothing(
    trained: Path, charrnn: Command, tmp_path: Path, where: str
) -> None:
    shutil.copytree(trained / "checkpoints" / "small", tmp_path / "checkpoints" / "small")
    assert charrnn("plot-loss", "--out", "plain.png").returncode == 0
    for folder in (tmp_path, tmp_path / "matplotlib"):
        folder.mkdir(exist_ok=True)
        (folder / "matplotlibrc").write_text(HOSTILE)
    variables = {} if where.startswith("the") else {where: str(tmp_path)}
    result = charrnn("plot-loss", "--out", "hostile.png", **variables, MPLBACKEND="module://absent")
    assert (result.returncode, result.stdout, result.stderr) == (0, "hostile.png\n", "")
    assert (tmp_path / "hostile.png").read_bytes() == (tmp_path / "plain.png").read_bytes()


def test_names_that_matplotlib_would_read_otherwise(trained: Path, charrnn: Command, tmp_path: Path) -> None:
    for name in ("a$\\foo$", "_b", "\u54ea\u5412"):
        shutil.copytree(trained / "checkpoints" / "small", tmp_path / "checkpoints" / name)
        result = charrnn("plot-loss", name)
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
    result = charrnn("plot-loss", "a$\\foo$", "_b", "--out", "x.svg")
    assert result.stderr == ""
    for name in ("a$\\foo$", "_b"):
        assert f"{name}: best" in (tmp_path / "x.svg").read_text()


def test_what_cannot_be_drawn_is_said(trained: Path, charrnn: Command, tmp_path: Path) -> None:
    where = ("--checkpoints-dir", trained / "checkpoints")
    assert "no such run" in charrnn("plot-loss", "absent", *where).stderr
    result = charrnn("plot-loss", *where, "--out", "x.bmp")
    assert result.returncode == 2
    assert ".png, .svg, .pdf" in result.stderr
    result = charrnn("plot-loss", *where, "--out", "absent/x.png")
    assert result.returncode == 1
    assert "absent/x.png: cannot be written" in result.stderr
