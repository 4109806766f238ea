"""From text files to one encoded text, and its split into training and validation part."""

from __future__ import annotations

import hashlib
import itertools
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from charrnn import CharrnnError
from charrnn.messages import Note, ignore_note, plural, show
from charrnn.text.reading import decode, is_nameless
from charrnn.text.vocabulary import ASCII_EQUIVALENTS, Ids, Vocabulary, count_characters

# If a larger share of the characters is outside ASCII, the text gets its own vocabulary.
MAX_UNKNOWN_SHARE = 1 / 10_000
VALIDATION_SHARE = 0.1
MAX_NEVER_SEEN_SHARE = 0.01  # of the validation part's characters; a larger share is reported
_LINES_LOOKED_AT = 1 << 18  # characters: enough to recognise a sorted list
_CHUNK = 1 << 20  # characters hashed at a time


@dataclass(frozen=True)
class Corpus:
    """A text, read and encoded, to train on.

    Attributes:
        ids: the whole text as ids, shape (characters,).
        vocabulary: the character map of the ids.
        sha256: identifies the text: the hash of the normalised text (UTF-8), or of the raw bytes.
    """

    ids: Ids
    vocabulary: Vocabulary
    sha256: str

    @property
    def training(self) -> Ids:
        """The first 90 %, which the model trains on."""
        return self.ids[: training_size(len(self.ids))]

    @property
    def validation_start(self) -> int:
        """Where the contiguous last 10 % starts: the index of its first character."""
        return training_size(len(self.ids))

    @property
    def validation_characters(self) -> int:
        """The number of characters in that last part."""
        return len(self.ids) - self.validation_start


def training_size(characters: int) -> int:
    """The number of characters for training; the rest, the last 10 %, is for validation."""
    return int(characters * (1 - VALIDATION_SHARE))


def read_corpus(
    contents: Sequence[tuple[str, bytes]],
    kind: str | None = None,
    encoding: str = "utf-8",
    errors: str = "strict",
    note: Note = ignore_note,
    model: Vocabulary | None = None,
) -> Corpus:
    """Decode text files, join them in the order given, choose the vocabulary, and encode the text.

    Args:
        contents: names and contents of the files, as `read_bytes` returns them.
        kind: the kind of vocabulary; None lets the text decide between `ascii` and `text`.
        encoding: the text encoding of the files.
        errors: `strict` or `replace`, for invalid bytes.
        note: called with one line for each thing read, changed or chosen.
        model: the vocabulary of the model to train further, if any. A `text` vocabulary then has this model's
            characters first, followed by the text's own; all characters that this model knows stay known.

    Raises:
        CharrnnError: a file cannot be decoded, or the files contain no text.
    """
    names = ", ".join(name for name, _ in contents[:3]) + (f" and {len(contents) - 3:,} more" if contents[3:] else "")
    nothing = CharrnnError(f"{names}: empty; there is no text to train on")
    if kind == "bytes":
        raw = b"".join(data for _, data in contents)
        if not raw:
            raise nothing
        note(f"{names}: {plural(len(raw), 'byte')}")
        corpus = Corpus(np.frombuffer(raw, dtype=np.uint8), Vocabulary.bytes(), hashlib.sha256(raw).hexdigest())
        for line in unlike_notes(None, corpus, [name for name, _ in contents]):
            note(line)
        return corpus

    text = "".join(decode(name, data, encoding, errors, note) for name, data in contents)
    if not text:
        raise nothing
    counts = count_characters(text)
    note(f"{names}: {plural(len(text), 'character')}, {len(counts):,} distinct")
    vocabulary = Vocabulary.ascii()
    outside = {c: n for c, n in counts.items() if c not in vocabulary and c not in ASCII_EQUIVALENTS}
    share = sum(outside.values()) / len(text)
    if kind is None and share > MAX_UNKNOWN_SHARE:
        kind = "text"
        note(
            f"vocabulary: the text's own characters, because {share:.2%} of the text is not printable ASCII "
            "(--vocabulary ascii would make those characters unknown)"
        )
    if kind == "text":
        vocabulary = Vocabulary("text", "".join(dict.fromkeys([*(model.characters if model else ""), *counts])))
    else:
        text = vocabulary.normalise(text, note)
        counts = count_characters(text)
        if outside:
            shown = sorted(outside, key=lambda c: -outside[c])[:8]
            note(
                f"{plural(sum(outside.values()), 'character')} outside the vocabulary became the unknown symbol: "
                + ", ".join(f"{show(c)} ({outside[c]:,})" for c in shown)
                + (f" and {plural(len(outside) - len(shown), 'other')}" if len(outside) > len(shown) else "")
                + (f"; that is {share:.0%} of the text, which --vocabulary text would keep" if share > 0.01 else "")
            )
    sha256 = hashlib.sha256()
    for start in range(0, len(text), _CHUNK):
        sha256.update(text[start : start + _CHUNK].encode("utf-8", "surrogatepass"))
    vocabulary = vocabulary.restricted([*(model.known_characters if model else ""), *counts], counts)
    corpus = Corpus(vocabulary.encode(text), vocabulary, sha256.hexdigest())
    for line in unlike_notes(text, corpus, [name for name, _ in contents]):
        note(line)
    return corpus


def unlike_notes(text: str | None, corpus: Corpus, files: Sequence[str]) -> Iterator[str]:
    """Report how the validation part differs from the rest, and suggest shuffling a list of short lines.

    Args:
        text: the whole text, or None for bytes.
        corpus: the same text as ids.
        files: the files' names in messages.
    """
    validation = corpus.ids[corpus.validation_start :]
    never = np.bincount(corpus.training, minlength=len(corpus.vocabulary)) == 0
    share = float(never[validation].mean()) if len(validation) else 0.0
    lines = (text or "")[:_LINES_LOOKED_AT].split("\n")[:-1]
    is_list = len(lines) >= 100 and sum(map(len, lines)) < 40 * len(lines)
    pairs = [(a.casefold(), b.casefold()) for a, b in itertools.pairwise(lines)]
    rising, falling = sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)
    is_sorted = is_list and rising > len(lines) / 2 and falling < len(lines) / 20
    if share > MAX_NEVER_SEEN_SHARE:
        yield (
            f"{share:.1%} of the characters in the last tenth of the text, the validation part, never occur before it, "
            "so the validation loss will be higher"
        )
    if is_sorted:
        yield "the lines are in alphabetical order, so the last tenth (the validation part) differs from the rest"
    if is_sorted or (is_list and share > MAX_NEVER_SEEN_SHARE):
        first = Path(files[0])
        shuffle = (
            f"{'shuf' if shutil.which('shuf') else 'sort -R'} > {shlex.quote(f'{first.stem}-shuffled{first.suffix}')}"
        )
        how = "" if any(map(is_nameless, files)) else f": cat {shlex.join(files)} | {shuffle}"
        yield f"if the order of the lines does not matter, shuffle them{how}"
