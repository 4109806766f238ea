"""The records of a run: its settings, its progress, its text and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from charrnn.network.cells import CELLS, Array
from charrnn.network.config import NetworkConfig, weight_shapes
from charrnn.ranges import Range
from charrnn.text.corpus import Corpus
from charrnn.text.vocabulary import VOCABULARY_KINDS, Vocabulary

FORMAT_VERSION = 7
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
"""The allowed numbers in `Settings`."""
MAX_SEPARATOR = 1000  # characters
CHOICES = {
    "vocabulary": VOCABULARY_KINDS,
    "errors": ("strict", "replace"),
    "cell": tuple(CELLS),
    "precision": ("auto", *PRECISIONS),
}
"""The allowed words in `Settings`."""


@dataclass(frozen=True)
class Settings:
    """What the user asked of a run: how to read the text, the network and the training."""

    vocabulary: str  # kind
    encoding: str  # of the text files
    errors: str  # how to treat bytes that are not valid in that encoding
    embedding: int  # E
    units: int  # H
    layers: int  # L
    cell: str  # kind of recurrent layer
    dropout: float  # between layers and before the softmax
    batch_size: int  # B, streams
    seq_length: int  # T, characters in a window of truncated backpropagation
    learning_rate: float  # the highest in the schedule
    epochs: int | None  # passes over the training part, or
    minutes: float | None  # wall clock; if both are None, charrnn decides
    seed: int
    precision: str  # of the operands of matrix products
    init_from: str | None  # the checksum of the checkpoint whose weights it started from
    source: str | None  # the name of that checkpoint when the run started, for people
    split_at: str | None  # the text that separates texts within a file

    @property
    def open_ended(self) -> bool:
        """Whether the length is left to charrnn.

        The run then lasts until the validation loss stops falling, or for a time that charrnn chooses.
        """
        return self.epochs is None and self.minutes is None

    def network(self, vocabulary: Vocabulary) -> NetworkConfig:
        """The network's sizes for a vocabulary."""
        return NetworkConfig(len(vocabulary), self.embedding, self.units, self.layers, self.cell)


@dataclass(frozen=True)
class Progress:
    """How far a run has progressed. Everything else follows from (settings, corpus, step)."""

    total_steps: int  # decided once, at the start
    validate_every: int  # steps; decided once, at the start
    precision: str  # float32 or bfloat16; decided once, at the start
    parts: int  # number of parts into which the batch is split; kept as long as `threads` stays
    step: int  # updates made
    best_step: int | None  # step with the lowest validation loss
    best_loss: float | None  # that loss, nats per character
    loss_sum: float  # sum of the training loss over the steps since the last report
    loss_count: int  # number of those steps
    final_characters: int  # in the validation part, covered by the final loss; decided once, at the start
    final_loss: float | None  # of the best weights on those characters, once the run is finished
    threads: int  # that computed the last step
    arithmetic: str  # a digest of everything else that the rounding of the last step depends on

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.final_loss is not None


@dataclass(frozen=True)
class CorpusIdentity:
    """Identifies a training text, or several."""

    sha256: str
    characters: int  # boundaries included
    training: int  # characters before the validation part

    @property
    def validation_characters(self) -> int:
        """The number of characters in the validation part."""
        return self.characters - self.training

    @staticmethod
    def of(corpus: Corpus) -> CorpusIdentity:
        """The identity of a corpus."""
        return CorpusIdentity(corpus.sha256, len(corpus.ids), corpus.training_characters)


@dataclass(frozen=True)
class Head:
    """What a checkpoint records about its run.

    Attributes:
        settings: the run's settings.
        vocabulary: the run's character map.
        corpus: the identity of the text that it trains on.
        progress: how far it has progressed.
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
    """A model and the state of its training.

    Attributes:
        weights: the weights for sampling, a moving average of the trained ones. `config.weight_shapes` names them.
        training: the weights after the last update, the optimizer's moments and the carried state.
            `training_shapes` names them. Empty in a checkpoint that is only for sampling.
        format: the format of the file that the checkpoint is read from or written to.
        weights_type: the type of the weights in that file; in memory they are float32. Half width is for sampling only.
    """

    weights: Mapping[str, Array]
    training: Mapping[str, Array]
    format: int = FORMAT_VERSION
    weights_type: str = "float32"


def training_shapes(settings: Settings, vocabulary: Vocabulary) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the tensors that a resume needs besides the weights."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in weight_shapes(settings.network(vocabulary)).items():
        shapes[f"current.{name}"] = shape
        shapes[f"adam.momentum.{name}"] = shape
        shapes[f"adam.velocity.{name}"] = shape
    for layer in range(settings.layers):
        for part in CELLS[settings.cell].STATE:
            shapes[f"state.layer{layer}.{part}"] = (settings.batch_size, settings.units)
    return shapes
