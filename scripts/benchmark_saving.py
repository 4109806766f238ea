"""What saving costs: its share of the time of trainings that save as charrnn train does.

    python scripts/benchmark_saving.py

Trains each network for some minutes, in a process of its own, and times every save: copying the weights and the
optimizer's moments, the checksum, writing, and waiting for the disk. Prints a Markdown table. Step 0 is left out,
and so is the final pass, in which nothing is saved.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from _machine import machine

TEXT = Path(__file__).parent.parent / "data" / "tales.txt"
SHAPES = {"1 x 512": (1, 512), "3 x 512": (3, 512)}


def train(layers: int, units: int, minutes: float, folder: str) -> dict[str, object]:
    """Train, in this process, and time the saves.

    Returns:
        The seconds of each save, of all from step 0 to the last report, and the size of a checkpoint in bytes.
    """
    from charrnn.planning.job import Call, Job, plan_training
    from charrnn.training import loop as training
    from charrnn.training.display import ProgressDisplay

    moments: list[tuple[float, float]] = []
    save = training._Training.save

    def timed(self: training._Training) -> None:
        before = time.perf_counter()
        save(self)
        moments.append((before, time.perf_counter()))

    training._Training.save = timed  # type: ignore[method-assign]
    given = {"layers": layers, "units": units, "minutes": minutes, "batch_size": 32, "seq_length": 64}
    job = plan_training(Call([str(TEXT)], given, folder, fresh=True), lambda _: None)
    assert isinstance(job, Job)
    training.train(job, ProgressDisplay())
    _, *saves, _ = moments  # without step 0 and the final figure
    return {
        "saves": [after - before for before, after in saves],
        "seconds": saves[-1][1] - moments[0][1],
        "bytes": job.run.last.stat().st_size,
    }


@click.command(help=__doc__)
@click.option("--minutes", default=3.0, show_default=True, help="Of training of each network.")
@click.option("--only", type=click.Choice(list(SHAPES)), help="Train this one here, and print its figures as JSON.")
def main(minutes: float, only: str | None) -> None:
    """Measure and print."""
    if only:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # on a real disk, as /tmp may not be
            print(json.dumps(train(*SHAPES[only], minutes, folder)))
        return
    print(f"{machine()}; {minutes:g} minutes each\n")
    print("| network | MB in last.safetensors | saves | seconds each | share of the time |\n|---|---|---|---|---|")
    for name in SHAPES:
        command = [sys.executable, __file__, "--minutes", str(minutes), "--only", name]
        figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        saves = figures["saves"]
        print(
            f"| {name} | {figures['bytes'] / 1e6:.0f} | {len(saves)} | {statistics.median(saves):.2f} "
            f"| {sum(saves) / figures['seconds']:.1%} |"
        )


if __name__ == "__main__":
    main()
