"""Build the starter, the model that comes with charrnn, from plain texts.

    python scripts/build_starter.py prose.txt --folder starter-work --out charrnn/starter.safetensors

TEXTS is a folder of .txt files, one book each, or one file in which each book ends with a form feed.
The same texts give the same file on the same class of machine. Training takes hours; the same command
continues it after a stop.

The last tenth of the text is held out: charrnn validates on it and never trains on it.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import click

from charrnn.files import write_atomically
from charrnn.runs import checkpoint
from charrnn.runs.folder import Run
from charrnn.text.vocabulary import ASCII_EQUIVALENTS

RECIPE = {
    "vocabulary": "ascii", "layers": 2, "units": 640, "batch-size": 64, "seq-length": 64, "dropout": 0.1,
    "learning-rate": 0.004, "epochs": 1, "seed": 1, "device": "cpu",
}  # fmt: skip
PART = 10_000  # characters, at least, of each part of a book
LEAST_WIDTH = 45  # of all lines but the last in a paragraph that was wrapped
_LETTERS = {"\u00e6": "ae", "\u00c6": "AE", "\u0153": "oe", "\u0152": "OE", "\u00df": "ss", "\u00f8": "o"}


def books(texts: Path) -> list[str]:
    """The texts of the books, in their order in the file or of their names."""
    if texts.is_dir():
        return [path.read_text(encoding="utf-8") for path in sorted(texts.glob("*.txt"))]
    return [book for book in texts.read_text(encoding="utf-8").split("\f") if book.strip()]


def plain(book: str) -> str:
    """A book in ASCII, as far as its characters have equivalents, without marks for italics or needless space."""
    for character in set(book) - set(map(chr, range(128))):
        bare = "".join(c for c in unicodedata.normalize("NFKD", character) if c.isascii())
        if equivalent := ASCII_EQUIVALENTS.get(character) or _LETTERS.get(character) or bare:
            book = book.replace(character, equivalent)
    book = re.sub("[ \t]+\n", "\n", book.replace("_", ""))
    return re.sub("\n{4,}", "\n\n\n", book).strip("\n") + "\n"


def unwrapped(book: str, between: str) -> str:
    """A book with each wrapped paragraph joined into one line; verse and tables keep their lines.

    Args:
        book: the text, with paragraphs separated by blank lines.
        between: what separates two joined paragraphs.
    """
    pieces, was_joined = [], False
    for block in re.split("\n{2,}", book.strip("\n")):
        lines = block.split("\n")
        is_joined = len(lines) > 1 and all(len(line) >= LEAST_WIDTH for line in lines[:-1])
        is_joined = is_joined and not any(line.startswith(" ") for line in lines)
        if is_joined:
            block = re.sub(" {2,}", " ", re.sub("(?<=[^ ]-)\n", "", block).replace("\n", " "))
        is_dialogue = block.startswith('"') and len(lines) == 1
        if pieces:
            pieces.append(between if was_joined and (is_joined or is_dialogue) else "\n\n")
        pieces.append(block)
        was_joined = is_joined or is_dialogue
    return "".join(pieces) + "\n"


def parts(book: str, between: str) -> list[str]:
    """A book cut between paragraphs, so that the starter learns to begin a text: of whole books, it would see few.

    Args:
        book: the text.
        between: what separates two paragraphs.
    """
    cut, start = [], 0
    while (end := book.find(between, start + PART)) >= 0:
        cut.append(book[start:end] + "\n")
        start = end + len(between)
    return [*cut, book[start:]]


def prepared(book: str, number: int) -> list[str]:
    """A book as the starter reads it: half of them with joined paragraphs, half of those without blank lines."""
    book, between = plain(book), "\n" if number % 4 == 3 else "\n\n"
    return parts(book if number % 2 == 0 else unwrapped(book, between), between)


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n"))
@click.argument("texts", type=click.Path(exists=True, path_type=Path))
@click.option("--folder", type=click.Path(path_type=Path), default=Path("starter-work"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(texts: Path, folder: Path, out: Path) -> None:
    """Prepare, train, convert."""
    folder.mkdir(parents=True, exist_ok=True)
    books_file = folder / "books.txt"
    text = "\f\n".join(part for number, book in enumerate(books(texts)) for part in prepared(book, number)).encode()
    if not books_file.exists():
        write_atomically(books_file, text)
    elif books_file.read_bytes() != text:
        sys.exit(f"{books_file}: is of other texts: choose another --folder")
    options = [f"--{name}={value}" for name, value in RECIPE.items()]
    command = [sys.executable, "-m", "charrnn", "train", books_file, "--split-at", r"\f", "--checkpoints-dir", folder]
    if status := subprocess.run([*command, *options]).returncode:
        sys.exit(status)
    model = checkpoint.load(Run(folder / "books").best)
    write_atomically(out, *checkpoint.to_pieces(dataclasses.replace(model, training={}, weights_type="float16")))


if __name__ == "__main__":
    main()
