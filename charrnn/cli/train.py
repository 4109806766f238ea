"""`charrnn train`."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Any

import click

from charrnn.cli.options import PATH, Command, complete_run, debug_option, experiment_option, folder_option, number
from charrnn.messages import is_live, say
from charrnn.ranges import Range
from charrnn.runs.records import CHOICES, RANGES


@click.command(cls=Command, short_help="Train a model on text files.")
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="FILE...")
@click.option("--name", help="Name of the run.  [default: the first file's, without its ending]")
@click.option("--epochs", type=number(RANGES["epochs"], int), help="Passes over the text.")
@click.option(
    "--minutes",
    type=number(RANGES["minutes"]),
    help="Train for this long.  [default, without --epochs: sized to the text (10 for a megabyte), and less where "
    "the validation loss no longer falls]",
)
@click.option("--fresh", is_flag=True, help="Start over; the old run is kept under another name.")
@click.option(
    "--init-from",
    metavar="WHERE",
    shell_complete=complete_run,
    help="Start with the network and the weights of another run (its name or folder), or of a checkpoint file.",
)
@experiment_option(
    "--units",
    type=number(RANGES["units"], int),
    help="Width of a recurrent layer.  [default: 128 to 512, by the time and the text]",
)
@experiment_option(
    "--layers",
    type=number(RANGES["layers"], int),
    help="Recurrent layers.  [default: 1 or 2, by the time and the text]",
)
@experiment_option(
    "--embedding",
    type=number(RANGES["embedding"], int),
    help="Width of a character's vector.  [default: 64]",
)
@experiment_option(
    "--cell",
    type=click.Choice(CHOICES["cell"]),
    help="Kind of recurrent layer.  [default: lstm]",
)
@experiment_option(
    "--dropout",
    type=number(RANGES["dropout"]),
    help="Share of a recurrent layer's outputs dropped.  "
    "[default: 0 to 0.6, by how often the text is seen and how short it is]",
)
@experiment_option(
    "--batch-size",
    type=number(RANGES["batch_size"], int),
    help="Streams of text side by side.  [default: 32; for a small text: fewer]",
)
@experiment_option(
    "--seq-length",
    type=number(RANGES["seq_length"], int),
    help="Characters that a gradient reaches back.  [default: 64; for a tiny text: fewer]",
)
@experiment_option(
    "--learning-rate",
    type=number(RANGES["learning_rate"]),
    help="Adam's, after warm-up; it falls along a cosine.  "
    "[default: 0.1 / sqrt(units), 0.01 at the most; for more than one layer a fifth less]",
)
@click.option("--seed", type=number(RANGES["seed"], int), help="Of all randomness.  [default: 1]")
@click.option(
    "--vocabulary",
    type=click.Choice(CHOICES["vocabulary"]),
    help="Printable ASCII, the text's own characters, or raw bytes.  "
    "[default: ascii; text where more than 1 character in 10,000 is outside]",
)
@click.option("--encoding", help="Of the files.  [default: utf-8]")
@click.option(
    "--errors",
    type=click.Choice(CHOICES["errors"]),
    help="Refuse bytes that are not valid, or read them as U+FFFD.  [default: strict]",
)
@experiment_option(
    "--precision",
    type=click.Choice(CHOICES["precision"]),
    help="Of the factors of an LSTM's matrix products on a CPU; sums are float32.  [default: auto, the faster]",
)
@click.option("--device", type=click.Choice(["cpu", "gpu"]), help="Where to train.  [default: a GPU if there is one]")
@click.option(
    "--save-every",
    type=number(Range(0)),
    metavar="SECONDS",
    help="Save this often, and after a validation where that costs little.  [default: 60]",
)
@folder_option
@debug_option
def train(
    files: tuple[str, ...],
    name: str | None,
    fresh: bool,
    device: str | None,
    save_every: float | None,
    folder: str,
    **options: Any,
) -> None:
    """Train a model on text files (joined in this order; - is standard input).

    The same command continues a run that was stopped. Options that are left out then come from
    the run.
    """
    from charrnn.planning.job import Call, plan_training

    if options["epochs"] is not None and options["minutes"] is not None:
        raise click.UsageError("--epochs and --minutes exclude each other: give one of them.")
    given = {option: value for option, value in options.items() if value is not None}
    job = plan_training(Call(files, given, folder, name, fresh, device, save_every), say)
    if isinstance(job, str):
        say(job)
        return

    from charrnn.training.stopping import Stopped

    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        with job.run.lock(say):
            with _waiting_for("loading TensorFlow"):
                from charrnn.training.display import choose_display

                display = choose_display()  # before the environment is set up for Keras
                from charrnn.training.loop import stopped_at, train
            train(job, display)
    except Stopped as stopped:
        say(stopped_at(stopped.progress, job.commands.resume))
        raise click.exceptions.Exit(128 + stopped.signal) from None
    say(f"sample from it with: {job.commands.sample}")


@contextlib.contextmanager
def _waiting_for(what: str) -> Iterator[None]:
    """Show what is waited for on a terminal, and take it away again."""
    is_shown = is_live()
    if is_shown:
        click.echo(f"{what} ...", err=True, nl=False)
    try:
        yield
    finally:
        if is_shown:
            click.echo("\r" + " " * (len(what) + 4) + "\r", err=True, nl=False)
