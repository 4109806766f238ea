"""The commands: options, help, messages. No logic, no heavy import at module level."""

from __future__ import annotations

import contextlib
import io
import math
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import repeat
from types import SimpleNamespace
from typing import Any, TypeVar

import click

from charrnn import CharrnnError, __version__, corpora
from charrnn.messages import is_live, one_line, say, show_reading
from charrnn.output import errors_for_stdout, write_text
from charrnn.surroundings import prepare_for_the_command

F = TypeVar("F", bound=Callable[..., Any])


class _FiniteRange(click.FloatRange):
    """A FloatRange that refuses nan and inf, which compare as if they were within it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class _ExperimentOption(click.Option):
    """An option that only an experimenter needs: the help has it under a heading of its own."""


class _Command(click.Command):
    """A command that shows its usage above the message of a wrong call, and its options under two headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        for heading, wanted in (("Options", False), ("Options for experiments", True)):
            chosen = [option for option in options if isinstance(option, _ExperimentOption) == wanted]
            if records := [record for option in chosen if (record := option.get_help_record(ctx))]:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CharrnnError as error:
            if error.exit_code == 2:
                raise click.UsageError(one_line(str(error)), ctx) from error
            raise


class _Group(click.Group):
    command_class = _Command


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().obj.debug = True


_PATH = click.Path(
    allow_dash=True, readable=False
)  # whose names the shell completes; that it is there is checked where it is read


def _complete_run(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    from charrnn.runs import all_runs

    return [run.name for run in all_runs(ctx.params.get("folder") or "checkpoints") if run.name.startswith(incomplete)]


_experiment_option = partial(click.option, cls=_ExperimentOption)
_debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_set_debug, help="Show a traceback when something fails."
)
_folder_option = click.option(
    "--checkpoints-dir",
    "folder",
    type=_PATH,
    default="checkpoints",
    show_default=True,
    envvar="CHARRNN_CHECKPOINTS_DIR",
    show_envvar=True,
    metavar="DIR",
    help="Where runs are kept.",
)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="charrnn %(version)s")
def cli() -> None:
    """Train a character-level language model on any text file, and write new text from it.

    \b
    charrnn train text_data.txt
    charrnn sample --prime "The quick brown fox"
    charrnn plot-loss
    """  # noqa: D301 - \\b is click's mark for lines that are not to be wrapped


@cli.command(short_help="Train a model on text files.")
@click.argument("files", nargs=-1, required=True, type=_PATH, metavar="FILE...")
@click.option("--name", help="Name of the run.  [default: the first file's, without its ending]")
@click.option("--epochs", type=click.IntRange(1, 1_000_000), help="Passes over the text.")
@click.option(
    "--minutes",
    type=_FiniteRange(0, 1_000_000, min_open=True),
    help="Train for this long.  [default, without --epochs: sized to the text (10 for a megabyte), and less where "
    "the validation loss no longer falls]",
)
@click.option("--fresh", is_flag=True, help="Start over; the old run is kept under another name.")
@click.option(
    "--init-from",
    metavar="WHERE",
    shell_complete=_complete_run,
    help="Start with the network and the weights of another run (its name or folder), or of a checkpoint file.",
)
@_experiment_option(
    "--units",
    type=click.IntRange(1, 65536),
    help="Width of a recurrent layer.  [default: 128 to 512, by the time and the text]",
)
@_experiment_option(
    "--layers",
    type=click.IntRange(1, 100),
    help="Recurrent layers.  [default: 1 or 2, by the time and the text]",
)
@_experiment_option(
    "--embedding",
    type=click.IntRange(1, 65536),
    help="Width of a character's vector.  [default: 64]",
)
@_experiment_option(
    "--cell",
    type=click.Choice(["lstm", "gru", "rnn"]),
    help="Kind of recurrent layer.  [default: lstm]",
)
@_experiment_option(
    "--dropout",
    type=_FiniteRange(0, 1, max_open=True),
    help="Share of a recurrent layer's outputs dropped.  "
    "[default: 0 to 0.6, by how often the text is seen and how short it is]",
)
@_experiment_option(
    "--batch-size",
    type=click.IntRange(1, 65536),
    help="Streams of text side by side.  [default: 32; for a small text: fewer]",
)
@_experiment_option(
    "--seq-length",
    type=click.IntRange(1, 65536),
    help="Characters that a gradient reaches back.  [default: 64; for a tiny text: fewer]",
)
@_experiment_option(
    "--learning-rate",
    type=_FiniteRange(min=0, min_open=True),
    help="Adam's, after warm-up; it falls along a cosine.  "
    "[default: 0.1 / sqrt(units), 0.01 at the most; for more than one layer a fifth less]",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Of all randomness.  [default: 1]")
@click.option(
    "--vocabulary",
    type=click.Choice(["ascii", "text", "bytes"]),
    help="Printable ASCII, the text's own characters, or raw bytes.  "
    "[default: ascii; text where more than 1 character in 10,000 is outside]",
)
@click.option("--encoding", help="Of the files.  [default: utf-8]")
@click.option(
    "--errors",
    type=click.Choice(["strict", "replace"]),
    help="Refuse bytes that are not valid, or read them as U+FFFD.  [default: strict]",
)
@_experiment_option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    help="Of the factors of an LSTM's matrix products on a CPU; sums are float32.  [default: auto, the faster]",
)
@click.option("--device", type=click.Choice(["cpu", "gpu"]), help="Where to train.  [default: a GPU if there is one]")
@click.option(
    "--save-every",
    type=_FiniteRange(min=0),
    metavar="SECONDS",
    help="Save this often, and after a validation where that costs little.  [default: 60]",
)
@_folder_option
@_debug_option
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
    from charrnn.planning import plan_training

    if options["epochs"] is not None and options["minutes"] is not None:
        raise click.UsageError("--epochs and --minutes exclude each other: give one of them.")
    given = {option: value for option, value in options.items() if value is not None}
    job = plan_training(files, given, name, folder, fresh, device, save_every, say)
    if isinstance(job, str):
        say(job)
        return

    from charrnn.stopping import Stopped

    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        with job.run.lock(say):
            with _waiting_for("loading TensorFlow"):
                from charrnn.progress import choose_display

                display = choose_display()  # before the environment is set up for Keras
                from charrnn.training import stopped_at, train
            train(job, device, save_every, display)
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


def _as_utf8(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """Text as it was typed: in a C locale Python brings the bytes of other characters than ASCII as surrogates."""
    if text is None or sys.getfilesystemencoding() != "ascii":
        return text
    return os.fsencode(text).decode("utf-8", "surrogateescape")


@cli.command(short_help="Write new text from a trained model.", context_settings={"allow_extra_args": True})
@click.option(
    "--prime",
    callback=_as_utf8,
    help=r"Text to continue, exactly as it is (\n stays two characters).  [default: none; starts as after a newline]",
)
@click.option("--prime-file", type=_PATH, metavar="PATH", help="File with the text to continue; - is standard input.")
@click.option(
    "--length",
    type=click.IntRange(0, 10**12),
    default=1000,
    show_default=True,
    help="New characters (code points); of a model of raw bytes, bytes.",
)
@click.option(
    "--stop",
    callback=_as_utf8,
    help=r"End before this text, or at --length if it does not come; \n is a newline, \t a tab, \\ a backslash.",
)
@click.option(
    "--count",
    type=click.IntRange(1, 10**9),
    default=1,
    show_default=True,
    help="Samples.  After each comes the text of --stop or else a line with % alone.",
)
@click.option(
    "--temperature",
    type=_FiniteRange(min=0),
    default=0.8,
    show_default=True,
    help="Below 1 plays safer, above 1 wilder; 0 always takes the likeliest.",
)
@click.option("--top-k", type=click.IntRange(min=1), help="Choose among the K likeliest characters only.")
@click.option(
    "--top-p",
    type=_FiniteRange(0, 1, min_open=True),
    help="Choose among the likeliest that together have probability P only.",
)
@click.option(
    "--min-p", type=_FiniteRange(0, 1), help="Choose among those at least P times as likely as the likeliest."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="The same seed gives the same text. Sample K of --count has the seed that is K - 1 above.  "
    "[default: a fresh one]",
)
@click.option(
    "--unknown",
    type=click.Choice(["skip", "replace"]),
    help="Leave out or replace characters of the prime that the model does not know.  [default: refuse]",
)
@click.option("--interactive", is_flag=True, help="Ask for beginnings at a prompt; :help there says what else.")
@click.option(
    "--against",
    type=_PATH,
    metavar="PATH",
    help="Say, and mark on a terminal, what of the new text (the prime does not count) is copied from this file: "
    "the one trained on, say. The text then comes when it is complete.",
)
@click.option(
    "--checkpoint",
    metavar="WHERE",
    shell_complete=_complete_run,
    help="A run's name or folder, or a checkpoint file.  [default: the run last trained]",
)
@click.option("--json", "as_json", is_flag=True, help="Write each sample as a line of JSON, with probabilities.")
@_folder_option
@_debug_option
@click.pass_context
def sample(
    ctx: click.Context,
    prime: str | None,
    prime_file: str | None,
    length: int,
    stop: str | None,
    count: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    seed: int | None,
    unknown: str | None,
    interactive: bool,
    against: str | None,
    checkpoint: str | None,
    as_json: bool,
    folder: str,
) -> None:
    """Write new text from a trained model to stdout.

    --temperature, --top-k, --top-p and --min-p apply in this order.
    """
    import charrnn.checkpoint
    from charrnn import sample_output
    from charrnn.network import Network
    from charrnn.prime import encode_prime, encode_stop, read_prime, unescaped
    from charrnn.runs import find_checkpoint
    from charrnn.samples import Request, write_samples
    from charrnn.sampling import Choice

    if ctx.args:
        raise click.UsageError(
            f"unexpected argument {ctx.args[0]!r}: --checkpoint {shlex.quote(ctx.args[0])} names a run, "
            "--prime gives a text to continue"
        )
    if prime is not None and prime_file is not None:
        raise click.UsageError("--prime and --prime-file exclude each other: give one of them.")
    alone = {"--against": against is not None, "--stop": stop is not None, "--count": count > 1, "--json": as_json}
    if interactive and (others := [option for option, given in alone.items() if given]):
        raise click.UsageError(f"--interactive and {others[0]} exclude each other: give one of them.")
    path = find_checkpoint(checkpoint, folder, say)
    model = charrnn.checkpoint.load(path)
    if prime_file is not None:
        prime = read_prime(prime_file, model.vocabulary, model.settings.encoding, say)
    request = Request(
        encode_prime(model.vocabulary, prime or "", unknown, say),
        length,
        Choice(temperature, top_k, top_p, min_p),
        None if stop is None else encode_stop(model.vocabulary, unescaped(stop), say),
    )
    original = None
    if against is not None:
        from charrnn.copying import read_original

        original = read_original(against, model.vocabulary, model.settings.encoding)
    is_fresh = seed is None
    seed = int.from_bytes(os.urandom(4), "little") if seed is None else seed
    if count > 1:
        say(f"seeds {seed} to {seed + count - 1}, one for each sample")
    elif is_fresh:
        say(f"seed {seed}")
    network = Network(model.config, model.weights)
    if interactive:
        from charrnn.interactive import Session

        session = Session(network, model.vocabulary, request.choice, length, seed, unknown, write_text)
        session.run(None if prime is None else request.prime)
        return
    errors = "replace" if as_json else errors_for_stdout()
    seeds = range(seed, seed + count)
    samples = write_samples(network, model.vocabulary, request, seeds, as_json, errors, show_reading)
    notes: list[str] = []
    samples = sample_output.with_notes(samples, request, model.vocabulary, notes.append)
    marks: Iterable[bool] = repeat(False)
    if original is not None:
        samples = original.compared(samples, count, notes.append)
    if as_json:
        pieces: Iterable[str] = sample_output.as_json(samples, request, model.vocabulary, str(path))
    elif original is not None:
        pieces, marks = sample_output.as_marked_text(samples, request, model.vocabulary, count)
    else:
        pieces = sample_output.as_text(samples, request, model.vocabulary, count)
    if write_text(pieces, marks):
        for line in notes:
            say(line)


@cli.command("plot-loss", short_help="Draw the training and validation loss of runs.")
@click.argument("runs", nargs=-1, metavar="[RUN]...", shell_complete=_complete_run)
@click.option(
    "--out",
    type=_PATH,
    metavar="PATH",
    help="A .png, .svg or .pdf file.  [default: loss.png in the run's folder; of several runs, beside the first]",
)
@_folder_option
@_debug_option
def plot_loss(runs: tuple[str, ...], out: str | None, folder: str) -> None:
    """Draw the training and validation loss of runs (names or folders; default: the one last trained)."""
    from pathlib import Path

    from charrnn.plotting import save_loss
    from charrnn.runs import find_run

    found = list(dict.fromkeys(find_run(name, folder, say) for name in runs or [None]))
    names = [run.name for run in found]
    histories = {}
    for run in found:
        reports = run.read_history()
        if not reports:
            raise CharrnnError(f"{run.history}: no validation was made yet, there is nothing to draw")
        histories[run.name if names.count(run.name) == 1 else str(run.folder)] = reports
    path = Path(out) if out else (found[0].folder if len(found) == 1 else found[0].folder.parent) / "loss.png"
    save_loss(histories, path)
    if sys.stdout is not None:
        write_text([f"{path}\n"])


def _say_lines(text: str) -> None:
    for line in text.rstrip("\n").split("\n"):
        say(line)


def _print_texts(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        for line in corpora.describe():
            click.echo(line)
        ctx.exit()


@cli.command(short_help="Put a well-known text on this disk, to train on.")
@click.argument("name", type=click.Choice(list(corpora.TEXTS)), required=False)
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_print_texts, help="Show the texts and exit."
)
@_debug_option
def corpus(name: str | None) -> None:
    """Put a well-known text into the current folder, as NAME.txt.

    What is downloaded is checked to be the very text; a file that is there already is never changed.
    """
    if name is None:
        raise click.UsageError(f"name a text: {' or '.join(corpora.TEXTS)} (charrnn corpus --list says more).")
    path = corpora.put_on_disk(name, say)
    click.echo(path)
    say(f"train on it with: charrnn train {path}")


def _fill_closed_descriptors() -> None:
    """Let no file that is opened take the place of a closed stdin, stdout or stderr, which libraries write to."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _place_of(error: OSError) -> str:
    """The file that an error names, or stdout if what is left to write there fails as well."""
    if error.filename is not None:
        return f"{error.filename}: "
    try:
        sys.stdout.flush()
    except OSError:
        return "stdout: "
    return ""


def main() -> None:
    """Run the command line; every way it ends has its exit code."""
    try:
        _main()
    finally:
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
        except OSError:  # its reader is gone: Python would try once more at exit, and end with 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _main() -> None:
    _fill_closed_descriptors()
    try:
        os.getcwd()
    except FileNotFoundError:
        say("Error: the current folder was deleted: cd to one that exists")
        sys.exit(1)
    prepare_for_the_command()
    state = SimpleNamespace(debug=False)
    try:
        sys.exit(cli.main(standalone_mode=False, obj=state, prog_name="charrnn"))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if state.debug:
            _say_lines(traceback.format_exc())
        if isinstance(error, click.ClickException):
            error.show(message := io.StringIO())
            _say_lines(message.getvalue())
            sys.exit(error.exit_code)
        if isinstance(error, CharrnnError):
            say(f"Error: {error}")
            sys.exit(error.exit_code)
        if isinstance(error, OSError):
            say(f"Error: {_place_of(error)}{error.strerror or error}")
        elif isinstance(error, MemoryError):
            say("Error: there is not enough memory")
        else:
            say(f"Error: {type(error).__name__}: {error} (a defect of charrnn: --debug shows where)")
        sys.exit(1)
