"""Starting from another run's model: with its network's sizes and, character by character, its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from charrnn import CharrnnError
from charrnn.messages import plural
from charrnn.network.cells import CELLS, Array
from charrnn.network.network import Network
from charrnn.runs import checkpoint
from charrnn.runs.folder import find_checkpoint
from charrnn.runs.records import Checkpoint
from charrnn.text.corpus import Corpus
from charrnn.text.vocabulary import Vocabulary

_SIZES = ("embedding", "units", "layers", "cell")
_GOES_ON_AS = {"ascii": (None, "ascii", "text"), "text": ("text",), "bytes": ("bytes",)}
"""The kinds that each kind of vocabulary can become; the first applies if the user gives none."""
_CHARACTERS_READ = 1000  # to measure how large the source's logits are


@dataclass(frozen=True)
class Source:
    """The model that a run starts from.

    Attributes:
        path: its file, for messages.
        model: the contents of that file.
    """

    path: Path
    model: Checkpoint

    @property
    def checksum(self) -> str:
        """The checksum that the run stores to recognise this model."""
        return checkpoint.checksum(self.model)

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
        return (
            f"starting from {self.path}: {settings.layers} x {settings.units} {CELLS[settings.cell].TITLE}, "
            f"{plural(known, 'byte' if source.kind == 'bytes' else 'character')} known, {new:,} new"
        )

    def initial_weights(self, corpus: Corpus, fresh: Mapping[str, Array]) -> dict[str, Array]:
        """The weights with which a model starts on a new text.

        For a character that the source does not know, the embedding row and the softmax column are a new model's.
        Its bias is its log frequency, raised to the level of the source's logits. The character therefore starts
        about as probable as it is frequent, over the contexts that the source can read.

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
        return weights | {"embedding": embedding, "softmax.kernel": kernel, "softmax.bias": bias}


def load_source(where: str, folder: str) -> Source:
    """Load the model that the user names.

    Args:
        where: see `folder.find_checkpoint`.
        folder: the folder that contains the runs.

    Raises:
        CharrnnError: there is no such model, or it cannot be read.
    """
    path = find_checkpoint(where, folder)
    return Source(path, checkpoint.load(path))


def _shared(new: Vocabulary, old: Vocabulary) -> tuple[list[int], list[int]]:
    """The ids of the symbols that both vocabularies have: those in the new one, then those in the old one."""
    characters = [character for character in new.characters if character in old]
    pairs = [(new.id_of(character), old.id_of(character)) for character in characters]
    pairs += [(new.unknown, old.unknown), (new.boundary, old.boundary)]
    both = [(n, o) for n, o in pairs if n is not None and o is not None]
    return [n for n, _ in both], [o for _, o in both]
