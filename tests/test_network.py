"""The NumPy network against the Keras model."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from charrnn.network.cells import CELLS
from charrnn.network.config import NetworkConfig, weight_shapes
from charrnn.network.network import Network
from charrnn.network.scoring import CHUNK, score_text
from charrnn.text.vocabulary import Ids


def random_weights(config: NetworkConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights of a trained network's size: with larger ones an RNN is chaotic, and rounding grows without end."""
    random = np.random.default_rng(seed)
    return {
        name: random.normal(0, shape[0] ** -0.5, shape).astype(np.float32)
        for name, shape in weight_shapes(config).items()
        if "recurrent" not in name
    } | {
        name: random.normal(0, 0.8 * shape[0] ** -0.5, shape).astype(np.float32)
        for name, shape in weight_shapes(config).items()
        if "recurrent" in name
    }


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 3])
def test_logits_and_carried_state_are_those_of_keras(cell: str, layers: int) -> None:
    from charrnn.training.model import CharacterModel, to_numpy

    config = NetworkConfig(98, 24, 48, layers, cell)
    weights = random_weights(config)
    model = CharacterModel(config, dropout=0.0, seed=0)
    model.from_numpy(weights)
    network = Network(config, weights)
    random = np.random.default_rng(1)
    theirs, ours = model.zero_state(3), network.zero_state(3)
    for length in (1, 50, 7):  # the state goes on from call to call
        ids = random.integers(0, 98, (3, length))
        expected, theirs = model(ids.astype(np.int32), theirs)
        logits, ours = network.forward(ids, ours)
        assert logits.shape == (3, length, 98)
        np.testing.assert_allclose(logits, to_numpy(expected), rtol=0, atol=1e-4)
        for layer_theirs, layer_ours in zip(theirs, ours, strict=True):
            for a, b in zip(layer_theirs, layer_ours, strict=True):
                np.testing.assert_allclose(b, to_numpy(a), rtol=0, atol=1e-4)


@pytest.mark.parametrize("cell", CELLS)
def test_one_character_at_a_time_is_the_same_as_all_at_once(cell: str) -> None:
    config = NetworkConfig(30, 8, 16, 2, cell)
    network = Network(config, random_weights(config))
    ids = np.random.default_rng(2).integers(0, 30, (2, 20))
    together, _ = network.forward(ids, network.zero_state(2))
    state = network.zero_state(2)
    for t in range(20):
        logits, state = network.forward(ids[:, t : t + 1], state)
        np.testing.assert_allclose(logits[:, 0], together[:, t], rtol=0, atol=1e-5)


def test_a_large_network_that_was_used_can_be_copied_and_sent() -> None:
    config = NetworkConfig(30, 8, 512, 1, "lstm")
    network = Network(config, random_weights(config))
    expected = network.start(network.zero_state()).read(np.array([1])).copy()
    for other in (pickle.loads(pickle.dumps(network)), copy.deepcopy(network)):
        assert (other.start(other.zero_state()).read(np.array([1])) == expected).all()


def test_a_state_is_not_changed_by_what_goes_on_from_it() -> None:
    config = NetworkConfig(30, 8, 16, 2, "lstm")
    network = Network(config, random_weights(config))
    _, state = network.forward(np.array([[1, 2, 3]]), network.zero_state())
    first, _ = network.forward(np.array([[4, 5]]), state)
    again, _ = network.forward(np.array([[4, 5]]), state)
    assert (first == again).all()


def test_loss_is_the_cross_entropy_of_keras_and_adds_up_over_pieces() -> None:
    from charrnn.training.backend import keras

    config = NetworkConfig(40, 8, 16, 1, "lstm")
    network = Network(config, random_weights(config))
    ids: Ids = np.random.default_rng(3).integers(0, 40, 101).astype(np.uint8)
    logits, _ = network.forward(ids[None, :-1], network.zero_state())
    expected = keras.losses.sparse_categorical_crossentropy(ids[1:].astype(np.int32), logits[0], from_logits=True)
    whole, _ = network.log_probabilities(ids, network.zero_state())
    assert -whole.sum() == pytest.approx(float(np.sum(expected)), rel=1e-5)
    first, state = network.log_probabilities(ids[:61], network.zero_state())
    second, _ = network.log_probabilities(ids[60:], state)
    np.testing.assert_allclose([*first, *second], whole, rtol=1e-5)


@pytest.mark.parametrize("length", [1, 2, CHUNK, CHUNK + 1, CHUNK + 2, 2 * CHUNK + 30])
@pytest.mark.parametrize("before", [1, 40])
def test_a_text_is_scored_in_pieces_as_it_is_in_one(length: int, before: int) -> None:
    config = NetworkConfig(40, 8, 16, 1, "gru")
    network = Network(config, random_weights(config))
    ids: Ids = np.random.default_rng(3).integers(0, 40, before + length - 1).astype(np.uint8)
    told: list[int] = []
    found = score_text(network, ids, before, told.append)
    expected, _ = network.log_probabilities(ids, network.zero_state())
    np.testing.assert_allclose(found, expected[before - 1 :], rtol=1e-5)
    assert sum(told) == len(found) == length - 1
