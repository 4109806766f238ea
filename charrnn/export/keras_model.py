"""A trained model as a `.keras` file of Keras' own layers, which needs no charrnn to load."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from charrnn.files import write_atomically
from charrnn.network.config import weight_shapes
from charrnn.runs.records import Checkpoint
from charrnn.text.vocabulary import Vocabulary
from charrnn.training.backend import keras, tf
from charrnn.training.cells import STOCK_LAYERS


def write_keras_model(model: Checkpoint, path: Path) -> Path:
    """Write a model: ids of characters, (B, T), to the probabilities of the next, (B, T, V), from the zero state.

    Args:
        model: a model of one of `STOCK_LAYERS`.
        path: the `.keras` file.

    Returns:
        The file beside it that holds the vocabulary.

    Raises:
        NotWrittenError: a file cannot be written; neither of them is left half written.
        OSError: the temporary folder cannot be written to.
    """
    tf.config.set_visible_devices([], "GPU")
    vocabulary = path.with_suffix(".vocabulary.json")
    with tempfile.TemporaryDirectory() as folder:
        _sequential(model).save(Path(folder) / "model.keras")
        data = (Path(folder) / "model.keras").read_bytes()
    write_atomically(vocabulary, json.dumps(describe(model.vocabulary), indent=1).encode())
    write_atomically(path, data)
    return vocabulary


def _sequential(model: Checkpoint) -> Any:
    """The network of a checkpoint in Keras' own layers."""
    config = model.config
    layers = [keras.layers.Embedding(config.vocabulary_size, config.embedding, name="embedding")]
    for layer in range(config.layers):
        layers.append(STOCK_LAYERS[config.cell](config.units, return_sequences=True, name=f"layer{layer}"))
    layers.append(keras.layers.Dense(config.vocabulary_size, activation="softmax", name="softmax"))
    network = keras.Sequential([keras.Input((None,), dtype="int32", name="ids"), *layers], name="charrnn")
    network.set_weights([model.weights[name] for name in weight_shapes(config)])
    return network


def describe(vocabulary: Vocabulary) -> dict[str, Any]:
    """A vocabulary for other programs.

    Returns:
        `kind`; `characters`, whose places are their ids (of `bytes`, U+0000 to U+00FF stand for the bytes);
        `unknown` and `boundary`, the ids of these two symbols, or None.
    """
    return {
        "kind": vocabulary.kind,
        "characters": vocabulary.characters,
        "unknown": vocabulary.unknown,
        "boundary": vocabulary.boundary,
    }
