"""`charrnn runs`."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SMALL, Command, environment

from charrnn.runs import checkpoint
from charrnn.runs.folder import Run


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """A folder of runs: `small`, an hour old; `half`, stopped two days ago; `bad`, damaged a minute ago."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "small", folder / "half")
    whole = checkpoint.load(folder / "half/last.safetensors")
    progress = dataclasses.replace(whole.progress, step=5, best_step=None, best_loss=None, final_loss=None)
    Run(folder / "half").save(dataclasses.replace(whole, progress=progress), [], None)
    shutil.copytree(folder / "small", folder / "bad")
    (folder / "bad/best.safetensors").write_bytes(b"no")
    for name, age in (("small", 3700), ("half", 2 * 86400 + 60), ("bad", 61)):
        for path in (folder / name).iterdir():
            os.utime(path, (time.time() - age,) * 2)
    return folder


def test_runs_are_listed_newest_first_and_a_damaged_one_is_a_line(runs: Path, charrnn: Command) -> None:
    loss = checkpoint.load(runs / "small/best.safetensors").progress.best_loss
    final = checkpoint.load(runs / "small/last.safetensors").progress.final_loss
    result = charrnn("runs")
    assert result.returncode == 0
    assert not result.stderr
    header, bad, small, half = (line.split() for line in result.stdout.splitlines())
    assert header == ["run", "characters", "network", "from", "step", "loss", "saved", "state"]
    assert " ".join(bad).startswith("bad checkpoints/bad/best.safetensors: not a charrnn checkpoint")
    assert " ".join(small) == f"small 20,000 1 x 32 coupled LSTM - 280/280 {final:.4f} 1 h ago finished"
    assert " ".join(half) == "half 20,000 1 x 32 coupled LSTM - 5/280 - 2 days ago stopped"

    lines = [json.loads(line) for line in charrnn("runs", "--json").stdout.splitlines()]
    assert [line["name"] for line in lines] == ["bad", "small", "half"]
    assert set(lines[0]) == {"name", "error"}
    assert 3700 <= lines[1].pop("age") < 3900
    assert lines[1] == {
        "name": "small", "characters": 20_000, "layers": 1, "units": 32, "cell": "coupled", "init_from": None,
        "source": None, "step": 280, "total_steps": 280, "best_loss": pytest.approx(loss), "final_loss": final,
        "state": "finished", "settings": dataclasses.asdict(checkpoint.load(runs / "small/last.safetensors").settings),
    }  # fmt: skip


def test_the_list_reads_no_tensors(runs: Path, charrnn: Command) -> None:
    before = charrnn("runs").stdout
    for name in ("last", "best"):
        path = runs / f"small/{name}.safetensors"
        times = path.stat()
        path.write_bytes(path.read_bytes()[:-8] + b"damaged!")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert charrnn("runs").stdout == before


def test_columns_are_aligned(runs: Path, charrnn: Command) -> None:
    header, _, *lines = charrnn("runs").stdout.splitlines()
    for column in ("network", "from", "saved", "state"):
        assert all(line[header.index(column) - 1] == " " != line[header.index(column)] for line in lines)


def test_a_run_that_trains_now_is_listed_and_not_disturbed(runs: Path, tmp_path: Path, charrnn: Command) -> None:
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "charrnn", "train", "small.txt", *SMALL, "--minutes", "60"),
            *("--name", "new", "--init-from", "small", "--save-every", "0"),
        ],
        cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            while not Run(runs / "new").last.exists():
                assert process.poll() is None
                time.sleep(0.05)
            for _ in range(5):
                (line,) = (line for line in charrnn("runs").stdout.splitlines() if line.startswith("new "))
                assert " small " in line
                assert line.endswith(" training")
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
    assert charrnn("runs").stdout.splitlines()[1].endswith(" stopped")


def test_a_folder_without_runs_is_no_error(charrnn: Command, tmp_path: Path) -> None:
    result = charrnn("runs", "--json")
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == f"no runs in {tmp_path / 'checkpoints'} yet: train one with charrnn train FILE\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names")
def test_a_name_cannot_end_a_line(runs: Path, charrnn: Command) -> None:
    (runs / "small").rename(runs / "two\nlines\x1b[31m")
    assert "\ntwo\\nlines\\x1b[31m  " in charrnn("runs").stdout
