"""history.csv: one row for each validation."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from charrnn import CharrnnError
from charrnn.files import open_regular


@dataclass(frozen=True)
class Report:
    """A row of history.csv, with the results of one validation."""

    step: int
    epoch: float
    train_loss: float  # nats per character, mean since the last report
    val_loss: float  # nats per character
    learning_rate: float
    seconds: float  # of training up to this report, without the time that a stopped run spent after its last one
    chars_per_second: float  # trained on since the last report, not counting validation and saving


_MAX_HISTORY = 1 << 20  # bytes; a run has about twenty validations
_LARGEST = 1e39  # limit for numbers in a history; training computes in float32
_COLUMNS = [field.name for field in dataclasses.fields(Report)]


def _is_history(reports: Sequence[Report]) -> bool:
    """Whether training can have produced these reports: the steps increase, and the numbers can be plotted."""
    steps = [0, *(report.step for report in reports)]
    return (
        all(before < after <= 1 << 53 for before, after in itertools.pairwise(steps))
        and all(
            1e-16 < report.epoch / report.step < 1.01  # epoch is rounded
            and all(abs(value) < _LARGEST for value in dataclasses.astuple(report)[1:])
            for report in reports
        )
    )


def to_bytes(reports: Sequence[Report]) -> bytes:
    """The content of history.csv."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for report in reports:
        rows.writerow(
            [
                report.step,
                f"{report.epoch:.6g}",
                f"{report.train_loss:.6f}",
                f"{report.val_loss:.6f}",
                f"{report.learning_rate:.6g}",
                f"{report.seconds:.2f}",
                f"{report.chars_per_second:.0f}",
            ]
        )
    return text.getvalue().encode()


def read(path: Path) -> list[Report]:
    """The rows of a history.csv.

    Raises:
        CharrnnError: the file does not exist, or is not a history.
    """
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_HISTORY + 1)
        columns, *rows = csv.reader(io.StringIO(data.decode(), newline=""))
        reports = [Report(int(step), *map(float, values)) for step, *values in rows]
        if len(data) > _MAX_HISTORY or columns != _COLUMNS or not _is_history(reports):
            raise ValueError
        return reports
    except FileNotFoundError:
        raise CharrnnError(f"{path}: no such file; charrnn train writes it, with one row for each validation") from None
    except OSError as error:
        raise CharrnnError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (TypeError, ValueError, csv.Error):
        raise CharrnnError(f"{path}: damaged, or not a training history") from None
