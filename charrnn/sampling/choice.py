"""From logits to a distribution: temperature, top-k, top-p, min-p."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from charrnn import CharrnnError
from charrnn.ranges import Range

RANGES = {
    "temperature": Range(0),
    "top_k": Range(1),
    "top_p": Range(0, 1, above=True),
    "min_p": Range(0, 1),
}
"""The allowed numbers in `Choice`."""
DEFAULT_TEMPERATURE = 0.8
"""The default if the user sets no temperature."""


@dataclass(frozen=True)
class Choice:
    """How to choose the next character from the model's distribution.

    The four rules apply in this order. Each of the last three removes characters that the previous rule left.

    Attributes:
        temperature: divides the logits (Ackley, Hinton and Sejnowski, 1985, "A Learning Algorithm
            for Boltzmann Machines"); 0 always takes the most probable character.
        top_k: keeps only the k most probable characters (Fan, Lewis and Dauphin, 2018, arXiv:1805.04833).
        top_p: keeps only the smallest set of most probable characters that together have at least this
            probability (nucleus sampling: Holtzman et al., 2020, arXiv:1904.09751).
        min_p: keeps only characters at least this many times as probable as the most probable one (Nguyen
            et al., 2024, "Turning Up the Heat: Min-p Sampling", arXiv:2407.01082).

    Raises:
        CharrnnError: a value is out of its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        for name, allowed in RANGES.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise CharrnnError(f"{name} is {value!r}, not {allowed}", exit_code=2)

    @property
    def narrowing(self) -> list[str]:
        """The names of the fields that remove characters."""
        return [name for name in RANGES if name != "temperature" and getattr(self, name) is not None]

    def weights(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The unnormalised distribution of the next character, in which the most probable character has weight 1.

        If several characters at the edge of top_k or top_p are equally probable, those with the lowest ids stay.

        Args:
            scores: logits, (..., V); -inf marks an impossible character. The result overwrites them.
        """
        if self.temperature < 1e-9:  # smaller temperatures overflow and otherwise behave like 0
            best = scores.argmax(axis=-1)
            scores[...] = 0
            np.put_along_axis(scores, best[..., None], 1, axis=-1)
            return scores
        scores -= np.maximum.reduce(scores, axis=-1, keepdims=True)
        scores /= self.temperature
        weights = np.exp(scores, scores)
        if self.top_k is not None or self.top_p is not None:
            self._keep_likeliest(weights)
        if self.min_p is not None:
            weights[weights < self.min_p] = 0
        return weights

    def _keep_likeliest(self, weights: npt.NDArray[np.float64]) -> None:
        """Set all weights, (..., V), to zero except those that top_k and then top_p keep."""
        rows = weights.reshape(-1, weights.shape[-1])
        falling = np.sort(rows)[:, : -1 - (self.top_k or rows.shape[1]) : -1]
        if self.top_p is None:
            kept, edge, total = falling.shape[1], falling[:, -1:], falling.size
        else:
            cumulative = np.add.accumulate(falling, axis=1)
            last = (cumulative >= self.top_p * cumulative[:, -1:]).argmax(axis=1)
            kept, edge = last[:, None] + 1, falling[np.arange(len(rows)), last][:, None]
            total = kept.sum()
        keep = rows >= edge
        if np.count_nonzero(keep) > total:  # several tie with the last one kept, and only some of them stay
            room = kept - (rows > edge).sum(axis=1, keepdims=True)
            keep &= (rows > edge) | (np.cumsum(rows == edge, axis=1) <= room)
        rows *= keep
