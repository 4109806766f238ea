"""Embedding -> LSTM -> softmax in Keras.

model = CharacterModel(NetworkConfig(98, 64, 256, 1, "lstm"), dropout=0.0, seed=1)
logits, state = model(ids, model.zero_state(batch_size))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from charrnn.backend import keras, tf
from charrnn.network import Array, NetworkConfig, state_parts, weight_shapes

LAYERS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}

TensorState = list[tuple[Any, ...]]
"""For each layer its (h, c) of an LSTM or (h,) of a GRU or RNN, each a (B, H) tensor."""


def to_numpy(tensor: Any) -> Array:
    """A copy of a tensor's or variable's values, which later updates do not reach."""
    return np.array(tf.convert_to_tensor(tensor).numpy())


class CharacterModel(keras.Model):  # type: ignore[misc]  # Keras has no types
    """The network that is trained: (ids, state) -> (logits, state).

    State is explicit: what a call returns is handed to the next, and no layer keeps any.
    """

    def __init__(self, config: NetworkConfig, dropout: float, seed: int) -> None:
        """Build the layers with initial weights that are a function of the seed alone.

        Args:
            config: the sizes.
            dropout: the share of each recurrent layer's outputs set to 0 in training.
            seed: of the initial weights.
        """
        super().__init__()
        keras.utils.set_random_seed(seed)
        self.config = config
        self.dropout = dropout
        self.embedding = keras.layers.Embedding(config.vocabulary_size, config.embedding)
        # Not unrolled, no dropout within: what lets Keras choose cuDNN on a GPU.
        self.recurrent = [
            LAYERS[config.cell](config.units, return_sequences=True, return_state=True) for _ in range(config.layers)
        ]
        self.softmax = keras.layers.Dense(config.vocabulary_size)  # its logits; the loss normalises them
        self(tf.zeros((1, 1), tf.int32), self.zero_state(1))

    def zero_state(self, batch_size: int) -> TensorState:
        """The state at the start of a stream, for B streams."""
        zeros = tf.zeros((batch_size, self.config.units))
        return [(zeros,) * len(state_parts(self.config.cell)) for _ in range(self.config.layers)]

    def call(self, ids: Any, state: TensorState, dropout_seed: Any = None) -> tuple[Any, TensorState]:
        """Read characters.

        Args:
            ids: (B, T) int32.
            state: what the call before returned, or `zero_state`.
            dropout_seed: two integers that the dropout masks are a function of; None drops nothing.

        Returns:
            Logits of the character after each, (B, T, V), and the state after the last.
        """
        outputs = self.embedding(ids)  # (B, T, E)
        new_state: TensorState = []
        for index, layer in enumerate(self.recurrent):
            outputs, *layer_state = layer(outputs, initial_state=list(state[index]))  # (B, T, H)
            new_state.append(tuple(layer_state))
            if self.dropout and dropout_seed is not None:
                layer_seed = tf.random.experimental.stateless_fold_in(dropout_seed, index)
                outputs = tf.nn.experimental.stateless_dropout(outputs, self.dropout, layer_seed)
        return self.softmax(outputs), new_state

    @property
    def named_weights(self) -> dict[str, Any]:
        """The Keras variables by their names in `network.weight_shapes`, in its order."""
        variables = [self.embedding.embeddings]
        for layer in self.recurrent:
            variables += [layer.cell.kernel, layer.cell.recurrent_kernel, layer.cell.bias]
        variables += [self.softmax.kernel, self.softmax.bias]
        return dict(zip(weight_shapes(self.config), variables, strict=True))

    def to_numpy(self) -> dict[str, Array]:
        """Copies of the weights, as `network.Network` and checkpoints take them."""
        return {name: to_numpy(variable) for name, variable in self.named_weights.items()}

    def from_numpy(self, weights: Mapping[str, Array]) -> None:
        """Set the weights to what `to_numpy` gave."""
        for name, variable in self.named_weights.items():
            variable.assign(weights[name])
