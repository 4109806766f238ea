"""Embedding -> recurrent layers -> softmax in Keras.

model = CharacterModel(NetworkConfig(98, 64, 256, 1, "lstm"), dropout=0.0, seed=1)
logits, state = model(ids, model.zero_state(batch_size))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from charrnn.network.cells import CELLS, Array
from charrnn.network.config import NetworkConfig, embedding_deviation, weight_shapes
from charrnn.training.backend import keras, tf
from charrnn.training.cells import FAST_LAYERS, stock_layer
from charrnn.training.layout import STOCK, Layout
from charrnn.training.lstm import Arranged, logits_of

TensorState = list[tuple[Any, ...]]
"""For each layer, the tensors that `Cell.STATE` names, each (B, H)."""


def to_numpy(tensor: Any) -> Array:
    """Copy the values of a tensor or variable, so that later updates do not change them."""
    return np.array(tf.convert_to_tensor(tensor).numpy())


_GROUP = 8  # streams whose dropout masks are drawn together


def dropped(outputs: Any, rate: Any, seed: Any, first: int) -> Any:
    """Set a share of the outputs to 0, and scale up the others so that the mean stays the same.

    This is the dropout of Srivastava et al. (2014, JMLR 15), as in `tf.nn.experimental.stateless_dropout`, but with
    16 random bits for each output. TensorFlow's function draws twice as many and compares them as floats.

    The mask of a stream depends only on the seed and the stream's number, not on the streams beside it: a batch has
    the same masks in one part or in several, on one device or on several.

    Args:
        outputs: (T, H, B), of known shape.
        rate: the share, a scalar tensor.
        seed: two integers that determine the masks.
        first: number of the first of the B streams.
    """
    steps, units, streams = outputs.shape
    last, pairs = first + streams, []
    for group in range(first // _GROUP, -(-last // _GROUP)):
        group_seed = tf.random.experimental.stateless_fold_in(seed, group)
        words = tf.random.stateless_uniform((steps, units, 2, 2), group_seed, None, None, tf.uint32)
        pairs.append(tf.bitcast(words, tf.int64))  # wide, because they are copied next
    bits = tf.reshape(tf.bitcast(tf.concat(pairs, axis=-1), tf.uint16), (steps, units, -1))
    start = first % _GROUP
    kept = bits[..., start : start + streams] >= tf.cast(rate * (1 << 16), tf.uint16)
    return outputs * tf.where(kept, tf.cast(1 / (1 - rate), outputs.dtype), tf.zeros((), outputs.dtype))


class CharacterModel(keras.Model):  # type: ignore[misc]  # Keras has no types
    """The network in training: (ids, state) -> (logits, state).

    The state is explicit: callers pass what one call returns to the next, and no layer keeps any state.
    """

    def __init__(self, config: NetworkConfig, dropout: float, seed: int, layout: Layout = STOCK) -> None:
        """Build the layers. Their initial weights depend on the seed alone.

        Args:
            config: the sizes.
            dropout: share of each recurrent layer's outputs that training sets to 0.
            seed: seed of the initial weights.
            layout: layout of the arithmetic.
        """
        super().__init__()
        keras.utils.set_random_seed(seed)
        self.config = config
        self.dropout = dropout
        self.layout = layout
        self.embedding = keras.layers.Embedding(
            config.vocabulary_size,
            config.embedding,
            keras.initializers.RandomNormal(stddev=embedding_deviation(config)),
        )
        self.recurrent = [
            FAST_LAYERS[config.cell](config.units, layout.precision)
            if layout.fast
            else stock_layer(config.cell, config.units, layout.precision)
            for _ in range(config.layers)
        ]
        self.softmax = keras.layers.Dense(config.vocabulary_size)  # it returns logits; the loss normalises them
        self.embedding.build()
        for index, layer in enumerate(self.recurrent):
            layer.build((None, None, config.embedding if index == 0 else config.units))
        self.softmax.build((None, config.units))
        self.built = True

    def zero_state(self, batch_size: int) -> TensorState:
        """The state at the start of B streams."""
        zeros = tf.zeros((batch_size, self.config.units))
        return [(zeros,) * len(CELLS[self.config.cell].STATE) for _ in range(self.config.layers)]

    def call(self, ids: Any, state: TensorState, dropout_seed: Any = None) -> tuple[Any, TensorState]:
        """Read characters.

        Args:
            ids: (B, T) int32.
            state: the state that the previous call returned, or `zero_state`.
            dropout_seed: two integers that determine the dropout masks; None disables dropout.

        Returns:
            The logits of the character after each, (B, T, V), and the state after the last.
        """
        logits, state = self._read(tf.transpose(ids), self._arranged(False), state, dropout_seed)
        return tf.transpose(logits, (1, 0, 2)), state

    def loss_sum(
        self,
        ids: Any,
        targets: Any,
        weights: Any,
        state: TensorState,
        dropout_seed: Any = None,
        exact: bool = False,
        first: int = 0,
    ) -> tuple[Any, TensorState]:
        """Sum the weighted cross-entropies of the targets, in nats, with the parts of the batch in parallel.

        Args:
            ids: (B, T) int32.
            targets: (B, T) int32.
            weights: (B, T) float32, one for each target.
            state: see `call`.
            dropout_seed: see `call`.
            exact: compute in float32, regardless of the layout.
            first: number of the first of the B streams, if others have the rest of the batch.

        Returns:
            The sum, a scalar, and the state after the last character.
        """
        parts = min(self.layout.parts, ids.shape[0])
        sizes = [ids.shape[0] // parts + (part < ids.shape[0] % parts) for part in range(parts)]
        arranged = self._arranged(exact)
        split_state = [[tf.split(tensor, sizes) for tensor in layer_state] for layer_state in state]
        total, states = tf.zeros(()), []
        for part, (part_ids, part_targets, part_weights) in enumerate(
            zip(*(tf.split(tf.transpose(tensor), sizes, axis=1) for tensor in (ids, targets, weights)), strict=True)
        ):
            part_state = [tuple(tensor[part] for tensor in layer_state) for layer_state in split_state]
            logits, part_state = self._read(part_ids, arranged, part_state, dropout_seed, first + sum(sizes[:part]))
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(part_targets, logits)  # (T, B)
            total += tf.reduce_sum(losses * part_weights)
            states.append(part_state)
        joined = [
            tuple(tf.concat(tensors, axis=0) for tensors in zip(*layer_states, strict=True))
            for layer_states in zip(*states, strict=True)
        ]
        return total, joined

    def _arranged(self, exact: bool) -> list[Arranged]:
        """The arranged weights of fast layers, for all parts of the batch."""
        if not self.layout.fast:
            return []
        embedding = tf.convert_to_tensor(self.embedding.embeddings)
        return [layer.arranged(None if index else embedding, exact) for index, layer in enumerate(self.recurrent)]

    def _read(
        self, ids: Any, arranged: list[Arranged], state: TensorState, dropout_seed: Any, first: int = 0
    ) -> tuple[Any, TensorState]:
        """Compute the logits (T, B, V) for ids (T, B), of the streams from `first` on."""
        fast = self.layout.fast
        outputs = ids if fast else self.embedding(tf.transpose(ids))  # (B, T, E)
        new_state: TensorState = []
        is_residual = CELLS[self.config.cell].RESIDUAL
        for index, layer in enumerate(self.recurrent):
            below = outputs
            if not fast:
                outputs, *layer_state = layer(outputs, initial_state=list(state[index]))  # (B, T, H)
                layer_state = [tf.cast(tensor, tf.float32) for tensor in layer_state]  # by a mixed policy bfloat16
            else:
                outputs, *layer_state = layer.over(outputs, arranged[index], *state[index])  # (T, H, B)
            new_state.append(tuple(layer_state))
            if is_residual and index > 0:
                outputs += below  # in the type of both
            if self.dropout and dropout_seed is not None:
                layer_seed = tf.random.experimental.stateless_fold_in(dropout_seed, index)
                if fast:
                    outputs = dropped(outputs, self.dropout, layer_seed, first)
                else:
                    by_time = dropped(tf.transpose(outputs, (1, 2, 0)), self.dropout, layer_seed, first)
                    outputs = tf.transpose(by_time, (2, 0, 1))
        if fast:
            logits = logits_of(outputs, *map(tf.convert_to_tensor, (self.softmax.kernel, self.softmax.bias)))
        else:
            logits = tf.transpose(self.softmax(outputs), (1, 0, 2))
        return logits, new_state

    @property
    def named_weights(self) -> dict[str, Any]:
        """The Keras variables by their names in `config.weight_shapes`, in its order."""
        variables = [self.embedding.embeddings]
        for layer in self.recurrent:
            variables += [getattr(layer.cell, name) for name in CELLS[self.config.cell].weight_shapes(1, 1)]
        variables += [self.softmax.kernel, self.softmax.bias]
        return dict(zip(weight_shapes(self.config), variables, strict=True))

    def to_numpy(self) -> dict[str, Array]:
        """Copies of the weights, in the form that `network.Network` and checkpoints take."""
        return {name: to_numpy(variable) for name, variable in self.named_weights.items()}

    def from_numpy(self, weights: Mapping[str, Array]) -> None:
        """Set the weights to those that `to_numpy` returned."""
        for name, variable in self.named_weights.items():
            variable.assign(weights[name])
