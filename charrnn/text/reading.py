"""From files to text: bytes, their encoding, line endings."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import stat
import sys
from collections.abc import Sequence

from charrnn import CharrnnError
from charrnn.messages import Note, ignore_note, plural

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
    """Read whole files.

    Args:
        files: paths; `-` is standard input.

    Returns:
        A pair (name for messages, content) for each file.

    Raises:
        CharrnnError: a file is missing, is a directory or a device, or cannot be read.
    """
    contents = []
    for file in files:
        name = _STANDARD_INPUT if file == "-" else file
        try:
            if file != "-":
                with open(file, "rb") as stream:
                    if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode) and not stream.isatty():
                        raise CharrnnError(f"{name}: is a device, not a file")
                    # A file that grows meanwhile is read up to its old size, a FIFO until its writers close it.
                    data = stream.read(os.fstat(stream.fileno()).st_size or -1)
            elif sys.stdin is not None:
                data = sys.stdin.buffer.read()
            else:
                raise CharrnnError("standard input is closed: there is nothing to read")
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


def _line_of(data: bytes, offset: int) -> int:
    before = data[:offset]
    return before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n") + 1


def decode(name: str, data: bytes, encoding: str = "utf-8", errors: str = "strict", note: Note = ignore_note) -> str:
    """Decode one file: remove a byte-order mark, turn line endings into newlines, and change nothing else.

    Args:
        name: the file's name in messages.
        data: its bytes.
        encoding: a Python text encoding.
        errors: `strict` rejects invalid bytes; `replace` turns them into U+FFFD.
        note: called with one line for each change.

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
            text.encode()  # some encodings yield halves of surrogate pairs, which are not characters
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
        note(f"{name}: {plural(invalid, 'invalid byte sequence')} became U+FFFD")
    return plain_text(name, text, note)


def plain_text(name: str, text: str, note: Note = ignore_note) -> str:
    """Remove a byte-order mark and turn every line ending into a newline.

    Args:
        name: the text's name in messages.
        text: the decoded text.
        note: called with one line for each change.
    """
    if text.startswith("\ufeff"):
        text = text[1:]
        note(f"{name}: removed the byte-order mark")
    if crlf := text.count("\r\n"):
        text = text.replace("\r\n", "\n")
        note(f"{name}: turned {plural(crlf, 'CRLF line ending')} into newlines")
    if lone_cr := text.count("\r"):
        text = text.replace("\r", "\n")
        note(f"{name}: turned {plural(lone_cr, 'lone carriage return')} into newlines")
    return text


def _binary(name: str, place: str) -> CharrnnError:
    return CharrnnError(
        f"{name}: has a NUL {place}, so it is a binary file or in another encoding; to train on it, "
        "use --vocabulary bytes for its raw bytes, or --encoding for its encoding"
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


def _other_readings(data: bytes, place: int) -> str:
    """Suggest options that may read a file that cannot be decoded.

    Args:
        data: the file.
        place: the offset of an invalid byte.
    """
    replace = "--errors replace to read such bytes as U+FFFD"
    text = data.decode("utf-8", "replace")
    invalid = text.count("\ufffd") - data.count("\ufffd".encode())
    if not invalid:
        return "--encoding utf-8"
    if len(text) - len(text.encode("ascii", "ignore")) > 2 * invalid:  # UTF-8 except for a few bytes, or truncated
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
