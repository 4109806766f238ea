"""Try the commands on checkpoints and histories that are damaged, forged, or something else.

    python scripts/bad_checkpoints.py --cases 5000

Each case runs the real command in a process of its own, within a limit of memory that grows with the
file's size. Prints a table by kind of case. A case fails if the file was accepted, or answered with
anything but one line on stderr and exit code 1 or 2, or later than a second beyond the time that refusing
an empty file takes, or if something was written; such cases are kept, and the exit code is 1.

Forgeries carry a right checksum, so that what refuses them is the check that is meant to.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
from _bad_files import Case, all_cases
from _forge import GOOD
from _forgeries import Content

CHARRNN = str(Path(sys.executable).parent / "charrnn")
COMMANDS = {  # what reads a file, and where it looks for it
    "sample": (["sample", "--checkpoint", "bad.safetensors", "--length", "1"], "bad.safetensors"),
    "train": (["train", "text.txt"], "checkpoints/text/last.safetensors"),
    "plot-loss": (["plot-loss", "text"], "checkpoints/text/history.csv"),
}
SLOW = 1.0  # seconds beyond the start
TIMEOUT = 10.0  # seconds
MEMORY_FACTOR = 8  # times the file's size that a command may take, and
MEMORY_SLACK = 24 << 20  # bytes, beyond what refusing an empty file takes
MIB = 1 << 20
# A small process between: what a process starts from counts as memory that it took.
LAUNCHER = """
import os, resource, sys, time
address_space, report, *command = sys.argv[1:]
start = time.perf_counter()
process = os.fork()
if process == 0:
    resource.setrlimit(resource.RLIMIT_AS, (int(address_space),) * 2)
    os.execv(command[0], command)
_, status, usage = os.wait4(process, 0)
with open(report, "w") as file:
    print(status, time.perf_counter() - start, usage.ru_maxrss, file=file)
"""


@dataclass(frozen=True)
class Outcome:
    """How a command answered a file."""

    code: int | None  # None: it took longer than TIMEOUT
    stdout: str
    stderr: str
    seconds: float
    memory: int  # bytes resident at most
    written: frozenset[str]  # files that were not there before, or are gone


def paths(folder: Path) -> frozenset[str]:
    """Everything in a folder, links not followed."""
    return frozenset(
        os.path.relpath(os.path.join(where, name), folder)
        for where, folders, files in os.walk(folder)
        for name in folders + files
    )


def run(command: str, content: Content, folder: Path, address_space: int | None) -> Outcome:
    """Run a command on a bad file, in a folder of its own."""
    args, place = COMMANDS[command]
    work = folder / "work"
    path = work / place
    path.parent.mkdir(parents=True)
    (work / "text.txt").write_text("A text to train on. " * 100)
    if command == "plot-loss":
        path.with_name("last.safetensors").write_bytes(GOOD)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    before = paths(work)
    if address_space is None:
        size = path.stat().st_size if path.is_file() else 0
        address_space = _least_address_space(command) + MEMORY_SLACK + MEMORY_FACTOR * min(size, 100 * MIB)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CHARRNN")}
    report = folder / "report"
    command_line = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(address_space), str(report), CHARRNN, *args]
    with open(folder / "stdout", "wb") as out, open(folder / "stderr", "wb") as err:
        launcher = subprocess.Popen(
            command_line, cwd=work, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment,
            start_new_session=True,
        )  # fmt: skip
        try:
            launcher.wait(TIMEOUT)
            status, seconds, memory = map(float, report.read_text().split())
        except subprocess.TimeoutExpired:
            os.killpg(launcher.pid, signal.SIGKILL)
            launcher.wait()
            status, seconds, memory = 0, TIMEOUT, 0
    stdout, stderr = ((folder / name).read_text(errors="replace") for name in ("stdout", "stderr"))
    code = None if seconds >= TIMEOUT else os.waitstatus_to_exitcode(int(status))
    return Outcome(code, stdout, stderr, seconds, int(memory) * 1024, before ^ paths(work))


def run_in_fresh_folder(command: str, content: Content, address_space: int | None = None) -> Outcome:
    """The same, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        return run(command, content, Path(folder), address_space)


@functools.cache
def _least_address_space(command: str) -> int:
    """What refusing an empty file needs, in bytes, to 4 MiB."""
    return 4 * MIB * bisect.bisect_left(
        range(512), True, key=lambda size: not faults(run_in_fresh_folder(command, b"", size * 4 * MIB), 0.0)
    )  # fmt: skip


@functools.cache
def start(command: str) -> tuple[float, int]:
    """Median seconds, and bytes resident, of refusing an empty file."""
    outcomes = [run_in_fresh_folder(command, b"") for _ in range(5)]
    return statistics.median(o.seconds for o in outcomes), int(statistics.median(o.memory for o in outcomes))


def faults(outcome: Outcome, start_seconds: float) -> list[str]:
    """What is wrong with an answer."""
    found = []
    if outcome.code is None:
        found.append(f"it was not done after {TIMEOUT:g} s")
    elif outcome.code not in (1, 2):
        found.append("accepted" if outcome.code == 0 else f"exit code {outcome.code}")
    if "no training state" in outcome.stderr:  # which `train` says of a whole checkpoint
        found.append("accepted")
    if outcome.stdout:
        found.append("something on stdout")
    if not (outcome.stderr.startswith("Error: ") and outcome.stderr.count("\n") == 1):
        found.append("not one line on stderr")
    if len(outcome.stderr) > 500:
        found.append("a message of more than 500 characters")
    found += [f"{part!r} in the message" for part in ("Traceback", "a bug", "enough memory") if part in outcome.stderr]
    if outcome.seconds - start_seconds > SLOW:
        found.append(f"slow: {outcome.seconds - start_seconds:.2f} s beyond its start")
    if outcome.written:
        found.append(f"written or removed: {', '.join(sorted(outcome.written))}")
    return found


def attempt(case: Case) -> tuple[Case, Outcome, list[str]]:
    """Run a case; one that seems slow twice more, because other processes make it so."""
    seconds, _ = start(case.command)
    outcomes = [run_in_fresh_folder(case.command, case.content)]
    while outcomes[-1].seconds - seconds > SLOW and len(outcomes) < 3:
        outcomes.append(run_in_fresh_folder(case.command, case.content))
    quickest = min(outcomes, key=lambda outcome: outcome.seconds)
    return case, quickest, faults(quickest, seconds)


def keep(case: Case, found: list[str], folder: Path, number: int) -> None:
    """Run a failed case once more, in a folder that stays."""
    where = folder / f"{number:03d}"
    where.mkdir()
    run(case.command, case.content, where, None)
    (where / "case.txt").write_text(
        f"{case.kind}: {case.name}\ncharrnn {' '.join(COMMANDS[case.command][0])}\n" + "\n".join(found) + "\n"
    )


@click.command(help=__doc__)
@click.option("--cases", default=5000, show_default=True, help="How many, of all kinds.")
@click.option("--seed", default=1, show_default=True, help="Of the choice among them.")
def main(cases: int, seed: int) -> None:
    """Run them and print the table."""
    good = run_in_fresh_folder("sample", GOOD, 1 << 40)
    if good.code != 0:
        raise click.ClickException(f"the good checkpoint was refused: {good.stderr}")
    for command in COMMANDS:
        start(command)
    chosen = itertools.islice(all_cases(random.Random(seed)), cases)
    results = defaultdict(list)
    kept: Path | None = None
    failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for case, outcome, found in pool.map(attempt, chosen):
            seconds, memory = start(case.command)
            results[case.kind].append((bool(found), outcome.seconds - seconds, outcome.memory - memory))
            if found:
                failed += 1
                if failed <= 100:
                    kept = kept or Path(tempfile.mkdtemp(prefix="bad-checkpoints-"))
                    keep(case, found, kept, failed)
                print(f"{case.kind}: {case.name} ({case.command}): {'; '.join(found)}", file=sys.stderr)
    print("| kind | cases | failed | slowest, ms beyond its start | most memory, MiB beyond its start |")
    print("|---|---|---|---|---|")
    results["all"] = [row for rows in results.values() for row in rows]
    for kind, rows in results.items():
        failures, seconds, memory = zip(*rows, strict=True)
        print(
            f"| {kind} | {len(rows):,} | {sum(failures)} | {max(0, max(seconds)) * 1e3:.0f} "
            f"| {max(0, max(memory)) / MIB:.0f} |"
        )
    starts = ", ".join(f"{c} {start(c)[0] * 1e3:.0f} ms and {start(c)[1] / MIB:.0f} MiB" for c in COMMANDS)
    print(f"\nStart, which refusing an empty file takes: {starts}.")
    if kept:
        print(f"{failed:,} cases failed; they are in {kept}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
