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
"""For each layer the tensors that `Cell.STATE` names, each (B, H)."""


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
        self._cell = CELLS[config.cell]
        self._gates = self._cell.GATES * config.units
        kernels, biases, recurrent = [], [], []
        for layer in range(config.layers):
            kernel, recurrent_kernel, bias = (
                self._cell.arrange(weights[f"layer{layer}.{part}"]) for part in ("kernel", "recurrent_kernel", "bias")
            )
            bias, recurrent_bias = bias if self._cell.HAS_RECURRENT_BIAS else (bias, bias[:0])
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
        return [(zeros,) * len(self._cell.STATE) for _ in range(self.config.layers)]

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


class Reader:
    """B streams that are read a character at a time, their state in place.

    What a step works on has a column for each stream: a product of kernel and state, in this order, is what
    BLAS is fastest at, for one stream and for many; and the gates are rows that lie together.
    """

    def __init__(self, table: Array, gates: int, cells: list[Cell]) -> None:
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
