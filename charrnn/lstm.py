"""The LSTM layer, fast on CPUs: the mathematics and weights of `keras.layers.LSTM`, another way through it.

Three things make it fast. The loop over time holds one matrix product and element-wise work, and its
gradient is derived by hand: what the backward pass needs is kept without copies, and the weights'
gradient is one product after the loop instead of one a step. The first layer's input projection is a
table of rows, one a character, looked up where Keras multiplies. And the operands of the products may be
bfloat16, with state, gates, weights and element-wise work in float32.

Tensors are time-major within: (T, B, ...).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from charrnn.backend import keras, tf

Tensor = Any


class FastLSTM(keras.layers.LSTM):  # type: ignore[misc]  # Keras has no types
    """A `keras.layers.LSTM` (return_sequences and return_state) whose `call` is the way below.

    Weights, their names, their initialisation and their order are Keras' own: `get_weights` and
    `set_weights` exchange them with a stock layer.
    """

    def __init__(self, units: int, operands: str = "float32") -> None:
        """Make a layer of H units.

        Args:
            units: H.
            operands: `float32` or `bfloat16`, for the matrix products.
        """
        super().__init__(units, return_sequences=True, return_state=True)
        self.operands = tf.as_dtype(operands)

    def call(
        self, sequences: Tensor, initial_state: Any = None, mask: None = None, training: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run over vectors.

        Args:
            sequences: (B, T, I) float32.
            initial_state: h and c, each (B, H); zeros if not given.
            mask: not supported.
            training: makes no difference.

        Returns:
            The outputs (B, T, H), and h and c (B, H) after the last step.
        """
        if mask is not None:
            raise NotImplementedError("FastLSTM takes no mask")
        h, c = initial_state or self.get_initial_state(tf.shape(sequences)[0])
        inputs = tf.cast(tf.transpose(sequences, (1, 0, 2)), self.operands)
        outputs, h, c = self.over_vectors(inputs, (h, c))
        return tf.cast(tf.transpose(outputs, (1, 0, 2)), tf.float32), h, c

    def over_vectors(self, inputs: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """`lstm_over_vectors` with this layer's weights."""
        kernel, recurrent_kernel, bias = map(
            tf.convert_to_tensor, (self.cell.kernel, self.cell.recurrent_kernel, self.cell.bias)
        )
        return lstm_over_vectors(inputs, kernel, recurrent_kernel, bias, *state, self.operands)

    def over_ids(self, ids: Tensor, table: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """`lstm_over_ids` with this layer's weights."""
        recurrent_kernel = tf.convert_to_tensor(self.cell.recurrent_kernel)
        return lstm_over_ids(ids, table, recurrent_kernel, *state, self.operands)

    def table(self, embedding: Tensor) -> Tensor:
        """This layer's input projection of every character, (V, 4H), from their vectors (V, E)."""
        return tf.matmul(embedding, tf.convert_to_tensor(self.cell.kernel)) + tf.convert_to_tensor(self.cell.bias)


def lstm_over_ids(
    ids: Tensor, table: Tensor, recurrent_kernel: Tensor, h: Tensor, c: Tensor, operands: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the first layer over characters.

    Args:
        ids: (T, B) int32.
        table: (V, 4H) float32, from `FastLSTM.table`.
        recurrent_kernel: (H, 4H) float32, gates i, f, g, o.
        h: (B, H) float32, the state before the first character.
        c: (B, H) float32.
        operands: tf.float32 or tf.bfloat16, for the matrix products.

    Returns:
        The outputs (T, B, H) as `operands`, and h and c (B, H) float32 after the last character.
    """
    vocabulary_size = table.shape[0]

    @tf.custom_gradient  # type: ignore[untyped-decorator]  # TensorFlow has no types
    def run(table: Tensor, recurrent_kernel: Tensor, h: Tensor, c: Tensor) -> Any:
        weights = tf.cast(recurrent_kernel, operands)
        transposed = tf.transpose(weights)  # once, where the product would do it every step

        def preactivate(t: Tensor, h_low: Tensor) -> Tensor:
            return tf.gather(table, ids[t]) + tf.cast(tf.matmul(h_low, weights), tf.float32)

        outputs, h_last, c_last, record = _forward(preactivate, h, c, tf.shape(ids)[0], operands)

        def gradient(d_outputs: Tensor, d_h: Tensor, d_c: Tensor) -> tuple[Tensor, ...]:
            def back(dz: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
                return tf.cast(tf.matmul(dz, transposed), tf.float32), ()

            dz, d_h, d_c, _ = _backward(back, record, d_outputs, d_h, d_c, c, operands, [])
            h_before = tf.concat([tf.cast(h, operands)[None], outputs[:-1]], axis=0)
            d_weights = _sum_of_products(h_before, dz)
            # A product with one-hot rows adds the rows up in the same order every time.
            d_table = _sum_of_products(tf.one_hot(ids, vocabulary_size, dtype=operands), dz)
            return d_table, d_weights, d_h, d_c

        return (outputs, h_last, c_last), gradient

    result: tuple[Tensor, Tensor, Tensor] = run(table, recurrent_kernel, h, c)
    return result


def lstm_over_vectors(
    inputs: Tensor, kernel: Tensor, recurrent_kernel: Tensor, bias: Tensor, h: Tensor, c: Tensor, operands: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a layer over vectors: the outputs of the layer below.

    Args:
        inputs: (T, B, I), as `operands`.
        kernel: (I, 4H) float32, gates i, f, g, o.
        recurrent_kernel: (H, 4H) float32.
        bias: (4H,) float32.
        h: (B, H) float32, the state before the first vector.
        c: (B, H) float32.
        operands: tf.float32 or tf.bfloat16, for the matrix products.

    Returns:
        The outputs (T, B, H) as `operands`, and h and c (B, H) float32 after the last vector.
    """
    width = inputs.shape[2]

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(inputs: Tensor, both_kernels: Tensor, bias: Tensor, h: Tensor, c: Tensor) -> Any:
        weights = tf.cast(both_kernels, operands)  # (I + H, 4H): one product a step for both
        transposed = tf.transpose(weights)

        def preactivate(t: Tensor, h_low: Tensor) -> Tensor:
            return tf.cast(tf.matmul(tf.concat([inputs[t], h_low], axis=1), weights), tf.float32) + bias

        outputs, h_last, c_last, record = _forward(preactivate, h, c, tf.shape(inputs)[0], operands)

        def gradient(d_outputs: Tensor, d_h: Tensor, d_c: Tensor) -> tuple[Tensor, ...]:
            def back(dz: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
                d_both = tf.matmul(dz, transposed)  # (B, I + H)
                return tf.cast(d_both[:, width:], tf.float32), (d_both[:, :width],)

            dz, d_h, d_c, (d_inputs,) = _backward(back, record, d_outputs, d_h, d_c, c, operands, [operands])
            h_before = tf.concat([tf.cast(h, operands)[None], outputs[:-1]], axis=0)
            d_weights = tf.concat([_sum_of_products(inputs, dz), _sum_of_products(h_before, dz)], axis=0)
            d_bias = _sum_of_products(tf.ones_like(dz[:, :, :1]), dz)[0]
            return d_inputs, d_weights, d_bias, d_h, d_c

        return (outputs, h_last, c_last), gradient

    result: tuple[Tensor, Tensor, Tensor] = run(inputs, tf.concat([kernel, recurrent_kernel], axis=0), bias, h, c)
    return result


def _sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    """Sum over T and B of the outer products of a (T, B, M) and b (T, B, N): (M, N) float32."""
    flat_a, flat_b = (tf.reshape(x, (-1, x.shape[2])) for x in (a, b))
    return tf.cast(tf.matmul(flat_a, flat_b, transpose_a=True), tf.float32)


def _forward(
    preactivate: Callable[[Tensor, Tensor], Tensor], h: Tensor, c: Tensor, steps: Tensor, operands: Any
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    """The loop over time; also returns what the backward pass needs of each step, as TensorArrays."""

    def array(dtype: Any = tf.float32) -> Tensor:
        return tf.TensorArray(dtype, steps, element_shape=h.shape, clear_after_read=False)

    def body(t: Tensor, h_low: Tensor, _: Tensor, c: Tensor, outputs: Tensor, record: tuple[Tensor, ...]) -> Any:
        i, f, g, o = tf.split(preactivate(t, h_low), 4, axis=1)
        i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
        c = f * c + i * g
        tanh_c = tf.tanh(c)
        h = o * tanh_c
        h_low = tf.cast(h, operands)
        kept = (i, f, g, o, c, tanh_c)
        record = tuple(a.write(t, value) for a, value in zip(record, kept, strict=True))
        return t + 1, h_low, h, c, outputs.write(t, h_low), record

    _, _, h, c, outputs, record = tf.while_loop(
        lambda t, *_: t < steps,
        body,
        (0, tf.cast(h, operands), h, c, array(operands), tuple(array() for _ in range(6))),
        parallel_iterations=1,
    )
    return outputs.stack(), h, c, record


def _backward(
    back: Callable[[Tensor], tuple[Tensor, tuple[Tensor, ...]]],
    record: tuple[Tensor, ...],
    d_outputs: Tensor,
    d_h: Tensor,
    d_c: Tensor,
    c_first: Tensor,
    operands: Any,
    more: list[Any],
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    """The loop backwards.

    Args:
        back: from a step's gradient before the gates, (B, 4H), to that of the h before it, (B, H) float32,
            and of whatever else went in.
        record: from `_forward`.
        d_outputs: (T, B, H).
        d_h: (B, H), of the last h alone.
        d_c: (B, H), of the last c.
        c_first: (B, H), the c before the first step.
        operands: tf.float32 or tf.bfloat16.
        more: the types of whatever else went in.

    Returns:
        The gradients before the gates (T, B, 4H) as `operands`, of the first h and c, and of
        whatever else went in, each (T, B, ...).
    """
    all_i, all_f, all_g, all_o, all_c, all_tanh_c = record
    steps = tf.shape(d_outputs)[0]

    def body(t: Tensor, d_h: Tensor, d_c: Tensor, all_dz: Tensor, all_more: tuple[Tensor, ...]) -> Any:
        i, f, g, o, tanh_c = (a.read(t) for a in (all_i, all_f, all_g, all_o, all_tanh_c))
        c_before = tf.cond(t > 0, lambda: all_c.read(t - 1), lambda: c_first)
        d_h = d_h + tf.cast(d_outputs[t], tf.float32)
        d_c = d_c + tf.raw_ops.TanhGrad(y=tanh_c, dy=d_h * o)
        dz = tf.concat(
            [
                tf.raw_ops.SigmoidGrad(y=i, dy=d_c * g),
                tf.raw_ops.SigmoidGrad(y=f, dy=d_c * c_before),
                tf.raw_ops.TanhGrad(y=g, dy=d_c * i),
                tf.raw_ops.SigmoidGrad(y=o, dy=d_h * tanh_c),
            ],
            axis=1,
        )
        dz = tf.cast(dz, operands)
        d_h, others = back(dz)
        all_more = tuple(a.write(t, value) for a, value in zip(all_more, others, strict=True))
        return t - 1, d_h, d_c * f, all_dz.write(t, dz), all_more

    _, d_h, d_c, all_dz, all_more = tf.while_loop(
        lambda t, *_: t >= 0,
        body,
        (steps - 1, d_h, d_c, tf.TensorArray(operands, steps), tuple(tf.TensorArray(kind, steps) for kind in more)),
        parallel_iterations=1,
    )
    return all_dz.stack(), d_h, d_c, tuple(a.stack() for a in all_more)
