"""Finds samples that repeat themselves."""

from __future__ import annotations

from charrnn.text.vocabulary import Ids

LOOP_CHARACTERS = 200  # a loop is a passage whose repeats fill at least this many characters at the end
LOOP_TIMES = 4  # and that occurs at least this many times in succession
_LOOP_SEARCHED = 10_000  # last characters of a sample to search; this keeps the search short


def repeated_passage(ids: Ids) -> int | None:
    """The length of the passage that a text repeats at its end, or None if it repeats none.

    A text has fallen into a loop if its last characters, LOOP_CHARACTERS or more, consist of one passage that occurs
    at least LOOP_TIMES in succession (the first occurrence may be incomplete). The failure function of the reversed
    text gives the shortest period of every ending, in linear time (Knuth, Morris and Pratt, 1977, "Fast Pattern
    Matching in Strings").
    """
    text: list[int] = ids[: -1 - _LOOP_SEARCHED : -1].tolist()
    border = [0] * len(text)  # of text[: i + 1]: the length of the longest proper prefix that is also a suffix
    length = 0
    for i in range(1, len(text)):
        while length and text[i] != text[length]:
            length = border[length - 1]
        length += text[i] == text[length]
        border[i] = length
        period = i + 1 - length
        if i + 1 >= max(LOOP_CHARACTERS, LOOP_TIMES * period):
            return period
    return None
