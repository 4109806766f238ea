"""From text files to one encoded text, and its split into training and validation part."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from charrnn import CharrnnError
from charrnn.messages import Note, ignore_note, plural, show, show_reading, size_of
from charrnn.text.reading import LARGE, Changes, Source, decoded, ended, is_nameless, names_of
from charrnn.text.store import Description, StoredIds, id_type, stored_texts, write_ids
from charrnn.text.vocabulary import (
    ASCII_EQUIVALENTS,
    CharacterCounter,
    Ids,
    Vocabulary,
    boundary_mark,
    look_up,
    replace_all,
    replaced,
)

# If a larger share of the characters is outside ASCII, the text gets its own vocabulary.
MAX_UNKNOWN_SHARE = 1 / 10_000
VALIDATION_SHARE = 0.1
BOUNDARY_SHARES = 0.05, 0.15  # of the text, for validation: a boundary in between moves the split
MAX_NEVER_SEEN_SHARE = 0.01  # of the validation part's characters; a larger share is reported
_LINES_LOOKED_AT = 1 << 18  # characters: enough to recognise a sorted list
_CHUNK = 1 << 20  # ids read at a time
_RACE = 2_000_000_000  # ns: a file changed so recently can change again within the same tick of its clock


@dataclass(frozen=True)
class Corpus:
    """A text, read and encoded, to train on.

    Attributes:
        ids: the whole text as ids, (characters,), in memory or in a file; a slice of either is an array.
        vocabulary: the character map of the ids.
        sha256: identifies the text: the hash of the normalised text (UTF-8), or of the raw bytes.
        validation_start: where the last part, for validation, starts: the index of its first character.
        training_counts: how often each id occurs before that, (V,).
    """

    ids: Ids | StoredIds
    vocabulary: Vocabulary
    sha256: str
    validation_start: int
    training_counts: npt.NDArray[np.int64]

    @property
    def training_characters(self) -> int:
        """The number of characters that the model trains on: the first 90 %, or up to a boundary near there."""
        return self.validation_start

    @property
    def validation_characters(self) -> int:
        """The number of characters in the validation part."""
        return len(self.ids) - self.validation_start

    def extended(self, model: Vocabulary) -> Corpus:
        """The same text with the vocabulary of a model that is trained further on it; use only the result from then on.

        A `text` vocabulary gets the characters of this model first, followed by the text's own. All characters that
        the model knows stay known.

        Args:
            model: the vocabulary of that model.
        """
        own = self.vocabulary
        characters = own.characters
        if own.kind == "text":
            characters = "".join(dict.fromkeys(model.characters + own.characters))
        vocabulary = dataclasses.replace(
            own, characters=characters, known=None, seen=None, has_boundary=own.has_boundary or model.has_boundary
        ).restricted(model.known_characters + own.seen_characters, own.seen_characters)
        ids_of = [vocabulary.id_of(character) for character in own.characters]
        ids_of += [vocabulary.unknown] * (own.unknown is not None) + [vocabulary.boundary] * own.has_boundary
        table = np.array(ids_of, vocabulary.dtype)
        counts = np.zeros(len(vocabulary), np.int64)
        counts[table] = self.training_counts
        ids = self.ids
        if isinstance(ids, StoredIds):
            ids.table = table if ids.table is None else table[ids.table]
        else:
            ids = table[ids]
        return dataclasses.replace(self, ids=ids, vocabulary=vocabulary, training_counts=counts)


def training_size(characters: int) -> int:
    """The number of characters for training, unless a boundary moves it; the last 10 % are for validation."""
    return int(characters * (1 - VALIDATION_SHARE))


def _validation_start(ids: Ids | StoredIds, boundary: int | None) -> int:
    """Where the validation part starts: after the boundary nearest to 90 % of the text, if one is near."""
    wanted = training_size(len(ids))
    if boundary is None:
        return wanted
    least, most = BOUNDARY_SHARES
    first, last = int((1 - most) * len(ids)), int((1 - least) * len(ids))
    starts = [
        start + 1 + np.flatnonzero(ids[start : min(start + _CHUNK, last)] == boundary)
        for start in range(first, last, _CHUNK)
    ]
    places = np.concatenate([np.zeros(0, np.intp), *starts])
    return int(places[np.abs(places - wanted).argmin()]) if len(places) else wanted


def _count(ids: Ids | StoredIds, start: int, symbols: int) -> npt.NDArray[np.int64]:
    """How often each id occurs from `start` on."""
    counts = np.zeros(symbols, np.int64)
    for at in range(start, len(ids), _CHUNK):
        counts += np.bincount(ids[at : at + _CHUNK], minlength=symbols)
    return counts


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        kind: the kind of vocabulary; None lets the text decide between `ascii` and `text`.
        encoding: the text encoding of the files.
        errors: `strict` or `replace`, for invalid bytes.
        several: whether the files are several texts, each ended by a boundary, rather than one text in parts.
        split_at: the text that separates texts within a file, if there are several.
    """

    kind: str | None = None
    encoding: str = "utf-8"
    errors: str = "strict"
    several: bool = False
    split_at: str | None = None

    @property
    def mark(self) -> str:
        """The character that stands for a boundary."""
        return boundary_mark("bytes" if self.kind == "bytes" else "text")

    def pieces(self, sources: Sequence[Source], changes: Changes) -> Iterator[str]:
        """The text of files in pieces, with a mark at each boundary; for `bytes`, U+0000 to U+00FF are the bytes."""
        for source in sources:
            if self.kind == "bytes":
                text: Iterator[str] = (block.decode("latin-1") for block in source.blocks())
            else:
                text = decoded(source, self.encoding, self.errors, changes)
            yield from self.marked(text)

    def marked(self, text: Iterator[str]) -> Iterator[str]:
        """The text of a file in pieces, with a mark at each boundary."""
        separator = self.split_at
        if self.kind == "bytes" and separator is not None:
            separator = separator.encode("utf-8", "surrogateescape").decode("latin-1")
        return ended(text, separator, self.mark) if self.several else text


def read_corpus(
    sources: Sequence[Source],
    how: Reading = Reading(),
    note: Note = ignore_note,
    folder: Path | None = None,
) -> Corpus:
    """Read text files in the order given, choose the vocabulary, and encode the text.

    Args:
        sources: the files.
        how: how to read them.
        note: called with one line for each thing read, changed or chosen.
        folder: the folder for the ids of a large text; None keeps all ids in memory.

    Raises:
        CharrnnError: a file cannot be read or decoded, or changes meanwhile, or the files contain no text.
    """
    size = sum(source.size for source in sources)
    if size <= LARGE:
        folder = None
    found = None if folder is None else _find(sources, how, folder, note)
    if found is not None:
        text = found
    elif folder is None:
        text = _read(sources, how, None, lambda _: None)
    else:
        with _progress(2 * size, f"{size_of(size)} of text") as progress:
            text = _read(sources, how, folder, progress)
    names = [source.name for source in sources]
    if how.split_at is not None and text.counts[how.mark] <= sum(source.size > 0 for source in sources):
        one = "it is one text" if len(names) == 1 else "each file is one text"
        raise CharrnnError(f"{names_of(names)}: the --split-at text separates nothing, so {one}", exit_code=2)
    for line in text.changes:
        note(line)
    vocabulary = _vocabulary_for(text, how, names_of(names), note)
    table = look_up(vocabulary.table(), "".join(text.alphabet)).astype(vocabulary.dtype)
    if isinstance(text.ids, StoredIds):
        text.ids.table = table
        ids: Ids | StoredIds = text.ids
        where = f"{text.ids.path} ({size_of(text.ids.size)})"
        note(f"the ids of this text are in {where}" + ("" if found is None else ", from an earlier start"))
    else:
        ids = table[text.ids]
    start = _validation_start(ids, vocabulary.boundary)
    counts = np.bincount(table, list(text.alphabet.values()), len(vocabulary)).astype(np.int64)
    validation_counts = _count(ids, start, len(vocabulary))
    corpus = Corpus(ids, vocabulary, text.sha256, start, counts - validation_counts)
    can_shuffle = not how.encoding.startswith(("utf-16", "utf-32")) and not any(map(is_nameless, names))
    for line in unlike_notes(corpus, validation_counts, names, can_shuffle):
        note(line)
    return corpus


@dataclass(frozen=True)
class _Text:
    """A text as it was read, before a vocabulary is chosen.

    Attributes:
        kind: the kind of vocabulary that the reader or the text asks for.
        counts: how often each character occurs in the files' text, in code point order; the mark for a boundary.
        changes: what reading changed, a line each.
        alphabet: how often each character occurs that this kind of vocabulary can have, in code point order; U+FFFD
            for all that it cannot have.
        ids: the index in the alphabet of each character.
        sha256: identifies the text.
    """

    kind: str
    counts: Mapping[str, int]
    changes: Sequence[str]
    alphabet: Mapping[str, int]
    ids: Ids | StoredIds
    sha256: str


def _kind_for(counts: Mapping[str, int], mark: str) -> str:
    """The kind of vocabulary that a text itself asks for."""
    return "text" if sum(_outside(counts, mark).values()) > MAX_UNKNOWN_SHARE * sum(counts.values()) else "ascii"


def _outside(counts: Mapping[str, int], mark: str) -> dict[str, int]:
    """How often each character occurs that printable ASCII neither has nor can stand for."""
    ascii = Vocabulary.ascii()
    return {c: n for c, n in counts.items() if c not in ascii and c not in ASCII_EQUIVALENTS and c != mark}


def _replacements(counts: Mapping[str, int], kind: str) -> dict[str, str]:
    return Vocabulary.ascii().replacements(counts) if kind == "ascii" else {}


def _alphabet(counts: Mapping[str, int], kind: str, mark: str) -> dict[str, int]:
    """See `_Text.alphabet`."""
    replacements, outside = _replacements(counts, kind), _outside(counts, mark) if kind == "ascii" else {}
    alphabet: dict[str, int] = {}
    for c, n in counts.items():
        for character in replacements.get(c, "\ufffd" if c in outside else c):
            alphabet[character] = alphabet.get(character, 0) + n
    return dict(sorted(alphabet.items()))


def _find(sources: Sequence[Source], how: Reading, folder: Path, note: Note) -> _Text | None:
    """Find the ids of a text that an earlier start has written."""
    files, size, content = _files_digest(sources), sum(source.size for source in sources), None
    for stored in stored_texts(folder):
        description = stored.description
        kind = how.kind or _kind_for(stored.counts, how.mark)
        if (description.reading, description.size) != ({**dataclasses.asdict(how), "kind": kind}, size):
            continue
        if files is None or description.files != files:
            content = content or _content_digest(sources)
            if description.content != content:
                continue
        alphabet = _alphabet(stored.counts, kind, how.mark)
        try:
            ids = stored.open_ids(len(alphabet), sum(alphabet.values()))
        except (OSError, ValueError) as error:
            note(f"{stored.path}: is damaged ({error}), so charrnn reads the text again")
        else:
            return _Text(kind, stored.counts, description.changes, alphabet, ids, description.sha256)
    return None


def _files_digest(sources: Sequence[Source]) -> str | None:
    """A digest of the files' paths, sizes and times; None if it would not show every change."""
    states = [source.state for source in sources]
    if not all(state is not None and time.time_ns() - state[2] > _RACE for state in states):
        return None
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()


def _content_digest(sources: Sequence[Source]) -> str:
    """SHA-256 of the files' bytes and sizes."""
    digest = hashlib.sha256()
    for source in sources:
        for block in source.blocks():
            digest.update(block)
    return _with_sizes(digest, sources)


def _with_sizes(digest: Any, sources: Sequence[Source]) -> str:
    digest.update(json.dumps([source.size for source in sources]).encode())
    return str(digest.hexdigest())


def _read(sources: Sequence[Source], how: Reading, folder: Path | None, progress: Callable[[bytes], object]) -> _Text:
    """Read a text twice: its characters are counted, and then encoded.

    Args:
        sources: the files.
        how: how to read them.
        folder: the folder for the ids; None keeps them in memory.
        progress: called with each block that is read.
    """
    names = names_of([source.name for source in sources])
    size = sum(source.size for source in sources)
    files, content, changes, counter = _files_digest(sources), hashlib.sha256(), Changes(), CharacterCounter()
    _watch(sources, content, progress)
    for piece in how.pieces(sources, changes):
        counter.add(piece)
    counts = counter.counts()
    if not counts:
        raise CharrnnError(f"{names}: empty; there is no text to train on")
    kind = how.kind or _kind_for(counts, how.mark)
    replacements = _replacements(counts, kind)
    alphabet = _alphabet(counts, kind, how.mark)
    symbols, total = len(alphabet), sum(alphabet.values())
    content_again, first_content = hashlib.sha256(), content.digest()
    unknown = list(alphabet).index("\ufffd") if kind == "ascii" and "\ufffd" in alphabet else None
    table = Vocabulary("text", "".join(alphabet)).table(unknown)
    is_raw = kind == "bytes" and not how.several
    sha256 = hashlib.sha256()

    def encoded() -> Iterator[Ids]:
        written = 0
        for piece in how.pieces(sources, Changes()):
            if not piece.isascii():
                piece = replace_all(piece, replacements)
            sha256.update(piece.encode("latin-1" if is_raw else "utf-8"))
            ids = look_up(table, piece)
            written += len(ids)
            if written > total or (len(ids) and ids.max() == symbols):
                raise changed
            yield ids.astype(id_type(symbols), copy=False)
        if written < total or content_again.digest() != first_content:
            raise changed

    changed = CharrnnError(f"{names}: changed while charrnn read it: run the command again")
    _watch(sources, content_again, progress)
    if folder is None:
        ids = np.concatenate(list(encoded()))
        return _Text(kind, counts, list(changes.lines()), alphabet, ids, sha256.hexdigest())
    reading = {**dataclasses.asdict(how), "kind": kind}
    description = Description(reading, files, size, _with_sizes(content, sources), list(changes.lines()), "")
    stored = write_ids(folder, description, counts, encoded(), sha256)
    return _Text(kind, counts, description.changes, alphabet, stored.open_ids(symbols, total), sha256.hexdigest())


def _watch(sources: Sequence[Source], digest: Any, progress: Callable[[bytes], object]) -> None:
    """Add each block that is read to a digest, and report it."""

    def watch(block: bytes) -> None:
        digest.update(block)
        progress(block)

    for source in sources:
        source.watch = watch


@contextlib.contextmanager
def _progress(total: int, what: str) -> Iterator[Callable[[bytes], object]]:
    """Show how much of the files has been read; yields a function to call with each block."""
    done = 0
    show_reading(0, total, what)

    def show(block: bytes) -> None:
        nonlocal done
        before, done = done, done + len(block)
        if 100 * before // total < 100 * done // total:
            show_reading(done, total, what)

    try:
        yield show
    finally:
        show_reading(total, total, what)


def _vocabulary_for(text: _Text, how: Reading, names: str, note: Note) -> Vocabulary:
    """Choose the vocabulary of a text.

    Args:
        text: the text.
        how: how it was read.
        names: the files' names in messages.
        note: called with one line for each thing read or chosen.
    """
    counts = {c: n for c, n in text.counts.items() if c != how.mark}
    texts, characters = text.counts.get(how.mark, 0), sum(counts.values())
    size = f"{names}: " + (f"{plural(texts, 'text')}, " if how.several else "")
    if how.kind == "bytes":
        note(size + plural(characters, "byte"))
        return dataclasses.replace(Vocabulary.bytes(), has_boundary=how.several, writes_boundary=how.several)
    note(f"{size}{plural(characters, 'character')}, {len(counts):,} distinct")
    outside = _outside(counts, how.mark)
    share = sum(outside.values()) / max(1, characters)
    vocabulary = Vocabulary.ascii()
    if how.kind is None and text.kind == "text":
        note(
            f"vocabulary: the text's own characters, because {share:.2%} of the text is not printable ASCII "
            "(--vocabulary ascii would make those characters unknown)"
        )
    if text.kind == "text":
        vocabulary = Vocabulary("text", "".join(counts))
    else:
        if replacements := _replacements(counts, text.kind):
            note(replaced(counts, replacements))
        if outside:
            shown = sorted(outside, key=lambda c: -outside[c])[:8]
            note(
                f"{plural(sum(outside.values()), 'character')} outside the vocabulary became the unknown symbol: "
                + ", ".join(f"{show(c)} ({outside[c]:,})" for c in shown)
                + (f" and {plural(len(outside) - len(shown), 'other')}" if len(outside) > len(shown) else "")
                + (f"; that is {share:.0%} of the text, which --vocabulary text would keep" if share > 0.01 else "")
            )
    seen = [c for c in text.alphabet if c != how.mark]
    vocabulary = dataclasses.replace(vocabulary, has_boundary=how.several, writes_boundary=how.several)
    return vocabulary.restricted(seen, seen)


def unlike_notes(
    corpus: Corpus, validation_counts: npt.NDArray[np.int64], files: Sequence[str], can_shuffle: bool
) -> Iterator[str]:
    """Report how the validation part differs from the rest, and suggest shuffling a list of short lines.

    Args:
        corpus: the text.
        validation_counts: how often each id occurs in its validation part, (V,).
        files: the files' names in messages.
        can_shuffle: whether a command can shuffle their lines.
    """
    vocabulary = corpus.vocabulary
    never = validation_counts[corpus.training_counts == 0].sum()
    share = float(never / max(1, corpus.validation_characters))
    start = [] if vocabulary.kind == "bytes" else corpus.ids[:_LINES_LOOKED_AT].tolist()
    texts = vocabulary.texts("\n")
    lines = "".join([texts[id] for id in start]).split("\n")[:-1]
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
        how = f": cat {shlex.join(files)} | {shuffle}" if can_shuffle else ""
        yield f"if the order of the lines does not matter, shuffle them{how}"
