"""The race to a low loss: the short version of scripts/time_to_loss.py, without what needs PyTorch."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, environment
from faults import SHIMS

sys.path.insert(0, str(PROJECT / "scripts"))

from time_to_loss import seconds_until


@pytest.mark.parametrize(
    ("contender", "reading"), [("charrnn", "0.005"), pytest.param("listing", "0.1", marks=pytest.mark.slow)]
)
def test_a_contender_learns_and_its_clock_counts(contender: str, reading: str, tales: str, tmp_path: Path) -> None:
    """By a clock that counts its readings, so that as many updates are made on every machine."""
    text = tmp_path / "tiny.txt"
    text.write_text(tales[:4000], encoding="utf-8")
    script = [sys.executable, PROJECT / "scripts" / "time_to_loss.py", text]
    result = subprocess.run(
        [*script, "--minutes", "0.05", "--one", contender],
        capture_output=True, text=True, check=False,
        env=environment() | {"PYTHONPATH": str(SHIMS), "CLOCK_OF_READINGS": reading},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    start, *curve = map(json.loads, result.stdout.splitlines())
    assert start["import"] > 0
    assert [point["seconds"] for point in curve] == sorted({point["seconds"] for point in curve})
    assert [point["step"] for point in curve] == sorted({point["step"] for point in curve})
    assert curve[-1]["loss"] < math.log(98), "better than pure guessing"


def test_a_mark_is_reached_at_the_first_validation_at_or_below_it() -> None:
    curve = [{"seconds": seconds, "loss": loss} for seconds, loss in ((1.0, 2.0), (2.0, 1.5), (3.0, 1.6), (4.0, 1.4))]
    assert [seconds_until(curve, mark) for mark in (2.1, 1.6, 1.5, 1.45, 1.3)] == [1.0, 2.0, 2.0, 4.0, None]
