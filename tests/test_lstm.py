"""The fast LSTM against `keras.layers.LSTM` and finite differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn.network.config import NetworkConfig
from charrnn.training.backend import keras, tf
from charrnn.training.cells import FAST_LAYERS, stock_layer
from charrnn.training.layout import Layout
from charrnn.training.lstm import arrange, lstm_over_ids, lstm_over_vectors
from charrnn.training.model import CharacterModel

CELLS = st.sampled_from(sorted(FAST_LAYERS))


def config_of(cell: str) -> NetworkConfig:
    return NetworkConfig(vocabulary_size=31, embedding=7, units=12, layers=2, cell=cell)


def pair(cell: str, inputs: int, units: int) -> tuple[Any, Any]:
    """A fast and a stock layer with the same weights, none of them 0."""
    fast, stock = FAST_LAYERS[cell](units), stock_layer(cell, units)
    random = np.random.default_rng(units)
    for layer in (fast, stock):
        layer.build((None, None, inputs))
    stock.set_weights([random.normal(0, shape[0] ** -0.5, shape) for shape in (w.shape for w in stock.weights)])
    fast.set_weights(stock.get_weights())
    return fast, stock


def assert_close(ours: Sequence[Any], theirs: Sequence[Any], tolerance: float = 1e-5) -> None:
    """Equal to `tolerance` of each tensor's largest magnitude."""
    for a, b in zip(ours, theirs, strict=True):
        a, b = tf.convert_to_tensor(a).numpy(), tf.convert_to_tensor(b).numpy()
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(np.abs(b).max(), 1e-30))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    cell=CELLS, batch=st.integers(1, 9), steps=st.integers(1, 12), inputs=st.integers(1, 20), units=st.integers(1, 33),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_outputs_states_and_gradients_are_those_of_keras(
    cell: str, batch: int, steps: int, inputs: int, units: int, seed: int
) -> None:
    fast, stock = pair(cell, inputs, units)
    random = np.random.default_rng(seed)
    x, h, c, weigh_outputs, weigh_h, weigh_c = (
        tf.constant(random.normal(size=shape), tf.float32)
        for shape in ((batch, steps, inputs), (batch, units), (batch, units))
        + ((batch, steps, units),)
        + ((batch, units),) * 2
    )

    def run_fast() -> tuple[Any, Any, Any]:
        outputs, *last = fast.over(tf.transpose(x, (1, 2, 0)), fast.arranged(), h, c)
        return tf.transpose(outputs, (2, 0, 1)), *last

    found = []
    for layer, run in ((fast, run_fast), (stock, lambda: stock(x, initial_state=[h, c]))):
        weights = [weight.value for weight in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch([x, h, c])
            outputs, last_h, last_c = run()
            loss = tf.reduce_sum(outputs * weigh_outputs) + tf.reduce_sum(last_h * weigh_h + last_c * weigh_c)
        found.append([outputs, last_h, last_c, *tape.gradient(loss, [x, h, c, *weights])])
    assert_close(*found)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    cell=CELLS, batch=st.integers(1, 9), steps=st.integers(1, 12), units=st.integers(1, 20), layers=st.integers(1, 3)
)
def test_a_network_over_ids_is_that_of_keras_with_its_gradients(
    cell: str, batch: int, steps: int, units: int, layers: int
) -> None:
    compare_with_keras(cell, batch, steps, units, layers)


@pytest.mark.parametrize("cell", FAST_LAYERS)
def test_weights_gradients_are_summed_over_blocks_of_steps(cell: str) -> None:
    compare_with_keras(cell, batch=64, steps=48, units=64, layers=2)  # three blocks of two turns of eight steps


def compare_with_keras(cell: str, batch: int, steps: int, units: int, layers: int) -> None:
    """Loss, logits, last states and gradients of a network over ids."""
    config = NetworkConfig(23, 6, units, layers, cell)
    random = np.random.default_rng(batch)
    ids, targets = (tf.constant(random.integers(0, 23, (batch, steps)), tf.int32) for _ in range(2))
    weights = tf.constant(random.random((batch, steps)), tf.float32)
    found = []
    for layout in (Layout(fast=True, parts=1), Layout()):
        model = CharacterModel(config, 0.0, seed=3, layout=layout)
        values = [
            tf.constant(random_state, tf.float32)
            for random_state in np.random.default_rng(1).normal(size=(2, batch, units))
        ]
        state = [tuple(values)] * layers
        with tf.GradientTape() as tape:
            loss, state = model.loss_sum(ids, targets, weights, state)
        variables = [variable.value for variable in model.trainable_variables]
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, variables)]
        found.append([loss, model(ids, model.zero_state(batch))[0], *sum(state, ()), *gradients])
    assert_close(*found)


@pytest.mark.parametrize("cell", FAST_LAYERS)
@pytest.mark.parametrize("over_ids", [True, False])
def test_gradients_are_finite_differences(over_ids: bool, cell: str) -> None:
    random = np.random.default_rng(5)
    layer = FAST_LAYERS[cell](3)
    layer.build((None, None, 4))
    width = layer.cell.recurrent_kernel.shape[1]
    recurrent_kernel = random.normal(0, 0.5, (3, width)).astype(np.float32)
    inputs = random.normal(0, 0.5, (5, width) if over_ids else (6, 4, 2)).astype(np.float32)  # a table, or vectors
    state = random.normal(0, 0.5, (2, 2, 3)).astype(np.float32)
    weigh = random.normal(size=(6, 3, 2))
    ids = tf.constant(random.integers(0, 5, (6, 2)), tf.int32)

    def loss(inputs: Any, recurrent_kernel: Any, state: Any) -> Any:
        layer.cell.recurrent_kernel.assign(recurrent_kernel)
        if over_ids:
            recurrent = tf.convert_to_tensor(layer.cell.recurrent_kernel)
            outputs, h, c = lstm_over_ids(ids, arrange(inputs, [recurrent], tf.float32), state[0], state[1])
        else:
            outputs, h, c = lstm_over_vectors(inputs, layer.arranged(), state[0], state[1])
        return tf.reduce_sum(tf.cast(outputs, tf.float64) * weigh) + tf.reduce_sum(tf.cast(h * 2 + c, tf.float64))

    point = [tf.constant(value) for value in (inputs, recurrent_kernel, state)]
    with tf.GradientTape() as tape:
        tape.watch(point)
        value = loss(*point)
    d_inputs, d_recurrent, d_state = tape.gradient(value, [point[0], layer.cell.recurrent_kernel.value, point[2]])
    for which, gradient in enumerate((d_inputs, d_recurrent, d_state)):
        gradient = tf.convert_to_tensor(gradient).numpy()
        for _ in range(12):
            at = tuple(int(random.integers(size)) for size in gradient.shape)
            values = []
            for step in (0.01, -0.01):
                moved = [tensor.numpy().copy() for tensor in point]
                moved[which][at] += step
                values.append(float(loss(*map(tf.constant, moved))))
            assert gradient[at] == pytest.approx((values[0] - values[1]) / 0.02, rel=5e-3, abs=5e-3)


@pytest.mark.parametrize("cell", FAST_LAYERS)
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_twenty_updates_have_the_losses_of_the_stock_layers(parts: int, cell: str) -> None:
    """What a GPU runs, here on the CPU, against the fast layer; a batch of 8 does not divide by 3."""
    losses = []
    for layout in (Layout(fast=True, parts=parts), Layout()):
        model = CharacterModel(config_of(cell), dropout=0.0, seed=1, layout=layout)
        optimizer = keras.optimizers.Adam(0.01, global_clipnorm=1.0)
        random = np.random.default_rng(0)
        state = model.zero_state(8)
        losses.append([])
        for _ in range(20):
            block = tf.constant(random.integers(0, 31, (8, 16)) // np.arange(1, 17), tf.int32)
            with tf.GradientTape() as tape:
                loss, state = model.loss_sum(block[:, :-1], block[:, 1:], tf.fill((8, 15), 1 / 120), state)
            variables = [variable.value for variable in model.trainable_variables]
            gradients = map(tf.convert_to_tensor, tape.gradient(loss, variables))
            optimizer.apply(list(gradients), model.trainable_variables)
            losses[-1].append(float(loss))
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0][-1] < losses[0][0] - 0.2


@pytest.mark.parametrize("cell", FAST_LAYERS)
def test_bfloat16_operands_round_and_nothing_more(cell: str) -> None:
    random = np.random.default_rng(0)
    ids = tf.constant(random.integers(0, 31, (4, 30)), tf.int32)
    exact, rounded = (
        CharacterModel(config_of(cell), 0.0, 1, Layout(True, precision)) for precision in ("float32", "bfloat16")
    )
    found = []
    for model in (exact, rounded):
        variables = [variable.value for variable in model.trainable_variables]
        with tf.GradientTape() as tape:
            loss, state = model.loss_sum(ids[:, :-1], ids[:, 1:], tf.fill((4, 29), 1.0), model.zero_state(4))
        assert all(tensor.dtype == tf.float32 for layer in state for tensor in layer)
        found.append([loss, *(tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, variables))])
    assert_close(found[1], found[0], tolerance=0.03)
