"""The recurrent layers, a class each: sizes, state, and a step in NumPy."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

_HALF = np.array(0.5, np.float32)  # an array, which operations take faster than a number


class Cell:
    """One recurrent layer of B streams; all it has are columns, one a stream.

    Attributes:
        GATES: how many blocks of H columns its kernels have.
        STATE: the names of the tensors that make up its state; the first is its output.
        HAS_RECURRENT_BIAS: whether the recurrent product has a bias of its own, beside that of the input.
        h: its output, (H, B); each step overwrites it. It is to be multiplied before the first.
        above: the projection of h for what is above, biased; each step overwrites it.
    """

    GATES: ClassVar[int] = 1
    STATE: ClassVar[tuple[str, ...]] = ("h",)
    HAS_RECURRENT_BIAS: ClassVar[bool] = False

    def __init__(self, gates: int, kernel: Array, recurrent_bias: Array, bias: Array, state: tuple[Array, ...]) -> None:
        """Take up a state.

        Args:
            gates: rows of the recurrent kernel.
            kernel: what h is multiplied by, (gates + above, H): the recurrent kernel's rows, then those of the layer
                above.
            recurrent_bias: (gates, 1), or none.
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


class _Lstm(Cell):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997, Neural Computation 9); a kernel's gates are i, f, g, o.

    Here the gates' rows are o, i, f, g; c follows them, so that i * g and f * c are one operation.

    sigmoid(x) = tanh(x / 2) / 2 + 1 / 2: with the weights of the three sigmoid gates halved, one tanh serves all four.
    """

    GATES = 4
    STATE = ("h", "c")

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


class _Gru(Cell):
    """Gated recurrent unit (Cho et al., 2014, arXiv:1406.1078), reset after the product; its gates are z, r, h.

    The rows of the first two are halved as an LSTM's are.
    """

    GATES = 3
    HAS_RECURRENT_BIAS = True

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


class _Rnn(Cell):
    """A plain tanh layer."""

    def advance(self, x: Array) -> None:
        np.tanh(self._recurrent + x, self.h)


CELLS: dict[str, type[Cell]] = {"lstm": _Lstm, "gru": _Gru, "rnn": _Rnn}
