"""How fast charrnn reads a large text on one core, beside cat and iconv.

    python scripts/benchmark_reading.py linux.c.txt prose.txt

For each file: `charrnn train FILE` with a network that no memory holds, which the command rejects once it has read the
text and written its ids; the same again, which finds the ids; `cat FILE`; and `iconv` to UTF-32. Each runs on one core,
after one run that warms up, in turn. Prints medians of the seconds, without those in which an empty text is rejected,
and the speed that follows.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

_TOO_LARGE = ("--units", "65536", "--layers", "100")


def seconds(*command: str) -> float:
    """Run a command on one core."""
    begin = time.monotonic()
    core = min(os.sched_getaffinity(0))
    subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip
    return time.monotonic() - begin


def measure(file: Path, repeats: int) -> list[float]:
    """Medians for one file: reading, reading what an earlier start has read, cat, iconv."""
    train = [sys.executable, "-m", "charrnn", "train"]
    rounds: list[list[float]] = []
    for _ in range(repeats + 1):
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            command = [*train, str(file), *_TOO_LARGE, "--checkpoints-dir", folder]
            start = seconds(*train, "-", "--name", "empty", "--checkpoints-dir", folder)
            first, later = seconds(*command) - start, seconds(*command) - start
        os.sync()
        rounds.append(
            [first, later, seconds("cat", str(file)), seconds("iconv", "-f", "utf-8", "-t", "utf-32", str(file))]
        )
    return [statistics.median(column) for column in zip(*rounds[1:], strict=True)]


@click.command(help=__doc__)
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--repeats", default=3, show_default=True, help="Measured runs of each command.")
def main(files: Sequence[Path], repeats: int) -> None:
    """Print a table."""
    print("| text | MB | first start | later start | cat | iconv |")
    print("|---|---|---|---|---|---|")
    for file in files:
        size = file.stat().st_size / 1e6
        columns = [f"{duration:.2f} s, {size / duration:,.0f} MB/s" for duration in measure(file, repeats)]
        print(f"| {file.name} | {size:,.0f} | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
