"""A model as one HTML file, in which its network runs."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import re
import zlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from charrnn import CharrnnError
from charrnn.messages import encodable, plural
from charrnn.network.cells import CELLS
from charrnn.network.config import count_weights, weight_shapes
from charrnn.network.network import Network
from charrnn.page.neurons import MOST_CHARACTERS, find_neurons
from charrnn.runs.history import Report
from charrnn.runs.records import Checkpoint
from charrnn.sampling.choice import DEFAULT_TEMPERATURE, Choice
from charrnn.sampling.copying import read_original
from charrnn.sampling.streams import Streams, beginning, read_beginning
from charrnn.text.vocabulary import ASCII_EQUIVALENTS, Ids, Vocabulary, look_up

_MOST_SHOWN = 4000  # characters of a text that the page reads: each is an element, and has a byte for each cell
_FIRST_SHOWN = 1200  # characters of the text that it shows first
_SAMPLE = 32, 1000  # streams and characters of each, of a sample to find cells with
_LARGEST = float(np.finfo(np.float16).max)


def make_page(model: Checkpoint, name: str, reports: Sequence[Report], ids: Ids | None = None) -> bytes:
    """Make the page.

    Args:
        model: the model.
        name: its name, the page's title.
        reports: the validations of its run.
        ids: a text, as the model reads it, to find cells with; None lets the model write one.
    """
    packed = half_width(model)
    network = Network(model.config, packed)
    vocabulary = model.vocabulary
    ids = sampled(network, vocabulary) if ids is None else ids
    # One character for each id: of `bytes`, U+0000 to U+00FF.
    text = "".join(map(vocabulary.texts("\n").__getitem__, ids.tolist()))
    found = find_neurons(network, ids, text)
    data = {
        **_described(model, packed),
        "history": [(report.step, report.train_loss, report.val_loss) for report in reports],
        "found": [dataclasses.asdict(neuron) for neuron in found],
        "text": "".join(vocabulary.decode(ids[_start(text) :][:_FIRST_SHOWN].tolist())),
        "most": _MOST_SHOWN,
    }
    folder = files("charrnn.page")
    style, script, worker, page = (
        (folder / file).read_text(encoding="utf-8") for file in ("page.css", "page.js", "worker.js", "page.html")
    )
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; worker-src blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    pieces = {
        "policy": policy,
        "title": html.escape(encodable(name)),
        "style": style,
        "script": script,
        "worker": worker,
        "most": f"{_MOST_SHOWN:,}",
        "model": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    }
    # At once, so that what a piece contains is never taken for the place of another.
    return re.sub(r"\{(\w+)\}", lambda place: pieces[place[1]], page).encode()


def _start(text: str) -> int:
    """Where a line begins a quarter into a text, or if none does, the start: books begin with their titles."""
    start = text.find("\n", len(text) // 4) + 1
    return start if start < len(text) else 0


def read_ids(file: str, model: Checkpoint) -> Ids:
    """Read the first characters of a text as the model reads it, (N,), without those for which it has no id.

    Args:
        file: a path; `-` is standard input.
        model: the model.

    Raises:
        CharrnnError: the file cannot be read, or has no character that the model knows.
    """
    vocabulary, text = model.vocabulary, ""
    original = read_original(file, vocabulary, model.settings.encoding)
    for piece in original.text():
        text += piece
        if len(text) >= MOST_CHARACTERS:
            break
    ids = look_up(vocabulary.unrestricted.table(), text[:MOST_CHARACTERS])
    ids = ids[ids < len(vocabulary)].astype(vocabulary.dtype)
    if not len(ids):
        raise CharrnnError(f"{original.source.name}: has no character that the model can read")
    return ids


def _digest(text: str) -> str:
    """What a Content-Security-Policy calls an inline script or style by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def half_width(model: Checkpoint) -> dict[str, Any]:
    """The weights as the page has them: rounded to half precision."""
    return {
        name: weight.clip(-_LARGEST, _LARGEST).astype(np.float16).astype(np.float32)
        for name, weight in model.weights.items()
    }


def sampled(network: Network, vocabulary: Vocabulary) -> Ids:
    """A text that a model writes, (N,): many samples, one after the other."""
    streams, length = _SAMPLE
    begun = read_beginning(network, vocabulary, np.zeros(0, vocabulary.dtype))
    writing = Streams(network, vocabulary, begun, Choice(DEFAULT_TEMPERATURE), range(streams))
    return np.stack([writing.step() for _ in range(length)], axis=1).reshape(-1).astype(vocabulary.dtype)


def _described(model: Checkpoint, weights: dict[str, Any]) -> dict[str, Any]:
    """What the page says of the model, and its weights: all low bytes and then all high ones, which pack better."""
    vocabulary, config, progress = model.vocabulary, model.config, model.progress
    cell = CELLS[config.cell]
    numbers = np.concatenate([weights[name].ravel() for name in weight_shapes(config)]).astype("<f2")
    planes = numbers.view(np.uint8).reshape(-1, 2).T.tobytes()
    loss = progress.final_loss if progress.final_loss is not None else progress.best_loss
    network = f"{config.layers} x {config.units} {cell.TITLE}"
    of_loss = "" if loss is None else f"; validation loss {loss:.4f} nats per {vocabulary.unit}"
    size = plural(model.corpus.characters, vocabulary.unit)
    settings = model.settings
    facts = {
        "Network": f"{network}, embedding {config.embedding}",
        "Weights": f"{count_weights(config):,}, here in half precision",
        "Text": size,
        "Updates": f"{progress.step:,} of {progress.total_steps:,}",
        "Batch": f"{settings.batch_size} streams of {settings.seq_length} {vocabulary.unit}s",
        "Learning rate": f"{settings.learning_rate:g}",
        "Dropout": f"{settings.dropout:g}",
        "Started from": settings.source or ("another checkpoint" if settings.init_from else "nothing"),
        "Validation loss": "none yet" if loss is None else f"{loss:.4f} nats per {vocabulary.unit}",
        "Vocabulary": f"{vocabulary.kind}, {plural(len(vocabulary), 'symbol')}: "
        + ("all bytes" if vocabulary.kind == "bytes" else vocabulary.characters.replace("\n", "").replace("\t", "")),
    }
    return {
        "summary": f"A {network} with {count_weights(config):,} weights, trained on {size}{of_loss}.",
        "facts": list(facts.items()),
        "sizes": {
            "cell": config.cell,
            "residual": cell.RESIDUAL,
            "memory": "c" if "c" in cell.STATE else "h",
            "units": config.units,
            "layers": config.layers,
            "symbols": config.vocabulary_size,
        },
        "tensors": [(name, weights[name].size) for name in weight_shapes(config)],
        "packed": base64.b64encode(zlib.compress(planes, 9)).decode(),
        "vocabulary": {
            "kind": vocabulary.kind,
            "characters": vocabulary.characters,
            "unknown": vocabulary.unknown,
            "boundary": vocabulary.boundary,
            "writable": vocabulary.writable.astype(int).tolist(),
            "start": beginning(vocabulary, np.zeros(0, vocabulary.dtype)).tolist(),
            "equivalents": vocabulary.replacements(ASCII_EQUIVALENTS),
        },
    }
