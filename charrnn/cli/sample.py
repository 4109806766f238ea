"""`charrnn sample`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable

import click

from charrnn.cli.options import PATH, Command, as_utf8, checkpoint_option, debug_option, folder_option, number
from charrnn.messages import say, show_reading
from charrnn.network.network import Network
from charrnn.runs.checkpoint import load
from charrnn.runs.folder import find_checkpoint
from charrnn.sampling import output
from charrnn.sampling.choice import DEFAULT_TEMPERATURE, RANGES, Choice
from charrnn.sampling.samples import COUNT, DEFAULT_LENGTH, LENGTH, SEED, Request, write_samples
from charrnn.stdout import errors_for_stdout, highlighted, write_text
from charrnn.text.typed import UNKNOWN, encode_prime, encode_stop, read_prime, unescaped


@click.command(cls=Command, context_settings={"allow_extra_args": True})
@click.option(
    "--prime",
    callback=as_utf8,
    help=r"Text to continue, taken literally (\n stays two characters).  [default: none; the model begins a "
    "new text or, if it was trained on one text, a new paragraph]",
)
@click.option("--prime-file", type=PATH, metavar="PATH", help="File with the text to continue; - is standard input.")
@click.option(
    "--length",
    type=number(LENGTH, int),
    default=DEFAULT_LENGTH,
    show_default=True,
    help="Maximum number of new characters (code points), or of bytes if the model's vocabulary is raw bytes. A model "
    "of several texts may end a text earlier.",
)
@click.option(
    "--stop",
    callback=as_utf8,
    help=r"End before this text, or at --length if it does not occur; \n is a newline, \t a tab, \f a form feed, "
    r"\\ a backslash.",
)
@click.option(
    "--count",
    type=number(COUNT, int),
    default=1,
    show_default=True,
    help="Number of samples. Each is followed by the --stop text, the --split-at text of training or, without either, "
    "a line with only %.",
)
@click.option(
    "--temperature",
    type=number(RANGES["temperature"]),
    default=DEFAULT_TEMPERATURE,
    show_default=True,
    help="Below 1 makes safer choices, above 1 wilder ones; 0 always takes the likeliest character.",
)
@click.option("--top-k", type=number(RANGES["top_k"], int), help="Choose only among the K likeliest characters.")
@click.option(
    "--top-p",
    type=number(RANGES["top_p"]),
    help="Choose only among the likeliest characters that together have probability P.",
)
@click.option(
    "--min-p",
    type=number(RANGES["min_p"]),
    help="Choose only among characters at least P times as likely as the likeliest.",
)
@click.option(
    "--seed",
    type=number(SEED, int),
    help="The same seed gives the same text. With --count, sample K uses seed + K - 1.  [default: a random seed]",
)
@click.option(
    "--unknown",
    type=click.Choice(UNKNOWN),
    help="Skip or replace characters in the prime that the model does not know.  [default: reject them]",
)
@click.option("--interactive", is_flag=True, help="Show a prompt for texts to continue; :help lists its commands.")
@click.option(
    "--against",
    type=PATH,
    metavar="PATH",
    help="Report passages of the new text (not the prime) that are copied from PATH, for example the training text; "
    "on a terminal, also highlight them. The text then appears only once it is complete.",
)
@checkpoint_option
@click.option("--json", "as_json", is_flag=True, help="Write each sample as one line of JSON, with probabilities.")
@folder_option
@debug_option
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
    if ctx.args:
        raise click.UsageError(
            f"unexpected argument {ctx.args[0]!r}: --checkpoint {shlex.quote(ctx.args[0])} names a run, "
            "--prime gives a text to continue; a text of several words needs quotes"
        )
    if prime is not None and prime_file is not None:
        raise click.UsageError("--prime and --prime-file cannot be combined: give one of them.")
    alone = {"--against": against is not None, "--stop": stop is not None, "--count": count > 1, "--json": as_json}
    if interactive and (others := [option for option, given in alone.items() if given]):
        raise click.UsageError(f"--interactive and {others[0]} cannot be combined: give one of them.")
    path = find_checkpoint(checkpoint, folder, say)
    model = load(path)
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
        from charrnn.sampling.copying import read_original

        original = read_original(against, model.vocabulary, model.settings.encoding)
    is_fresh = seed is None
    seed = int.from_bytes(os.urandom(4), "little") if seed is None else seed
    if count > 1:
        say(f"seeds {seed} to {seed + count - 1}, one for each sample")
    elif is_fresh:
        say(f"seed {seed}")
    network = Network(model.config, model.weights)
    if interactive:
        from charrnn.sampling.prompt import Session

        session = Session(network, model.vocabulary, request.choice, length, seed, unknown, write_text)
        session.run(None if prime is None else request.prime)
        return
    errors = "replace" if as_json else errors_for_stdout()
    separator = ""
    if count > 1:
        separator = output.separator_for(request, model.vocabulary, model.settings.split_at, errors)
    seeds = range(seed, seed + count)
    samples = write_samples(network, model.vocabulary, request, seeds, as_json, errors, show_reading)
    notes: list[str] = []
    samples = output.with_notes(samples, request, model.vocabulary, notes.append)
    if original is not None:
        samples = original.compared(samples, count, notes.append)
    if as_json:
        pieces: Iterable[str] = output.as_json(samples, request, model.vocabulary, str(path))
    elif original is not None:
        pieces = highlighted(output.as_marked_text(samples, separator))
    else:
        pieces = output.as_text(samples, separator)
    if write_text(pieces, is_painted=original is not None and not as_json):
        for line in notes:
            say(line)
