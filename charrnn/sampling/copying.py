"""Finds passages that a sample has copied from a text, character for character."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from charrnn import CharrnnError
from charrnn.messages import Note, plural, say
from charrnn.sampling.samples import Sample
from charrnn.text.reading import Changes, Source, can_be_read_as, decoded
from charrnn.text.typed import Form, normal_form
from charrnn.text.vocabulary import Ids, Vocabulary, look_up

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


def find_copies(sample: Ids, pieces: Iterable[Ids], least: int = LEAST) -> Copies:
    """Compare a sample with a text through hashes of their windows (Karp and Rabin, 1987, IBM Journal 31).

    Args:
        sample: (N,), thousands of characters.
        pieces: the text, any number of characters, as ids of the same vocabulary.
        least: characters in a run that counts as copied.
    """
    ours = _Hashes(sample)
    starts = np.zeros(max(0, len(sample) - least + 1), bool)  # of copied windows, each `least` wide
    length = start = position = 0
    # A passage that starts in a chunk ends at most one sample length after it.
    for place, chunk in _chunks(pieces, max(0, len(sample) - 1)):
        theirs = _Hashes(chunk)
        starts |= np.isin(ours.of(least), _common(ours, theirs, least)[1])
        wide, too_wide = length, length + 2  # bounds for the width of a longer passage in this chunk
        while len(places := _common(ours, theirs, too_wide - 1)[0]):
            wide, too_wide = too_wide - 1, 2 * too_wide
            position = place + int(places[0])
        while too_wide - wide > 1:
            width = (wide + too_wide) // 2
            if len(places := _common(ours, theirs, width)[0]):
                wide, position = width, place + int(places[0])
            else:
                too_wide = width
        if wide > length:
            length = wide
            start = int((ours.of(length) == theirs.of(length)[position - place]).argmax())
    copied = np.zeros(len(sample), bool)
    for offset in range(least):
        copied[offset : offset + len(starts)] |= starts
    return Copies(copied, length, start, position)


def _chunks(pieces: Iterable[Ids], overlap: int) -> Iterator[tuple[int, Ids]]:
    """Cut a text into chunks that overlap the next one: the place of each, and its ids."""
    held: list[Ids] = []
    place = size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        while size >= CHUNK + overlap:
            whole = np.concatenate(held)
            yield place, whole[: CHUNK + overlap]
            held, size, place = [whole[CHUNK:]], size - CHUNK, place + CHUNK
    if size:
        yield place, np.concatenate(held)


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
    """A text to compare samples with; it is read again for each comparison, so that its length does not matter.

    Attributes:
        source: the file.
        vocabulary: the model's vocabulary.
        encoding: the encoding of the file.
        form: the Unicode normal form to convert it to, if any.
        marked: puts marks at boundaries between texts, before characters are replaced.
    """

    source: Source
    vocabulary: Vocabulary
    encoding: str
    form: Form | None = None
    marked: Callable[[Iterator[str]], Iterator[str]] = lambda text: text

    def text(self) -> Iterator[str]:
        """The text in pieces, read like the model's training text; for a `bytes` model, U+0000 to U+00FF are bytes.

        Invalid bytes become U+FFFD even if training rejected them, because any text may be compared. If training
        rejected them, its own text has none.
        """
        if self.vocabulary.kind == "bytes":
            yield from self.marked(block.decode("latin-1") for block in self.source.blocks())
            return
        everything = self.vocabulary.unrestricted
        for piece in _joined(self.marked(decoded(self.source, self.encoding, "replace", Changes()))):
            text = everything.normalise(piece)
            yield text if self.form is None else unicodedata.normalize(self.form, text)

    def ids(self) -> Iterator[Ids]:
        """The text as ids, in pieces, with one extra id for all characters outside the vocabulary."""
        table = self.vocabulary.table()
        return (look_up(table, piece) for piece in self.text())

    def compared(self, samples: Iterable[Sample], count: int, note: Note) -> Iterator[Sample]:
        """Finish samples, mark the passages that each copies from this text, and pass them on.

        Args:
            samples: the samples to compare.
            count: the number of samples.
            note: called with two lines for each sample: how much it copied, and the longest passage.
        """
        for sample in samples:
            sample.finish()
            copies = find_copies(sample.ids, self.ids())
            sample.copied = copies.copied
            for line in self.describe(sample.ids, copies):
                note(line if count == 1 else f"seed {sample.seed}: {line}")
            yield sample

    def describe(self, sample: Ids, copies: Copies) -> Iterator[str]:
        """Describe in two lines how much of a sample is copied from this text, and the longest passage."""
        unit = self.vocabulary.unit
        count, size = int(copies.copied.sum()), plural(len(sample), f"new {unit}")
        share = f" ({count / len(sample):.1%})" if len(sample) else ""
        yield f"copied from {self.source.name}: {count:,} of {size}{share}, in runs of {LEAST} or more"
        if copies.length:
            passage = "".join(self.vocabulary.decode(map(int, sample[copies.start : copies.start + copies.length])))
            shown = passage if len(passage) <= _SHOWN else passage[: _SHOWN - 3] + "..."
            yield f'longest passage: {plural(copies.length, unit)}, line {self._line(copies.position):,}: "{shown}"'

    def _line(self, position: int) -> int:
        newlines = 0
        for piece in self.text():
            newlines += piece.count("\n", 0, max(0, position))
            position -= len(piece)
            if position <= 0:
                break
        return newlines + 1


def _joined(pieces: Iterable[str]) -> Iterator[str]:
    """Move the ends of pieces, so that none lies between a letter and its accent."""
    held = ""
    for piece in pieces:
        end = next((at for at in reversed(range(len(piece))) if _begins(piece[at])), 0)
        if end:
            yield held + piece[:end]
            held = ""
        held += piece[end:]
    yield held


def _begins(character: str) -> bool:
    """Whether it never joins the character before it: printable ASCII, or a Chinese character."""
    return " " <= character <= "~" or "\u4e00" <= character <= "\u9fff"


def read_original(file: str, vocabulary: Vocabulary, encoding: str) -> Original:
    """Open a file to compare samples with.

    Args:
        file: a path; `-` is standard input.
        vocabulary: the model's vocabulary.
        encoding: the encoding of the model's training text.

    Raises:
        CharrnnError: the file cannot be read or decoded, or is empty.
    """
    source = Source.open(file)
    original = Original(source, vocabulary, encoding)
    if not any(original.text()):
        raise CharrnnError(f"{source.name}: empty; there is no text in it")
    if vocabulary.kind == "bytes":
        return original
    if encoding != "utf-8":
        say(f"{source.name}: read as {encoding}, like the training text")
    if not can_be_read_as(source, encoding):
        say(f"{source.name}: has bytes that are not valid in {encoding}; they are read as U+FFFD")
    return Original(source, vocabulary, encoding, normal_form(original.text, vocabulary.unrestricted))
