"""The trained network in NumPy: (ids, state) -> (logits, state), without TensorFlow.

network = Network(config, weights)
logits, state = network.forward(ids, network.zero_state(batch_size))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
State = list[tuple[Array, ...]]
"""For each layer its (h, c) of an LSTM or (h,) of a GRU or RNN, each (B, H)."""

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
"""The cells, and how many blocks of H columns their kernels have: i, f, g, o; z, r, h; one."""


@dataclass(frozen=True)
class NetworkConfig:
    """The sizes that the network's shapes follow from."""

    vocabulary_size: int  # V, the ids, the unknown symbol included
    embedding: int  # E, the width of a character's vector
    units: int  # H, of each recurrent layer
    layers: int  # L
    cell: str  # lstm, gru or rnn


def weight_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight, as in Keras' layers, from input to output."""
    gates = GATES[config.cell] * config.units
    shapes: dict[str, tuple[int, ...]] = {"embedding": (config.vocabulary_size, config.embedding)}
    for layer in range(config.layers):
        below = config.embedding if layer == 0 else config.units
        shapes[f"layer{layer}.kernel"] = (below, gates)
        shapes[f"layer{layer}.recurrent_kernel"] = (config.units, gates)
        # Keras' GRU (reset_after, as cuDNN has it) keeps an input and a recurrent bias.
        shapes[f"layer{layer}.bias"] = (2, gates) if config.cell == "gru" else (gates,)
    shapes["softmax.kernel"] = (config.units, config.vocabulary_size)
    shapes["softmax.bias"] = (config.vocabulary_size,)
    return shapes


def state_parts(cell: str) -> tuple[str, ...]:
    """The names of the tensors that make up one layer's state."""
    return ("h", "c") if cell == "lstm" else ("h",)


class Network:
    """Embedding -> recurrent layers -> softmax logits, as NumPy arrays.

    The first layer's input projection is a table: (embedding @ kernel + bias), one row a character,
    so that a step looks a row up where it would multiply a vector by a matrix.
    """

    def __init__(self, config: NetworkConfig, weights: Mapping[str, Array]) -> None:
        """Take the weights of `weight_shapes(config)`, float32."""
        self.config = config
        self._recurrent: list[tuple[Array, Array]] = []  # (H, gates) and its bias, of each layer
        self._input: list[tuple[Array, Array]] = []  # (below, gates) and its bias, of each layer
        units = config.units
        for layer in range(config.layers):
            kernel, recurrent, bias = (
                weights[f"layer{layer}.{part}"] for part in ("kernel", "recurrent_kernel", "bias")
            )
            recurrent_bias = np.zeros(0, np.float32)
            if config.cell == "lstm":
                # sigmoid(x) = tanh(x / 2) / 2 + 1 / 2: with the columns of the three sigmoid gates
                # halved and moved to the front, one tanh serves all four.
                def arrange(a: Array) -> Array:
                    i, f, g, o = np.split(a, 4, axis=-1)
                    return np.concatenate([i / 2, f / 2, o / 2, g], axis=-1)

                kernel, recurrent, bias = arrange(kernel), arrange(recurrent), arrange(bias)
            elif config.cell == "gru":

                def halve(a: Array) -> Array:
                    return np.concatenate([a[..., : 2 * units] / 2, a[..., 2 * units :]], axis=-1)

                kernel, recurrent = halve(kernel), halve(recurrent)
                bias, recurrent_bias = halve(bias[0]), halve(bias[1])
            self._input.append((kernel, bias))
            self._recurrent.append((np.ascontiguousarray(recurrent), recurrent_bias))
        self._table = weights["embedding"] @ self._input[0][0] + self._input[0][1]  # (V, gates)
        self._softmax = weights["softmax.kernel"], weights["softmax.bias"]

    def zero_state(self, batch_size: int = 1) -> State:
        """The state before the first character, for B streams."""
        zeros = np.zeros((batch_size, self.config.units), np.float32)
        return [(zeros,) * len(state_parts(self.config.cell)) for _ in range(self.config.layers)]

    def forward(self, ids: npt.NDArray[np.integer], state: State) -> tuple[Array, State]:
        """Read characters.

        Args:
            ids: (B, T).
            state: what came before, as `zero_state` or an earlier call returned it; left unchanged.

        Returns:
            Logits of the character after each of them, (B, T, V), and the state after the last.
        """
        run = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}[self.config.cell]
        x = self._table[ids.T]  # (T, B, gates): time first, so that a step is contiguous
        new_state: State = []
        for layer, (recurrent, recurrent_bias) in enumerate(self._recurrent):
            if layer > 0:
                kernel, bias = self._input[layer]
                x = x @ kernel + bias
            x, layer_state = run(x, recurrent, recurrent_bias, state[layer])  # (T, B, H)
            new_state.append(layer_state)
        kernel, bias = self._softmax
        return (x @ kernel + bias).transpose(1, 0, 2), new_state

    def log_probabilities(self, ids: npt.NDArray[np.integer], state: State) -> tuple[npt.NDArray[np.float64], State]:
        """How probable ids[1:] are, each given what came before it.

        Args:
            ids: (T + 1,), one stream.
            state: before ids[0], for one stream.

        Returns:
            Natural logarithms, (T,), and the state before ids[-1].
        """
        logits, state = self.forward(ids[None, :-1], state)
        return log_probabilities(logits[0], ids[1:]), state

    def loss(self, ids: npt.NDArray[np.integer], state: State) -> tuple[float, State]:
        """Cross-entropy of ids[1:] given what came before each, in nats, summed: as `log_probabilities`."""
        found, state = self.log_probabilities(ids, state)
        return -float(found.sum()), state


def log_probabilities(logits: Array, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Natural logarithms of the probabilities, (B,), that the softmax of logits, (B, V), gives to ids, (B,)."""
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=-1, keepdims=True)
    chosen = scores[np.arange(len(ids)), ids]
    return np.asarray(chosen - np.log(np.exp(scores, out=scores).sum(axis=-1)))


def _lstm(x: Array, recurrent: Array, _: Array, state: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
    """Run one LSTM layer over projected inputs x (T, B, 4H), gates arranged as i/2, f/2, o/2, g."""
    h, c = state
    units = h.shape[1]
    outputs = np.empty((*x.shape[:2], units), np.float32)
    gates = np.empty(x.shape[1:], np.float32)
    tanhs, g = gates[:, : 3 * units], gates[:, 3 * units :]
    sigmoids = np.empty(tanhs.shape, np.float32)  # apart from gates: contiguous rows are faster
    i, f, o = (sigmoids[:, k * units : (k + 1) * units] for k in range(3))
    for t in range(len(x)):
        np.matmul(h, recurrent, out=gates)
        np.add(gates, x[t], out=gates)
        np.tanh(gates, out=gates)
        np.multiply(tanhs, 0.5, out=sigmoids)
        np.add(sigmoids, 0.5, out=sigmoids)
        c = f * c
        np.multiply(i, g, out=i)
        np.add(c, i, out=c)
        h = outputs[t]
        np.tanh(c, out=h)
        np.multiply(h, o, out=h)
    return outputs, (h, c)


def _gru(
    x: Array, recurrent: Array, recurrent_bias: Array, state: tuple[Array, ...]
) -> tuple[Array, tuple[Array, ...]]:
    """Run one GRU layer (reset after the product) over x (T, B, 3H), gates as z/2, r/2, h."""
    (h,) = state
    units = h.shape[1]
    outputs = np.empty((*x.shape[:2], units), np.float32)
    for t in range(len(x)):
        inner = h @ recurrent + recurrent_bias
        gates = np.tanh(x[t, :, : 2 * units] + inner[:, : 2 * units]) * 0.5 + 0.5
        z, r = gates[:, :units], gates[:, units:]
        candidate = np.tanh(x[t, :, 2 * units :] + r * inner[:, 2 * units :])
        outputs[t] = candidate + z * (h - candidate)
        h = outputs[t]
    return outputs, (h,)


def _rnn(x: Array, recurrent: Array, _: Array, state: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
    """Run one plain tanh layer over x (T, B, H)."""
    (h,) = state
    outputs = np.empty_like(x)
    for t in range(len(x)):
        h = np.tanh(x[t] + h @ recurrent, out=outputs[t])
    return outputs, (h,)
