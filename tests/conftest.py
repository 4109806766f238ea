"""What the tests share: the real command in a subprocess, a small trained run, real texts."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from charrnn.network.config import weight_shapes
from charrnn.planning.machine import usable_cores
from charrnn.runs.folder import Run
from charrnn.runs.records import Checkpoint, CorpusIdentity, Progress, Settings
from charrnn.text.vocabulary import Vocabulary

PROJECT = Path(__file__).parent.parent
CORPORA = PROJECT.parent / "shared" / "corpora"

settings.register_profile("short", max_examples=200, deadline=None)
settings.register_profile("long", max_examples=10_000, deadline=None)
settings.load_profile("short")  # the other one: python -m pytest --hypothesis-profile long

Command = Callable[..., "subprocess.CompletedProcess[str]"]

SMALL = (
    *("--units", "32", "--embedding", "16", "--batch-size", "8", "--seq-length", "32", "--dropout", "0"),
    *("--precision", "float32"),  # what is faster for so small a network may change from run to run
)
"""A network that trains on a few thousand characters in a second."""


def environment() -> dict[str, str]:
    """The environment without what would change what the command does."""
    changes = (
        *("CHARRNN", "_CHARRNN", "TF_", "COLUMNS", "LINES", "MPLBACKEND", "JPY_", "OPENBLAS_NUM_THREADS"),
        *("PYTHONUNBUFFERED", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "COLORTERM", "TTY_"),
    )
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(changes) and not key.lower().endswith("_proxy") and key != "CI"
    }


os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the tests are those of a machine without a GPU


def pytest_xdist_auto_num_workers() -> int | None:
    """As many as there are cores to use, by a container's quota too, unless the user sets xdist's own variable."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else usable_cores()


def run_charrnn(*args: object, cwd: Path, input: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the real command and wait for it."""
    return subprocess.run(
        [sys.executable, "-m", "charrnn", *map(str, args)],
        cwd=cwd,
        input=input,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment() | env,
        timeout=300,
        check=False,
    )


def on_terminal(folder: Path, *args: str, **env: str) -> tuple[str, int]:
    """Run the command in a terminal, and return all that it wrote and its exit code."""
    pexpect = pytest.importorskip("pexpect", reason="a terminal to drive needs Unix")
    child = pexpect.spawn(
        sys.executable,
        ["-m", "charrnn", *args],
        cwd=str(folder),
        env=environment() | {"TERM": "xterm-256color"} | env,
        dimensions=(24, 100),
        encoding="utf-8",
        timeout=120,
    )
    output: str = child.read()
    child.close()
    return output, child.exitstatus


@pytest.fixture
def charrnn(tmp_path: Path) -> Command:
    """The command, run in an empty folder."""

    def run(*args: object, input: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        return run_charrnn(*args, cwd=tmp_path, input=input, **env)

    return run


@pytest.fixture(scope="session")
def tales() -> str:
    """The start of the project's own text."""
    return (PROJECT / "data" / "tales.txt").read_text(encoding="utf-8")[:20_000]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tales: str) -> Path:
    """A folder with a finished run, checkpoints/small, and its text, small.txt. Not to be written to."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "small.txt").write_text(tales, encoding="utf-8")
    result = run_charrnn("train", "small.txt", *SMALL, "--epochs", "4", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


def chain_model(vocabulary: Vocabulary, text: str, noise: float = 0.0) -> Checkpoint:
    """An RNN that was never trained: after each symbol of a text it expects the next, at the end the first again.

    Args:
        vocabulary: the model's character map.
        text: whose symbols (of a `bytes` vocabulary its bytes) are all different.
        noise: how far the logits of the others are from equal.
    """
    size = len(vocabulary)
    settings = Settings(
        vocabulary=vocabulary.kind, encoding="utf-8", errors="strict", embedding=size, units=size, layers=1,
        cell="rnn", dropout=0.0, batch_size=1, seq_length=1, learning_rate=0.005, epochs=1, minutes=None, seed=1,
        precision="float32", init_from=None, source=None, split_at=None,
    )  # fmt: skip
    weights = {name: np.zeros(shape, np.float32) for name, shape in weight_shapes(settings.network(vocabulary)).items()}
    weights["embedding"] = np.eye(size, dtype=np.float32)
    weights["layer0.kernel"] = 5 * np.eye(size, dtype=np.float32)
    weights["softmax.kernel"] = np.random.default_rng(0).normal(0, noise, (size, size)).astype(np.float32)
    ids = list(text.encode("utf-8", "surrogateescape") if vocabulary.kind == "bytes" else vocabulary.encode(text))
    weights["softmax.kernel"][ids, [*ids[1:], ids[0]]] = 5
    progress = Progress(1, 1, "float32", 1, 1, 1, 3.0, 0.0, 0, 100, 3.0, 1, "0" * 16)
    return Checkpoint(settings, vocabulary, CorpusIdentity("0" * 64, 1000, 900), progress, weights, {})


def same_files(run: Run, whole: Run) -> bool:
    """Whether two runs ended in the same bytes, the history's two columns of wall-clock figures aside."""

    def rows(path: Path) -> list[list[str]]:
        with open(path, newline="") as file:
            return [row[:5] for row in csv.reader(file)]

    pairs = [(run.best, whole.best), (run.last, whole.last)]
    return rows(run.history) == rows(whole.history) and all(a.read_bytes() == b.read_bytes() for a, b in pairs)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    """Where the tests train what `trained` did, on the same text."""
    shutil.copy(trained / "small.txt", tmp_path)
    return Run(tmp_path / "checkpoints/small")


def corpus(name: str) -> Path:
    """A real text of those that lie beside the project; the test is skipped where they do not."""
    path = CORPORA / name
    if not path.exists():
        pytest.skip(f"{name} does not lie beside the project")
    return path
