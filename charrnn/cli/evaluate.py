"""`charrnn evaluate`."""

from __future__ import annotations

import collections
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from charrnn.cli.options import PATH, Command, checkpoint_option, debug_option, folder_option, number
from charrnn.messages import say, show_reading
from charrnn.ranges import Range
from charrnn.stdout import is_terminal, write_text

if TYPE_CHECKING:
    from charrnn.evaluation import evaluate as evaluation
    from charrnn.evaluation.tally import Nats


@click.command(cls=Command)
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="FILE...")
@click.option(
    "--validation",
    is_flag=True,
    help="Score the validation part of the text that the model was trained on, as charrnn train does at the end.",
)
@click.option(
    "--windows",
    type=number(Range(1, 1_000_000), int),
    metavar="N",
    help="Forget everything after every N characters, as models without a carried state do.",
)
@checkpoint_option
@click.option(
    "--show", is_flag=True, help="Print the text too, coloured by how much each character surprises the model."
)
@click.option("--json", "as_json", is_flag=True, help="Write one line of JSON for each file.")
@folder_option
@debug_option
def evaluate(
    files: tuple[str, ...],
    validation: bool,
    windows: int | None,
    checkpoint: str | None,
    show: bool,
    as_json: bool,
    folder: str,
) -> None:
    """Measure how well a model predicts texts.

    Each file is a text of its own, except with --validation.
    """
    if show and as_json:
        raise click.UsageError("--show and --json cannot be combined: give one of them.")
    from charrnn.evaluation import evaluate as evaluation
    from charrnn.evaluation.colours import Painter, colours_of
    from charrnn.planning.machine import usable_cores
    from charrnn.runs.checkpoint import load
    from charrnn.runs.folder import find_checkpoint
    from charrnn.text.store import FOLDER

    path = find_checkpoint(checkpoint, folder, say)
    model = load(path)
    cores = usable_cores()
    scorings: Iterable[tuple[evaluation.Scoring, int]]
    if validation:
        whole = evaluation.evaluate_validation(model, files, windows, cores, Path(folder) / FOLDER)
        scored = model.progress.final_characters if windows is None else model.corpus.validation_characters
        scorings = [(whole, scored)]
    else:
        scorings = ((evaluation.evaluate_file(model, file, windows, cores), _size(file)) for file in files)
    colours = colours_of(is_terminal())
    painter = Painter(model.vocabulary, colours)
    for scoring, size in scorings:
        pieces = _Followed(scoring, 0 if show else size)
        if show:
            painted = (part for text, nats in pieces for part in painter.paint(text, nats))
            if not write_text(itertools.chain([painter.legend()], painted, ["\n"]), is_painted=colours > 0):
                return
        else:
            collections.deque(pieces, maxlen=0)  # read all, keep none
        result = pieces.result
        assert result is not None
        write_text([evaluation.as_json(result, str(path))] if as_json else evaluation.as_text(result))


def _size(file: str) -> int:
    """Roughly the number of characters in a file, for its progress; 0 if that is unknown."""
    return os.path.getsize(file) if os.path.isfile(file) else 0


class _Followed:
    """The pieces of a scoring, whose progress is shown on stderr, and then its result."""

    def __init__(self, scoring: evaluation.Scoring, total: int) -> None:
        self._scoring = scoring
        self._total = total
        self.result: evaluation.Evaluation | None = None

    def __iter__(self) -> Iterator[tuple[str, Nats]]:
        done = 0
        show_reading(0, self._total)
        try:
            while True:
                text, nats = next(self._scoring)
                done += len(text)
                show_reading(min(done, self._total - 1), self._total)
                yield text, nats
        except StopIteration as end:
            self.result = end.value
        finally:
            show_reading(self._total, self._total)
