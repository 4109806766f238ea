"""`charrnn page`."""

from __future__ import annotations

from pathlib import Path

import click

from charrnn import CharrnnError
from charrnn.cli.options import OUT, PATH, Command, complete_model, debug_option, folder_option
from charrnn.messages import say, waiting_for
from charrnn.stdout import write_paths


@click.command(cls=Command)
@click.argument("run", required=False, metavar="[RUN]", shell_complete=complete_model)
@click.option("--out", type=OUT, required=True, metavar="PATH", help="The .html file to write.")
@click.option(
    "--text",
    type=PATH,
    metavar="FILE",
    help="A text on which to find cells that keep track of something, for example the training text.  "
    "[default: a sample of the model]",
)
@folder_option
@debug_option
def page(run: str | None, out: str, text: str | None, folder: str) -> None:
    """Make a web page in which a model runs: to write with it, and to see what it expects and remembers.

    RUN is a run's name or folder, a checkpoint file, or starter (default: the most recently trained run; if there is
    none, the starter). The page is one file that works offline.
    """
    target = Path(out)
    if target.suffix.lower() not in (".html", ".htm"):
        raise CharrnnError(f"{out}: a page's name must end in .html, as in model.html", exit_code=2)
    if not target.parent.is_dir():
        raise CharrnnError(f"{target.parent}: there is no such folder to write the page to", exit_code=2)
    from charrnn.files import write_atomically
    from charrnn.page.page import make_page, read_ids
    from charrnn.runs.checkpoint import load
    from charrnn.runs.folder import Run, checkpoint_name, find_checkpoint

    path = find_checkpoint(run, folder, say)
    model = load(path)
    trained, reports = Run(path.parent), []
    try:
        reports = trained.read_history() if trained.history.exists() else []
    except CharrnnError as error:
        say(f"{error}; the page has no loss curve")
    ids = None if text is None else read_ids(text, model)
    with waiting_for("looking for cells that keep track of something"):
        data = make_page(model, checkpoint_name(path), reports, ids)
    write_atomically(target, data)
    write_paths(out)
