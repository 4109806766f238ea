"""Logits -> next character -> streams of characters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import numpy.typing as npt

from charrnn.network.network import Network, State, log_probabilities, quietly
from charrnn.network.scoring import CHUNK
from charrnn.sampling.choice import Choice
from charrnn.text.vocabulary import Ids, Vocabulary

_DRAWN_AHEAD = 64  # random numbers to draw at once for each stream


@dataclass(frozen=True)
class Beginning:
    """The state of a network that has read the prime.

    Attributes:
        logits: the logits of the next character, (1, V).
        state: the network's state after the last character.
    """

    logits: npt.NDArray[np.float32]
    state: State


@quietly
def read_beginning(
    network: Network, vocabulary: Vocabulary, prime: Ids, show: Callable[[int, int], None] = lambda *_: None
) -> Beginning:
    """Read a prime from the zero state.

    Args:
        network: the model.
        vocabulary: its character map.
        prime: the ids to start from, (P,); if empty, see `beginning`.
        show: called with the number of characters read so far and their total.
    """
    prime = beginning(vocabulary, prime)
    state = network.zero_state()
    for start in range(0, len(prime), CHUNK):
        show(start, len(prime))
        logits, state = network.forward(prime[None, start : start + CHUNK], state)
    show(len(prime), len(prime))
    return Beginning(logits[:, -1], state)


class Streams:
    """Continuations of one prime, written side by side, each with its own random numbers.

    The text from a seed does not depend on the other streams, except through rounding: a matrix product with
    several rows adds its terms in a different order from a product with one row.

    Attributes:
        logits: the logits from which the last character was chosen, (S, V).
    """

    @quietly
    def __init__(
        self, network: Network, vocabulary: Vocabulary, begun: Beginning, choice: Choice, seeds: Sequence[int]
    ) -> None:
        """Begin the streams.

        Args:
            network: the model.
            vocabulary: its character map; only characters that it may write are chosen.
            begun: the beginning that all streams continue.
            choice: how to choose each character.
            seeds: one for each stream; on the same machine, the same seeds give the same ids.
        """
        self._network = network
        self._choice = choice
        self._possible = np.where(vocabulary.writable, 0.0, -np.inf)  # added to the logits
        self.logits = begun.logits.repeat(len(seeds), axis=0)
        state = [tuple(part.repeat(len(seeds), axis=0) for part in layer) for layer in begun.state]
        self._reader = network.start(state)
        self._random = [np.random.default_rng(seed) for seed in seeds]
        self._uniform = np.empty((len(seeds), 0))
        self._drawn = 0  # used columns of _uniform
        self._ids: npt.NDArray[np.intp] | None = None  # chosen last, but not read yet

    @quietly
    def step(self) -> npt.NDArray[np.intp]:
        """Choose the next character of every stream: ids, (S,)."""
        if self._ids is not None:
            self.logits = self._reader.read(self._ids)
        scores = np.add(self.logits, self._possible, order="C")
        if self._drawn == self._uniform.shape[1]:
            self._uniform = np.array([random.random(_DRAWN_AHEAD) for random in self._random])
            self._drawn = 0
        uniform = self._uniform[:, self._drawn]
        self._drawn += 1
        if len(scores) == 1:  # same result for one stream, in half the time
            cumulative = np.add.accumulate(self._choice.weights(scores[0]))
            self._ids = cumulative.searchsorted(uniform * cumulative[-1:], "right")
        else:
            cumulative = np.add.accumulate(self._choice.weights(scores), axis=1)
            self._ids = (cumulative > (uniform * cumulative[:, -1])[:, None]).argmax(axis=1)
        return self._ids

    @quietly
    def log_probabilities(self) -> npt.NDArray[np.float64]:
        """The log-probabilities of the characters chosen last, (S,).

        They come from the model's own distribution, at temperature 1 and over all characters.
        """
        assert self._ids is not None
        return log_probabilities(self.logits, self._ids)

    def keep(self, which: npt.NDArray[np.bool]) -> None:
        """Continue only the streams for which the mask, (S,), is true."""
        self.logits = self.logits[which]
        self._ids = None if self._ids is None else self._ids[which]
        self._reader = self._network.start([tuple(part[which] for part in layer) for layer in self._reader.state()])
        self._uniform = self._uniform[which]
        self._random = [random for random, kept in zip(self._random, which, strict=True) if kept]


def beginning(vocabulary: Vocabulary, prime: Ids) -> Ids:
    """The ids that the network reads before the first new character.

    They are the prime or, if it is empty, the end of a line and the boundary of a model that learned from several
    texts, or else a blank line. The boundary, or else the first known character, stands for a newline that the model
    has never read.

    After one symbol alone, a sample begins in the middle of a sentence: most windows in which training started from
    the zero state do.
    """
    if len(prime):
        return prime
    known = vocabulary.known_characters or vocabulary.characters
    first = vocabulary.id_of("\n" if "\n" in known else known[0])
    end = vocabulary.boundary if vocabulary.writes_boundary else first
    return np.array([first if "\n" in known else end, end], vocabulary.dtype)


def generate(
    network: Network,
    vocabulary: Vocabulary,
    prime: Ids,
    length: int,
    choice: Choice,
    seed: int,
    show: Callable[[int, int], None] = lambda *_: None,
) -> Iterator[int]:
    """Feed predictions back autoregressively, in a single stream of `Streams` after `read_beginning`.

    Returns:
        An iterator over `length` new ids, or fewer if the model ends the text. The prime is read first.
    """
    streams = Streams(network, vocabulary, read_beginning(network, vocabulary, prime, show), choice, [seed])
    ids = (int(streams.step()[0]) for _ in range(length))
    return takewhile(lambda id: id != vocabulary.boundary, ids)
