"""From text files to batches of character ids: reading, the split, the windows."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import itertools
import os
import re
import shlex
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from charrnn import CharrnnError
from charrnn.messages import plural, show
from charrnn.vocabulary import ASCII_EQUIVALENTS, Ids, Note, Vocabulary, count_characters, ignore_note

# More than this share of characters outside ASCII and the text gets a vocabulary of its own.
MAX_UNKNOWN_SHARE = 1 / 10_000

VALIDATION_SHARE = 0.1
MAX_NEVER_SEEN_SHARE = 0.01  # of the validation part's characters, before it is reported
_LINES_LOOKED_AT = 1 << 18  # characters: enough to tell a sorted list
WARM_UP = 256  # characters read before the first one that is scored
_CHUNK = 1 << 20  # characters hashed at once


# --- reading ---------------------------------------------------------------------------------

_STANDARD_INPUT = "standard input"
_NOT_TEXT = {
    b"%PDF-": ("a PDF", "convert it, for example with pdftotext"),
    b"\x1f\x8b": ("compressed with gzip", "unpack it with gunzip"),
    b"PK\x03\x04": ("a zip archive, or a document kept in one", "unpack or convert it"),
}
_MARKS = {  # a UTF-32 mark starts like a UTF-16 one
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


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
        name = _STANDARD_INPUT if file == "-" else file
        try:
            if file != "-":
                with open(file, "rb") as stream:
                    if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode) and not stream.isatty():
                        raise CharrnnError(f"{name}: is a device, not a file")
                    # A file that grows meanwhile is what it was; a FIFO's end is where its writers close it.
                    data = stream.read(os.fstat(stream.fileno()).st_size or -1)
            elif sys.stdin is not None:
                data = sys.stdin.buffer.read()
            else:
                raise CharrnnError("standard input is closed, there is nothing to read")
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


def is_nameless(file: str) -> bool:
    """Whether a text comes from standard input or from an open file, as `<(...)` in a shell gives it."""
    return file in ("-", _STANDARD_INPUT) or re.match(r"/(dev|proc/[^/]+)/fd/", file) is not None


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
    encoding = encoding_named(encoding)
    for start, (what, advice) in _NOT_TEXT.items():
        if data.startswith(start):
            raise CharrnnError(
                f"{name}: is {what}, not text; {advice}, or train on its raw bytes with --vocabulary bytes"
            )
    for mark, marked in _MARKS.items() if encoding == "utf-8" else ():
        if data.startswith(mark):
            raise CharrnnError(
                f"{name}: starts with a {marked.upper()} byte-order mark; read it with --encoding {marked}"
            )
    try:
        text = data.decode(encoding, errors)
        if encoding != "utf-8":
            text.encode()  # some encodings give halves of surrogate pairs, which are not characters
    except UnicodeDecodeError as error:
        if b"\0" in data and not encoding.startswith(("utf-16", "utf-32")):
            raise _binary(name, f"at offset {data.index(0):,}") from None
        raise CharrnnError(
            f"{name}: byte 0x{data[error.start]:02x} at offset {error.start:,} "
            f"(line {_line_of(data, error.start):,}) is not valid {encoding.upper()}; try "
            f"{_other_readings(data, error.start)}"
        ) from None
    except UnicodeError as error:
        raise CharrnnError(f"{name}: cannot be decoded as {encoding}: {error}") from None
    if "\0" in text:
        raise _binary(name, f"at character {text.index(chr(0)) + 1:,}")
    if errors == "replace" and (invalid := text.count("\ufffd") - data.count("\ufffd".encode())) > 0:
        note(f"{name}: {plural(invalid, 'invalid sequence')} of bytes became U+FFFD")
    return plain_text(name, text, note)


def plain_text(name: str, text: str, note: Note = ignore_note) -> str:
    """Take a byte-order mark off and make every line ending a newline.

    Args:
        name: how messages call the text.
        text: decoded.
        note: told, a line each, what was changed.
    """
    if text.startswith("\ufeff"):
        text = text[1:]
        note(f"{name}: took the byte-order mark off")
    if crlf := text.count("\r\n"):
        text = text.replace("\r\n", "\n")
        note(f"{name}: turned {plural(crlf, 'CRLF line ending')} into newlines")
    if lone_cr := text.count("\r"):
        text = text.replace("\r", "\n")
        note(f"{name}: turned {plural(lone_cr, 'lone carriage return')} into newlines")
    return text


def _binary(name: str, place: str) -> CharrnnError:
    return CharrnnError(
        f"{name}: has a NUL {place}, so it is a binary file or in another encoding; "
        "to train on it, use --vocabulary bytes for raw bytes, or name its --encoding"
    )


# --- guessing an encoding --------------------------------------------------------------------

_LOOKED_AT = 1 << 15  # bytes before and behind a place, from which its encoding is guessed
_SHOWN = 15  # characters before and behind it that are shown as a guess reads them
_LEAST_COHERENCE = 0.15  # of letters with those of a language, by charset-normalizer's measure
_TIE, _TIE_OF_CP1252 = 0.05, 0.15  # of coherence: guesses no further apart are equally good; cp1252 is the likeliest
_ENCODINGS = (
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "iso8859_2", "iso8859_5"),
    *("iso8859_7", "koi8_r", "koi8_u", "cp437", "cp850", "cp852", "cp866", "mac_roman", "cp874"),
    *("gb18030", "big5", "cp932", "euc_jp", "cp949"),
)
"""Those that text files are found in; of all that Python knows, one of another continent often fits by chance."""
_WINDOWS_PUNCTUATION = b"\x85\x91\x92\x93\x94\x96\x97\xa0"
"""Ellipsis, quotes, dashes and the fixed space, in every Windows code page for a Latin script."""


def _other_readings(data: bytes, place: int) -> str:
    """Which options may read a file that cannot be decoded.

    Args:
        data: the file.
        place: of a byte that is not valid.
    """
    replace = "--errors replace to read such bytes as U+FFFD"
    text = data.decode("utf-8", "replace")
    invalid = text.count("\ufffd") - data.count("\ufffd".encode())
    if not invalid:
        return "--encoding utf-8"
    if len(text) - len(text.encode("ascii", "ignore")) > 2 * invalid:  # UTF-8 but for a few bytes, or cut off
        return replace
    start = data.rfind(b"\n", 0, max(0, place - _LOOKED_AT)) + 1
    end = data.find(b"\n", place + _LOOKED_AT)
    encoding = _likely_encoding(data[start : None if end < 0 else end])
    if encoding is not None:
        with contextlib.suppress(UnicodeDecodeError):
            data.decode(encoding)
            before = data[:place].decode(encoding, "ignore")
            behind = data[place : place + 4 * _SHOWN].decode(encoding, "ignore")
            piece = " ".join(f"{before[-_SHOWN:]}{behind[:_SHOWN]}".split())
            return f'--encoding {encoding}, which reads "{piece}" there, or {replace}'
    return f"another --encoding, or {replace}"


def _likely_encoding(piece: bytes) -> str | None:
    """The encoding that charset-normalizer finds, None if it is not sure of one."""
    if not set(piece) - set(range(0x80)) - set(_WINDOWS_PUNCTUATION):
        return "cp1252"
    import charset_normalizer  # 20 ms, for this message alone

    found = [
        match
        for match in charset_normalizer.from_bytes(piece, cp_isolation=list(_ENCODINGS))
        if match.coherence > _LEAST_COHERENCE
    ]
    best = max((match.coherence for match in found), default=0.0)
    if any("cp1252" in match.could_be_from_charset and match.coherence > best - _TIE_OF_CP1252 for match in found):
        return "cp1252"
    found = [match for match in found if match.coherence > best - _TIE]
    if len(found) > 1:
        # Code pages for Cyrillic have large letters where others have small ones: most letters of a text are small.
        found = [match for match in found if sum(map(str.islower, str(match))) > sum(map(str.isupper, str(match)))]
    return codecs.lookup(found[0].encoding).name if len(found) == 1 else None


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
    contents: Sequence[tuple[str, bytes]],
    kind: str | None = None,
    encoding: str = "utf-8",
    errors: str = "strict",
    note: Note = ignore_note,
    model: Vocabulary | None = None,
) -> Corpus:
    """Decode text files, join them in the order given, choose the vocabulary, encode.

    Args:
        contents: of the files, as `read_bytes` returns them.
        kind: of the vocabulary; None lets the text decide between `ascii` and `text`.
        encoding: of the files.
        errors: `strict` or `replace`, for invalid bytes.
        note: told, a line each, what was read, changed and chosen.
        model: the vocabulary of a model that goes on learning: a `text` vocabulary has its characters first, then the
            text's own, and all that it knows stays known.

    Raises:
        CharrnnError: files that cannot be decoded or are empty.
    """
    names = ", ".join(name for name, _ in contents[:3]) + (f" and {len(contents) - 3:,} more" if contents[3:] else "")
    nothing = CharrnnError(f"{names}: empty, there is no text in it")
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
            f"vocabulary: the text's own characters, because {share:.2%} of it is not printable ASCII "
            "(--vocabulary ascii would make that unknown)"
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
    """Report what makes the validation part unlike the rest, and suggest to shuffle a list of short lines.

    Args:
        text: the whole text, None if it is bytes.
        corpus: the same as ids.
        files: as messages call them.
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
        yield "the lines are in alphabetical order: the last tenth, the validation part, is unlike the rest"
    if is_sorted or (is_list and share > MAX_NEVER_SEEN_SHARE):
        first = Path(files[0])
        shuffle = (
            f"{'shuf' if shutil.which('shuf') else 'sort -R'} > {shlex.quote(f'{first.stem}-shuffled{first.suffix}')}"
        )
        how = "" if any(map(is_nameless, files)) else f": cat {shlex.join(files)} | {shuffle}"
        yield f"if the order of the lines does not matter, shuffle them{how}"


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
