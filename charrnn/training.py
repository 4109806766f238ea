"""The training loop: steps, validation, checkpoints.

A run is a function of (settings, corpus): randomness comes from (seed, step), the place in the text
from the step, and everything measured at the start is decided once. So a run that was stopped and
continued ends where one that was not stopped does.
"""

from __future__ import annotations

import dataclasses
import math
import signal
import time
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt

from charrnn import CharrnnError, checkpoint
from charrnn.backend import choose_device, keras, tf
from charrnn.checkpoint import Checkpoint, CorpusIdentity, Progress, Settings
from charrnn.data import WARM_UP, steps_per_epoch, validation_streams, windows
from charrnn.model import CharacterModel, TensorState, to_numpy
from charrnn.network import Network, state_parts
from charrnn.planning import Job
from charrnn.progress import ProgressDisplay
from charrnn.runs import Report
from charrnn.sampling import Choice, generate, text_stream

CLIP_NORM = 1.0  # of the whole gradient
VALIDATIONS = 20  # in a run, unless they would cost more than the share below
VALIDATION_COST = 1 / 15  # of the characters trained on, at most, are read for validation
SAVE_SECONDS = 60.0  # between checkpoints, also where no validation comes
SAMPLE_LENGTH = 160
_SPEED_KEPT = 0.97  # the mean speed of a run is a little below that of its first steps
_SCORE_CHUNK = 1000  # characters of the sequential pass between two looks at the clock


def learning_rate_at(step: int, total_steps: int, highest: float) -> float:
    """The learning rate of an update: linear warm-up, then half a cosine down to a twentieth.

    The form of Loshchilov and Hutter (2017, arXiv:1608.03983), without restarts.

    Args:
        step: counted from 0.
        total_steps: of the run.
        highest: what the warm-up reaches.
    """
    warm_up = min(100, total_steps // 10)
    if step < warm_up:
        return highest * (step + 1) / warm_up
    done = (step - warm_up) / (total_steps - warm_up)
    return highest * (0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2)


class Stopped(Exception):  # noqa: N818 - it is no error
    """The user or the system asked the training to stop; what it reached is saved.

    Attributes:
        signal: SIGINT or SIGTERM.
        progress: what was saved.
    """

    def __init__(self, number: int, progress: Progress) -> None:
        super().__init__(number)
        self.signal = number
        self.progress = progress


class _StopRequest:
    """Remembers the first SIGINT or SIGTERM; a second one acts at once, as it would anywhere."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _request(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Trainer:
    """Trains one model on one corpus, step by step, and can tell and take up where it stands."""

    def __init__(self, job: Job) -> None:
        """Build the model and the optimizer of a job, at its start or where its run stands."""
        self.settings: Settings = job.settings
        self.corpus = job.corpus
        self.model = CharacterModel(
            self.settings.network(self.corpus.vocabulary), self.settings.dropout, self.settings.seed
        )
        self.optimizer = keras.optimizers.Adam(self.settings.learning_rate, global_clipnorm=CLIP_NORM)
        self.optimizer.build(self.model.trainable_variables)
        self.state: TensorState = self.model.zero_state(self.settings.batch_size)
        self.steps_per_epoch = steps_per_epoch(
            len(self.corpus.training), self.settings.batch_size, self.settings.seq_length
        )
        if job.resume is not None:
            self.restore(job.resume)
        self._update = tf.function(self._update_eagerly)
        self._evaluate = tf.function(self._evaluate_eagerly)
        self._validation = validation_streams(self.corpus.ids, self.corpus.validation_start, self.settings.seq_length)

    @property
    def characters_per_step(self) -> int:
        """B * T."""
        return self.settings.batch_size * self.settings.seq_length

    @property
    def validation_characters(self) -> int:
        """How many characters one validation reads, warm-up and padding included."""
        return int(self._validation[0].size)

    def _update_eagerly(self, ids: Any, targets: Any, state: TensorState, seed: Any) -> tuple[Any, TensorState]:
        with tf.GradientTape() as tape:
            logits, state = self.model(ids, state, dropout_seed=seed)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)  # (B, T)
            loss = tf.reduce_mean(losses)
        variables = self.model.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        # The embedding's gradient comes as rows; summed in their order it is the same every time.
        self.optimizer.apply([tf.convert_to_tensor(gradient) for gradient in gradients], variables)
        return loss, state

    def _evaluate_eagerly(self, ids: Any, targets: Any, weights: Any, state: TensorState) -> tuple[Any, TensorState]:
        logits, state = self.model(ids, state)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        return tf.reduce_sum(losses * weights), state

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
        self.optimizer.learning_rate.assign(learning_rate)
        seed = tf.constant([self.settings.seed, step], tf.int64)
        loss, self.state = self._update(tf.constant(batch[0]), tf.constant(batch[1]), self.state, seed)
        return float(loss)

    def validate(self) -> float:
        """Loss over the validation part, or a fixed sample of it, in parallel streams; nats per character."""
        inputs, targets, weights = self._validation
        state = self.model.zero_state(len(inputs))
        total = 0.0
        for start in range(0, inputs.shape[1], self.settings.seq_length):
            window = slice(start, start + self.settings.seq_length)
            loss, state = self._evaluate(
                tf.constant(inputs[:, window]), tf.constant(targets[:, window]), tf.constant(weights[:, window]), state
            )
            total += float(loss)
        return total / float(weights.sum())

    def training_tensors(self) -> dict[str, npt.NDArray[np.float32]]:
        """The optimizer's moments and the carried state, named as `checkpoint.training_shapes` does."""
        tensors = {name: to_numpy(variable) for name, variable in self._moments().items()}
        parts = state_parts(self.settings.cell)
        for layer, layer_state in enumerate(self.state):
            for part, tensor in zip(parts, layer_state, strict=True):
                tensors[f"state.layer{layer}.{part}"] = to_numpy(tensor)
        return tensors

    def _moments(self) -> dict[str, Any]:
        by_path = {variable.path: variable for variable in self.optimizer.variables}
        moments = {}
        for name, variable in self.model.named_weights.items():
            for moment in ("momentum", "velocity"):
                path = f"{self.optimizer.name}/{variable.path.replace('/', '_')}_{moment}"
                moments[f"adam.{moment}.{name}"] = by_path[path]
        return moments

    def restore(self, saved: Checkpoint) -> None:
        """Take up what a checkpoint holds."""
        self.model.from_numpy(saved.weights)
        self.reset_optimizer(saved.progress.step, saved.training)
        parts = state_parts(self.settings.cell)
        self.state = [
            tuple(tf.constant(saved.training[f"state.layer{layer}.{part}"]) for part in parts)
            for layer in range(self.settings.layers)
        ]

    def reset_optimizer(self, step: int, moments: Mapping[str, Any] | None = None) -> None:
        """Set the optimizer's count of updates and its moments; to zero where none are given."""
        self.optimizer.iterations.assign(step)
        for name, variable in self._moments().items():
            variable.assign(moments[name] if moments is not None else np.zeros(variable.shape, np.float32))


def _validate_every(trainer: Trainer, total_steps: int) -> int:
    """Steps between validations: some twenty in a run, fewer where they would cost too much."""
    affordable = trainer.validation_characters / VALIDATION_COST / 3  # a third: no backward pass
    characters = max(total_steps * trainer.characters_per_step / VALIDATIONS, affordable)
    return min(total_steps, math.ceil(characters / trainer.characters_per_step))


def _steps_in(minutes: float, trainer: Trainer, network: Network) -> int:
    """How many steps fit into the time, by trying some; the trainer is as before afterwards.

    Counted from the call: the trial itself, validations, and the final pass over the validation part
    (up to a fifth of the time; over a large part it takes longer than that) are all within it.
    """
    start = time.perf_counter()
    budget = 60 * minutes
    weights, state = trainer.model.to_numpy(), trainer.state
    batches = trainer.batches(0)
    trainer.update(0, 0.0, next(batches))
    trainer.validate()  # both are traced now
    seconds: list[float] = []
    patience = min(5.0, max(0.5, budget / 50))
    trial = time.perf_counter()
    while len(seconds) < 3 or time.perf_counter() - trial < patience:
        before = time.perf_counter()
        trainer.update(1, 0.0, next(batches))
        seconds.append(time.perf_counter() - before)
    per_step = sum(seconds) / len(seconds)
    before = time.perf_counter()
    trainer.validate()
    validation = time.perf_counter() - before
    part = trainer.corpus.ids[trainer.corpus.validation_start :]
    before = time.perf_counter()
    network.loss(part[: _SCORE_CHUNK + 1], network.zero_state())
    per_character = (time.perf_counter() - before) / min(_SCORE_CHUNK, len(part))
    final_pass = min(per_character * len(part), budget / 5)
    trainer.model.from_numpy(weights)
    trainer.reset_optimizer(0)
    trainer.state = state

    steps = 1
    left = (budget - (time.perf_counter() - start) - final_pass) * _SPEED_KEPT
    for _ in range(3):  # the interval between validations depends on the number of steps
        steps = max(1, int(left / (per_step + validation / _validate_every(trainer, steps))))
    return steps


def train(job: Job, device: str | None, display: ProgressDisplay) -> None:
    """Train until the job is done or somebody asks to stop.

    Args:
        job: what to do.
        device: `cpu` or `gpu` to force it.
        display: shown what happens.

    Raises:
        Stopped: on SIGINT or SIGTERM, after saving.
        CharrnnError: the device is not there, a file cannot be written, or the loss is not a number.
    """
    with _StopRequest() as request:
        placed = choose_device(device)
        training = _Training(job, display, request)
        display.note(
            f"training {job.settings.layers} x {job.settings.units} {job.settings.cell.upper()} "
            f"({training.trainer.model.count_params():,} weights) on {placed}"
        )
        training.begin()
        training.run_steps()
        training.finish()


class _Training:
    """One call's work on one run: where it stands, and what is written and shown of it."""

    def __init__(self, job: Job, display: ProgressDisplay, request: _StopRequest) -> None:
        self.job, self.run, self.settings, self.corpus = job, job.run, job.settings, job.corpus
        self.config = job.settings.network(job.corpus.vocabulary)
        self.display = display
        self.request = request
        self.trainer = Trainer(job)
        self.progress: Progress
        self.reports: list[Report] = []
        self.last_saved = time.monotonic()

    def begin(self) -> None:
        """Decide what is decided once and save it as step 0, or take up what was saved."""
        if self.job.resume is not None:
            self.run.prepare()
            self.progress = self.job.resume.progress
            self.reports = [report for report in self.run.read_history() if report.step <= self.progress.step]
            self.display.note(
                f"continuing {self.run.folder} at step {self.progress.step:,} of {self.progress.total_steps:,}"
            )
            return
        if self.settings.minutes is not None:
            self.display.note(f"measuring the speed, to fit the training into {self.settings.minutes:g} min")
            network = Network(self.config, self.trainer.model.to_numpy())
            total_steps = _steps_in(self.settings.minutes, self.trainer, network)
        else:
            total_steps = (self.settings.epochs or 1) * self.trainer.steps_per_epoch
        self.progress = Progress(total_steps, _validate_every(self.trainer, total_steps), 0, None, None, 0.0, 0, None)
        if self.run.exists():  # and is not continued: --fresh
            self.display.note(f"the old run is kept as {self.run.set_aside().folder}")
        self.run.prepare()
        self.save_last()
        self.run.write_history(self.reports)

    def checkpoint(self, progress: Progress, training: dict[str, Any]) -> Checkpoint:
        """The model as it stands."""
        identity = CorpusIdentity(self.corpus.sha256, len(self.corpus.ids))
        weights = self.trainer.model.to_numpy()
        return Checkpoint(self.settings, self.corpus.vocabulary, identity, progress, weights, training)

    def save_last(self) -> None:
        """Save everything that a resume needs."""
        self.run.save(self.run.last, self.checkpoint(self.progress, self.trainer.training_tensors()))
        self.last_saved = time.monotonic()

    def run_steps(self) -> None:
        """Make the updates that are left."""
        trainer, display = self.trainer, self.display
        seconds_before = self.reports[-1].seconds if self.reports else 0.0
        start = time.monotonic()
        updating, updates = 0.0, 0  # seconds and number of updates since the last report
        batches = trainer.batches(self.progress.step)
        with display.steps(self.progress, trainer.steps_per_epoch, trainer.characters_per_step):
            while (step := self.progress.step) < self.progress.total_steps:
                before = time.monotonic()
                learning_rate = learning_rate_at(step, self.progress.total_steps, self.settings.learning_rate)
                loss = trainer.update(step, learning_rate, next(batches))
                updating, updates = updating + time.monotonic() - before, updates + 1
                self._check(loss, step + 1)
                self.progress = dataclasses.replace(
                    self.progress,
                    step=step + 1,
                    loss_sum=self.progress.loss_sum + loss,
                    loss_count=self.progress.loss_count + 1,
                )
                display.step(step + 1, loss)
                if (step + 1) % self.progress.validate_every == 0 or step + 1 == self.progress.total_steps:
                    self.report(
                        learning_rate,
                        seconds=seconds_before + time.monotonic() - start,
                        chars_per_second=updates * trainer.characters_per_step / updating,
                    )
                    updating, updates = 0.0, 0
                elif self.request.signal is not None or time.monotonic() - self.last_saved > SAVE_SECONDS:
                    self.save_last()
                if self.request.signal is not None:
                    raise Stopped(self.request.signal, self.progress)

    def _check(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise CharrnnError(
                f"the loss is no longer a number at step {step:,}; the checkpoints in {self.run.folder} are from "
                "before: try again with --fresh and a --learning-rate lower than "
                f"{self.settings.learning_rate:g}"
            )

    def report(self, learning_rate: float, seconds: float, chars_per_second: float) -> None:
        """Validate, save, and show how it goes."""
        val_loss = self.trainer.validate()
        report = Report(
            step=self.progress.step,
            epoch=self.progress.step / self.trainer.steps_per_epoch,
            train_loss=self.progress.loss_sum / self.progress.loss_count,
            val_loss=val_loss,
            learning_rate=learning_rate,
            seconds=seconds,
            chars_per_second=chars_per_second,
        )
        self.progress = dataclasses.replace(self.progress, loss_sum=0.0, loss_count=0)
        is_best = self.progress.best_loss is None or val_loss < self.progress.best_loss
        if is_best:
            self.progress = dataclasses.replace(self.progress, best_step=report.step, best_loss=val_loss)
            self.run.save(self.run.best, self.checkpoint(self.progress, {}))
        # In this order: a run that is killed in between goes on from the last checkpoint and comes
        # to the same best one and the same row again.
        self.reports.append(report)
        self.run.write_history(self.reports)
        self.save_last()
        sample = None
        if self.display.shows_samples:
            network = Network(self.config, self.trainer.model.to_numpy())
            no_prime = np.zeros(0, self.corpus.vocabulary.dtype)
            sample = "".join(
                text_stream(
                    self.corpus.vocabulary,
                    no_prime,
                    generate(network, self.corpus.vocabulary, no_prime, SAMPLE_LENGTH, Choice(0.8), report.step),
                )
            )
        self.display.report(report, is_best, sample)

    def finish(self) -> None:
        """Score the best weights in one sequential pass, and write the result down."""
        best = checkpoint.load(self.run.best)
        network = Network(self.config, best.weights)
        start = self.corpus.validation_start
        warm_up = self.corpus.ids[max(0, start - 1 - WARM_UP) : start]
        _, state = network.loss(warm_up, network.zero_state())
        part = self.corpus.ids[start - 1 :]
        total = 0.0
        with self.display.final_pass(len(part) - 1) as advance:
            for chunk in range(0, len(part) - 1, _SCORE_CHUNK):
                ids = part[chunk : chunk + _SCORE_CHUNK + 1]
                loss, state = network.loss(ids, state)
                total += loss
                advance(len(ids) - 1)
                if self.request.signal is not None:
                    raise Stopped(self.request.signal, self.progress)
        final_loss = total / (len(part) - 1)
        best_progress = dataclasses.replace(best.progress, final_loss=final_loss)
        self.run.save(self.run.best, dataclasses.replace(best, progress=best_progress))
        self.progress = dataclasses.replace(self.progress, final_loss=final_loss)
        self.save_last()
        self.display.finished(self.progress, len(part) - 1)
