"""The LSTM layers that are fast on CPUs.

`FastLSTM` has the mathematics and weights of `keras.layers.LSTM`, `FastCoupledLSTM` those of `CoupledLSTMCell`,
computed another way. G is the number of gates, g included: 4 or 3.

What makes it fast:

- The loop over time contains one matrix product and element-wise work. Its gradient is derived by hand: the weights'
  gradient is one product for many steps instead of one product per step.
- A batch lies in columns, (H, B), so that the weights are the left factor of every product. Libraries rearrange the
  right factor before every product, at every step, so the right factor should be the small one.
- Weights are arranged for this once per update, for all parts of the batch.
- The first layer's input projection is a table with one row per character. A lookup replaces Keras' product.
- The factors of the products may be bfloat16; state, gates, weights and element-wise work are float32.
- Stacks keep the gates and states for the backward loop, which frees them as it takes them off.

Tensors inside are time-major: (T, H, B). The gates' order inside is (i,) f, o, g: the sigmoids side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from charrnn.training.backend import keras, tf

Tensor = Any


class _Fast:
    """What is described above, for a Keras layer with a `cell` whose weights are a kernel for each purpose.

    The weights, their names, their initialisation and their order are the Keras layer's own: `get_weights` and
    `set_weights` exchange them with a stock layer.
    """

    cell: Any
    operands: Any

    def arranged(self, embedding: Tensor | None = None, exact: bool = False) -> Arranged:
        """Arrange this layer's weights for `lstm_over_vectors` or, given the embedding (V, E), for `lstm_over_ids`.

        `exact` makes the factors of the products float32.
        """
        operands = tf.float32 if exact else self.operands
        kernel, recurrent_kernel, bias = map(
            tf.convert_to_tensor, (self.cell.kernel, self.cell.recurrent_kernel, self.cell.bias)
        )
        if embedding is None:
            return arrange(bias, [kernel, recurrent_kernel], operands)
        return arrange(tf.matmul(embedding, kernel) + bias, [recurrent_kernel], operands)

    def over(self, inputs: Tensor, weights: Arranged, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run over characters or vectors, with `lstm_over_ids` or `lstm_over_vectors`."""
        run = lstm_over_ids if inputs.dtype.is_integer else lstm_over_vectors
        return run(inputs, weights, h, c)


class FastLSTM(_Fast, keras.layers.LSTM):  # type: ignore[misc]  # Keras has no types
    """A `keras.layers.LSTM` (return_sequences and return_state) with a faster way to run on a CPU: `over`."""

    def __init__(self, units: int, operands: str = "float32") -> None:
        """Make a layer of H units.

        Args:
            units: H.
            operands: `float32` or `bfloat16`, the type of the factors of the matrix products.
        """
        super().__init__(units, return_sequences=True, return_state=True)
        self.operands = tf.as_dtype(operands)


class CoupledLSTMCell(keras.layers.Layer):  # type: ignore[misc]
    """One step of an LSTM whose input gate is 1 - f, and whose output is o * c; for `keras.layers.RNN`.

    `network.cells` names its sources. The initialisers are those of `keras.layers.LSTM`.
    """

    def __init__(self, units: int, dtype: Any = None) -> None:
        """Make a cell of H units, of a Keras type or policy."""
        super().__init__(dtype=dtype)
        self.units = units
        self.state_size = [units, units]
        self.output_size = units

    def build(self, input_shape: Any) -> None:
        """Make the kernels (I, 3H) and (H, 3H) and the bias (3H,), gates f, g, o."""
        units = self.units
        shape = (3 * units,)
        self.kernel = self.add_weight(shape=(input_shape[-1], *shape), initializer="glorot_uniform", name="kernel")
        self.recurrent_kernel = self.add_weight(
            shape=(units, *shape), initializer="orthogonal", name="recurrent_kernel"
        )
        self.bias = self.add_weight(
            shape=shape,
            initializer=lambda shape, dtype: tf.concat([tf.ones(units), tf.zeros(2 * units)], axis=0),
            name="bias",
        )

    def call(self, inputs: Tensor, states: Any, training: bool = False) -> tuple[Tensor, list[Tensor]]:
        """Make one step: inputs (B, I) and states h and c (B, H) to h, and h and c."""
        h, c = states
        z = tf.matmul(inputs, self.kernel) + tf.matmul(h, self.recurrent_kernel) + self.bias
        f, g, o = tf.split(z, 3, axis=-1)
        f, g, o = tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
        c = f * c + (1 - f) * g
        h = o * c
        return h, [h, c]


class FastCoupledLSTM(_Fast, keras.layers.RNN):  # type: ignore[misc]
    """A `keras.layers.RNN` of `CoupledLSTMCell` with a faster way to run on a CPU: `over`."""

    def __init__(self, units: int, operands: str = "float32") -> None:
        """Make a layer of H units; see `FastLSTM`."""
        super().__init__(CoupledLSTMCell(units), return_sequences=True, return_state=True)
        self.operands = tf.as_dtype(operands)


class Arranged(NamedTuple):
    """Weights in the form that the products need, g behind the sigmoids, arranged once for the whole batch."""

    added: Tensor  # to the gates' inputs: a row for each character, (V, GH), or a bias, (GH,); float32
    kernels: Tensor  # (GH, N) float32, which receives the gradients
    left: Tensor  # `kernels` in the operands' type: the left factor of the forward products
    left_backwards: Tensor  # (N, GH), in the operands' type


def arrange(added: Tensor, kernels: Sequence[Tensor], operands: Any) -> Arranged:
    """Arrange a layer's weights, gates i, f, g, o or f, g, o, all float32.

    Args:
        added: added to the gates' inputs, (V, GH) or (GH,).
        kernels: the kernels of the input (unless it is in `added`) and of h, each (its width, GH).
        operands: tf.float32 or tf.bfloat16, the type of the factors of the matrix products.
    """
    units, width = kernels[-1].shape
    joined = tf.transpose(_sigmoids_first(tf.concat(kernels, axis=0), width // units))
    left = tf.stop_gradient(tf.cast(joined, operands))
    return Arranged(_sigmoids_first(added, width // units), joined, left, tf.transpose(left))


def lstm_over_ids(ids: Tensor, weights: Arranged, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run the first layer over characters.

    Args:
        ids: (T, B) int32.
        weights: a row for each character, and the recurrent kernel.
        h: (B, H) float32, the state before the first character.
        c: (B, H) float32.

    Returns:
        The outputs (T, H, B) in the operands' type, and h and c (B, H) float32 after the last character.
    """
    _, _, left, left_backwards = weights
    vocabulary_size, operands = weights.added.shape[0], left.dtype

    @tf.custom_gradient  # type: ignore[untyped-decorator]  # TensorFlow has no types
    def run(table: Tensor, kernels: Tensor, h: Tensor, c: Tensor) -> Any:
        def projections(t: Tensor) -> Tensor:
            return tf.transpose(tf.gather(table, turns[t]), (0, 2, 1))

        def preactivate(projection: Tensor, h: Tensor) -> Tensor:
            return tf.cast(tf.matmul(left, h), tf.float32) + projection

        turns = _in_turns(ids, h)
        outputs, c_last, record = _forward(projections, preactivate, h, c, turns.shape[:2])

        def gradient(d_outputs: Tensor, d_c: Tensor) -> tuple[Tensor, ...]:
            before = tf.concat([h[None], outputs[:-1]], axis=0)

            def finish(dz: Tensor, block: Callable[[Tensor], Tensor]) -> Gradients:
                # A product with one-hot rows always adds the rows in the same order.
                one_hot = tf.one_hot(tf.reshape(block(ids), (-1,)), vocabulary_size, axis=0, dtype=operands)
                return (_gradient(one_hot, dz), _gradient(_columns(block(before)), dz)), ()

            d_h, d_c, (d_table, d_kernels), () = _backward(left_backwards, finish, record, d_outputs, d_c, c_last)
            return tf.transpose(d_table), d_kernels, d_h, d_c

        return (outputs, c_last), gradient

    return _run(lambda *state: run(weights.added, weights.kernels, *state), h, c, operands)


def lstm_over_vectors(inputs: Tensor, weights: Arranged, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run a layer over vectors, the outputs of the layer below.

    Args:
        inputs: (T, I, B), in the operands' type.
        weights: a bias, and the kernel of the inputs followed by the recurrent one.
        h: (B, H) float32, the state before the first vector.
        c: (B, H) float32.

    Returns:
        The outputs (T, H, B) in the operands' type, and h and c (B, H) float32 after the last vector.
    """
    _, _, left, left_backwards = weights
    width = inputs.shape[1]

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(inputs: Tensor, bias: Tensor, kernels: Tensor, h: Tensor, c: Tensor) -> Any:
        biases = tf.tile(bias[:, None], (1, h.shape[1]))  # faster to add than a bias that is broadcast

        def preactivate(x: Tensor, h: Tensor) -> Tensor:
            return tf.cast(tf.matmul(left, tf.concat([x, h], axis=0)), tf.float32) + biases

        turns = _in_turns(inputs, h)
        outputs, c_last, record = _forward(lambda t: turns[t], preactivate, h, c, turns.shape[:2])

        def gradient(d_outputs: Tensor, d_c: Tensor) -> tuple[Tensor, ...]:
            before = tf.concat([h[None], outputs[:-1]], axis=0)
            to_inputs, to_h = tf.split(left_backwards, (width, h.shape[0]))

            def finish(dz: Tensor, block: Callable[[Tensor], Tensor]) -> Gradients:
                multiplied = _columns(tf.concat([block(inputs), block(before)], axis=1))
                # Many steps at once: the loop would read the kernel again for each of them.
                d_inputs = _steps(tf.matmul(to_inputs, dz), h.shape[1])
                return (_gradient(tf.ones_like(dz[:1]), dz), _gradient(multiplied, dz)), (d_inputs,)

            d_h, d_c, (d_bias, d_kernels), (d_inputs,) = _backward(to_h, finish, record, d_outputs, d_c, c_last)
            return d_inputs, d_bias[:, 0], d_kernels, d_h, d_c

        return (outputs, c_last), gradient

    return _run(lambda *state: run(inputs, weights.added, weights.kernels, *state), h, c, left.dtype)


def logits_of(outputs: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """The logits, from the last layer's outputs: in float32, and their gradient's products in the outputs' type.

    Args:
        outputs: (T, H, B), in the operands' type.
        kernel: (H, V) float32.
        bias: (V,) float32.

    Returns:
        (T, B, V) float32.
    """
    steps, _, batch = outputs.shape

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(outputs: Tensor, kernel: Tensor, bias: Tensor) -> Any:
        columns = _columns(outputs)  # (H, T * B)
        logits = tf.matmul(tf.cast(columns, tf.float32), kernel, transpose_a=True) + bias

        def gradient(d_logits: Tensor) -> tuple[Tensor, ...]:
            low = tf.cast(tf.reshape(d_logits, (steps * batch, -1)), outputs.dtype)
            d_columns = tf.matmul(tf.cast(kernel, outputs.dtype), low, transpose_b=True)
            d_outputs = _steps(d_columns, batch)
            d_kernel = tf.cast(tf.matmul(columns, low), tf.float32)
            return d_outputs, d_kernel, tf.reduce_sum(d_logits, axis=(0, 1))

        return tf.reshape(logits, (steps, batch, -1)), gradient

    result: Tensor = run(outputs, kernel, bias)
    return result


def _run(
    over: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], h: Tensor, c: Tensor, operands: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Run `over` on columns, from a state given as (B, H); return the outputs, and the state after them as (B, H)."""
    outputs, c = over(tf.cast(tf.transpose(h), operands), tf.transpose(c))
    return outputs, tf.cast(tf.transpose(outputs[-1]), tf.float32), tf.transpose(c)


def _sigmoids_first(gates: Tensor, count: int) -> Tensor:
    """Reorder the gates on the last axis, from (i,) f, g, o to (i,) f, o, g."""
    *sigmoids, g, o = tf.split(gates, count, axis=-1)
    return tf.concat([*sigmoids, o, g], axis=-1)


def _step(sigmoids: Sequence[Tensor], g: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One step from the gates and c: the next c and h, all (H, B) float32."""
    if len(sigmoids) == 2:
        f, o = sigmoids
        c = g + f * (c - g)
        return c, o * c
    i, f, o = sigmoids
    c = f * c + i * g
    return c, o * tf.tanh(c)


def _step_back(
    sigmoids: Sequence[Tensor], g: Tensor, c_before: Tensor, c: Tensor, d_h: Tensor, d_c: Tensor
) -> tuple[list[Tensor], Tensor]:
    """The gradient of `_step` from those of its results: before the gates, in the order of `Arranged`, and of c."""
    if len(sigmoids) == 2:
        f, o = sigmoids
        d_c = d_c + d_h * o
        d_sigmoids = [tf.raw_ops.SigmoidGrad(y=f, dy=d_c * (c_before - g)), tf.raw_ops.SigmoidGrad(y=o, dy=d_h * c)]
        d_c_before = d_c * f
        return [*d_sigmoids, tf.raw_ops.TanhGrad(y=g, dy=d_c - d_c_before)], d_c_before
    i, f, o = sigmoids
    tanh_c = tf.tanh(c)
    d_c = d_c + tf.raw_ops.TanhGrad(y=tanh_c, dy=d_h * o)
    d_sigmoids = [
        tf.raw_ops.SigmoidGrad(y=gate, dy=dy) for gate, dy in ((i, d_c * g), (f, d_c * c_before), (o, d_h * tanh_c))
    ]
    return [*d_sigmoids, tf.raw_ops.TanhGrad(y=g, dy=d_c * i)], d_c * f


def _columns(sequence: Tensor) -> Tensor:
    """Rearrange (T, N, B) to (N, T * B)."""
    return tf.reshape(tf.transpose(sequence, (1, 0, 2)), (sequence.shape[1], -1))


def _steps(columns: Tensor, batch: int) -> Tensor:
    """Rearrange (N, T * B) to (T, N, B)."""
    return tf.transpose(tf.reshape(columns, (columns.shape[0], -1, batch)), (1, 0, 2))


def _gradient(factor: Tensor, dz: Tensor) -> Tensor:
    """The gradient of weights (GH, N), float32, from their inputs, (N, T * B), and dz (GH, T * B)."""
    # In the other order, the product would rearrange dz, which is the larger.
    return tf.cast(tf.matmul(dz, factor, transpose_b=True), tf.float32)


_TURN = 1 << 17  # gates in one turn of a loop: it takes several steps, since a turn costs as much as some operations
_MOST_STEPS = 8  # in a turn: with more, TensorFlow takes seconds longer to trace the loop, which gets no faster


def _in_turns(sequence: Tensor, h: Tensor) -> Tensor:
    """Rearrange (T, ...) to (turns, steps in a turn, ...), for a state h of (H, B)."""
    steps, most = sequence.shape[0], min(_MOST_STEPS, max(1, _TURN // (4 * h.shape[0] * h.shape[1])))
    turn = max(turn for turn in range(1, min(steps, most) + 1) if steps % turn == 0)
    return tf.reshape(sequence, (steps // turn, turn, *sequence.shape[1:]))


_BLOCK = 640  # columns: from this many on, multiplying them is as fast, per column, as multiplying all


def _turns_in_block(turns: int, columns: int) -> int:
    """The smallest divisor of the turns, each with this many columns, whose columns are fast to multiply."""
    return min(n for n in range(1, turns + 1) if turns % n == 0 and (n * columns >= _BLOCK or n == turns))


def _push(stack: Tensor, value: Tensor) -> Tensor:
    return tf.raw_ops.TensorListPushBack(input_handle=stack, tensor=value)


def _pop(stack: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The remaining stack, and the value that was on top."""
    left, value = tf.raw_ops.TensorListPopBack(input_handle=stack, element_shape=shape, element_dtype=tf.float32)
    value.set_shape(shape)
    return left, value


def _stacked(turns: Tensor) -> Tensor:
    """Rearrange a TensorArray of turns to (T, ...)."""
    stacked = turns.stack()
    return tf.reshape(stacked, (-1, *stacked.shape[2:]))


def _forward(
    inputs: Callable[[Tensor], Tensor],
    preactivate: Callable[[Tensor, Tensor], Tensor],
    h: Tensor,
    c: Tensor,
    turns: tuple[int, int],
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Run the loop over time.

    Args:
        inputs: function from the number of a turn to the inputs of its steps.
        preactivate: function from one step's input and h (H, B) to the gates' inputs, (GH, B) float32.
        h: (H, B), in the operands' type.
        c: (H, B) float32.
        turns: number of turns, and steps in each.

    Returns:
        The outputs (T, H, B), the last c, and stacks of what the backward loop needs from every step.
    """
    units = h.shape[0]

    def body(t: Tensor, h: Tensor, c: Tensor, outputs: Tensor, sigmoids: Tensor, tanhs: Tensor, states: Tensor) -> Any:
        turn = []
        for x in tf.unstack(inputs(t), turns[1]):
            z = preactivate(x, h)
            count = z.shape[0] // units - 1
            z_sigmoids, z_tanh = tf.split(z, (count * units, units))
            sigmoid, g = tf.sigmoid(z_sigmoids), tf.tanh(z_tanh)
            sigmoids, tanhs, states = _push(sigmoids, sigmoid), _push(tanhs, g), _push(states, c)
            c, output = _step(tf.split(sigmoid, count), g, c)
            h = tf.cast(output, h.dtype)
            turn.append(h)
        return t + 1, h, c, outputs.write(t, tf.stack(turn)), sigmoids, tanhs, states

    empty = tf.raw_ops.EmptyTensorList(element_shape=-1, max_num_elements=-1, element_dtype=tf.float32)
    outputs = tf.TensorArray(h.dtype, turns[0], element_shape=(turns[1], *h.shape))
    _, _, c, outputs, *record = tf.while_loop(
        lambda t, *_: t < turns[0], body, (0, h, c, outputs, empty, empty, empty), parallel_iterations=1
    )
    return _stacked(outputs), c, tuple(record)


Gradients = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
"""Of the weights, and of the inputs."""


def _backward(
    to_h: Tensor,
    finish: Callable[[Tensor, Callable[[Tensor], Tensor]], Gradients],
    record: Sequence[Tensor],
    d_outputs: Tensor,
    d_c: Tensor,
    c_last: Tensor,
) -> tuple[Tensor, Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Run the loop backwards, in blocks of steps; dz, the gradient before the gates, is kept for one block only.

    Args:
        to_h: (H, GH), in the operands' type; its product with a step's dz is the gradient of the h before the step.
        finish: function of the dz of a block's steps, (GH, steps * B), and of a function that selects those steps
            from a (T, ...). It returns their share of the weights' gradients, and the inputs' gradients, each
            (steps, ..., B).
        record: from `_forward`.
        d_outputs: (T, H, B), in the operands' type.
        d_c: (H, B) float32, the gradient of the last c.
        c_last: (H, B) float32, the last c.

    Returns:
        The gradients of the first h and c (H, B), of the weights, float32, and of the inputs, each (T, ..., B).
        Those of h and of the inputs are in the operands' type.
    """
    batch, operands = d_outputs.shape[2], d_outputs.dtype
    turns = _in_turns(d_outputs, c_last)
    per_block = _turns_in_block(turns.shape[0], turns.shape[1] * batch)
    blocks = turns.shape[0] // per_block

    def block(number: Any, d_h: Tensor, d_c: Tensor, c: Tensor, record: Sequence[Tensor]) -> Any:
        def turn(t: Tensor, d_h: Tensor, d_c: Tensor, c: Tensor, array: Any, *record: Tensor) -> Any:
            d_h, d_c, c, dz, record = _turn_back(to_h, turns[number * per_block + t], d_h, d_c, c, record)
            return t - 1, d_h, d_c, c, array.write(t, dz), *record

        _, d_h, d_c, c, array, *record = tf.while_loop(
            lambda t, *_: t >= 0,
            turn,
            (per_block - 1, d_h, d_c, c, tf.TensorArray(operands, per_block), *record),
            parallel_iterations=1,
        )
        dz = _columns(_stacked(array))
        shares, found = finish(dz, lambda sequence: tf.reshape(sequence, (blocks, -1, *sequence.shape[1:]))[number])
        return d_h, d_c, c, shares, found, record

    def block_before(number: Tensor, d_h: Tensor, d_c: Tensor, c: Tensor, sums: Any, arrays: Any, *record: Any) -> Any:
        d_h, d_c, c, shares, found, record = block(number, d_h, d_c, c, record)
        sums = tuple(total + share for total, share in zip(sums, shares, strict=True))
        arrays = tuple(array.write(number, value) for array, value in zip(arrays, found, strict=True))
        return number - 1, d_h, d_c, c, sums, arrays, *record

    last = blocks - 1
    d_h, d_c, c, sums, found, record = block(last, tf.zeros_like(d_outputs[0]), d_c, c_last, record)
    if blocks == 1:
        return d_h, d_c, sums, found
    arrays = tuple(tf.TensorArray(operands, blocks).write(last, value) for value in found)
    _, d_h, d_c, _, sums, arrays, *_ = tf.while_loop(
        lambda number, *_: number >= 0,
        block_before,
        (last - 1, d_h, d_c, c, sums, arrays, *record),
        parallel_iterations=1,
    )
    return d_h, d_c, sums, tuple(map(_stacked, arrays))


def _turn_back(
    to_h: Tensor,
    d_outputs: Tensor,
    d_h: Tensor,
    d_c: Tensor,
    c: Tensor,
    record: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    """Run the steps of one turn backwards.

    Args:
        to_h: as in `_backward`.
        d_outputs: gradients of the turn's outputs, (steps, H, B).
        d_h: gradient of the last step's h from the steps after it, (H, B) in the operands' type.
        d_c: gradient of the last step's c, (H, B) float32.
        c: c of the last step.
        record: from `_forward`, up to that step.

    Returns:
        The gradients of the h and c before the turn, that c, the gradients before the gates, (steps, GH, B), in
        the operands' type, and the rest of the record.
    """
    (_, units, batch), operands = d_outputs.shape, d_outputs.dtype
    sigmoids, tanhs, states = record
    count = to_h.shape[1] // units - 1
    found = []
    for d_output in reversed(tf.unstack(tf.cast(d_outputs, tf.float32))):
        sigmoids, sigmoid = _pop(sigmoids, (count * units, batch))
        tanhs, g = _pop(tanhs, (units, batch))
        states, c_before = _pop(states, (units, batch))
        d_h = tf.cast(d_h, tf.float32) + d_output
        gradients, d_c = _step_back(tf.split(sigmoid, count), g, c_before, c, d_h, d_c)
        dz = tf.cast(tf.concat(gradients, axis=0), operands)
        found.append(dz)
        d_h = tf.matmul(to_h, dz)
        c = c_before
    return d_h, d_c, c, tf.stack(found[::-1]), (sigmoids, tanhs, states)
