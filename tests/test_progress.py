"""What training shows: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import pytest
from conftest import SMALL, Command, chain_model, environment, on_terminal

from charrnn.text.vocabulary import Vocabulary
from charrnn.training import display


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


def test_a_terminal_shows_that_the_speed_is_being_measured(folder: Path) -> None:
    output, code = on_terminal(folder, "train", "small.txt", *SMALL, "--minutes", "0.1")
    assert code == 0, output
    first = output.split("measuring the speed", 1)[1].split("epoch", 1)[0]
    assert "building the network" in first
    assert re.search(r"loss \d\.\d{3}  step \d", first)


def test_no_color_is_heeded(folder: Path) -> None:
    output, code = on_terminal(folder, "train", "small.txt", *SMALL, "--epochs", "1", NO_COLOR="1")
    assert code == 0
    assert "\x1b[3" not in output  # no foreground colour
    assert "nats" in output


def test_a_terminal_made_narrow_while_training_and_the_c_locale_are_no_trouble(tmp_path: Path) -> None:
    """The live line is drawn anew, and never wider than the terminal, where a wrapped one could not be taken away."""
    (tmp_path / "small.txt").write_text("Élève à l'école, où l'été naît déjà. " * 600, encoding="utf-8")
    pexpect = pytest.importorskip("pexpect", reason="a terminal to drive needs Unix")
    child = pexpect.spawn(
        sys.executable,
        ["-m", "charrnn", "train", "small.txt", *SMALL, "--epochs", "12", "--learning-rate", "0.02"],
        cwd=str(tmp_path),
        env=environment() | {"TERM": "xterm-256color", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        dimensions=(24, 100),
        encoding="utf-8",
        timeout=120,
    )
    child.expect("chars/s")
    child.setwinsize(24, 10)
    output: str = child.read()
    child.close()
    assert child.exitstatus == 0, output
    assert "Traceback" not in output
    lines = re.split(r"\r\n|\r|\x1b\[2K", re.sub(r"\x1b\[[\d;?]*[mlh]", "", output))
    for part, as_wide_as_before in ((" left", 1), (" % d", 0)):
        drawn = [line for line in lines if part in line][as_wide_as_before:]
        assert drawn
        assert max(map(len, drawn)) <= 10


@pytest.mark.parametrize(("name", "value"), [("FORCE_COLOR", ""), ("TTY_INTERACTIVE", "0"), ("TERM", "unknown")])
def test_a_terminal_that_shall_not_show_a_live_line_gets_plain_ones(folder: Path, name: str, value: str) -> None:
    output, code = on_terminal(folder, "train", "small.txt", *SMALL, "--epochs", "1", **{name: value})
    assert code == 0, output
    assert "chars/s" in output
    assert "\x1b[" not in output


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


@pytest.mark.parametrize(
    "env", [{"JPY_PARENT_PID": "1"}, {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, {"CI": "true"},
            {"TERM": "dumb"}],
)  # fmt: skip
def test_where_a_terminal_keeps_every_line_it_gets_plain_ones(folder: Path, env: dict[str, str]) -> None:
    output, code = on_terminal(folder, "train", "small.txt", *SMALL, "--epochs", "2", **env)
    assert code == 0, output
    assert "\x1b" not in output
    assert "\r" not in output.replace("\r\n", "\n")
    reports = (folder / "checkpoints/small/history.csv").read_text().splitlines()[1:]
    assert len(output.splitlines()) == len(reports) + 4  # what was read, is trained, was scored, and comes next


def test_the_terminal_is_asked_for_its_width(folder: Path) -> None:
    output, code = on_terminal(folder, "train", "small.txt", *SMALL, "--epochs", "4", COLUMNS="300", LINES="7")
    assert code == 0, output
    lines = re.split(r"\r\n|\r|\x1b\[2K", re.sub(r"\x1b\[[\d;?]*[mlh]", "", output))
    drawn = [line for line in lines if " left" in line]
    assert drawn
    assert max(map(len, drawn)) <= 100


def test_a_log_says_how_long_a_run_takes_whose_first_validation_is_far_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1000.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    shown = display.ProgressDisplay()
    progress = chain_model(Vocabulary("text", "ab"), "ab").progress
    with shown.steps(dataclasses.replace(progress, step=100, total_steps=24_100), 100, 2048):
        for step in range(101, 201):
            now[0] += 0.5
            shown.step(step, 2.0)
    assert capsys.readouterr().err == "step 161/24,100; about 200 min left\n"
