"""How what the user reads is worded and brought to stderr."""

from __future__ import annotations

import contextlib
import sys


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
    return "".join(
        c if c in "\n\t" or not (ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0) else f"\\x{ord(c):02x}" for c in text
    )


def show(character: str) -> str:
    """A character for a message: itself where it can be seen, else its code point."""
    return character if character.isprintable() and not character.isspace() else f"U+{ord(character):04X}"


def plural(count: int, noun: str) -> str:
    """`1 character`, `1,234 characters`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
