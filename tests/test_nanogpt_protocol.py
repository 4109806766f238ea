"""The script that scores a run as nanoGPT does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, environment

from charrnn.network.network import Network
from charrnn.runs import checkpoint
from charrnn.runs.folder import Run
from charrnn.text.corpus import read_corpus
from charrnn.text.reading import open_files


def score(text: Path, run: Path) -> subprocess.CompletedProcess[str]:
    script = PROJECT / "scripts" / "nanogpt_protocol.py"
    return subprocess.run(
        [sys.executable, script, text, run], capture_output=True, text=True, env=environment(), check=False
    )


def test_it_is_the_mean_over_windows_that_each_start_from_nothing(trained: Path) -> None:
    """All windows at once, by the logits."""
    best = checkpoint.load(Run(trained / "checkpoints/small").best)
    corpus = read_corpus(open_files([str(trained / "small.txt")]))
    part = corpus.ids[corpus.validation_start :]
    windows = [part[start : start + 257] for start in range(0, len(part) - 256, 256)]
    network = Network(best.config, best.weights)
    logits, _ = network.forward(np.stack([window[:-1] for window in windows]), network.zero_state(len(windows)))
    log_sums = np.log(np.exp(logits.astype(np.float64)).sum(axis=-1))
    targets = np.stack([window[1:] for window in windows])[..., None]
    mean = float(np.mean(log_sums - np.take_along_axis(logits, targets, axis=-1)[..., 0]))

    result = score(trained / "small.txt", trained / "checkpoints/small")
    assert result.returncode == 0, result.stderr
    one_pass, protocol = map(float, re.findall(r"\d\.\d{4}", result.stdout))
    assert one_pass == pytest.approx(best.progress.final_loss, abs=1e-4)
    assert protocol == pytest.approx(mean, abs=1e-4)


def test_another_text_is_refused(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text((trained / "small.txt").read_text()[1:])
    result = score(other, trained / "checkpoints/small")
    assert result.returncode == 1
    assert "trained on another text" in result.stderr
