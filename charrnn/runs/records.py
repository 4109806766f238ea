"""What is recorded of a run: its settings, its progress, its text and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from charrnn.network.cells import CELLS, Array
from charrnn.network.config import NetworkConfig, weight_shapes
from charrnn.ranges import Range
from charrnn.text.corpus import Corpus, training_size
from charrnn.text.vocabulary import VOCABULARY_KINDS, Vocabulary

FORMAT_VERSION = 4
PRECISIONS = ("float32", "bfloat16")

RANGES = {
    **dict.fromkeys(("embedding", "units", "batch_size", "seq_length"), Range(1, 65536)),
    "layers": Range(1, 100),
    "dropout": Range(0, 1, below=True),
    "learning_rate": Range(0, above=True),
    "epochs": Range(1, 1_000_000),
    "minutes": Range(0, 1_000_000, above=True),
    "seed": Range(0, 2**32 - 1),
}
"""The numbers in `Settings`."""
CHOICES = {
    "vocabulary": VOCABULARY_KINDS,
    "errors": ("strict", "replace"),
    "cell": tuple(CELLS),
    "precision": ("auto", *PRECISIONS),
}
"""The words in `Settings`."""


@dataclass(frozen=True)
class Settings:
    """What a run was asked to do: how its text was read, its network, its training."""

    vocabulary: str  # its kind
    encoding: str  # of the text files
    errors: str  # for bytes that are not valid in that encoding
    embedding: int  # E
    units: int  # H
    layers: int  # L
    cell: str  # kind of recurrent layer
    dropout: float  # between layers and before the softmax
    batch_size: int  # B, streams
    seq_length: int  # T, characters in a window of truncated backpropagation
    learning_rate: float  # the highest of the schedule
    epochs: int | None  # passes over the training part, or
    minutes: float | None  # wall clock; neither leaves it to charrnn
    seed: int
    precision: str  # of the operands of matrix products
    init_from: str | None  # the checksum of the checkpoint whose weights it started from

    @property
    def open_ended(self) -> bool:
        """Nobody said how long: until the validation loss no longer falls, or for a time that charrnn chooses."""
        return self.epochs is None and self.minutes is None

    def network(self, vocabulary: Vocabulary) -> NetworkConfig:
        """The sizes of the network for a vocabulary."""
        return NetworkConfig(len(vocabulary), self.embedding, self.units, self.layers, self.cell)


@dataclass(frozen=True)
class Progress:
    """How far a run has come. Everything else follows from (settings, corpus, step)."""

    total_steps: int  # decided once, at the start
    validate_every: int  # steps; decided once, at the start
    precision: str  # float32 or bfloat16; decided once, at the start
    parts: int  # that the batch is split into; decided once, at the start
    step: int  # updates made
    best_step: int | None  # when the validation loss was lowest
    best_loss: float | None  # that loss, nats per character
    loss_sum: float  # of the training loss over the steps since the last report
    loss_count: int  # those steps
    final_characters: int  # of the validation part, that the final loss is over; decided once, at the start
    final_loss: float | None  # of the best weights over them, once done
    threads: int  # that computed the last step
    arithmetic: str  # that computed it: a digest of what else its rounding depends on

    @property
    def finished(self) -> bool:
        """Nothing is left to do."""
        return self.final_loss is not None


@dataclass(frozen=True)
class CorpusIdentity:
    """What tells one training text from another."""

    sha256: str
    characters: int

    @property
    def validation_characters(self) -> int:
        """How many of them validate."""
        return self.characters - training_size(self.characters)

    @staticmethod
    def of(corpus: Corpus) -> CorpusIdentity:
        """The identity of a corpus."""
        return CorpusIdentity(corpus.sha256, len(corpus.ids))


@dataclass(frozen=True)
class Head:
    """What a checkpoint says of its run.

    Attributes:
        settings: of the run.
        vocabulary: its character map.
        corpus: the text it trains on.
        progress: how far it has come.
    """

    settings: Settings
    vocabulary: Vocabulary
    corpus: CorpusIdentity
    progress: Progress

    @property
    def config(self) -> NetworkConfig:
        """The network's sizes."""
        return self.settings.network(self.vocabulary)


@dataclass(frozen=True)
class Checkpoint(Head):
    """A model, and where its training stands.

    Attributes:
        weights: as `config.weight_shapes` names them: what samples, a moving average of those that are trained.
        training: the weights as the last update left them, the optimizer's moments and the carried state, as
            `training_shapes` names them; empty in a checkpoint that is only for sampling.
        format: of the file that it is read from or written to.
    """

    weights: Mapping[str, Array]
    training: Mapping[str, Array]
    format: int = FORMAT_VERSION


def training_shapes(settings: Settings, vocabulary: Vocabulary) -> dict[str, tuple[int, ...]]:
    """Name and shape of what a resume needs beside the weights."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in weight_shapes(settings.network(vocabulary)).items():
        shapes[f"current.{name}"] = shape
        shapes[f"adam.momentum.{name}"] = shape
        shapes[f"adam.velocity.{name}"] = shape
    for layer in range(settings.layers):
        for part in CELLS[settings.cell].STATE:
            shapes[f"state.layer{layer}.{part}"] = (settings.batch_size, settings.units)
    return shapes
