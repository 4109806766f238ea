"""The Vocabulary: which characters the model knows, and the id of each."""

from __future__ import annotations

import codecs
import dataclasses
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from charrnn.messages import Note, ignore_note, plural, show

Ids = npt.NDArray[np.unsignedinteger]

PRINTABLE_ASCII = "\t\n" + "".join(map(chr, range(0x20, 0x7F)))
VOCABULARY_KINDS = ("ascii", "text", "bytes")

# Typographic characters and what a typewriter would put in their place.
ASCII_EQUIVALENTS = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2039\u203a\u2032", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"),
    **dict.fromkeys("\u2014\u2015", "--"),
    "\u2026": "...",
    **dict.fromkeys("\u00a0\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))), " "),
}

_CHUNK = 1 << 20  # characters looked up at a time, to bound the memory for a large text


def boundary_mark(kind: str) -> str:
    """The character that stands for a boundary between texts: one that no text of this kind of vocabulary contains."""
    return "\u0100" if kind == "bytes" else "\0"


@dataclass(frozen=True)
class Vocabulary:
    """The character map: which characters the model knows, and the id of each.

    Attributes:
        kind: `ascii` (printable ASCII, newline, tab, and one unknown symbol), `text` (a text's
            own characters) or `bytes` (the 256 byte values, for raw bytes).
        characters: the characters in the order of their ids; for `bytes`, U+0000 to U+00FF stand
            for the byte values.
        known: the characters that the model was trained on, in the same order: in its run, or in the run that it was
            started from. None: all.
        seen: the characters that occur in the run's own text, in the same order: the model writes only these.
            None: all.
        has_boundary: whether there is one more id, the last one, for the boundary that ends a text.
        writes_boundary: whether the run's own text has boundaries, so that the model may end a text.
    """

    kind: str
    characters: str
    known: str | None = None
    seen: str | None = None
    has_boundary: bool = False
    writes_boundary: bool = False

    @staticmethod
    def ascii() -> Vocabulary:
        """Printable ASCII, newline and tab (97 symbols), and an unknown symbol."""
        return Vocabulary("ascii", PRINTABLE_ASCII)

    @staticmethod
    def bytes() -> Vocabulary:
        """The 256 byte values."""
        return Vocabulary("bytes", "".join(map(chr, range(256))))

    def restricted(self, known: Iterable[str], seen: Iterable[str]) -> Vocabulary:
        """The same characters and ids, of which the model was trained on `known` and its text contains `seen`."""

        def some(characters: Iterable[str]) -> str | None:
            among = set(characters)
            chosen = "".join(c for c in self.characters if c in among)
            return None if chosen == self.characters else chosen

        return dataclasses.replace(self, known=some(known), seen=some(seen))

    @property
    def unrestricted(self) -> Vocabulary:
        """The same with all characters known, for scoring and comparing texts."""
        return self.restricted(self.characters, self.characters)

    @property
    def writable(self) -> npt.NDArray[np.bool_]:
        """Which ids the model may write, (V,): those that occur in its text, never the unknown symbol."""
        mask = np.zeros(len(self), np.bool_)
        # A text can consist only of characters outside the vocabulary; its model then writes any character.
        mask[[self._id_of[c] for c in self.seen_characters or self.characters]] = True
        if self.boundary is not None:
            mask[self.boundary] = self.writes_boundary
        return mask

    def __len__(self) -> int:
        """The number of ids, including the unknown symbol and the boundary."""
        return len(self.characters) + (self.unknown is not None) + self.has_boundary

    @property
    def unit(self) -> str:
        """What one id stands for, in messages: a character or a byte."""
        return "byte" if self.kind == "bytes" else "character"

    @property
    def unknown(self) -> int | None:
        """The id of the unknown symbol: the one after the characters of `ascii`; None for the other kinds."""
        return len(self.characters) if self.kind == "ascii" else None

    @property
    def boundary(self) -> int | None:
        """The id of the boundary that ends a text, or None."""
        return len(self) - 1 if self.has_boundary else None

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """The smallest unsigned integer that holds every id."""
        return np.uint8 if len(self) <= 1 << 8 else np.uint16 if len(self) <= 1 << 16 else np.uint32

    @cached_property
    def _id_of(self) -> dict[str, int]:
        return {character: index for index, character in enumerate(self.characters)}

    @property
    def known_characters(self) -> str:
        """`known` as a string, never None."""
        return self.characters if self.known is None else self.known

    @property
    def seen_characters(self) -> str:
        """`seen` as a string, never None."""
        return self.characters if self.seen is None else self.seen

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.known_characters)

    def __contains__(self, character: str) -> bool:
        """Whether the model knows a character."""
        return character in self._known

    def id_of(self, character: str) -> int | None:
        """The character's id, or None; a character that has an id may still be unknown."""
        return self._id_of.get(character)

    def replacements(self, characters: Iterable[str]) -> dict[str, str]:
        """The typographic characters among these that are not in the vocabulary, and ASCII equivalents that are."""
        if self.kind == "bytes":
            return {}
        return {
            c: ASCII_EQUIVALENTS[c]
            for c in characters
            if c not in self and c in ASCII_EQUIVALENTS and all(plain in self for plain in ASCII_EQUIVALENTS[c])
        }

    def normalise(self, text: str, note: Note = ignore_note) -> str:
        """Replace typographic characters that are not in the vocabulary by ASCII equivalents that are.

        For `ascii`, the training text was changed in the same way. The training text of a `text` vocabulary kept its
        own characters; only typographic characters that it lacks are replaced, by characters that it has.

        Args:
            text: any text.
            note: called with one line that lists the replacements.
        """
        if text.isascii():
            return text
        counts = count_characters(text)
        replacements = self.replacements(counts)
        if not replacements:
            return text
        note(replaced(counts, replacements))
        return replace_all(text, replacements)

    def texts(self, boundary: str) -> list[str]:
        """The text of each id: its character, U+FFFD for the unknown symbol, and the given text for a boundary."""
        return [*self.characters, *["\ufffd"] * (self.unknown is not None), boundary]

    def table(self, outside: int | None = None) -> Ids:
        """The id of each code point.

        Args:
            outside: the id of those that have none; None stands for the unknown symbol's or the first free id.

        Returns:
            Ids, (N,), up to the highest code point that has one and one more for all above it.
        """
        if outside is None:
            outside = len(self) if self.unknown is None else self.unknown
        points = [ord(c) for c in self.characters]
        mark = ord(boundary_mark(self.kind))
        table = np.full(max([mark, *points]) + 2, outside, np.min_scalar_type(max(outside, len(self) - 1)))
        table[points] = np.arange(len(points))
        if self.boundary is not None:
            table[mark] = self.boundary
        return table

    def encode(self, text: str) -> Ids:
        """The ids of a text, shape (len(text),).

        Raises:
            KeyError: a character has no id, and there is no unknown symbol.
        """
        table, ids = self.table(), np.empty(len(text), self.dtype)
        for start in range(0, len(text), _CHUNK):
            found = look_up(table, text[start : start + _CHUNK])
            if self.unknown is None and found.size and found.max() == len(self):
                raise KeyError(text[start + int(found.argmax())])
            ids[start : start + len(found)] = found
        return ids

    def nearest(self, character: str) -> str | None:
        """Find the closest known text: ASCII equivalent, other case, without its accent, or typographic form.

        Returns:
            One or more known characters, or None if nothing is close; of bytes, none is.
        """
        if self.kind == "bytes":
            return None
        bare = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
        candidates = [
            ASCII_EQUIVALENTS.get(character, ""),
            character.casefold(),
            character.swapcase(),
            bare,
            bare.swapcase(),
        ]
        candidates += [typographic for typographic, plain in ASCII_EQUIVALENTS.items() if plain == character]
        for candidate in candidates:
            if candidate and all(c in self for c in candidate):
                return candidate
        return None

    def decode(self, ids: Iterable[int], errors: str = "replace") -> Iterator[str]:
        """Decode ids: yield the text that each of them completes, and at the end the rest; see `Decoder`."""
        decoder = Decoder(self, errors)
        for id in ids:
            yield decoder.decode((id,))
        if left := decoder.decode((), final=True):
            yield left


class Decoder:
    """Decodes the ids of one text, in any number of pieces.

    It holds bytes back until they complete a UTF-8 character.

    Attributes:
        invalid: the number of byte sequences that became U+FFFD.
    """

    def __init__(self, vocabulary: Vocabulary, errors: str = "replace") -> None:
        """Start a text.

        Args:
            vocabulary: the vocabulary of the ids.
            errors: what invalid or unfinished bytes of a `bytes` vocabulary become: `replace` gives U+FFFD;
                `surrogateescape` gives characters that encode to the same bytes again.
        """
        self.invalid = 0
        self._texts = vocabulary.texts("")
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors) if vocabulary.kind == "bytes" else None

    @property
    def waits(self) -> bool:
        """Whether the bytes so far end in the middle of a character."""
        return self._utf8 is not None and bool(self._utf8.getstate()[0])

    def decode(self, ids: Sequence[int], final: bool = False) -> str:
        """The text that the next ids complete; with `final` also the rest."""
        if self._utf8 is None:
            return "".join([self._texts[id] for id in ids])
        data = bytes([id for id in ids if id < 256])  # without a boundary
        before = self._utf8.getstate()[0]
        text = self._utf8.decode(data, final)
        self.invalid += text.count("\ufffd") - (before + data).count("\ufffd".encode())
        return text


class CharacterCounter:
    """Counts how often each character of a text occurs, piece by piece."""

    def __init__(self) -> None:
        self._counts = np.zeros(0, np.int64)  # up to the highest code point so far: short texts are counted often

    def add(self, piece: str) -> None:
        """Count the characters of one more piece."""
        found = np.bincount(_code_points(piece), minlength=len(self._counts))
        found[: len(self._counts)] += self._counts
        self._counts = found

    def counts(self) -> dict[str, int]:
        """The counts so far, in code point order."""
        return {chr(point): int(self._counts[point]) for point in np.flatnonzero(self._counts)}


def count_characters(text: str) -> dict[str, int]:
    """How often each character of a text occurs, in code point order."""
    counter = CharacterCounter()
    for start in range(0, len(text), _CHUNK):
        counter.add(text[start : start + _CHUNK])
    return counter.counts()


def replaced(counts: Mapping[str, int], replacements: Mapping[str, str]) -> str:
    """One line on typographic characters that were replaced, for a note."""
    return (
        f"mapped {plural(sum(counts[c] for c in replacements), 'typographic character')} to ASCII ("
        + ", ".join(f"{show(c)} to {plain!r}" for c, plain in replacements.items())
        + ")"
    )


def replace_all(text: str, replacements: Mapping[str, str]) -> str:
    """Replace characters, many times as fast as `str.translate`."""
    for character, plain in replacements.items():
        text = text.replace(character, plain)
    return text


def look_up(table: Ids, text: str) -> Ids:
    """The entry of a table for each character of a text, (len(text),); the last entry is for all code points above."""
    if table.itemsize == 1 and text.isascii():  # twice as fast
        entries = table[:128].tobytes()
        return np.frombuffer(text.encode().translate(entries.ljust(256, table[-1:].tobytes())), np.uint8)
    return np.asarray(table.take(_code_points(text), mode="clip"))


def _code_points(text: str) -> npt.NDArray[np.unsignedinteger]:
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
