"""A run's folder: checkpoints/<name>/ with last.safetensors, best.safetensors and history.csv."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from charrnn import CharrnnError, checkpoint
from charrnn.checkpoint import Checkpoint

DEFAULT_FOLDER = "checkpoints"
FOLDER_VARIABLE = "CHARRNN_CHECKPOINTS_DIR"


@dataclass(frozen=True)
class Report:
    """A row of history.csv: what a validation found."""

    step: int
    epoch: float
    train_loss: float  # nats per character, mean since the last report
    val_loss: float  # nats per character
    learning_rate: float
    seconds: float  # of training up to the reports; what a stopped run did after its last one is not in it
    chars_per_second: float  # trained on since the last report, validation and saving apart


class NotWrittenError(CharrnnError):
    """A file of a run could not be written; what was there before still is."""


_MAX_HISTORY = 1 << 20  # bytes; a run has some twenty validations
_LARGEST = 1e39  # of a history's numbers; training computes in float32
_COLUMNS = [field.name for field in dataclasses.fields(Report)]


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    folder: Path

    @property
    def name(self) -> str:
        """The run's name: its folder's."""
        return self.folder.name

    @property
    def last(self) -> Path:
        """Everything that a resume needs."""
        return self.folder / "last.safetensors"

    @property
    def best(self) -> Path:
        """The weights with the lowest validation loss."""
        return self.folder / "best.safetensors"

    @property
    def history(self) -> Path:
        """A row for each validation."""
        return self.folder / "history.csv"

    def exists(self) -> bool:
        """Whether there is something to resume or to sample from."""
        return self.last.exists() or self.best.exists()

    def for_sampling(self) -> Path:
        """The best checkpoint, or the last where none was validated yet."""
        return self.best if self.best.exists() else self.last

    def check_writable(self) -> None:
        """See, without making anything, whether the folder can be made and written to.

        Raises:
            CharrnnError: it cannot.
        """
        there = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
        if not there.is_dir():
            raise self._not_writable("Not a directory" if there == self.folder else f"{there} is not a directory")
        if not os.access(there, os.W_OK | os.X_OK):
            read_only = hasattr(os, "statvfs") and os.statvfs(there).f_flag & os.ST_RDONLY
            raise self._not_writable("Read-only file system" if read_only else "Permission denied")

    def prepare(self) -> None:
        """Make the folder, and clear away what a killed save left in it.

        Raises:
            CharrnnError: the folder cannot be made or written to.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            checkpoint.sync_folder(self.folder.parent)
            for path in (self.last, self.best, self.history):
                for leftover in self.folder.glob(f".{path.name}.*.tmp"):
                    leftover.unlink()
        except OSError as error:
            raise self._not_writable(error.strerror or str(error)) from None

    def _not_writable(self, reason: str) -> CharrnnError:
        return CharrnnError(f"{self.folder}: cannot be written to: {reason}; name another place with --checkpoints-dir")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run, so that no other process trains it at the same time.

        The lock is the operating system's, on a file beside the run's folder: a process that is
        killed leaves none behind.

        Raises:
            CharrnnError: another process holds it.
        """
        path = self.folder.with_name(f".{self.name}.lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "a+b", buffering=0)  # noqa: SIM115 - it is closed below, where its lock ends
        except OSError as error:
            raise self._not_writable(error.strerror or str(error)) from None
        with file:
            if not _try_lock(file):
                file.seek(0)
                holder = file.read(20).decode("ascii", "replace").strip() or "unknown"
                raise CharrnnError(
                    f"{self.folder} is being trained by another process (id {holder}): wait for it, or stop it, "
                    "or train another run with --name"
                )
            with contextlib.suppress(OSError):  # a full disk: whoever is refused is told `unknown`
                file.truncate(0)
                file.write(str(os.getpid()).encode())
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # Windows does not remove what is open
                    path.unlink()

    def save(self, last: Checkpoint | None, reports: Sequence[Report], best: Checkpoint | None) -> None:
        """Write down where the run stands.

        `last` is written last: a run that is killed in between goes on from the one before, and comes to
        the same best weights and the same reports again.

        Args:
            last: everything that a resume needs; None leaves the one before.
            reports: all so far.
            best: the best weights, where they are not written yet.

        Raises:
            NotWrittenError: a file could not be written; the one before is still there.
        """
        if best is not None:
            self._write(self.best, checkpoint.to_bytes(best))
        self.write_history(reports)
        if last is not None:
            self._write(self.last, checkpoint.to_bytes(last))

    def write_history(self, reports: Sequence[Report]) -> None:
        """Replace history.csv.

        Raises:
            NotWrittenError: it could not be written; the one before is still there.
        """
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
        self._write(self.history, text.getvalue().encode())

    def _write(self, path: Path, data: bytes) -> None:
        try:
            checkpoint.write_atomically(path, data)
        except OSError as error:
            raise NotWrittenError(f"{path}: cannot be written: {error.strerror or error}") from None

    def read_history(self) -> list[Report]:
        """The rows of history.csv.

        Raises:
            CharrnnError: there is none, or it is not one.
        """
        try:
            with checkpoint.open_regular(self.history) as file:
                data = file.read(_MAX_HISTORY + 1)
            columns, *rows = csv.reader(io.StringIO(data.decode(), newline=""))
            reports = [Report(int(step), *map(float, values)) for step, *values in rows]
            if len(data) > _MAX_HISTORY or columns != _COLUMNS or not _is_history(reports):
                raise ValueError
            return reports
        except FileNotFoundError:
            raise CharrnnError(
                f"{self.history}: no such file; charrnn train writes it, with a row for each validation"
            ) from None
        except OSError as error:
            raise CharrnnError(f"{self.history}: cannot be read: {error.strerror or error}") from None
        except (TypeError, ValueError, csv.Error):
            raise CharrnnError(f"{self.history}: damaged, or not a training history") from None

    def set_aside(self) -> Run:
        """Rename the folder to <name>-1, <name>-2 or the first that is free, and say which."""
        number = 1
        while (aside := self.folder.with_name(f"{self.name}-{number}")).exists():
            number += 1
        try:
            self.folder.rename(aside)
        except OSError as error:
            raise CharrnnError(f"{self.folder}: cannot be renamed: {error.strerror or error}") from None
        return Run(aside)


def _is_history(reports: Sequence[Report]) -> bool:
    """Whether a training can have made these reports: increasing steps, and numbers that can be drawn."""
    steps = [0, *(report.step for report in reports)]
    return (
        all(before < after <= 1 << 53 for before, after in itertools.pairwise(steps))
        and all(
            1e-16 < report.epoch / report.step < 1.01  # epoch is rounded
            and all(abs(value) < _LARGEST for value in dataclasses.astuple(report)[1:])
            for report in reports
        )
    )


def _try_lock(file: BinaryIO) -> bool:
    """Lock an open file for this process, unless another has it or removed it meanwhile."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1000)  # past what is written, which others may then read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.fstat(file.fileno()).st_nlink > 0
    except OSError:
        return False
    return True


def run_named(name: str, folder: str) -> Run:
    """The run of that name in the folder of runs.

    Raises:
        CharrnnError: the name cannot be a folder's.
    """
    if not name or name != Path(name).name or name.startswith((".", "-")) or "\0" in name:
        raise CharrnnError(
            f"{name!r} cannot be a run's name: with --name choose one without / and not starting with . or -",
            exit_code=2,
        )
    return Run(Path(folder) / name)


def all_runs(folder: str) -> list[Run]:
    """The runs in a folder of runs, the one last trained first."""

    def trained(run: Run) -> float:
        return max(path.stat().st_mtime for path in (run.last, run.best) if path.exists())

    try:
        runs = [run for entry in Path(folder).iterdir() if (run := Run(entry)).exists()]
        return sorted(runs, key=trained, reverse=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CharrnnError(f"{folder}: cannot be read: {error.strerror or error}") from None


def find_run(name: str | None, folder: str) -> Run:
    """The run that a user names by its folder's path or its name; without one, the run last trained.

    Raises:
        CharrnnError: there is none.
    """
    if name is None:
        runs = all_runs(folder)
        if not runs:
            raise CharrnnError(
                f"no runs in {Path(folder).absolute()} yet: train one with charrnn train FILE, "
                "or say with --checkpoints-dir where there are some"
            )
        return runs[0]
    for path in (Path(folder) / name, Path(name)):
        run = Run(path.resolve() if path.name in ("", "..") else path)
        if run.exists():
            return run
    names = [run.name for run in all_runs(folder)]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    known = f" (there are: {', '.join(names[:8])}{more})" if names else ""
    raise CharrnnError(f"{name}: no such run in {folder}/{known}", exit_code=2)


def find_checkpoint(where: str | None, folder: str) -> Path:
    """The file to sample from: a checkpoint file, or the best of a run.

    Args:
        where: a run's name, its folder, a file, or None for the run last trained.
        folder: where runs are looked for.

    Raises:
        CharrnnError: there is none.
    """
    if where is not None:
        if where.endswith(".safetensors"):
            return Path(where)
        if not (Run(Path(folder) / where).exists() or Path(where).is_dir()) and os.path.lexists(where):
            return Path(where)
    return find_run(where, folder).for_sampling()
