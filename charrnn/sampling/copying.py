"""What a sample copied from a text: passages that stand in both, character for character."""

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

LEAST = 20  # characters in a run that counts as copied: shorter ones are a language's own turns
_CHUNK = 1 << 18  # characters of the text looked at together: what bounds the memory
_SHOWN = 60  # characters of the longest passage that are shown

Names = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Copies:
    """What was copied.

    Attributes:
        copied: (N,), whether each character of the sample lies in a run of LEAST or more that stands in the text.
        length: of the longest passage that stands in both, be it shorter than LEAST; 0 if no character does.
        start: where in the sample it starts.
        position: where in the text it stands first.
    """

    copied: npt.NDArray[np.bool_]
    length: int
    start: int
    position: int


def find_copies(sample: Ids, text: Ids, least: int = LEAST) -> Copies:
    """Compare a sample with a text, in time O(M log N).

    Args:
        sample: (N,), thousands of characters.
        text: (M,), millions, as ids of the same vocabulary.
        least: characters in a run that counts as copied.
    """
    windows = _Windows(sample)
    starts = np.zeros(max(0, len(sample) - least + 1), bool)  # of copied windows that are `least` wide
    length = start = position = 0
    for chunk in range(0, len(text), _CHUNK):
        # A passage that starts in this chunk ends at most a sample's length behind it.
        for width, names in windows.find_wider_and_wider(text[chunk : chunk + _CHUNK + len(sample) - 1], least):
            if width == least:
                starts |= np.isin(windows.names[width], names[names >= 0])
            if width > length:
                first = int((names >= 0).argmax())
                length, position = width, chunk + first
                start = int((windows.names[width] == names[first]).argmax())
    copied = np.zeros(len(sample), bool)
    for offset in range(least):
        copied[offset : offset + len(starts)] |= starts
    return Copies(copied, length, start, position)


class _Windows:
    """The windows of a sample, named: of one width, equal windows have equal names, and others have others.

    A wide window's name stands for the pair of names of two narrower ones that cover it (Karp, Miller and
    Rosenberg, 1972, doi:10.1145/800152.804905). So they are found in a text exactly, whole arrays at a time.

    Attributes:
        names: of each width, the names of the sample's windows, in their order.
    """

    def __init__(self, sample: Ids) -> None:
        self._size = len(sample)
        keys, names = np.unique(sample.astype(np.int64), return_inverse=True)
        self._keys = {1: keys}  # of each width, what its names stand for, sorted
        self.names: dict[int, Names] = {1: names}

    def find_wider_and_wider(self, text: Ids, least: int) -> Iterator[tuple[int, Names]]:
        """Find the sample's windows in a text, up to the widest that it has.

        Yields:
            A width, and for each position in the text the name of the window of that width that starts
            there, or -1 if the sample has no such window. Widths grow; of each, the text has some window. If
            it has one of `least`, that width is among them; the last is the largest that it has.
        """
        width, names = 1, self._named(1, text.astype(np.int64))
        if not (names >= 0).any():
            return
        yield width, names
        step, climbing = 1, True
        while step:
            wider = self._widen(width, step, names)
            if found := bool((wider >= 0).any()):
                width, names = width + step, wider
                yield width, names
            climbing = climbing and found
            if climbing:  # by the largest power of two that is no wider, with a stop at `least`
                step = 1 << (width.bit_length() - 1)
                if width < least:
                    step = min(step, least - width)
            else:  # what is left to add is less than the step: the largest power of two below that
                step = 1 << (step - 1).bit_length() >> 1

    def _widen(self, width: int, step: int, names: Names) -> Names:
        """From names of windows in a text, those of windows that are wider by a step of at most their width."""
        wide = width + step
        if wide > self._size:
            return np.full(0, -1)
        if wide not in self.names:  # which is reached from one other width only, so its names are the same each time
            pairs = self.names[width][:-step] * self._size + self.names[width][step:]
            self._keys[wide], self.names[wide] = np.unique(pairs, return_inverse=True)
        left, right = names[:-step], names[step:]
        known = np.flatnonzero((left >= 0) & (right >= 0))
        wider = np.full(len(left), -1)
        wider[known] = self._named(wide, left[known] * self._size + right[known])
        return wider

    def _named(self, width: int, wanted: Names) -> Names:
        """The names that stand for these keys, -1 where none does."""
        keys = self._keys[width]
        if not len(keys):
            return np.full(len(wanted), -1)
        names = np.searchsorted(keys, wanted)
        names[names == len(keys)] = 0
        return np.where(keys[names] == wanted, names, -1)


@dataclass(frozen=True)
class Original:
    """A text that samples are compared with.

    Attributes:
        name: how messages call it.
        text: as a model's training text is read; of a model of bytes, bytes.
        vocabulary: the model's.
        ids: the text in that vocabulary, (M,), with one more id for all characters that it does not have.
    """

    name: str
    text: str | bytes
    vocabulary: Vocabulary
    ids: Ids

    def compared(self, samples: Iterable[Sample], count: int, note: Note) -> Iterator[Sample]:
        """Finish samples, mark in each what is copied from here, and pass them on.

        Args:
            samples: to compare.
            count: how many they are.
            note: told of each in two lines what was copied.
        """
        for sample in samples:
            sample.finish()
            copies = find_copies(sample.ids, self.ids)
            sample.copied = copies.copied
            for line in self.describe(sample.ids, copies):
                note(line if count == 1 else f"seed {sample.seed}: {line}")
            yield sample

    def describe(self, sample: Ids, copies: Copies) -> Iterator[str]:
        """Say in two lines what of a sample was copied from here: how much, and the longest passage."""
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
    """Read a file as the training text of a model was read.

    Bytes that are not valid become U+FFFD even if training refused them: any text may be compared, and in one
    that was trained on there are none.

    Args:
        file: a path; `-` is standard input.
        vocabulary: the model's.
        encoding: of the model's training text.

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
        raise CharrnnError(f"{name}: empty, there is nothing in it to compare with")
    return Original(name, text, vocabulary, ids)
