"""The ids of large texts, each in a file that all runs on the same text share.

Such a file is written once and read by slices, so that a text of any length trains in little memory. It is a cache:
charrnn writes it again if it is missing or damaged, and it can be deleted while nothing trains on its text.

The file starts with one line of JSON, whose checksums cover all of it. After that come, in little-endian order, the
characters of the text as decoded (uint32), how often each occurs (int64), and the ids (uint8, uint16 or uint32).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import secrets
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from charrnn import CharrnnError
from charrnn.files import open_regular, sync, sync_folder, try_lock
from charrnn.text.vocabulary import Ids

FOLDER = ".texts"  # in the folder of runs; no run can have this name
_FORMAT = 1
_MAX_LINE = 1 << 20  # bytes
_BLOCK = 1 << 20  # bytes hashed at a time
_NO_CHECKSUM = "0" * 64


@dataclass(frozen=True)
class Description:
    """How a text was read, and what identifies it.

    Attributes:
        reading: the options with which the files were read.
        files: a digest of the files' paths, sizes and modification times; None if it would prove nothing.
        size: bytes in the files.
        content: a digest of them.
        changes: what reading changed, a line each.
        sha256: identifies the text.
    """

    reading: Mapping[str, Any]
    files: str | None
    size: int
    content: str
    changes: Sequence[str]
    sha256: str


class StoredIds:
    """The ids of a text in a file; a slice of it is an array, as of an array of ids.

    Attributes:
        path: the file.
        size: its size in bytes.
        table: the id to return for each stored one, (number of stored ids,); None returns the stored ones.
    """

    def __init__(self, path: Path, file: BinaryIO, start: int, count: int, dtype: np.dtype[Any]) -> None:
        self.path = path
        self.size = start + count * dtype.itemsize
        self.table: Ids | None = None
        self._file, self._start, self._count, self._dtype = file, start, count, dtype
        weakref.finalize(self, file.close)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, places: slice) -> Ids:
        """The ids at consecutive places, (N,).

        Raises:
            CharrnnError: the file cannot be read any more, or has been truncated.
        """
        first, end, _ = places.indices(self._count)
        size = self._dtype.itemsize
        wanted = max(0, end - first) * size
        try:
            # Reading it this way costs no memory; the pages of a memory map would count as the program's.
            self._file.seek(self._start + first * size)
            data = self._file.read(wanted)
        except OSError as error:
            raise CharrnnError(f"{self.path}: cannot be read: {error.strerror or error}") from None
        if len(data) < wanted:
            raise CharrnnError(f"{self.path}: was truncated: run the command again, which writes it again")
        stored = np.frombuffer(data, self._dtype)
        if self.table is None:
            return stored
        try:
            return np.asarray(self.table[stored])
        except IndexError:
            raise CharrnnError(f"{self.path}: was changed: run the command again, which writes it again") from None


@dataclass(frozen=True)
class StoredText:
    """A text that is in a file.

    Attributes:
        path: the file.
        description: how it was read.
        counts: how often each character occurs in the text as decoded, in code point order.
    """

    path: Path
    description: Description
    counts: dict[str, int]

    def open_ids(self, symbols: int, count: int) -> StoredIds:
        """Open the ids, and check the whole file.

        Args:
            symbols: number of different ids that are stored.
            count: number of ids.

        Raises:
            ValueError: the file is not whole.
            OSError: it cannot be read.
        """
        file = open_regular(self.path)
        try:
            document, points, counts = _read_head(file)
            _expect(document["sha256"] == self.description.sha256, "another text has taken its place")
            dtype = id_type(symbols)
            start = file.tell()
            _expect(os.fstat(file.fileno()).st_size == start + count * dtype.itemsize, "its length is wrong")
            body = _body_digest(points, counts)
            while block := file.read(_BLOCK):
                body.update(block)
                _expect(int(np.frombuffer(block, dtype).max()) < symbols, "an id is too large")
            _expect(body.hexdigest() == document["body"], "its checksum differs")
        except BaseException:
            file.close()
            raise
        return StoredIds(self.path, file, start, count, dtype)


def id_type(symbols: int) -> np.dtype[Any]:
    """The narrowest unsigned type for ids below a number."""
    return np.dtype(np.min_scalar_type(max(0, symbols - 1))).newbyteorder("<")


def stored_texts(folder: Path) -> Iterator[StoredText]:
    """The texts in a folder whose heads can be read; their ids are not checked yet."""
    for path in sorted(folder.glob("*.ids")):
        with contextlib.suppress(OSError, ValueError, RecursionError), open_regular(path) as file:
            document, points, counts = _read_head(file)
            described = {field.name: document[field.name] for field in dataclasses.fields(Description)}
            yield StoredText(path, Description(**described), dict(zip(map(chr, points), counts.tolist(), strict=True)))


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _read_head(file: BinaryIO) -> tuple[dict[str, Any], npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Read and check everything before the ids.

    Raises:
        ValueError: it is not what `write_ids` writes.
    """
    line = file.readline(_MAX_LINE)
    document = json.loads(line)
    _expect(isinstance(document, dict) and line == _line(document), "not a line that charrnn writes")
    kinds: dict[str, Any] = {
        "body": str,
        "changes": list,
        "characters": int,
        "checksum": str,
        "content": str,
        "files": (str, type(None)),
        "format": int,
        "reading": dict,
        "sha256": str,
        "size": int,
    }
    _expect(document.keys() == kinds.keys(), "unknown or missing keys")
    _expect(all(isinstance(document[key], kind) for key, kind in kinds.items()), "a value of the wrong type")
    _expect(document["format"] == _FORMAT, "another format")
    _expect(all(isinstance(change, str) for change in document["changes"]), "a change is not a string")
    hashes = [document[key] for key in ("body", "checksum", "content", "sha256")]
    _expect(all(re.fullmatch("[0-9a-f]{64}", digits) for digits in hashes), "not a hash")
    checksum, document["checksum"] = document["checksum"], _NO_CHECKSUM
    _expect(hashlib.sha256(_line(document)).hexdigest() == checksum, "the head's checksum differs")
    characters = document["characters"]
    _expect(0 < characters <= sys.maxunicode + 1, "the number of characters is impossible")
    points = np.frombuffer(file.read(4 * characters), "<u4")
    counts = np.frombuffer(file.read(8 * characters), "<i8")
    _expect(len(points) == len(counts) == characters, "truncated")
    _expect(int(points[-1]) <= sys.maxunicode and bool((np.diff(points.astype(np.int64)) > 0).all()), "bad characters")
    _expect(int(counts.min()) > 0, "a character that does not occur")
    return document, points, counts


def _line(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode() + b"\n"


def _body_digest(points: npt.NDArray[np.uint32], counts: npt.NDArray[np.int64]) -> Any:
    digest = hashlib.sha256(np.ascontiguousarray(points, "<u4").data)
    digest.update(np.ascontiguousarray(counts, "<i8").data)
    return digest


def write_ids(
    folder: Path, description: Description, counts: Mapping[str, int], pieces: Iterator[Ids], sha256: Any
) -> StoredText:
    """Write a text's ids to a file that is named by the text and by how it was read.

    Args:
        folder: the folder for it, created if necessary.
        description: how the text was read; its `sha256` is not known yet.
        counts: how often each character occurs in the text as decoded, in code point order.
        pieces: the ids, of one type.
        sha256: the hash that identifies the text; it is whole once the last piece has come.

    Raises:
        CharrnnError: the file cannot be written; nothing of it is left.
    """
    points = np.array(list(map(ord, counts)), "<u4")
    numbers = np.array(list(counts.values()), "<i8")
    document = {**dataclasses.asdict(description), "format": _FORMAT, "characters": len(points)}
    document |= {"body": _NO_CHECKSUM, "checksum": _NO_CHECKSUM, "sha256": _NO_CHECKSUM}
    temporary: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        temporary, locked = _temporary(folder)
        with locked as file:
            file.write(_line(document))
            file.write(points.data)
            file.write(numbers.data)
            body = _body_digest(points, numbers)
            for piece in pieces:
                data = np.ascontiguousarray(piece).data
                body.update(data)
                file.write(data)
            description = dataclasses.replace(description, sha256=sha256.hexdigest())
            document |= {"body": body.hexdigest(), "sha256": description.sha256}
            document["checksum"] = hashlib.sha256(_line(document)).hexdigest()
            file.seek(0)
            file.write(_line(document))
            file.flush()
            sync(file.fileno())
        name = hashlib.sha256(_line({"reading": description.reading, "sha256": description.sha256})).hexdigest()
        path = folder / f"{name[:16]}.ids"
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            if temporary is not None:
                temporary.unlink()
        if isinstance(error, OSError):
            raise CharrnnError(
                f"{folder}: cannot be written to: {error.strerror or error}; a text of this size is kept there as ids: "
                "free some space, or choose another folder with --checkpoints-dir"
            ) from None
        raise
    sync_folder(folder)
    return StoredText(path, description, dict(counts))


def _temporary(folder: Path) -> tuple[Path, BinaryIO]:
    """Create a temporary file, locked so that no other process takes it for a leftover."""
    while True:
        path = folder / f".{secrets.token_hex(8)}.tmp"  # also unlike those of other machines
        file = open(path, "xb")  # noqa: SIM115 - the caller closes it
        try:
            if try_lock(file):
                return path, file
        except OSError:  # a file system without locks
            return path, file
        file.close()  # another process was faster, and has removed it


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError), open(path, "r+b") as file:
            if try_lock(file):
                path.unlink()
