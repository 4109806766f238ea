"""Samples: texts that the model writes side by side until it ends them, a length or a stop text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from charrnn.network.network import Network
from charrnn.ranges import Range
from charrnn.sampling.choice import Choice
from charrnn.sampling.streams import Beginning, Streams, read_beginning
from charrnn.text.vocabulary import Decoder, Ids, Vocabulary

LENGTH, COUNT, SEED = Range(0, 10**12), Range(1, 10**9), Range(0)
DEFAULT_LENGTH = 1000
"""The default if the user sets no length."""
BATCH_SIZE = 64  # samples side by side; more would take more memory without being faster

_Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Request:
    """A request for a sample.

    Attributes:
        prime: ids of the text to continue, (P,).
        length: maximum number of characters (for a `bytes` model, of bytes, plus those that finish the last character).
        choice: how to choose each character.
        stop: ids of the text to end at, (N,). It is not part of the sample, and only the new text is searched for it.
    """

    prime: Ids
    length: int
    choice: Choice
    stop: Ids | None = None


class Sample:
    """One sample in a batch.

    Attributes:
        seed: the seed that reproduces this sample on its own.
        prime: the text that it continues, as the model read it.
        decoder: decodes its text, starting with the prime.
        copied: whether each of its ids is copied, (N,), if the finished sample was compared with a text.
    """

    def __init__(self, batch: _Batch, index: int, seed: int, errors: str) -> None:
        self.seed = seed
        self.decoder = Decoder(batch.vocabulary, errors)
        self.prime = self.decoder.decode(batch.request.prime.tolist())
        self.copied: npt.NDArray[np.bool] | None = None
        self._batch = batch
        self._index = index

    def pieces(self) -> Iterator[str]:
        """The new text, each piece as soon as it is certain. The batch advances as far as necessary."""
        batch, index = self._batch, self._index
        shown = 0
        while True:
            ended = bool(batch.ended[index])
            certain = int(batch.lengths[index])
            if piece := self.decoder.decode(batch.ids[index, shown:certain].tolist(), final=ended):
                yield piece
            if ended:
                return
            shown = certain
            batch.step()

    def finish(self) -> None:
        """Write the sample to its end; its pieces can be read afterwards."""
        while not self._batch.ended[self._index]:
            self._batch.step()

    @property
    def ids(self) -> Ids:
        """The ids that are written and certain, (N,)."""
        return self._batch.ids[self._index, : self._batch.lengths[self._index]]

    @property
    def log_probabilities(self) -> npt.NDArray[np.float64]:
        """The log-probability of each id in the model's own distribution, (N,)."""
        return self._batch.log_probabilities[self._index, : self._batch.lengths[self._index]]

    @property
    def end(self) -> str:
        """What ended the sample: `boundary` (the model ended the text), `stop` or `length`."""
        if self._batch.finished[self._index]:
            return "boundary"
        return "stop" if self._batch.stopped[self._index] else "length"


def write_samples(
    network: Network,
    vocabulary: Vocabulary,
    request: Request,
    seeds: Sequence[int],
    scored: bool = False,
    errors: str = "replace",
    show: Callable[[int, int], None] = lambda *_: None,
) -> Iterator[Sample]:
    """Write samples that continue one prime, each with its own seed, many at a time.

    Args:
        network: the model.
        vocabulary: its character map.
        request: the request that all samples share.
        seeds: one seed for each sample.
        scored: whether to keep the log-probabilities.
        errors: how to treat bytes that are not UTF-8, as in `Decoder`.
        show: called with the number of prime characters read so far and their total.

    Yields:
        Each sample, whose pieces can then be read.
    """
    begun = read_beginning(network, vocabulary, request.prime, show)
    for first in range(0, len(seeds), BATCH_SIZE):
        some = seeds[first : first + BATCH_SIZE]
        batch = _Batch(network, vocabulary, request, begun, some, scored)
        for index, seed in enumerate(some):
            yield Sample(batch, index, seed, errors)


class _Batch:
    """Samples that are written side by side.

    Attributes:
        ids: the ids written so far, (B, at least that many).
        lengths: how many of them certainly belong to each sample, (B,), without a boundary and without a stop text or
            its possible beginning.
        ended, stopped, finished: which samples have ended, which of them at the stop text, and which because the model
            ended the text, (B,).
        log_probabilities: those of the ids, if the samples are scored.
    """

    def __init__(
        self,
        network: Network,
        vocabulary: Vocabulary,
        request: Request,
        begun: Beginning,
        seeds: Sequence[int],
        scored: bool,
    ) -> None:
        self.vocabulary = vocabulary
        self.request = request
        self._streams = Streams(network, vocabulary, begun, request.choice, seeds)
        self._stop = None if request.stop is None else _StopText(request.stop, len(vocabulary))
        self._boundary = vocabulary.boundary if vocabulary.writes_boundary else None
        self._scored = scored
        self._going = np.arange(len(seeds))  # (S,), the samples that have not ended
        self._matched = np.zeros(len(seeds), np.intp)  # (S,), how much of the stop text each of them ends with
        self._written = 0
        self.ids = np.zeros((len(seeds), 0), vocabulary.dtype)
        self.log_probabilities = np.zeros((len(seeds), 0))
        self.lengths = np.zeros(len(seeds), np.intp)
        self.ended = np.full(len(seeds), request.length == 0)
        self.stopped = np.zeros(len(seeds), np.bool)
        self.finished = np.zeros(len(seeds), np.bool)

    def step(self) -> None:
        """Write one more character for every sample that has not ended."""
        if self._written == self.ids.shape[1]:
            self._make_room()
        ids = self._streams.step()
        going = self._going
        rows = going if len(going) < len(self.ids) else slice(None)  # a slice is faster
        self.ids[rows, self._written] = ids
        if self._scored:
            self.log_probabilities[rows, self._written] = self._streams.log_probabilities()
        self._written += 1
        self.lengths[rows] = self._written
        if self._boundary is None and self._stop is None and self._written < self.request.length:
            return
        ended = np.zeros(len(going), np.bool) if self._boundary is None else ids == self._boundary
        self.finished[going] = ended
        self.lengths[going] -= ended
        if self._written >= self.request.length:
            ended = ended | np.array([not self._within_character(index) for index in going.tolist()])
        if self._stop is not None:
            self._matched = self._stop.advance(self._matched, ids)
            stopped = self._matched == self._stop.length
            self.lengths[going] -= np.where(ended & ~stopped, 0, self._matched)
            self.stopped[going] = stopped
            ended |= stopped
        if ended.any():
            self.ended[going] = ended
            self._going, self._matched = going[~ended], self._matched[~ended]
            self._streams.keep(~ended)

    def _within_character(self, index: int) -> bool:
        """Whether a sample from a `bytes` model must continue to finish a UTF-8 character, which has up to 4 bytes."""
        if self.vocabulary.kind != "bytes" or self._written >= self.request.length + 3:
            return False
        decoder = Decoder(self.vocabulary)
        last = self.ids[index, max(0, self._written - 3) : self._written]
        decoder.decode([*self.request.prime[-3:].tolist(), *last.tolist()])
        return decoder.waits

    def _make_room(self) -> None:
        more = np.zeros((len(self.ids), min(max(self._written, 256), self.request.length + 3)), self.ids.dtype)
        self.ids = np.concatenate([self.ids, more], axis=1)
        if self._scored:
            self.log_probabilities = np.concatenate([self.log_probabilities, more.astype(np.float64)], axis=1)


class _StopText:
    """Finds a text in many streams at once, one character at a time (Knuth, Morris and Pratt, 1977)."""

    def __init__(self, stop: Ids, vocabulary_size: int) -> None:
        """Tabulate the matched length after each character, given the matched length before it."""
        self.length = len(stop)
        symbols, places = np.unique(stop, return_inverse=True)
        self._column = np.full(vocabulary_size, len(symbols))  # all characters outside the text share one column
        self._column[symbols] = np.arange(len(symbols))
        self._next = np.zeros((len(stop), len(symbols) + 1), np.intp)
        shorter = 0  # the matched length if the text had begun one character later
        for matched, column in enumerate(places):
            self._next[matched] = self._next[shorter]
            self._next[matched, column] = matched + 1
            if matched > 0:
                shorter = self._next[shorter, column]

    def advance(self, matched: _Places, ids: npt.NDArray[np.integer]) -> _Places:
        """How much of the text each stream ends with after its next character: (S,) from (S,) and (S,)."""
        return np.asarray(self._next[matched, self._column[ids]])
