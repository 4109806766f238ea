"""A run's folder: checkpoints/<name>/ with last.safetensors, best.safetensors and history.csv."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from charrnn import CharrnnError, files
from charrnn.messages import Note, ignore_note
from charrnn.runs import checkpoint, history
from charrnn.runs.history import Report
from charrnn.runs.records import Checkpoint

DEFAULT_FOLDER = "checkpoints"
FOLDER_VARIABLE = "CHARRNN_CHECKPOINTS_DIR"
_NO_ROOM = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", None)}  # Windows has no EDQUOT


class NotWrittenError(CharrnnError):
    """A file of a run could not be written; what was there before still is.

    Attributes:
        remedy: what the user can do, as an imperative.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{path}: cannot be written: {error.strerror or error}")
        self.remedy = "name another place with --checkpoints-dir"
        if error.errno in _NO_ROOM:
            self.remedy = f"make room there, or {self.remedy}"


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
        """Whether there is something to resume or to sample from, be it a link that leads nowhere."""
        return any(_is_there(path) for path in (self.last, self.best))

    def for_sampling(self) -> Path:
        """The best checkpoint, or the last where none was validated yet."""
        return self.best if _is_there(self.best) else self.last

    def check_writable(self) -> None:
        """See, without making anything, whether the folder can be made and written to.

        Raises:
            CharrnnError: it cannot.
        """
        try:
            _is_there(self._lock_path)  # the longest name that is needed
            there = next(folder for folder in (self.folder, *self.folder.parents) if _is_there(folder))
        except OSError as error:
            raise self._not_writable_because(error) from None
        if not there.exists():
            raise self._not_writable(f"{there} is a link to a folder that is not there")
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
            files.sync_folder(self.folder.parent)
            for path in (self.last, self.best, self.history):
                for leftover in self.folder.glob(f".{path.name}.*.tmp"):
                    leftover.unlink()
        except OSError as error:
            raise self._not_writable_because(error) from None

    def _not_writable(self, reason: str) -> CharrnnError:
        return CharrnnError(f"{self.folder}: cannot be written to: {reason}; name another place with --checkpoints-dir")

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
        """Hold the run, so that no other process trains it at the same time.

        The lock is the operating system's, on a file beside the run's folder: a process that is
        killed leaves none behind.

        Args:
            note: told if the file system has no locks.

        Raises:
            CharrnnError: another process holds it.
        """
        path = self._lock_path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "a+b", buffering=0)  # noqa: SIM115 - it is closed below, where its lock ends
        except OSError as error:
            raise self._not_writable_because(error) from None
        with file:
            try:
                is_free = _try_lock(file)
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
                    f"{self.folder} is being trained by another process (id {holder}): wait for it, or stop it, "
                    "or train another run with --name"
                )
            with contextlib.suppress(OSError):  # a full disk: whoever is refused is told `unknown`
                file.truncate(0)
                file.write(str(os.getpid()).encode())
            try:
                yield
            finally:
                self.remove_lock()

    def remove_lock(self) -> None:
        """Remove the lock's file; the lock itself ends with the process."""
        with contextlib.suppress(OSError):  # Windows does not remove what is open
            self._lock_path.unlink()

    def save(self, last: Checkpoint | None, reports: Sequence[Report], best: Checkpoint | None) -> bool:
        """Write down where the run stands; a folder that has gone away is made again.

        `last` is written last: a run that is killed in between goes on from the one before, and comes to
        the same best weights and the same reports again.

        Args:
            last: everything that a resume needs; None leaves the one before.
            reports: all so far.
            best: the best weights, where they are not written yet.

        Returns:
            Whether the file system has synced all files.

        Raises:
            NotWrittenError: a file could not be written; the one before is still there.
        """
        if not os.path.exists(self.folder):  # Path.exists raises where it cannot tell
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise NotWrittenError(self.folder, error) from None
        is_synced = best is None or self._write(self.best, checkpoint.to_bytes(best))
        is_synced &= self._write(self.history, history.to_bytes(reports))
        if last is not None:
            is_synced &= self._write(self.last, checkpoint.to_bytes(last))
        return is_synced

    def _write(self, path: Path, data: bytes) -> bool:
        try:
            return files.write_atomically(path, data)
        except OSError as error:
            raise NotWrittenError(path, error) from None

    def read_history(self) -> list[Report]:
        """The rows of history.csv.

        Raises:
            CharrnnError: there is none, or it is not one.
        """
        return history.read(self.history)

    def set_aside(self) -> Run:
        """Rename the folder to the name that `next_free` gives, and say which."""
        aside = self.next_free()
        try:
            self.folder.rename(aside.folder)
        except OSError as error:
            raise CharrnnError(f"{self.folder}: cannot be renamed: {error.strerror or error}") from None
        return aside

    def next_free(self) -> Run:
        """The first of <name>-1, <name>-2 and so on that is not there."""
        number = 1
        while os.path.lexists(folder := self.folder.with_name(f"{self.name}-{number}")):
            number += 1
        return Run(folder)


def _is_there(path: Path) -> bool:
    """Whether there is something of that name, be it a link that leads nowhere.

    Raises:
        OSError: it cannot be told: the folder cannot be searched, or the name is too long.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except ValueError:  # no file can have a NUL or half a character in its name
        return False
    return True


def _try_lock(file: BinaryIO) -> bool:
    """Lock an open file for this process, unless another has it or removed it meanwhile.

    Raises:
        OSError: the file system has no locks.
    """
    if sys.platform == "win32":
        import msvcrt

        file.seek(1000)  # past what is written, which others may then read
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(file.fileno()).st_nlink > 0


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


def all_runs(folder: str, note: Note = ignore_note) -> list[Run]:
    """The runs in a folder of runs, the one last trained first.

    Args:
        folder: of runs.
        note: told of each that cannot be looked into.
    """
    found: list[tuple[float, Run]] = []
    try:
        for entry in sorted(Path(folder).iterdir()):
            run = Run(entry)
            try:
                if run.exists():
                    times = [os.lstat(path).st_mtime for path in (run.last, run.best) if _is_there(path)]
                    found.append((max(times, default=0.0), run))
            except OSError as error:
                note(f"{entry}: cannot be read: {error.strerror or error}; left out")
        return [run for _, run in sorted(found, key=lambda pair: pair[0], reverse=True)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CharrnnError(f"{folder}: cannot be read: {error.strerror or error}") from None


def find_run(name: str | None, folder: str, note: Note = ignore_note) -> Run:
    """The run that a user names by its folder's path or its name; without one, the run last trained.

    `note` is told of runs that cannot be looked into, where the last one is wanted.

    Raises:
        CharrnnError: there is none.
    """
    if name is None:
        runs = all_runs(folder, note)
        if not runs:
            raise CharrnnError(
                f"no runs in {Path(folder).absolute()} yet: train one with charrnn train FILE, "
                "or name the folder that has some with --checkpoints-dir",
                exit_code=2,
            )
        return runs[0]
    for path in (Path(folder) / name, Path(name)):
        try:
            run = Run(path.resolve() if path.name in ("", "..") else path)
            if run.exists():
                return run
        except OSError as error:
            raise CharrnnError(f"{path}: cannot be read: {error.strerror or error}") from None
    names = [run.name for run in all_runs(folder)]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    known = f" (there are: {', '.join(names[:8])}{more})" if names else ""
    raise CharrnnError(f"{name}: no such run in {folder}/{known}", exit_code=2)


def find_checkpoint(where: str | None, folder: str, note: Note = ignore_note) -> Path:
    """The file to sample from: a checkpoint file, or the best of a run.

    Args:
        where: a run's name, its folder, a file, or None for the run last trained.
        folder: where runs are looked for.
        note: told of runs that cannot be looked into, where the last one is wanted.

    Raises:
        CharrnnError: there is none.
    """
    try:
        return find_run(where, folder, note).for_sampling()
    except CharrnnError:
        if where is not None and (
            where.endswith(".safetensors") or (os.path.lexists(where) and not os.path.isdir(where))
        ):
            return Path(where)
        raise
