"""What stdout is for: text, to a terminal, a pipe or a file."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby, repeat
from operator import itemgetter

import click

from charrnn import CharrnnError
from charrnn.messages import show_controls


def write_text(pieces: Iterable[str], marks: Iterable[bool] = repeat(False)) -> bool:
    """Stream text to stdout: exact and in UTF-8 to a pipe or file; on a terminal control characters and marks show.

    Returns:
        Whether all of it was read; a pipe's reader may have had enough before.
    """
    out = sys.stdout
    if not isinstance(out, io.TextIOWrapper):
        raise CharrnnError("stdout is closed: there is nowhere to write the text to")
    on_terminal = out.isatty()
    if on_terminal:
        out.reconfigure(errors="replace")
    else:
        out.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")  # a path may be any bytes
    piece = ""
    try:
        for piece in _highlight(map(show_controls, pieces), marks) if on_terminal else filter(None, pieces):
            out.write(piece)
            out.flush()
        if on_terminal and not click.unstyle(piece).endswith("\n"):
            out.write("\n")
    except OSError as error:
        # Python would try to write the rest once more at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        if not isinstance(error, BrokenPipeError):  # whose reader has enough
            raise CharrnnError(f"stdout: cannot be written to: {error.strerror or error}") from None
        return False
    return True


def errors_for_stdout() -> str:
    """What bytes that are not UTF-8 are to become for `write_text`: U+FFFD on a terminal, else the very bytes."""
    return "replace" if sys.stdout is not None and sys.stdout.isatty() else "surrogateescape"


def _highlight(pieces: Iterable[str], marks: Iterable[bool]) -> Iterator[str]:
    """Text for a terminal, its marked pieces in red; underlined where NO_COLOR forbids colours."""
    for marked, run in groupby(zip(pieces, marks, strict=False), itemgetter(1)):
        text = (piece for piece, _ in run)
        if marked and os.environ.get("NO_COLOR"):
            yield click.style("".join(text), underline=True)
        elif marked:
            yield click.style("".join(text), fg="red")
        else:
            yield from text
