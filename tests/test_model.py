"""The Keras model that is trained."""

from __future__ import annotations

import numpy as np
import pytest

from charrnn.network.cells import CELLS
from charrnn.network.config import NetworkConfig, weight_shapes
from charrnn.training.backend import keras, tf
from charrnn.training.layout import STOCK, Layout
from charrnn.training.model import CharacterModel

CONFIG = NetworkConfig(50, 12, 20, 2, "lstm")
IDS = np.random.default_rng(0).integers(0, 50, (4, 15)).astype(np.int32)


@pytest.mark.parametrize("cell", CELLS)
def test_weights_have_the_names_and_shapes_that_checkpoints_keep(cell: str) -> None:
    config = NetworkConfig(50, 12, 20, 2, cell)
    model = CharacterModel(config, dropout=0.0, seed=1)
    assert {name: array.shape for name, array in model.to_numpy().items()} == weight_shapes(config)
    assert len(model.trainable_variables) == len(weight_shapes(config))


def test_logits_are_those_of_stock_keras_layers() -> None:
    model = CharacterModel(CONFIG, dropout=0.0, seed=1)
    stock = keras.Sequential(
        [
            keras.layers.Embedding(50, 12),
            keras.layers.LSTM(20, return_sequences=True),
            keras.layers.LSTM(20, return_sequences=True),
            keras.layers.Dense(50),
        ]
    )
    stock.build((4, 15))
    stock.set_weights(list(model.to_numpy().values()))
    logits, _ = model(IDS, model.zero_state(4))
    np.testing.assert_allclose(logits, stock(IDS), rtol=0, atol=1e-6)


def test_initial_weights_are_a_function_of_the_seed() -> None:
    one, same, other = (CharacterModel(CONFIG, dropout=0.0, seed=seed).to_numpy() for seed in (1, 1, 2))
    assert all((one[name] == same[name]).all() for name in one)
    assert (one["embedding"] != other["embedding"]).any()


def test_dropout_is_a_function_of_its_seed_and_off_without_one() -> None:
    model = CharacterModel(CONFIG, dropout=0.5, seed=1)
    state = model.zero_state(4)

    def logits(seed: list[int] | None) -> np.ndarray:
        return np.array(model(IDS, state, dropout_seed=None if seed is None else tf.constant(seed))[0])

    assert (logits([1, 7]) == logits([1, 7])).all()
    assert (logits([1, 7]) != logits([1, 8])).any()
    undropped = CharacterModel(CONFIG, dropout=0.0, seed=1)(IDS, state)[0]
    np.testing.assert_allclose(logits(None), undropped, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", [STOCK, Layout(fast=True), Layout(fast=True, precision="bfloat16")], ids=str)
def test_dropout_drops_its_share_and_keeps_the_mean(layout: Layout) -> None:
    """Seen through a softmax layer that gives the outputs as they are."""
    model = CharacterModel(NetworkConfig(1000, 4, 1000, 1, "lstm"), dropout=0.3, seed=1, layout=layout)
    model.softmax.kernel.assign(np.eye(1000))
    ids = np.random.default_rng(0).integers(0, 1000, (2, 10)).astype(np.int32)
    whole, masked = (np.array(model(ids, model.zero_state(2), seed)[0]) for seed in (None, tf.constant([1, 1])))
    assert (masked == 0).mean() == pytest.approx(0.3, abs=0.02)
    kept = masked != 0
    np.testing.assert_allclose(masked[kept], whole[kept] / 0.7, rtol=1e-5 if layout.precision == "float32" else 0.01)
    assert np.abs(masked).mean() == pytest.approx(np.abs(whole).mean(), rel=0.03)


@pytest.mark.parametrize("cell", CELLS)
def test_characters_reach_the_gates_with_variance_one_from_the_start(cell: str) -> None:
    weights = CharacterModel(NetworkConfig(98, 64, 128, 1, cell), dropout=0.0, seed=1).to_numpy()
    assert (weights["embedding"] @ weights["layer0.kernel"]).var() == pytest.approx(1, rel=0.1)
