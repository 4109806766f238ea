"""The trained network in NumPy: (ids, state) -> (logits, state), without TensorFlow.

network = Network(config, weights)
logits, state = network.forward(ids, network.zero_state(batch_size))
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from charrnn.network.cells import CELLS, Array, Cell
from charrnn.network.config import NetworkConfig

State = list[tuple[Array, ...]]
"""For each layer, the tensors that `Cell.STATE` names, each (B, H)."""


quietly = np.errstate(all="ignore")
"""Decorates computations with the network: a script's own `np.seterr` neither breaks them nor is changed by them."""


class Network:
    """Embedding -> recurrent layers -> softmax logits, as NumPy arrays.

    The first layer's input projection is a table, (embedding @ kernel + bias), with one row for each character:
    a step looks up a row instead of multiplying a vector by a matrix. One matrix multiplies a layer's output:
    its recurrent kernel, for the next step, stacked on the kernel of the layer above. With a residual connection, the
    lower part of the matrix multiplies what the layer passes on instead.
    """

    @quietly
    def __init__(self, config: NetworkConfig, weights: Mapping[str, Array]) -> None:
        """Take the weights of `weight_shapes(config)`, float32."""
        self.config = config
        self._cell = CELLS[config.cell]
        self._gates = self._cell.GATES * config.units
        kernels, biases, recurrent = [], [], []
        names = self._cell.weight_shapes(1, 1)
        for layer in range(config.layers):
            kernel, bias, *of_h = self._cell.projections({name: weights[f"layer{layer}.{name}"] for name in names})
            kernels.append(kernel)
            biases.append(bias)
            recurrent.append(of_h)
        table = weights["embedding"] @ kernels[0] + biases[0]
        # (V, gates and a cache line): rows a power of two apart would evict each other from the cache.
        self._table = np.pad(table, ((0, 0), (0, _CACHE_LINE // 4)))
        above = zip([*kernels[1:], weights["softmax.kernel"]], [*biases[1:], weights["softmax.bias"]], strict=True)
        self._layers = [
            (own.shape[1], _transposed(own, other), own_bias[:, None], other_bias[:, None])
            for (own, own_bias), (other, other_bias) in zip(recurrent, above, strict=True)
        ]

    def zero_state(self, batch_size: int = 1) -> State:
        """The state before the first character, for B streams."""
        zeros = np.zeros((batch_size, self.config.units), np.float32)
        return [(zeros,) * len(self._cell.STATE) for _ in range(self.config.layers)]

    def start(self, state: State) -> Reader:
        """Start from a state, which is left unchanged, and read one character at a time."""
        cells = [self._cell(*layer, part) for layer, part in zip(self._layers, state, strict=True)]
        return Reader(self._table, self._gates, cells)

    def forward(
        self, ids: npt.NDArray[np.integer], state: State, memories: list[Array] | None = None
    ) -> tuple[Array, State]:
        """Read characters, one layer after the other.

        Args:
            ids: (B, T).
            state: the state before ids[:, 0], from `zero_state` or an earlier call; left unchanged.
            memories: if given, each layer's memory after each character, (T, H, B), is appended.

        Returns:
            Logits of the character after each of them, (B, T, V), and the state after the last.
        """
        x: Array = self._table[ids.T][..., : self._gates]  # (T, B, gates)
        new_state: State = []
        below: Array | None = None  # the outputs of the layer below, for a residual connection
        for (rows, kernel, recurrent_bias, bias), part in zip(self._layers, state, strict=True):
            cell = self._cell(rows, kernel[:rows], recurrent_bias, bias[:0], part)
            outputs = np.empty((*x.shape[:2], self.config.units), np.float32)  # (T, B, H)
            if memories is not None:
                memories.append(np.empty((len(x), *cell.h.shape), np.float32))
            cell.multiply()
            for t in range(len(x)):
                cell.step(x[t].T)
                outputs[t] = cell.h.T
                if memories is not None:
                    memories[-1][t] = cell.memory
            new_state.append(cell.state())
            if below is not None:
                outputs += below
            below = outputs if self._cell.RESIDUAL else None
            # One product for all steps: NumPy would make one for each step, and read the kernel again each time.
            above = outputs.reshape(-1, self.config.units) @ kernel[rows:].T + bias[:, 0]
            x = above.reshape(*outputs.shape[:2], len(bias))
        return x.transpose(1, 0, 2), new_state

    @quietly
    def log_probabilities(self, ids: npt.NDArray[np.integer], state: State) -> tuple[npt.NDArray[np.float64], State]:
        """Compute how probable each of ids[1:] is, given all ids before it.

        Args:
            ids: (T + 1,), one stream.
            state: before ids[0], for one stream.

        Returns:
            Natural logarithms, (T,), and the state before ids[-1].
        """
        logits, state = self.forward(ids[None, :-1], state)
        return log_probabilities(logits[0], ids[1:]), state


class Reader:
    """Reads B streams one character at a time and updates their state in place.

    The arrays of a step have one column for each stream. BLAS is fastest at the product of kernel and state in
    this order, for one stream and for many; and the rows of a gate lie together in memory.
    """

    def __init__(self, table: Array, gates: int, cells: list[Cell]) -> None:
        """Take the first layer's input table, (V, gates or more), and the layers."""
        self._table = table
        self._gates = gates
        self._cells = cells
        for cell in cells:
            cell.multiply()

    def state(self) -> State:
        """A copy of the state, in the form that `Network.start` takes."""
        return [cell.state() for cell in self._cells]

    def read(self, ids: npt.NDArray[np.integer]) -> Array:
        """Read one character of each stream, (B,); return logits of the next, (B, V), valid until the next call."""
        x = self._table.take(ids, axis=0)[:, : self._gates].T
        below: Array | None = None
        for cell in self._cells:
            cell.step(x, below)
            x, below = cell.above, cell.outputs if cell.RESIDUAL else None
        return x.T


def log_probabilities(logits: Array, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Natural logarithms of the probabilities, (B,), that the softmax of logits, (B, V), gives to ids, (B,)."""
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=-1, keepdims=True)
    chosen = scores[np.arange(len(ids)), ids]
    return np.asarray(chosen - np.log(np.exp(scores, out=scores).sum(axis=-1)))


_CACHE_LINE = 64  # bytes


def _transposed(*kernels: Array) -> Array:
    """Stack kernels of h, each (H, columns), as (all columns, H), aligned to a cache line for faster reading."""
    units, columns = len(kernels[0]), sum(kernel.shape[1] for kernel in kernels)
    room = np.empty(columns * units + _CACHE_LINE // 4, np.float32)
    first = -room.__array_interface__["data"][0] % _CACHE_LINE // 4
    stacked = room[first : first + columns * units].reshape(columns, units)
    np.concatenate([kernel.T for kernel in kernels], out=stacked)
    return stacked
