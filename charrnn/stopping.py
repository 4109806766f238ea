"""Being asked to stop: SIGINT (Ctrl-C) and SIGTERM, and when they act."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from charrnn.checkpoint import Progress


class Stopped(BaseException):
    """The user or the system asked the training to stop; what it reached is saved.

    As little an `Exception` as KeyboardInterrupt: no library on its way is to catch it.

    Attributes:
        signal: SIGINT or SIGTERM.
        progress: what is saved, None before anything is.
    """

    def __init__(self, number: int, progress: Progress | None) -> None:
        super().__init__(number)
        self.signal = number
        self.progress = progress


class StopRequest:
    """SIGINT or SIGTERM: the first one is remembered until an update is done, a second one acts at once.

    Until a new run is planned and saved for the first time, the first one acts at once too.

    Attributes:
        signal: the one remembered.
        is_remembered: there is something saved that updates are added to.
    """

    def __init__(self, saved: Progress | None) -> None:
        """Start with what the run has saved before."""
        self.signal: int | None = None
        self.is_remembered = False
        self._saved = saved
        self._raised: Stopped | SystemExit | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._raised is not None and isinstance(error, Exception):
            raise self._raised from None  # TensorFlow made another of it, as it may within a trace

    def _request(self, number: int, _: FrameType | None) -> None:
        is_first, self.signal = self.signal is None, number
        if not (is_first and self.is_remembered):
            self._raised = Stopped(number, self._saved) if is_first else SystemExit(128 + number)
            raise self._raised
