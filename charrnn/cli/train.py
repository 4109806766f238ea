"""`charrnn train`."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path
from typing import Any

import click

from charrnn.cli.options import (
    PATH,
    Command,
    as_utf8,
    complete_model,
    debug_option,
    experiment_option,
    folder_option,
    number,
)
from charrnn.messages import ignore_note, say, waiting_for
from charrnn.ranges import Range
from charrnn.runs.records import CHOICES, RANGES


@click.command(cls=Command)
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="FILE...")
@click.option("--glob", metavar="PATTERN", help="Which files in a folder to read, for example '*.txt' or '**/*.py'.")
@click.option(
    "--split-at",
    metavar="TEXT",
    callback=as_utf8,
    help=r"Split each file into several texts wherever TEXT occurs, for example '\n\n\n' or '<|endoftext|>'; "
    r"\n is a newline, \t a tab, \f a form feed, \\ a backslash.",
)
@click.option("--name", help="Name of the run.  [default: the first file's name, without its extension]")
@click.option("--epochs", type=number(RANGES["epochs"], int), help="Number of passes over the text.")
@click.option(
    "--minutes",
    type=number(RANGES["minutes"]),
    help="Longest training time in minutes, planned from the speed of the first updates.  [default, without --epochs: "
    "depends on the size of the text, 10 for a megabyte; training then ends early if the validation loss stops "
    "falling]",
)
@click.option("--fresh", is_flag=True, help="Start over; the old run is kept under another name.")
@click.option(
    "--init-from",
    metavar="WHERE",
    shell_complete=complete_model,
    help="Model to start from: a run's name or folder, a checkpoint file, starter (the model that comes with charrnn) "
    "or none.  [default: starter, unless the text has another alphabet, an option below asks for another network, or "
    "the run is on a GPU]",
)
@experiment_option(
    "--units",
    type=number(RANGES["units"], int),
    help="Width of each recurrent layer.  [default: the starter's; from nothing 128 to 512 (up to 1024 on a GPU), "
    "depending on the time and the text]",
)
@experiment_option(
    "--layers",
    type=number(RANGES["layers"], int),
    help="Number of recurrent layers.  [default: the starter's; from nothing 1 or 2, "
    "depending on the time and the text]",
)
@experiment_option(
    "--embedding",
    type=number(RANGES["embedding"], int),
    help="Width of the embedding vector of a character.  [default: 64]",
)
@experiment_option(
    "--cell",
    type=click.Choice(CHOICES["cell"]),
    help="Kind of recurrent layer.  [default: coupled (an LSTM with two gates); on a GPU, lstm]",
)
@experiment_option(
    "--dropout",
    type=number(RANGES["dropout"]),
    help="Share of each recurrent layer's outputs that is dropped.  "
    "[default: 0 to 0.6, depending on the number of passes over the text and its length]",
)
@experiment_option(
    "--batch-size",
    type=number(RANGES["batch_size"], int),
    help="Number of parallel streams of text.  [default: 32; on a GPU, 128; fewer for a small text]",
)
@experiment_option(
    "--seq-length",
    type=number(RANGES["seq_length"], int),
    help="Length of backpropagation through time, in characters.  [default: 64; fewer for a tiny text]",
)
@experiment_option(
    "--learning-rate",
    type=number(RANGES["learning_rate"]),
    help="Adam's highest learning rate, between warm-up and cosine decay.  [default: depends on the network; lower if "
    "the model to start from can already read the text]",
)
@click.option("--seed", type=number(RANGES["seed"], int), help="Seed for all random numbers.  [default: 1]")
@click.option(
    "--vocabulary",
    type=click.Choice(CHOICES["vocabulary"]),
    help="Printable ASCII, the text's own characters, or raw bytes.  "
    "[default: ascii; text if more than 1 character in 10,000 is outside ASCII and has no ASCII equivalent]",
)
@click.option("--encoding", help="Text encoding of the files.  [default: utf-8]")
@click.option(
    "--errors",
    type=click.Choice(CHOICES["errors"]),
    help="Reject invalid bytes, or read them as U+FFFD.  [default: strict]",
)
@experiment_option(
    "--precision",
    type=click.Choice(CHOICES["precision"]),
    help="Precision of the factors in matrix products; auto is the faster one on a CPU and float32 on a GPU.  "
    "[default: auto]",
)
@click.option(
    "--workers",
    type=number(Range(1, 1024), int),
    help="Number of processes on this machine that share each batch; TF_CONFIG connects those of several machines.  "
    "[default: 1]",
)
@click.option("--device", type=click.Choice(["cpu", "gpu"]), help="Where to train.  [default: a GPU if there is one]")
@click.option(
    "--save-every",
    type=number(Range(0)),
    metavar="SECONDS",
    help="Save at this interval, and also after a validation if that costs little.  [default: 60]",
)
@folder_option
@debug_option
def train(
    files: tuple[str, ...],
    glob: str | None,
    name: str | None,
    fresh: bool,
    device: str | None,
    save_every: float | None,
    folder: str,
    workers: int | None,
    **options: Any,
) -> None:
    """Train a model on text files; - reads standard input.

    Several files are several texts: the model learns where a text ends.

    The same command continues a stopped run. Settings that you leave out then come from the run.
    """
    from charrnn.planning.job import Call, plan_training
    from charrnn.planning.workers import this_worker, train_with
    from charrnn.text.reading import is_nameless

    worker = this_worker()
    if workers is not None and worker.count == 1 and workers > 1:
        if any(is_nameless(file) or Path(file).is_fifo() for file in files):
            raise click.UsageError("Several workers cannot share standard input or a pipe: give them a file.")
        raise click.exceptions.Exit(train_with(workers))
    if workers not in (None, worker.count):
        raise click.UsageError(f"TF_CONFIG has {worker.count} workers, not {workers}: leave out --workers.")
    # Only worker 0 prints and shows the progress.
    tell = say if worker.is_chief else ignore_note
    if options["epochs"] is not None and options["minutes"] is not None:
        raise click.UsageError("--epochs and --minutes cannot be combined: give one of them.")
    given = {option: value for option, value in options.items() if value is not None}
    job = plan_training(Call(files, given, folder, name, fresh, device, save_every, glob, worker), tell)
    if isinstance(job, str):
        tell(job)
        return

    from charrnn.training.stopping import Stopped

    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        with job.run.lock(say) if worker.is_chief else contextlib.nullcontext():
            with waiting_for("loading TensorFlow"):
                from charrnn.training.display import SilentDisplay, choose_display

                # Before the environment is set up for Keras.
                display = choose_display() if worker.is_chief else SilentDisplay()
                from charrnn.training.loop import stopped_at, train
            train(job, display)
    except Stopped as stopped:
        tell(stopped_at(stopped.progress, job.commands.resume))
        raise click.exceptions.Exit(128 + stopped.signal) from None
    tell(f"sample from it with: {job.commands.sample}")
