"""Writing text to stdout: a terminal, a pipe or a file."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

import click

from charrnn import CharrnnError
from charrnn.messages import show_controls


def write_text(pieces: Iterable[str], is_painted: bool = False) -> bool:
    """Stream text to stdout: exact UTF-8 to a pipe or file, with escaped controls to a terminal.

    Args:
        pieces: the text.
        is_painted: the pieces are ready for a terminal: they have colours, and their own controls are escaped.

    Returns:
        Whether all of the text was written; the reader of a pipe may close it earlier.
    """
    out = sys.stdout
    if not isinstance(out, io.TextIOWrapper):
        raise CharrnnError("stdout is closed: there is nowhere to write the text")
    on_terminal = is_terminal()
    if on_terminal:
        out.reconfigure(errors="replace")
    else:
        out.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")  # a path may contain any bytes
    piece = ""
    try:
        if on_terminal and not is_painted:
            pieces = map(show_controls, pieces)
        for piece in filter(None, pieces):
            out.write(piece)
            out.flush()
        if on_terminal and not click.unstyle(piece).endswith("\n"):
            out.write("\n")
    except OSError as error:
        # At exit, Python would try to write the rest again, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        if not isinstance(error, BrokenPipeError):  # the reader has closed it, which is no error
            raise CharrnnError(f"stdout: cannot be written to: {error.strerror or error}") from None
        return False
    return True


def write_paths(*paths: object) -> None:
    """Print the paths of written files, a line each; the files are there even if stdout is closed."""
    if sys.stdout is not None:
        write_text(f"{path}\n" for path in paths)


def errors_for_stdout() -> str:
    """How `write_text` needs invalid UTF-8 decoded: to U+FFFD for a terminal, else so that the same bytes come out."""
    return "replace" if is_terminal() else "surrogateescape"


def is_terminal() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def highlighted(pieces: Iterable[tuple[str, bool]]) -> Iterator[str]:
    """Text for `write_text`, painted if stdout is a terminal: marked pieces in red, or underlined if NO_COLOR is set.

    Args:
        pieces: the text, and whether each piece is marked.
    """
    if not is_terminal():
        yield from (piece for piece, _ in pieces)
        return
    for marked, run in groupby(pieces, itemgetter(1)):
        text = (show_controls(piece) for piece, _ in run)
        if marked and os.environ.get("NO_COLOR"):
            yield click.style("".join(text), underline=True)
        elif marked:
            yield click.style("".join(text), fg="red")
        else:
            yield from text
