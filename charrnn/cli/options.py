"""Shared by the commands: kinds of options, and options that several commands have."""

from __future__ import annotations

import math
import os
import sys
from functools import partial
from typing import Any

import click

from charrnn import CharrnnError
from charrnn.messages import one_line
from charrnn.ranges import Range
from charrnn.surroundings import DEFAULT_FOLDER, FOLDER_VARIABLE


class _FiniteRange(click.FloatRange):
    """A FloatRange that rejects nan and inf, which would otherwise pass its comparisons."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert a value to a finite number within the range."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def number(allowed: Range, kind: type = float) -> click.IntRange | _FiniteRange:
    """The type of an option whose values are the floats, or the integers, in a range."""
    most = None if allowed.most == math.inf else allowed.most
    if kind is int:
        return click.IntRange(int(allowed.least), None if most is None else int(most))
    return _FiniteRange(allowed.least, most, allowed.above, allowed.below)


class ExperimentOption(click.Option):
    """An option for experiments; the help lists it under a separate heading."""


class Command(click.Command):
    """A command that shows its usage above a usage error, and its options under two headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, with those for experiments under a separate heading."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        for heading, wanted in (("Options", False), ("Options for experiments", True)):
            chosen = [option for option in options if isinstance(option, ExperimentOption) == wanted]
            if records := [record for option in chosen if (record := option.get_help_record(ctx))]:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; report an error with exit code 2 as a usage error."""
        try:
            return super().invoke(ctx)
        except CharrnnError as error:
            if error.exit_code == 2:
                raise click.UsageError(one_line(str(error)), ctx) from error
            raise


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().obj.debug = True


def as_utf8(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """Text as it was typed: in a C locale, Python passes the bytes of non-ASCII characters as surrogates."""
    if text is None or sys.getfilesystemencoding() != "ascii":
        return text
    return os.fsencode(text).decode("utf-8", "surrogateescape")


PATH = click.Path(allow_dash=True, readable=False)
"""A path that the shell completes; the code that opens it checks that it exists."""
OUT = click.Path(dir_okay=False, readable=False)
"""The path of a file to write, which must not be a folder."""


def complete_run(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """For the shell: the names of runs that start with the typed text."""
    from charrnn.runs.folder import all_runs

    runs = all_runs(ctx.params.get("folder") or DEFAULT_FOLDER)
    return [run.name for run in runs if run.name.startswith(incomplete)]


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For the shell: the same, and the starter's name."""
    from charrnn.runs.starter import NAME

    return [*complete_run(ctx, param, incomplete), *([NAME] if NAME.startswith(incomplete) else [])]


experiment_option = partial(click.option, cls=ExperimentOption)
debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_set_debug, help="Show a traceback when something fails."
)
checkpoint_option = click.option(
    "--checkpoint",
    metavar="WHERE",
    shell_complete=complete_model,
    help="A run's name or folder, a checkpoint file, or starter for the model that comes with charrnn.  "
    "[default: the most recently trained run; if there is none, the starter]",
)
folder_option = click.option(
    "--checkpoints-dir",
    "folder",
    type=PATH,
    default=DEFAULT_FOLDER,
    show_default=True,
    envvar=FOLDER_VARIABLE,
    show_envvar=True,
    metavar="DIR",
    callback=lambda _, __, folder: os.path.expanduser(folder),  # which shells do not do after =
    help="Where runs are kept.",
)
