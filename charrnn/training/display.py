"""Progress of training on stderr: a live line on a terminal, otherwise one plain line per validation."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO, cast

from charrnn.messages import is_live, one_line, say, show_controls
from charrnn.runs.history import Report
from charrnn.runs.records import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Line
    from rich.progress import ProgressColumn, TextColumn

Advance = Callable[[int], None]
_SILENCE = 30  # seconds, after which a log without a validation gets a line on the time that is left


def bits(nats: float) -> float:
    """Convert nats to bits."""
    return nats / math.log(2)


def _report_line(report: Report, total_steps: int, is_best: bool) -> str:
    return (
        f"epoch {report.epoch:.2f}  step {report.step:,}/{total_steps:,}  train {report.train_loss:.3f}  "
        f"val {report.val_loss:.3f} nats ({bits(report.val_loss):.3f} bits){'  best' if is_best else ''}"
    )


class ProgressDisplay:
    """Plain lines, for a log file or a pipe."""

    shows_samples = False

    def __init__(self) -> None:
        self._total_steps = 0
        self._since: tuple[float, int] | None = None  # time and step of the start, until a line has been printed

    def note(self, line: str) -> None:
        """Print a line."""
        say(line)

    def end(self) -> None:
        """Remove the live line from the terminal before the process exits."""

    @contextlib.contextmanager
    def first_updates(self) -> Iterator[Callable[[int, float], None]]:
        """Enter for the first updates, which measure the speed; yields a function that is called as `step` is."""
        yield self.step

    @contextlib.contextmanager
    def steps(self, progress: Progress, steps_per_epoch: int, characters_per_step: int) -> Iterator[None]:
        """Enter for the updates that follow `progress`."""
        self._total_steps = progress.total_steps
        self._since = time.monotonic(), progress.step
        yield

    def step(self, step: int, loss: float) -> None:
        """Report an update: `step` updates so far, and the loss before this one in nats per character."""
        if self._since is None:
            return
        start, first = self._since
        seconds = time.monotonic() - start
        if seconds > _SILENCE:
            self._since = None
            left = seconds / (step - first) * (self._total_steps - step) / 60
            self.note(f"step {step:,}/{self._total_steps:,}; about {math.ceil(left):,} min left")

    def report(self, report: Report, is_best: bool, sample: str | None) -> None:
        """Report a validation."""
        self._since = None
        self.note(f"{_report_line(report, self._total_steps, is_best)}  {report.chars_per_second:,.0f} chars/s")

    @contextlib.contextmanager
    def final_pass(self, characters: int) -> Iterator[Advance]:
        """Enter while the best weights read the validation part; yields a function that counts characters read."""
        yield lambda _: None

    def finished(self, progress: Progress, characters: int, unit: str) -> None:
        """Report the end of the run; `characters` is the size of its validation part in characters or another unit."""
        assert progress.final_loss is not None  # every finished run has one
        scored = "all" if progress.final_characters == characters else f"{progress.final_characters:,} of"
        self.note(
            f"validation loss over {scored} {characters:,} {unit}s: "
            f"{progress.final_loss:.4f} nats ({bits(progress.final_loss):.3f} bits)"
        )


class SilentDisplay(ProgressDisplay):
    """Nothing: of several workers, worker 0 shows the progress."""

    def note(self, line: str) -> None:
        """Drop a line."""


class _Terminal:
    """stderr, which drops its lines if its terminal is gone, so that training survives that."""

    def __init__(self) -> None:
        self._file = sys.stderr  # rich replaces sys.stderr while it shows the live line

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

    # Cropped: in the C locale, the ellipsis at the end would take six columns.
    return TextColumn(template, table_column=Column(no_wrap=True, overflow="crop"))


class LiveDisplay(ProgressDisplay):
    """A live line at the bottom of a terminal; reports and samples scroll above it."""

    shows_samples = True

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console  # takes 0.1 s, so import it only here

        for stale in ("COLUMNS", "LINES"):  # rich would trust these more than the terminal
            os.environ.pop(stale, None)
        self._console = Console(file=cast(TextIO, _Terminal()), highlight=False)
        self.is_live = self._console.is_interactive  # rich heeds FORCE_COLOR, TTY_COMPATIBLE and TTY_INTERACTIVE

    def note(self, line: str) -> None:
        """Print a line above the live line."""
        self._console.print(one_line(line), markup=False, soft_wrap=True)

    def _line(self, *columns: ProgressColumn) -> Line:
        """A live line that shows a task inside a `with` block and disappears after it."""
        from rich.progress import Progress as Line

        # No bar: after an echoed ^C, a line as wide as the terminal could not be removed.
        return Line(*columns, console=self._console, transient=True)

    def end(self) -> None:
        """Remove the live line and show the cursor, without taking locks that the interrupted code may hold."""
        with contextlib.suppress(OSError):
            os.write(2, b"\r\x1b[2K\x1b[?25h")

    @contextlib.contextmanager
    def first_updates(self) -> Iterator[Callable[[int, float], None]]:
        """Show a spinner while the first update is built, and then the loss."""
        from rich.progress import SpinnerColumn

        with self._line(SpinnerColumn("line"), _text("{task.description}")) as bar:  # "line" is ASCII
            task = bar.add_task("building the network")
            yield lambda step, loss: bar.update(task, description=f"loss {loss:.3f}  step {step:,}")

    @contextlib.contextmanager
    def steps(self, progress: Progress, steps_per_epoch: int, characters_per_step: int) -> Iterator[None]:
        """Enter for the updates that follow `progress`."""
        from rich.progress import TimeRemainingColumn
        from rich.table import Column

        self._total_steps = progress.total_steps
        self._steps_per_epoch = steps_per_epoch
        self._characters_per_step = characters_per_step
        self._loss = math.nan
        self._val_loss = progress.best_loss
        self._first: tuple[float, int] | None = None  # time and step of this call's first update
        self._shown = 0.0
        time_left = TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True, min_width=5))
        self._bar = self._line(time_left, _text("left {task.description}"))
        with self._bar:
            self._task = self._bar.add_task("", total=progress.total_steps, completed=progress.step)
            yield

    def step(self, step: int, loss: float) -> None:
        """Update the live line."""
        # The loss of single steps fluctuates: show a running mean over about 50 of them.
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
            # The most important comes first: a narrow terminal cuts off the rest.
            description=f" loss {self._loss:.3f}{val_loss}  epoch {step / self._steps_per_epoch:.2f}  "
            f"step {step:,}/{self._total_steps:,}  {speed / 1000:,.1f}k chars/s",
        )

    def report(self, report: Report, is_best: bool, sample: str | None) -> None:
        """Print a validation's line, and a sample from the current model."""
        self._val_loss = report.val_loss
        self._console.print(
            _report_line(report, self._total_steps, is_best), markup=False, style="bold" if is_best else None
        )
        if sample is not None:
            self._console.print(show_controls(sample).strip("\n") + "\n", markup=False, style="dim")

    @contextlib.contextmanager
    def final_pass(self, characters: int) -> Iterator[Advance]:
        """Show a live line during the final pass."""
        with self._line(_text("{task.percentage:3.0f} % done: scoring the best weights")) as bar:
            task = bar.add_task("", total=characters)
            yield lambda done: bar.advance(task, done)


def choose_display() -> ProgressDisplay:
    """The live display if stderr is live, otherwise the plain one."""
    if is_live() and (display := LiveDisplay()).is_live:
        return display
    return ProgressDisplay()
