"""Finds passages that a sample has copied from a text, character for character."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from charrnn import CharrnnError
from charrnn.messages import Note, ignore_note, plural
from charrnn.sampling.samples import Sample
from charrnn.text.reading import decode, read_bytes
from charrnn.text.typed import normalised
from charrnn.text.vocabulary import Ids, Vocabulary

LEAST = 20  # characters in a run that counts as copied; shorter ones are common phrases of the language
CHUNK = 1 << 18  # characters of the text to compare at once; this limits the memory
_SHOWN = 60  # characters of the longest passage that a message quotes


@dataclass(frozen=True)
class Copies:
    """The copied passages of a sample.

    Attributes:
        copied: (N,), whether each character of the sample is in a run of LEAST or more that also occurs in the text.
        length: length of the longest passage that occurs in both, even if shorter than LEAST; 0 if there is none.
        start: where that passage starts in the sample.
        position: where that passage first occurs in the text.
    """

    copied: npt.NDArray[np.bool_]
    length: int
    start: int
    position: int


def find_copies(sample: Ids, text: Ids, least: int = LEAST) -> Copies:
    """Compare a sample with a text through hashes of their windows (Karp and Rabin, 1987, IBM Journal 31).

    Args:
        sample: (N,), thousands of characters.
        text: (M,), millions, as ids of the same vocabulary.
        least: characters in a run that counts as copied.
    """
    ours = _Hashes(sample)
    starts = np.zeros(max(0, len(sample) - least + 1), bool)  # of copied windows, each `least` wide
    length = start = position = 0
    for chunk in range(0, len(text), CHUNK):
        # A passage that starts in this chunk ends at most one sample length after it.
        theirs = _Hashes(text[chunk : chunk + CHUNK + len(sample) - 1])
        starts |= np.isin(ours.of(least), _common(ours, theirs, least)[1])
        wide, too_wide = length, length + 2  # bounds for the width of a longer passage in this chunk
        while len(places := _common(ours, theirs, too_wide - 1)[0]):
            wide, too_wide = too_wide - 1, 2 * too_wide
            position = chunk + int(places[0])
        while too_wide - wide > 1:
            width = (wide + too_wide) // 2
            if len(places := _common(ours, theirs, width)[0]):
                wide, position = width, chunk + int(places[0])
            else:
                too_wide = width
        if wide > length:
            length = wide
            start = int((ours.of(length) == _Hashes(text[position : position + length]).of(length)).argmax())
    copied = np.zeros(len(sample), bool)
    for offset in range(least):
        copied[offset : offset + len(starts)] |= starts
    return Copies(copied, length, start, position)


_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_Hash = npt.NDArray[np.uint64]


class _Hashes:
    """The hashes of all windows in a text: polynomials modulo 2**64 over symbols whose bits are mixed first."""

    def __init__(self, ids: Ids) -> None:
        symbols = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(_BASE)
        symbols ^= symbols >> np.uint64(29)
        terms = symbols * _powers(_BASE, len(ids))
        self._sums = np.concatenate([np.zeros(1, np.uint64), np.add.accumulate(terms)])
        self._inverses = _powers(pow(_BASE, -1, 1 << 64), len(ids))

    def of(self, width: int) -> _Hash:
        """The hash of each window of that width, in text order."""
        if width >= len(self._sums):
            return np.zeros(0, np.uint64)
        return np.asarray((self._sums[width:] - self._sums[:-width]) * self._inverses[: len(self._sums) - width])


def _powers(base: int, count: int) -> _Hash:
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    return np.multiply.accumulate(powers)


def _common(sample: _Hashes, text: _Hashes, width: int) -> tuple[npt.NDArray[np.intp], _Hash]:
    """The starts of the text's windows that also occur in the sample, and the hashes of those windows."""
    ours, theirs = np.sort(sample.of(width)), text.of(width)
    if not len(ours):
        return np.zeros(0, np.intp), ours
    found = ours[np.minimum(np.searchsorted(ours, theirs), len(ours) - 1)] == theirs
    return np.flatnonzero(found), theirs[found]


@dataclass(frozen=True)
class Original:
    """A text to compare samples with.

    Attributes:
        name: its name in messages.
        text: the text, read like the model's training text; bytes for a `bytes` model.
        vocabulary: the model's vocabulary.
        ids: the text in that vocabulary, (M,), with one extra id for all characters outside the vocabulary.
    """

    name: str
    text: str | bytes
    vocabulary: Vocabulary
    ids: Ids

    def compared(self, samples: Iterable[Sample], count: int, note: Note) -> Iterator[Sample]:
        """Finish samples, mark the passages that each copies from this text, and pass them on.

        Args:
            samples: the samples to compare.
            count: the number of samples.
            note: called with two lines for each sample: how much it copied, and the longest passage.
        """
        for sample in samples:
            sample.finish()
            copies = find_copies(sample.ids, self.ids)
            sample.copied = copies.copied
            for line in self.describe(sample.ids, copies):
                note(line if count == 1 else f"seed {sample.seed}: {line}")
            yield sample

    def describe(self, sample: Ids, copies: Copies) -> Iterator[str]:
        """Describe in two lines how much of a sample is copied from this text, and the longest passage."""
        unit = "byte" if self.vocabulary.kind == "bytes" else "character"
        count, size = int(copies.copied.sum()), plural(len(sample), f"new {unit}")
        share = f" ({count / len(sample):.1%})" if len(sample) else ""
        yield f"copied from {self.name}: {count:,} of {size}{share}, in runs of {LEAST} or more"
        if copies.length:
            passage = "".join(self.vocabulary.decode(map(int, sample[copies.start : copies.start + copies.length])))
            shown = passage if len(passage) <= _SHOWN else passage[: _SHOWN - 3] + "..."
            yield f'longest passage: {plural(copies.length, unit)}, line {self._line(copies.position):,}: "{shown}"'

    def _line(self, position: int) -> int:
        if isinstance(self.text, bytes):
            return self.text.count(b"\n", 0, position) + 1
        return self.text.count("\n", 0, position) + 1


def read_original(file: str, vocabulary: Vocabulary, encoding: str) -> Original:
    """Read a file in the same way as a model's training text.

    Invalid bytes become U+FFFD even if training rejected them, because any text may be compared. If training
    rejected them, its own text has none.

    Args:
        file: a path; `-` is standard input.
        vocabulary: the model's vocabulary.
        encoding: the encoding of the model's training text.

    Raises:
        CharrnnError: the file cannot be read or decoded, or is empty.
    """
    [(name, data)] = read_bytes([file])
    if vocabulary.kind == "bytes":
        text: str | bytes = data
        ids: Ids = np.frombuffer(data, np.uint8)
    else:
        text = normalised(name, decode(name, data, encoding, "replace"), vocabulary.unrestricted, ignore_note)
        ids = vocabulary.encode(text, None if vocabulary.kind == "ascii" else len(vocabulary))
    if not text:
        raise CharrnnError(f"{name}: empty, so there is nothing to compare with")
    return Original(name, text, vocabulary, ids)
