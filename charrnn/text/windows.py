"""From ids to batches: sliding windows for training, parallel streams for validation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from charrnn.text.store import StoredIds
from charrnn.text.vocabulary import Ids

SEQUENTIAL = 20_000  # characters: a validation part up to this size gets its final loss in one pass, not in streams
WARM_UP = 256  # characters read before the first one that is scored


def steps_per_epoch(characters: int, batch_size: int, seq_length: int) -> int:
    """The number of batches in one pass over `characters` training characters."""
    return characters // (batch_size * seq_length)


def windows(
    ids: Ids | StoredIds,
    characters: int,
    batch_size: int,
    seq_length: int,
    seed: int,
    epoch: int,
    first: int = 0,
    streams: range | None = None,
) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
    """Slide windows along `batch_size` contiguous streams of the text.

    Window t of stream b follows window t - 1 of stream b, so that state can be carried over. Each epoch
    starts its streams at another offset, which depends only on (seed, epoch). The text is treated as a
    ring, so that training uses every character equally often.

    Args:
        ids: the text.
        characters: the number of characters at its start to train on.
        batch_size: B, the number of streams.
        seq_length: T, the characters in a window.
        seed: the run's seed.
        epoch: counted from 0.
        first: the first window to yield, to resume in the middle of an epoch.
        streams: those to read, if not all.

    Yields:
        Inputs and targets, each (B, T), or as many rows as there are streams to read; the targets are the inputs
        shifted by one character.
    """
    # SeedSequence is stable across NumPy versions; the generators' methods are not.
    streams = range(batch_size) if streams is None else streams
    offset = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] % characters)
    starts = [offset + stream * (characters // batch_size) for stream in streams]
    block = np.empty((len(starts), seq_length + 1), np.int32)
    for window in range(first, steps_per_epoch(characters, batch_size, seq_length)):
        for row, start in zip(block, starts, strict=True):
            _read_ring(ids, characters, (start + window * seq_length) % characters, row)
        yield block[:, :-1].copy(), block[:, 1:].copy()


def _read_ring(ids: Ids | StoredIds, characters: int, start: int, row: npt.NDArray[np.int32]) -> None:
    """Fill a row with the characters from `start` on; those at the start of the text follow those at the end."""
    done = 0
    while done < len(row):
        some = ids[start : min(start + len(row) - done, characters)]
        row[done : done + len(some)] = some
        done, start = done + len(some), 0


def validation_streams(
    ids: Ids | StoredIds, start: int, seq_length: int, limit: int = 50_000, streams: int = 32
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Lay the validation part out in parallel streams, each warmed up on the text before it.

    Args:
        ids: the whole text.
        start: where the validation part starts.
        seq_length: the result's width is rounded up to a multiple of this.
        limit: the maximum number of characters to score; from a larger part, a fixed sample, spread evenly.
        streams: S, the maximum number of streams.

    Returns:
        Inputs, targets and weights, each (S, W): the weight of a scored target is 1.
    """
    part = len(ids) - start
    limit = min(limit, part)
    warm_up = min(WARM_UP, start - 1)
    streams = max(1, min(streams, part // max(1, warm_up)))
    edges = start + np.arange(streams + 1) * part // streams
    scored = np.minimum(np.diff(edges), np.diff(np.arange(streams + 1) * limit // streams))
    width = -(-int(warm_up + scored.max()) // seq_length) * seq_length
    position = (edges[:-1] - warm_up)[:, None] + np.arange(width)  # of each target, (S, W)
    scoring = (position >= edges[:-1, None]) & (position < (edges[:-1] + scored)[:, None])
    rows = np.empty((streams, width + 1), np.int32)
    for row, first in zip(rows, position[:, 0].tolist(), strict=True):
        some = ids[first - 1 : first + width]
        row[: len(some)], row[len(some) :] = some, some[-1]
    return rows[:, :-1].copy(), rows[:, 1:].copy(), scoring.astype(np.float32)
