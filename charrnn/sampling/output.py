"""Formats samples for stdout as text or JSON, and writes notes about them to stderr."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from charrnn.messages import Note, encodable, plural
from charrnn.sampling.loops import repeated_passage
from charrnn.sampling.samples import Request, Sample
from charrnn.text.vocabulary import Vocabulary

SEPARATOR = "\n%\n"  # a line with only %, as in the files that fortune reads


def separator_for(request: Request, vocabulary: Vocabulary, split_at: str | None, errors: str) -> str:
    """The text after each of several samples: the stop text, what separated the training texts, or SEPARATOR.

    A newline follows text that has none; charrnn train ignores it there.
    """
    if split_at is not None and "\n" not in split_at:
        split_at += "\n"
    return _stop_text(request, vocabulary, errors) or split_at or SEPARATOR


def as_text(samples: Iterable[Sample], separator: str) -> Iterator[str]:
    """The samples in turn, each with its prime and the separator."""
    for sample in samples:
        yield sample.prime
        yield from sample.pieces()
        yield separator


def as_marked_text(samples: Iterable[Sample], separator: str) -> Iterator[tuple[str, bool]]:
    """Like `as_text` for samples that were compared with a text: their pieces, and whether each piece is copied."""
    for sample in samples:
        assert sample.copied is not None  # it was compared
        yield sample.prime, False
        for id, copied in zip(sample.ids.tolist(), sample.copied.tolist(), strict=True):
            yield sample.decoder.decode((id,)), copied
        yield sample.decoder.decode((), final=True) + separator, False


def as_json(samples: Iterable[Sample], request: Request, vocabulary: Vocabulary, checkpoint: str) -> Iterator[str]:
    """The samples as JSON, one object and line for each; they must be scored.

    For a `bytes` model, each object also has the bytes in base64, because the text loses those that are not UTF-8.
    Probabilities come from the model's own distribution, before temperature, top-k, top-p and min-p.
    """
    import base64
    import json

    settings = {
        "checkpoint": encodable(checkpoint),
        "length": request.length,
        **dataclasses.asdict(request.choice),
        "stop": _stop_text(request, vocabulary),
    }
    for sample in samples:
        text = "".join(sample.pieces())
        logarithms = sample.log_probabilities
        line = {
            "text": text,
            "prime": sample.prime,
            **({"bytes": base64.b64encode(bytes(sample.ids.tolist())).decode()} if vocabulary.kind == "bytes" else {}),
            "seed": sample.seed,
            "settings": settings,
            "end": sample.end,
            "stopped": sample.end == "stop",
            "log_probability": float(logarithms.sum()),
            "nats_per_character": -float(logarithms.mean()) if len(logarithms) else None,
            "probabilities": [float(f"{probability:.6g}") for probability in np.exp(logarithms)],
        }
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _stop_text(request: Request, vocabulary: Vocabulary, errors: str = "replace") -> str | None:
    return None if request.stop is None else "".join(vocabulary.decode(request.stop.tolist(), errors))


def with_notes(samples: Iterable[Sample], request: Request, vocabulary: Vocabulary, note: Note) -> Iterator[Sample]:
    """Pass samples on and, after their consumer has read them, report what went wrong with them.

    Args:
        samples: the samples to pass on.
        request: the request for these samples.
        vocabulary: the model's vocabulary.
        note: called with one line for each sample that fell into a loop. At the end, called with the number of
            samples that did not reach the stop text, and the number of invalid byte sequences that became U+FFFD.
    """
    count = unstopped = invalid = 0
    for sample in samples:
        yield sample
        count += 1
        unstopped += request.stop is not None and sample.end == "length"
        invalid += sample.decoder.invalid
        if passage := repeated_passage(sample.ids):
            shown = "".join(vocabulary.decode(sample.ids[-passage:].tolist()))
            shown = shown if len(shown) <= 40 else f"{shown[:40]}..."
            note(f"the sample with seed {sample.seed} repeats {shown!r} over and over: {_advice(request)}")
    if unstopped:
        note(
            f"{unstopped:,} of {plural(count, 'sample')} reached --length {request.length:,} before the stop text"
            if count > 1
            else f"the sample reached --length {request.length:,} before the stop text"
        )
    if invalid:
        note(f"{plural(invalid, 'invalid byte sequence')} became U+FFFD")


def _advice(request: Request) -> str:
    choice = request.choice
    if choice.top_k == 1:
        return "use a larger --top-k"
    if choice.temperature == 0:
        return "use a --temperature above 0"
    leave_out = "".join(f", leave out --{name.replace('_', '-')}" for name in choice.narrowing[:1])
    return f"use a --temperature above {choice.temperature:g}{leave_out} or try another --seed"
