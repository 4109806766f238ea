"""`charrnn export`."""

from __future__ import annotations

from pathlib import Path

import click

from charrnn import CharrnnError
from charrnn.cli.options import OUT, Command, complete_run, debug_option, folder_option
from charrnn.messages import say, waiting_for
from charrnn.stdout import write_paths


@click.command(cls=Command)
@click.argument("run", required=False, metavar="[RUN]", shell_complete=complete_run)
@click.option("--out", type=OUT, required=True, metavar="PATH", help="The .keras file to write.")
@folder_option
@debug_option
def export(run: str | None, out: str, folder: str) -> None:
    """Write a model as a .keras file of Keras' own layers, which Keras loads without charrnn.

    RUN is a run's name or folder, or a checkpoint file (default: the most recently trained run). The file's network
    turns the ids of characters, (batch, time), into the probabilities of the next, (batch, time, vocabulary). Beside
    it, a .json file lists the characters.
    """
    from charrnn.network.cells import CELLS
    from charrnn.runs.checkpoint import load
    from charrnn.runs.folder import find_checkpoint

    path = Path(out)
    if path.suffix != ".keras":
        raise CharrnnError(f"{out}: Keras reads only files whose names end in .keras: choose such a name", exit_code=2)
    source = find_checkpoint(run, folder, say)
    model = load(source)
    if not CELLS[model.settings.cell].STOCK:
        stock = " or ".join(f"--cell {name}" for name, cell in CELLS.items() if cell.STOCK)
        raise CharrnnError(
            f"{source}: Keras has no {CELLS[model.settings.cell].TITLE}: export a run that was trained with {stock}",
            exit_code=2,
        )
    with waiting_for("loading Keras"):
        from charrnn.export.keras_model import write_keras_model
    try:
        vocabulary = write_keras_model(model, path)
    except OSError as error:
        raise CharrnnError(f"the temporary folder cannot be written to: {error.strerror or error}") from None
    write_paths(path, vocabulary)
