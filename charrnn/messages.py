"""How what the user reads is worded and brought to stderr."""

from __future__ import annotations

import contextlib
import re
import sys

# C0 but for tab and newline, DEL, C1, and what reorders the text around it (Unicode's bidirectional
# embeddings, overrides and isolates). Joiners and marks, which scripts and emoji are written with, stay.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def say(line: str) -> None:
    """Write one line to stderr, if there is one and it can be written to: nothing waits for its reader or its disk."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(one_line(line), file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """A text with everything that could not be seen, or would end the line, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def show_controls(text: str) -> str:
    """A text with control characters other than newline and tab as escapes, for a terminal."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def show(character: str) -> str:
    """A character for a message: itself where it can be seen, else its code point."""
    return character if character.isprintable() and not character.isspace() else f"U+{ord(character):04X}"


def plural(count: int, noun: str) -> str:
    """`1 character`, `1,234 characters`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
