"""`charrnn runs`."""

from __future__ import annotations

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
    from charrnn.runs.folder import all_runs, no_runs_in

    entries = listing.list_runs(all_runs(folder, say))
    if not entries:
        say(no_runs_in(folder))
        return
    write_text(listing.as_json(entries) if as_json else listing.as_table(entries))
