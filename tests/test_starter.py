"""The starter: text before any training, and runs that begin with what it knows."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, Command, environment, same_files

import charrnn as package
from charrnn.planning.job import Call, Job, plan_training
from charrnn.runs import checkpoint, starter
from charrnn.runs.folder import Run
from charrnn.text.windows import steps_per_epoch

STEP = ("--device", "cpu", "--precision", "float32", "--epochs", "1")
PANGRAM = "The quick brown fox"


def plan(folder: Path, text: str, *, expect: bool = True, **given: object) -> tuple[Job, list[str]]:
    """Plan a run on a text, and check whether it starts from the starter."""
    (folder / "x.txt").write_text(text, encoding="utf-8")
    notes: list[str] = []
    job = plan_training(Call([str(folder / "x.txt")], given, str(folder / "runs"), device="cpu"), notes.append)
    assert isinstance(job, Job)
    assert (job.settings.source == starter.NAME) == expect
    assert (job.settings.init_from is not None) == expect
    return job, notes


# --- sampling --------------------------------------------------------------------------------------


def test_there_is_text_before_any_training(tmp_path: Path, charrnn: Command) -> None:
    result = charrnn("sample", "--prime", PANGRAM, "--seed", "1", "--length", "200")
    assert result.returncode == 0
    assert result.stdout.startswith(PANGRAM)
    assert len(result.stdout.split()) > 30
    assert result.stderr == (
        f"no runs in {tmp_path / 'checkpoints'} yet: train one with charrnn train FILE; charrnn uses its starter, a "
        "model of English books\n"
    )
    assert list(tmp_path.iterdir()) == []
    assert charrnn("sample", "--prime", PANGRAM, "--seed", "1", "--length", "200").stdout == result.stdout


def test_its_name_stands_for_it_everywhere(trained: Path, tmp_path: Path, charrnn: Command) -> None:
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    shutil.copytree(tmp_path / "checkpoints/small", tmp_path / "checkpoints/starter")
    text = charrnn("sample", "--checkpoint", "starter", "--seed", "3", "--length", "100")
    assert (text.returncode, text.stderr) == (0, "")
    own = charrnn("sample", "--checkpoint", "./checkpoints/starter", "--seed", "3", "--length", "100").stdout
    assert own == charrnn("sample", "--checkpoint", "small", "--seed", "3", "--length", "100").stdout != text.stdout
    code = "import charrnn; print(''.join(charrnn.load('starter').generate(seed=3, length=100)), end='')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout == text.stdout
    (tmp_path / "x.txt").write_text("It was the best of times, it was the worst of times.\n" * 4)
    line = json.loads(charrnn("evaluate", "x.txt", "--checkpoint", "starter", "--json").stdout)
    assert line["nats_per_character"] < 1.2


# --- training --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, tales: str) -> tuple[Path, str]:
    """A folder with a finished run from the starter, checkpoints/a, and what the command said."""
    folder = tmp_path_factory.mktemp("begun")
    (folder / "a.txt").write_text(tales[:6000], encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "charrnn", "train", "a.txt", *STEP],
        cwd=folder, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return folder, result.stderr


def test_a_run_starts_from_it_and_says_how_not_to(begun: tuple[Path, str], charrnn: Command) -> None:
    folder, said = begun
    assert "starting from the starter, which has read English books: 2 x 640 coupled LSTM, " in said
    assert " known, 0 new (--init-from none starts from nothing)\n" in said
    run = checkpoint.load(Run(folder / "checkpoints/a").best)
    source = checkpoint.load(starter.PATH)
    assert (run.settings.source, run.settings.init_from) == ("starter", checkpoint.checksum(source))
    assert run.progress.final_loss is not None
    assert run.progress.final_loss < 1.6
    line = charrnn("runs", "--checkpoints-dir", folder / "checkpoints").stdout.splitlines()[1]
    assert " starter " in line


def test_a_run_from_it_resumes_to_the_byte(begun: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = begun
    shutil.copy(folder / "a.txt", tmp_path)
    command = [sys.executable, "-m", "charrnn", "train", "a.txt", *STEP]
    with subprocess.Popen(
        [*command, "--save-every", "0"], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE
    ) as process:
        while process.poll() is None and not Run(tmp_path / "checkpoints/a").last.exists():
            time.sleep(0.01)
        process.terminate()
    assert process.returncode == 143
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True, capture_output=True)
    assert same_files(Run(folder / "checkpoints/a"), Run(tmp_path / "checkpoints/a"))


def test_minutes_beyond_the_passes_that_help_change_nothing(tmp_path: Path, charrnn: Command, tales: str) -> None:
    few, many = (plan(tmp_path, tales[:3000], minutes=minutes)[0] for minutes in (1.0, 50.0))
    assert few.settings == dataclasses.replace(many.settings, minutes=1.0)
    assert few.most_passes == many.most_passes == 2
    result = charrnn("train", "x.txt", "--minutes", "50")
    assert result.returncode == 0, result.stderr
    assert "updates are enough: after 2.0 passes, a network that can already read such a text begins" in result.stderr
    end = checkpoint.load(Run(tmp_path / "checkpoints/x").best)
    settings = end.settings
    per_pass = steps_per_epoch(end.corpus.training, settings.batch_size, settings.seq_length)
    assert end.progress.total_steps == 2 * per_pass


def test_the_shortest_run_is_still_validated(tmp_path: Path, charrnn: Command, tales: str) -> None:
    (tmp_path / "x.txt").write_text(tales[:3000], encoding="utf-8")
    result = charrnn("train", "x.txt", "--minutes", "50", "--batch-size", "16", "--seq-length", "128")
    assert result.returncode == 0, result.stderr
    assert "5 updates are enough" in result.stderr
    assert len(Run(tmp_path / "checkpoints/x").read_history()) > 0


def test_from_nothing_and_from_it_by_name(tmp_path: Path, tales: str) -> None:
    job, _ = plan(tmp_path, tales, expect=False, init_from="none")
    assert job.settings.units != 640
    job, _ = plan(tmp_path, "\u6f22\u5b57" * 2000, init_from="starter")
    assert job.settings.units == 640


@pytest.mark.parametrize(
    "given", [{"units": 640}, {"layers": 2}, {"cell": "coupled"}, {"embedding": 64}, {"vocabulary": "bytes"}]
)
def test_an_option_that_asks_for_another_network_starts_from_nothing(
    tmp_path: Path, tales: str, given: dict[str, object]
) -> None:
    plan(tmp_path, tales, expect=False, **given)


@pytest.mark.parametrize(
    "given", [{"vocabulary": "text"}, {"dropout": 0.2}, {"batch_size": 8}, {"minutes": 1.0}, {"learning_rate": 0.01}]
)
def test_every_other_option_keeps_it(tmp_path: Path, tales: str, given: dict[str, object]) -> None:
    job, _ = plan(tmp_path, tales, **given)
    for name, value in given.items():
        assert getattr(job.settings, name) == value


def test_an_accent_starts_like_the_letter_without_it(tmp_path: Path, tales: str) -> None:
    job, notes = plan(tmp_path, tales.replace("e", "\u00e9", 50) + "\u00e9\u201d" * 20)
    assert job.corpus.vocabulary.kind == "text"
    assert notes[-1].endswith(" known, 2 new (--init-from none starts from nothing)")
    assert job.source is not None
    fresh = {name: np.full_like(weight, 9) for name, weight in job.source.model.weights.items()}
    size = len(job.corpus.vocabulary)
    fresh |= {
        "embedding": np.full((size, 64), 9, np.float32),
        "softmax.kernel": np.full((640, size), 9, np.float32),
        "softmax.bias": np.full(size, 9, np.float32),
    }
    weights = job.source.initial_weights(job.corpus, fresh)
    new, old = (job.corpus.vocabulary.id_of(c) for c in "\u00e9e")
    assert (weights["embedding"][new] == weights["embedding"][old]).all()


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("emma\nolivia\nava\nisabella\n" * 200, "only 10 distinct characters"),
        ("".join(map(chr, range(0x4E00, 0x5200))) * 8, "many unknown characters"),
    ],
)
def test_a_text_with_another_alphabet_starts_from_nothing(tmp_path: Path, text: str, has: str) -> None:
    _, notes = plan(tmp_path, text, expect=False)
    assert notes[-1] == (
        f"starting from nothing, since this text has {has}, unlike the English books that the starter has read "
        "(--init-from starter starts from it all the same)"
    )


def test_code_starts_from_it_and_is_learned_as_from_nothing(tmp_path: Path, tales: str) -> None:
    """What the model can read is learned gently and not for long, unless passes are given."""
    prose, _ = plan(tmp_path, tales, minutes=5.0)
    code, _ = plan(tmp_path, Path(shutil.__file__).read_text(encoding="utf-8")[: len(tales)], minutes=5.0)
    assert code.settings.learning_rate == 0.0032 > 2 * prose.settings.learning_rate
    assert (prose.most_passes, code.most_passes) == (2, float("inf"))
    given, _ = plan(tmp_path, tales, epochs=9)
    assert given.most_passes == float("inf")


# --- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["starter", "none"])
def test_a_new_run_cannot_have_its_name_but_an_old_one_goes_on(
    trained: Path, tmp_path: Path, charrnn: Command, name: str
) -> None:
    shutil.copy(trained / "small.txt", tmp_path / f"{name}.txt")
    result = charrnn("train", f"{name}.txt")
    assert result.returncode == 2
    assert f"a new run cannot be called {name}" in result.stderr
    assert not (tmp_path / "checkpoints").exists()
    shutil.copytree(trained / "checkpoints/small", tmp_path / "checkpoints" / name)
    result = charrnn("train", f"{name}.txt")
    assert result.returncode == 0
    assert "is finished" in result.stderr
    result = charrnn(
        "train", trained / "small.txt", "--init-from", f"./checkpoints/{name}", "--epochs", "1", *SMALL[4:]
    )
    assert result.returncode == 0, result.stderr
    assert f"starting from checkpoints/{name}/best.safetensors" in result.stderr


# --- an installation without it --------------------------------------------------------------------


@pytest.fixture
def stripped(tmp_path: Path) -> dict[str, str]:
    """The environment of a charrnn that was installed without its starter."""
    shutil.copytree(
        Path(package.__file__).parent, tmp_path / "lib/charrnn", ignore=shutil.ignore_patterns("*.safetensors")
    )
    return {"PYTHONPATH": str(tmp_path / "lib")}


def test_without_its_file_charrnn_trains_from_nothing(
    stripped: dict[str, str], tmp_path: Path, charrnn: Command, tales: str
) -> None:
    for command in (("sample",), ("sample", "--checkpoint", "starter"), ("evaluate", "x.txt")):
        result = charrnn(*command, **stripped)
        assert result.returncode == 2, command
    (tmp_path / "x.txt").write_text(tales[:3000])
    result = charrnn("train", "x.txt", "--init-from", "starter", **stripped)
    assert result.returncode == 2
    assert "this charrnn was installed without its starter" in result.stderr
    result = charrnn("train", "x.txt", "--epochs", "1", **stripped)
    assert result.returncode == 0, result.stderr
    assert "starter" not in result.stderr
    assert checkpoint.load(Run(tmp_path / "checkpoints/x").best).settings.init_from is None


def test_a_damaged_one_says_what_to_do(stripped: dict[str, str], tmp_path: Path, charrnn: Command, tales: str) -> None:
    data = starter.PATH.read_bytes()
    (tmp_path / "lib/charrnn/starter.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    (tmp_path / "x.txt").write_text(tales[:3000])
    result = charrnn("train", "x.txt", **stripped)
    assert result.returncode == 1
    assert "starter.safetensors: damaged: the checksum differs: reinstall charrnn, or start from nothing with" in (
        result.stderr
    )


def test_it_is_small_of_half_width_and_without_a_training_state() -> None:
    assert os.path.getsize(starter.PATH) < 8_000_000
    model = checkpoint.load(starter.PATH)
    assert (model.weights_type, model.vocabulary.kind, model.vocabulary.has_boundary) == ("float16", "ascii", True)
    assert not model.training
