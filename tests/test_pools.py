"""Pools of processes that are started while a thread generates: web servers, batch jobs."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import chain_model, environment

from charrnn.network.config import weight_shapes
from charrnn.runs.checkpoint import to_bytes
from charrnn.text.vocabulary import Vocabulary

START = """
import multiprocessing, sys, threading, time
import charrnn

WHERE, METHOD = sys.argv[1:]

def generate(seed):
    return "".join(charrnn.load(WHERE).generate("The ", length=50, seed=seed))

if __name__ == "__main__":
    model, over = charrnn.load(WHERE), threading.Event()

    def generate_all_the_time():
        pieces = model.generate("The ", length=10**9, seed=1)
        while next(pieces) and not over.is_set():
            if METHOD == "fork":  # not within a product of NumPy's: there it may wait for ever, see docs/python.md
                over.wait()

    thread = threading.Thread(target=generate_all_the_time)
    thread.start()
    time.sleep(0.2)
    context = multiprocessing.get_context(METHOD)
    with context.Pool(2) as pool:
        print(*map(len, pool.map_async(generate, range(4)).get(timeout=120)))
    over.set()
    thread.join()
"""


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models of the sizes that training chooses for a minute and for ten, untrained."""
    folder, random = tmp_path_factory.mktemp("networks"), np.random.default_rng(0)
    paths = {}
    for name, layers, units in (("1x256", 1, 256), ("2x384", 2, 384)):
        model = chain_model(Vocabulary.ascii(), "abc")
        settings = dataclasses.replace(model.settings, cell="lstm", embedding=64, units=units, layers=layers)
        weights = {
            part: random.normal(0, 0.05, shape).astype(np.float32)
            for part, shape in weight_shapes(settings.network(model.vocabulary)).items()
        }
        paths[name] = folder / f"{name}.safetensors"
        paths[name].write_bytes(to_bytes(dataclasses.replace(model, settings=settings, weights=weights)))
    return paths


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("network", ["1x256", "2x384"])
def test_a_pool_works_while_a_thread_generates(
    networks: dict[str, Path], tmp_path: Path, network: str, method: str
) -> None:
    if sys.platform == "win32" and method != "spawn":
        pytest.skip("Windows only spawns")
    (tmp_path / "pool.py").write_text(START)
    result = subprocess.run(
        [sys.executable, "pool.py", networks[network], method],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout == "50 50 50 50\n"
