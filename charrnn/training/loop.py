"""The training loop: steps, validation, checkpoints.

A run is a function of (settings, corpus). Randomness comes from (seed, step), the place in the text from the step.
charrnn measures the speed once, during the first updates, and saves what follows from it. A stopped and continued run
therefore ends where an uninterrupted one does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
import time
from typing import NoReturn

import numpy as np

from charrnn import CharrnnError, __version__
from charrnn.files import NotWrittenError
from charrnn.messages import plural
from charrnn.network.cells import CELLS, Array
from charrnn.network.config import count_weights
from charrnn.network.network import Network
from charrnn.planning.job import Job
from charrnn.planning.schedule import (
    PATIENCE,
    learning_rate_at,
    minutes_worth_waiting,
    trial_seconds,
    validation_interval,
)
from charrnn.runs import checkpoint
from charrnn.runs.history import Report
from charrnn.runs.records import Checkpoint, CorpusIdentity, Progress
from charrnn.sampling.choice import DEFAULT_TEMPERATURE, Choice
from charrnn.sampling.streams import generate
from charrnn.training.backend import Device, arithmetic, choose_device, tf
from charrnn.training.cluster import Cluster, connect, losing_workers
from charrnn.training.display import ProgressDisplay
from charrnn.training.layout import Layout, choose_layout
from charrnn.training.stopping import Stopped, StopRequest
from charrnn.training.trainer import Trainer

SAVE_SECONDS = 60.0  # between checkpoints, at most, unless the user gives another time
LEAST_STEPS = 5  # of a run from a model; the first four measure the speed
SAVE_COST = 0.01  # share of the time that saving after validations may take
EXPLODED = 3  # times the loss of pure guessing, ln V: no training that goes well reaches it
UNLIKE_REPORTS = 3  # after this many validations, charrnn reports a loss that is still worse than guessing
SAMPLE_LENGTH = 160
FEW_STEPS = 50  # after fewer updates, no network writes words


def train(job: Job, display: ProgressDisplay) -> None:
    """Train until the job is done or a signal asks to stop.

    Args:
        job: the job.
        display: shows the progress.

    Raises:
        Stopped: on a signal that asks to stop, after saving.
        CharrnnError: the device is missing, a file cannot be written, there is not enough memory, or the loss is not
            a number.
    """
    try:
        _train(job, display)
    except (MemoryError, tf.errors.ResourceExhaustedError):
        if job.resume is not None:
            advice = "continue on a machine with more memory"
        else:
            advice = "give --fresh, and " if job.run.exists() else ""  # a run that has begun rejects other settings
            if job.source is not None:
                advice += "lower --batch-size or --seq-length, or start from a smaller model"
            else:
                advice += "lower --units, --layers, --batch-size or --seq-length"
        raise CharrnnError(f"there is not enough memory for this run: {advice}") from None


def _train(job: Job, display: ProgressDisplay) -> None:
    saved = job.resume.progress if job.resume else None
    if saved is None:
        message = "stopped during setup: nothing is saved yet; the same command starts over"
    else:
        message = stopped_at(saved, job.commands.resume)

    def clean_up() -> None:
        if worker.is_chief:
            job.run.remove_lock()
        display.end()

    worker = job.call.worker
    training: _Training | None = None

    def remedy() -> str:
        every = "" if worker.beside == worker.count else " on each machine"
        if not worker.is_chief:
            return f"continue from the last checkpoint{every} with: {job.commands.resume}"
        last = saved if training is None else training.saved
        if last is None:
            return "nothing is saved yet: start all of them again"
        return f"step {last.step:,} of {last.total_steps:,} is saved; continue{every} with: {job.commands.resume}"

    with StopRequest(message, clean_up) as request, losing_workers(worker, remedy):
        place = choose_device(job.call.device, worker.beside)
        layout = choose_layout(place, job.settings, job.precision, saved, worker.count)
        cluster = connect(worker, place, job.settings.batch_size, display.note)
        if cluster.replicas > job.settings.batch_size:
            raise CharrnnError(
                f"{plural(job.settings.batch_size, 'stream')} cannot be divided among {cluster.replicas} replicas: use "
                "fewer workers" + ("" if saved else f", or a --batch-size of at least {cluster.replicas}")
            )
        weights = count_weights(job.settings.network(job.corpus.vocabulary))
        display.note(  # first, because building a very large network takes a while
            f"training {job.settings.layers} x {job.settings.units} {CELLS[job.settings.cell].TITLE} "
            f"({weights:,} weights) on {place.name}"
            + (f" in {layout.precision}" if layout.fast or place.gpu else "")
            + (f" with {cluster.replicas} replicas" if cluster.replicas > 1 else "")
        )
        if job.machine == "gpu" and not place.gpu and not saved:
            display.note(
                "TensorFlow finds no GPU, so the CPU trains with a GPU's settings; --device cpu chooses its own"
            )
        if layout.precision != job.settings.precision != "auto":
            display.note(f"--precision {job.settings.precision} has no effect on --cell {job.settings.cell} on a CPU")
        _refuse_differences(cluster, job, layout)
        training = _Training(job, place, layout, display, request, cluster)
        training.begin()
        request.is_remembered = True
        training.run_steps()
        training.finish()


def _refuse_differences(cluster: Cluster, job: Job, layout: Layout) -> None:
    """Check that all workers are about to do the same training; see `Cluster.refuse_differences`."""
    step = "a new run" if job.resume is None else f"a run at step {job.resume.progress.step:,}"
    settings = {name.replace("_", "-"): value for name, value in dataclasses.asdict(job.settings).items()}
    del settings["source"]  # a name, which may differ
    first_weights = settings.pop("init-from")
    cluster.refuse_differences(
        {
            "version of charrnn": __version__,
            "version of TensorFlow": tf.__version__,
            "text": f"{len(job.corpus.ids):,} characters, SHA-256 {job.corpus.sha256[:12]}",
            "checkpoint": step,
            "model to start from": "none" if first_weights is None else f"SHA-256 {first_weights[:12]}",
            **settings,
            "precision": layout.precision,
        }
    )


def stopped_at(progress: Progress, command: str) -> str:
    """The message of a stop, with the command that continues the run."""
    return f"stopped at step {progress.step:,} of {progress.total_steps:,} and saved; continue with: {command}"


class _Training:
    """The work of one call on one run: its state, files and display."""

    def __init__(
        self,
        job: Job,
        device: Device,
        layout: Layout,
        display: ProgressDisplay,
        request: StopRequest,
        cluster: Cluster,
    ) -> None:
        self.job, self.run, self.corpus, self.settings = job, job.run, job.corpus, job.settings
        self.config = job.settings.network(job.corpus.vocabulary)
        self.device = device
        self.layout = layout
        self.save_every = SAVE_SECONDS if job.call.save_every is None else job.call.save_every
        self.display = display
        self.request = request
        self.cluster = cluster
        self.trainer = Trainer(job.settings, job.corpus, layout, job.source, cluster)
        if job.resume is not None:
            self.trainer.restore(job.resume.progress.step, job.resume.weights, job.resume.training)
        self.loss_limit = EXPLODED * math.log(max(2, self.config.vocabulary_size))
        self.progress: Progress
        self.reports: list[Report] = []
        self.saved: Progress | None = None  # what a resume would start from
        self.best: Checkpoint | None = None  # kept, to write it again if the folder disappears
        self.best_is_saved = False
        self.syncs = True
        self.tried_step = 0  # step of the last save, failed or not
        self.tried_at = time.monotonic()
        self.saving = 0.0  # seconds that the last save took
        self.seconds_before = 0.0  # of training, before this call or before its loop

    def begin(self) -> None:
        """Make the decisions of a new run and save them, or continue a saved run.

        Raises:
            CharrnnError: the first updates made the loss explode, or nothing can be written.
        """
        if self.job.resume is not None:
            self._continue(self.job.resume)
            return
        final_characters = int(self.cluster.agree(self.job.final_characters))
        losses, total_steps = self._first_updates(final_characters)
        self.progress = Progress(
            total_steps=total_steps,
            validate_every=validation_interval(total_steps, *self._sizes),
            precision=self.layout.precision,
            parts=self.layout.parts,
            step=len(losses),
            best_step=None,
            best_loss=None,
            loss_sum=math.fsum(losses),
            loss_count=len(losses),
            final_characters=final_characters,
            final_loss=None,
            threads=self.device.cores,
            arithmetic=arithmetic(self.device, self.cluster.replicas),
        )
        if losses and not losses[-1] <= self.loss_limit:
            self.give_up(losses[-1])
        self.request.is_remembered = True
        if self.cluster.worker.is_chief:
            if self.run.exists():
                if not self.job.call.fresh:
                    raise self._meanwhile()
                self.display.note(f"the old run is kept as {self.run.set_aside().folder}")
            self.run.prepare()
        try:
            self.save()
        except NotWrittenError as error:
            remedy = (
                f"{'free some space there, or ' if error.is_full else ''}choose another folder with --checkpoints-dir"
            )
            raise CharrnnError(f"{error}; the training did not start: {remedy}") from None

    def _first_updates(self, final_characters: int) -> tuple[list[float], int]:
        """Measure the speed if the run has minutes; return the losses of these first updates, and the run's steps."""
        if self.settings.epochs is not None:
            return [], self.settings.epochs * self.trainer.steps_per_epoch
        minutes = self.settings.minutes or minutes_worth_waiting(self.corpus.training_characters)
        if self.settings.open_ended:
            self.display.note(
                f"training for up to {minutes:g} min, chosen from the size of the text; it stops early if the "
                "validation loss no longer falls; --minutes sets another time"
            )
        self.display.note(f"measuring the speed, to fit the training into {minutes:g} min")
        start, budget = time.monotonic(), 60 * minutes
        most = self._most_steps()
        with self.display.first_updates() as show:
            losses, speed = self.trainer.begin(final_characters, trial_seconds(budget), show, most // 4)
        self.seconds_before = time.monotonic() - start
        left = budget - self.seconds_before
        total_steps = min(most, len(losses) + speed.steps_within(left, *self._sizes))
        total_steps = int(self.cluster.agree(total_steps))
        if total_steps == most:
            self.display.note(
                f"{plural(most, 'update')} are enough: after {most / self.trainer.steps_per_epoch:.1f} passes, a "
                "network that can already read such a text begins to memorise it (--epochs sets other passes)"
            )
        elif total_steps < FEW_STEPS:
            self.display.note(
                f"{minutes:g} min allows only {plural(total_steps, 'update')} of this network on this machine, too "
                "few to learn much: give more --minutes"
            )
        return losses, total_steps

    def _most_steps(self) -> int:
        """The number of updates after which more minutes would do harm."""
        if self.job.most_passes == math.inf:
            return sys.maxsize
        return max(LEAST_STEPS, round(self.job.most_passes * self.trainer.steps_per_epoch))

    @property
    def _sizes(self) -> tuple[int, int]:
        return self.trainer.characters_per_step, self.trainer.validation_characters

    def _continue(self, saved: Checkpoint) -> None:
        if self.cluster.worker.is_chief:
            if not self.run.exists() or checkpoint.read_head(self.run.last).progress != saved.progress:
                raise self._meanwhile()
            self.run.prepare()
        self.saved, self.tried_step = saved.progress, saved.progress.step
        self.progress = dataclasses.replace(
            saved.progress,
            parts=self.layout.parts,
            threads=self.device.cores,
            arithmetic=arithmetic(self.device, self.cluster.replicas),
        )
        try:
            reports = self.run.read_history()
        except CharrnnError as error:
            self.display.note(f"{error}; charrnn starts a new one, without the earlier rows")
            reports = []
        self.reports = [report for report in reports if report.step <= self.progress.step]
        self._take_up_best(saved)
        self.seconds_before = self.reports[-1].seconds if self.reports else 0.0
        self.display.note(
            f"continuing {self.run.folder} at step {self.progress.step:,} of {self.progress.total_steps:,}"
        )
        threads, arithmetic_before = self.saved.threads, self.saved.arithmetic
        if (self.progress.threads, self.progress.arithmetic) != (threads, arithmetic_before):
            change = (
                f"with {plural(self.progress.threads, 'thread')} instead of {threads:,}"
                if self.progress.threads != threads
                else "on another processor, with another TensorFlow or another number of workers"
            )
            self.display.note(f"{change}: the result will be as good as without the stop, but not byte-identical")

    def _take_up_best(self, saved: Checkpoint) -> None:
        if saved.progress.best_step is None:
            return
        best, problem = None, f"{self.run.best}: another worker cannot read it"
        try:
            best = checkpoint.load(self.run.best)
            if best.settings != saved.settings or best.vocabulary.characters != saved.vocabulary.characters:
                raise CharrnnError(f"{self.run.best}: belongs to another run")
        except CharrnnError as error:
            best, problem = None, str(error)
        if self.cluster.share([best is not None]).all():
            self.best, self.best_is_saved = best, True
            return
        is_last = saved.progress.step == saved.progress.total_steps
        instead = "the last weights" if is_last else "the weights of the next validation"
        self.display.note(f"{problem}; the best weights are lost; {instead} replace them")
        self.progress = dataclasses.replace(self.progress, best_step=None, best_loss=None)

    def _meanwhile(self) -> CharrnnError:
        return CharrnnError(f"another process has trained {self.run.folder} in the meantime: run the command again")

    def snapshot(self, training: dict[str, Array]) -> Checkpoint:
        """The current model, with or without what a resume needs.

        Raises:
            CharrnnError: some weights are no longer numbers, and must not replace good ones.
        """
        weights = self.trainer.weights()
        if not all(np.isfinite(weight).all() for weight in [*weights.values(), *training.values()]):
            self.give_up(math.nan)
        identity = CorpusIdentity.of(self.corpus)
        return Checkpoint(self.settings, self.corpus.vocabulary, identity, self.progress, weights, training)

    def save(self) -> None:
        """Save the current state. No later update depends on when this happens.

        Raises:
            CharrnnError: some weights are no longer numbers.
            NotWrittenError: a file cannot be written; the previous save is still there.
        """
        start = time.monotonic()
        self.tried_step = self.progress.step
        try:
            is_synced = self.write(self.snapshot(self.trainer.training_tensors()))
        finally:
            self.tried_at = time.monotonic()
            self.saving = self.tried_at - start
        self.saved = self.progress
        if self.syncs and not is_synced:
            self.syncs = False
            self.display.note(
                f"the file system of {self.run.folder} does not sync files: after a power cut the last saves may be "
                "missing"
            )

    def write(self, last: Checkpoint | None) -> bool:
        """Write the run's files, the best weights only if they are missing; return whether all were synced.

        Of several workers, only the chief writes.

        Raises:
            NotWrittenError: a file cannot be written.
        """
        if not self.cluster.worker.is_chief:
            return True
        best = None if self.best_is_saved and os.path.exists(self.run.best) else self.best
        is_synced = self.run.save(last, self.reports, best)
        self.best_is_saved = True
        return is_synced

    def save_or_go_on(self) -> None:
        """Save, or report that it failed: the next save may succeed, and writes everything that this one did not."""
        try:
            self.save()
        except NotWrittenError as error:
            kept = f"kept so far: {self.kept}" if self.is_kept else self.kept
            self.display.note(f"{error}; training continues and will retry; {kept}")

    def save_or_fail(self) -> None:
        """Save when there is no later chance.

        Raises:
            CharrnnError: the save failed.
        """
        try:
            self.save()
        except NotWrittenError as error:
            if self.is_kept:
                kept = f"{self.kept} is kept: fix this, and continue with: {self.job.commands.resume}"
            else:
                kept = f"{self.kept}: fix this, and the same command starts over"
            raise CharrnnError(f"{error}; {kept}") from None

    @property
    def is_kept(self) -> bool:
        """Whether the last save is still there."""
        return self.saved is not None and os.path.exists(self.run.last)

    @property
    def kept(self) -> str:
        """What a continued run would start from, for messages."""
        if self.saved is None or not self.is_kept:
            return f"nothing is kept, since {self.run.folder} is gone or cannot be reached"
        return f"step {self.saved.step:,} of {self.saved.total_steps:,}"

    def save_is_due(self) -> bool:
        """Whether it is time, or there is a new validation that costs little to save."""
        since = time.monotonic() - self.tried_at
        validated = self.reports[-1].step if self.reports else 0
        return since >= self.save_every or (validated > self.tried_step and since > self.saving / SAVE_COST)

    def give_up(self, loss: float) -> NoReturn:
        """End a diverged training; keep the previous checkpoint, and the best weights so far.

        Raises:
            CharrnnError: always.
        """
        what = (
            f"rose to {loss:.1f} nats per character, far above the loss of pure guessing,"
            if math.isfinite(loss)
            else "is no longer a number"
        )
        if self.is_kept:
            kept = f"the checkpoints in {self.run.folder} are older than that: try again with --fresh and"
            with contextlib.suppress(NotWrittenError):  # the message is true even if this fails
                self.write(None)
        else:
            kept = "nothing is saved: try again with"
        raise CharrnnError(
            f"the loss {what} at step {self.progress.step:,}; {kept} a --learning-rate lower than "
            f"{self.settings.learning_rate:g}"
        )

    def run_steps(self) -> None:
        """Make the remaining updates."""
        trainer, display = self.trainer, self.display
        start = time.monotonic() - self.seconds_before
        updating, updates = 0.0, 0  # seconds and number of updates since the last report
        batches = trainer.batches(self.progress.step)
        first = self.progress.step
        with display.steps(self.progress, trainer.steps_per_epoch, trainer.characters_per_step):
            while (step := self.progress.step) < self.progress.total_steps and not self.no_longer_falls:
                total, every = self.progress.total_steps, self.progress.validate_every
                end = min(step + self.layout.at_once, step - step % every + every, total)
                rates = [learning_rate_at(i, total, self.settings.learning_rate) for i in range(step, end)]
                before = time.monotonic()
                losses = trainer.updates(step, rates, batches)
                updating, updates = updating + time.monotonic() - before, updates + len(losses)
                is_last = end == total
                due = end % every == 0 or is_last
                if step == first and not due:
                    updating, updates = 0.0, 0  # TensorFlow traced this update, so its time does not show the speed
                for loss in losses:
                    self.progress = dataclasses.replace(
                        self.progress,
                        step=self.progress.step + 1,
                        loss_sum=self.progress.loss_sum + loss,
                        loss_count=self.progress.loss_count + 1,
                    )
                    if not math.isfinite(loss):
                        self.give_up(math.nan)
                    display.step(self.progress.step, loss)
                if due:
                    speed = updates * trainer.characters_per_step / updating
                    self.report(rates[-1], time.monotonic() - start, speed)
                    updating, updates = 0.0, 0
                # Weights that may be exploding must not replace a good checkpoint: the next report decides.
                saving = self.save_is_due()
                asked = self.cluster.share([self.request.signal or 0, saving])
                if signal := int(asked[:, 0].max()):
                    if loss > self.loss_limit:
                        self.give_up(loss)
                    self.stop(signal)
                if is_last or (asked[0, 1] and loss <= self.loss_limit):
                    self.save_or_go_on()

    @property
    def no_longer_falls(self) -> bool:
        """Whether the best validation of an open-ended run is too long ago."""
        if not self.settings.open_ended or self.progress.best_step is None:
            return False
        validated = self.progress.step - self.progress.step % self.progress.validate_every
        return validated - self.progress.best_step >= PATIENCE * self.progress.validate_every

    def stop(self, number: int) -> NoReturn:
        """Save what is not saved yet, and stop for a signal; every worker must call this."""
        if self.cluster.agree(self.saved != self.progress or not self.is_kept):
            self.save_or_fail()
        raise Stopped(number, self.progress)

    def report(self, learning_rate: float, seconds: float, chars_per_second: float) -> None:
        """Validate, and show the result."""
        val_loss = self.trainer.validate()
        if not math.isfinite(val_loss):
            self.give_up(math.nan)
        train_loss = self.progress.loss_sum / self.progress.loss_count
        if train_loss > self.loss_limit:
            self.give_up(train_loss)
        report = Report(
            step=self.progress.step,
            epoch=self.progress.step / self.trainer.steps_per_epoch,
            train_loss=train_loss,
            val_loss=val_loss,
            learning_rate=learning_rate,
            seconds=seconds,
            chars_per_second=chars_per_second,
        )
        self.reports.append(report)
        self.progress = dataclasses.replace(self.progress, loss_sum=0.0, loss_count=0)
        is_best = self.progress.best_loss is None or val_loss < self.progress.best_loss
        if is_best:
            self.progress = dataclasses.replace(self.progress, best_step=report.step, best_loss=val_loss)
            self.best, self.best_is_saved = self.snapshot({}), False
        sample = None
        if self.display.shows_samples:
            network = Network(self.config, self.trainer.weights())
            vocabulary = self.corpus.vocabulary
            no_prime = np.zeros(0, vocabulary.dtype)
            ids = generate(network, vocabulary, no_prime, SAMPLE_LENGTH, Choice(DEFAULT_TEMPERATURE), report.step)
            sample = "".join(vocabulary.decode(ids))
        self.display.report(report, is_best, sample)
        is_last = report.step == self.progress.total_steps
        if len(self.reports) == UNLIKE_REPORTS or (is_last and len(self.reports) < UNLIKE_REPORTS):
            self.say_if_worse_than_guessing(report)

    def say_if_worse_than_guessing(self, report: Report) -> None:
        """Warn if the network learns, but even its best validation is worse than guessing: the text's parts differ."""
        guessing = math.log(max(2, self.config.vocabulary_size))
        if self.progress.best_loss is not None and report.train_loss < guessing < self.progress.best_loss:
            self.display.note(
                f"the validation loss stays above {guessing:.3f} nats, the loss of guessing: the last tenth of the "
                "text is unlike the part that the network trains on"
            )

    def finish(self) -> None:
        """Score the best weights, and save the result."""
        if self.progress.step < self.progress.total_steps:
            self.display.note(
                f"the validation loss has not fallen since step {self.progress.best_step:,}; "
                "charrnn keeps the weights of that step"
            )
        best = self.best or self.snapshot({})
        characters = self.progress.final_characters
        with self.display.final_pass(characters) as show:

            def advance(done: int) -> None:
                show(done)
                if signal := int(self.cluster.share([self.request.signal or 0]).max()):
                    self.stop(signal)

            final_loss = self.trainer.final_loss(best.weights, characters, advance)
        self.best_is_saved = False
        self.best = dataclasses.replace(best, progress=dataclasses.replace(best.progress, final_loss=final_loss))
        self.progress = dataclasses.replace(self.progress, final_loss=final_loss)
        self.save_or_fail()
        self.display.finished(self.progress, self.corpus.validation_characters, self.corpus.vocabulary.unit)
