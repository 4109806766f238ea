"""Train on texts from nothing and from the starter, and compare the losses: the table in docs/starter.md.

    python scripts/compare_starts.py tales.txt play.txt --minutes 1 --seeds 2 --folder runs

Each run is the real command with the defaults, one after the other, since the minutes count. A run that is
already finished is not repeated. Nothing else should run meanwhile.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import click
from _machine import machine

from charrnn.runs.checkpoint import read_head
from charrnn.runs.folder import Run

STARTS = ("none", "starter")


def trained(text: Path, start: str, minutes: float, seed: int, folder: Path) -> float:
    """The final loss of a run, in nats per character."""
    run = Run(folder / f"{text.stem}-{start}-{minutes:g}-{seed}")
    command = [sys.executable, "-m", "charrnn", "train", text, "--name", run.name, "--checkpoints-dir", folder]
    options = ["--init-from", start, "--minutes", str(minutes), "--seed", str(seed)]
    if not run.last.exists() or read_head(run.last).progress.final_loss is None:
        subprocess.run([*command, *options], check=True, stderr=subprocess.DEVNULL)
    loss = read_head(run.last).progress.final_loss
    assert loss is not None
    return loss


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n"))
@click.argument("texts", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--minutes", type=float, default=1.0, show_default=True)
@click.option("--seeds", type=int, default=2, show_default=True, help="How many runs of each kind.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("starts"), show_default=True)
def main(texts: tuple[Path, ...], minutes: float, seeds: int, folder: Path) -> None:
    """Train and print the table."""
    click.echo(f"{machine()}; {minutes:g} minutes, seeds 1 to {seeds}: losses, and the mean\n")
    click.echo("| text | from nothing | | from the starter | | difference |\n|---|---|---|---|---|---|")
    for text in texts:
        cells, means = [text.name], []
        for start in STARTS:
            losses = [trained(text, start, minutes, seed, folder) for seed in range(1, seeds + 1)]
            means.append(statistics.mean(losses))
            cells += [", ".join(f"{loss:.4f}" for loss in losses), f"{means[-1]:.4f}"]
        click.echo(f"| {' | '.join(cells)} | {means[1] - means[0]:+.4f} |")


if __name__ == "__main__":
    main()
