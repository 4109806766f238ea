"""A run's folder: checkpoints/<name>/ with last.safetensors, best.safetensors and history.csv."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from charrnn import CharrnnError, files
from charrnn.messages import Note, ignore_note, some_of
from charrnn.runs import checkpoint, history, starter
from charrnn.runs.history import Report
from charrnn.runs.records import Checkpoint


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    folder: Path

    @property
    def name(self) -> str:
        """The run's name, which is its folder's name."""
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
        """One row for each validation."""
        return self.folder / "history.csv"

    def exists(self) -> bool:
        """Whether there is something to resume or to sample from. A broken link counts too."""
        return any(_is_there(path) for path in (self.last, self.best))

    def for_sampling(self) -> Path:
        """The best checkpoint, or the last one if none has been validated yet."""
        return self.best if _is_there(self.best) else self.last

    def can_continue(self) -> bool:
        """Whether there is something to resume, or a broken link to it."""
        return _is_there(self.last)

    def modified(self) -> float:
        """When the run was last saved: a Unix time."""
        return max((os.lstat(path).st_mtime for path in (self.last, self.best) if _is_there(path)), default=0.0)

    def is_locked(self) -> bool:
        """Whether a process trains the run now, as far as the file system can tell."""
        return files.is_locked(self._lock_path)

    def check_writable(self) -> None:
        """Check whether the folder can be created and written to, without creating anything.

        Raises:
            CharrnnError: the folder cannot be created or written to.
        """
        try:
            _is_there(self._lock_path)  # the longest name needed
            there = next(folder for folder in (self.folder, *self.folder.parents) if _is_there(folder))
        except OSError as error:
            raise self._not_writable_because(error) from None
        if not there.exists():
            raise self._not_writable(f"{there} is a link to a folder that does not exist")
        if not there.is_dir():
            raise self._not_writable("Not a directory" if there == self.folder else f"{there} is not a directory")
        if not os.access(there, os.W_OK | os.X_OK):
            read_only = hasattr(os, "statvfs") and os.statvfs(there).f_flag & os.ST_RDONLY
            raise self._not_writable("Read-only file system" if read_only else "Permission denied")

    def prepare(self) -> None:
        """Create the folder, and remove temporary files that a killed save left in it.

        Raises:
            CharrnnError: the folder cannot be created or written to.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.sync_folder(self.folder.parent)
            for path in (self.last, self.best, self.history):
                for leftover in self.folder.glob(f".{path.name}.*.tmp"):
                    leftover.unlink()
        except OSError as error:
            raise self._not_writable_because(error) from None

    def _not_writable(self, reason: str) -> CharrnnError:
        return CharrnnError(
            f"{self.folder}: cannot be written to: {reason}; choose another folder with --checkpoints-dir"
        )

    def _not_writable_because(self, error: OSError) -> CharrnnError:
        if error.errno == errno.ENAMETOOLONG:
            return CharrnnError(
                f"{self.folder}: the name is too long for this file system: give the run a shorter one with --name",
                exit_code=2,
            )
        return self._not_writable(error.strerror or str(error))

    @property
    def _lock_path(self) -> Path:
        return self.folder.with_name(f".{self.name}.lock")

    @contextlib.contextmanager
    def lock(self, note: Note = ignore_note) -> Iterator[None]:
        """Lock the run, so that no other process trains it at the same time.

        The operating system locks a file beside the run's folder, so a killed process leaves no lock behind.

        Args:
            note: called if the file system has no locks.

        Raises:
            CharrnnError: another process holds the lock.
        """
        path = self._lock_path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed below, when the lock ends
        except OSError as error:
            raise self._not_writable_because(error) from None
        with file:
            try:
                is_free = files.try_lock(file)
                if not is_free:  # `is_locked` may hold the lock for a moment
                    time.sleep(0.1)
                    is_free = files.try_lock(file)
            except OSError as error:
                note(
                    f"{self.folder} cannot be locked on this file system ({error.strerror or error}): "
                    "do not train it from two processes at once"
                )
                is_free = True
            if not is_free:
                file.seek(0)
                holder = file.read(20).decode("ascii", "replace").strip() or "unknown"
                raise CharrnnError(
                    f"{self.folder} is being trained by another process (id {holder}): wait for it, stop it, "
                    "or train another run with --name"
                )
            with contextlib.suppress(OSError):  # on a full disk, others see `unknown` instead of the process id
                file.truncate(0)
                file.write(str(os.getpid()).encode())
            try:
                yield
            finally:
                self.remove_lock()

    def remove_lock(self) -> None:
        """Remove the lock file; the lock itself ends with the process."""
        with contextlib.suppress(OSError):  # Windows does not remove an open file
            self._lock_path.unlink()

    def save(self, last: Checkpoint | None, reports: Sequence[Report], best: Checkpoint | None) -> bool:
        """Save the state of the run, and create its folder again if it has disappeared.

        `last` is written last. A run that is killed in between therefore continues from the previous `last`,
        and reaches the same best weights and the same reports again.

        Args:
            last: everything that a resume needs; None keeps the previous file.
            reports: all reports so far.
            best: the best weights, or None if they are already written.

        Returns:
            Whether the file system has synced all files.

        Raises:
            NotWrittenError: a file could not be written; the previous file is still there.
        """
        if not os.path.exists(self.folder):  # Path.exists raises an error if it cannot tell
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise files.NotWrittenError(self.folder, error) from None
        is_synced = best is None or files.write_atomically(self.best, *checkpoint.to_pieces(best))
        is_synced &= files.write_atomically(self.history, history.to_bytes(reports))
        if last is not None:
            is_synced &= files.write_atomically(self.last, *checkpoint.to_pieces(last))
        return is_synced

    def read_history(self) -> list[Report]:
        """The rows of history.csv.

        Raises:
            CharrnnError: the file does not exist, or is not a history.
        """
        return history.read(self.history)

    def set_aside(self) -> Run:
        """Rename the folder to the name that `next_free` finds.

        Returns:
            The run under its new name.
        """
        aside = self.next_free()
        try:
            self.folder.rename(aside.folder)
        except OSError as error:
            raise CharrnnError(f"{self.folder}: cannot be renamed: {error.strerror or error}") from None
        return aside

    def next_free(self) -> Run:
        """The first of <name>-1, <name>-2 and so on that does not exist yet."""
        number = 1
        while os.path.lexists(folder := self.folder.with_name(f"{self.name}-{number}")):
            number += 1
        return Run(folder)


def _is_there(path: Path) -> bool:
    """Whether a file or folder of that name exists. A broken link counts too.

    Raises:
        OSError: it is impossible to tell, because the folder cannot be searched or the name is too long.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except ValueError:  # no file can have a NUL or half a character in its name
        return False
    return True


def run_named(name: str, folder: str) -> Run:
    """The run with a given name in the folder of runs.

    Raises:
        CharrnnError: the name is not a valid folder name.
    """
    if not name or name != Path(name).name or name.startswith((".", "-")) or "\0" in name:
        raise CharrnnError(
            f"{name!r} cannot be a run's name: choose a --name that has no / and does not start with . or -",
            exit_code=2,
        )
    return Run(Path(folder) / name)


def all_runs(folder: str, note: Note = ignore_note) -> list[Run]:
    """The runs in a folder, most recently trained first.

    Args:
        folder: the folder of runs.
        note: called with one line for each run that cannot be read.
    """
    found: list[tuple[float, Run]] = []
    try:
        for entry in sorted(Path(folder).iterdir()):
            run = Run(entry)
            try:
                if run.exists():
                    found.append((run.modified(), run))
            except OSError as error:
                note(f"{entry}: cannot be read: {error.strerror or error}; skipped")
        return [run for _, run in sorted(found, key=lambda pair: pair[0], reverse=True)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CharrnnError(f"{folder}: cannot be read: {error.strerror or error}") from None


def no_runs_in(folder: str) -> str:
    """What to tell the user about a folder without runs."""
    return f"no runs in {Path(folder).absolute()} yet: train one with charrnn train FILE"


def find_run(name: str | None, folder: str, note: Note = ignore_note) -> Run:
    """The run that a user names by its name or its folder's path. Without a name, the most recently trained run.

    Without a name, `note` is called with one line for each run that cannot be read, and one that names the run if
    there are several.

    Raises:
        CharrnnError: there is no such run.
    """
    if name is None:
        runs = all_runs(folder, note)
        if not runs:
            raise CharrnnError(
                f"{no_runs_in(folder)}, or use --checkpoints-dir to choose a folder that has runs", exit_code=2
            )
        return _latest(runs, note)
    for path in (Path(folder) / name, Path(name)):
        try:
            run = Run(path.resolve() if path.name in ("", "..") else path)
            if run.exists():
                return run
        except OSError as error:
            raise CharrnnError(f"{path}: cannot be read: {error.strerror or error}") from None
    names = [run.name for run in all_runs(folder)]
    known = f" (available: {some_of(names, 8)})" if names else ""
    raise CharrnnError(f"{name}: no such run in {Path(folder).absolute()}{known}", exit_code=2)


def _latest(runs: Sequence[Run], note: Note) -> Run:
    """The most recently trained of the runs that `all_runs` found; of several, `note` names it."""
    if len(runs) > 1:
        note(f"{runs[0].name} is the most recently trained of {len(runs):,} runs")
    return runs[0]


def checkpoint_name(path: Path) -> str:
    """What people call a checkpoint: the starter, the run's name or the file's."""
    if path == starter.PATH:
        return starter.NAME
    is_of_run = path.name in (Run(path.parent).best.name, Run(path.parent).last.name)
    return (path.resolve().parent.name if is_of_run else "") or path.name


def find_checkpoint(where: str | None, folder: str, note: Note = ignore_note) -> Path:
    """The file to sample from: a checkpoint file, or a run's best checkpoint.

    Args:
        where: a run's name, its folder, a file, the starter's name, or None for the most recently trained run: in a
            folder without runs, the starter.
        folder: the folder in which to look for runs.
        note: if `where` is None, called with the notes of `find_run`, and if there is no run.

    Raises:
        CharrnnError: there is no such run or file.
    """
    if where == starter.NAME:
        if not starter.is_installed():
            raise CharrnnError(
                "this charrnn was installed without its starter: train a run with charrnn train FILE", exit_code=2
            )
        return starter.PATH
    if where is None and starter.is_installed():
        if runs := all_runs(folder, note):
            return _latest(runs, note).for_sampling()
        note(f"{no_runs_in(folder)}; charrnn uses its starter, a model of English books")
        return starter.PATH
    try:
        return find_run(where, folder, note).for_sampling()
    except CharrnnError:
        if where is not None and (
            where.endswith(".safetensors") or (os.path.lexists(where) and not os.path.isdir(where))
        ):
            return Path(where)
        raise
