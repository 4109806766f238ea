"""Finds samples that repeat themselves."""

from __future__ import annotations

from charrnn.text.vocabulary import Ids

LOOP_CHARACTERS = 200  # a loop is a passage that stands at the end
LOOP_TIMES = 4  # at least so often in succession, and fills so many characters
_LOOP_SEARCHED = 10_000  # of the last characters of a sample: what keeps the search short


def repeated_passage(ids: Ids) -> int | None:
    """The length of the passage that a text repeats at its end, None if it repeats none.

    A text has fallen into a loop if its last characters, LOOP_CHARACTERS or more, are one passage
    LOOP_TIMES in succession or more (the first time perhaps from its middle on). The shortest period of
    every ending comes from the failure function of the text read backwards, in linear time (Knuth, Morris
    and Pratt, 1977, "Fast Pattern Matching in Strings").
    """
    text: list[int] = ids[: -1 - _LOOP_SEARCHED : -1].tolist()
    border = [0] * len(text)  # of text[: i + 1]: the longest proper beginning that is its ending, too
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
