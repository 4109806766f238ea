"""Being asked to stop: SIGINT (Ctrl-C) and SIGTERM, and when they act."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from charrnn.messages import one_line
from charrnn.runs.records import Progress


class Stopped(BaseException):
    """The user or the system asked the training to stop; what it reached is saved.

    As little an `Exception` as KeyboardInterrupt: no library on its way is to catch it.

    Attributes:
        signal: SIGINT or SIGTERM.
        progress: what is saved.
    """

    def __init__(self, number: int, progress: Progress) -> None:
        super().__init__(number)
        self.signal = number
        self.progress = progress


class StopRequest:
    """SIGINT or SIGTERM: the first one is remembered until an update is done, a second one acts at once.

    Until a new run is planned and saved for the first time, the first one acts at once too. To act at once is to leave
    the process from within the signal's handler: an exception that passes through TensorFlow can crash it.

    Attributes:
        signal: the one remembered.
        is_remembered: there is something saved that updates are added to.
    """

    def __init__(self, message: str, clean_up: Callable[[], None]) -> None:
        """Get ready.

        Args:
            message: what to say if the first one acts at once.
            clean_up: called before the process is left; it waits for no lock.
        """
        self.signal: int | None = None
        self.is_remembered = False
        self._message = message
        self._clean_up = clean_up
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, _: FrameType | None) -> None:
        is_first, self.signal = self.signal is None, number
        if not (is_first and self.is_remembered):
            self._leave(number, self._message if is_first else None)

    def _leave(self, number: int, message: str | None) -> NoReturn:
        self._clean_up()
        if message is not None:
            encoding = getattr(sys.stderr, "encoding", "utf-8")
            with contextlib.suppress(OSError):  # not print: what was interrupted may be writing to the same stream
                os.write(2, f"{one_line(message)}\n".encode(encoding, "backslashreplace"))
        os._exit(128 + number)
