"""How what the user reads is worded and brought to stderr."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import unicodedata
from collections.abc import Callable

Note = Callable[[str], None]
"""Takes a line that tells the user what was read, changed or chosen."""

TYPE_CHECKING = False  # as typing.TYPE_CHECKING, which would take longer to import
if TYPE_CHECKING:
    from typing import TextIO

    from rich.console import Console

# C0 but for tab and newline, DEL, C1, and what reorders the text around it (Unicode's bidirectional
# embeddings, overrides and isolates). Joiners and marks, which scripts and emoji are written with, stay.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_LONG = 5000  # characters of a text that is read to be continued, from which it is shown
# Letters and symbols without a glyph: Hangul fillers, the empty Braille cell.
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"


def ignore_note(_: str) -> None:
    """Drop a note: for callers that have nobody to tell."""


def say(line: str) -> None:
    """Write one line to stderr, if there is one and it can be written to: nothing waits for its reader or its disk."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(one_line(line), file=sys.stderr, flush=True)


def is_live() -> bool:
    """Whether stderr shows what is written and overwrites it, rather than keeping all of it.

    A notebook gives its commands a terminal and keeps every line of it, as continuous integration may.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        return False
    is_kept = "JPY_PARENT_PID" in os.environ or "matplotlib_inline" in os.environ.get("MPLBACKEND", "")
    return not (is_kept or os.environ.get("CI") or os.environ.get("TERM") == "dumb")


def console_on(file: TextIO) -> Console:
    """Rich's console on a terminal, whose width it asks the terminal for."""
    from rich.console import Console  # 0.1 s: only where it is used

    for stale in ("COLUMNS", "LINES"):  # rich would believe them
        os.environ.pop(stale, None)
    return Console(file=file, highlight=False)


def show_reading(done: int, total: int) -> None:
    """Show how much of a long text a network has read: in a line that goes away again, or once."""
    if total < _LONG:
        return
    what = f"reading {total:,} characters"
    if not is_live():
        if not done:
            say(what)
        return
    line = f"{what}: {done / total:.0%}"
    with contextlib.suppress(OSError):
        print(f"\r{line}" if done < total else f"\r{' ' * len(line)}\r", end="", file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """A text with everything that could not be seen, or would end the line, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def show_controls(text: str) -> str:
    """A text with control characters other than newline and tab as escapes, for a terminal."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def show(character: str) -> str:
    """A character for a message: itself if it can be seen alone, else its code point."""
    hidden = not character.isprintable() or character.isspace() or character in _BLANK
    if hidden or unicodedata.category(character).startswith("M"):  # a mark would combine with what is before it
        return f"U+{ord(character):04X}"
    return character


def plural(count: int, noun: str) -> str:
    """`1 character`, `1,234 characters`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
