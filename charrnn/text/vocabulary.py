"""The Vocabulary: which characters the model knows, and the id of each."""

from __future__ import annotations

import codecs
import dataclasses
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
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
    """

    kind: str
    characters: str
    known: str | None = None
    seen: str | None = None

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
        return mask

    def __len__(self) -> int:
        """The number of ids, including the unknown symbol."""
        return len(self.characters) + (self.unknown is not None)

    @property
    def unknown(self) -> int | None:
        """The id of the unknown symbol: the last id of `ascii`; None for the other kinds."""
        return len(self.characters) if self.kind == "ascii" else None

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

    def normalise(self, text: str, note: Note = ignore_note) -> str:
        """Replace typographic characters that are not in the vocabulary by ASCII equivalents that are.

        For `ascii`, the training text was changed in the same way. The training text of a `text` vocabulary kept its
        own characters; only typographic characters that it lacks are replaced, by characters that it has.

        Args:
            text: any text.
            note: called with one line that lists the replacements.
        """
        if self.kind == "bytes" or text.isascii():
            return text
        counts = {
            c: n
            for c, n in count_characters(text).items()
            if c not in self and c in ASCII_EQUIVALENTS and all(plain in self for plain in ASCII_EQUIVALENTS[c])
        }
        if not counts:
            return text
        note(
            f"mapped {plural(sum(counts.values()), 'typographic character')} to ASCII ("
            + ", ".join(f"{show(c)} to {ASCII_EQUIVALENTS[c]!r}" for c in counts)
            + ")"
        )
        return text.translate({ord(c): ASCII_EQUIVALENTS[c] for c in counts})

    def encode(self, text: str, outside: int | None = None) -> Ids:
        """The ids of a text, shape (len(text),).

        Args:
            text: any text.
            outside: the id for characters that have none: the unknown symbol's or the first free id. None: the unknown
                symbol's.

        Raises:
            KeyError: a character has no id, and there is no id for such characters.
        """
        outside = self.unknown if outside is None else outside
        missing = len(self) if outside is None else outside
        table = np.full(sys.maxunicode + 1, missing, dtype=np.int64)
        table[[ord(c) for c in self.characters]] = np.arange(len(self.characters))
        ids = np.empty(len(text), np.uint32 if outside == len(self) else self.dtype)
        for start in range(0, len(text), _CHUNK):
            found = table[_code_points(text[start : start + _CHUNK])]
            if outside is None and found.size and found.max() == missing:
                raise KeyError(text[start + int(found.argmax())])
            ids[start : start + len(found)] = found
        return ids

    def nearest(self, character: str) -> str | None:
        """Find the closest known text: ASCII equivalent, other case, without its accent, or typographic form.

        Returns:
            One or more known characters, or None if nothing is close.
        """
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
        self.errors = errors
        self._characters = vocabulary.characters + ("\ufffd" if vocabulary.unknown is not None else "")
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors) if vocabulary.kind == "bytes" else None

    @property
    def waits(self) -> bool:
        """Whether the bytes so far end in the middle of a character."""
        return self._utf8 is not None and bool(self._utf8.getstate()[0])

    def decode(self, ids: Sequence[int], final: bool = False) -> str:
        """The text that the next ids complete; with `final` also the rest."""
        if self._utf8 is None:
            return "".join([self._characters[id] for id in ids])
        data = bytes(ids)
        before = self._utf8.getstate()[0]
        text = self._utf8.decode(data, final)
        self.invalid += text.count("\ufffd") - (before + data).count("\ufffd".encode())
        return text


def count_characters(text: str) -> dict[str, int]:
    """How often each character of a text occurs, in code point order."""
    counts = np.zeros(sys.maxunicode + 1, dtype=np.int64)
    for start in range(0, len(text), _CHUNK):
        found = np.bincount(_code_points(text[start : start + _CHUNK]))
        counts[: len(found)] += found
    return {chr(point): int(counts[point]) for point in np.flatnonzero(counts)}


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
