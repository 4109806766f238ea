"""Wording of messages, and writing them to stderr."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence

Note = Callable[[str], None]
"""Called with one line that tells the user what charrnn read, changed or chose."""

# C0 except tab and newline, DEL, C1, and characters that reorder the text around them (Unicode's bidirectional
# embeddings, overrides and isolates). Joiners and marks stay, because scripts and emoji need them.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_LONG = 5000  # characters: a text to continue shows its progress from this length
# Letters and symbols without a glyph: Hangul fillers, the empty Braille cell.
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"


def ignore_note(_: str) -> None:
    """Drop a note, for callers that have no one to show it to."""


def say(line: str) -> None:
    """Write one line to stderr; if stderr is closed or cannot be written to, the command goes on without it."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(one_line(line), file=sys.stderr, flush=True)


def is_live() -> bool:
    """Whether stderr is a display on which lines can be overwritten, rather than one that keeps every line.

    A notebook gives its commands a terminal but keeps every line; continuous integration may do the same.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        return False
    is_kept = "JPY_PARENT_PID" in os.environ or "matplotlib_inline" in os.environ.get("MPLBACKEND", "")
    return not (is_kept or os.environ.get("CI") or os.environ.get("TERM") == "dumb")


@contextlib.contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """Show on a terminal what the command waits for, and clear it again."""
    if not is_live():
        yield
        return
    line = f"{what} ..."
    _show(line)
    try:
        yield
    finally:
        _show(f"\r{' ' * len(line)}\r")


def _show(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, end="", file=sys.stderr, flush=True)


def show_reading(done: int, total: int, what: str = "") -> None:
    """Show how much of a long text has been read, by a network unless told otherwise.

    A display shows it in a line that goes away again, a log once.

    Args:
        done: how much has been read.
        total: how much there is.
        what: what is read; by default, that many characters.
    """
    if total < _LONG:
        return
    what = f"reading {what or f'{total:,} characters'}"
    if not is_live():
        if not done:
            say(what)
        return
    line = f"{what}: {done / total:.0%}"
    _show(f"\r{line}" if done < total else f"\r{' ' * len(line)}\r")


def encodable(text: str) -> str:
    """A path or name as UTF-8 can hold it: with ? for its bytes that are no text."""
    return text.encode("utf-8", "replace").decode()


def one_line(text: str) -> str:
    """Escape everything in a text that is invisible or would end the line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def show_controls(text: str) -> str:
    """Escape the control characters in a text, except newline and tab, for a terminal."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def show(character: str) -> str:
    """A character for a message: itself if it is visible on its own, otherwise its code point."""
    hidden = not character.isprintable() or character.isspace() or character in _BLANK
    if hidden or unicodedata.category(character).startswith("M"):  # a mark would combine with the character before it
        return f"U+{ord(character):04X}"
    return character


def some_of(items: Sequence[str], most: int) -> str:
    """The first items of a list for a message, and how many more there are: `a, b, c and 1,234 more`."""
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def size_of(size: int) -> str:
    """A size in bytes for a message: `617 MB`, `1.2 GB`."""
    return f"{size / 1e6:,.0f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


def plural(count: int, noun: str) -> str:
    """`1 character`, `1,234 characters`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
