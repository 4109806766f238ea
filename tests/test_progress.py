"""What training shows: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import SMALL, Command, on_terminal


@pytest.fixture
def folder(tmp_path: Path, tales: str) -> Path:
    (tmp_path / "small.txt").write_text(tales)
    return tmp_path


def test_a_terminal_gets_a_live_line_and_samples(folder: Path) -> None:
    output, code = on_terminal(folder, "train", "small.txt", *SMALL, "--epochs", "4", "--learning-rate", "0.02")
    assert code == 0, output
    for part in ("epoch ", "step ", "loss ", "val ", "chars/s", "left", "nats", "\x1b["):
        assert part in output
    lines = output.split("sample from it")[0].splitlines()
    assert any(" the " in line and "epoch" not in line for line in lines)  # a sample of the model as it stands
    assert "oneDNN" not in output
    assert "WARNING" not in output


def test_no_color_is_heeded(folder: Path) -> None:
    output, code = on_terminal(folder, "train", "small.txt", *SMALL, "--epochs", "1", NO_COLOR="1")
    assert code == 0
    assert "\x1b[3" not in output  # no foreground colour
    assert "nats" in output


def test_a_terminal_of_ten_columns_is_wide_enough(folder: Path) -> None:
    output, code = on_terminal(folder, "train", "small.txt", *SMALL, "--epochs", "1", columns=10)
    assert code == 0, output


def test_a_pipe_gets_a_plain_line_per_validation(folder: Path, charrnn: Command) -> None:
    result = charrnn("train", "small.txt", *SMALL, "--epochs", "2")
    reports = [line for line in result.stderr.splitlines() if line.startswith("epoch ")]
    assert len(reports) == len((folder / "checkpoints/small/history.csv").read_text().splitlines()) - 1
    assert all(part in reports[0] for part in ("step ", "train ", "val ", "nats (", "bits)", "chars/s"))
    assert "\x1b" not in result.stderr


def test_a_sample_on_a_terminal_ends_with_a_newline(trained: Path) -> None:
    output, code = on_terminal(trained, "sample", "--length", "20", "--seed", "1", "--prime", "The ")
    assert code == 0
    assert output.endswith("\n")
