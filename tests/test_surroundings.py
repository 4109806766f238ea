"""Training where its surroundings fail: streams, the clock, the terminal. The end is always the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, environment, on_terminal, run_charrnn, same_files
from faults import SHIMS

from charrnn.runs import checkpoint
from charrnn.runs.folder import Run

TRAIN = (sys.executable, "-m", "charrnn", "train", "small.txt", *SMALL, "--epochs", "4")


@pytest.fixture
def hostile(tmp_path: Path) -> dict[str, str]:
    """All at once: what users have set or written for libraries, and what each of them alone broke or changed."""
    home = tmp_path / "home"
    for name, content in {
        ".keras/keras.json": b'{"floatx": "float16", "epsilon": 1, "backend": "jax", "image_data_format": "x"}',
        ".config/matplotlib/matplotlibrc": b"\xd7 not UTF-8",
        ".config/matplotlib/stylelib/x.mplstyle": b"\xd7 not UTF-8",
        "../matplotlibrc": b"\xd7 not UTF-8",
    }.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content)
    return {
        "HOME": str(home), "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "KERAS_BACKEND": "torch", "KERAS_HOME": str(home / ".keras"), "KERAS_MAX_EPOCHS": "junk",
        "KERAS_NNX_ENABLED": "1", "TF_XLA_FLAGS": "junk", "XLA_FLAGS": "junk", "TF_DETERMINISTIC_OPS": "junk",
        "TF_FUNCTION_JIT_COMPILE_DEFAULT": "1", "TF_ENABLED_DEVICE_TYPES": "junk", "TF_ENABLE_ONEDNN_OPTS": "junk",
        "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": "/nowhere", "TF_FORWARD_COMPATIBILITY_DELTA_DAYS": "junk",
        "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS": "1", "TF_USE_MODULAR_FILESYSTEM": "1",
        "ONEDNN_VERBOSE": "1", "ONEDNN_MAX_CPU_ISA": "SSE41", "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "cpp",
        "NPY_PROMOTION_STATE": "legacy", "NPY_DISABLE_CPU_FEATURES": "X86_V2", "NUMPY_MADVISE_HUGEPAGE": "junk",
        "OPENBLAS_VERBOSE": "2", "OPENBLAS_NUM_THREADS": "junk", "SOURCE_DATE_EPOCH": "junk", "TMPDIR": "/nowhere",
        "TF_CPP_MIN_LOG_LEVEL": "",
        "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "ascii:strict", "PYTHONSAFEPATH": "1",
        "_CHARRNN_COMPLETE": "junk",
        "COLUMNS": "²", "LINES": "0", "FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "LC_ALL": "xx_XX.UTF-8",
    }  # fmt: skip


def test_what_users_configure_of_libraries_neither_breaks_nor_changes_anything(
    trained: Path, tmp_path: Path, run: Run, hostile: dict[str, str]
) -> None:
    """The same checkpoints, text and picture, and not a line more than without."""

    def charrnn(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [Path(sys.executable).parent / "charrnn", *args]
        return subprocess.run(
            command, cwd=tmp_path, env=environment() | env, capture_output=True, text=True, encoding="utf-8", check=True
        )

    result = charrnn("train", "small.txt", *SMALL, "--epochs", "4", **hostile)
    assert result.stdout == ""
    expected = ("small.txt: 20", "training 1", "epoch ", "validation loss", "sample from it")
    assert all(line.startswith(expected) for line in result.stderr.splitlines()), result.stderr
    assert same_files(run, Run(trained / "checkpoints/small"))
    for args in (("sample", "--seed", "1", "--count", "3", "--json"), ("plot-loss", "--out", "x.pdf")):
        result = charrnn(*args, **hostile)
        picture = (tmp_path / "x.pdf").read_bytes() if "plot-loss" in args else b""
        (tmp_path / "matplotlibrc").rename(tmp_path / "aside")
        plain = charrnn(*args)
        (tmp_path / "aside").rename(tmp_path / "matplotlibrc")
        assert (result.stdout, result.stderr) == (plain.stdout, plain.stderr)
        assert not picture or picture == (tmp_path / "x.pdf").read_bytes()


def test_what_a_machine_needs_is_honoured(trained: Path, tmp_path: Path) -> None:
    """How many threads BLAS has, and which of TensorFlow's two sets of kernels computes."""
    code = "import os; {}; print(os.environ['OPENBLAS_NUM_THREADS'], os.environ.get('TF_ENABLE_ONEDNN_OPTS'))"
    for statement, given, found in (
        ("import charrnn.surroundings as s; s.prepare_for_the_command()", {}, "1 None"),
        ("import charrnn.surroundings as s; s.prepare_for_the_command()", {"OPENBLAS_NUM_THREADS": "3"}, "3 None"),
        ("import charrnn.surroundings as s; s.prepare_for_the_command()", {"OPENBLAS_NUM_THREADS": "0"}, "1 None"),
        ("import charrnn.training.backend", {"OPENBLAS_NUM_THREADS": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}, "3 0"),
    ):
        result = subprocess.run(
            [sys.executable, "-c", code.format(statement)],
            cwd=tmp_path, env=environment() | given, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert result.stdout == f"{found}\n"


@pytest.mark.parametrize("args", [("train", "small.txt", *SMALL, "--epochs", "1"), ("plot-loss", "--out", "x.svg")])
def test_a_command_in_a_notebook_works(trained: Path, tmp_path: Path, args: tuple[str, ...]) -> None:
    """With what its kernel sets, at the terminal that it gives to a command."""
    shutil.copytree(trained, tmp_path / "notebook")
    if args[0] == "train":
        shutil.rmtree(tmp_path / "notebook" / "checkpoints")
    output, code = on_terminal(
        tmp_path / "notebook", *args, MPLBACKEND="module://matplotlib_inline.backend_inline", JPY_PARENT_PID="1",
        TERM="xterm-color", CLICOLOR="1", FORCE_COLOR="1", CLICOLOR_FORCE="1", PAGER="cat", GIT_PAGER="cat",
    )  # fmt: skip
    assert code == 0, output
    assert "Error" not in output
    assert "\x1b" not in output


@pytest.mark.skipif(os.name == "nt", reason="a limit on the size of files needs Unix")
def test_a_command_that_can_write_no_temporary_file_says_what_it_could_not_write(tmp_path: Path, run: Run) -> None:
    command = f"ulimit -f 0; '{sys.executable}' -m charrnn train small.txt --units 8 --epochs 1"
    result = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"Error: {run.history.relative_to(tmp_path)}: cannot be written")


def test_a_file_with_the_name_of_a_module_is_not_run(trained: Path, tmp_path: Path) -> None:
    for module in ("random", "numpy", "json", "click"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('a file of the user')")
    result = run_charrnn("sample", "--checkpoints-dir", trained / "checkpoints", "--length", "5", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("value", ["junk", "bash_junk", "bash_complete", "tcsh_source", ""])
def test_a_completion_that_no_shell_asks_for_is_none(tmp_path: Path, value: str) -> None:
    result = run_charrnn("--version", cwd=tmp_path, _CHARRNN_COMPLETE=value)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("charrnn ")


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


def test_a_closed_terminal_stops_the_training_which_is_saved(trained: Path, tmp_path: Path, run: Run) -> None:
    pexpect = pytest.importorskip("pexpect", reason="a terminal to drive needs Unix")
    child = pexpect.spawn(
        TRAIN[0], [*TRAIN[1:], "--save-every", "0"], cwd=str(tmp_path), env=environment() | {"TERM": "xterm-256color"},
        encoding="utf-8", timeout=60,
    )  # fmt: skip
    child.expect("chars/s")
    os.kill(child.pid, signal.SIGHUP)  # from the shell; another one comes from the terminal
    os.close(child.child_fd)
    _, status = os.waitpid(child.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    saved = checkpoint.load(run.last).progress
    assert 0 < saved.step < saved.total_steps
    subprocess.run(TRAIN, cwd=tmp_path, env=environment(), check=True, capture_output=True)
    assert same_files(run, Run(trained / "checkpoints/small"))


def test_a_stop_while_the_speed_is_measured_acts_at_once(tmp_path: Path, run: Run) -> None:
    command = (*TRAIN[:5], "--units", "256", "--minutes", "1")
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "measuring the speed" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().startswith("stopped during setup: nothing is saved yet")
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
