"""Training through the real command: what it writes, how it stops and goes on."""

from __future__ import annotations

import csv
import dataclasses
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, Command, environment, run_charrnn, same_files
from faults import SHIMS

from charrnn.network.cells import CELLS
from charrnn.network.network import Network
from charrnn.planning.schedule import PATIENCE
from charrnn.runs import checkpoint, history
from charrnn.runs.folder import Run
from charrnn.runs.history import Report
from charrnn.text.corpus import read_corpus
from charrnn.text.reading import open_files
from charrnn.text.vocabulary import Vocabulary
from charrnn.text.windows import WARM_UP

COLUMNS = ["step", "epoch", "train_loss", "val_loss", "learning_rate", "seconds", "chars_per_second"]


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "history.csv", newline="") as file:
        reader = csv.DictReader(file)
        assert reader.fieldnames == COLUMNS
        return list(reader)


def without_clock(folder: Path) -> list[tuple[str, ...]]:
    return [tuple(row[column] for column in COLUMNS[:5]) for row in rows(folder)]


# --- what a run leaves -----------------------------------------------------------------------


def test_several_updates_at_once_as_on_a_gpu_change_nothing(trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "small.txt", tmp_path)
    code = (
        "import dataclasses\n"
        "from charrnn.training import loop\n"
        "choose = loop.choose_layout\n"
        "loop.choose_layout = lambda *given: dataclasses.replace(choose(*given), at_once=16)\n"
        "from charrnn.cli.main import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code, "train", "small.txt", *SMALL, "--epochs", "4"]
    # NumPy is imported before the command sets its threads.
    env = environment() | {"OPENBLAS_NUM_THREADS": "1"}
    subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=True)
    assert same_files(Run(tmp_path / "checkpoints/small"), Run(trained / "checkpoints/small"))


def test_a_run_learns_and_leaves_its_three_files(trained: Path) -> None:
    folder = trained / "checkpoints" / "small"
    assert sorted(os.listdir(folder)) == ["best.safetensors", "history.csv", "last.safetensors"]
    history = rows(folder)
    losses = [float(row["val_loss"]) for row in history]
    assert losses[-1] < losses[0] < math.log(98)
    assert min(losses) < 2.8  # the letters' frequencies alone need 3
    last, best = checkpoint.load(folder / "last.safetensors"), checkpoint.load(folder / "best.safetensors")
    assert last.progress.step == last.progress.total_steps == int(history[-1]["step"])
    assert best.progress.best_loss == pytest.approx(min(losses), abs=1e-6)
    assert best.training == {}
    assert last.progress.finished


def test_the_final_figure_is_one_sequential_pass_over_the_whole_part(trained: Path) -> None:
    best = checkpoint.load(trained / "checkpoints" / "small" / "best.safetensors")
    corpus = read_corpus(open_files([str(trained / "small.txt")]))
    start = corpus.validation_start
    network = Network(best.config, best.weights)
    logarithms, _ = network.log_probabilities(corpus.ids[start - 1 - WARM_UP :], network.zero_state())
    assert best.progress.final_loss == pytest.approx(-logarithms[WARM_UP:].mean(), rel=1e-6)
    assert best.progress.final_characters == len(corpus.ids) - start
    # It differs from the parallel streams' figure by their cold starts only.
    assert best.progress.final_loss == pytest.approx(best.progress.best_loss, abs=0.1)


@pytest.mark.parametrize(
    ("precision", "batch_size"), [("float32", "8"), ("bfloat16", "24")]
)  # one part; several, side by side, on a machine with cores
def test_the_same_command_twice_gives_the_same_bytes(
    charrnn: Command, tmp_path: Path, tales: str, precision: str, batch_size: str
) -> None:
    (tmp_path / "small.txt").write_text(tales)
    for folder in ("a", "b"):
        options = ("--epochs", "2", "--dropout", "0.2", "--layers", "2", "--checkpoints-dir", folder)
        chosen = ("--precision", precision, "--batch-size", batch_size)
        assert charrnn("train", "small.txt", *SMALL, *options, *chosen).returncode == 0
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "a/small" / name).read_bytes() == (tmp_path / "b/small" / name).read_bytes()
    saved = checkpoint.load(tmp_path / "a/small/last.safetensors").progress
    assert saved.precision == precision


def test_the_precision_is_reported_and_kept(tmp_path: Path, charrnn: Command, tales: str) -> None:
    (tmp_path / "small.txt").write_text(tales)
    process = start(tmp_path, *SMALL, "--device", "cpu", "--precision", "auto", "--epochs", "8")
    folder = tmp_path / "checkpoints/small"
    wait_for_step(folder, 60)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    precision = checkpoint.load(folder / "last.safetensors").progress.precision
    assert precision in ("float32", "bfloat16")
    assert f" in {precision}\n" in stderr
    assert f" in {precision}\n" in charrnn("train", "small.txt", "--device", "cpu").stderr


def test_a_run_that_nobody_gave_an_end_ends_when_the_validation_loss_no_longer_falls(
    tmp_path: Path, charrnn: Command
) -> None:
    """Letters at random: what is learned of them is wrong of the next ones."""
    (tmp_path / "noise.txt").write_text("".join(random.Random(1).choices("abcdefgh", k=1500)))
    result = charrnn("train", "noise.txt", "--units", "64", "--dropout", "0", "--learning-rate", "0.02")
    assert result.returncode == 0, result.stderr
    assert "chosen from the size of the text" in result.stderr
    last = checkpoint.load(tmp_path / "checkpoints/noise/last.safetensors").progress
    assert last.best_step is not None
    assert last.step == last.best_step + PATIENCE * last.validate_every < last.total_steps
    assert f"has not fallen since step {last.best_step:,}" in result.stderr
    assert f"finished: {last.step:,} steps" in charrnn("train", "noise.txt").stderr
    result = charrnn("train", "noise.txt", "--epochs", "3")
    assert "ran with a training time chosen by charrnn, not --epochs 3" in result.stderr


# --- stopping and going on -------------------------------------------------------------------


def start(folder: Path, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "charrnn", "train", "small.txt", "--save-every", "0.1", *args],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def wait_for_step(folder: Path, step: int, timeout: float = 60) -> None:
    """Wait until a run has saved a validation at this step or after it."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if (folder / "history.csv").exists() and any(int(row["step"]) >= step for row in rows(folder)):
            return
        time.sleep(0.01)
    raise AssertionError("the run did not get there in time")


EIGHT_EPOCHS = (*SMALL, "--epochs", "8", "--dropout", "0.2", "--seed", "3")


def stop_half_way(folder: Path, tales: str, stop: signal.Signals) -> tuple[int, str]:
    """Train in a folder, stop the run, and return its exit code and what it wrote to stderr."""
    (folder / "small.txt").write_text(tales)
    process = start(folder, *EIGHT_EPOCHS)
    wait_for_step(folder / "checkpoints/small", 100)
    process.send_signal(stop)
    _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tales: str) -> Path:
    """The folder of a run of eight epochs that nothing stopped. Not to be written to."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "small.txt").write_text(tales)
    assert run_charrnn("train", "small.txt", *EIGHT_EPOCHS, cwd=folder).returncode == 0
    return folder / "checkpoints/small"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, tales: str) -> Path:
    """A folder with such a run that Ctrl-C stopped, and its text. Not to be written to."""
    folder = tmp_path_factory.mktemp("stopped")
    stop_half_way(folder, tales, signal.SIGINT)
    return folder


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_stopped_run_continued_ends_in_the_same_bytes(
    tmp_path: Path, charrnn: Command, tales: str, whole: Path, stop: signal.Signals, code: int
) -> None:
    returncode, stderr = stop_half_way(tmp_path, tales, stop)
    assert returncode == code
    if stop != signal.SIGKILL:
        assert stderr.splitlines()[-1].endswith("continue with: charrnn train --save-every 0.1 small.txt")
    stopped_at = checkpoint.load(tmp_path / "checkpoints/small/last.safetensors").progress
    assert 0 < stopped_at.step < stopped_at.total_steps

    result = charrnn("train", "small.txt")
    assert result.returncode == 0
    assert f"at step {stopped_at.step:,} of {stopped_at.total_steps:,}" in result.stderr
    assert "not byte-identical" not in result.stderr
    continued = tmp_path / "checkpoints/small"
    for name in ("best.safetensors", "last.safetensors"):
        assert (continued / name).read_bytes() == (whole / name).read_bytes()
    assert without_clock(continued) == without_clock(whole)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"threads": 1000}, "instead of 1,000: "), ({"arithmetic": "0" * 16}, "on another processor, ")],
)
def test_another_machine_goes_on_and_says_that_equal_bytes_are_not_promised(
    tmp_path: Path, charrnn: Command, trained: Path, change: dict[str, Any], words: str
) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    run = Run(tmp_path / "checkpoints/small")
    last = checkpoint.load(run.last)
    before_the_end = dataclasses.replace(last.progress, final_loss=None, **change)
    run.save(dataclasses.replace(last, progress=before_the_end), run.read_history(), None)
    result = charrnn("train", "small.txt")
    assert result.returncode == 0, result.stderr
    [line] = [line for line in result.stderr.splitlines() if "not byte-identical" in line]
    assert words in line
    assert checkpoint.load(run.last).progress == last.progress  # and names this machine from now on


def test_a_finished_run_says_so_and_changes_nothing(trained: Path, charrnn: Command) -> None:
    folder = trained / "checkpoints"
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (folder / "small").iterdir()}
    result = charrnn("train", trained / "small.txt", "--checkpoints-dir", folder)
    assert result.returncode == 0
    [line] = result.stderr.splitlines()
    assert "is finished" in line
    assert "--fresh" in line
    where = f"--checkpoints-dir {folder}"
    assert f"start a new run from its weights: charrnn train {where} --init-from small --name small-1 {trained}" in line
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (folder / "small").iterdir()}


def test_other_options_and_another_text_are_refused_by_name(trained: Path, charrnn: Command, tmp_path: Path) -> None:
    where = ("--checkpoints-dir", trained / "checkpoints")
    result = charrnn("train", trained / "small.txt", *where, "--units", "64", "--layers", "1", "--minutes", "2")
    assert result.returncode == 1
    assert "is finished; it ran with --units 32, --epochs 4, not --units 64, --minutes 2: " in result.stderr
    (tmp_path / "small.txt").write_text("Another text. " * 1000)
    result = charrnn("train", "small.txt", *where)
    assert result.returncode == 1
    assert "trains on another text (20,000 characters; small.txt has 14,000)" in result.stderr


def test_a_checkpoint_whose_vocabulary_is_not_its_texts_is_refused(charrnn: Command, trained: Path, run: Run) -> None:
    """A forged one: as many characters as the weights have rows for, but others."""
    last = checkpoint.load(Run(trained / "checkpoints/small").last)
    forged = dataclasses.replace(
        last,
        settings=dataclasses.replace(last.settings, vocabulary="text"),
        vocabulary=Vocabulary("text", "".join(map(chr, range(0x4E00, 0x4E00 + 98)))),
    )
    run.prepare()
    run.save(forged, [], None)
    result = charrnn("train", "small.txt")
    assert result.returncode == 1
    assert "trains on another text" in result.stderr


def test_fresh_starts_over_and_keeps_the_old_run(tmp_path: Path, charrnn: Command, tales: str) -> None:
    (tmp_path / "small.txt").write_text(tales[:4000])
    options = (*SMALL, "--epochs", "1")
    assert charrnn("train", "small.txt", *options).returncode == 0
    old = (tmp_path / "checkpoints/small/last.safetensors").read_bytes()
    result = charrnn("train", "small.txt", *options, "--seed", "9", "--fresh")
    assert result.returncode == 0
    assert "kept as checkpoints/small-1" in result.stderr
    assert (tmp_path / "checkpoints/small-1/last.safetensors").read_bytes() == old
    assert checkpoint.load(tmp_path / "checkpoints/small/last.safetensors").settings.seed == 9


def test_history_after_the_checkpoint_is_cut(tmp_path: Path, charrnn: Command, stopped: Path) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    run = Run(tmp_path / "checkpoints/small")
    ghost = Report(10**6, 1e4, 0.1, 0.1, 0.1, 1e5, 1.0)
    run.history.write_bytes(history.to_bytes([*run.read_history(), ghost]))
    assert charrnn("train", "small.txt").returncode == 0
    assert all(report.step < 10**6 for report in run.read_history())


def test_a_loss_that_is_no_number_ends_the_run_and_spares_what_was_saved(
    tmp_path: Path, charrnn: Command, tales: str
) -> None:
    (tmp_path / "small.txt").write_text(tales)
    result = charrnn("train", "small.txt", *SMALL, "--cell", "rnn", "--epochs", "3", "--learning-rate", "1e38")
    assert result.returncode == 1
    assert "no longer a number at step" in result.stderr.splitlines()[-1]
    assert "--learning-rate lower" in result.stderr
    checkpoint.load(tmp_path / "checkpoints/small/last.safetensors")  # raises if a weight is not finite
    assert (
        charrnn("train", "small.txt").stderr.splitlines()[-1] == result.stderr.splitlines()[-1]
    )  # again, and no worse


def test_weights_that_are_no_numbers_are_never_saved(tmp_path: Path, charrnn: Command, tales: str) -> None:
    """One step, after which nothing but the validation sees what became of the weights."""
    (tmp_path / "small.txt").write_text(tales[:3000])
    options = ("--units", "16", "--epochs", "1", "--batch-size", "32", "--seq-length", "64", "--learning-rate", "1e38")
    for _ in range(2):
        result = charrnn("train", "small.txt", *options)
        assert result.returncode == 1
        assert "no longer a number at step 1" in result.stderr.splitlines()[-1]


def test_a_loss_that_explodes_ends_the_run_and_spares_what_was_saved(
    tmp_path: Path, charrnn: Command, tales: str
) -> None:
    (tmp_path / "small.txt").write_text(tales)
    options = ("--cell", "lstm", "--epochs", "24", "--learning-rate", "15", "--save-every", "0")
    result = charrnn("train", "small.txt", *SMALL, *options)
    assert result.returncode == 1
    [line] = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    loss, step = re.search(
        r"rose to ([\d.]+) nats per character.* at step (\d+);.* --learning-rate lower", line
    ).groups()
    assert float(loss) > 3 * math.log(98)
    run = Run(tmp_path / "checkpoints/small")
    reports = run.read_history()
    assert checkpoint.load(run.best).progress.best_loss == pytest.approx(min(report.val_loss for report in reports))
    assert max(reports[-1].step, checkpoint.load(run.last).progress.step) < int(step)


def test_a_loss_that_explodes_while_the_speed_is_measured_leaves_nothing(
    tmp_path: Path, charrnn: Command, tales: str
) -> None:
    (tmp_path / "small.txt").write_text(tales)
    result = charrnn("train", "small.txt", *SMALL, "--cell", "rnn", "--minutes", "1", "--learning-rate", "1e38")
    assert result.returncode == 1
    assert "nothing is saved: try again with a --learning-rate lower than 1e+38" in result.stderr.splitlines()[-1]
    assert os.listdir(tmp_path / "checkpoints") == []


# --- options ---------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [None, "nonsense"])
def test_a_history_that_is_lost_or_damaged_does_not_stop_the_run(
    tmp_path: Path, charrnn: Command, stopped: Path, damage: str | None
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "checkpoints/small"
    (folder / "history.csv").unlink()
    if damage:
        (folder / "history.csv").write_text(damage)
    result = charrnn("train", "small.txt")
    assert result.returncode == 0
    assert "starts a new one, without the earlier rows" in result.stderr
    assert len(rows(folder)) > 1


def test_a_second_trainer_of_a_run_is_refused_and_a_killed_ones_lock_is_no_obstacle(
    tmp_path: Path, charrnn: Command, tales: str
) -> None:
    (tmp_path / "small.txt").write_text(tales)
    process = start(tmp_path, *SMALL, "--epochs", "2000")
    folder = tmp_path / "checkpoints/small"
    deadline = time.monotonic() + 60
    while not (folder / "last.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    for more in ((), ("--fresh",)):
        result = charrnn("train", "small.txt", *more)
        assert result.returncode == 1
        assert f"is being trained by another process (id {process.pid})" in result.stderr
    process.kill()
    process.communicate()
    assert not (tmp_path / "checkpoints/small-1").exists()
    result = charrnn("train", "small.txt", *SMALL, "--epochs", "1", "--fresh")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("cell", sorted(CELLS.keys() - {"lstm"}))
def test_other_cells_train_and_sample(tmp_path: Path, charrnn: Command, tales: str, cell: str) -> None:
    (tmp_path / "small.txt").write_text(tales[:6000])
    result = charrnn("train", "small.txt", *SMALL, "--epochs", "2", "--cell", cell, "--layers", "2")
    assert result.returncode == 0, result.stderr
    assert f"2 x 32 {CELLS[cell].TITLE}" in result.stderr
    assert len(charrnn("sample", "--prime", "The ", "--length", "30", "--seed", "1").stdout) == 34


def test_minutes_are_kept(tmp_path: Path, charrnn: Command, tales: str) -> None:
    (tmp_path / "small.txt").write_text(tales)
    env = {"PYTHONPATH": str(SHIMS), "CLOCK_OF_READINGS": "0.005"}
    result = charrnn("train", "small.txt", *SMALL, "--minutes", "0.15", **env)
    assert result.returncode == 0, result.stderr
    # Nine by the clock; it is read more often in an update of the run than in those that measure the speed.
    assert 8 < Run(tmp_path / "checkpoints/small").read_history()[-1].seconds < 30
    saved = checkpoint.load(tmp_path / "checkpoints/small/last.safetensors")
    assert saved.settings.minutes == 0.15
    assert saved.settings.epochs is None
    assert saved.progress.step == saved.progress.total_steps > 20


def test_a_file_of_twenty_lines_trains_and_a_shorter_one_is_told_the_minimum(tmp_path: Path, charrnn: Command) -> None:
    (tmp_path / "short.txt").write_text("A short line.\n" * 20)
    assert charrnn("train", "short.txt", "--epochs", "1").returncode == 0
    result = charrnn("train", "short.txt", "--epochs", "1", "--name", "x", "--batch-size", "64", "--seq-length", "100")
    assert result.returncode == 1
    assert "needs at least 7,112 characters; lower --batch-size or --seq-length" in result.stderr
    (tmp_path / "short.txt").write_text("A short line.\n" * 508)  # 7,112 characters
    result = charrnn(
        "train", "short.txt", "--epochs", "1", "--units", "8", "--batch-size", "64", "--seq-length", "100", "--fresh"
    )
    assert result.returncode == 0, result.stderr


def test_a_validation_loss_above_that_of_guessing_is_reported(tmp_path: Path, charrnn: Command) -> None:
    """The last tenth is in letters that the rest does not have."""
    (tmp_path / "unlike.txt").write_text("the same words all over and over again, " * 200 + "ZYXWVUTSRQPONM" * 50)
    result = charrnn("train", "unlike.txt", *SMALL, "--epochs", "6")
    assert result.returncode == 0, result.stderr
    assert (
        "of the characters in the last tenth of the text, the validation part, never occur before it" in result.stderr
    )
    says = "the validation loss stays above 4.585 nats, the loss of guessing: the last tenth of the text"
    assert result.stderr.count(says) == 1


def test_standard_input_is_read_and_needs_a_name(tmp_path: Path, charrnn: Command, tales: str) -> None:
    result = charrnn("train", "-", input=tales[:3000])
    assert result.returncode == 2
    assert "--name" in result.stderr
    result = charrnn("train", "-", "--name", "piped", *SMALL, "--epochs", "1", input=tales[:3000])
    assert result.returncode == 0
    assert (tmp_path / "checkpoints/piped/best.safetensors").exists()


def test_raw_bytes_train_and_sample(tmp_path: Path, charrnn: Command) -> None:
    (tmp_path / "noise.bin").write_bytes("žluťoučký kůň \0".encode() * 300)
    result = charrnn("train", "noise.bin", "--vocabulary", "bytes", *SMALL, "--epochs", "80")
    assert result.returncode == 0, result.stderr
    result = charrnn("sample", "--prime", "žluť", "--length", "60", "--temperature", "0")
    assert result.stdout.startswith("žluť")
    assert "\ufffd" not in result.stdout[:20]


def test_a_gpu_that_is_not_there_is_an_error_that_says_how_to_get_one(
    tmp_path: Path, charrnn: Command, tales: str
) -> None:
    from charrnn.training.backend import tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    (tmp_path / "small.txt").write_text(tales)
    result = charrnn("train", "small.txt", "--device", "gpu")
    assert result.returncode == 1
    assert "charrnn[cuda]" in result.stderr
    assert not (tmp_path / "checkpoints/small/last.safetensors").exists()


def test_nothing_but_our_lines_reaches_stderr(tmp_path: Path, charrnn: Command, tales: str) -> None:
    (tmp_path / "small.txt").write_text(tales[:3000])
    result = charrnn("train", "small.txt", *SMALL, "--epochs", "1")
    expected = ("small.txt: ", "training 1 x 32 coupled LSTM", "epoch ", "validation loss over all", "sample from it")
    assert all(line.startswith(expected) for line in result.stderr.splitlines()), result.stderr
    assert result.stdout == ""
