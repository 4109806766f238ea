"""One model, its optimizer and its place in the text: updates, validation, and all that a resume needs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from charrnn.network.cells import CELLS, Array
from charrnn.network.network import Network
from charrnn.network.scoring import log_probabilities
from charrnn.planning.schedule import Speed, learning_rate_at
from charrnn.planning.warm_start import Source
from charrnn.runs.records import Settings
from charrnn.text.corpus import Corpus
from charrnn.text.windows import SEQUENTIAL, WARM_UP, steps_per_epoch, validation_streams, windows
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
_PACE = 200  # characters of a sequential pass that its speed is measured with
WEIGHT_DECAY = 0.05
"""Of the kernels, times the learning rate, apart from Adam's moments: Loshchilov, Hutter (2019, arXiv:1711.05101)."""
AVERAGE_DECAY = 0.998  # of the moving average of the weights, which is what is validated and samples


Streams = tuple[npt.NDArray[Any], ...]
"""As `windows.validation_streams` returns them."""


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
    """Trains one model on one corpus, step by step, and can tell and take up where it stands.

    Attributes:
        model: that the updates change.
        average: the moving average of its weights: what is validated, and samples.
        state: carried from update to update.
        validation: the streams that are validated.
    """

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
        self.average = CharacterModel(settings.network(corpus.vocabulary), 0.0, settings.seed, layout)
        self.average.from_numpy(self.model.named_weights)
        self._is_exact = layout.precision == "float32"
        self.state: TensorState = self.model.zero_state(self.settings.batch_size)
        self.steps_per_epoch = steps_per_epoch(
            len(self.corpus.training), self.settings.batch_size, self.settings.seq_length
        )
        # No control flow to convert, and looking for it takes TensorFlow three times as long as tracing.
        self._update = tf.function(self._update_eagerly, autograph=False)
        self._evaluate = tf.function(self.average.loss_sum, autograph=False)
        self.validation = self._streams(50_000)

    @property
    def characters_per_step(self) -> int:
        """B * T."""
        return self.settings.batch_size * self.settings.seq_length

    @property
    def validation_characters(self) -> int:
        """How many characters one validation reads, warm-up and padding included."""
        return int(self.validation[0].size)

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
        averages = self.average.named_weights
        for name, weight in self.model.named_weights.items():
            average = averages[name]
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
        return self.average.to_numpy()

    def validate(self) -> float:
        """Loss over the validation part, or a fixed sample of it, in parallel streams; nats per character.

        It is that of the moving average of the weights.
        """
        return self._loss(self.validation)

    def final_loss(self, weights: Mapping[str, Array], characters: int, advance: Callable[[int], None]) -> float:
        """Loss of weights over the validation part at the end of a run, in float32; nats per character.

        Args:
            weights: which take the place of the moving average.
            characters: to score: all, or a fixed sample, spread evenly.
            advance: told of every piece how many characters were scored.
        """
        ids, start = self.corpus.ids, self.corpus.validation_start
        if len(ids) - start > SEQUENTIAL:
            self.average.from_numpy(weights)
            return self._loss(self._streams(characters), advance, exact=True)
        first = max(0, start - 1 - WARM_UP)
        network = Network(self.model.config, weights)
        return -float(log_probabilities(network, ids[first:], start - first, advance).mean())

    def _streams(self, characters: int) -> Streams:
        return validation_streams(
            self.corpus.ids, self.corpus.validation_start, self.settings.seq_length, limit=characters
        )

    def _loss(self, streams: Streams, advance: Callable[[int], None] = lambda _: None, exact: bool = False) -> float:
        """Of the moving average over streams, in the precision of the updates or exactly, in float32."""
        inputs, _, scored = streams
        state = self.average.zero_state(len(inputs))
        total = 0.0
        for start in range(0, inputs.shape[1], self.settings.seq_length):
            window = [array[:, start : start + self.settings.seq_length] for array in streams]
            loss, state = self._evaluate(*map(tf.constant, window), state, exact=exact and not self._is_exact)
            total += float(loss)
            advance(int(window[2].sum()))
        return total / max(1.0, float(scored.sum()))  # none are scored in the window that `_seconds` takes

    def _seconds(self, streams: Streams, exact: bool) -> float:
        """How long `_loss` over streams takes, from one of its windows."""
        width, length = streams[0].shape[1], self.settings.seq_length
        window = tuple(array[:, :length] for array in streams)
        self._loss(window, exact=exact)  # traced here
        before = time.perf_counter()
        self._loss(window, exact=exact)
        return float((time.perf_counter() - before) * width / length)

    def begin(
        self, final_characters: int, patience: float, show: Callable[[int, float], None] = lambda *_: None
    ) -> tuple[list[float], Speed]:
        """Make the first updates of a run whose length is not known, and measure what it is to be planned from.

        Args:
            final_characters: that `final_loss` will score.
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
        validation = self._seconds(self.validation, exact=False)
        if len(self.corpus.ids) - self.corpus.validation_start > SEQUENTIAL:
            final = self._seconds(self._streams(final_characters), exact=True)
        else:
            network = Network(self.model.config, self.weights())
            before = time.perf_counter()
            log_probabilities(network, self.corpus.ids[:_PACE], 1)
            final = (time.perf_counter() - before) * (final_characters + WARM_UP) / _PACE
        # The median: something else that the machine does for a moment must not halve a run.
        return losses, Speed(statistics.median(seconds), validation, final)

    def training_tensors(self) -> dict[str, Array]:
        """All else that a resume needs, named as `records.training_shapes` does."""
        tensors = {name: to_numpy(variable) for name, variable in self._variables().items()}
        parts = CELLS[self.settings.cell].STATE
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
        self.average.from_numpy(weights)
        for name, variable in self._variables().items():
            variable.assign(training[name])
        parts = CELLS[self.settings.cell].STATE
        self.state = [
            tuple(tf.constant(training[f"state.layer{layer}.{part}"]) for part in parts)
            for layer in range(self.settings.layers)
        ]
