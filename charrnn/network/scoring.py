"""How probable a text is under a network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from charrnn.network.network import Network

CHUNK = 1000  # characters read at a time, to bound the memory


def log_probabilities(
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
    state = network.zero_state()
    found = np.zeros(len(ids) - 1)
    for start in range(0, len(found), CHUNK):
        end = min(start + CHUNK, len(found))
        found[start:end], state = network.log_probabilities(ids[start : end + 1], state)
        advance(max(0, end + 1 - before) - max(0, start + 1 - before))
    return found[before - 1 :]
