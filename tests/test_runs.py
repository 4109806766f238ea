"""A run's folder: finding it, its history, setting it aside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from charrnn import CharrnnError
from charrnn.runs import history
from charrnn.runs.folder import Run, all_runs, find_checkpoint, find_run, run_named
from charrnn.runs.history import Report

REPORTS = [Report(10, 0.5, 2.5, 2.4, 0.005, 1.25, 1000.0), Report(20, 1.0, 2.0, 2.1, 0.001, 2.5, 1100.0)]


def make(folder: Path, name: str, age: float, *files: str) -> Run:
    run = Run(folder / name)
    run.prepare()
    for file in files:
        path = run.folder / file
        path.write_bytes(b"")
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return run


def test_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = make(tmp_path, "a", 0)
    run.history.write_bytes(history.to_bytes([]))
    assert run.read_history() == []
    run.history.write_bytes(history.to_bytes(REPORTS))
    assert run.read_history() == REPORTS


COLUMNS = "step,epoch,train_loss,val_loss,learning_rate,seconds,chars_per_second\n"


@pytest.mark.parametrize(
    "text",
    [
        *("", "step,epoch\n1,2\n", "step\nx\n", "\x00\x01", "step,epoch,train_loss\n1,2\n"),
        COLUMNS + "10,0.5,2.5,2.4,0.005,1.25\n",
        COLUMNS + "10,0.5,2.5,2.4,0.005,1.25,1000,1\n",
        COLUMNS + "10,0.5,nan,2.4,0.005,1.25,1000\n",
        COLUMNS + "10,0.5,2.5,1e999,0.005,1.25,1000\n",
        COLUMNS + "10,0,2.5,2.4,0.005,1.25,1000\n",
        COLUMNS + "10,1e-300,2.5,2.4,0.005,1.25,1000\n",
        COLUMNS + "0,0.5,2.5,2.4,0.005,1.25,1000\n",
        COLUMNS + "9" * 5000 + ",0.5,2.5,2.4,0.005,1.25,1000\n",
        COLUMNS + "10,0.5,2.5,2.4,0.005,1.25,1000\n" * 2,
        COLUMNS + "".join(f"{step},{step},1,1,1,1,1\n" for step in range(1, 100_000)),
    ],
)
def test_a_damaged_history_is_said(tmp_path: Path, text: str) -> None:
    run = make(tmp_path, "a", 0)
    run.history.write_text(text)
    with pytest.raises(CharrnnError, match="damaged, or not a training history"):
        run.read_history()


def test_a_history_that_is_no_file_is_neither_waited_for_nor_read(tmp_path: Path) -> None:
    run = make(tmp_path, "a", 0)
    os.mkfifo(run.history)
    with pytest.raises(CharrnnError, match="Not a regular file"):
        run.read_history()
    run.history.unlink()
    run.history.write_bytes(b"")
    os.truncate(run.history, 1 << 40)  # which no memory holds
    with pytest.raises(CharrnnError, match="damaged, or not a training history"):
        run.read_history()


def test_a_history_that_is_not_there_yet_is_said(tmp_path: Path) -> None:
    with pytest.raises(CharrnnError, match="with one row for each validation"):
        make(tmp_path, "a", 0).read_history()


def test_the_run_last_trained_is_found_without_a_name(tmp_path: Path) -> None:
    make(tmp_path, "old", 100, "last.safetensors", "best.safetensors")
    newest = make(tmp_path, "new", 0, "last.safetensors")
    make(tmp_path, "not-a-run", 0)
    assert [run.name for run in all_runs(str(tmp_path))] == ["new", "old"]
    assert find_run(None, str(tmp_path)) == newest
    assert find_checkpoint(None, str(tmp_path)) == newest.last  # nothing was validated yet


def test_a_run_is_found_by_name_and_by_path_and_a_file_by_path(tmp_path: Path) -> None:
    run = make(tmp_path, "x", 0, "last.safetensors", "best.safetensors")
    assert find_checkpoint("x", str(tmp_path)) == run.best
    assert find_checkpoint(str(run.folder), "elsewhere") == run.best
    assert find_checkpoint(str(run.last), "elsewhere") == run.last
    assert find_checkpoint("gone.safetensors", "elsewhere") == Path("gone.safetensors")


def test_what_is_not_there_is_answered_with_what_is(tmp_path: Path) -> None:
    with pytest.raises(CharrnnError, match="train one with charrnn train"):
        find_run(None, str(tmp_path / "absent"))
    make(tmp_path, "one", 0, "best.safetensors")
    with pytest.raises(CharrnnError, match=r"two: no such run in /.* \(available: one\)"):
        find_run("two", str(tmp_path))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "-x", "a\0b"])
def test_names_that_cannot_be_a_folders_are_refused(name: str) -> None:
    with pytest.raises(CharrnnError, match="--name"):
        run_named(name, "checkpoints")


def test_set_aside_takes_the_first_free_name(tmp_path: Path) -> None:
    for expected in ("x-1", "x-2"):
        make(tmp_path, "x", 0, "last.safetensors")
        assert Run(tmp_path / "x").set_aside().name == expected
    assert not (tmp_path / "x").exists()


def test_a_run_is_found_before_a_text_file_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("input").write_text("a text file without an ending")
    assert find_checkpoint("input", "runs") == Path("input")
    run = make(Path("runs"), "input", 0, "best.safetensors")
    assert find_checkpoint("input", "runs") == run.best


def test_a_run_has_one_trainer_at_a_time(tmp_path: Path) -> None:
    run = Run(tmp_path / "x")
    refused = rf"another process \(id {os.getpid()}\)"
    with run.lock(), pytest.raises(CharrnnError, match=refused), Run(run.folder).lock():
        pass
    with run.lock():  # it is free again
        pass
    assert os.listdir(tmp_path) == []


def test_prepare_clears_away_what_a_killed_save_left_and_nothing_else(tmp_path: Path) -> None:
    run = make(tmp_path, "x", 0, "last.safetensors", ".last.safetensors.123.tmp", "notes.txt", ".mine.tmp")
    run.prepare()
    assert sorted(os.listdir(run.folder)) == [".mine.tmp", "last.safetensors", "notes.txt"]
