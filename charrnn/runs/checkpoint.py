"""Checkpoint <-> one safetensors file: atomic to write, strict and harmless to read.

The file holds tensors and, under the metadata key `charrnn`, one JSON string with everything else.
The names, shapes and types of the tensors follow from that configuration, never from the file's header.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from reprlib import repr as brief
from types import MappingProxyType
from typing import Any, BinaryIO, TypeVar, get_args, get_type_hints

import numpy as np

from charrnn import CharrnnError
from charrnn.files import open_regular
from charrnn.network.cells import Array
from charrnn.network.config import weight_shapes
from charrnn.runs.records import (
    CHOICES,
    MAX_SEPARATOR,
    PRECISIONS,
    RANGES,
    Checkpoint,
    CorpusIdentity,
    Head,
    Progress,
    Settings,
    training_shapes,
)
from charrnn.text.corpus import BOUNDARY_SHARES, training_size
from charrnn.text.vocabulary import Vocabulary

FORMATS = (2, 3, 4, 5, 6, 7)
"""The formats that charrnn can read. Format 3 added the characters that a model knows and those that its text contains.
Format 4 added the number of characters that the final loss covers. Format 5 added boundaries between texts.
Format 6 added the coupled LSTM. Format 7 added the name of the source and weights of half width."""
_METADATA_KEY = "charrnn"
_MAX_HEADER = 1 << 24  # bytes: enough for 100 layers and every character of Unicode
_MAX_VALUES = 20_000  # in a header: enough for 100 layers
_MAX_INTEGER = 1 << 53  # above it, floats cannot represent every integer
_MAX_NAME = 1000  # characters
_SEPARATOR = f"[^\\ud800-\\udc7f\\udd00-\\udfff]{{1,{MAX_SEPARATOR}}}"  # of texts: surrogates only for invalid bytes
_TYPES = {"float32": ("F32", "<f4"), "float16": ("F16", "<f2")}
"""Of the tensors, as safetensors and as NumPy name them."""

_Shapes = dict[str, tuple[int, ...]]
Buffer = bytes | memoryview


def to_pieces(checkpoint: Checkpoint) -> list[Buffer]:
    """The file's content, tensor by tensor, without a copy of them; equal checkpoints give equal bytes."""
    document, shapes, body = _contents(checkpoint)
    return [_head(document, shapes, _checksum(document, shapes, body)), *body]


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """The file's content in one piece."""
    return b"".join(to_pieces(checkpoint))


def checksum(checkpoint: Checkpoint) -> str:
    """The checksum in a checkpoint's file, which identifies the checkpoint."""
    return _checksum(*_contents(checkpoint))


def _contents(checkpoint: Checkpoint) -> tuple[dict[str, Any], _Shapes, list[Buffer]]:
    """The configuration without the checksum, the tensors' shapes, and the tensors in the file's order."""
    vocabulary = checkpoint.vocabulary
    progress = dataclasses.asdict(checkpoint.progress)
    corpus, settings = dataclasses.asdict(checkpoint.corpus), dataclasses.asdict(checkpoint.settings)
    if checkpoint.format < 4:
        del progress["final_characters"]
    if checkpoint.format < 5:
        del corpus["training"], settings["split_at"]
    if checkpoint.format < 7:
        del settings["source"]
    document = {
        "characters": vocabulary.characters if vocabulary.kind == "text" else None,
        "corpus": corpus,
        "format": checkpoint.format,
        "progress": progress,
        "settings": settings,
    }
    if checkpoint.format >= 3:
        document |= {"known": vocabulary.known, "seen": vocabulary.seen}
    if checkpoint.format >= 5:
        document["boundary"] = "seen" if vocabulary.writes_boundary else "known" if vocabulary.has_boundary else None
    if checkpoint.format >= 7:
        document["weights"] = checkpoint.weights_type
    tensors = {**checkpoint.weights, **checkpoint.training}
    body: list[Buffer] = [
        np.ascontiguousarray(tensors[name], _numpy_type(document)).data.cast("B") for name in sorted(tensors)
    ]
    return document, {name: tensor.shape for name, tensor in tensors.items()}, body


def _numpy_type(document: Mapping[str, Any]) -> np.dtype[Any]:
    return np.dtype(_TYPES[document.get("weights", "float32")][1])


def _head(document: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], checksum: str) -> bytes:
    """The bytes before the tensors: the header's length and the header, byte for byte as safetensors writes them."""
    text = json.dumps({**document, "checksum": checksum}, sort_keys=True, allow_nan=False)
    header: dict[str, Any] = {"__metadata__": {_METADATA_KEY: text}}
    kind, _ = _TYPES[document.get("weights", "float32")]
    size, end = _numpy_type(document).itemsize, 0
    for name, shape in sorted(shapes.items()):
        start, end = end, end + size * math.prod(shape)
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    data = json.dumps(header, separators=(",", ":")).encode()
    data += b" " * (-len(data) % 8)  # aligns the tensors
    return len(data).to_bytes(8, "little") + data


def _checksum(document: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], body: Sequence[Buffer]) -> str:
    """SHA-256 of the whole file with the checksum's own digits as zeros. It detects damage, not malice."""
    digest = hashlib.sha256(_head(document, shapes, "0" * 64))
    for piece in body:
        digest.update(piece)
    return digest.hexdigest()


_Found = TypeVar("_Found")


def load(path: Path) -> Checkpoint:
    """Read a checkpoint without executing anything in it or touching any other file.

    Raises:
        CharrnnError: the file does not exist, is not readable, or is not a whole checkpoint of this format.
    """
    return _open_and_read(path, _read)


def read_head(path: Path) -> Head:
    """Read what a checkpoint records about its run, but none of its tensors.

    Raises:
        CharrnnError: the file does not exist, is not readable, or does not have a checkpoint's header.
    """
    return _open_and_read(path, _read_record)


def _open_and_read(path: Path, read: Callable[[BinaryIO, int], _Found]) -> _Found:
    try:
        with open_regular(path) as file:
            return read(file, os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        if path.is_symlink():
            raise CharrnnError(f"{path}: is a link to a file that does not exist") from None
        raise CharrnnError(f"{path}: no such checkpoint", exit_code=2) from None
    except OSError as error:
        raise CharrnnError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # bad content, or a path that no file can have
        raise CharrnnError(f"{path}: {error}") from None


class _FormatError(ValueError):
    """Explains why bytes are not a checkpoint."""


def from_bytes(data: bytes) -> Checkpoint:
    """Parse the content of a checkpoint file.

    Raises:
        ValueError: the content is not a whole checkpoint of this format.
    """
    return _read(io.BytesIO(data), len(data))


@dataclasses.dataclass(frozen=True)
class _Header:
    """What a file says before its tensors.

    Attributes:
        head: what it records about its run.
        document: the configuration that `head` is made from, without the checksum.
        checksum: of the whole file.
        weights: the shapes of the weights that follow.
        training: the shapes of the training tensors that follow.
    """

    head: Head
    document: dict[str, Any]
    checksum: str
    weights: _Shapes
    training: _Shapes


def _read_header(file: BinaryIO, size: int) -> _Header:
    """Read a checkpoint's header.

    The header does not decide which tensors the file has or where they lie. The configuration determines the only
    possible header, and charrnn rejects any other.
    """
    head = file.read(9) if size >= 9 else b""
    if head[8:] != b"{":
        raise _FormatError("not a charrnn checkpoint (a .safetensors file that charrnn train wrote)")
    header_size = int.from_bytes(head[:8], "little")
    if not 2 <= header_size <= _MAX_HEADER:
        raise _FormatError("not a charrnn checkpoint (its header length is impossible)")
    if 8 + header_size > size:
        raise _FormatError("truncated, or not a charrnn checkpoint (the file ends within its header)")
    head += file.read(header_size - 1)
    document = _document(head[8:])
    keys = {"checksum", "corpus", "format", "progress", "settings", "characters"}
    if document["format"] >= 3:
        keys |= {"known", "seen"}
    if document["format"] >= 5:
        keys |= {"boundary"}
    if document["format"] >= 7:
        keys |= {"weights"}
    _expect(document.keys() == keys, "unknown or missing keys in the configuration")
    boundary = document.get("boundary")
    _expect(boundary in (None, "known", "seen"), f"boundary is {brief(boundary)}")
    weights_type = document.get("weights", "float32")
    _expect(isinstance(weights_type, str) and weights_type in _TYPES, f"weights is {brief(weights_type)}")
    is_older = document["format"] < 5
    lacking = [name for name, first in (("split_at", 5), ("source", 7)) if document["format"] < first]
    settings = _dataclass(Settings, document["settings"], dict.fromkeys(lacking))
    corpus = _corpus(document["corpus"], is_older, boundary == "seen")
    added = {} if document["format"] >= 4 else {"final_characters": corpus.validation_characters}
    progress = _dataclass(Progress, document["progress"], added)
    _check(settings, progress, corpus)
    _expect(document["format"] >= 6 or settings.cell != "coupled", "a cell that its format does not have")
    _expect(settings.split_at is None or boundary == "seen", "split_at without boundaries")
    vocabulary = dataclasses.replace(
        _vocabulary(settings, document["characters"]),
        has_boundary=boundary is not None,
        writes_boundary=boundary == "seen",
    )
    vocabulary = _restricted(vocabulary, document.get("known"), document.get("seen"))
    checksum = document.pop("checksum")
    _expect(isinstance(checksum, str) and _is_checksum(checksum), "no checksum")

    weights = weight_shapes(settings.network(vocabulary))
    training = training_shapes(settings, vocabulary)
    if head == _head(document, weights, checksum):
        training = {}
    else:
        _expect(
            weights_type == "float32" and head == _head(document, {**weights, **training}, checksum),
            "its header does not match its configuration",
        )
    end = len(head) + sum(
        _numpy_type(document).itemsize * math.prod(shape) for shape in [*weights.values(), *training.values()]
    )
    _expect(size <= end, "the file continues after its last tensor")
    if size < end:
        raise _FormatError(_TRUNCATED)
    return _Header(Head(settings, vocabulary, corpus, progress), document, checksum, weights, training)


_TRUNCATED = "truncated: the file ends before its last tensor does"


def _read_record(file: BinaryIO, size: int) -> Head:
    return _read_header(file, size).head


def _read(file: BinaryIO, size: int) -> Checkpoint:
    """Read and check a checkpoint's header, and only then read its tensors."""
    header = _read_header(file, size)
    head, document, shapes = header.head, header.document, {**header.weights, **header.training}
    body = file.read(body_size := size - file.tell())  # which the header's check found right
    if len(body) < body_size:
        raise _FormatError(_TRUNCATED)
    _expect(_checksum(document, shapes, [body]) == header.checksum, "the checksum differs")
    tensors: dict[str, Array] = {}
    at = 0
    for name, shape in sorted(shapes.items()):
        tensor = np.frombuffer(body, _numpy_type(document), math.prod(shape), at).reshape(shape)
        _expect(bool(np.isfinite(tensor).all()), f"{name} contains numbers that are not finite")
        tensors[name] = tensor.astype(np.float32, copy=False)
        at += tensor.nbytes
    return Checkpoint(
        head.settings,
        head.vocabulary,
        head.corpus,
        head.progress,
        weights={name: tensors[name] for name in header.weights},
        training={name: tensors[name] for name in header.training},
        format=document["format"],
        weights_type=document.get("weights", "float32"),
    )


def _is_checksum(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", text) is not None


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise _FormatError(f"damaged: {otherwise}")


def _document(header: bytes) -> dict[str, Any]:
    """Extract the configuration from a header, and check its format."""
    metadata = _json(header.decode("latin-1"), "header").get("__metadata__")
    text = metadata.get(_METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise _FormatError("a safetensors file, but not one that charrnn train wrote")
    document = _json(text, "configuration")
    version = document.get("format")
    _expect(type(version) is int, "its format is not a number")
    if version not in FORMATS:
        raise _FormatError(
            f"written in checkpoint format {brief(version)}; this charrnn reads formats "
            f"{', '.join(map(str, FORMATS))}: use the version that wrote it"
        )
    return document


def _json(text: str, what: str) -> dict[str, Any]:
    # A value of two characters can take a hundred bytes of memory, so a header may have no more of them than it needs.
    _expect(sum(map(text.count, "{[,")) <= _MAX_VALUES, f"its {what} has too many values")
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        raise _FormatError(f"damaged, or not a charrnn checkpoint (its {what} is not JSON)") from None
    _expect(isinstance(parsed, dict), f"the {what} is not an object")
    return dict(parsed)


_T = TypeVar("_T", Settings, Progress, CorpusIdentity)


def _dataclass(cls: type[_T], document: Any, added: Mapping[str, Any] = MappingProxyType({})) -> _T:
    """Build an object from a document and from `added`, the values that older formats lack."""
    fields, kinds = dataclasses.fields(cls), get_type_hints(cls)
    _expect(
        isinstance(document, dict) and document.keys() == {field.name for field in fields} - added.keys(),
        f"unknown or missing keys in {cls.__name__.lower()}",
    )
    document = document | added
    for field in fields:
        value, kind = document[field.name], kinds[field.name]
        possible = type(value) in (get_args(kind) or [kind])
        if isinstance(value, int):
            possible = possible and 0 <= value <= _MAX_INTEGER
        elif isinstance(value, float):
            possible = possible and math.isfinite(value)
        _expect(possible, f"{field.name} is {brief(value)}")
    return cls(**document)


def _corpus(document: Any, is_older: bool, has_boundaries: bool) -> CorpusIdentity:
    """Build the identity of a text; one without boundaries is always split in the same way."""
    corpus = _dataclass(CorpusIdentity, document, {"training": 0} if is_older else {})
    usual = training_size(corpus.characters)
    if is_older:
        return dataclasses.replace(corpus, training=usual)
    least, most = ((1 - share) * corpus.characters for share in reversed(BOUNDARY_SHARES))
    possible = corpus.training == usual or (has_boundaries and least - 1 <= corpus.training <= most + 1)
    _expect(possible, f"training is {corpus.training}")
    return corpus


def _vocabulary(settings: Settings, characters: Any) -> Vocabulary:
    if settings.vocabulary != "text":
        _expect(characters is None, "a fixed vocabulary must not list characters")
        return Vocabulary.ascii() if settings.vocabulary == "ascii" else Vocabulary.bytes()
    _expect(isinstance(characters, str) and len(characters) > 0, "the vocabulary has no characters")
    points = np.frombuffer(characters.encode("utf-32-le", "surrogatepass"), "<u4")
    _expect(not ((points >= 0xD800) & (points < 0xE000)).any(), "the vocabulary has half a character (a surrogate)")
    _expect(bool(np.diff(np.sort(points)).all()), "the vocabulary contains a character twice")
    return Vocabulary("text", characters)


def _restricted(vocabulary: Vocabulary, known: Any, seen: Any) -> Vocabulary:
    _expect(all(some is None or isinstance(some, str) for some in (known, seen)), "known or seen is not a string")
    _expect(vocabulary.kind != "bytes" or known is seen is None, "a bytes vocabulary with known or seen characters")
    everything = vocabulary.characters
    restricted = vocabulary.restricted(everything if known is None else known, everything if seen is None else seen)
    _expect((restricted.known, restricted.seen) == (known, seen), "known or seen characters do not fit the vocabulary")
    _expect(set(restricted.seen_characters) <= set(restricted.known_characters), "some seen characters are not known")
    _expect(seen != "" or vocabulary.kind == "ascii", "no seen characters")
    return restricted


def _check(settings: Settings, progress: Progress, corpus: CorpusIdentity) -> None:
    """Reject values that no training run can have."""

    def check(source: Settings | Progress | CorpusIdentity, name: str, possible: bool) -> None:
        _expect(possible, f"{name} is {brief(getattr(source, name))}")

    for name, allowed in RANGES.items():
        value = getattr(settings, name)
        check(settings, name, value in allowed if value is not None else name in ("epochs", "minutes"))
    for name, words in CHOICES.items():
        check(settings, name, getattr(settings, name) in words)
    check(settings, "encoding", re.fullmatch("[0-9a-z_-]{1,40}", settings.encoding) is not None)
    separator = settings.split_at
    check(settings, "split_at", separator is None or re.fullmatch(_SEPARATOR, separator) is not None)
    check(settings, "init_from", settings.init_from is None or _is_checksum(settings.init_from))
    check(settings, "source", settings.source is None or 1 <= len(settings.source) <= _MAX_NAME)
    _expect(settings.source is None or settings.init_from is not None, "a source without its checksum")
    check(progress, "step", progress.step <= progress.total_steps)
    check(progress, "validate_every", progress.validate_every >= 1)
    check(progress, "precision", progress.precision in PRECISIONS)
    check(progress, "parts", 1 <= progress.parts <= settings.batch_size)
    check(progress, "best_step", progress.best_step is None or progress.best_step <= progress.step)
    check(progress, "threads", progress.threads >= 1)
    check(progress, "arithmetic", re.fullmatch("[0-9a-f]{16}", progress.arithmetic) is not None)
    check(progress, "final_characters", progress.final_characters <= corpus.validation_characters)
    check(corpus, "sha256", _is_checksum(corpus.sha256))
    _expect(settings.epochs is None or settings.minutes is None, "epochs and minutes are both set")
    _expect((progress.best_step is None) == (progress.best_loss is None), "only one of best_step and best_loss is set")
