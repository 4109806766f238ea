"""Where a text surprises a model: by kind of character, and line by line."""

from __future__ import annotations

import heapq
import math
import unicodedata
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

KINDS = ("letters within words", "first letters", "spaces", "newlines", "digits", "punctuation", "others")
_WITHIN, _FIRST, _SPACE, _NEWLINE, _DIGIT, _PUNCTUATION, _OTHER = range(len(KINDS))
LISTED = 10  # lines
LEAST = 20  # characters in a line that is listed: a shorter one is expected or unexpected by chance
_KEPT = 200  # characters of a line
Nats = npt.NDArray[np.floating]


@dataclass(frozen=True, order=True)
class Line:
    """A line of a text, ordered by how unexpected it is.

    Attributes:
        nats: per character, its newline included.
        number: the line's number in its text, from 1.
        text: its start, without the newline.
    """

    nats: float
    number: int
    text: str


class Tally:
    """Sums over a text that comes in pieces.

    Attributes:
        counts: scored characters of each of `KINDS`.
        sums: their nats.
    """

    def __init__(self, is_bytes: bool = False, first_line: int | None = 1) -> None:
        """Begin.

        Args:
            is_bytes: whether U+0000 to U+00FF stand for bytes.
            first_line: the number of the first line; None lists no lines, because parts of the text are missing.
        """
        self._is_bytes = is_bytes
        self.counts = np.zeros(len(KINDS), np.int64)
        self.sums = np.zeros(len(KINDS))
        self._table: dict[str, int] = {}
        self._last = "\n"
        self._number = first_line or 1
        self._lists_lines = first_line is not None
        self._text, self._line_nats, self._line_count = "", 0.0, 0  # of the line that has begun
        self._expected: list[tuple[float, int, str]] = []  # heaps of the extreme lines
        self._unexpected: list[tuple[float, int, str]] = []

    @property
    def nats_per_character(self) -> float:
        """The mean over all scored characters; nan if there is none."""
        count = self.counts.sum()
        return float(self.sums.sum() / count) if count else math.nan

    @property
    def expected(self) -> list[Line]:
        """The most expected lines, the first most of all; each text once."""
        return sorted(Line(-nats, number, text) for nats, number, text in self._expected)

    @property
    def unexpected(self) -> list[Line]:
        """The least expected lines, the first least of all; each text once."""
        return sorted((Line(*line) for line in self._unexpected), reverse=True)

    def add(self, text: str, nats: Nats) -> None:
        """Add a piece.

        Args:
            text: N characters.
            nats: of each, (N,); nan for a character that is not scored.
        """
        kinds = self._kinds(text)
        scored = ~np.isnan(nats)
        self.counts += np.bincount(kinds[scored], minlength=len(KINDS))
        self.sums += np.bincount(kinds[scored], nats[scored], len(KINDS))
        ends = [*(np.flatnonzero(kinds == _NEWLINE) + 1).tolist(), len(text)]
        sums = np.concatenate([[0.0], np.cumsum(np.where(scored, nats, 0.0), dtype=np.float64)])
        counts = np.concatenate([[0], np.cumsum(scored)])
        start = 0
        for end in ends:
            self._text += text[start : min(end, start + _KEPT - len(self._text))] if len(self._text) < _KEPT else ""
            self._line_nats += float(sums[end] - sums[start])
            self._line_count += int(counts[end] - counts[start])
            if end > start and text[end - 1] == "\n":
                self._end_line()
            start = end

    def end(self) -> None:
        """End the last line, which may have no newline."""
        if self._line_count:
            self._end_line()

    def _end_line(self) -> None:
        if self._lists_lines and self._line_count >= LEAST:
            mean, text = self._line_nats / self._line_count, self._text.removesuffix("\n")
            if self._is_bytes:
                text = text.encode("latin-1").decode("utf-8", "replace")
            for heap, value in ((self._unexpected, mean), (self._expected, -mean)):
                _keep(heap, (value, self._number, text))
        self._text, self._line_nats, self._line_count = "", 0.0, 0
        self._number += 1

    def _kinds(self, text: str) -> npt.NDArray[np.int64]:
        """The index in `KINDS` of each character."""
        for character in set(text) - self._table.keys():
            self._table[character] = _OTHER if self._is_bytes and character > "\x7f" else _kind(character)
        kinds = np.array([self._table[character] for character in text], np.int64)
        before = np.concatenate([[self._table.get(self._last, _NEWLINE)], kinds[:-1]])
        kinds[(kinds == _WITHIN) & (before != _WITHIN)] = _FIRST
        self._last = text[-1:] or self._last
        return kinds


def _keep(heap: list[tuple[float, int, str]], item: tuple[float, int, str]) -> None:
    """Keep the `LISTED` largest items, and of those with one text only the largest."""
    if len(heap) == LISTED and item <= heap[0]:
        return
    same = next((at for at, (_, _, text) in enumerate(heap) if text == item[2]), None)
    if same is None:
        (heapq.heappush if len(heap) < LISTED else heapq.heappushpop)(heap, item)
    elif item > heap[same]:
        heap[same] = item
        heapq.heapify(heap)


def _kind(character: str) -> int:
    if character.isalpha() or unicodedata.category(character).startswith("M"):
        return _WITHIN
    if character == "\n":
        return _NEWLINE
    if character.isspace():
        return _SPACE
    if character.isdigit():
        return _DIGIT
    return _PUNCTUATION if unicodedata.category(character)[0] in "PS" else _OTHER
