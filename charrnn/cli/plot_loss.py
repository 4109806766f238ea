"""`charrnn plot-loss`."""

from __future__ import annotations

import click

from charrnn import CharrnnError
from charrnn.cli.options import OUT, Command, complete_run, debug_option, folder_option
from charrnn.messages import say
from charrnn.stdout import write_paths


@click.command("plot-loss", cls=Command)
@click.argument("runs", nargs=-1, metavar="[RUN]...", shell_complete=complete_run)
@click.option(
    "--out",
    type=OUT,
    metavar="PATH",
    help="The .png, .svg or .pdf file to write.  "
    "[default: loss.png in the run's folder; for several runs, next to the first one's folder]",
)
@folder_option
@debug_option
def plot_loss(runs: tuple[str, ...], out: str | None, folder: str) -> None:
    """Plot the training and validation loss of runs (names or folders; default: the most recently trained run)."""
    from pathlib import Path

    from charrnn.runs.folder import find_run
    from charrnn.runs.plotting import save_loss

    found = list(dict.fromkeys(find_run(name, folder, say) for name in runs or [None]))
    names = [run.name for run in found]
    histories = {}
    for run in found:
        reports = run.read_history()
        if not reports:
            raise CharrnnError(f"{run.history}: no validation yet, so there is nothing to plot")
        histories[run.name if names.count(run.name) == 1 else str(run.folder)] = reports
    path = Path(out) if out else (found[0].folder if len(found) == 1 else found[0].folder.parent) / "loss.png"
    save_loss(histories, path)
    write_paths(path)
