"""Reading a run while it is saved: sample and plot-loss see one state or the other, never a part of one."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, Command, environment
from test_checkpoint import make
from test_runs import REPORTS

from charrnn.runs import checkpoint
from charrnn.runs.folder import Run

ONE = make()
OTHER = dataclasses.replace(
    ONE,
    progress=dataclasses.replace(ONE.progress, step=ONE.progress.step + 1),
    weights={name: -weight for name, weight in ONE.weights.items()},
)


def save_for_ever(folder: str) -> None:
    """What the writing process does, which says when it has begun."""
    run = Run(Path(folder))
    run.save(ONE, REPORTS[:1], ONE)
    print("saving", flush=True)
    while True:
        run.save(OTHER, REPORTS, OTHER)
        run.save(ONE, REPORTS[:1], ONE)


@pytest.mark.parametrize("times", [10, pytest.param(1000, marks=pytest.mark.slow)])
def test_who_reads_while_training_saves_never_sees_a_torn_file(tmp_path: Path, charrnn: Command, times: int) -> None:
    run = Run(tmp_path / "checkpoints/x")
    run.prepare()
    sample = ("sample", "--length", "40", "--seed", "1")
    texts = set()
    for state in (ONE, OTHER):
        run.save(state, REPORTS, state)
        texts.add(charrnn(*sample).stdout)
    assert len(texts) == 2
    with subprocess.Popen(
        [sys.executable, "-c", f"import test_readers; test_readers.save_for_ever({str(run.folder)!r})"],
        cwd=PROJECT / "tests",
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "saving\n"
            both = {ONE.progress.step, OTHER.progress.step}
            steps: set[int] = set()
            reads = 0
            while reads < 20 * times or steps != both:  # a busy machine may give the writer no turn for a while
                steps |= {checkpoint.load(path).progress.step for path in (run.best, run.last)}
                reads += 1
                assert writer.poll() is None
            assert steps == both
            for _ in range(times):
                assert run.read_history() in (REPORTS[:1], REPORTS)
                result = charrnn(*sample)
                assert result.stdout in texts, result.stderr
                result = charrnn("plot-loss", "--out", "loss.png")
                assert result.returncode == 0, result.stderr
            assert writer.poll() is None
        finally:
            writer.kill()
    assert writer.returncode == -signal.SIGKILL
