"""What training shows on stderr: a live line on a terminal, else a plain line per validation."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO, cast

from charrnn.messages import console_on, is_live, one_line, say, show_controls
from charrnn.runs.history import Report
from charrnn.runs.records import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Line
    from rich.progress import ProgressColumn, TextColumn

Advance = Callable[[int], None]


def bits(nats: float) -> float:
    """Nats as bits."""
    return nats / math.log(2)


def _report_line(report: Report, total_steps: int, is_best: bool) -> str:
    return (
        f"epoch {report.epoch:.2f}  step {report.step:,}/{total_steps:,}  train {report.train_loss:.3f}  "
        f"val {report.val_loss:.3f} nats ({bits(report.val_loss):.3f} bits){'  best' if is_best else ''}"
    )


class ProgressDisplay:
    """Plain lines: what a log file or a pipe gets."""

    shows_samples = False

    def __init__(self) -> None:
        self._total_steps = 0

    def note(self, line: str) -> None:
        """Say something."""
        say(line)

    def end(self) -> None:
        """Take what is live off the terminal: the process is about to be left."""

    @contextlib.contextmanager
    def first_updates(self) -> Iterator[Callable[[int, float], None]]:
        """Enter while the first updates measure the speed; the result is what `step` is later."""
        yield self.step

    @contextlib.contextmanager
    def steps(self, progress: Progress, steps_per_epoch: int, characters_per_step: int) -> Iterator[None]:
        """Enter while updates are made, from `progress` on."""
        self._total_steps = progress.total_steps
        yield

    def step(self, step: int, loss: float) -> None:
        """An update was made; `step` of them so far, the loss before it in nats per character."""

    def report(self, report: Report, is_best: bool, sample: str | None) -> None:
        """A validation was made."""
        self.note(f"{_report_line(report, self._total_steps, is_best)}  {report.chars_per_second:,.0f} chars/s")

    @contextlib.contextmanager
    def final_pass(self, characters: int) -> Iterator[Advance]:
        """Enter while the best weights read the whole validation part; the result is told how far."""
        yield lambda _: None

    def finished(self, progress: Progress, characters: int) -> None:
        """The run is finished; its validation part has so many characters."""
        assert progress.final_loss is not None  # that is what finished means
        scored = "all" if progress.final_characters == characters else f"{progress.final_characters:,} of"
        self.note(
            f"validation loss over {scored} {characters:,} characters: "
            f"{progress.final_loss:.4f} nats ({bits(progress.final_loss):.3f} bits)"
        )


class _Terminal:
    """stderr, whose lines are lost where it is a terminal that is gone: training outlives it."""

    def __init__(self) -> None:
        self._file = sys.stderr  # which the live line stands in for while it is shown

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _text(template: str) -> TextColumn:
    """A column of the live line."""
    from rich.progress import TextColumn
    from rich.table import Column

    # Cropped: the ellipsis that it would else end in takes six columns where the locale is C.
    return TextColumn(template, table_column=Column(no_wrap=True, overflow="crop"))


class LiveDisplay(ProgressDisplay):
    """A live line at the bottom of a terminal, reports and samples scrolling above it."""

    shows_samples = True

    def __init__(self) -> None:
        super().__init__()
        self._console = console_on(cast(TextIO, _Terminal()))
        self.is_live = self._console.is_interactive  # rich heeds FORCE_COLOR, TTY_COMPATIBLE and TTY_INTERACTIVE

    def note(self, line: str) -> None:
        """Say something, above the live line."""
        self._console.print(one_line(line), markup=False, soft_wrap=True)

    def _line(self, *columns: ProgressColumn) -> Line:
        """What shows a task while it is entered, and then takes the line away."""
        from rich.progress import Progress as Line

        # No bar: a line as wide as the terminal could not be taken away after an echoed ^C.
        return Line(*columns, console=self._console, transient=True)

    def end(self) -> None:
        """Take the live line away, and show the cursor, without the locks that whoever was interrupted may hold."""
        with contextlib.suppress(OSError):
            os.write(2, b"\r\x1b[2K\x1b[?25h")

    @contextlib.contextmanager
    def first_updates(self) -> Iterator[Callable[[int, float], None]]:
        """A live line that turns while the first update is built, and then shows the loss."""
        from rich.progress import SpinnerColumn

        with self._line(SpinnerColumn("line"), _text("{task.description}")) as bar:  # "line" is ASCII
            task = bar.add_task("building the network")
            yield lambda step, loss: bar.update(task, description=f"loss {loss:.3f}  step {step:,}")

    @contextlib.contextmanager
    def steps(self, progress: Progress, steps_per_epoch: int, characters_per_step: int) -> Iterator[None]:
        """Enter while updates are made, from `progress` on."""
        from rich.progress import TimeRemainingColumn
        from rich.table import Column

        self._total_steps = progress.total_steps
        self._steps_per_epoch = steps_per_epoch
        self._characters_per_step = characters_per_step
        self._loss = math.nan
        self._val_loss = progress.best_loss
        self._first: tuple[float, int] | None = None  # time and step of the first update here
        self._shown = 0.0
        time_left = TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True, min_width=5))
        self._bar = self._line(time_left, _text("left {task.description}"))
        with self._bar:
            self._task = self._bar.add_task("", total=progress.total_steps, completed=progress.step)
            yield

    def step(self, step: int, loss: float) -> None:
        """Move the live line on."""
        # The loss of single steps jumps about: show a running mean over some 50 of them.
        self._loss = loss if math.isnan(self._loss) else self._loss + (loss - self._loss) / 50
        now = time.monotonic()
        if self._first is None:
            self._first = now, step
        if now - self._shown < 0.1 and step < self._total_steps:
            return
        self._shown = now
        first_time, first_step = self._first
        speed = (step - first_step) * self._characters_per_step / max(now - first_time, 1e-9)
        val_loss = "" if self._val_loss is None else f"  val {self._val_loss:.3f}"
        self._bar.update(
            self._task,
            completed=step,
            # What matters most comes first: a narrow terminal cuts the rest off.
            description=f" loss {self._loss:.3f}{val_loss}  epoch {step / self._steps_per_epoch:.2f}  "
            f"step {step:,}/{self._total_steps:,}  {speed / 1000:,.1f}k chars/s",
        )

    def report(self, report: Report, is_best: bool, sample: str | None) -> None:
        """A validation was made: its line, and a sample of the model as it stands."""
        self._val_loss = report.val_loss
        self._console.print(
            _report_line(report, self._total_steps, is_best), markup=False, style="bold" if is_best else None
        )
        if sample is not None:
            self._console.print(show_controls(sample).strip("\n") + "\n", markup=False, style="dim")

    @contextlib.contextmanager
    def final_pass(self, characters: int) -> Iterator[Advance]:
        """A live line for the last pass."""
        with self._line(_text("{task.percentage:3.0f} % of scoring the best weights")) as bar:
            task = bar.add_task("", total=characters)
            yield lambda done: bar.advance(task, done)


def choose_display() -> ProgressDisplay:
    """The live display if stderr is live, else the plain one."""
    if is_live() and (display := LiveDisplay()).is_live:
        return display
    return ProgressDisplay()
