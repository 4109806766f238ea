"""Time from the shell to the help text and to the first character of a sample.

    python scripts/benchmark_start.py

Prints a Markdown table: medians of 10 runs of each command, taken in turn after a warm-up, beside
`python -c "import numpy"`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from _machine import machine, untrained

from charrnn.runs.checkpoint import to_bytes

CHARRNN = str(Path(sys.executable).parent / "charrnn")


def seconds_to_first_byte(command: list[str], folder: str) -> float:
    """Start a command, wait for its first byte on stdout or, if it prints none, for its end."""
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        seconds = time.perf_counter() - start
        process.stdout.read()
    if process.returncode:
        raise click.ClickException(f"{command} failed with exit code {process.returncode}")
    return seconds


@click.command(help=__doc__)
@click.option("--runs", default=10, show_default=True, help="Of each command.")
def main(runs: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        for layers, units in ((2, 128), (1, 512)):
            (Path(folder) / f"{layers}x{units}.safetensors").write_bytes(to_bytes(untrained(layers, units)))
        sample = [CHARRNN, "sample", "--length", "10", "--seed", "1", "--checkpoint"]
        commands = {
            'python -c "import numpy"': [sys.executable, "-c", "import numpy"],
            "charrnn --help": [CHARRNN, "--help"],
            "charrnn sample, 2x128": [*sample, "2x128.safetensors"],
            "charrnn sample, 1x512": [*sample, "1x512.safetensors"],
            "charrnn sample, the starter": [*sample, "starter"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for run in range(runs + 1):
            for name, command in commands.items():
                seconds = seconds_to_first_byte(command, folder)
                if run > 0:  # the first is the warm-up
                    times[name].append(seconds)
    base = statistics.median(next(iter(times.values())))
    print(f"{machine()}; medians of {runs}, least and most in brackets\n")
    print("| command, to its first character or its end | ms | times the first |\n|---|---|---|")
    for name, values in times.items():
        median, least, most = (1e3 * f(values) for f in (statistics.median, min, max))
        print(f"| `{name}` | {median:.0f} ({least:.0f} to {most:.0f}) | {median / 1e3 / base:.2f} |")


if __name__ == "__main__":
    main()
