"""Files that are replaced whole, and files that are safe to open."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def write_atomically(path: Path, data: bytes) -> bool:
    """Replace a file so that whoever reads it sees the old or the new content, never a part.

    Returns:
        Whether the file system has synced it, so that it outlasts a power cut; some file systems cannot.

    Raises:
        OSError: it could not be written; the old content is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(
            missing_ok=True
        )  # a killed process may have left it, or somebody a link, which is not followed
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            is_synced = _sync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # what made it fail is the error; `Run.prepare` clears away what is left
            temporary.unlink()
        raise
    sync_folder(path.parent)
    return is_synced


def _sync(descriptor: int) -> bool:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Make what was made, renamed or removed in a folder outlast a power cut, where that can be done."""
    # Windows cannot open a folder, some network file systems not sync it.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; a FIFO or a device is refused, and neither waited for nor touched.

    Raises:
        OSError: there is none, it cannot be opened, or it is not a regular file.
    """

    def check(status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "Is a directory" if stat.S_ISDIR(status.st_mode) else "Not a regular file")

    check(os.stat(path))  # opening a device or a FIFO would be felt at its other end
    # O_NONBLOCK: a FIFO that took the file's place meanwhile is not waited for.
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    try:
        check(os.fstat(file.fileno()))
    except OSError:
        file.close()
        raise
    return file
