"""Record a terminal in which charrnn trains, as the picture in README.md.

python -m pip install pyte && python scripts/write_terminal_picture.py
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from pathlib import Path

import click
import pexpect
import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

PROJECT = Path(__file__).parent.parent
TARGET = PROJECT / "docs" / "terminal.svg"
COLUMNS, LINES = 96, 30
COMMAND = "charrnn train tales.txt --minutes 1"


def record(folder: Path) -> Text:
    """Train in a terminal until it is full, and return its last screen with the command and the live line."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.Stream(screen)
    stream.feed(f"\x1b[32m$\x1b[m \x1b[1m{COMMAND}\x1b[m\r\n")
    program, *args = COMMAND.split()
    child = pexpect.spawn(
        str(Path(sys.executable).parent / program),
        args,
        cwd=str(folder),
        dimensions=(LINES, COLUMNS),
        encoding="utf-8",
        timeout=None,
    )
    shown = None
    with contextlib.suppress(pexpect.EOF):
        while screen.display[0].startswith("$ charrnn"):
            if any("chars/s" in line for line in screen.display):
                shown = styled(screen)
            stream.feed(child.read_nonblocking(4096))
    child.close(force=True)
    if shown is None:
        raise click.ClickException("the terminal never showed a live line")
    return shown


def styled(screen: pyte.Screen) -> Text:
    """The text on a screen, with its colors and weights."""
    lines = []
    for row in range(screen.lines):
        line = Text()
        for column in range(screen.columns):
            character = screen.buffer[row][column]
            color = None if character.fg == "default" else character.fg
            line.append(character.data, Style(color=color, bold=character.bold))
        line.rstrip()
        lines.append(line)
    return Text("\n").join(lines)


@click.command(help=__doc__)
def main() -> None:
    """Record and write."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tales.txt").write_bytes((PROJECT / "data" / "tales.txt").read_bytes())
        shown = record(Path(folder))
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere)
        console.print(shown)
    picture = console.export_svg(title="charrnn", unique_id="charrnn")
    # Pages load no fonts for a picture.
    TARGET.write_text(re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
