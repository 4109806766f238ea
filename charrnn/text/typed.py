"""Turning typed text into ids: the text to continue, the text to stop at."""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np

from charrnn import CharrnnError
from charrnn.messages import Note, plural, show, some_of
from charrnn.text.reading import Source, decode, plain_text
from charrnn.text.vocabulary import CharacterCounter, Ids, Vocabulary


def read_prime(file: str, vocabulary: Vocabulary, encoding: str, note: Note) -> str:
    """Read the text to continue from a file, or from standard input if the path is `-`.

    Args:
        file: its path.
        vocabulary: the model's.
        encoding: of the model's training text; tried if the prime is not UTF-8.
        note: called with one line if that encoding is used.

    Raises:
        CharrnnError: the file cannot be read, or the model reads text and the file is in neither encoding.
    """
    source = Source.open(file)
    name, data = source.name, b"".join(source.blocks())
    try:
        return data.decode("utf-8", "surrogateescape" if vocabulary.kind == "bytes" else "strict")
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            with contextlib.suppress(CharrnnError):
                text = decode(name, data, encoding)
                note(f"{name}: not UTF-8, read as {encoding} like the training text")
                return text
        other = "" if encoding == "utf-8" else f", and the file is not {encoding} like the training text either"
        raise CharrnnError(
            f"{name}: byte 0x{data[error.start]:02x} at offset {error.start:,} is not valid UTF-8{other}: convert the "
            "file, for example with iconv -t UTF-8"
        ) from None


UNKNOWN = ("skip", "replace")  # ways to treat characters that a model does not know
_NAMED = 8  # unknown characters that a message names


def encode_prime(
    vocabulary: Vocabulary,
    prime: str,
    unknown: str | None,
    note: Note,
    advice: str = "change the prime, or use --unknown skip or --unknown replace",
) -> Ids:
    """Turn a prime into ids in the same way as the training text.

    Args:
        vocabulary: the model's character map.
        prime: any text.
        unknown: `skip` leaves out characters that the model does not know; `replace` puts the nearest known text in
            their place, or else the unknown symbol, if there is one; None rejects them.
        note: called with one line for each change.
        advice: the end of the error message: what to do about unknown characters.

    Returns:
        The ids, (P,).

    Raises:
        CharrnnError: the model does not know a character.
    """
    if vocabulary.kind == "bytes":
        return _bytes_of("prime", prime)
    notes: list[str] = []
    text = normalised("prime", prime, vocabulary, notes.append)
    strangers = dict.fromkeys(c for c in text if c not in vocabulary)
    nearest = {c: vocabulary.nearest(c) for c in strangers}
    if strangers and unknown is None:
        raise CharrnnError(
            "the model does not know "
            + _named(
                f"{show(c)!r} at position {(prime if c in prime else text).index(c) + 1}"
                + (f" (nearest: {nearest[c]!r})" if nearest[c] else "")
                for c in strangers
            )
            + f" of the prime; {advice}",
            exit_code=2,
        )
    instead = "\ufffd" if vocabulary.unknown is not None else ""
    pieces = {c: "" if unknown == "skip" else nearest[c] or instead for c in strangers}
    if strangers:
        notes.append(
            f"prime: {plural(sum(text.count(c) for c in strangers), 'character')} unknown to the model: "
            + _named(f"{show(c)!r} " + (f"became {pieces[c]!r}" if pieces[c] else "left out") for c in strangers)
        )
    for line in notes:
        note(line)
    return vocabulary.encode("".join(pieces.get(c, c) for c in text))


def encode_stop(vocabulary: Vocabulary, stop: str, note: Note) -> Ids:
    """Turn the text that ends a sample into ids in the same way as the training text.

    The model must be able to write all its characters.

    Args:
        vocabulary: the model's character map.
        stop: any text except the empty one.
        note: called with one line for each change.

    Returns:
        The ids, (N,).

    Raises:
        CharrnnError: the text is empty, or the model cannot write one of its characters.
    """
    writes = vocabulary.restricted(vocabulary.seen_characters, vocabulary.seen_characters)
    ids = encode_known("stop text", stop, writes, note, ", so no sample would contain it")
    if not len(ids):
        raise CharrnnError("the stop text is empty: a sample would end before it began", exit_code=2)
    return ids


def encode_known(name: str, text: str, vocabulary: Vocabulary, note: Note, consequence: str = "") -> Ids:
    """Turn a text into ids in the same way as the training text; the model must know all its characters.

    Args:
        name: the text's name in messages.
        text: any text.
        vocabulary: the model's character map.
        note: called with one line for each change.
        consequence: the end of the error message.

    Raises:
        CharrnnError: the model does not know a character.
    """
    if vocabulary.kind == "bytes":
        return _bytes_of(name, text)
    text = normalised(name, text, vocabulary, note)
    if strangers := dict.fromkeys(c for c in text if c not in vocabulary):
        raise CharrnnError(
            f"the model does not know {_named(repr(show(c)) for c in strangers)} in the {name}{consequence}",
            exit_code=2,
        )
    return vocabulary.encode(text)


def _bytes_of(name: str, text: str) -> Ids:
    """Turn a text into the ids of a `bytes` vocabulary.

    Raises:
        CharrnnError: the text has half of a surrogate pair, which UTF-8 cannot encode.
    """
    try:
        return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)
    except UnicodeEncodeError as error:
        raise CharrnnError(
            f"the {name} has half of a surrogate pair ({show(text[error.start])}) at position {error.start + 1}: "
            "remove it",
            exit_code=2,
        ) from None


def _named(characters: Iterable[str]) -> str:
    return some_of(list(characters), _NAMED)


def normalised(name: str, text: str, vocabulary: Vocabulary, note: Note) -> str:
    """Normalise a text like the training text: byte-order mark, line endings, typography, and `normal_form`.

    Args:
        name: the text's name in notes.
        text: any text.
        vocabulary: the model's character map, not `bytes`.
        note: called with one line for each change.
    """
    text = vocabulary.normalise(plain_text(name, text, note), lambda line: note(f"{name}: {line}"))
    form = normal_form(lambda: [text], vocabulary)
    if form is None:
        return text
    note(f"{name}: normalised to {form}, the form of the training text")
    return unicodedata.normalize(form, text)


Form = Literal["NFC", "NFD"]


def normal_form(pieces: Callable[[], Iterable[str]], vocabulary: Vocabulary) -> Form | None:
    """The form of a text, composed or decomposed, of which a model knows more; None if that is its own.

    An accented letter can be one code point or several (Unicode Standard Annex 15).

    Args:
        pieces: reads the text; a piece must not end between a letter and its accent.
        vocabulary: the model's character map.
    """
    best: Form | None = None
    unknown, length = _count_unknown(pieces(), vocabulary)
    forms: tuple[Form, ...] = ("NFC", "NFD")
    for form in forms:
        if unknown:
            left, size = _count_unknown((unicodedata.normalize(form, piece) for piece in pieces()), vocabulary)
            # Compare the shares too: composing makes fewer characters, even of those that stay unknown.
            if left < unknown and left * length < unknown * size:
                best, unknown, length = form, left, size
    return best


def _count_unknown(pieces: Iterable[str], vocabulary: Vocabulary) -> tuple[int, int]:
    """The number of characters that a vocabulary does not know, and of all."""
    counter = CharacterCounter()
    for piece in pieces:
        counter.add(piece)
    counts = counter.counts()
    return sum(n for c, n in counts.items() if c not in vocabulary), sum(counts.values())


_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\f": "\\f"}


def escaped(text: str) -> str:
    r"""Write newline, tab, form feed and backslash as \n, \t, \f and \\, which are easier to type on a command line."""
    return text.translate({ord(character): escape for character, escape in _ESCAPES.items()})


def unescaped(text: str) -> str:
    """The text that `escaped` turns into this one; other escapes stay as they are."""
    meant = {escape: character for character, escape in _ESCAPES.items()}
    return re.sub(r"\\[ntf\\]", lambda found: meant[found[0]], text)
