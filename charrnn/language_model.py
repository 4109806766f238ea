"""A trained model as a Python object: it generates text and scores how probable a text is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from charrnn import CharrnnError
from charrnn.messages import ignore_note
from charrnn.network.network import Network
from charrnn.network.scoring import Scorer
from charrnn.runs import checkpoint
from charrnn.runs.folder import find_checkpoint
from charrnn.runs.records import Checkpoint
from charrnn.sampling.choice import DEFAULT_TEMPERATURE, Choice
from charrnn.sampling.samples import DEFAULT_LENGTH, LENGTH, SEED, Request, write_samples
from charrnn.sampling.streams import beginning
from charrnn.surroundings import usual_folder
from charrnn.text.typed import UNKNOWN, encode_known, encode_prime, encode_stop, normalised
from charrnn.text.vocabulary import Decoder, Ids, boundary_mark

_CHUNK = 1 << 16  # characters scored at a time, to bound the memory


@dataclass(frozen=True)
class Score:
    """How probable a text is under a model.

    Attributes:
        text: the text as the model read it; line endings and typography may have changed.
        nats: minus the natural logarithm of each character's probability, given all before it, (N,); for a `bytes`
            model, of each byte's. One more if the text's end is scored too.
    """

    text: str
    nats: npt.NDArray[np.float64]

    @property
    def log_probability(self) -> float:
        """The natural logarithm of the probability of the whole text."""
        return -float(self.nats.sum())

    @property
    def nats_per_character(self) -> float:
        """The mean of `nats`: the loss that training reports, but for this text; nan if it is empty."""
        return float(self.nats.mean()) if len(self.nats) else float("nan")


class LanguageModel:
    """A trained model.

    Attributes:
        vocabulary: the characters that the model knows.
        network: the network that gives each next character a probability.
    """

    def __init__(self, trained: Checkpoint) -> None:
        self.vocabulary = trained.vocabulary
        self.network = Network(trained.config, trained.weights)

    @classmethod
    def load(cls, where: str | os.PathLike[str] | None = None) -> LanguageModel:
        """See `charrnn.load`."""
        name = None if where is None else os.fspath(where)
        return cls(checkpoint.load(find_checkpoint(name, usual_folder())))

    def generate(
        self,
        prime: str = "",
        *,
        length: int = DEFAULT_LENGTH,
        temperature: float = DEFAULT_TEMPERATURE,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int | None = None,
        stop: str | None = None,
        unknown: str | None = None,
    ) -> Iterator[str]:
        """Continue a text, as `charrnn sample` does with the same options.

        Args:
            prime: the text to continue; "" begins a new text or, if the model was trained on one text, a new paragraph.
            length: the maximum number of characters (bytes for a `bytes` model). A model of several texts may end
                a text earlier.
            temperature: below 1 makes safer choices, above 1 wilder ones; 0 always takes the likeliest character.
            top_k: choose only among the k likeliest characters.
            top_p: choose only among the likeliest characters that together have this probability.
            min_p: choose only among characters at least this many times as likely as the likeliest.
            seed: the same seed gives the same text; None draws a new one.
            stop: end before this text.
            unknown: `skip` or `replace` characters in the prime that the model does not know; None rejects them.

        Returns:
            The new text without the prime, piece by piece as the model writes it.

        Raises:
            CharrnnError: a value is out of range, or the model does not know a character.
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
                self.vocabulary, prime, unknown, ignore_note, 'change it, or pass unknown="skip" or unknown="replace"'
            ),
            length,
            Choice(temperature, top_k, top_p, min_p),
            None if stop is None else encode_stop(self.vocabulary, stop, ignore_note),
        )
        if seed is None:
            seed = int.from_bytes(os.urandom(4), "little")
        [sample] = write_samples(self.network, self.vocabulary, request, [seed])
        return sample.pieces()

    def score(self, text: str, prime: str = "", end: bool = False) -> Score:
        """Compute how probable each character of a text is under the model.

        The model reads the prime from the zero state and then scores every character of the text, including the first.
        Together, the scores give the probability of this text after the prime, among all texts of the vocabulary.

        Args:
            text: the text to score. Characters outside an `ascii` vocabulary are scored as its unknown symbol.
            prime: the text before it; "" stands for the end of another text or, if the model was trained on one text,
                for a blank line.
            end: whether to score the end of the text too, as one more value in `Score.nats`.

        Raises:
            CharrnnError: the model does not know a character, or `end` is set and it was trained on one text.
        """
        return next(self.score_pieces([text], prime, end))

    def score_pieces(self, pieces: Iterable[str], prime: str = "", end: bool = False) -> Iterator[Score]:
        """Score a text of any length piece by piece, for example the lines of an open file.

        Each piece is scored after all pieces before it, so that the scores are those of the whole text.

        Args:
            pieces: the text in pieces.
            prime: see `score`.
            end: see `score`; the end belongs to the last piece.

        Yields:
            The score of each piece.

        Raises:
            CharrnnError: see `score`.
        """
        if end and not self.vocabulary.writes_boundary:
            raise CharrnnError("end is True, but the model was trained on one text and knows no end", exit_code=2)
        scorer = Scorer(self.network)
        scorer.score(beginning(self.vocabulary, self._encode("prime", prime)))
        return self._scores(scorer, pieces, end)

    def _scores(self, scorer: Scorer, pieces: Iterable[str], end: bool) -> Iterator[Score]:
        last: str | None = None
        for piece in pieces:
            if last is not None:
                yield self._score(scorer, last, False)
            last = piece
        if last is not None:
            yield self._score(scorer, last, end)

    def _score(self, scorer: Scorer, text: str, end: bool) -> Score:
        ids = self._encode("text", text)
        nats = np.empty(len(ids) + end)
        decoder, read = Decoder(self.vocabulary), []
        for start in range(0, len(ids), _CHUNK):
            some = ids[start : start + _CHUNK]
            nats[start : start + len(some)] = scorer.score(some)
            read.append(decoder.decode(some.tolist()))
        if end:
            nats[-1:] = scorer.score(np.array([self.vocabulary.boundary]))
        return Score("".join([*read, decoder.decode((), final=True)]), np.negative(nats, out=nats))

    def _encode(self, name: str, text: str) -> Ids:
        vocabulary = self.vocabulary.unrestricted
        if vocabulary.unknown is None:
            return encode_known(name, text, vocabulary, ignore_note)
        text = text.replace(boundary_mark(vocabulary.kind), "\ufffd")  # which would end the text
        return vocabulary.encode(normalised(name, text, vocabulary, ignore_note))
