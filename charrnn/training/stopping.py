"""Requests to stop, SIGINT (Ctrl-C), SIGTERM and SIGHUP (its terminal is closed), and when they take effect."""

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
from charrnn.surroundings import HANG_UP, stop_signals


class Stopped(BaseException):
    """The user or the system asked the training to stop; its state is saved.

    Like KeyboardInterrupt, this is not an `Exception`, so that no library catches it on its way.

    Attributes:
        signal: its number.
        progress: the saved progress.
    """

    def __init__(self, number: int, progress: Progress) -> None:
        super().__init__(number)
        self.signal = number
        self.progress = progress


class StopRequest:
    """One of `stop_signals`: the first one takes effect after the current update, a second one at once.

    Before a new run is planned and saved for the first time, the first one takes effect at once too. It then ends the
    process from within the signal handler, because an exception that passes through TensorFlow can crash it.

    Attributes:
        signal: the signal that waits for the update; None before the first one.
        is_remembered: whether the first signal waits for the update, since there is a saved run.
    """

    def __init__(self, message: str, clean_up: Callable[[], None]) -> None:
        """Prepare for signals.

        Args:
            message: printed if the first signal takes effect at once.
            clean_up: called before the process exits; it must not wait for a lock.
        """
        self.signal: int | None = None
        self.is_remembered = False
        self._message = message
        self._clean_up = clean_up
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in stop_signals():
            self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None and number == HANG_UP:
            return  # a terminal that is closed sends several
        is_first, self.signal = self.signal is None, number
        if not (is_first and self.is_remembered):
            self._leave(number, self._message if is_first else None)

    def _leave(self, number: int, message: str | None) -> NoReturn:
        self._clean_up()
        if message is not None:
            encoding = getattr(sys.stderr, "encoding", "utf-8")
            with contextlib.suppress(OSError):  # not print: the interrupted code may be writing to the same stream
                os.write(2, f"{one_line(message)}\n".encode(encoding, "backslashreplace"))
        os._exit(128 + number)
