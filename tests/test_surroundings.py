"""Training where its surroundings fail: streams, the clock, the terminal. The end is always the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, environment, same_files
from faults import SHIMS

from charrnn.runs import Run

TRAIN = (sys.executable, "-m", "charrnn", "train", "small.txt", *SMALL, "--epochs", "4")


def wait_for(path: Path, process: subprocess.Popen[Any]) -> None:
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.005)


def test_closed_streams_and_a_clock_that_goes_backwards_change_nothing(trained: Path, tmp_path: Path, run: Run) -> None:
    env = environment() | {"PYTHONPATH": str(SHIMS), "CLOCK_BACKWARDS": "1", "TF_CPP_MIN_LOG_LEVEL": "0"}
    with subprocess.Popen(["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', *TRAIN], cwd=tmp_path, env=env) as process:
        wait_for(run.last, process)
        if os.path.exists("/proc"):  # no file of ours is where libraries write their messages to
            opened = [os.readlink(f"/proc/{process.pid}/fd/{descriptor}") for descriptor in range(3)]
            assert opened == [os.devnull] * 3
    assert process.returncode == 0
    assert same_files(run, Run(trained / "checkpoints/small"))
    reports = run.read_history()
    seconds = [report.seconds for report in reports]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0
    assert all(report.chars_per_second > 0 for report in reports)


def test_a_reader_of_stderr_that_goes_away_does_not_stop_the_training(trained: Path, tmp_path: Path, run: Run) -> None:
    with subprocess.Popen(TRAIN, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.stderr.close()
    assert process.returncode == 0
    assert same_files(run, Run(trained / "checkpoints/small"))


def test_a_terminal_that_goes_away_does_not_stop_the_training_of_who_ignores_it(
    trained: Path, tmp_path: Path, run: Run
) -> None:
    pexpect = pytest.importorskip("pexpect", reason="a terminal to drive needs Unix")
    child = pexpect.spawn(
        TRAIN[0], list(TRAIN[1:]), cwd=str(tmp_path), env=environment() | {"TERM": "xterm-256color"},
        encoding="utf-8", timeout=60, ignore_sighup=True,
    )  # fmt: skip
    child.expect("chars/s")
    os.close(child.child_fd)
    _, status = os.waitpid(child.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert same_files(run, Run(trained / "checkpoints/small"))


def test_a_stop_while_the_speed_is_measured_acts_at_once(tmp_path: Path, run: Run) -> None:
    command = (*TRAIN[:5], "--units", "256", "--minutes", "1")
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "measuring the speed" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().startswith("stopped while the training was set up: nothing is saved yet")
    assert process.returncode == 130
    assert not run.exists()
    assert os.listdir(tmp_path / "checkpoints") == []


def test_a_second_stop_does_not_wait_and_the_same_command_goes_on(trained: Path, tmp_path: Path, run: Run) -> None:
    with subprocess.Popen((*TRAIN, "--save-every", "0"), cwd=tmp_path, env=environment()) as process:
        wait_for(run.best, process)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
    assert process.returncode in (143, -signal.SIGTERM)  # the second one may come when Python is at its end
    assert subprocess.run(TRAIN, cwd=tmp_path, env=environment(), check=False).returncode == 0
    assert same_files(run, Run(trained / "checkpoints/small"))
