"""How probable a text is under a network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from charrnn.network.network import Network

CHUNK = 1000  # characters read at a time, to bound the memory


class Scorer:
    """Reads a text from the zero state, in any number of pieces, and computes how probable each character is."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._state = network.zero_state()
        self._last: npt.NDArray[np.integer] = np.zeros(0, np.uint8)  # the last character, which is not read yet

    def score(
        self, ids: npt.NDArray[np.integer], advance: Callable[[int], None] = lambda _: None
    ) -> npt.NDArray[np.float64]:
        """Compute how probable each character of the next piece is, given all before it.

        Args:
            ids: the piece, (N,).
            advance: called from time to time with the number of characters scored since.

        Returns:
            Natural logarithms, (N,); one fewer for the first piece, before whose first character there is nothing.
        """
        ids = np.concatenate([self._last, ids]) if len(self._last) else ids
        found = np.zeros(max(0, len(ids) - 1))
        for start in range(0, len(found), CHUNK):
            end = min(start + CHUNK, len(found))
            found[start:end], self._state = self._network.log_probabilities(ids[start : end + 1], self._state)
            advance(end - start)
        self._last = ids[-1:]
        return found


def score_text(
    network: Network, ids: npt.NDArray[np.integer], before: int, advance: Callable[[int], None] = lambda _: None
) -> npt.NDArray[np.float64]:
    """Compute how probable each character of a text is, given all before it, in one pass from the zero state.

    Args:
        network: the model.
        ids: the text, (N,).
        before: the number of characters at the start that are read but not scored, at least one.
        advance: called after each piece with the number of characters scored.

    Returns:
        Natural logarithms, (N - before,).
    """
    unscored = before - 1

    def count(read: int) -> None:
        nonlocal unscored
        advance(max(0, read - unscored))
        unscored = max(0, unscored - read)

    return Scorer(network).score(ids, count)[before - 1 :]
