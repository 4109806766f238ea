"""The recurrent layers, one class each: sizes, state, and a step in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

_HALF = np.array(0.5, np.float32)  # an array, because NumPy operations are faster with it than with a number


class Cell:
    """One recurrent layer for B streams; its arrays have one column for each stream.

    Attributes:
        GATES: the number of blocks of H columns in its kernels.
        STATE: the names of the tensors that make up its state; the first is its output.
        RESIDUAL: whether the layer adds the output of the layer below to its own, which the layers above then read.
        FORGET: the place of the forget gate among its gates, whose bias training starts at 1; None without such a bias.
        STOCK: whether Keras has a layer that computes the same.
        TITLE: its name in messages.
        h: its output, (H, B); each step overwrites it. Call `multiply` before the first step.
        outputs: what the layers above read: h, or with a residual connection, h and the outputs of the layer below.
        above: the projection of the outputs for the layer above, bias included; each step overwrites it.
    """

    GATES: ClassVar[int] = 1
    RESIDUAL: ClassVar[bool] = False
    FORGET: ClassVar[int | None] = None
    STOCK: ClassVar[bool] = True
    TITLE: ClassVar[str]
    STATE: ClassVar[tuple[str, ...]] = ("h",)

    def __init__(self, rows: int, kernel: Array, recurrent_bias: Array, bias: Array, state: tuple[Array, ...]) -> None:
        """Start from a state.

        Args:
            rows: of the recurrent kernel.
            kernel: the matrix that multiplies h, (rows + above, H): the rows of the recurrent kernel, then those of
                the layer above.
            recurrent_bias: (rows, 1), or empty.
            bias: of the layer above, (above, 1).
            state: (h, ...), each (B, H); copied.
        """
        self._recurrent_bias = recurrent_bias
        self._bias = bias
        self.h: Array = state[0].T.copy()
        self.outputs = self.h
        self._kernel = kernel
        self._product: Array = np.empty((len(kernel), self.h.shape[1]), np.float32)
        self._recurrent, self.above = self._product[:rows], self._product[rows:]

    @classmethod
    def weight_shapes(cls, inputs: int, units: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of each weight of a layer with I inputs and H units, as in the cell's Keras layer."""
        gates = cls.GATES * units
        return {"kernel": (inputs, gates), "recurrent_kernel": (units, gates), "bias": (gates,)}

    @classmethod
    def projections(cls, weights: Mapping[str, Array]) -> tuple[Array, Array, Array, Array]:
        """Arrange the weights of a layer for its steps.

        Returns:
            The kernel and the bias of the input, (I, gates) and (gates,), then those of h, (H, rows) and (rows,) or
            (0,).
        """
        kernel, recurrent_kernel, bias = (cls.arrange(weights[name]) for name in ("kernel", "recurrent_kernel", "bias"))
        return kernel, bias, recurrent_kernel, bias[:0]

    @staticmethod
    def arrange(weight: Array) -> Array:
        """Put the columns of a kernel or bias, (..., gates), in the cell's order."""
        return weight

    def state(self) -> tuple[Array, ...]:
        """A copy of the state for the next step, each (B, H)."""
        return (self.h.T.copy(),)

    @property
    def memory(self) -> Array:
        """What the layer remembers, (H, B), a view: c of an LSTM, h of the others."""
        return self.h

    def multiply(self) -> None:
        """Multiply h by the kernel: the recurrent part of the next step, and of h, `above` without its bias."""
        np.dot(self._kernel, self.h, self._product)

    def step(self, x: Array, below: Array | None = None) -> None:
        """Make one step.

        Args:
            x: projection of the input, (gates, B).
            below: the outputs of the layer below, (H, B), to which a residual connection adds h; None without one.
        """
        self.advance(x)
        if below is None:
            self.multiply()
        else:
            np.dot(self._kernel[: len(self._recurrent)], self.h, self._recurrent)
            self.outputs = self.h + below
            np.dot(self._kernel[len(self._recurrent) :], self.outputs, self.above)
        np.add(self.above, self._bias, self.above)

    def advance(self, x: Array) -> None:
        """Compute the next h from the projections of the input, (gates, B), and of h: the first part of a step."""
        raise NotImplementedError


class _Lstm(Cell):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997, Neural Computation 9); its gates are i, f, g, o.

    Here the rows of the gates are o, i, f, g, followed by c, so that i * g and f * c are one operation.

    sigmoid(x) = tanh(x / 2) / 2 + 1 / 2: with the weights of the three sigmoid gates halved, one tanh serves all four.
    """

    GATES = 4
    FORGET = 1
    STATE = ("h", "c")
    TITLE = "LSTM"

    def __init__(self, rows: int, kernel: Array, recurrent_bias: Array, bias: Array, state: tuple[Array, ...]) -> None:
        super().__init__(rows, kernel, recurrent_bias, bias, state)
        units, streams = self.h.shape
        work = np.empty((5 * units, streams), np.float32)
        self._gates, self._sigmoids, self._o = (work[: n * units] for n in (4, 3, 1))
        self._i, self._f, self._c = (work[n * units : (n + 1) * units] for n in (1, 2, 4))
        self._i_f, self._g_c = work[units : 3 * units], work[3 * units :]
        self._c[...] = state[1].T

    @staticmethod
    def arrange(weight: Array) -> Array:
        i, f, g, o = np.split(weight, 4, axis=-1)
        return np.concatenate([o / 2, i / 2, f / 2, g], axis=-1)

    def state(self) -> tuple[Array, ...]:
        return self.h.T.copy(), self._c.T.copy()

    @property
    def memory(self) -> Array:
        return self._c

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


class _CoupledLstm(Cell):
    """An LSTM whose input gate is what its forget gate leaves; its gates are f, g, o.

    With coupled gates (Greff et al., 2017, IEEE TNNLS 28), c is a weighted mean of values between -1 and 1, so its
    output needs no tanh. A layer above another adds the outputs below to its own (He et al., 2016, arXiv:1512.03385).

    The rows of the gates are o, f, g; those of the sigmoid gates are halved, as in the LSTM.
    """

    GATES = 3
    STATE = ("h", "c")
    RESIDUAL = True
    FORGET = 0
    STOCK = False
    TITLE = "coupled LSTM"

    def __init__(self, rows: int, kernel: Array, recurrent_bias: Array, bias: Array, state: tuple[Array, ...]) -> None:
        super().__init__(rows, kernel, recurrent_bias, bias, state)
        units = len(self.h)
        self._gates: Array = np.empty((3 * units, self.h.shape[1]), np.float32)
        self._sigmoids = self._gates[: 2 * units]
        self._o, self._f, self._g = (self._gates[n * units : (n + 1) * units] for n in range(3))
        self._c: Array = state[1].T.copy()

    @staticmethod
    def arrange(weight: Array) -> Array:
        f, g, o = np.split(weight, 3, axis=-1)
        return np.concatenate([o / 2, f / 2, g], axis=-1)

    def state(self) -> tuple[Array, ...]:
        return self.h.T.copy(), self._c.T.copy()

    @property
    def memory(self) -> Array:
        return self._c

    def advance(self, x: Array) -> None:
        gates, sigmoids, g, c = self._gates, self._sigmoids, self._g, self._c
        np.add(self._recurrent, x, gates)
        np.tanh(gates, gates)
        np.multiply(sigmoids, _HALF, sigmoids)
        np.add(sigmoids, _HALF, sigmoids)
        np.subtract(c, g, c)
        np.multiply(c, self._f, c)
        np.add(c, g, c)
        np.multiply(c, self._o, self.h)


class _Gru(Cell):
    """Gated recurrent unit (Cho et al., 2014, arXiv:1406.1078), reset after the product; its gates are z, r, h.

    The rows of the first two are halved, as in the LSTM.
    """

    GATES = 3
    TITLE = "GRU"

    @classmethod
    def weight_shapes(cls, inputs: int, units: int) -> dict[str, tuple[int, ...]]:
        return {**super().weight_shapes(inputs, units), "bias": (2, 3 * units)}  # one for the input, one for h

    @classmethod
    def projections(cls, weights: Mapping[str, Array]) -> tuple[Array, Array, Array, Array]:
        kernel, biases, recurrent_kernel, _ = super().projections(weights)
        return kernel, biases[0], recurrent_kernel, biases[1]

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

    TITLE = "RNN"

    def advance(self, x: Array) -> None:
        np.tanh(self._recurrent + x, self.h)


CELLS: dict[str, type[Cell]] = {"coupled": _CoupledLstm, "lstm": _Lstm, "gru": _Gru, "rnn": _Rnn}
