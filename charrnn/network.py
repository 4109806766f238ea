"""The trained network in NumPy: (ids, state) -> (logits, state), without TensorFlow.

network = Network(config, weights)
logits, state = network.forward(ids, network.zero_state(batch_size))
"""

from __future__ import annotations

import math
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


def count_weights(config: NetworkConfig) -> int:
    """How many numbers the network is made of."""
    return sum(map(math.prod, weight_shapes(config).values()))


def state_parts(cell: str) -> tuple[str, ...]:
    """The names of the tensors that make up one layer's state."""
    return ("h", "c") if cell == "lstm" else ("h",)


quietly = np.errstate(all="ignore")
"""Decorates what computes with the network: a script's own `np.seterr` neither breaks it nor is changed by it."""


class Network:
    """Embedding -> recurrent layers -> softmax logits, as NumPy arrays.

    The first layer's input projection is a table: (embedding @ kernel + bias), one row a character,
    so that a step looks a row up where it would multiply a vector by a matrix. What else multiplies a layer's
    output is one matrix: its recurrent kernel, for the next step, and below it the kernel of the layer above.
    """

    @quietly
    def __init__(self, config: NetworkConfig, weights: Mapping[str, Array]) -> None:
        """Take the weights of `weight_shapes(config)`, float32."""
        self.config = config
        self._cell = _CELLS[config.cell]
        self._gates = GATES[config.cell] * config.units
        kernels, biases, recurrent = [], [], []
        for layer in range(config.layers):
            kernel, recurrent_kernel, bias = (
                self._cell.arrange(weights[f"layer{layer}.{part}"]) for part in ("kernel", "recurrent_kernel", "bias")
            )
            bias, recurrent_bias = bias if config.cell == "gru" else (bias, bias[:0])
            kernels.append(kernel)
            biases.append(bias)
            recurrent.append((recurrent_kernel, recurrent_bias))
        table = weights["embedding"] @ kernels[0] + biases[0]
        # (V, gates and a cache line): rows a power of two apart would take each other's places in the cache.
        self._table = np.pad(table, ((0, 0), (0, _CACHE_LINE // 4)))
        above = zip([*kernels[1:], weights["softmax.kernel"]], [*biases[1:], weights["softmax.bias"]], strict=True)
        self._layers = [
            (_transposed(own, other), own_bias[:, None], other_bias[:, None])
            for (own, own_bias), (other, other_bias) in zip(recurrent, above, strict=True)
        ]

    def zero_state(self, batch_size: int = 1) -> State:
        """The state before the first character, for B streams."""
        zeros = np.zeros((batch_size, self.config.units), np.float32)
        return [(zeros,) * len(state_parts(self.config.cell)) for _ in range(self.config.layers)]

    def start(self, state: State) -> Reader:
        """Go on from a state, which is left unchanged, a character at a time."""
        cells = [self._cell(self._gates, *layer, part) for layer, part in zip(self._layers, state, strict=True)]
        return Reader(self._table, self._gates, cells)

    def forward(self, ids: npt.NDArray[np.integer], state: State) -> tuple[Array, State]:
        """Read characters, one layer after the other.

        Args:
            ids: (B, T).
            state: what came before, as `zero_state` or an earlier call returned it; left unchanged.

        Returns:
            Logits of the character after each of them, (B, T, V), and the state after the last.
        """
        gates = self._gates
        x: Array = self._table[ids.T][..., :gates]  # (T, B, gates)
        new_state: State = []
        for (kernel, recurrent_bias, bias), part in zip(self._layers, state, strict=True):
            cell = self._cell(gates, kernel[:gates], recurrent_bias, bias[:0], part)
            outputs = np.empty((*x.shape[:2], self.config.units), np.float32)  # (T, B, H)
            cell.multiply()
            for t in range(len(x)):
                cell.step(x[t].T)
                outputs[t] = cell.h.T
            new_state.append(cell.state())
            # One product for all steps: NumPy would make one a step, and read the kernel anew for each.
            above = outputs.reshape(-1, self.config.units) @ kernel[gates:].T + bias[:, 0]
            x = above.reshape(*outputs.shape[:2], len(bias))
        return x.transpose(1, 0, 2), new_state

    @quietly
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
    """B streams that are read a character at a time, their state in place.

    What a step works on has a column for each stream: a product of kernel and state, in this order, is what
    BLAS is fastest at, for one stream and for many; and the gates are rows that lie together.
    """

    def __init__(self, table: Array, gates: int, cells: list[_Cell]) -> None:
        """Take the first layer's input table, (V, gates or more), and the layers."""
        self._table = table
        self._gates = gates
        self._cells = cells
        for cell in cells:
            cell.multiply()

    def state(self) -> State:
        """A copy of it, as `Network.start` takes it."""
        return [cell.state() for cell in self._cells]

    def read(self, ids: npt.NDArray[np.integer]) -> Array:
        """Read one character of each stream, (B,): logits of the next, (B, V), until the next call."""
        x = self._table.take(ids, axis=0)[:, : self._gates].T
        for cell in self._cells:
            cell.step(x)
            x = cell.above
        return x.T


def log_probabilities(logits: Array, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Natural logarithms of the probabilities, (B,), that the softmax of logits, (B, V), gives to ids, (B,)."""
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=-1, keepdims=True)
    chosen = scores[np.arange(len(ids)), ids]
    return np.asarray(chosen - np.log(np.exp(scores, out=scores).sum(axis=-1)))


_CACHE_LINE = 64  # bytes


def _transposed(*kernels: Array) -> Array:
    """Kernels of h, each (H, columns), as one, (all columns, H), which starts with a cache line and is read faster."""
    units, columns = len(kernels[0]), sum(kernel.shape[1] for kernel in kernels)
    room = np.empty(columns * units + _CACHE_LINE // 4, np.float32)
    first = -room.__array_interface__["data"][0] % _CACHE_LINE // 4
    stacked = room[first : first + columns * units].reshape(columns, units)
    np.concatenate([kernel.T for kernel in kernels], out=stacked)
    return stacked


_HALF = np.array(0.5, np.float32)  # an array, which operations take faster than a number


class _Cell:
    """One recurrent layer of B streams; all it has are columns, one a stream.

    Attributes:
        h: its output, (H, B); each step overwrites it. It is to be multiplied before the first.
        above: the projection of h for what is above, biased; each step overwrites it.
    """

    def __init__(self, gates: int, kernel: Array, recurrent_bias: Array, bias: Array, state: tuple[Array, ...]) -> None:
        """Take up a state.

        Args:
            gates: rows of the recurrent kernel.
            kernel: what h is multiplied by, (gates + above, H): the recurrent kernel's rows, then those of the layer
                above.
            recurrent_bias: (gates, 1), of a GRU.
            bias: of what is above, (above, 1).
            state: (h, ...), each (B, H); copied.
        """
        self._recurrent_bias = recurrent_bias
        self._bias = bias
        self.h: Array = state[0].T.copy()
        self._kernel = kernel
        self._product: Array = np.empty((len(kernel), self.h.shape[1]), np.float32)
        self._recurrent, self.above = self._product[:gates], self._product[gates:]

    @staticmethod
    def arrange(weight: Array) -> Array:
        """A kernel or bias, (..., gates), with its columns in the cell's order."""
        return weight

    def state(self) -> tuple[Array, ...]:
        """A copy of what goes on to the next step, each (B, H)."""
        return (self.h.T.copy(),)

    def multiply(self) -> None:
        """Make of h what the next step needs, and what is above, but for its bias."""
        np.dot(self._kernel, self.h, self._product)

    def step(self, x: Array) -> None:
        """Take the projection of the input, (gates, B)."""
        self.advance(x)
        self.multiply()
        np.add(self.above, self._bias, self.above)

    def advance(self, x: Array) -> None:
        """Make the next h of the input's projection, (gates, B), and that of h: the first part of a step."""
        raise NotImplementedError


class _Lstm(_Cell):
    """Its gates' rows are o, i, f, g; c follows them, so that i * g and f * c are one operation.

    sigmoid(x) = tanh(x / 2) / 2 + 1 / 2: with the weights of the three sigmoid gates halved, one tanh serves all four.
    """

    def __init__(self, gates: int, kernel: Array, recurrent_bias: Array, bias: Array, state: tuple[Array, ...]) -> None:
        super().__init__(gates, kernel, recurrent_bias, bias, state)
        units, streams = self.h.shape
        rows = np.empty((5 * units, streams), np.float32)
        self._gates, self._sigmoids, self._o = (rows[: n * units] for n in (4, 3, 1))
        self._i, self._f, self._c = (rows[n * units : (n + 1) * units] for n in (1, 2, 4))
        self._i_f, self._g_c = rows[units : 3 * units], rows[3 * units :]
        self._c[...] = state[1].T

    @staticmethod
    def arrange(weight: Array) -> Array:
        i, f, g, o = np.split(weight, 4, axis=-1)
        return np.concatenate([o / 2, i / 2, f / 2, g], axis=-1)

    def state(self) -> tuple[Array, ...]:
        return self.h.T.copy(), self._c.T.copy()

    def advance(self, x: Array) -> None:
        gates, sigmoids, i_f, c, h = self._gates, self._sigmoids, self._i_f, self._c, self.h
        np.add(self._recurrent, x, gates)
        np.tanh(gates, gates)
        np.multiply(sigmoids, _HALF, sigmoids)
        np.add(sigmoids, _HALF, sigmoids)
        np.multiply(i_f, self._g_c, i_f)
        np.add(self._i, self._f, c)
        np.tanh(c, h)
        np.multiply(h, self._o, h)


class _Gru(_Cell):
    """Its gates' rows are z, r, h, the first two halved as an LSTM's are; reset after the product."""

    @staticmethod
    def arrange(weight: Array) -> Array:
        z, r, h = np.split(weight, 3, axis=-1)
        return np.concatenate([z / 2, r / 2, h], axis=-1)

    def advance(self, x: Array) -> None:
        h, recurrent, units = self.h, self._recurrent + self._recurrent_bias, len(self.h)
        gates = np.tanh(x[: 2 * units] + recurrent[: 2 * units]) * _HALF + _HALF
        z, r = gates[:units], gates[units:]
        candidate = np.tanh(x[2 * units :] + r * recurrent[2 * units :])
        np.add(candidate, z * (h - candidate), h)


class _Rnn(_Cell):
    """A plain tanh layer."""

    def advance(self, x: Array) -> None:
        np.tanh(self._recurrent + x, self.h)


_CELLS: dict[str, type[_Cell]] = {"lstm": _Lstm, "gru": _Gru, "rnn": _Rnn}
