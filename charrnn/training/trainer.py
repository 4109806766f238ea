"""One model, its optimizer and its place in the text: updates, validation, and everything that a resume needs."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from charrnn.network.cells import CELLS, Array
from charrnn.network.network import Network
from charrnn.network.scoring import score_text
from charrnn.planning.schedule import Speed, learning_rate_at
from charrnn.planning.warm_start import Pretrained
from charrnn.runs.records import Settings
from charrnn.text.corpus import Corpus
from charrnn.text.windows import SEQUENTIAL, WARM_UP, steps_per_epoch, validation_streams, windows
from charrnn.training.backend import keras, tf
from charrnn.training.cluster import Cluster
from charrnn.training.layout import STOCK, Layout
from charrnn.training.model import CharacterModel, TensorState, to_numpy

CLIP_NORM = 1.0  # of the whole gradient
FRESH_EVERY = 16
"""Each time this many updates are made, one of the streams, in turn, starts again from the zero state.

Without this, a network sees that state only once an epoch, and cannot start from it early in training. Samples and
validation, which do start from it, go wrong. On tinyshakespeare after 0.9 epochs the validation loss is 1.92 with it
and 2.14 without; after 2 epochs both are 1.78.
"""
UNSEEN_COUNT = 0.01  # the count of a symbol that does not occur in the text
_PACE = 200  # characters of a sequential pass, to measure its speed
WEIGHT_DECAY = 0.05
"""Of the kernels, times the learning rate, apart from Adam's moments: Loshchilov, Hutter (2019, arXiv:1711.05101)."""
AVERAGE_DECAY = 0.998  # of the moving average of the weights, which validation and samples use


def _move_towards(average: Any, weight: Any, change: Any) -> None:
    average.assign_add(change * (weight - average))


Streams = tuple[npt.NDArray[Any], ...]
"""The arrays that `windows.validation_streams` returns."""

Batch = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]
"""Inputs and targets of an update."""


class FusedAdam(keras.optimizers.AdamW):  # type: ignore[misc]  # Keras has no types
    """Keras' AdamW with TensorFlow's fused kernel, which makes one pass over memory instead of ten.

    It takes gradients that are already the sum over all replicas: Keras would clip each replica's gradient, and then
    add them.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable, as `keras.optimizers.AdamW.update_step` does."""
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def log_frequencies(corpus: Corpus) -> Array:
    """The softmax layer's first biases, (V,): the logits of a network that knows only how often characters occur.

    They save the updates that would learn this. They also make symbols that never occur in the text improbable; with
    equal biases, a hardly trained network writes such symbols into its samples.
    """
    counts = corpus.training_counts + UNSEEN_COUNT
    logarithms: Array = np.log(counts / counts.sum()).astype(np.float32)
    return logarithms


class Trainer:
    """Trains one model on one corpus, step by step, and can save and restore its state.

    Attributes:
        model: the model that the updates change.
        average: moving average of its weights, for validation and samples.
        state: recurrent state that each update passes to the next, on each replica that of its streams.
        validation: streams for validation.
    """

    def __init__(
        self,
        settings: Settings,
        corpus: Corpus,
        layout: Layout = STOCK,
        source: Pretrained | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        """Build the model and the optimizer for the start of a run, with the weights of a source if one is given."""
        self.settings = settings
        self.corpus = corpus
        self.cluster = Cluster() if cluster is None else cluster
        with self.cluster.strategy.scope():
            self._build(layout, source)
        self.layout = layout
        self._is_exact = layout.precision == "float32"
        self.state: Any = self._distributed(self.model.zero_state(settings.batch_size))
        self.steps_per_epoch = steps_per_epoch(corpus.training_characters, settings.batch_size, settings.seq_length)
        # There is no control flow to convert, and looking for it takes TensorFlow three times as long as tracing.
        self._update = tf.function(self._update_eagerly, autograph=False)
        self._evaluate = tf.function(self.average.loss_sum, autograph=False)
        self.validation = self._streams(50_000)

    def _build(self, layout: Layout, source: Pretrained | None) -> None:
        settings, corpus = self.settings, self.corpus
        self.model = CharacterModel(settings.network(corpus.vocabulary), settings.dropout, settings.seed, layout)
        self.model.softmax.bias.assign(log_frequencies(corpus))
        if source is not None:
            self.model.from_numpy(source.initial_weights(corpus, self.model.to_numpy()))
        self.optimizer = FusedAdam(
            settings.learning_rate, weight_decay=WEIGHT_DECAY, global_clipnorm=CLIP_NORM, name="adam"
        )
        self.optimizer.exclude_from_weight_decay(var_names=["bias", "embeddings"])
        self.optimizer.build(self.model.trainable_variables)
        # A fast layer can compute in float32 what it trains in bfloat16; another one always does here.
        scoring = layout if layout.fast else STOCK
        self.average = CharacterModel(settings.network(corpus.vocabulary), 0.0, settings.seed, scoring)
        self.average.from_numpy(self.model.named_weights)

    @property
    def characters_per_step(self) -> int:
        """B * T."""
        return self.settings.batch_size * self.settings.seq_length

    @property
    def validation_characters(self) -> int:
        """Number of characters that one validation reads, including warm-up and padding."""
        return int(self.validation[0].size)

    def _update_eagerly(self, batch: Any, state: Any, seed: Any) -> tuple[Any, Any]:
        strategy = self.cluster.strategy
        loss, state = strategy.run(self._update_replica, (*batch, state, seed))
        # At first, average over the last tenth of the updates, so that the start is forgotten.
        updates = tf.cast(self.optimizer.iterations, tf.float32)
        change = 1 - tf.minimum(AVERAGE_DECAY, updates / (9 + updates))
        averages = self.average.named_weights
        for name, weight in self.model.named_weights.items():
            strategy.extended.update(averages[name].value, _move_towards, (weight.value, change))
        return self.cluster.sum(loss), state

    def _update_replica(
        self, ids: Any, targets: Any, keep: Any, state: TensorState, seed: Any
    ) -> tuple[Any, TensorState]:
        """One replica's part of an update: its share of the loss, and the next state of its streams."""
        replica = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
        first = self.cluster.streams(self.settings.batch_size, replica).start
        weights = tf.fill(tf.shape(ids), tf.constant(1 / self.characters_per_step))
        state = [tuple(tensor * keep for tensor in layer_state) for layer_state in state]
        with tf.GradientTape() as tape:
            loss, state = self.model.loss_sum(ids, targets, weights, state, seed, first=first)
        variables = self.model.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        # The embedding's gradient comes as rows; summing them in their order always gives the same result.
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        if self.cluster.replicas > 1:
            gradients = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        self.optimizer.apply(gradients, variables)
        return loss, state

    def _distributed(self, state: TensorState) -> Any:
        """The state of all streams, divided among the replicas."""
        parts = len(state[0])
        own = self.cluster.own_streams(self.settings.batch_size)
        flat = [to_numpy(tensor)[own.start : own.stop] for layer_state in state for tensor in layer_state]
        flat = self.cluster.distribute(self.settings.batch_size, flat)
        return [tuple(flat[start : start + parts]) for start in range(0, len(flat), parts)]

    def batches(self, step: int) -> Iterator[Batch]:
        """Inputs and targets, each (B, T), of update `step` (counted from 0) and all later ones.

        Of several workers, each reads only its own streams.
        """
        epoch, window = divmod(step, self.steps_per_epoch)
        while True:
            yield from windows(
                self.corpus.ids,
                self.corpus.training_characters,
                self.settings.batch_size,
                self.settings.seq_length,
                self.settings.seed,
                epoch,
                first=window,
                streams=self.cluster.own_streams(self.settings.batch_size),
            )
            epoch, window = epoch + 1, 0

    def updates(self, step: int, learning_rates: Sequence[float], batches: Iterator[Batch]) -> list[float]:
        """Make update `step` (counted from 0) and those after it, one for each learning rate.

        Only the losses wait for the device: while it computes an update, Python prepares the next ones.

        Returns:
            The loss before each, in nats per character.
        """
        losses = [self._begin_update(step + i, rate, next(batches)) for i, rate in enumerate(learning_rates)]
        return [float(loss) for loss in losses]

    def update(self, step: int, learning_rate: float, batch: Batch) -> float:
        """Make update `step` (counted from 0); return the loss before it, in nats per character."""
        return self.updates(step, [learning_rate], iter([batch]))[0]

    def _begin_update(self, step: int, learning_rate: float, batch: Batch) -> Any:
        batch_size = self.settings.batch_size
        keep = np.ones((batch_size, 1), np.float32)  # 0 for streams that start again from the zero state
        if step % self.steps_per_epoch == 0:
            keep[:] = 0
        elif step % FRESH_EVERY == 0:
            keep[step // FRESH_EVERY % batch_size] = 0
        own = self.cluster.own_streams(batch_size)
        self.optimizer.learning_rate.assign(learning_rate)
        seed = tf.constant([self.settings.seed, step], tf.int64)
        values = self.cluster.distribute(batch_size, (*batch, keep[own.start : own.stop]))
        loss, self.state = self._update(values, self.state, seed)
        return loss

    def weights(self) -> dict[str, Array]:
        """The moving average of the weights, for validation and samples."""
        return self.average.to_numpy()

    def validate(self) -> float:
        """Loss over the validation part, or a fixed sample of it, in parallel streams; in nats per character.

        It is the loss of the moving average of the weights.
        """
        return self._loss(self.validation)

    def final_loss(self, weights: Mapping[str, Array], characters: int, advance: Callable[[int], None]) -> float:
        """Loss of the given weights over the validation part at the end of a run, in float32; in nats per character.

        Args:
            weights: all of the model's.
            characters: number of characters to score: all, or a fixed sample, spread evenly.
            advance: called after each piece with the number of characters scored in it.
        """
        if self.corpus.validation_characters > SEQUENTIAL:
            own = self.weights()
            self.average.from_numpy(weights)
            try:
                return self._loss(self._streams(characters), advance, exact=True)
            finally:
                self.average.from_numpy(own)  # the run's last checkpoint keeps it
        ids, start = self.corpus.ids, self.corpus.validation_start
        first = max(0, start - 1 - WARM_UP)
        network = Network(self.model.config, weights)
        loss = -float(score_text(network, ids[first:], start - first, advance).mean())
        return self.cluster.agree(loss)

    def _streams(self, characters: int) -> Streams:
        return validation_streams(
            self.corpus.ids, self.corpus.validation_start, self.settings.seq_length, limit=characters
        )

    def _loss(self, streams: Streams, advance: Callable[[int], None] = lambda _: None, exact: bool = False) -> float:
        """Loss of the moving average over streams, in the precision of the updates, or in float32 if `exact`.

        Each worker reads some of the streams.
        """
        scores = streams[2]
        worker = self.cluster.worker
        if worker.count > 1:
            inputs, targets, weights = streams
            mine = np.arange(len(inputs)) % worker.count == worker.index
            own = mine if mine.any() else np.arange(len(inputs)) == 0  # one is read by all, but counts only once
            streams = inputs[own], targets[own], weights[own] * mine[own, None]
        state = self.average.zero_state(len(streams[0]))
        total = 0.0
        for start in range(0, streams[0].shape[1], self.settings.seq_length):
            window = [array[:, start : start + self.settings.seq_length] for array in streams]
            loss, state = self._evaluate(*map(tf.constant, window), state, exact=exact and not self._is_exact)
            total += float(loss)
            advance(int(scores[:, start : start + self.settings.seq_length].sum()))
        # The window that `_seconds` takes scores none.
        return float(self.cluster.share([total]).sum()) / max(1.0, float(scores.sum()))

    def _seconds(self, streams: Streams, exact: bool) -> float:
        """Estimate how long `_loss` takes over streams, from one of its windows."""
        width, length = streams[0].shape[1], self.settings.seq_length
        window = tuple(array[:, :length] for array in streams)
        self._loss(window, exact=exact)  # TensorFlow traces this call
        before = time.perf_counter()
        self._loss(window, exact=exact)
        return float((time.perf_counter() - before) * width / length)

    def begin(
        self,
        final_characters: int,
        patience: float,
        show: Callable[[int, float], None] = lambda *_: None,
        most: int = sys.maxsize,
    ) -> tuple[list[float], Speed]:
        """Make the first updates of a run of unknown length, and measure the speed for planning it.

        Args:
            final_characters: number of characters that `final_loss` will score.
            patience: seconds to spend on updates after the first, of which there are at least three.
            show: called with the number of updates made and the loss before the last of them.
            most: number of updates to make, if the time allows them; four are made in any case.

        Returns:
            The loss before each update, and the speed.
        """
        batches = self.batches(0)
        losses: list[float] = []
        seconds: list[float] = []
        while len(seconds) < 3 or self.cluster.agree(sum(seconds) < patience and len(losses) < most):
            step = len(losses)
            count = min(self.layout.at_once, max(1, most - step))
            rates = [learning_rate_at(step + i, None, self.settings.learning_rate) for i in range(count)]
            before = time.perf_counter()
            losses += self.updates(step, rates, batches)
            if step > 0:  # TensorFlow traces the first update
                seconds += [(time.perf_counter() - before) / count] * count
            show(len(losses), losses[-1])
        validation = self._seconds(self.validation, exact=False)
        if self.corpus.validation_characters > SEQUENTIAL:
            final = self._seconds(self._streams(final_characters), exact=True)
        else:
            network = Network(self.model.config, self.weights())
            before = time.perf_counter()
            score_text(network, self.corpus.ids[:_PACE], 1)
            final = (time.perf_counter() - before) * (final_characters + WARM_UP) / _PACE
        # The median, so that a moment of other work on the machine does not halve a run.
        return losses, Speed(statistics.median(seconds), validation, final)

    def training_tensors(self) -> dict[str, Array]:
        """Everything else that a resume needs, named as in `records.training_shapes`."""
        tensors = {name: to_numpy(variable) for name, variable in self._variables().items()}
        parts = CELLS[self.settings.cell].STATE
        for layer, layer_state in enumerate(self.cluster.gather(self.state)):
            for part, tensor in zip(parts, layer_state, strict=True):
                tensors[f"state.layer{layer}.{part}"] = to_numpy(tensor)
        return tensors

    def _variables(self) -> dict[str, Any]:
        """The weights after the last update, and the optimizer's moments."""
        by_path = {variable.path: variable for variable in self.optimizer.variables}
        variables = {}
        for name, variable in self.model.named_weights.items():
            variables[f"current.{name}"] = variable
            for moment in ("momentum", "velocity"):
                path = f"{self.optimizer.name}/{variable.path.replace('/', '_')}_{moment}"
                variables[f"adam.{moment}.{name}"] = by_path[path]
        return variables

    def restore(self, step: int, weights: Mapping[str, Array], training: Mapping[str, Array]) -> None:
        """Restore the state after `step` updates, from the `weights` and `training_tensors` of that moment."""
        self.optimizer.iterations.assign(step)
        self.average.from_numpy(weights)
        for name, variable in self._variables().items():
            variable.assign(training[name])
        parts = CELLS[self.settings.cell].STATE
        self.state = self._distributed(
            [tuple(training[f"state.layer{layer}.{part}"] for part in parts) for layer in range(self.settings.layers)]
        )
