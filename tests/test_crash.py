"""Real kills at random moments: the short version of scripts/crash_test.py."""

from __future__ import annotations

import subprocess
import sys

from conftest import PROJECT, environment


def test_runs_killed_at_random_moments_end_in_the_same_bytes() -> None:
    result = subprocess.run(
        [sys.executable, "scripts/crash_test.py", "--kills", "5", "--jobs", "2"],
        cwd=PROJECT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert result.returncode == 0, result.stderr + result.stdout
    kills, *_, equal = result.stdout.splitlines()
    assert int(kills.split()[0]) >= 5
    assert equal.endswith("ended in the same bytes as the run without a stop")
