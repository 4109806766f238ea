"""A trained model from Python."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PROJECT, SMALL, Command, chain_model, environment

import charrnn as library
from charrnn import CharrnnError
from charrnn.language_model import LanguageModel
from charrnn.network.cells import CELLS
from charrnn.network.config import weight_shapes
from charrnn.runs import checkpoint
from charrnn.text.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def model(trained: Path) -> LanguageModel:
    return library.load(trained / "checkpoints" / "small")


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_examples_of_the_documentation_run(trained: Path, tmp_path: Path, page: str) -> None:
    shutil.copytree(trained / "checkpoints" / "small", tmp_path / "checkpoints" / "tales")
    [code] = re.findall(r"^```python\n(.*?)^```$", (PROJECT / page).read_text(encoding="utf-8"), re.S | re.M)
    check = "\nimport sys\nassert not {'tensorflow', 'keras', 'rich', 'matplotlib'} & set(sys.modules)\n"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code + check],
        cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", env=environment(), check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert re.search(r"\d\.\d", result.stdout)


def test_a_text_in_pieces_has_the_scores_of_the_whole(model: LanguageModel, tales: str) -> None:
    text = tales[:3000]
    whole = model.score(text, prime="Once")
    pieces = list(model.score_pieces(text.splitlines(keepends=True), prime="Once"))
    assert "".join(piece.text for piece in pieces) == whole.text == text
    assert np.allclose(np.concatenate([piece.nats for piece in pieces]), whole.nats, atol=1e-5)
    assert list(model.score_pieces([])) == []


def test_the_import_loads_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import charrnn; print(*set(sys.modules) - before)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(result.stdout.split()) <= {"charrnn", "__future__"}


def test_generate_gives_what_the_command_writes(trained: Path, charrnn: Command, model: LanguageModel) -> None:
    options = ("--length", "120", "--temperature", "0.6", "--top-k", "20", "--top-p", "0.95", "--min-p", "0.01")
    result = charrnn(
        "sample",
        "--checkpoints-dir",
        trained / "checkpoints",
        *options,
        "--prime",
        "The ",
        "--seed",
        "3",
        "--stop",
        ".",
    )
    pieces = list(
        model.generate("The ", length=120, temperature=0.6, top_k=20, top_p=0.95, min_p=0.01, seed=3, stop=".")
    )
    assert "The " + "".join(pieces) == result.stdout
    assert all(pieces)
    assert len("".join(model.generate())) == 1000
    assert "".join(model.generate(length=50)) != "".join(model.generate(length=50))


def test_a_run_is_found_by_name_or_path_or_as_the_last(
    trained: Path, monkeypatch: pytest.MonkeyPatch, model: LanguageModel
) -> None:
    monkeypatch.chdir(trained)
    monkeypatch.delenv("CHARRNN_CHECKPOINTS_DIR", raising=False)
    for where in (None, "small", "checkpoints/small", trained / "checkpoints/small/best.safetensors"):
        assert library.load(where).score("The bell").nats.tolist() == model.score("The bell").nats.tolist()
    monkeypatch.setenv("CHARRNN_CHECKPOINTS_DIR", "elsewhere")
    with pytest.raises(CharrnnError, match=r"small: no such run in /.*elsewhere"):
        library.load("small")


@pytest.mark.parametrize(
    "wrong",
    [
        {"length": -1},
        {"seed": -1},
        {"unknown": "drop"},
        {"temperature": -1},
        {"min_p": 2},
        {"stop": ""},
        {"prime": "\u00e9"},
    ],
)
def test_wrong_values_are_refused_at_once(model: LanguageModel, wrong: dict[str, object]) -> None:
    with pytest.raises(CharrnnError):
        model.generate(**wrong)  # type: ignore[arg-type]


def test_score_is_the_cross_entropy_from_a_blank_line_on(model: LanguageModel) -> None:
    text = "The bell rang \u2019twice.\r\n"
    score = model.score(text)
    assert score.text == "The bell rang 'twice.\n"
    ids = model.vocabulary.encode("\n\n" + score.text)[1:]
    start = model.network.forward(ids[None, :1], model.network.zero_state())[1]
    logits = model.network.forward(ids[None, :-1], start)[0][0].astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(probabilities[np.arange(len(score.text)), ids[1:]])
    np.testing.assert_allclose(score.nats, expected, rtol=1e-5)
    assert score.nats_per_character == pytest.approx(expected.mean())
    assert score.log_probability == pytest.approx(-expected.sum())


def test_score_after_a_prime_is_the_loss_that_training_reported(
    trained: Path, tales: str, model: LanguageModel
) -> None:
    start = int(len(tales) * 0.9)
    loss = checkpoint.load(trained / "checkpoints/small/best.safetensors").progress.final_loss
    found = model.score(tales[start:], prime=tales[start - 257 : start]).nats_per_character
    assert found == pytest.approx(loss, rel=1e-5)


def test_score_of_strangers_and_of_nothing(model: LanguageModel) -> None:
    assert model.score("caf\u00e9").text == "caf\ufffd"
    assert len(model.score("").nats) == 0
    assert np.isnan(model.score("").nats_per_character)
    with pytest.raises(CharrnnError, match="does not know '\u00e9' in the text"):
        LanguageModel(chain_model(Vocabulary("text", "ab"), "ab")).score("a\u00e9")
    assert len(LanguageModel(chain_model(Vocabulary.bytes(), "ab")).score("a\u00e9").nats) == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.generate("\ud800"),
        lambda model: model.generate("The", stop="\udc80"),
        lambda model: model.generate("The", stop=""),
        lambda model: model.generate("The", temperature=float("nan")),
        lambda model: LanguageModel(chain_model(Vocabulary.bytes(), "ab")).generate("a\ud800"),
        lambda model: LanguageModel(chain_model(Vocabulary.bytes(), "ab")).score("a\ud800"),
        lambda model: LanguageModel(chain_model(Vocabulary("text", "ab"), "ab")).score("a\ud800"),
        lambda model: library.load("x" * 300),
        lambda model: library.load("a\0b"),
        lambda model: library.load("a\0b.safetensors"),
        lambda model: library.load("\ud800"),
        lambda model: library.load("/dev/null"),
    ],
)
def test_only_charrnns_own_error_leaves_the_api_for_bad_input(model: LanguageModel, call: Any) -> None:
    with pytest.raises(CharrnnError):
        call(model)


def test_an_unknown_character_is_found_where_it_is() -> None:
    model = LanguageModel(chain_model(Vocabulary("text", "abc"), "abc"))
    for arguments, where in ((("\u00e9",), "text"), (("a", "\u00e9"), "prime")):
        with pytest.raises(CharrnnError, match=f"does not know '\u00e9' in the {where}"):
            model.score(*arguments)


def test_a_half_character_is_scored_as_unknown_by_a_model_of_ascii(model: LanguageModel) -> None:
    assert model.score("a\ud800").text == "a\ufffd"


def test_a_nul_is_scored_as_unknown_and_never_as_the_end_of_a_text() -> None:
    vocabulary = dataclasses.replace(Vocabulary.ascii(), has_boundary=True, writes_boundary=True)
    model = LanguageModel(chain_model(vocabulary, "abc", noise=1.0))
    found, other = model.score("a\0b"), model.score("a\ufffdb")
    assert found.text == other.text == "a\ufffdb"
    np.testing.assert_array_equal(found.nats, other.nats)


@pytest.mark.parametrize("cell", CELLS)
def test_the_users_error_state_of_numpy_neither_breaks_the_api_nor_is_changed(cell: str) -> None:
    """With weights at which all that can underflow does."""
    trained = chain_model(Vocabulary.ascii(), "abc")
    settings = dataclasses.replace(trained.settings, cell=cell, units=32, embedding=16)
    random = np.random.default_rng(0)
    weights = {
        name: (random.normal(0, 20, shape) * 10.0 ** random.integers(-40, 1, shape)).astype(np.float32)
        for name, shape in weight_shapes(settings.network(trained.vocabulary)).items()
    }
    with np.errstate(all="raise"):
        state = np.geterr()
        found = LanguageModel(dataclasses.replace(trained, settings=settings, weights=weights))
        pieces = found.generate("The ", length=50, temperature=0.01, seed=1, top_p=0.9, min_p=0.001)
        assert len("".join(pieces)) == 50
        assert np.isfinite(found.score("The bell rang.").nats_per_character)
        assert np.geterr() == state


def test_only_characters_of_the_text_are_written_and_any_is_scored(tmp_path: Path, charrnn: Command) -> None:
    """A model of A, C, G and T at a high temperature; what its network thinks of others is seen by scoring only."""
    (tmp_path / "dna.txt").write_text("".join(np.random.default_rng(0).choice(list("ACGT"), 4000)) + "\n")
    result = charrnn("train", "dna.txt", *SMALL, "--epochs", "1")
    assert result.returncode == 0, result.stderr
    text = charrnn("sample", "--length", "20000", "--temperature", "3", "--seed", "1").stdout
    assert set(text) <= set("ACGT\n")
    result = charrnn("sample", "--prime", "Hello")
    assert result.returncode == 2
    assert "the model does not know 'H' at position 1, 'e' at position 2" in result.stderr
    result = charrnn("sample", "--stop", "N")
    assert "does not know 'N' in the stop text, so no sample would contain it" in result.stderr
    assert len(library.load(tmp_path / "checkpoints" / "dna").score("Hello").nats) == 5
    result = charrnn("train", "dna.txt", "--name", "more", "--init-from", "dna", "--epochs", "1")
    assert "5 characters known, 0 new" in result.stderr


def test_an_older_checkpoint_is_read_and_knows_all_of_its_vocabulary(charrnn: Command) -> None:
    path = PROJECT / "tests" / "data" / "format_2.safetensors"
    result = charrnn("sample", "--checkpoint", path, "--prime", "{Hello~}", "--length", "2000", "--seed", "1")
    assert result.returncode == 0, result.stderr
    assert len(set(result.stdout)) > 80
