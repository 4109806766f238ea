"""One model, its optimizer and its place in the text: updates, validation, and all that a resume needs."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from charrnn.network.config import Array, state_parts
from charrnn.network.network import Network
from charrnn.planning.schedule import Speed, learning_rate_at
from charrnn.planning.warm_start import Source
from charrnn.runs.records import Settings
from charrnn.text.corpus import Corpus
from charrnn.text.windows import steps_per_epoch, validation_streams, windows
from charrnn.training.backend import keras, tf
from charrnn.training.layout import STOCK, Layout
from charrnn.training.model import CharacterModel, TensorState, to_numpy

CLIP_NORM = 1.0  # of the whole gradient
FRESH_EVERY = 16
"""Every so many updates one of the streams, in turn, starts anew from the zero state.

Without it a network sees that state once an epoch only, and early in training cannot start from it: samples
and validation, which do, go wrong. On tinyshakespeare after 0.9 epochs the validation loss is 1.92 with it and
2.14 without; after 2 epochs both are 1.78.
"""
UNSEEN_COUNT = 0.01  # how often a symbol counts that the text does not have
SCORE_CHUNK = 1000  # characters of a sequential pass that are scored at once


WEIGHT_DECAY = 0.05
"""Of the kernels, times the learning rate, apart from Adam's moments: Loshchilov, Hutter (2019, arXiv:1711.05101)."""
AVERAGE_DECAY = 0.998  # of the moving average of the weights, which is what is validated and samples


class FusedAdam(keras.optimizers.AdamW):  # type: ignore[misc]  # Keras has no types
    """Keras' AdamW, with TensorFlow's fused kernel: one pass over memory where the operations make ten."""

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
    """The softmax layer's first biases, (V,): what a network says that looks at nothing but how often characters are.

    It saves the updates that would learn this. And symbols that the text never has start out improbable; with
    equal biases, a network that is hardly trained writes them into its samples.
    """
    counts = np.bincount(corpus.training, minlength=len(corpus.vocabulary)) + UNSEEN_COUNT
    logarithms: Array = np.log(counts / counts.sum()).astype(np.float32)
    return logarithms


class Trainer:
    """Trains one model on one corpus, step by step, and can tell and take up where it stands."""

    def __init__(
        self,
        settings: Settings,
        corpus: Corpus,
        layout: Layout = STOCK,
        source: Source | None = None,
    ) -> None:
        """Build the model and the optimizer at their start, which a source gives its weights to."""
        self.settings = settings
        self.corpus = corpus
        self.model = CharacterModel(settings.network(corpus.vocabulary), settings.dropout, settings.seed, layout)
        self.model.softmax.bias.assign(log_frequencies(corpus))
        if source is not None:
            self.model.from_numpy(source.initial_weights(corpus, self.model.to_numpy()))
        self.optimizer = FusedAdam(
            settings.learning_rate, weight_decay=WEIGHT_DECAY, global_clipnorm=CLIP_NORM, name="adam"
        )
        self.optimizer.exclude_from_weight_decay(var_names=["bias", "embeddings"])
        self.optimizer.build(self.model.trainable_variables)
        self._averages = {name: tf.Variable(weight) for name, weight in self.model.named_weights.items()}
        self.state: TensorState = self.model.zero_state(self.settings.batch_size)
        self.steps_per_epoch = steps_per_epoch(
            len(self.corpus.training), self.settings.batch_size, self.settings.seq_length
        )
        # No control flow to convert, and looking for it takes TensorFlow three times as long as tracing.
        self._update = tf.function(self._update_eagerly, autograph=False)
        self._evaluate = tf.function(self.model.loss_sum, autograph=False)
        self._validation = validation_streams(self.corpus.ids, self.corpus.validation_start, self.settings.seq_length)

    def set_dropout(self, rate: float) -> None:
        """Drop this share of every layer's outputs in the updates from here on."""
        if bool(rate) != bool(self.settings.dropout):
            self._update = tf.function(self._update_eagerly, autograph=False)
        self.settings = dataclasses.replace(self.settings, dropout=rate)
        self.model.set_dropout(rate)

    @property
    def characters_per_step(self) -> int:
        """B * T."""
        return self.settings.batch_size * self.settings.seq_length

    @property
    def validation_characters(self) -> int:
        """How many characters one validation reads, warm-up and padding included."""
        return int(self._validation[0].size)

    def _update_eagerly(self, ids: Any, targets: Any, state: TensorState, seed: Any) -> tuple[Any, TensorState]:
        weights = tf.fill(tf.shape(ids), tf.constant(1 / self.characters_per_step))
        with tf.GradientTape() as tape:
            loss, state = self.model.loss_sum(ids, targets, weights, state, seed)
        variables = self.model.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        # The embedding's gradient comes as rows; summed in their order it is the same every time.
        self.optimizer.apply([tf.convert_to_tensor(gradient) for gradient in gradients], variables)
        # At first an average over the last tenth of the updates, so that it forgets how it began.
        updates = tf.cast(self.optimizer.iterations, tf.float32)
        change = 1 - tf.minimum(AVERAGE_DECAY, updates / (9 + updates))
        for name, weight in self.model.named_weights.items():
            average = self._averages[name]
            average.assign_add(change * (weight.value - average))
        return loss, state

    def batches(self, step: int) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
        """Inputs and targets, each (B, T), of the update after `step` and of all that follow."""
        epoch, window = divmod(step, self.steps_per_epoch)
        while True:
            yield from windows(
                self.corpus.training,
                self.settings.batch_size,
                self.settings.seq_length,
                self.settings.seed,
                epoch,
                first=window,
            )
            epoch, window = epoch + 1, 0

    def update(
        self, step: int, learning_rate: float, batch: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]
    ) -> float:
        """Make update `step` (counted from 0).

        Returns:
            The loss before it, nats per character.
        """
        if step % self.steps_per_epoch == 0:
            self.state = self.model.zero_state(self.settings.batch_size)
        elif step % FRESH_EVERY == 0:
            keep = np.ones((self.settings.batch_size, 1), np.float32)
            keep[step // FRESH_EVERY % self.settings.batch_size] = 0
            self.state = [tuple(tensor * keep for tensor in layer_state) for layer_state in self.state]
        self.optimizer.learning_rate.assign(learning_rate)
        seed = tf.constant([self.settings.seed, step], tf.int64)
        loss, self.state = self._update(tf.constant(batch[0]), tf.constant(batch[1]), self.state, seed)
        return float(loss)

    def weights(self) -> dict[str, Array]:
        """The moving average of the weights: what is validated, and samples."""
        return {name: to_numpy(average) for name, average in self._averages.items()}

    def validate(self) -> float:
        """Loss over the validation part, or a fixed sample of it, in parallel streams; nats per character.

        It is that of the moving average of the weights.
        """
        current = self.model.to_numpy()
        self.model.from_numpy(self._averages)
        try:
            return self._validation_loss()
        finally:
            self.model.from_numpy(current)

    def _validation_loss(self) -> float:
        inputs, _, weights = self._validation
        state = self.model.zero_state(len(inputs))
        total = 0.0
        for start in range(0, inputs.shape[1], self.settings.seq_length):
            loss, state = self._validate_window(start, state)
            total += loss
        return total / float(weights.sum())

    def _validate_window(self, start: int, state: TensorState) -> tuple[float, TensorState]:
        window = slice(start, start + self.settings.seq_length)
        loss, state = self._evaluate(*(tf.constant(array[:, window]) for array in self._validation), state)
        return float(loss), state

    def begin(self, patience: float, show: Callable[[int, float], None] = lambda *_: None) -> tuple[list[float], Speed]:
        """Make the first updates of a run whose length is not known, and measure what it is to be planned from.

        Args:
            patience: for how many seconds to make updates, three at the least.
            show: told the number of updates made and the loss before the last of them.

        Returns:
            The loss before each of the updates, and the speed.
        """
        batches = self.batches(0)
        losses: list[float] = []
        seconds: list[float] = []
        while len(seconds) < 3 or sum(seconds) < patience:
            step = len(losses)
            before = time.perf_counter()
            losses.append(self.update(step, learning_rate_at(step, None, self.settings.learning_rate), next(batches)))
            if step > 0:  # in the first it is traced
                seconds.append(time.perf_counter() - before)
            show(len(losses), losses[-1])
        streams, width = self._validation[0].shape
        state = self.model.zero_state(streams)
        self._validate_window(0, state)  # traced here
        before = time.perf_counter()
        self._validate_window(0, state)
        validation = (time.perf_counter() - before) * width / self.settings.seq_length
        network = Network(self.model.config, self.weights())
        part = self.corpus.ids[self.corpus.validation_start :]
        before = time.perf_counter()
        network.loss(part[: SCORE_CHUNK + 1], network.zero_state())
        final_pass = (time.perf_counter() - before) * len(part) / min(SCORE_CHUNK, len(part))
        # The median: something else that the machine does for a moment must not halve a run.
        return losses, Speed(statistics.median(seconds), validation, final_pass)

    def training_tensors(self) -> dict[str, Array]:
        """All else that a resume needs, named as `records.training_shapes` does."""
        tensors = {name: to_numpy(variable) for name, variable in self._variables().items()}
        parts = state_parts(self.settings.cell)
        for layer, layer_state in enumerate(self.state):
            for part, tensor in zip(parts, layer_state, strict=True):
                tensors[f"state.layer{layer}.{part}"] = to_numpy(tensor)
        return tensors

    def _variables(self) -> dict[str, Any]:
        """The weights as the last update left them, and the optimizer's moments."""
        by_path = {variable.path: variable for variable in self.optimizer.variables}
        variables = {}
        for name, variable in self.model.named_weights.items():
            variables[f"current.{name}"] = variable
            for moment in ("momentum", "velocity"):
                path = f"{self.optimizer.name}/{variable.path.replace('/', '_')}_{moment}"
                variables[f"adam.{moment}.{name}"] = by_path[path]
        return variables

    def restore(self, step: int, weights: Mapping[str, Array], training: Mapping[str, Array]) -> None:
        """Be as after update `step`, with the `weights` and `training_tensors` of then."""
        self.optimizer.iterations.assign(step)
        for name, average in self._averages.items():
            average.assign(weights[name])
        for name, variable in self._variables().items():
            variable.assign(training[name])
        parts = state_parts(self.settings.cell)
        self.state = [
            tuple(tf.constant(training[f"state.layer{layer}.{part}"]) for part in parts)
            for layer in range(self.settings.layers)
        ]
