"""What a cell may keep track of: properties of each place in a text."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float32] | npt.NDArray[np.bool_]
"""Of a property after each character of a text, (N,): a number, or whether it holds."""

_OPENING, _CLOSING = "([{", ")]}"


def _is_within(pattern: str, text: str) -> Values:
    """Whether a place lies in a match of a regular expression, up to the last character but one."""
    inside = np.zeros(len(text), np.bool_)
    for match in re.finditer(pattern, text, re.MULTILINE):
        inside[match.start() : match.end() - 1] = True
    return inside


def _count(step: Callable[[int, str], int], text: str) -> Values:
    """A number that each character changes."""
    number, numbers = 0, []
    for character in text:
        number = step(number, character)
        numbers.append(number)
    return np.array(numbers, np.float32)


def _depth(depth: int, character: str) -> int:
    return max(0, depth + (character in _OPENING) - (character in _CLOSING))


def _indentation(text: str) -> Values:
    """The number of spaces and tabs at the start of the line, as far as it was read; 0 after a newline."""
    lines = text.split("\n")
    indented = [np.arange(1, len(line) + 2).clip(max=len(line) - len(line.lstrip(" \t"))) for line in lines]
    for numbers in indented:
        numbers[-1] = 0
    return np.concatenate(indented)[: len(text)].astype(np.float32)


def _place_in_the_paragraph(text: str) -> Values:
    """The number of characters since the last blank line."""
    starts = np.zeros(len(text), np.int64)
    for match in re.finditer(r"\n\n", text):
        starts[match.end() - 1] = match.end() - 1
    return (np.arange(len(text)) - np.maximum.accumulate(starts)).astype(np.float32)


def _in_a_capitalised_word(text: str) -> Values:
    inside = np.zeros(len(text), np.bool_)
    for match in re.finditer(r"[^\W\d_]+", text):
        inside[match.start() : match.end()] = match[0][0].isupper()
    return inside


FEATURES: dict[str, Callable[[str], Values]] = {
    "inside quotes": lambda text: _is_within(
        '"[^"\n]*(?:\n[^"\n]+)*"|\u201c[^\u201d]*\u201d|\u00ab[^\u00bb]*\u00bb', text
    ),
    "inside brackets": lambda text: _count(_depth, text) > 0,
    "depth of brackets": lambda text: _count(_depth, text),
    "place in the line": lambda text: _count(lambda place, c: 0 if c == "\n" else place + 1, text),
    "place in the word": lambda text: _count(lambda place, c: place + 1 if c.isalpha() else 0, text),
    "in a word with a capital": _in_a_capitalised_word,
    "in upper case": lambda text: _is_within(r"[A-Z]{2}[A-Z .,:'-]*", text),
    "indentation": _indentation,
    "in a comment": lambda text: _is_within(r"#.*\n|//.*\n|/\*[^*]*(?:\*(?!/)[^*]*)*\*/", text),
    "place in the sentence": lambda text: _count(lambda place, c: 0 if c in ".!?" else place + 1, text),
    "place in the paragraph": _place_in_the_paragraph,
    "end of a sentence": lambda text: _is_within(r"[.!?][\"'\u201d\u2019)]*\s+.", text),
}
"""Each property by its name, for a text of N characters."""
