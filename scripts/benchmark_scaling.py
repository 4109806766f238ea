"""How charrnn scales with the text and with the network: the table of docs/scaling.md.

    python scripts/benchmark_scaling.py linux.c.txt

Cuts the text to several sizes and trains on each by the real command in a terminal, then trains networks of several
widths on the whole text. Every run starts twice: once without the text's ids, once with them. Prints a row for each:
the speed of reading, seconds from each start to the first update, the time of an update, the peak of the resident
memory above a process that has only imported TensorFlow, and the size of last.safetensors.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import pexpect

from charrnn.runs.folder import Run

_IMPORT = "import tensorflow; print(open('/proc/self/status').read())"
_FIRST_UPDATE = r"loss [\d.]+  step \d"


def peak_memory(status: str) -> float:
    """The peak of the resident memory in MB, from /proc/PID/status."""
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


class Start:
    """One start of the command, up to its end."""

    def __init__(self, folder: Path, text: Path, name: str, options: list[str]) -> None:
        arguments = ["-m", "charrnn", "train", str(text), "--name", name, "--checkpoints-dir", str(folder), *options]
        begin = time.monotonic()
        child = pexpect.spawn(
            sys.executable, arguments, env=os.environ | {"TERM": "xterm"}, dimensions=(24, 200), timeout=1200,
        )  # fmt: skip
        child.expect("characters, ")
        self.read = time.monotonic() - begin
        child.expect(_FIRST_UPDATE)
        self.first_update = time.monotonic() - begin
        self.memory: list[float] = []  # MB, several times a second
        while child.isalive():
            try:
                status = Path(f"/proc/{child.pid}/status").read_text()
                self.memory.append(peak_memory(status))
            except (OSError, AssertionError):  # it has just ended
                break
            try:
                child.read_nonblocking(1 << 16, timeout=0.3)
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                break
        child.close()
        if child.exitstatus:
            raise click.ClickException(f"{' '.join(arguments)} ended with {child.exitstatus}")


def cut(text: Path, size: int, path: Path) -> None:
    """Copy the start of a text, up to the last whole line."""
    with open(text, "rb") as source, open(path, "wb") as copy:
        left = size
        while block := source.read(min(left, 1 << 24)):
            left -= len(block)
            copy.write(block if left else block[: block.rfind(b"\n") + 1])


def row(text: Path, units: int, minutes: float, seconds: float, base: float) -> list[str]:
    """Train on a text twice, and describe it in a row.

    Args:
        text: the file.
        units: H, of two layers.
        minutes: to train for, each time.
        seconds: that the command takes to start before it reads.
        base: memory of a process that has imported TensorFlow, in MB.
    """
    options = ["--units", str(units), "--layers", "2", "--minutes", str(minutes), "--device", "cpu"]
    with tempfile.TemporaryDirectory(dir=text.parent) as folder:
        first = Start(Path(folder), text, "first", options)
        second = Start(Path(folder), text, "second", options)
        run = Run(Path(folder) / "second")
        with open(run.history, newline="") as file:
            speeds = [float(report["chars_per_second"]) for report in csv.DictReader(file)]
        size = text.stat().st_size
        reading = size / 1e6 / max(1e-9, first.read - seconds)
        return [
            f"{size / 1e6:,.0f} MB",
            f"2 x {units}",
            f"{reading:,.0f} MB/s" if size > 5e6 else "",
            f"{first.first_update:.1f} s",
            f"{second.first_update:.1f} s",
            f"{1000 * 32 * 64 / sorted(speeds)[len(speeds) // 2]:.0f} ms",
            f"{max(first.memory + second.memory) - base:,.0f} MB",
            f"{second.memory[-1] - second.memory[len(second.memory) // 4]:+,.1f} MB",
            f"{run.last.stat().st_size / 1e6:.1f} MB",
        ]


@click.command(help=__doc__)
@click.argument("text", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--minutes", default=0.5, show_default=True, help="To train for, each time.")
@click.option("--megabytes", default="1,10,100", show_default=True, help="Sizes to cut the text to.")
@click.option("--units", default="64,256,512,1024", show_default=True, help="Widths to train on the whole text.")
def main(text: Path, minutes: float, megabytes: str, units: str) -> None:
    """Print the table."""
    imported = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True)
    base = peak_memory(imported.stdout)
    begin = time.monotonic()
    subprocess.run([sys.executable, "-m", "charrnn", "train", "-"], stdin=subprocess.DEVNULL, capture_output=True)
    seconds = time.monotonic() - begin
    click.echo(f"import tensorflow: {base:,.0f} MB; charrnn itself starts in {seconds:.2f} s", err=True)
    widths = [int(width) for width in units.split(",")]
    print("| text | network | reading | first start | later start | update | memory | growth | last.safetensors |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=text.parent) as folder:
        for size in [int(size) for size in megabytes.split(",") if size]:
            part = Path(folder) / f"{size}.txt"
            cut(text, size * 1_000_000, part)
            print(f"| {' | '.join(row(part, 256, minutes, seconds, base))} |", flush=True)
            part.unlink()
    for width in widths:
        print(f"| {' | '.join(row(text, width, minutes, seconds, base))} |", flush=True)


if __name__ == "__main__":
    main()
