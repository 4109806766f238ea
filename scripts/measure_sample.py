"""Measure a sample against the texts that its model has read: figures of docs/starter.md.

    charrnn sample --checkpoint starter --count 64 --length 8000 --temperature 0.8 --seed 1 > sample.txt
    python scripts/measure_sample.py sample.txt books.txt

Prints the share of the sample's words that occur in the texts, the shares of its characters in runs of 20 and of 50
or more that are in them, and the longest of these runs that are mostly letters. Takes some gigabytes of memory.
"""

from __future__ import annotations

import re
from pathlib import Path

import click
import numpy as np

from charrnn.sampling import copying

RUNS = 20, 50  # characters
SHOWN, WIDTH = 3, 60  # passages; characters of each


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return re.findall("[a-z]+", text.lower())


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n"))
@click.argument("sample", type=click.Path(exists=True, path_type=Path))
@click.argument("texts", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(sample: Path, texts: tuple[Path, ...]) -> None:
    """Measure and print."""
    copying.CHUNK = 1 << 24  # less of a long sample is read twice
    found = words(sample.read_text(encoding="utf-8"))
    known = {word for text in texts for word in words(text.read_text(encoding="utf-8"))}
    print(f"{sum(word in known for word in found) / len(found):.1%} of {len(found):,} words occur in the texts")
    ids = np.frombuffer(sample.read_bytes(), np.uint8)
    originals = [np.frombuffer(text.read_bytes(), np.uint8) for text in texts]
    for run in RUNS:
        copied = np.zeros(len(ids), bool)
        for original in originals:
            copied |= copying.find_copies(ids, [original], run).copied
        print(f"{copied.mean():.2%} of {len(ids):,} bytes are in runs of {run} or more that are in the texts")
    edges = np.flatnonzero(np.diff(np.concatenate([[False], copied, [False]]))).reshape(-1, 2)
    runs = [bytes(ids[start:end]).decode("utf-8", "replace") for start, end in edges]
    of_letters = [run for run in runs if sum(map(str.isalpha, run)) > len(run) / 2]
    for run in sorted(of_letters, key=len, reverse=True)[:SHOWN]:
        print(f"{len(run)} characters: {run[:WIDTH]!r}{'...' if len(run) > WIDTH else ''}")


if __name__ == "__main__":
    main()
