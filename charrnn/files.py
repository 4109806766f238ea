"""Writing files atomically, opening only regular files, and locking files."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO

from charrnn import CharrnnError

_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_NO_ROOM = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", None)}  # Windows has no EDQUOT


class NotWrittenError(CharrnnError):
    """A file could not be written; its old content is unchanged.

    Attributes:
        is_full: whether the disk is full, or the user's share of it.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{path}: cannot be written: {error.strerror or error}")
        self.is_full = error.errno in _NO_ROOM


def write_atomically(path: Path, *pieces: bytes | memoryview) -> bool:
    """Replace a file atomically: a reader sees the old or the new content, never part of one.

    Args:
        path: the file.
        pieces: its new content.

    Returns:
        Whether the file system has synced the file, so that it survives a power cut; some file systems cannot.

    Raises:
        NotWrittenError: the file could not be written; its old content is unchanged.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        # A killed process may have left this file, or somebody a link, which must not be followed.
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            is_synced = sync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # report the first error; `Run.prepare` removes what is left
            temporary.unlink()
        if isinstance(error, OSError):
            raise NotWrittenError(path, error) from None
        raise
    sync_folder(path.parent)
    return is_synced


def sync(descriptor: int) -> bool:
    """Make an open file's content survive a power cut; return whether the file system can."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Make changes in a folder (files made, renamed or removed) survive a power cut, if the file system can."""
    # Windows cannot open a folder, and some network file systems cannot sync one.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; reject a FIFO or a device without waiting for it or touching it.

    Raises:
        OSError: the file does not exist, cannot be opened, or is not a regular file.
    """

    def check(status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "Is a directory" if stat.S_ISDIR(status.st_mode) else "Not a regular file")

    check(os.stat(path))  # before opening, which the other end of a device or a FIFO would notice
    # O_NONBLOCK: do not wait for a FIFO that has taken the file's place since the check.
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    try:
        check(os.fstat(file.fileno()))
    except OSError:
        file.close()
        raise
    return file


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock of a file, as far as the file system can tell."""
    try:
        with open(path, "rb") as file:
            if sys.platform == "win32":
                return not try_lock(file)
            import fcntl

            # A shared lock: others may look at the same time, and NFS lets a file be locked that is only read.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def try_lock(file: BinaryIO) -> bool:
    """Lock an open file for this process, unless another process holds it or has just removed it.

    Raises:
        OSError: the file system has no locks.
    """
    if sys.platform == "win32":
        import msvcrt

        file.seek(1000)  # behind the process id, which other processes can then still read
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
