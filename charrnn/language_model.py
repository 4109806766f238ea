"""A trained model as a Python object: text from it, and how probable it finds a text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from charrnn import CharrnnError
from charrnn.messages import ignore_note
from charrnn.network.network import Network
from charrnn.network.scoring import log_probabilities
from charrnn.runs import checkpoint
from charrnn.runs.folder import DEFAULT_FOLDER, FOLDER_VARIABLE, find_checkpoint
from charrnn.runs.records import Checkpoint
from charrnn.sampling.choice import TEMPERATURE, Choice
from charrnn.sampling.samples import LENGTH, LENGTH_ASKED, SEED, Request, write_samples
from charrnn.sampling.streams import beginning
from charrnn.text.typed import UNKNOWN, encode_known, encode_prime, encode_stop, normalised
from charrnn.text.vocabulary import Ids


@dataclass(frozen=True)
class Score:
    """How probable a model finds a text.

    Attributes:
        text: as the model read it: line endings and typography may have changed.
        nats: minus the natural logarithm of the probability of each of its characters, given all before it, (N,);
            of a `bytes` model, of each byte.
    """

    text: str
    nats: npt.NDArray[np.float64]

    @property
    def log_probability(self) -> float:
        """The natural logarithm of the probability of the whole text."""
        return -float(self.nats.sum())

    @property
    def nats_per_character(self) -> float:
        """The mean of `nats`: the loss that training reports, for this text; nan if it is empty."""
        return float(self.nats.mean()) if len(self.nats) else float("nan")


class LanguageModel:
    """A trained model.

    Attributes:
        vocabulary: the characters it knows.
        network: the network that gives each next character a probability.
    """

    def __init__(self, trained: Checkpoint) -> None:
        self.vocabulary = trained.vocabulary
        self.network = Network(trained.config, trained.weights)

    @classmethod
    def load(cls, where: str | os.PathLike[str] | None = None) -> LanguageModel:
        """See `charrnn.load`."""
        name = None if where is None else os.fspath(where)
        return cls(checkpoint.load(find_checkpoint(name, os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)))

    def generate(
        self,
        prime: str = "",
        *,
        length: int = LENGTH_ASKED,
        temperature: float = TEMPERATURE,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int | None = None,
        stop: str | None = None,
        unknown: str | None = None,
    ) -> Iterator[str]:
        """Continue a text, as `charrnn sample` does with the same options.

        Args:
            prime: the text to continue; "" starts as after a newline.
            length: how many characters at most (of a `bytes` model, bytes).
            temperature: below 1 plays safer, above 1 wilder; 0 always takes the likeliest character.
            top_k: choose among the k likeliest characters only.
            top_p: choose among the likeliest that together have this probability only.
            min_p: choose among those at least this many times as likely as the likeliest only.
            seed: the same seed gives the same text; None draws a fresh one.
            stop: end before this text.
            unknown: `skip` or `replace` characters of the prime that the model does not know; None refuses them.

        Returns:
            The new text, without the prime, in pieces as they are written.

        Raises:
            CharrnnError: a value out of its range, or characters that the model does not know.
        """
        for name, value, within, allowed in (
            ("length", length, length in LENGTH, LENGTH),
            ("seed", seed, seed is None or seed in SEED, SEED),
            ("unknown", unknown, unknown in (None, *UNKNOWN), " or ".join(map(repr, UNKNOWN))),
        ):
            if not within:
                raise CharrnnError(f"{name} is {value!r}, not {allowed}", exit_code=2)
        request = Request(
            encode_prime(
                self.vocabulary, prime, unknown, ignore_note, 'change it, or give unknown="skip" or "replace"'
            ),
            length,
            Choice(temperature, top_k, top_p, min_p),
            None if stop is None else encode_stop(self.vocabulary, stop, ignore_note),
        )
        if seed is None:
            seed = int.from_bytes(os.urandom(4), "little")
        [sample] = write_samples(self.network, self.vocabulary, request, [seed])
        return sample.pieces()

    def score(self, text: str, prime: str = "") -> Score:
        """How probable the model finds each character of a text.

        It reads the prime from the zero state, and then every character of the text is scored, the first one
        included: the probability that `generate(prime)` would have written this text at temperature 1.

        Args:
            text: to score. Characters outside an `ascii` vocabulary are scored as its unknown symbol.
            prime: what comes before it; "" is a newline, after which texts start.

        Raises:
            CharrnnError: characters that the model does not know.
        """
        before = beginning(self.vocabulary, self._encode(prime))
        new = self._encode(text)
        found = log_probabilities(self.network, np.concatenate([before, new]), len(before))
        return Score("".join(self.vocabulary.decode(new)), -found)

    def _encode(self, text: str) -> Ids:
        vocabulary = self.vocabulary.unrestricted
        if vocabulary.unknown is None:
            return encode_known("text", text, vocabulary, ignore_note)
        return vocabulary.encode(normalised("text", text, vocabulary, ignore_note))
