"""Starting from another run's model: with its network's sizes and, character by character, its weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from charrnn import CharrnnError
from charrnn.messages import Note, plural
from charrnn.network.cells import CELLS, Array
from charrnn.network.network import Network, log_probabilities
from charrnn.runs import checkpoint, starter
from charrnn.runs.folder import checkpoint_name, find_checkpoint
from charrnn.runs.records import Checkpoint
from charrnn.text.corpus import Corpus
from charrnn.text.vocabulary import Vocabulary

_SIZES = ("embedding", "units", "layers", "cell")
_GOES_ON_AS = {"ascii": (None, "ascii", "text"), "text": ("text",), "bytes": ("bytes",)}
"""The kinds that each kind of vocabulary can become; the first applies if the user gives none."""
_CHARACTERS_READ = 1000  # to measure how large the source's logits are


@dataclass(frozen=True)
class Pretrained:
    """The trained model whose weights a run starts from.

    Attributes:
        path: its file, for messages.
        model: the contents of that file.
    """

    path: Path
    model: Checkpoint

    @property
    def identity(self) -> dict[str, str]:
        """What the run stores to recognise this model, by the names in `records.Settings`."""
        return {"init_from": checkpoint.checksum(self.model), "source": checkpoint_name(self.path)}

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that a run takes over: the network's sizes and the kind of vocabulary (None: the text decides).

        Args:
            given: the given options, by their names in `records.Settings`.

        Raises:
            CharrnnError: the options contradict the model.
        """
        sizes = {name: getattr(self.model.settings, name) for name in _SIZES}
        changed = {name: value for name, value in sizes.items() if given.get(name, value) != value}
        if changed:
            raise CharrnnError(
                f"{self.path} is a network with {', '.join(f'--{name} {value}' for name, value in changed.items())}, "
                f"not {', '.join(f'--{name} {given[name]}' for name in changed)}: leave that out to start from it",
                exit_code=2,
            )
        kind, kinds = self.model.vocabulary.kind, _GOES_ON_AS[self.model.vocabulary.kind]
        wanted = given.get("vocabulary") or kinds[0]
        if wanted not in kinds:
            raise CharrnnError(
                f"{self.path} has the vocabulary {kind}, which cannot become {wanted}: "
                f"leave out --vocabulary {wanted} to start from it",
                exit_code=2,
            )
        return {**sizes, "vocabulary": wanted}

    def summary(self, vocabulary: Vocabulary) -> str:
        """One line on the model, and on how many of the text's characters are new to it."""
        settings, source = self.model.settings, self.model.vocabulary
        known = len(source.known_characters)
        new = sum(character not in source for character in vocabulary.seen_characters)
        is_starter = self.path == starter.PATH
        return (
            f"starting from {'the starter, which has read English books' if is_starter else self.path}: "
            f"{settings.layers} x {settings.units} {CELLS[settings.cell].TITLE}, "
            f"{plural(known, source.unit)} known, {new:,} new"
            + (f" (--init-from {starter.NOTHING} starts from nothing)" if is_starter else "")
        )

    def surprise(self, corpus: Corpus) -> float:
        """The loss of the model, before any training, on pieces from all over a text: nats per character.

        A character that the model does not know counts as the closest one that it knows, or else as a guess.

        Args:
            corpus: the text.
        """
        own, vocabulary = self.model.vocabulary, corpus.vocabulary
        close = [c if c in own else own.nearest(c) for c in vocabulary.characters]
        ids_of = [None if known is None else own.id_of(known[0]) for known in close]
        ids_of += [own.unknown] * (vocabulary.unknown is not None) + [own.boundary] * vocabulary.has_boundary
        strange = np.array([id is None for id in ids_of])
        table = np.array([id or 0 for id in ids_of], np.int64)
        pieces, length = _SURVEY
        length = min(length, corpus.training_characters)
        if length < 4:
            return math.inf
        starts = np.linspace(0, corpus.training_characters - length, pieces).astype(int)
        ids = np.stack([corpus.ids[start : start + length] for start in starts])
        network = Network(self.model.config, self.model.weights)
        logits, _ = network.forward(table[ids], network.zero_state(len(ids)))
        read = length // 4  # before the model is expected to know what kind of text it is
        logits, targets = logits[:, read:-1].reshape(-1, logits.shape[-1]), ids[:, read + 1 :].reshape(-1)
        nats = np.where(strange[targets], math.log(len(own)), -log_probabilities(logits, table[targets]))
        return float(nats.mean())

    def initial_weights(self, corpus: Corpus, fresh: Mapping[str, Array]) -> dict[str, Array]:
        """The weights with which a model starts on a new text.

        A character that the source does not know starts like the closest one that it knows: its ASCII equivalent, the
        letter in the other case or the one without its accent. If it occurs less often in the text than that one, it
        starts less probable in every context.

        Where there is no such character, the embedding row and the softmax column are a new model's. The bias is the
        log frequency, raised to the level of the source's logits. The character therefore starts about as probable as
        it is frequent, over the contexts that the source can read.

        Args:
            corpus: the text.
            fresh: the weights of a new model for its vocabulary, with log frequencies as the softmax biases.

        Returns:
            The weights, named as in `config.weight_shapes`.
        """
        known, ids = _shared(corpus.vocabulary, self.model.vocabulary)
        weights = dict(self.model.weights)
        embedding, kernel, bias = (fresh[name].copy() for name in ("embedding", "softmax.kernel", "softmax.bias"))
        if len(known) < len(corpus.vocabulary):
            id_of = np.full(len(corpus.vocabulary), -1)  # the source's id of each symbol of the text, -1 if it has none
            id_of[known] = ids
            readable = id_of[corpus.ids[: min(_CHARACTERS_READ, corpus.training_characters)]]
            network = Network(self.model.config, weights)
            logits, _ = network.forward(readable[None, readable >= 0], network.zero_state())
            logits = np.concatenate([weights["softmax.bias"][None], logits[0]])  # first: before any character is read
            partition = np.logaddexp.reduce(logits.astype(np.float64), axis=1)
            mean = np.log(len(partition)) - np.logaddexp.reduce(-partition)
            bias += (mean - np.logaddexp.reduce(bias[known].astype(np.float64))).astype(np.float32)
        embedding[known] = weights["embedding"][ids]
        kernel[:, known] = weights["softmax.kernel"][:, ids]
        bias[known] = weights["softmax.bias"][ids]
        for new, like, share in _likenesses(corpus, self.model.vocabulary):
            embedding[new] = weights["embedding"][like]
            kernel[:, new] = weights["softmax.kernel"][:, like]
            bias[new] = weights["softmax.bias"][like] + np.log(share)
        return weights | {"embedding": embedding, "softmax.kernel": kernel, "softmax.bias": bias}


_SURVEY = 24, 200  # pieces of a text, and the characters in each, by which charrnn judges whether a model can read it
_LEAST_DISTINCT, _MOST_UNKNOWN = 40, 0.2
"""A text with fewer distinct characters, or a larger share of characters that the starter has never seen, is learned
better from nothing. Runs: docs/starter.md."""


def starter_for(corpus: Corpus, note: Note) -> tuple[Pretrained, float] | None:
    """The starter and its surprise, if a run on this text does better with it than from nothing.

    Args:
        corpus: the text.
        note: called with one line if the starter is there, but would not help.

    Raises:
        CharrnnError: the starter cannot be read.
    """
    if not starter.is_installed():
        return None
    try:
        source = load_pretrained(starter.NAME, "")
    except CharrnnError as error:
        raise CharrnnError(
            f"{error}: reinstall charrnn, or start from nothing with --init-from {starter.NOTHING}"
        ) from None
    own, vocabulary, counts = source.model.vocabulary, corpus.vocabulary, corpus.training_counts
    seen = vocabulary.seen_characters
    unknown = [vocabulary.id_of(c) for c in seen if c not in own and own.nearest(c) is None] + [vocabulary.unknown]
    share = sum(int(counts[id]) for id in unknown if id is not None) / max(1, int(counts.sum()))
    distinct = len(seen)
    if distinct < _LEAST_DISTINCT or share > _MOST_UNKNOWN:
        has = f"only {distinct} distinct characters" if distinct < _LEAST_DISTINCT else "many unknown characters"
        note(
            f"starting from nothing, since this text has {has}, unlike the English books that the starter has read "
            f"(--init-from {starter.NAME} starts from it all the same)"
        )
        return None
    return source, source.surprise(corpus)


def load_pretrained(where: str, folder: str) -> Pretrained:
    """Load the model that the user names.

    Args:
        where: see `folder.find_checkpoint`.
        folder: the folder that contains the runs.

    Raises:
        CharrnnError: there is no such model, or it cannot be read.
    """
    path = find_checkpoint(where, folder)
    return Pretrained(path, checkpoint.load(path))


def _likenesses(corpus: Corpus, source: Vocabulary) -> Iterator[tuple[int, int, float]]:
    """The characters of a text that start like one that the source knows.

    Yields:
        The character's id, the source's id of the one that it is like, and how often it occurs for each of those, at
        most 1.
    """
    vocabulary, counts = corpus.vocabulary, corpus.training_counts
    for character in vocabulary.seen_characters:
        close = None if character in source else source.nearest(character)
        if close is not None:
            new, like, old = vocabulary.id_of(character), source.id_of(close[0]), vocabulary.id_of(close[0])
            assert new is not None
            assert like is not None
            assert old is not None
            yield new, like, min(1.0, max(1, counts[new]) / max(1, counts[old]))


def _shared(new: Vocabulary, old: Vocabulary) -> tuple[list[int], list[int]]:
    """The ids of the symbols that both vocabularies have: those in the new one, then those in the old one."""
    characters = [character for character in new.characters if character in old]
    pairs = [(new.id_of(character), old.id_of(character)) for character in characters]
    pairs += [(new.unknown, old.unknown), (new.boundary, old.boundary)]
    both = [(n, o) for n, o in pairs if n is not None and o is not None]
    return [n for n, _ in both], [o for _, o in both]
