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

_CHUNK = 1 << 20  # characters looked up at once: what keeps the memory for a large text small


@dataclass(frozen=True)
class Vocabulary:
    """The character map: which characters the model knows, and the id of each.

    Attributes:
        kind: `ascii` (printable ASCII, newline, tab, and one unknown symbol), `text` (a text's
            own characters) or `bytes` (the 256 byte values, for raw bytes).
        characters: the characters in the order of their ids; for `bytes`, U+0000 to U+00FF stand
            for the byte values.
        known: those of them that the model has been trained on, in the same order: by its run, or by the run
            that it was started from. None: all.
        seen: those that the run's own text has, in the same order: what the model writes. None: all.
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
        """The same characters and ids, of which the model has been trained on `known` and its text has `seen`."""

        def some(characters: Iterable[str]) -> str | None:
            among = set(characters)
            chosen = "".join(c for c in self.characters if c in among)
            return None if chosen == self.characters else chosen

        return dataclasses.replace(self, known=some(known), seen=some(seen))

    @property
    def unrestricted(self) -> Vocabulary:
        """The same, all characters known: what a text is scored with and compared in."""
        return self.restricted(self.characters, self.characters)

    @property
    def writable(self) -> npt.NDArray[np.bool_]:
        """Which ids the model may write, (V,): those that its text has, and never the unknown symbol."""
        mask = np.zeros(len(self), np.bool_)
        # A text can consist of nothing but characters outside; its model writes any of the others.
        mask[[self._id_of[c] for c in self.seen_characters or self.characters]] = True
        return mask

    def __len__(self) -> int:
        """The number of ids, the unknown symbol included."""
        return len(self.characters) + (self.unknown is not None)

    @property
    def unknown(self) -> int | None:
        """The id of the unknown symbol: the last one of `ascii`; the other kinds have none."""
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
        """`known`, spelled out."""
        return self.characters if self.known is None else self.known

    @property
    def seen_characters(self) -> str:
        """`seen`, spelled out."""
        return self.characters if self.seen is None else self.seen

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.known_characters)

    def __contains__(self, character: str) -> bool:
        """Whether the model knows a character."""
        return character in self._known

    def id_of(self, character: str) -> int | None:
        """The character's id, None if it has none; it may have one and not be known."""
        return self._id_of.get(character)

    def normalise(self, text: str, note: Note = ignore_note) -> str:
        """Put ASCII in the place of typography that is not in the vocabulary, where the ASCII is.

        For `ascii` that changes a text as the training text was changed. The training text of a `text`
        vocabulary kept its own characters; those it did not have become what it had.

        Args:
            text: any text.
            note: told, in a line, what was mapped.
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
        """Ids of a text, shape (len(text),).

        Args:
            text: any text.
            outside: the id of characters that have none, the unknown symbol's or the first that is free; None: the
                unknown symbol's.

        Raises:
            KeyError: a character has no id, and there is none for such characters.
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
        """The known text that comes closest: ASCII equivalent, without its accent, other case, typography.

        Returns:
            One or more known characters, None where nothing comes close.
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
        """The text of ids: for each the text that it completes, and at the end what is left; see `Decoder`."""
        decoder = Decoder(self, errors)
        for id in ids:
            yield decoder.decode((id,))
        if left := decoder.decode((), final=True):
            yield left


class Decoder:
    """Turns the ids of one text into characters, in as many pieces as one likes.

    Bytes wait until they make up a character of UTF-8.

    Attributes:
        invalid: how many sequences of bytes became U+FFFD.
    """

    def __init__(self, vocabulary: Vocabulary, errors: str = "replace") -> None:
        """Begin a text.

        Args:
            vocabulary: of the ids.
            errors: what invalid or unfinished bytes of a `bytes` vocabulary become: `replace` gives U+FFFD,
                `surrogateescape` what encodes to the same bytes again.
        """
        self.invalid = 0
        self.errors = errors
        self._characters = vocabulary.characters + ("\ufffd" if vocabulary.unknown is not None else "")
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors) if vocabulary.kind == "bytes" else None

    @property
    def waits(self) -> bool:
        """Whether the bytes so far end within a character."""
        return self._utf8 is not None and bool(self._utf8.getstate()[0])

    def decode(self, ids: Sequence[int], final: bool = False) -> str:
        """The text that the next ids complete; with `final` also what is left."""
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
