"""`charrnn corpus`."""

from __future__ import annotations

import click

from charrnn.cli.options import Command, debug_option
from charrnn.messages import say
from charrnn.text import wellknown


def _print_texts(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        for line in wellknown.describe():
            click.echo(line)
        ctx.exit()


@click.command(cls=Command)
@click.argument("name", type=click.Choice(list(wellknown.TEXTS)), required=False)
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_print_texts, help="List the texts and exit."
)
@debug_option
def corpus(name: str | None) -> None:
    """Write a well-known text to NAME.txt in the current folder.

    charrnn checks every download against a known checksum, and never changes an existing file.
    """
    if name is None:
        raise click.UsageError(f"name a text: {' or '.join(wellknown.TEXTS)} (charrnn corpus --list describes them).")
    path = wellknown.put_on_disk(name, say)
    click.echo(path)
    say(f"train on it with: charrnn train {path}")
