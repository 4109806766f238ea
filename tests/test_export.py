"""`charrnn export`: what Keras alone computes from the file."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Command, chain_model, environment

from charrnn.network.config import weight_shapes
from charrnn.network.network import Network
from charrnn.runs import checkpoint
from charrnn.runs.records import Checkpoint
from charrnn.text.vocabulary import Vocabulary

IDS = np.random.default_rng(1).integers(0, 97, (2, 50))
# It may import neither charrnn nor what a safe file does not need.
LOAD = """
import sys
sys.modules["charrnn"] = None
import keras, numpy
for name in sys.argv[1:]:
    model = keras.saving.load_model(name + ".keras", safe_mode=True)
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    numpy.save(name + ".npy", model(numpy.load("ids.npy")).numpy())
"""


def model_of(cell: str, vocabulary: Vocabulary, layers: int = 2) -> Checkpoint:
    """A model with random weights."""
    model = chain_model(vocabulary, vocabulary.characters[:3])
    settings = dataclasses.replace(model.settings, cell=cell, layers=layers, units=24, embedding=8)
    random = np.random.default_rng(0)
    shapes = weight_shapes(settings.network(vocabulary))
    weights = {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    return dataclasses.replace(model, settings=settings, weights=weights)


def test_keras_alone_computes_the_same_probabilities(tmp_path: Path, charrnn: Command) -> None:
    vocabularies = {
        "lstm": dataclasses.replace(Vocabulary.ascii(), has_boundary=True),
        "gru": Vocabulary("text", "".join(map(chr, range(0x3B1, 0x3B1 + 97)))),
        "rnn": Vocabulary.bytes(),
    }
    np.save(tmp_path / "ids.npy", IDS)
    for cell, vocabulary in vocabularies.items():
        (tmp_path / f"{cell}.safetensors").write_bytes(checkpoint.to_bytes(model_of(cell, vocabulary)))
        result = charrnn("export", f"{cell}.safetensors", "--out", f"{cell}.keras")
        assert (result.returncode, result.stdout) == (0, f"{cell}.keras\n{cell}.vocabulary.json\n"), result.stderr
        described = json.loads((tmp_path / f"{cell}.vocabulary.json").read_text())
        assert Vocabulary(described["kind"], described["characters"]).characters == vocabulary.characters
        assert (described["unknown"], described["boundary"]) == (vocabulary.unknown, vocabulary.boundary)
    command = [sys.executable, "-c", LOAD, *vocabularies]
    subprocess.run(command, cwd=tmp_path, env=environment() | {"TF_CPP_MIN_LOG_LEVEL": "3"}, check=True)
    for cell, vocabulary in vocabularies.items():
        model = model_of(cell, vocabulary)
        network = Network(model.config, model.weights)
        logits, _ = network.forward(IDS, network.zero_state(len(IDS)))
        expected = np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
        np.testing.assert_allclose(np.load(tmp_path / f"{cell}.npy"), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("cell", "out", "code", "message"),
    [
        ("coupled", "x.keras", 2, "Keras has no coupled LSTM: export a run that was trained with --cell lstm or"),
        ("lstm", "x.h5", 2, "x.h5: Keras reads only files whose names end in .keras"),
        ("lstm", "no/x.keras", 1, "no/x.vocabulary.json: cannot be written: No such file or directory"),
    ],
)
def test_what_cannot_be_exported_is_rejected(
    tmp_path: Path, charrnn: Command, cell: str, out: str, code: int, message: str
) -> None:
    (tmp_path / "x.safetensors").write_bytes(checkpoint.to_bytes(model_of(cell, Vocabulary.ascii(), 1)))
    result = charrnn("export", "x.safetensors", "--out", out)
    assert result.returncode == code
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
