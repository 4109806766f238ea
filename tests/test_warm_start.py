"""Starting from what another run learned: `charrnn train --init-from`, through the real command."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, Command, chain_model, environment, same_files

from charrnn.network.network import Network
from charrnn.planning.job import Call, Job, plan_training
from charrnn.runs import checkpoint
from charrnn.runs.folder import Run
from charrnn.runs.records import Checkpoint
from charrnn.text.corpus import Reading, read_corpus
from charrnn.text.reading import open_files
from charrnn.text.vocabulary import PRINTABLE_ASCII, Vocabulary

TRAINING = ("--batch-size", "8", "--seq-length", "32", "--dropout", "0", "--precision", "float32")
UNCHANGED = (*TRAINING, "--epochs", "1", "--learning-rate", "1e-30")
"""Of a training that ends with the weights that it began with: no update is large enough to change a bit."""
FRENCH = "L\u2019été, à la forêt, l'élève où naît le cœur. Noël! Ça va, garçon? «Déjà vu.» § λ€λ\n"


@pytest.fixture
def source(trained: Path, tmp_path: Path) -> Run:
    """A run to start from, `small`, of a model of ASCII; beside it checkpoint files of models of other kinds."""
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    for vocabulary in (Vocabulary("text", "abc é\n"), Vocabulary.bytes()):
        data = checkpoint.to_bytes(chain_model(vocabulary, "abc"))
        (tmp_path / f"{vocabulary.kind}.safetensors").write_bytes(data)
    return Run(tmp_path / "checkpoints/small")


def assert_taken_over(new: Checkpoint, old: Checkpoint) -> None:
    """Whatever the old model knows is in the new one, in the same bytes."""
    for name, weight in new.weights.items():
        if name.startswith("layer"):
            assert weight.tobytes() == old.weights[name].tobytes(), name
    for character in old.vocabulary.known_characters:
        a, b = new.vocabulary.id_of(character), old.vocabulary.id_of(character)
        assert new.weights["embedding"][a].tobytes() == old.weights["embedding"][b].tobytes()
        assert new.weights["softmax.kernel"][:, a].tobytes() == old.weights["softmax.kernel"][:, b].tobytes()
        assert new.weights["softmax.bias"][a].tobytes() == old.weights["softmax.bias"][b].tobytes()


# --- what is taken over ----------------------------------------------------------------------


def test_weights_are_taken_over_and_new_characters_added(
    tmp_path: Path, charrnn: Command, source: Run, tales: str
) -> None:
    """From a model of ASCII to French, and from that to English with one character more."""
    (tmp_path / "french.txt").write_text((FRENCH + tales[:200]) * 12, encoding="utf-8")
    result = charrnn("train", "french.txt", "--init-from", "small", *UNCHANGED)
    assert result.returncode == 0, result.stderr
    own = "".join(sorted({character for character in FRENCH if not character.isascii()}))
    known = len(set(tales))
    new = len(set(FRENCH + tales[:200]) - set(tales))
    said = (
        f"starting from checkpoints/small/best.safetensors: 1 x 32 coupled LSTM, {known} characters known, {new} new\n"
    )
    assert said in result.stderr
    english, french = (checkpoint.load(path) for path in (source.best, Run(tmp_path / "checkpoints/french").last))
    text = FRENCH + tales[:200]
    assert french.vocabulary == Vocabulary("text", PRINTABLE_ASCII + own).restricted(tales + text, text)
    assert french.settings.init_from == checkpoint.checksum(english)
    assert_taken_over(french, english)

    # What is like something known starts like that, and rarer where it is rarer.
    for accented, plain in (("é", "e"), ("Ç", "C"), ("\u2019", "'")):
        a, b = french.vocabulary.id_of(accented), english.vocabulary.id_of(plain)
        assert (french.weights["embedding"][a] == english.weights["embedding"][b]).all()
        assert (french.weights["softmax.kernel"][:, a] == english.weights["softmax.kernel"][:, b]).all()
        assert french.weights["softmax.bias"][a] <= english.weights["softmax.bias"][b]

    # What else is new is, before any training, about as probable as it is frequent.
    corpus = read_corpus(open_files([str(tmp_path / "french.txt")]), Reading("text")).extended(Vocabulary.ascii())
    network = Network(french.config, french.weights)
    training = corpus.ids[: corpus.training_characters]
    logits, _ = network.forward(training[None], network.zero_state())
    probabilities = np.exp(logits[0].astype(np.float64))
    mean = (probabilities / probabilities.sum(axis=1, keepdims=True)).mean(axis=0)
    frequencies = np.bincount(training, minlength=len(mean)) / len(training)
    strange = [french.vocabulary.id_of(character) for character in "œ§λ€"]
    assert mean[strange].sum() == pytest.approx(frequencies[strange].sum(), rel=0.3)
    np.testing.assert_allclose(mean[strange], frequencies[strange], rtol=0.8)  # their columns are random

    (tmp_path / "more.txt").write_text(tales[:3000] + "Straße\n", encoding="utf-8")
    result = charrnn("train", "more.txt", "--init-from", "checkpoints/french/last.safetensors", *UNCHANGED)
    assert result.returncode == 0, result.stderr
    assert f"{known + new} characters known, 1 new\n" in result.stderr
    more = checkpoint.load(Run(tmp_path / "checkpoints/more").last)
    assert more.vocabulary == Vocabulary("text", PRINTABLE_ASCII + own + "ß").restricted(
        tales + text + "ß", tales[:3000] + "Straße\n"
    )
    assert_taken_over(more, french)


@pytest.mark.parametrize("kind", ["ascii", "bytes"])
def test_of_a_fixed_vocabulary_everything_is_taken_over(tmp_path: Path, kind: str) -> None:
    """The unknown symbol's row too; and a text is read as bytes where the model's was."""
    vocabulary = Vocabulary.ascii() if kind == "ascii" else Vocabulary.bytes()
    model = chain_model(vocabulary, "abc", noise=1.0)
    (tmp_path / "model.safetensors").write_bytes(checkpoint.to_bytes(model))
    job = plan(tmp_path, init_from=str(tmp_path / "model.safetensors"))
    assert job.corpus.vocabulary == (vocabulary if kind == "bytes" else vocabulary.restricted(PRINTABLE_ASCII, "cab "))
    assert job.source is not None
    fresh = {name: np.full_like(weight, 9) for name, weight in model.weights.items()}
    weights = job.source.initial_weights(job.corpus, fresh)
    assert all((weights[name] == weight).all() for name, weight in model.weights.items())


def plan(folder: Path, **given: str) -> Job:
    (folder / "x.txt").write_text("cab " * 100)
    job = plan_training(Call([str(folder / "x.txt")], given, str(folder / "runs")), lambda _: None)
    assert isinstance(job, Job)
    return job


def test_the_command_that_continues_does_without_the_source(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(checkpoint.to_bytes(chain_model(Vocabulary.ascii(), "abc")))
    job = plan(tmp_path, init_from=str(tmp_path / "model.safetensors"))
    assert job.settings.init_from is not None
    assert job.commands.resume == f"charrnn train --checkpoints-dir {tmp_path}/runs {tmp_path}/x.txt"


def test_a_text_without_a_character_that_is_known_has_a_start_too(tmp_path: Path) -> None:
    """Its characters share what there is, as they are frequent."""
    (tmp_path / "model.safetensors").write_bytes(checkpoint.to_bytes(chain_model(Vocabulary("text", "xyz"), "xyz")))
    job = plan(tmp_path, init_from=str(tmp_path / "model.safetensors"))
    assert job.corpus.vocabulary == Vocabulary("text", "xyz abc").restricted("xyz abc", " abc")
    assert job.source is not None
    fresh = {
        "embedding": np.zeros((7, 3), np.float32),
        "softmax.kernel": np.zeros((3, 7), np.float32),
        "softmax.bias": np.log(np.array([1e-6] * 3 + [0.25] * 4, np.float32)),
    }
    bias = job.source.initial_weights(job.corpus, fresh)["softmax.bias"]
    np.testing.assert_allclose(np.exp(bias) / np.exp(bias).sum(), [1e-6] * 3 + [0.25] * 4, rtol=1e-4)


def test_a_related_text_is_learned_better_in_as_many_updates(tmp_path: Path, charrnn: Command, source: Run) -> None:
    (tmp_path / "more.txt").write_text((PROJECT / "data/tales.txt").read_text()[20_000:26_000])
    losses = []
    for name, network in (("warm", ("--init-from", "small")), ("anew", ("--units", "32", "--embedding", "16"))):
        result = charrnn("train", "more.txt", "--name", name, *network, *TRAINING, "--epochs", "2")
        assert result.returncode == 0, result.stderr
        losses.append(checkpoint.load(Run(tmp_path / "checkpoints" / name).best).progress.final_loss)
    warm, anew = losses
    assert warm < anew - 0.3


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (
            ["small", "--units", "64", "--layers", "1", "--cell", "gru"],
            2,
            "with --units 32, --cell coupled, not --units 64,",
        ),
        (["small", "--vocabulary", "bytes"], 2, "the vocabulary ascii, which cannot become bytes"),
        (["text.safetensors", "--vocabulary", "ascii"], 2, "the vocabulary text, which cannot become ascii"),
        (["bytes.safetensors", "--vocabulary", "text"], 2, "the vocabulary bytes, which cannot become text"),
        (["bytes.safetensors", "--encoding", "latin-1"], 2, "leave out --encoding and --errors"),
        (["absent"], 2, "/checkpoints (available: small)"),
        (["absent.safetensors"], 2, "absent.safetensors: no such checkpoint"),
        (["new.txt"], 1, "new.txt: not a charrnn checkpoint"),
    ],
)
def test_what_does_not_go_together_is_answered_in_one_line(
    tmp_path: Path, charrnn: Command, source: Run, args: list[str], code: int, says: str
) -> None:
    (tmp_path / "new.txt").write_text("A new text. " * 100)
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow is loaded')")
    result = charrnn("train", "new.txt", "--init-from", *args, PYTHONPATH=str(tmp_path))
    assert result.returncode == code, result.stderr
    *hint, message = result.stderr.splitlines()
    assert message.startswith("Error: ")
    assert says in message
    assert bool(hint) == (code == 2)
    assert not Run(tmp_path / "checkpoints/new").exists()


# --- stopping and going on -------------------------------------------------------------------


def test_a_run_goes_on_from_the_weights_that_it_took_over_whatever_became_of_the_source(
    tmp_path: Path, charrnn: Command, source: Run, tales: str
) -> None:
    """Killed at step 0, it ends in the same bytes as a run that was not."""
    (tmp_path / "new.txt").write_text(tales[:8000] + FRENCH * 10, encoding="utf-8")
    options = ("--init-from", "small", *TRAINING, "--epochs", "10")
    assert charrnn("train", "new.txt", *options, "--name", "whole").returncode == 0
    run, whole = Run(tmp_path / "checkpoints/new"), Run(tmp_path / "checkpoints/whole")
    process = subprocess.Popen(
        [sys.executable, "-m", "charrnn", "train", "new.txt", *options],
        cwd=tmp_path, stderr=subprocess.DEVNULL, env=environment(),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not run.last.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    last = checkpoint.load(run.last)
    assert last.progress.step == 0
    assert_taken_over(last, checkpoint.load(source.best))

    source.best.rename(tmp_path / "moved.safetensors")
    source.last.rename(tmp_path / "changed.safetensors")
    for where, code, says in (
        ("small", 2, "small: no such run in /"),
        ("changed.safetensors", 1, "checkpoints/new was started from small, not from what --init-from names: "),
    ):
        result = charrnn("train", "new.txt", "--init-from", where)
        assert result.returncode == code
        assert says in result.stderr
        assert "leave out --init-from" in result.stderr or "leave that out to continue it" in result.stderr
    result = charrnn("train", "new.txt")
    assert result.returncode == 0, result.stderr
    assert "continuing checkpoints/new at step 0 of " in result.stderr
    assert same_files(run, whole)
    result = charrnn("train", "new.txt", "--init-from", "moved.safetensors")
    assert result.returncode == 0
    assert "is finished" in result.stderr


def test_a_run_that_was_not_started_from_another_says_so(charrnn: Command, source: Run, trained: Path) -> None:
    result = charrnn("train", trained / "small.txt", "--init-from", "small")
    assert result.returncode == 1
    assert "checkpoints/small is finished; it was started from nothing, not from what --init-from" in result.stderr
