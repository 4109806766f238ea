"""The clock of a race to a low loss."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

FIRST = 1.0  # seconds of training before the first validation
SPACING = 1.1  # times as many before each after it


class Clock:
    """Counts seconds of training, stands still during validations, and prints each as a line of JSON."""

    def __init__(self, validate: Callable[[], float], limit: float | None = None) -> None:
        """Start it.

        Args:
            validate: gives the validation loss, nats per character.
            limit: seconds; None where the number of updates is decided by their speed.
        """
        self.validate, self.limit = validate, limit
        self.steps, self.due = 0, FIRST
        self._counted, self._since = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Counted so far."""
        return self._counted + time.perf_counter() - self._since

    def tick(self, last: bool = False) -> bool:
        """Count an update that was made, and validate if it is time.

        Args:
            last: it was the last that is to be made.

        Returns:
            Whether there is time for another.
        """
        self.steps += 1
        is_over = last or (self.limit is not None and self.seconds >= self.limit)
        if is_over or self.seconds >= self.due:
            self.report()
        return not is_over

    def report(self) -> None:
        """Validate now."""
        self._counted = self.seconds
        print(json.dumps({"seconds": self._counted, "step": self.steps, "loss": self.validate()}), flush=True)
        self.due = max(FIRST, self._counted * SPACING)
        self._since = time.perf_counter()
