"""Checkpoint <-> one safetensors file: atomic to write, strict and harmless to read.

The file holds tensors and, under the metadata key `charrnn`, one JSON string with everything else.
What tensors there are, their shapes and types follow from that configuration, never from the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from charrnn import CharrnnError
from charrnn.data import Corpus
from charrnn.network import GATES, Array, NetworkConfig, state_parts, weight_shapes
from charrnn.vocabulary import VOCABULARY_KINDS, Vocabulary

FORMAT_VERSION = 1
PRECISIONS = ("auto", "float32", "bfloat16")
_METADATA_KEY = "charrnn"
_NO_CHECKSUM = "0" * 64
_MAX_HEADER = 100_000_000  # bytes, safetensors' own limit
_MAX_SIZE = 1 << 24  # of one dimension


@dataclass(frozen=True)
class Settings:
    """What a run was asked to do: how its text was read, its network, its training."""

    vocabulary: str  # kind: ascii, text or bytes
    encoding: str  # of the text files
    errors: str  # strict or replace, for bytes that are not valid in that encoding
    embedding: int  # E
    units: int  # H
    layers: int  # L
    cell: str  # lstm, gru or rnn
    dropout: float  # between layers and before the softmax
    batch_size: int  # B, streams
    seq_length: int  # T, characters in a window of truncated backpropagation
    learning_rate: float  # the highest of the schedule
    epochs: int | None  # passes over the training part, or
    minutes: float | None  # wall clock
    seed: int
    precision: str  # auto, float32 or bfloat16: of the operands of matrix products

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
    final_loss: float | None  # of the best weights over the whole validation part, once done
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

    @staticmethod
    def of(corpus: Corpus) -> CorpusIdentity:
        """The identity of a corpus."""
        return CorpusIdentity(corpus.sha256, len(corpus.ids))


@dataclass(frozen=True)
class Checkpoint:
    """A model, and where its training stands.

    Attributes:
        settings: of the run.
        vocabulary: its character map.
        corpus: the text it trains on.
        progress: how far it has come.
        weights: as `network.weight_shapes` names them.
        training: the optimizer's moments and the carried state, as `training_shapes` names them;
            empty in a checkpoint that is only for sampling.
    """

    settings: Settings
    vocabulary: Vocabulary
    corpus: CorpusIdentity
    progress: Progress
    weights: Mapping[str, Array]
    training: Mapping[str, Array]

    @property
    def config(self) -> NetworkConfig:
        """The network's sizes."""
        return self.settings.network(self.vocabulary)


def training_shapes(settings: Settings, vocabulary: Vocabulary) -> dict[str, tuple[int, ...]]:
    """Name and shape of what a resume needs beside the weights."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in weight_shapes(settings.network(vocabulary)).items():
        shapes[f"adam.momentum.{name}"] = shape
        shapes[f"adam.velocity.{name}"] = shape
    for layer in range(settings.layers):
        for part in state_parts(settings.cell):
            shapes[f"state.layer{layer}.{part}"] = (settings.batch_size, settings.units)
    return shapes


# --- writing ---------------------------------------------------------------------------------


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that whoever reads it sees the old or the new content, never a part.

    Raises:
        OSError: it could not be written; the old content is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # what made it fail is the error; `Run.prepare` clears away what is left
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make what was made, renamed or removed in a folder outlast a power cut, where that can be done."""
    # Windows cannot open a folder, some network file systems not sync it.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """The file's content; equal checkpoints give equal bytes."""
    from safetensors.numpy import save  # only training writes

    vocabulary = checkpoint.vocabulary
    text = json.dumps(
        {
            "checksum": _NO_CHECKSUM,
            "corpus": dataclasses.asdict(checkpoint.corpus),
            "format": FORMAT_VERSION,
            "progress": dataclasses.asdict(checkpoint.progress),
            "settings": dataclasses.asdict(checkpoint.settings),
            "characters": vocabulary.characters if vocabulary.kind == "text" else None,
        },
        sort_keys=True,
        allow_nan=False,
    )
    tensors = {**checkpoint.weights, **checkpoint.training}
    data = save({name: np.ascontiguousarray(tensors[name]) for name in tensors}, {_METADATA_KEY: text})
    # "checksum" comes after "characters", and JSON escapes quotes within those.
    at = data.index(_NO_CHECKSUM.encode(), data.index(b'\\"checksum\\": \\"'))
    digits = hashlib.sha256(data).hexdigest().encode()
    return data[:at] + digits + data[at + len(digits) :]


# --- reading ---------------------------------------------------------------------------------


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing in it is executed, and no other file is touched.

    Raises:
        CharrnnError: no file, not readable, or not a whole checkpoint of this format.
    """
    try:
        # O_NONBLOCK: a FIFO nobody writes to is refused below, not waited for.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CharrnnError(f"{path}: not a file; a checkpoint ends in .safetensors")
            data = file.read()
    except FileNotFoundError:
        raise CharrnnError(f"{path}: no such checkpoint", exit_code=2) from None
    except OSError as error:
        raise CharrnnError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        return from_bytes(data)
    except _FormatError as error:
        raise CharrnnError(f"{path}: {error}") from None


class _FormatError(ValueError):
    """Why these bytes are not a checkpoint."""


def from_bytes(data: bytes) -> Checkpoint:
    """Take a checkpoint file's content apart.

    Raises:
        ValueError: it is not a whole checkpoint of this format.
    """
    if len(data) < 10 or data[8:9] != b"{":
        raise _FormatError("not a charrnn checkpoint (a .safetensors file that charrnn train wrote)")
    header_size = int.from_bytes(data[:8], "little")
    if header_size > _MAX_HEADER:
        raise _FormatError("not a charrnn checkpoint (its header says it is larger than any)")
    if 8 + header_size > len(data):
        raise _FormatError("truncated, or not a charrnn checkpoint (the file ends within its header)")
    header = _json(data[8 : 8 + header_size], "header")
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or set(metadata) != {_METADATA_KEY}:
        raise _FormatError("a safetensors file, but not one that charrnn train wrote")
    body = memoryview(data)[8 + header_size :]
    document = _json(metadata[_METADATA_KEY], "configuration")
    if document.get("format") != FORMAT_VERSION:
        raise _FormatError(
            f"written in checkpoint format {document.get('format')!r}; this charrnn reads format "
            f"{FORMAT_VERSION}: use the charrnn that wrote it"
        )
    _expect(
        document.keys() == {"checksum", "corpus", "format", "progress", "settings", "characters"},
        "unknown or missing keys in the configuration",
    )
    settings = _dataclass(Settings, document["settings"])
    progress = _dataclass(Progress, document["progress"])
    corpus = _dataclass(CorpusIdentity, document["corpus"])
    vocabulary = _vocabulary(settings, document["characters"])
    _check_settings(settings)
    _check_progress(progress)

    expected = weight_shapes(settings.network(vocabulary))
    resumable = training_shapes(settings, vocabulary)
    if header.keys() != expected.keys():
        expected = {**expected, **resumable}
    _expect(header.keys() == expected.keys(), "tensors are missing or unknown")
    tensors = _tensors(header, expected, body)
    _check_sum(data, header_size, document["checksum"])
    for name, tensor in tensors.items():
        _expect(bool(np.isfinite(tensor).all()), f"numbers in {name} are not finite")
    return Checkpoint(
        settings,
        vocabulary,
        corpus,
        progress,
        weights={name: tensors[name] for name in weight_shapes(settings.network(vocabulary))},
        training={name: tensors[name] for name in resumable if name in tensors},
    )


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise _FormatError(f"damaged: {otherwise}")


def _json(text: bytes | str, what: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _expect(len({key for key, _ in pairs}) == len(pairs), f"a key stands twice in the {what}")
        return dict(pairs)

    def refuse(constant: str) -> None:
        _expect(False, f"{constant} in the {what}")

    try:
        parsed = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except _FormatError:
        raise
    except (ValueError, TypeError, RecursionError):
        raise _FormatError(f"damaged, or not a charrnn checkpoint (its {what} is not JSON)") from None
    _expect(isinstance(parsed, dict), f"the {what} is not an object")
    return dict(parsed)


_T = TypeVar("_T", Settings, Progress, CorpusIdentity)


def _dataclass(cls: type[_T], document: Any) -> _T:
    fields = dataclasses.fields(cls)
    _expect(
        isinstance(document, dict) and document.keys() == {field.name for field in fields},
        f"unknown or missing keys in {cls.__name__.lower()}",
    )
    for field in fields:
        value, kinds = document[field.name], str(field.type).split(" | ")
        _expect(type(value).__name__.replace("NoneType", "None") in kinds, f"{field.name} is {value!r}")
        _expect(not isinstance(value, float) or math.isfinite(value), f"{field.name} is not finite")
    return cls(**document)


def _vocabulary(settings: Settings, characters: Any) -> Vocabulary:
    _expect(settings.vocabulary in VOCABULARY_KINDS, f"vocabulary is {settings.vocabulary!r}")
    if settings.vocabulary != "text":
        _expect(characters is None, "characters of a fixed vocabulary")
        return Vocabulary.ascii() if settings.vocabulary == "ascii" else Vocabulary.bytes()
    _expect(isinstance(characters, str) and len(characters) > 0, "the vocabulary has no characters")
    _expect(not any(0xD800 <= ord(c) < 0xE000 for c in characters), "half a character in the vocabulary")
    _expect(len(set(characters)) == len(characters), "a character stands twice in the vocabulary")
    return Vocabulary("text", characters)


def _check_settings(settings: Settings) -> None:
    _expect(settings.cell in GATES, f"cell is {settings.cell!r}")
    for name in ("embedding", "units", "layers", "batch_size", "seq_length"):
        _expect(1 <= getattr(settings, name) <= _MAX_SIZE, f"{name} is {getattr(settings, name)}")
    _expect(settings.layers <= 1000, f"layers is {settings.layers}")
    _expect(0 <= settings.dropout < 1, f"dropout is {settings.dropout}")
    _expect(settings.learning_rate > 0, f"learning_rate is {settings.learning_rate}")
    _expect(settings.seed >= 0, f"seed is {settings.seed}")
    _expect(settings.precision in PRECISIONS, f"precision is {settings.precision!r}")
    _expect((settings.epochs is None) != (settings.minutes is None), "epochs and minutes contradict")


def _check_progress(progress: Progress) -> None:
    _expect(0 <= progress.step <= progress.total_steps, f"step is {progress.step}")
    _expect(progress.validate_every >= 1, f"validate_every is {progress.validate_every}")
    _expect(progress.precision in PRECISIONS[1:], f"precision is {progress.precision!r}")
    _expect(1 <= progress.parts <= _MAX_SIZE, f"parts is {progress.parts}")
    _expect((progress.best_step is None) == (progress.best_loss is None), "best step and loss contradict")


def _tensors(header: dict[str, Any], shapes: Mapping[str, tuple[int, ...]], body: memoryview) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    spans = []
    for name, shape in shapes.items():
        size = 4 * math.prod(shape)
        entry = header[name]
        _expect(
            isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"},
            f"unknown or missing keys at {name}",
        )
        _expect(entry["dtype"] == "F32", f"{name} is of type {entry['dtype']!r}, not F32")
        _expect(entry["shape"] == list(shape), f"{name} has shape {entry['shape']!r}, not {list(shape)}")
        offsets = entry["data_offsets"]
        _expect(
            isinstance(offsets, list)
            and len(offsets) == 2
            and all(type(offset) is int for offset in offsets)
            and offsets[0] >= 0
            and offsets[1] - offsets[0] == size,
            f"{name} lies at {offsets!r}",
        )
        if offsets[1] > len(body):
            raise _FormatError("truncated: the file ends before its last tensor does")
        spans.append((offsets[0], offsets[1]))
        tensors[name] = np.frombuffer(body[offsets[0] : offsets[1]], "<f4").reshape(shape)
    spans.sort()
    ends = [0, *(end for _, end in spans)]
    _expect([*(start for start, _ in spans), len(body)] == ends, "tensors overlap or leave gaps")
    return tensors


def _check_sum(data: bytes, header_size: int, checksum: Any) -> None:
    _expect(isinstance(checksum, str) and len(checksum) == len(_NO_CHECKSUM), "no checksum")
    digits = checksum.encode("ascii", "replace")
    _expect(data.count(digits, 8, 8 + header_size) == 1, "the checksum does not stand in the header once")
    at = data.index(digits, 8, 8 + header_size)
    digest = hashlib.sha256(data[:at])
    digest.update(_NO_CHECKSUM.encode())
    digest.update(memoryview(data)[at + len(digits) :])
    _expect(digest.hexdigest() == checksum, "the checksum differs")
