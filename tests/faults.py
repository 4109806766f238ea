"""File operations that fail: the n-th one in a folder, or the process dies in the middle of it.

    Faults(folder, first=3, times=1, error=errno.ENOSPC).install(setattr)

lets the third operation that writes in the folder, counted from 1, fail as on a full disk. A child process meets
them through shims/sitecustomize.py and the environment that `for_child` gives.
"""

from __future__ import annotations

import builtins
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SHIMS = Path(__file__).parent / "shims"
_KEYS = ("FAULT_FOLDER", "FAULT_FIRST", "FAULT_TIMES", "FAULT_ERROR")


class Faults:
    """Counts the operations that write in a folder, and lets some of them fail."""

    def __init__(self, folder: Path, first: int, times: float, error: int | None) -> None:
        """Plan the faults.

        Args:
            folder: what happens elsewhere is not counted.
            first: the operation that fails first, counted from 1.
            times: how many fail, that one and those that follow.
            error: what they fail with; None lets the process die as by SIGKILL.
        """
        self.folder = os.path.realpath(folder)
        self.first, self.times, self.error = first, times, error
        self.operations: list[str] = []

    def _meet(self, operation: str, path: Any) -> None:
        where = os.path.realpath(path)
        if where != self.folder and not where.startswith(self.folder + os.sep):
            return
        self.operations.append(f"{operation} {os.path.basename(where)}")
        if self.first <= len(self.operations) < self.first + self.times:
            if self.error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                raise OSError(self.error, os.strerror(self.error), str(path))

    def install(self, replace: Callable[[Any, str, Any], None]) -> None:
        """Stand between the program and the system's functions.

        Args:
            replace: `setattr`, or what does the same for a while.
        """
        real_open = builtins.open

        def opened(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if isinstance(path, int) or not set(mode) & set("wax+"):
                return real_open(path, mode, *args, **kwargs)
            self._meet("open", path)
            return _File(real_open(path, mode, *args, **kwargs), lambda: self._meet("write", path))

        replace(builtins, "open", opened)
        for name in ("open", "replace", "unlink", "mkdir"):
            replace(os, name, self._checked(name, getattr(os, name)))
        real_fsync = os.fsync

        def fsync(descriptor: int) -> None:
            self._meet("fsync", f"/proc/self/fd/{descriptor}")
            real_fsync(descriptor)

        replace(os, "fsync", fsync)

    def _checked(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def checked(path: Any, *args: Any, **kwargs: Any) -> Any:
            self._meet(name, path)
            return real(path, *args, **kwargs)

        return checked

    def for_child(self) -> dict[str, str]:
        """The environment of a child process that is to meet the faults."""
        values = (self.folder, self.first, self.times, "" if self.error is None else self.error)
        return {"PYTHONPATH": str(SHIMS), **dict(zip(_KEYS, map(str, values), strict=True))}

    @staticmethod
    def from_environment(environment: Mapping[str, str]) -> Faults:
        """What `for_child` describes."""
        folder, first, times, error = (environment[key] for key in _KEYS)
        return Faults(Path(folder), int(first), float(times), int(error) if error else None)


class _File:
    """An open file whose writes may fail, half of the data written."""

    def __init__(self, file: Any, meet: Callable[[], None]) -> None:
        self._file, self._meet = file, meet

    def write(self, data: Any) -> int:
        half = len(data) // 2
        written = self._file.write(data[:half])
        self._file.flush()
        self._meet()
        return int(written + self._file.write(data[half:]))

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
