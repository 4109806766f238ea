"""`charrnn runs`."""

from __future__ import annotations

from pathlib import Path

import click

from charrnn.cli.options import Command, debug_option, folder_option
from charrnn.messages import say
from charrnn.stdout import write_text


@click.command(cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Write each run as one line of JSON.")
@folder_option
@debug_option
def runs(as_json: bool, folder: str) -> None:
    """List the runs, most recently trained first."""
    from charrnn.runs import listing
    from charrnn.runs.folder import all_runs

    entries = listing.list_runs(all_runs(folder, say))
    if not entries:
        say(f"no runs in {Path(folder).absolute()} yet: train one with charrnn train FILE")
        return
    write_text(listing.as_json(entries) if as_json else listing.as_table(entries))
