"""A list of runs, from the headers of their checkpoints."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from charrnn import CharrnnError
from charrnn.messages import one_line
from charrnn.network.cells import CELLS
from charrnn.runs import checkpoint
from charrnn.runs.folder import Run
from charrnn.runs.records import Head

_COLUMNS = ("run", "characters", "network", "from", "step", "loss", "saved", "state")
_NUMBERS = {"characters", "step", "loss"}
_UNITS = {"day": 86400, "h": 3600, "min": 60}  # seconds


@dataclass(frozen=True)
class Entry:
    """What the list says about a run that can be read.

    Attributes:
        name: the run's name.
        characters: number in its text.
        layers, units, cell: its network.
        init_from: the checksum of the checkpoint that it started from; None for a random start.
        source: the name of that checkpoint; None if there is none, or the run is of an earlier charrnn.
        step, total_steps: updates made, and in the whole training.
        best_loss: lowest validation loss, nats per character; None before the first validation.
        final_loss: of the best weights, once the run is finished, nats per character.
        age: seconds since it was last saved.
        state: `training`, `stopped` or `finished`.
        settings: all settings of the run, by their names in `records.Settings`.
    """

    name: str
    characters: int
    layers: int
    units: int
    cell: str
    init_from: str | None
    source: str | None
    step: int
    total_steps: int
    best_loss: float | None
    final_loss: float | None
    age: float
    state: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Unreadable:
    """What the list says about a run that cannot be read."""

    name: str
    error: str


def list_runs(runs: Sequence[Run]) -> list[Entry | Unreadable]:
    """Describe runs, in their order, from what their checkpoints record."""
    entries: list[Entry | Unreadable] = []
    for run in runs:
        try:
            is_locked = run.is_locked()  # first: a run that ends meanwhile is then not taken for a stopped one
            head = checkpoint.read_head(run.for_sampling())
            if run.can_continue():
                head = checkpoint.read_head(run.last)
            entries.append(_entry(run, head, is_locked))
        except (CharrnnError, OSError) as error:
            entries.append(Unreadable(run.name, str(error)))
    return entries


def _entry(run: Run, head: Head, is_locked: bool) -> Entry:
    settings, progress = head.settings, head.progress
    return Entry(
        run.name,
        head.corpus.characters,
        settings.layers,
        settings.units,
        settings.cell,
        settings.init_from,
        settings.source,
        progress.step,
        progress.total_steps,
        progress.best_loss,
        progress.final_loss,
        max(0.0, time.time() - run.modified()),
        "finished" if progress.finished else "training" if is_locked else "stopped",
        dataclasses.asdict(settings),
    )


def as_json(entries: Sequence[Entry | Unreadable]) -> Iterator[str]:
    """One object and line for each run."""
    for entry in entries:
        yield json.dumps(dataclasses.asdict(entry)) + "\n"


def as_table(entries: Sequence[Entry | Unreadable]) -> Iterator[str]:
    """A header and one line for each run, in columns; an unreadable run has its error instead of figures."""
    rows = [list(_COLUMNS), *map(_row, entries)]
    whole = [row for row in rows if len(row) == len(_COLUMNS)]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    widths[0] = max(len(row[0]) for row in rows)
    for name, *cells in rows:
        line = [name.ljust(widths[0])]
        if len(cells) == 1:  # an error
            line += cells
        else:
            for column, cell, width in zip(_COLUMNS[1:], cells, widths[1:], strict=True):
                line.append(cell.rjust(width) if column in _NUMBERS else cell.ljust(width))
        yield "  ".join(line).rstrip() + "\n"


def _row(entry: Entry | Unreadable) -> list[str]:
    if isinstance(entry, Unreadable):
        return [one_line(entry.name), one_line(entry.error)]
    loss = entry.best_loss if entry.final_loss is None else entry.final_loss
    return [
        one_line(entry.name),
        f"{entry.characters:,}",
        f"{entry.layers} x {entry.units} {CELLS[entry.cell].TITLE}",
        one_line(entry.source or (entry.init_from or "-")[:12]),
        f"{entry.step:,}/{entry.total_steps:,}",
        "-" if loss is None else f"{loss:.4f}",
        _ago(entry.age),
        entry.state,
    ]


def _ago(seconds: float) -> str:
    """`3 min ago`."""
    for unit, size in _UNITS.items():
        if (count := int(seconds / size)) >= 1:
            return f"{count} {unit}{'s' if unit == 'day' and count > 1 else ''} ago"
    return "now"
