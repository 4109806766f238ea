"""What the benchmarks have in common: the machine's name, a model to measure, and the page that results go into."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from charrnn.network.config import weight_shapes
from charrnn.runs.records import Checkpoint, CorpusIdentity, Progress, Settings
from charrnn.text.vocabulary import Vocabulary


def machine() -> str:
    """The processor, its cores, and the software that figures depend on."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":")[1].strip()
                break
    software = f"{platform.system()}, Python {platform.python_version()}, NumPy {np.__version__}"
    return f"{name}, {os.cpu_count()} cores, {software}"


START, END = "<!-- what {} wrote -->", "<!-- its end -->"
RESULTS = Path(__file__).parent.parent / "docs" / "results.md"


def write_results(page: Path, script: str, lines: Sequence[str]) -> None:
    """Put lines between the two marks of a script in a page, in place of those before; without marks it gets them."""
    start = START.format(script)
    before, _, rest = (page.read_text(encoding="utf-8") if page.exists() else "").partition(start)
    after = rest.partition(END)[2] or "\n"
    page.write_text(f"{before}{start}\n{chr(10).join(lines)}\n{END}{after}", encoding="utf-8")


def untrained(layers: int, units: int, embedding: int = 64) -> Checkpoint:
    """A checkpoint of an LSTM with random weights: as fast as a trained one."""
    settings = Settings(
        vocabulary="ascii", encoding="utf-8", errors="strict", embedding=embedding, units=units, layers=layers,
        cell="lstm", dropout=0.0, batch_size=32, seq_length=64, learning_rate=0.005, epochs=1, minutes=None, seed=1,
        precision="auto", init_from=None, source=None, split_at=None,
    )  # fmt: skip
    vocabulary = Vocabulary.ascii()
    random = np.random.default_rng(0)
    weights = {
        name: random.normal(0, 0.05, shape).astype(np.float32)
        for name, shape in weight_shapes(settings.network(vocabulary)).items()
    }
    return Checkpoint(
        settings,
        vocabulary,
        CorpusIdentity("0" * 64, 1000, 900),
        Progress(1, 1, "float32", 1, 1, 1, 3.0, 0.0, 0, 100, 3.0, 2, "0" * 16),
        weights,
        {},
    )
