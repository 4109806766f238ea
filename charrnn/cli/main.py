"""The command line as a whole, with an exit code for every way that it ends."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
import traceback
from types import SimpleNamespace

import click

from charrnn import CharrnnError, __version__
from charrnn.messages import say
from charrnn.surroundings import prepare_for_the_command

_COMMANDS = {
    "corpus": "Get a well-known text to train on.",
    "evaluate": "Measure how well a model predicts texts.",
    "export": "Write a model as a .keras file.",
    "page": "Make a web page in which a model runs.",
    "plot-loss": "Plot the training and validation loss of runs.",
    "runs": "List the runs.",
    "sample": "Write new text from a trained model.",
    "train": "Train a model on text files.",
}


class _Group(click.Group):
    """The commands, each imported on first use from the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*_COMMANDS.items()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"charrnn.cli.{name}"), name)
        return command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="charrnn %(version)s")
def cli() -> None:
    """Train a character-level language model on any text file, and write new text from it.

    \b
    charrnn train text_data.txt
    charrnn sample --prime "The quick brown fox"
    charrnn plot-loss
    """  # noqa: D301 - \\b tells click not to wrap these lines


def _say_lines(text: str) -> None:
    for line in text.rstrip("\n").split("\n"):
        say(line)


def _fill_closed_descriptors() -> None:
    """Keep opened files from taking the place of a closed stdin, stdout or stderr, which libraries write to."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _place_of(error: OSError) -> str:
    """The file that an error names, or stdout if writing the rest there fails as well."""
    if error.filename is not None:
        return f"{error.filename}: "
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        return "stdout: "
    return ""


def main() -> None:
    """Run the command line and exit with the code for how it ended."""
    try:
        _main()
    finally:
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
        except OSError:  # its reader is gone: Python would try again at exit, and exit with 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _main() -> None:
    _fill_closed_descriptors()
    try:
        os.getcwd()
    except OSError as error:
        why = "was deleted" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror or error}"
        say(f"Error: the current folder {why}: cd to another one")
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
            say(f"Error: {type(error).__name__}: {error} (a bug in charrnn: --debug shows where)")
        sys.exit(1)
