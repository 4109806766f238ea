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
        cell = _CELLS[config.cell]
        self._recurrent: list[tuple[Array, Array]] = []  # (gates, H) and its bias, (gates, 1), of each layer
        projections: list[tuple[Array, Array]] = []  # (gates, below) and its bias, into each layer
        for layer in range(config.layers):
            kernel, recurrent, bias = (
                cell.arrange(weights[f"layer{layer}.{part}"]) for part in ("kernel", "recurrent_kernel", "bias")
            )
            bias, recurrent_bias = bias.T if config.cell == "gru" else (bias, bias[:0])
            projections.append((kernel, bias))
            self._recurrent.append((recurrent, recurrent_bias[:, None]))
        projections.append((_Cell.arrange(weights["softmax.kernel"]), weights["softmax.bias"]))
        kernel, bias = projections[0]
        self._table = weights["embedding"] @ kernel.T + bias  # (V, gates)
        self._projections = projections[1:]

    def zero_state(self, batch_size: int = 1) -> State:
        """The state before the first character, for B streams."""
        zeros = np.zeros((batch_size, self.config.units), np.float32)
        return [(zeros,) * len(state_parts(self.config.cell)) for _ in range(self.config.layers)]

    def start(self, state: State) -> Reader:
        """Go on from a state, which is left unchanged, a character at a time."""
        cell = _CELLS[self.config.cell]
        layers = [cell(*recurrent, part) for recurrent, part in zip(self._recurrent, state, strict=True)]
        return Reader(self._table, layers, self._projections)

    def forward(self, ids: npt.NDArray[np.integer], state: State) -> tuple[Array, State]:
        """Read characters.

        Args:
            ids: (B, T).
            state: what came before, as `zero_state` or an earlier call returned it; left unchanged.

        Returns:
            Logits of the character after each of them, (B, T, V), and the state after the last.
        """
        reader = self.start(state)
        return reader.read_all(ids), reader.state

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


class Reader:
    """B streams being read, their state in place.

    What a step works on has a column for each stream: a product of kernel and state, in this order, is what
    BLAS is fastest at, for one stream and for many; and the gates are rows that lie together.
    """

    def __init__(self, table: Array, layers: list[_Cell], projections: list[tuple[Array, Array]]) -> None:
        """Take the first layer's input table, the layers, and what each one's output goes through."""
        self._table = table
        self._layers = layers
        self._projections = [(kernel, bias, bias[:, None]) for kernel, bias in projections]

    @property
    def state(self) -> State:
        """A copy of it."""
        return [tuple(part.T.copy() for part in layer.state) for layer in self._layers]

    def read(self, ids: npt.NDArray[np.integer]) -> Array:
        """Read one character of each stream, (B,): logits of the next, (B, V)."""
        x: Array = self._table.take(ids, axis=0).T
        for layer, (kernel, _, bias) in zip(self._layers, self._projections, strict=True):
            layer.step(x)
            x = np.dot(kernel, layer.h)
            np.add(x, bias, x)
        return x.T

    def read_all(self, ids: npt.NDArray[np.integer]) -> Array:
        """Read characters, (B, T), a layer after the other: logits after each, (B, T, V)."""
        x: Array = self._table[ids.T]  # (T, B, gates)
        for layer, (kernel, bias, _) in zip(self._layers, self._projections, strict=True):
            outputs = np.empty((*x.shape[:2], len(layer.h)), np.float32)  # (T, B, H)
            for t in range(len(x)):
                layer.step(x[t].T)
                outputs[t] = layer.h.T
            x = outputs @ kernel.T + bias
        return x.transpose(1, 0, 2)


def log_probabilities(logits: Array, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Natural logarithms of the probabilities, (B,), that the softmax of logits, (B, V), gives to ids, (B,)."""
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=-1, keepdims=True)
    chosen = scores[np.arange(len(ids)), ids]
    return np.asarray(chosen - np.log(np.exp(scores, out=scores).sum(axis=-1)))


_HALF = np.array(0.5, np.float32)  # an array, which operations take faster than a number


class _Cell:
    """One recurrent layer of B streams.

    Attributes:
        h: its output, (H, B), overwritten by each step.
        state: what it hands on from step to step, each (H, B); h is the first.
    """

    def __init__(self, kernel: Array, bias: Array, state: tuple[Array, ...]) -> None:
        """Take the recurrent kernel, (gates, H), and its bias, (gates, 1), as arranged, and a state, each (B, H)."""
        self._kernel = kernel
        self._bias = bias
        self.state = tuple(part.T.copy() for part in state)
        self.h = self.state[0]

    @staticmethod
    def arrange(weight: Array) -> Array:
        """A kernel or bias, (..., gates), as the cell wants it: (gates, ...), contiguous."""
        return np.ascontiguousarray(weight.T)

    def step(self, x: Array) -> None:
        """Take the input's projection, (gates, B), and make the next h of it."""
        raise NotImplementedError


class _Lstm(_Cell):
    """Its gates' rows are o, i, f, g; c follows them, so that i * g and f * c are one operation.

    sigmoid(x) = tanh(x / 2) / 2 + 1 / 2: with the weights of the three sigmoid gates halved, one tanh serves all four.
    """

    def __init__(self, kernel: Array, bias: Array, state: tuple[Array, ...]) -> None:
        super().__init__(kernel, bias, state)
        units, streams = self.h.shape
        rows = np.empty((5 * units, streams), np.float32)
        self._gates, self._sigmoids, self._o = (rows[: n * units] for n in (4, 3, 1))
        self._i, self._f, self._c = (rows[n * units : (n + 1) * units] for n in (1, 2, 4))
        self._i_f, self._g_c = rows[units : 3 * units], rows[3 * units :]
        self._c[...] = self.state[1]
        self.state = self.h, self._c

    @staticmethod
    def arrange(weight: Array) -> Array:
        i, f, g, o = np.split(weight, 4, axis=-1)
        return _Cell.arrange(np.concatenate([o / 2, i / 2, f / 2, g], axis=-1))

    def step(self, x: Array) -> None:
        gates, sigmoids, c, h = self._gates, self._sigmoids, self._c, self.h
        np.dot(self._kernel, h, gates)
        np.add(gates, x, gates)
        np.tanh(gates, gates)
        np.multiply(sigmoids, _HALF, sigmoids)
        np.add(sigmoids, _HALF, sigmoids)
        np.multiply(self._i_f, self._g_c, self._i_f)
        np.add(self._i, self._f, c)
        np.tanh(c, h)
        np.multiply(h, self._o, h)


class _Gru(_Cell):
    """Its gates' rows are z, r, h, the first two halved as an LSTM's are; reset after the product."""

    @staticmethod
    def arrange(weight: Array) -> Array:
        z, r, h = np.split(weight, 3, axis=-1)
        return _Cell.arrange(np.concatenate([z / 2, r / 2, h], axis=-1))

    def step(self, x: Array) -> None:
        h, units = self.h, len(self.h)
        inner = np.dot(self._kernel, h) + self._bias
        gates = np.tanh(x[: 2 * units] + inner[: 2 * units]) * _HALF + _HALF
        z, r = gates[:units], gates[units:]
        candidate = np.tanh(x[2 * units :] + r * inner[2 * units :])
        np.add(candidate, z * (h - candidate), h)


class _Rnn(_Cell):
    """A plain tanh layer."""

    def step(self, x: Array) -> None:
        np.tanh(x + np.dot(self._kernel, self.h), self.h)


_CELLS: dict[str, type[_Cell]] = {"lstm": _Lstm, "gru": _Gru, "rnn": _Rnn}
