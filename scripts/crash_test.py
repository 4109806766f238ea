"""Kill training at random moments, again and again, and see that it ends in the same bytes all the same.

    python scripts/crash_test.py --kills 200 --jobs 2
    python scripts/crash_test.py --kills 200 --jobs 2 --large
    python scripts/crash_test.py --kills 20 --workers 3

Trains a small network on data/tales.txt without a stop. Then trains the same run again and again, each time killed
with SIGKILL at random moments, from the start of the process to the final pass, and continued by the same command
until it is done. Its best.safetensors, last.safetensors and history.csv (the two columns of wall-clock figures
aside) are then compared with those of the run without a stop. Saves come several times a second. A kill counts if
it ended a process; where it fell is told from what it left in the run's folder. The exit code is 0 if all is equal.

With --large the text is so large that its ids go to a file, and half of the kills fall while that file is written. It
must then be the only one, and the same as without a stop.

With --workers each run has several workers, and a kill hits one of them at random. The others must end within a
minute, and the command must say which one was killed. (Linux only.)
"""

from __future__ import annotations

import collections
import csv
import itertools
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from charrnn import CharrnnError
from charrnn.runs import checkpoint
from charrnn.runs.folder import Run
from charrnn.text.store import FOLDER

TALES = Path(__file__).parent.parent / "data" / "tales.txt"
COPIES = 240  # of the tales in a large text
OPTIONS = (
    *("--dropout", "0.2", "--seed", "7", "--save-every", "0.15"),
    *("--precision", "float32"),  # measured at the start it might come out otherwise, before step 0 is saved
)
SMALL = ("--units", "48", "--embedding", "16", "--batch-size", "16", "--seq-length", "32", "--epochs", "4")
LARGE = ("--units", "8", "--embedding", "8", "--batch-size", "1024", "--seq-length", "256", "--epochs", "1")


def start(text: Path, folder: Path, options: Sequence[str]) -> subprocess.Popen[str]:
    """Begin or continue the run in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "charrnn", "train", str(text), *OPTIONS, *options, "--checkpoints-dir", str(folder)],
        env={key: value for key, value in os.environ.items() if not key.startswith(("CHARRNN", "TF_"))},
        stderr=subprocess.PIPE,
        text=True,
    )


def last_row(run: Run) -> int:
    """The step of the newest validation in a run's history, 0 if there is none."""
    try:
        reports = run.read_history()
    except CharrnnError:
        return 0
    return reports[-1].step if reports else 0


def last_step(run: Run) -> int | None:
    """The step that a run would continue from, None before there is one."""
    return checkpoint.load(run.last).progress.step if run.last.exists() else None


def ids_of(run: Run) -> Path:
    """The folder for the ids of large texts."""
    return run.folder.parent / FOLDER


def is_writing(folder: Path) -> bool:
    """Whether there is a file that was not written to its end."""
    return folder.exists() and any(path.suffix == ".tmp" for path in folder.iterdir())


def place(run: Run, before: int | None) -> str:
    """Where a process was killed, as the run's folder shows it.

    Args:
        run: as it was left.
        before: its `last_step` when the process began.
    """
    if is_writing(ids_of(run)):
        return "while the ids were written"
    if is_writing(run.folder):
        return "while a file was written"
    step = last_step(run)
    if step is None:
        return "before step 0 was saved"
    progress = checkpoint.load(run.last).progress
    if progress.finished:
        return "after the end was saved"
    if last_row(run) > step:
        return "between two files of a save"
    if step == progress.total_steps:
        return "after the last step, before its end was saved"
    return "before a first save of its own" if step == before else "after a save of its own, among the steps"


def ends(run: Run) -> tuple[bytes, bytes, list[list[str]], list[bytes]]:
    """What must be equal in two runs."""
    with open(run.history, newline="") as file:
        rows = [row[:5] for row in csv.reader(file)]
    ids = [path.read_bytes() for path in ids_of(run).iterdir()] if ids_of(run).exists() else []
    return run.best.read_bytes(), run.last.read_bytes(), rows, ids


class CrashTest:
    """The kills that are to be made, and what came of them."""

    def __init__(self, folder: Path, kills: int, seed: int, is_large: bool, workers: int) -> None:
        """Train without a stop."""
        self.folder, self.kills, self.seed, self.is_large = folder, kills, seed, is_large
        self.workers = workers
        self.seconds: list[float] = []  # from the kill of a worker to the end of all
        self.text = folder / "tales.txt"
        self.text.write_bytes(TALES.read_bytes() * (COPIES if is_large else 1))
        os.utime(self.text, (time.time() - 3600,) * 2)  # an hour old: ids name no file that may still change
        self.places: collections.Counter[str] = collections.Counter()
        self.equal: list[bool] = []
        self._lock = threading.Lock()
        run = self._run("whole")
        begin = time.monotonic()
        process = self._start(run)
        while not run.last.exists() and process.poll() is None:
            time.sleep(0.005)
        self.start_up = time.monotonic() - begin  # seconds to step 0
        _, errors = process.communicate()
        if process.returncode:
            raise click.ClickException(errors)
        self.training = time.monotonic() - begin - self.start_up
        self.whole, self.total_steps = ends(run), last_row(run)
        click.echo(f"without a stop: {self.start_up:.1f} s to step 0, {self.training:.1f} s more to the end", err=True)

    def _run(self, name: str) -> Run:
        return Run(self.folder / name / self.text.stem)

    def _start(self, run: Run) -> subprocess.Popen[str]:
        options = [
            *(LARGE if self.is_large else SMALL),
            *(("--workers", str(self.workers)) if self.workers > 1 else ()),
        ]
        return start(self.text, run.folder.parent, options)

    def _kill(self, process: subprocess.Popen[str], moments: random.Random) -> str:
        """Kill a process, or one of the workers that it started; return what it printed."""
        if self.workers == 1:
            process.kill()
            return process.communicate()[1]
        children: list[int] = []
        while process.poll() is None and len(children) < self.workers:
            children = [*map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())]
        if len(children) < self.workers:  # it had ended
            return process.communicate()[1]
        number = moments.randrange(self.workers)
        begin = time.monotonic()
        os.kill(children[number], signal.SIGKILL)
        _, errors = process.communicate()
        seconds = time.monotonic() - begin
        if process.returncode != 0:
            self.seconds.append(seconds)
            left = [child for child in children if Path(f"/proc/{child}").exists()]
            if left or seconds > 60 or f"worker {number} " not in errors:
                raise click.ClickException(f"{seconds:.0f} s after worker {number}, left {left}: {errors}")
        return errors

    @property
    def made(self) -> int:
        """Kills so far."""
        return sum(self.places.values())

    def crash(self, number: int) -> None:
        """Take one run to its end, with kills on the way as long as there are some to make."""
        moments = random.Random(f"{self.seed} {number}")
        run = self._run(str(number))
        to_kill_at_the_end, to_kill_while_reading = True, self.is_large and moments.random() < 0.8
        while True:
            before = last_step(run)
            process = self._start(run)
            if self.made < self.kills:
                # A third in the start, from the first instruction to the first updates. The rest after the first
                # save, soon enough for several in a run. And each run once after its last step, which is soon over.
                in_start = time.monotonic() + moments.uniform(0, 1.5 * self.start_up)
                deadline = in_start if moments.random() < 1 / 3 else math.inf
                while process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.005)
                    if to_kill_while_reading and is_writing(ids_of(run)):
                        to_kill_while_reading = moments.random() < 0.8
                        deadline = time.monotonic() + moments.uniform(0, 0.3)
                    if deadline == math.inf and last_step(run) != before:
                        deadline = time.monotonic() + moments.uniform(0, self.training / 3)
                    if to_kill_at_the_end and last_row(run) == self.total_steps:
                        to_kill_at_the_end = False
                        deadline = time.monotonic() + moments.uniform(0, 0.1)
                errors = self._kill(process, moments)
            else:
                _, errors = process.communicate()
            if process.returncode == 0:
                break
            if process.returncode != (-signal.SIGKILL if self.workers == 1 else 1):
                raise click.ClickException(f"the command failed after a kill: {errors}")
            with self._lock:
                self.places[place(run, before)] += 1
                click.echo(f"{self.made} of {self.kills} kills", err=True)
        with self._lock:
            names = ("best.safetensors", "last.safetensors", "history.csv", "the ids")
            other = [name for name, found, whole in zip(names, ends(run), self.whole, strict=True) if found != whole]
            other += [] if len(os.listdir(run.folder)) == 3 else ["the files in the folder"]
            self.equal.append(not other)
            how = f"IN OTHER BYTES: {', '.join(other)}" if other else "in the same bytes"
            click.echo(f"run {number} ended {how}", err=True)


@click.command(help=__doc__)
@click.option("--kills", default=200, show_default=True, help="To make at the least.")
@click.option("--seed", default=1, show_default=True, help="Of the random moments.")
@click.option("--jobs", default=1, show_default=True, help="Runs at the same time.")
@click.option("--large", is_flag=True, help="Train on a text whose ids go to a file.")
@click.option("--workers", default=1, show_default=True, help="Of each run.")
def main(kills: int, seed: int, jobs: int, large: bool, workers: int) -> None:
    """Run the test and print what came of it."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        test = CrashTest(Path(folder), kills, seed, large, workers)
        numbers = itertools.count()

        def work() -> None:
            while test.made < kills:
                test.crash(next(numbers))

        for done in [pool.submit(work) for _ in range(jobs)]:
            done.result()
    print(f"{test.made} kills in {len(test.equal)} runs:")
    for where, count in test.places.most_common():
        print(f"{count:5} {where}")
    if test.seconds:
        print(f"the other workers ended after at most {max(test.seconds):.1f} s")
    print(f"{sum(test.equal)} of {len(test.equal)} runs ended in the same bytes as the run without a stop")
    sys.exit(0 if all(test.equal) and test.made >= kills else 1)


if __name__ == "__main__":
    main()
