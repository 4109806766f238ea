"""Ranges of numbers, each defined once for the command line, the checkpoint's check and the Python API."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """The finite numbers between two limits.

    Attributes:
        least: the lower limit.
        most: the upper limit.
        above: whether the lower limit itself is excluded.
        below: whether the upper limit itself is excluded.
    """

    least: float
    most: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, number: Any) -> bool:
        """Whether a number is finite and within the limits."""
        within: bool = self.least <= number <= self.most and number < math.inf  # false for nan
        return within and not (self.above and number == self.least) and not (self.below and number == self.most)

    def __str__(self) -> str:
        """For messages: `0 or more`, `1 to 100`, `above 0 and at most 1`."""
        if self.most == math.inf:
            return f"above {self.least:,}" if self.above else f"{self.least:,} or more"
        if not (self.above or self.below):
            return f"{self.least:,} to {self.most:,}"
        lower = f"above {self.least:,}" if self.above else f"at least {self.least:,}"
        return f"{lower} and {'below' if self.below else 'at most'} {self.most:,}"
