"""Logits -> next character -> a stream of text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from charrnn import CharrnnError
from charrnn.data import plain_text, read_bytes
from charrnn.messages import plural, show
from charrnn.network import Network
from charrnn.vocabulary import Ids, Note, Vocabulary


@dataclass(frozen=True)
class Choice:
    """How the next character is chosen from the model's distribution.

    The four apply in this order; the last three each take characters away from what the one before left.

    Attributes:
        temperature: logits are divided by it (Ackley, Hinton and Sejnowski, 1985, "A Learning Algorithm
            for Boltzmann Machines"); 0 takes the most probable character always.
        top_k: only the k most probable characters (Fan, Lewis and Dauphin, 2018, arXiv:1805.04833).
        top_p: only the fewest most probable characters that together have at least this probability
            (nucleus sampling: Holtzman et al., 2020, arXiv:1904.09751).
        min_p: only characters at least this many times as probable as the most probable one (Nguyen et
            al., 2024, "Turning Up the Heat: Min-p Sampling", arXiv:2407.01082).

    Raises:
        CharrnnError: a value out of its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        for name, within, allowed in (
            ("temperature", 0 <= self.temperature < math.inf, "0 or more"),
            ("top_k", self.top_k is None or self.top_k >= 1, "1 or more"),
            ("top_p", self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", self.min_p is None or 0 <= self.min_p <= 1, "0 to 1"),
        ):
            if not within:
                raise CharrnnError(f"{name} is {getattr(self, name)!r}, not {allowed}", exit_code=2)

    def distribution(self, logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Probabilities of the next character, (..., V), from its logits, (..., V); -inf stays impossible.

        Of equally probable characters at the edge of top_k or top_p, those with lower ids stay.
        """
        weights = self.weights(logits.astype(np.float64))
        weights /= weights.sum(axis=-1, keepdims=True)
        return weights

    def weights(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The distribution before it is normalised: the most probable character has 1.

        Args:
            scores: logits, (..., V); overwritten with the result.
        """
        if self.temperature < 1e-9:  # smaller ones overflow, and differ from 0 in nothing else
            best = scores.argmax(axis=-1)
            scores[...] = 0
            np.put_along_axis(scores, best[..., None], 1, axis=-1)
            return scores
        scores -= scores.max(axis=-1, keepdims=True)
        scores /= self.temperature
        weights = np.exp(scores, out=scores)
        if self.top_k is not None or self.top_p is not None:
            self._keep_likeliest(weights)
        if self.min_p is not None:
            weights[weights < self.min_p] = 0
        return weights

    def _keep_likeliest(self, weights: npt.NDArray[np.float64]) -> None:
        """Make all weights, (..., V), zero but those that top_k and then top_p keep."""
        rows = weights.reshape(-1, weights.shape[-1])
        falling = np.sort(rows)[:, : -1 - (self.top_k or rows.shape[1]) : -1]
        last = np.full(len(rows), falling.shape[1] - 1)  # that is kept, of each row
        if self.top_p is not None:
            cumulative = np.add.accumulate(falling, axis=1)
            last = (cumulative >= self.top_p * cumulative[:, -1:]).argmax(axis=1)
        edge = falling[np.arange(len(rows)), last][:, None]
        keep = rows >= edge
        if np.count_nonzero(keep) > last.sum() + len(rows):
            room = last[:, None] + 1 - (rows > edge).sum(axis=1, keepdims=True)
            keep &= (rows > edge) | (np.cumsum(rows == edge, axis=1) <= room)
        rows *= keep


# Characters of a long prime that are read at once: what keeps its memory bounded.
_READ_CHUNK = 1000


def generate(
    network: Network, vocabulary: Vocabulary, prime: Ids, length: int, choice: Choice, seed: int
) -> Iterator[int]:
    """Feed predictions back autoregressively.

    Args:
        network: the model.
        vocabulary: its character map; the unknown symbol is never chosen.
        prime: the ids to start from, (P,); if none, the text starts as after a newline.
        length: how many ids to give.
        choice: how each is chosen.
        seed: of the random draws; the same seed on the same machine gives the same ids.

    Yields:
        Each new id.
    """
    random = np.random.default_rng(seed).random
    if not len(prime):
        newline = vocabulary.id_of("\n")
        prime = np.array([newline if newline is not None else 0], vocabulary.dtype)
    state = network.zero_state()
    for start in range(0, len(prime), _READ_CHUNK):
        logits, state = network.forward(prime[None, start : start + _READ_CHUNK], state)
    ids = np.empty((1, 1), np.int64)
    for remaining in range(length, 0, -1):
        scores = logits[0, -1]
        if vocabulary.unknown is not None:
            scores[vocabulary.unknown] = -np.inf
        cumulative = np.cumsum(choice.distribution(scores))
        id = int(np.searchsorted(cumulative, random() * cumulative[-1], side="right"))
        yield id
        if remaining > 1:
            ids[0, 0] = id
            logits, state = network.forward(ids, state)


def text_stream(vocabulary: Vocabulary, prime: Ids, new: Iterable[int]) -> Iterator[str]:
    """The text of a prime and then of its continuation, a piece an id, as it becomes complete."""
    return vocabulary.decode(chain(map(int, prime), new))


def read_prime(file: str, vocabulary: Vocabulary) -> str:
    """The text to continue from a file, or from standard input if it is `-`.

    Raises:
        CharrnnError: it cannot be read, or is not UTF-8 where the model reads text.
    """
    [(name, data)] = read_bytes([file])
    try:
        return data.decode("utf-8", "surrogateescape" if vocabulary.kind == "bytes" else "strict")
    except UnicodeDecodeError as error:
        raise CharrnnError(
            f"{name}: byte 0x{data[error.start]:02x} at offset {error.start:,} is not valid UTF-8, "
            "which a prime is read as"
        ) from None


def encode_prime(vocabulary: Vocabulary, prime: str, unknown: str | None, note: Note) -> Ids:
    """Turn a prime into ids, as the training text was turned.

    Args:
        vocabulary: the model's character map.
        prime: any text.
        unknown: for characters the model does not know: `skip` leaves them out, `replace` puts the
            nearest known text in their place, or else the unknown symbol; None refuses them.
        note: told, a line each, what was changed.

    Returns:
        Its ids, (P,).

    Raises:
        CharrnnError: characters that the model does not know.
    """
    if vocabulary.kind == "bytes":
        return np.frombuffer(prime.encode("utf-8", "surrogateescape"), np.uint8)
    notes: list[str] = []
    text = vocabulary.normalise(plain_text("prime", prime, notes.append), lambda line: notes.append(f"prime: {line}"))
    strangers = dict.fromkeys(c for c in text if c not in vocabulary)
    nearest = {c: vocabulary.nearest(c) for c in strangers}
    if strangers and unknown is None:
        raise CharrnnError(
            "the model does not know "
            + ", ".join(
                f"{show(c)!r} at position {prime.index(c) + 1}" + (f" (nearest: {nearest[c]!r})" if nearest[c] else "")
                for c in strangers
            )
            + " of the prime; change the prime, or use --unknown skip or --unknown replace",
            exit_code=2,
        )
    instead = "\ufffd" if vocabulary.unknown is not None else ""
    pieces = {c: "" if unknown == "skip" else nearest[c] or instead for c in strangers}
    if strangers:
        notes.append(
            f"prime: {plural(sum(text.count(c) for c in strangers), 'character')} unknown to the model: "
            + ", ".join(f"{show(c)!r} " + (f"became {pieces[c]!r}" if pieces[c] else "left out") for c in strangers)
        )
    for line in notes:
        note(line)
    return vocabulary.encode("".join(pieces.get(c, c) for c in text))
