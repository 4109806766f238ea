"""Runs on file systems that go away, have no locks, or cannot do all that a save asks for."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import SMALL, Command, environment, same_files
from faults import SHIMS

from charrnn.runs.folder import Run

TRAIN = ("train", "small.txt", *SMALL, "--epochs", "4")


@contextmanager
def training(folder: Path, *more: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """The training, as soon as it has validated once."""
    run = Run(folder / "checkpoints/small")
    with subprocess.Popen(
        [sys.executable, "-m", "charrnn", *TRAIN, *more],
        cwd=folder, env=environment() | env, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while not run.best.exists():
            assert process.poll() is None
            time.sleep(0.002)
        yield process


# --- the folder of a run goes away -----------------------------------------------------------


@pytest.mark.parametrize("what", ["renamed", "all runs deleted"])
def test_a_folder_that_goes_away_is_made_again_with_all_that_was_reached(
    trained: Path, tmp_path: Path, run: Run, what: str
) -> None:
    with training(tmp_path, "--save-every", "0") as process:
        folder = run.folder.parent if what.startswith("all") else run.folder
        while folder.exists():
            try:
                folder.rename(tmp_path / "moved") if what == "renamed" else shutil.rmtree(folder)
            except OSError:  # a save came in between
                continue
            break
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert "sample from it with" in said
    assert same_files(run, Run(trained / "checkpoints/small"))


@pytest.mark.skipif(os.name == "nt", reason="signals as Unix has them")
def test_where_the_folder_cannot_be_made_again_the_end_says_what_is_true(tmp_path: Path, run: Run) -> None:
    """The end claims neither that something is kept nor that the same command goes on from it."""
    with training(tmp_path, "--save-every", "1000") as process:
        run.folder.parent.rename(tmp_path / "moved")
        run.folder.parent.write_text("a file in its place")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        last = process.stderr.read().splitlines()[-1]
    assert process.returncode == 1
    assert f"nothing is kept, since {Path('checkpoints/small')} is gone or cannot be reached" in last
    assert last.endswith("fix this, and the same command starts over")


def test_best_weights_that_are_lost_while_a_run_is_stopped_do_not_end_it(tmp_path: Path, run: Run) -> None:
    with training(tmp_path, "--save-every", "0") as process:
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 143
    run.best.write_bytes(run.best.read_bytes()[:-1])
    result = subprocess.run(
        [sys.executable, "-m", "charrnn", *TRAIN],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "best.safetensors: truncated: the file ends before its last tensor does; the best weights are lost" in (
        result.stderr
    )
    assert run.best.exists()


# --- what a file system cannot do ------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_said_once_and_trained_on(
    trained: Path, charrnn: Command, run: Run, error: int
) -> None:
    result = charrnn(*TRAIN, PYTHONPATH=str(SHIMS), ALWAYS_FAILS=f"fcntl.flock:{error}")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("cannot be locked on this file system") == 1
    assert same_files(run, Run(trained / "checkpoints/small"))


@pytest.mark.parametrize("error", [errno.EINVAL])
def test_a_file_system_that_does_not_sync_is_said_once_and_trained_on(
    trained: Path, charrnn: Command, run: Run, error: int
) -> None:
    result = charrnn(*TRAIN, "--save-every", "0", PYTHONPATH=str(SHIMS), ALWAYS_FAILS=f"os.fsync:{error}")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("does not sync files") == 1
    assert same_files(run, Run(trained / "checkpoints/small"))


@pytest.mark.parametrize("error", [errno.EPERM, errno.EINVAL, errno.EXDEV])
def test_a_rename_that_is_refused_names_another_place_and_not_room(charrnn: Command, run: Run, error: int) -> None:
    result = charrnn(*TRAIN, PYTHONPATH=str(SHIMS), ALWAYS_FAILS=f"os.replace:{error}")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.endswith("the training did not start: choose another folder with --checkpoints-dir")
    assert not run.exists()


# --- what is refused before TensorFlow is loaded ----------------------------------------------


@pytest.fixture
def without_tensorflow(tmp_path: Path) -> dict[str, str]:
    """The environment of a command that must not load TensorFlow."""
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "tensorflow.py").write_text("raise SystemExit('TensorFlow is loaded')")
    return {"PYTHONPATH": str(tmp_path / "shadow")}


def refused(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode in (1, 2)
    assert "TensorFlow is loaded" not in result.stderr
    *_, last = result.stderr.splitlines()
    assert last.startswith("Error: ")
    return last


def test_a_run_that_is_being_trained_is_refused_at_once(
    charrnn: Command, run: Run, without_tensorflow: dict[str, str]
) -> None:
    run.folder.mkdir(parents=True)
    with run.lock():
        last = refused(charrnn(*TRAIN, **without_tensorflow))
    assert f"is being trained by another process (id {os.getpid()})" in last


def test_a_link_that_leads_nowhere_is_refused_at_once(
    charrnn: Command, run: Run, tmp_path: Path, without_tensorflow: dict[str, str]
) -> None:
    (tmp_path / "checkpoints").symlink_to("/mnt/not/mounted")
    last = refused(charrnn(*TRAIN, **without_tensorflow))
    assert "checkpoints is a link to a folder that does not exist; choose another folder with --checkpoints-dir" in last


@pytest.mark.parametrize("length", [250, 300])
def test_a_name_too_long_for_the_file_system_is_refused_at_once(
    charrnn: Command, run: Run, without_tensorflow: dict[str, str], length: int
) -> None:
    """Of 250 bytes, with what is added to it for the lock."""
    last = refused(charrnn(*TRAIN, "--name", "x" * length, **without_tensorflow))
    assert "the name is too long for this file system: give the run a shorter one with --name" in last


def test_a_network_that_memory_cannot_hold_is_refused_at_once(
    charrnn: Command, run: Run, without_tensorflow: dict[str, str]
) -> None:
    last = refused(charrnn("train", "small.txt", "--units", "65536", "--layers", "100", **without_tensorflow))
    assert "a network of 2,564,134,148,322 weights needs 47,760.7 GiB of memory to train, but only " in last
    assert last.endswith(": lower --units or --layers")


def test_a_limit_of_the_process_counts_as_memory(tmp_path: Path, run: Run, without_tensorflow: dict[str, str]) -> None:
    resource = pytest.importorskip("resource", reason="limits as Unix has them")
    limit = 2 << 30
    result = subprocess.run(
        [sys.executable, "-m", "charrnn", "train", "small.txt", "--units", "1024", "--embedding", "50000"],
        cwd=tmp_path, env=environment() | without_tensorflow, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    last = refused(result)
    assert "only 2.0 GiB are available: lower --units" in last
