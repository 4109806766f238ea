"""Record terminals as pictures: charrnn trains (README.md), and shows the surprise in a text (docs/look.md).

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
COLUMNS, LINES = 96, 30
TRAIN = "charrnn train tales.txt --minutes 1"
EVALUATE = "charrnn evaluate excerpt.txt --show"
EXCERPT = slice(-40, -26)  # lines of the tales that no run trains on
SHOWN = 20  # lines of the second picture


class Terminal:
    """A terminal in a folder."""

    def __init__(self, folder: Path, lines: int = LINES) -> None:
        self.folder = folder
        self.screen = pyte.Screen(COLUMNS, lines)
        self.stream = pyte.Stream(self.screen)

    def run(self, command: str) -> Text | None:
        """Run a command to its end; return the last screen with the command and the live line, if there was one."""
        self.stream.feed(f"\x1b[32m$\x1b[m \x1b[1m{command}\x1b[m\r\n")
        program, *args = command.split()
        child = pexpect.spawn(
            str(Path(sys.executable).parent / program),
            args,
            cwd=str(self.folder),
            env=os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"},
            dimensions=(self.screen.lines, COLUMNS),
            encoding="utf-8",
            timeout=None,
        )
        shown = None
        with contextlib.suppress(pexpect.EOF):
            while True:
                if self.screen.display[0].startswith("$ charrnn") and "chars/s" in "".join(self.screen.display):
                    shown = styled(self.screen)
                self.stream.feed(child.read_nonblocking(4096))
        child.close(force=True)
        return shown


def styled(screen: pyte.Screen) -> Text:
    """The text on a screen, with its colors and weights."""
    lines = []
    for row in range(screen.lines):
        line = Text()
        for column in range(screen.columns):
            character = screen.buffer[row][column]
            style = Style(color=rich_color(character.fg), bgcolor=rich_color(character.bg), bold=character.bold)
            line.append(character.data, style)
        line.rstrip()
        lines.append(line)
    return Text("\n").join(lines)


def rich_color(color: str) -> str | None:
    """Pyte's name of a color in Rich's words."""
    if color == "default":
        return None
    return f"#{color}" if re.fullmatch("[0-9a-f]{6}", color) else color.replace("bright", "bright_")


def write(name: str, shown: Text) -> None:
    """Write a screen as docs/NAME.svg."""
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere)
        console.print(shown)
    picture = console.export_svg(title="charrnn", unique_id="charrnn")
    # Pages load no fonts for a picture.
    target = PROJECT / "docs" / f"{name}.svg"
    target.write_text(re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL), encoding="utf-8")


@click.command(help=__doc__)
def main() -> None:
    """Record and write."""
    tales = (PROJECT / "data" / "tales.txt").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tales.txt").write_text(tales, encoding="utf-8")
        Path(folder, "excerpt.txt").write_text("\n".join(tales.splitlines()[EXCERPT]) + "\n", encoding="utf-8")
        shown = Terminal(Path(folder)).run(TRAIN)
        if shown is None:
            raise click.ClickException("the terminal never showed a live line")
        write("terminal", shown)
        terminal = Terminal(Path(folder), lines=80)
        terminal.run(EVALUATE)
        write("surprise", Text("\n").join(styled(terminal.screen).split()[:SHOWN]))


if __name__ == "__main__":
    main()
