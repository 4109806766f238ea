"""The probability of a text of any length: it is read in many streams at once, by a process for each core."""

from __future__ import annotations

import collections
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import numpy.typing as npt

from charrnn import CharrnnError
from charrnn.network.network import Network, log_probabilities, quietly
from charrnn.text.vocabulary import Ids
from charrnn.text.windows import SEQUENTIAL, WARM_UP

BLOCK = 1 << 18  # characters that one process scores at a time
_STREAMS = 64  # side by side in a block: enough for a product to read its kernel from the cache
_STEPS = 128  # at a time, to bound the memory
_THREADS = "OPENBLAS_NUM_THREADS"


@dataclass(frozen=True)
class Rows:
    """Parts of a text, to be read side by side, each from the zero state.

    Attributes:
        ids: (S, W + 1); column 0 is read but never scored.
        scored: (S, W), whether the characters from column 1 on are scored.
    """

    ids: Ids
    scored: npt.NDArray[np.bool_]


def streams(before: Ids, block: Ids) -> Rows:
    """Lay out a block of a text, each stream warmed up on the text before it.

    Args:
        before: the end of the text before the block, at least one id; `WARM_UP` are enough.
        block: the characters to score; at most `SEQUENTIAL` are read in one stream.
    """
    text = np.concatenate([before, block])
    count = 1 if len(block) <= SEQUENTIAL else _STREAMS
    edges = len(before) + np.arange(count + 1) * len(block) // count
    starts = np.maximum(0, edges[:-1] - 1 - WARM_UP)
    return _laid_out(text, starts, edges)


def cold_windows(text: Ids, width: int) -> Rows:
    """Lay out a text in windows of `width` characters, each read from the zero state; the first character has none.

    A last window that is not full is left out, unless it is the only one.
    """
    count = max(1, (len(text) - 1) // width)
    edges = np.minimum(1 + np.arange(count + 1) * width, len(text))
    return _laid_out(text, edges[:-1] - 1, edges)


def _laid_out(text: Ids, starts: npt.NDArray[np.int64], edges: npt.NDArray[np.int64]) -> Rows:
    """Rows that start at `starts`; row n scores the characters from edges[n] to edges[n + 1]."""
    width = int((edges[1:] - starts).max()) - 1
    places = starts[:, None] + np.arange(width + 1)
    scored = (places[:, 1:] >= edges[:-1, None]) & (places[:, 1:] < edges[1:, None])
    return Rows(text[np.minimum(places, len(text) - 1)], scored)


@quietly
def nats(network: Network, rows: Rows) -> npt.NDArray[np.float32]:
    """Minus the natural logarithms of the scored characters' probabilities, row by row."""
    inputs, targets = rows.ids[:, :-1], rows.ids[:, 1:]
    found = np.empty(targets.shape, np.float32)
    state = network.zero_state(len(inputs))
    for start in range(0, inputs.shape[1], _STEPS):
        part = slice(start, start + _STEPS)
        logits, state = network.forward(inputs[:, part], state)
        scores = log_probabilities(logits.reshape(-1, logits.shape[-1]), targets[:, part].reshape(-1))
        found[:, part] = -scores.reshape(len(inputs), -1)
    return found[rows.scored]


def score(network: Network, jobs: Iterable[Rows], cores: int) -> Iterator[npt.NDArray[np.float32]]:
    """Score rows in processes, a few at a time; yield the result of each in its order.

    One small job is scored without a process of its own.
    """
    ready = iter(jobs)
    first = list(islice(ready, 2))
    if cores == 1 or len(first) < 2:
        for rows in chain(first, ready):
            yield nats(network, rows)
        return
    waiting: collections.deque[Future[npt.NDArray[np.float32]]] = collections.deque()
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"  # a process a core is faster than threads within a product
    try:
        with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), _begin, (network,)) as processes:
            try:
                for rows in chain(first, ready):
                    waiting.append(processes.submit(_nats, rows))
                    if len(waiting) > 2 * cores:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            except BrokenProcessPool:
                raise CharrnnError("a process of the evaluation was killed, probably for lack of memory") from None
            finally:
                processes.shutdown(cancel_futures=True)
    finally:
        if before is None:
            del os.environ[_THREADS]
        else:
            os.environ[_THREADS] = before


_network: Network  # of a process


def _begin(network: Network) -> None:
    global _network
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one ends the others
    _network = network


def _nats(rows: Rows) -> npt.NDArray[np.float32]:
    return nats(_network, rows)
