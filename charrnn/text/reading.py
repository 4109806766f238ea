"""From files to text: bytes, their encoding, line endings. Files of any size are read in blocks."""

from __future__ import annotations

import codecs
import contextlib
import glob
import os
import re
import shutil
import stat
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from charrnn import CharrnnError
from charrnn.messages import Note, ignore_note, plural, say, some_of

LARGE = 1 << 24  # bytes: a larger text is kept on disk, not in memory
BLOCK = 1 << 16  # bytes read at a time

_STANDARD_INPUT = "standard input"
_NOT_TEXT = {
    b"%PDF-": ("a PDF", "convert it, for example with pdftotext"),
    b"\x1f\x8b": ("compressed with gzip", "unpack it with gunzip"),
    b"{\\rtf": ("RTF, a word processor's format", "save it as plain text"),
    b"PK\x03\x04": ("a zip archive, or a document kept in one", "unpack or convert it"),
}
_MARKS = {  # a UTF-32 mark starts like a UTF-16 one
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Source:
    """A file to read, any number of times.

    What can be read only once, such as a FIFO, is kept: in memory or, if it is large, in a temporary file.

    Attributes:
        name: the file's name in messages.
        size: its size in bytes when it was opened; a file that grows is read up to there.
        state: its absolute path, size and modification time (ns); None if it is not a regular file.
        watch: called with each block that is read.
    """

    def __init__(self, name: str, data: bytes = b"") -> None:
        """Give a name to data that is in memory."""
        self.name = name
        self.size = len(data)
        self.state: tuple[str, int, int] | None = None
        self.watch: Callable[[bytes], object] = lambda _: None
        self._kept: BinaryIO | None = BytesIO(data)

    @classmethod
    def open(cls, file: str, folder: Path | None = None) -> Source:
        """Open a file.

        Args:
            file: its path; `-` is standard input.
            folder: the folder for a temporary file, created if necessary; None for the system's.

        Raises:
            CharrnnError: it is missing, is a directory or a device, or cannot be read.
        """
        source = cls(_STANDARD_INPUT if file == "-" else file)
        if file == "-":
            if sys.stdin is None:
                raise CharrnnError("standard input is closed: there is nothing to read")
            if sys.stdin.isatty():
                say("reading what is typed here; Ctrl-D at the start of a line ends it")
            with _explained(source.name):
                source._keep(sys.stdin.buffer, folder)
            return source
        with _explained(file), open(file, "rb") as stream:
            status = os.fstat(stream.fileno())
            if stat.S_ISCHR(status.st_mode) and not stream.isatty():
                raise CharrnnError(f"{file}: is a device, not a file")
            if stat.S_ISREG(status.st_mode) and status.st_size:
                source.size, source._kept = status.st_size, None
                source.state = os.path.abspath(file), status.st_size, status.st_mtime_ns
            else:  # a FIFO is read until its writers close it; a file in /proc has content, but no size
                source._keep(stream, folder)
        return source

    def _keep(self, stream: BinaryIO, folder: Path | None) -> None:
        data = stream.read(LARGE + 1)
        self.size, self._kept = len(data), BytesIO(data)
        if len(data) <= LARGE:
            return
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            self._kept = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it is gone when this object is
            weakref.finalize(self, self._kept.close)
            self._kept.write(data)
            shutil.copyfileobj(stream, self._kept)
            self.size = self._kept.tell()
        except OSError as error:
            raise CharrnnError(
                f"{self.name}: {folder or 'the temporary folder'} cannot hold it while charrnn reads it: "
                f"{error.strerror or error}"
            ) from None

    def blocks(self) -> Iterator[bytes]:
        """Read the content in blocks, and show each of them to `watch`.

        Raises:
            CharrnnError: the file has disappeared, or cannot be read.
        """
        for block in self._blocks():
            self.watch(block)
            yield block

    def _blocks(self) -> Iterator[bytes]:
        left = self.size
        with _explained(self.name), self._opened() as stream:
            while block := stream.read(min(BLOCK, left)):
                left -= len(block)
                yield block

    def _opened(self) -> contextlib.AbstractContextManager[BinaryIO]:
        if self._kept is None:
            return open(self.name, "rb", buffering=0)
        self._kept.seek(0)
        return contextlib.nullcontext(self._kept)

    def between(self, start: int, end: int) -> bytes:
        """The bytes from one offset to another, as far as there are any."""
        found, at = [], 0
        for block in self._blocks():
            if at + len(block) > start:
                found.append(block[max(0, start - at) : max(0, end - at)])
            at += len(block)
            if at >= end:
                break
        return b"".join(found)


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn a failure to open or read a file into a line for the user."""
    try:
        yield
    except FileNotFoundError:
        raise CharrnnError(f"{name}: no such file", exit_code=2) from None
    except IsADirectoryError:
        raise CharrnnError(f"{name}: is a folder, not a file", exit_code=2) from None
    except PermissionError:
        raise CharrnnError(f"{name}: no permission to read it") from None
    except OSError as error:
        raise CharrnnError(f"{name}: cannot be read: {error.strerror or error}") from None


def open_files(
    files: Sequence[str], pattern: str | None = None, folder: Path | None = None, note: Note = ignore_note
) -> list[Source]:
    """Open files, and in folders the files that match a pattern, sorted by path.

    Args:
        files: paths of files and folders; `-` is standard input.
        pattern: a pattern of the shell's kind, relative to each folder (`**` matches any subfolders).
        folder: see `Source.open`.
        note: called with one line on the files in each folder.

    Raises:
        CharrnnError: a file cannot be read, or a pattern was given without need, or is missing or matches nothing.
    """
    sources = []
    for file in files:
        paths = [file]
        if file != "-" and os.path.isdir(file):
            if pattern is None:
                raise CharrnnError(
                    f"{file}: is a folder; name its text files, or select them with charrnn train --glob '*.txt'",
                    exit_code=2,
                )
            paths = [os.path.join(file, name) for name in sorted(glob.glob(pattern, root_dir=file, recursive=True))]
            paths = [path for path in paths if os.path.isfile(path)]
            if not paths:
                raise CharrnnError(f"{file}: contains no file that matches --glob {pattern!r}", exit_code=2)
            note(f"{file}: {plural(len(paths), 'file')} matching {pattern}")
        sources += [Source.open(path, folder) for path in paths]
    if pattern is not None and not any(file != "-" and os.path.isdir(file) for file in files):
        raise CharrnnError("--glob selects files in a folder: name a folder, or leave out --glob", exit_code=2)
    return sources


def is_nameless(file: str) -> bool:
    """Whether a text comes from standard input or an open file, such as a shell's `<(...)`."""
    return file in ("-", _STANDARD_INPUT) or re.match(r"/(dev|proc/[^/]+)/fd/", file) is not None


def encoding_named(name: str) -> str:
    """Python's own name for a text encoding, the same for all its aliases.

    Raises:
        CharrnnError: there is no encoding of that name.
    """
    try:
        with contextlib.suppress(UnicodeError):  # only the lookup matters here, not whether a space decodes
            b" ".decode(name)
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        raise CharrnnError(
            f"unknown text encoding {name!r}; some are utf-8, utf-16, latin-1, cp1252, mac-roman, shift_jis",
            exit_code=2,
        ) from None


class Changes:
    """What reading changed in files, to report it."""

    def __init__(self) -> None:
        self._changed: dict[str, dict[str, int]] = {}  # how often, by what and by file

    def add(self, what: str, name: str, count: int) -> None:
        """Record that something was changed a number of times in a file."""
        if count:
            by_file = self._changed.setdefault(what, {})
            by_file[name] = by_file.get(name, 0) + count

    def lines(self) -> Iterator[str]:
        """One line for each kind of change and file, or for all files if they are many."""
        for what, wording in _WORDING.items():
            by_file = self._changed.get(what, {})
            if len(by_file) > _NAMED:
                by_file = {names_of(list(by_file)): sum(by_file.values())}
            for name, count in by_file.items():
                yield f"{name}: {wording(count)}"


_NAMED = 3  # files that a message names
_WORDING: dict[str, Callable[[int], str]] = {
    "invalid": lambda count: f"{plural(count, 'invalid byte sequence')} became U+FFFD",
    "mark": lambda count: "removed the byte-order mark" if count == 1 else f"removed {count:,} byte-order marks",
    "crlf": lambda count: f"turned {plural(count, 'CRLF line ending')} into newlines",
    "cr": lambda count: f"turned {plural(count, 'lone carriage return')} into newlines",
}


def names_of(names: Sequence[str]) -> str:
    """The names of files in a message: at most three of them."""
    return some_of(names, _NAMED)


def decode(name: str, data: bytes, encoding: str = "utf-8", errors: str = "strict", note: Note = ignore_note) -> str:
    """Decode a file that is in memory; see `decoded`.

    Args:
        name: the file's name in messages.
        data: its bytes.
        encoding: a Python text encoding.
        errors: `strict` rejects invalid bytes; `replace` turns them into U+FFFD.
        note: called with one line for each change.

    Raises:
        CharrnnError: as for `decoded`.
    """
    changes = Changes()
    text = "".join(decoded(Source(name, data), encoding, errors, changes))
    for line in changes.lines():
        note(line)
    return text


def decoded(source: Source, encoding: str, errors: str, changes: Changes) -> Iterator[str]:
    """Decode a file: remove a byte-order mark, turn line endings into newlines, and change nothing else.

    Args:
        source: the file.
        encoding: a Python text encoding.
        errors: `strict` rejects invalid bytes; `replace` turns them into U+FFFD.
        changes: records what was changed.

    Yields:
        The text, piece by piece.

    Raises:
        CharrnnError: invalid bytes under `strict`, NUL characters, or an unknown encoding.
    """
    encoding = encoding_named(encoding)
    start = source.between(0, 8)
    for magic, (what, advice) in _NOT_TEXT.items():
        if start.startswith(magic):
            raise CharrnnError(
                f"{source.name}: is {what}, not text; {advice}, or train on its raw bytes with --vocabulary bytes"
            )
    for mark, marked in _MARKS.items() if encoding == "utf-8" else ():
        if start.startswith(mark):
            raise CharrnnError(
                f"{source.name}: starts with a {marked.upper()} byte-order mark; convert it to UTF-8, or "
                f"train on it with --encoding {marked}"
            )
    yield from _normalised(source.name, _characters(source, encoding, errors, changes), changes)


def _characters(source: Source, encoding: str, errors: str, changes: Changes) -> Iterator[str]:
    """The characters of a file, piece by piece."""
    characters = 0
    try:
        for text, invalid in _decode_blocks(source, encoding, errors):
            if "\0" in text:
                raise _binary(source.name, f"at character {characters + text.index(chr(0)) + 1:,}")
            characters += len(text)
            changes.add("invalid", source.name, invalid)
            yield text
    except _InvalidByteError as error:
        raise _invalid(source, encoding, error.offset, error.byte) from None
    except UnicodeError as error:
        raise CharrnnError(f"{source.name}: cannot be decoded as {encoding}: {error}") from None


class _InvalidByteError(Exception):
    """A byte that is not valid in an encoding.

    Attributes:
        offset: its offset in the file.
        byte: its value.
    """

    def __init__(self, offset: int, byte: int) -> None:
        super().__init__()
        self.offset, self.byte = offset, byte


def _decode_blocks(source: Source, encoding: str, errors: str = "strict") -> Iterator[tuple[str, int]]:
    """Decode a file in blocks: the characters of each, and how many invalid sequences became U+FFFD in it.

    Raises:
        _InvalidByteError: a byte is not valid.
        UnicodeError: the file cannot be decoded for another reason.
    """
    if encoding in ("utf-16", "utf-32") and not source.between(0, 4).startswith(tuple(_MARKS)):
        encoding += f"-{sys.byteorder[0]}e"  # incremental decoders insist on the mark, which bytes.decode does not
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    read = 0
    for block in chain(source.blocks(), [b""]):
        waiting = decoder.getstate()[0]
        read += len(block)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise _InvalidByteError(read - len(error.object) + error.start, error.object[error.start]) from None
        if encoding != "utf-8":
            text.encode()  # some encodings yield halves of surrogate pairs, which are not characters
        invalid = 0
        if errors == "replace" and "\ufffd" in text:
            invalid = max(0, text.count("\ufffd") - (waiting + block).count("\ufffd".encode()))
        yield text, invalid


def _normalised(name: str, pieces: Iterable[str], changes: Changes) -> Iterator[str]:
    """Remove a byte-order mark from a text in pieces, and turn every line ending into a newline."""
    held, is_first = "", True  # a carriage return at the end of a piece, which a newline may follow
    for piece in chain(pieces, [""]):
        text = held + piece
        if is_first and text:
            is_first = False
            if text.startswith("\ufeff"):
                text = text[1:]
                changes.add("mark", name, 1)
        held = "\r" if piece and text.endswith("\r") else ""
        text = text.removesuffix(held)
        if "\r" in text:
            crlf = text.count("\r\n")
            changes.add("crlf", name, crlf)
            changes.add("cr", name, text.count("\r") - crlf)
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        yield text


def plain_text(name: str, text: str, note: Note = ignore_note) -> str:
    """Remove a byte-order mark and turn every line ending into a newline.

    Args:
        name: the text's name in messages.
        text: the decoded text.
        note: called with one line for each change.
    """
    changes = Changes()
    text = "".join(_normalised(name, [text], changes))
    for line in changes.lines():
        note(line)
    return text


def ended(pieces: Iterable[str], split_at: str | None, mark: str) -> Iterator[str]:
    """Put a mark at the end of each text of a file in pieces.

    The text that separates texts is removed, together with newlines after it. Texts without a character vanish.

    Args:
        pieces: the file's text.
        split_at: the text that separates texts; None for a file that is one text.
        mark: the mark, a character that the file does not contain.
    """
    held, at_start = "", True  # a piece's end with which a separator may begin
    empty = re.compile(f"{mark}[\n{mark}]+")
    for piece in chain(pieces, [""]):
        text = held + piece
        held = ""
        if split_at is not None:
            text = text.replace(split_at, mark)
            begun = range(min(len(split_at) - 1, len(text)), 0, -1) if piece else ()
            held = next((split_at[:size] for size in begun if text.endswith(split_at[:size])), "")
            text = text.removesuffix(held)
            if mark in text:
                text = empty.sub(mark, text)
            if at_start:
                text = text.lstrip(f"\n{mark}")
        if text:
            at_start = text.endswith(mark)
            yield text
    if not at_start:
        yield mark


def _binary(name: str, place: str) -> CharrnnError:
    return CharrnnError(
        f"{name}: has a NUL {place}, so it is a binary file or in another encoding; to train on it, "
        "use --vocabulary bytes for its raw bytes, or --encoding for its encoding"
    )


def _invalid(source: Source, encoding: str, place: int, byte: int) -> CharrnnError:
    """Explain a byte that is not valid in an encoding, and suggest how to read the file."""
    at = newlines = 0
    nul: int | None = None
    last = b""
    for block in source.blocks():
        if nul is None and 0 in block:
            nul = at + block.index(0)
        before = block[: max(0, place - at)]
        newlines += before.count(b"\n") + before.count(b"\r") - (last + before).count(b"\r\n")
        last = before[-1:]
        at += len(block)
    if nul is not None and not encoding.startswith(("utf-16", "utf-32")):
        return _binary(source.name, f"at offset {nul:,}")
    return CharrnnError(
        f"{source.name}: byte 0x{byte:02x} at offset {place:,} (line {newlines + 1:,}) is not valid "
        f"{encoding.upper()}; try {_other_readings(source, place)}"
    )


_LOOKED_AT = 1 << 15  # bytes before and after a position, from which the encoding is guessed
_SHOWN = 15  # characters before and after it that the message shows in the guessed encoding
_LEAST_COHERENCE = 0.15  # how well the letters fit a language, by charset-normalizer's measure
_TIE, _TIE_OF_CP1252 = 0.05, 0.15  # in coherence: guesses this close count as equal; cp1252 is the most common
_ENCODINGS = (
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "iso8859_2", "iso8859_5"),
    *("iso8859_7", "koi8_r", "koi8_u", "cp437", "cp850", "cp852", "cp866", "mac_roman", "cp874"),
    *("gb18030", "big5", "cp932", "euc_jp", "cp949"),
)
"""Encodings that text files use; among all that Python knows, one from another continent often fits by chance."""


_WINDOWS_PUNCTUATION = b"\x85\x91\x92\x93\x94\x96\x97\xa0"
"""Ellipsis, quotes, dashes and the no-break space, the same in every Windows code page for a Latin script."""


def _other_readings(source: Source, place: int) -> str:
    """Suggest options that may read a file that cannot be decoded.

    Args:
        source: the file.
        place: the offset of an invalid byte.
    """
    replace = "--errors replace to read such bytes as U+FFFD"
    outside = invalid = 0
    for text, replaced in _decode_blocks(source, "utf-8", "replace"):
        outside += len(text) - len(text.encode("ascii", "ignore"))
        invalid += replaced
    if not invalid:
        return "--encoding utf-8"
    if outside > 2 * invalid:  # UTF-8 except for a few bytes, or truncated
        return replace
    first = max(0, place - 2 * _LOOKED_AT)
    near = source.between(first, place + 2 * _LOOKED_AT)
    start = near.rfind(b"\n", 0, max(0, place - first - _LOOKED_AT)) + 1
    end = near.find(b"\n", place - first + _LOOKED_AT)
    encoding = _likely_encoding(near[start : None if end < 0 else end])
    if encoding is not None and can_be_read_as(source, encoding):
        before = near[start : place - first].decode(encoding, "ignore")
        behind = near[place - first : place - first + 4 * _SHOWN].decode(encoding, "ignore")
        piece = " ".join(f"{before[-_SHOWN:]}{behind[:_SHOWN]}".split())
        return f'--encoding {encoding}, which reads "{piece}" there, or {replace}'
    return f"another --encoding, or {replace}"


def can_be_read_as(source: Source, encoding: str) -> bool:
    """Whether all bytes of a file are valid in an encoding."""
    try:
        for _ in _decode_blocks(source, encoding):
            pass
    except (_InvalidByteError, UnicodeError):
        return False
    return True


def _likely_encoding(piece: bytes) -> str | None:
    """The encoding that charset-normalizer finds, or None if it is not sure."""
    if not set(piece) - set(range(0x80)) - set(_WINDOWS_PUNCTUATION):
        return "cp1252"
    import charset_normalizer  # takes 20 ms, and only this message needs it

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
        # Some Cyrillic code pages have capitals where others have small letters; most letters of a text are small.
        found = [match for match in found if sum(map(str.islower, str(match))) > sum(map(str.isupper, str(match)))]
    return codecs.lookup(found[0].encoding).name if len(found) == 1 else None
