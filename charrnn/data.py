"""From text files to batches of character ids: reading, the Vocabulary, the split, the windows."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from charrnn import CharrnnError

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
_TO_ASCII = str.maketrans(ASCII_EQUIVALENTS)

# More than this share of characters outside ASCII and the text gets a vocabulary of its own.
MAX_UNKNOWN_SHARE = 1 / 10_000

VALIDATION_SHARE = 0.1
WARM_UP = 256  # characters read before the first one that is scored
_CHUNK = 1 << 20


def ignore_note(_: str) -> None:
    """Drop a note: for callers that have nobody to tell."""


Note = Callable[[str], None]


# --- reading ---------------------------------------------------------------------------------


def read_bytes(files: Sequence[str]) -> list[tuple[str, bytes]]:
    """Read files whole.

    Args:
        files: paths; `-` is standard input.

    Returns:
        One (name for messages, content) for each file.

    Raises:
        CharrnnError: a file that is missing, a directory, not permitted or not readable.
    """
    contents = []
    for file in files:
        name = "standard input" if file == "-" else file
        try:
            data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        except FileNotFoundError:
            raise CharrnnError(f"{name}: no such file", exit_code=2) from None
        except IsADirectoryError:
            raise CharrnnError(
                f"{name}: is a directory; name the text files in it, for example {name.rstrip('/')}/*.txt",
                exit_code=2,
            ) from None
        except PermissionError:
            raise CharrnnError(f"{name}: no permission to read it") from None
        except OSError as error:
            raise CharrnnError(f"{name}: cannot be read: {error.strerror or error}") from None
        contents.append((name, data))
    return contents


def encoding_named(name: str) -> str:
    """Python's own name of a text encoding, the same for all its aliases.

    Raises:
        CharrnnError: there is none of that name.
    """
    try:
        with contextlib.suppress(UnicodeError):  # whether it decodes a blank does not matter here
            b" ".decode(name)
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        raise CharrnnError(
            f"no text encoding is called {name!r}; some are utf-8, utf-16, latin-1, cp1252, mac-roman, shift_jis",
            exit_code=2,
        ) from None


def _line_of(data: bytes, offset: int) -> int:
    before = data[:offset]
    return before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n") + 1


def decode(name: str, data: bytes, encoding: str = "utf-8", errors: str = "strict", note: Note = ignore_note) -> str:
    """Decode one file: byte-order mark off, every line ending a newline, nothing else changed.

    Args:
        name: how messages call the file.
        data: its bytes.
        encoding: a Python text encoding.
        errors: `strict` refuses invalid bytes, `replace` makes them U+FFFD.
        note: told, a line each, what was changed.

    Raises:
        CharrnnError: invalid bytes under `strict`, NUL characters, or an unknown encoding.
    """
    if encoding == "utf-8" and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise CharrnnError(f"{name}: starts with a UTF-16 byte-order mark; read it with --encoding utf-16")
    try:
        text = data.decode(encoding, errors)
        if encoding != "utf-8":
            text.encode()  # some encodings give halves of surrogate pairs, which are not characters
    except UnicodeDecodeError as error:
        if b"\0" in data:
            raise _binary(name, data.index(b"\0")) from None
        raise CharrnnError(
            f"{name}: byte 0x{data[error.start]:02x} at offset {error.start:,} "
            f"(line {_line_of(data, error.start):,}) is not valid {encoding.upper()}; "
            "try --encoding latin-1 if the file is older than UTF-8, "
            "or --errors replace to read such bytes as U+FFFD"
        ) from None
    except UnicodeError as error:
        raise CharrnnError(f"{name}: cannot be decoded as {encoding}: {error}") from None
    if "\0" in text:
        raise _binary(name, text.index("\0"))
    if text.startswith("\ufeff"):
        text = text[1:]
        note(f"{name}: took the byte-order mark off")
    if errors == "replace" and (invalid := text.count("\ufffd") - data.count("\ufffd".encode())) > 0:
        note(f"{name}: {plural(invalid, 'invalid sequence')} of bytes became U+FFFD")
    if crlf := text.count("\r\n"):
        text = text.replace("\r\n", "\n")
        note(f"{name}: turned {plural(crlf, 'CRLF line ending')} into newlines")
    if lone_cr := text.count("\r"):
        text = text.replace("\r", "\n")
        note(f"{name}: turned {plural(lone_cr, 'lone carriage return')} into newlines")
    return text


def _binary(name: str, offset: int) -> CharrnnError:
    return CharrnnError(
        f"{name}: has a NUL at offset {offset:,}, so it is a binary file or in another encoding; "
        "use --vocabulary bytes to train on raw bytes, or name its --encoding"
    )


def plural(count: int, noun: str) -> str:
    """`1 character`, `1,234 characters`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# --- vocabulary ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Vocabulary:
    """The character map: which characters the model knows, and the id of each.

    Attributes:
        kind: `ascii` (printable ASCII, newline, tab, and one unknown symbol), `text` (a text's
            own characters) or `bytes` (the 256 byte values, for raw bytes).
        characters: the characters in the order of their ids; for `bytes`, U+0000 to U+00FF stand
            for the byte values.
    """

    kind: str
    characters: str

    @staticmethod
    def ascii() -> Vocabulary:
        """Printable ASCII, newline and tab (97 symbols), and an unknown symbol."""
        return Vocabulary("ascii", PRINTABLE_ASCII)

    @staticmethod
    def bytes() -> Vocabulary:
        """The 256 byte values."""
        return Vocabulary("bytes", "".join(map(chr, range(256))))

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

    def __contains__(self, character: str) -> bool:
        return character in self._id_of

    def id_of(self, character: str) -> int | None:
        """The character's id, None if the model does not know it."""
        return self._id_of.get(character)

    def normalise(self, text: str, note: Note = ignore_note) -> str:
        """Change a text as this vocabulary's training text was changed: `ascii` maps typography.

        Args:
            text: any text.
            note: told, in a line, what was mapped.
        """
        if self.kind != "ascii" or text.isascii():
            return text
        counts = {c: n for c, n in _count_characters(text).items() if c in ASCII_EQUIVALENTS}
        if not counts:
            return text
        note(
            f"mapped {plural(sum(counts.values()), 'typographic character')} to ASCII ("
            + ", ".join(f"{show(c)} to {ASCII_EQUIVALENTS[c]!r}" for c in counts)
            + ")"
        )
        return text.translate(_TO_ASCII)

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (len(text),). Characters outside become the unknown symbol.

        Raises:
            KeyError: a character outside, and there is no unknown symbol.
        """
        outside = len(self) if self.unknown is None else self.unknown
        table = np.full(sys.maxunicode + 1, outside, dtype=np.int64)
        table[[ord(c) for c in self.characters]] = np.arange(len(self.characters))
        ids = np.empty(len(text), dtype=self.dtype)
        for start in range(0, len(text), _CHUNK):
            found = table[_code_points(text[start : start + _CHUNK])]
            if self.unknown is None and found.size and found.max() == outside:
                raise KeyError(text[start + int(found.argmax())])
            ids[start : start + len(found)] = found
        return ids

    def nearest(self, character: str) -> str | None:
        """The known text that comes closest: ASCII equivalent, without its accent, other case.

        Returns:
            One or more known characters, None where nothing comes close.
        """
        bare = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
        candidates = [ASCII_EQUIVALENTS.get(character, ""), character.swapcase(), bare, bare.swapcase()]
        for candidate in candidates:
            if candidate and all(c in self for c in candidate):
                return candidate
        return None

    def decoder(self) -> Callable[[int], str]:
        """A function from the next id to the text that it completes.

        Bytes are held until they make up a character of UTF-8; invalid ones become U+FFFD.
        """
        if self.kind == "bytes":
            decode_bytes = codecs.getincrementaldecoder("utf-8")("replace").decode
            return lambda id: decode_bytes(bytes((id,)))
        characters = self.characters + ("\ufffd" if self.unknown is not None else "")
        return characters.__getitem__


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _count_characters(text: str) -> dict[str, int]:
    """How often each character of a text occurs, in code point order."""
    counts = np.zeros(sys.maxunicode + 1, dtype=np.int64)
    for start in range(0, len(text), _CHUNK):
        found = np.bincount(_code_points(text[start : start + _CHUNK]))
        counts[: len(found)] += found
    return {chr(point): int(counts[point]) for point in np.flatnonzero(counts)}


def show(character: str) -> str:
    """A character for a message: itself where it can be seen, else its code point."""
    return character if character.isprintable() and not character.isspace() else f"U+{ord(character):04X}"


# --- corpus ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corpus:
    """A text, read and encoded: what a model trains on.

    Attributes:
        ids: the whole text as ids, shape (characters,).
        vocabulary: the character map that made them.
        sha256: of the text after normalisation (UTF-8), or of the raw bytes: what identifies it.
    """

    ids: Ids
    vocabulary: Vocabulary
    sha256: str

    @property
    def training(self) -> Ids:
        """The first 90 %: what gradients come from."""
        return self.ids[: training_size(len(self.ids))]

    @property
    def validation_start(self) -> int:
        """Where the contiguous last 10 % starts."""
        return training_size(len(self.ids))


def training_size(characters: int) -> int:
    """How many of a text's characters are for training; the rest, the last 10 %, validates."""
    return int(characters * (1 - VALIDATION_SHARE))


def read_corpus(
    files: Sequence[str],
    kind: str | None = None,
    encoding: str = "utf-8",
    errors: str = "strict",
    note: Note = ignore_note,
) -> Corpus:
    """Read text files, join them in the order given, choose the vocabulary, encode.

    Args:
        files: paths; `-` is standard input.
        kind: of the vocabulary; None lets the text decide between `ascii` and `text`.
        encoding: of the files.
        errors: `strict` or `replace`, for invalid bytes.
        note: told, a line each, what was read, changed and chosen.

    Raises:
        CharrnnError: files that cannot be read, decoded or are empty.
    """
    contents = read_bytes(files)
    names = ", ".join(name for name, _ in contents[:3]) + (f" and {len(contents) - 3:,} more" if contents[3:] else "")
    if not any(data for _, data in contents):
        raise CharrnnError(f"{names}: empty, there is nothing to train on")
    if kind == "bytes":
        raw = b"".join(data for _, data in contents)
        note(f"{names}: {plural(len(raw), 'byte')}")
        return Corpus(np.frombuffer(raw, dtype=np.uint8), Vocabulary.bytes(), hashlib.sha256(raw).hexdigest())

    text = "".join(decode(name, data, encoding, errors, note) for name, data in contents)
    del contents
    counts = _count_characters(text)
    note(f"{names}: {plural(len(text), 'character')}, {len(counts):,} distinct")
    vocabulary = Vocabulary.ascii()
    outside = {c: n for c, n in counts.items() if c not in vocabulary and c not in ASCII_EQUIVALENTS}
    share = sum(outside.values()) / len(text)
    if kind is None and share > MAX_UNKNOWN_SHARE:
        kind = "text"
        note(
            f"vocabulary: the text's own characters, because {share:.2%} of it is not printable ASCII "
            "(--vocabulary ascii would make that unknown)"
        )
    if kind == "text":
        vocabulary = Vocabulary("text", "".join(counts))
    else:
        text = vocabulary.normalise(text, note)
        if outside:
            shown = sorted(outside, key=lambda c: -outside[c])[:8]
            note(
                f"{plural(sum(outside.values()), 'character')} outside the vocabulary became the unknown symbol: "
                + ", ".join(f"{show(c)} ({outside[c]:,})" for c in shown)
                + (f" and {plural(len(outside) - len(shown), 'other')}" if len(outside) > len(shown) else "")
            )
    sha256 = hashlib.sha256()
    for start in range(0, len(text), _CHUNK):
        sha256.update(text[start : start + _CHUNK].encode("utf-8", "surrogatepass"))
    return Corpus(vocabulary.encode(text), vocabulary, sha256.hexdigest())


# --- windows ---------------------------------------------------------------------------------


def steps_per_epoch(characters: int, batch_size: int, seq_length: int) -> int:
    """How many batches one pass over `characters` training characters gives."""
    return characters // (batch_size * seq_length)


def windows(
    ids: Ids, batch_size: int, seq_length: int, seed: int, epoch: int, first: int = 0
) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
    """Slide windows along `batch_size` contiguous streams of the text.

    Window t of stream b follows window t - 1 of stream b, so that state can be carried. Each epoch
    starts its streams at another offset, a function of (seed, epoch) alone; the text is taken as a
    ring for that, so that every character is trained on equally often.

    Args:
        ids: the training text, shape (N,).
        batch_size: B, the number of streams.
        seq_length: T, the characters in a window.
        seed: of the run.
        epoch: counted from 0.
        first: the first window to give, to go on in the middle of an epoch.

    Yields:
        Inputs and targets, each (B, T); targets are the inputs one character on.
    """
    n = len(ids)
    # SeedSequence is stable across NumPy's versions, which the generators' methods are not.
    offset = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] % n)
    starts = offset + np.arange(batch_size)[:, None] * (n // batch_size)
    span = np.arange(seq_length + 1)
    for window in range(first, steps_per_epoch(n, batch_size, seq_length)):
        block = ids[(starts + window * seq_length + span) % n].astype(np.int32)
        yield block[:, :-1], block[:, 1:]


def validation_streams(
    ids: Ids, start: int, seq_length: int, limit: int = 50_000, streams: int = 32
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Lay the validation part out in parallel streams, each warmed up on the text before it.

    Args:
        ids: the whole text, shape (N,).
        start: where the validation part starts.
        seq_length: the width that the result's is rounded up to a multiple of.
        limit: how many characters to score at most; of a larger part a fixed sample, spread evenly.
        streams: S, how many streams at most.

    Returns:
        Inputs, targets and weights, each (S, W): the weight is 1 where the target is scored.
    """
    part = len(ids) - start
    warm_up = min(WARM_UP, start - 1)
    streams = max(1, min(streams, part // max(1, warm_up)))
    edges = start + np.arange(streams + 1) * part // streams
    scored = np.minimum(np.diff(edges), -(-limit // streams))
    width = -(-int(warm_up + scored.max()) // seq_length) * seq_length
    position = (edges[:-1] - warm_up)[:, None] + np.arange(width)  # of each target, (S, W)
    scoring = (position >= edges[:-1, None]) & (position < (edges[:-1] + scored)[:, None])
    targets = ids[np.minimum(position, len(ids) - 1)].astype(np.int32)
    inputs = ids[np.minimum(position - 1, len(ids) - 1)].astype(np.int32)
    return inputs, targets, scoring.astype(np.float32)
