"""Several devices and several processes that train one network together."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PROJECT, SMALL, Command, environment, run_charrnn
from replicas import GIVEN, UPDATES

from charrnn.planning.workers import this_worker
from charrnn.runs import checkpoint
from charrnn.runs.folder import Run

Tensors = dict[str, Any]


def options() -> list[str]:
    """The settings of tests/replicas.py for the command."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in GIVEN.items()]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, tales: str) -> Path:
    """A text of 50 updates."""
    path = tmp_path_factory.mktemp("workers") / "small.txt"
    path.write_text(tales, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def found(small: Path) -> dict[str, Tensors]:
    """Runs of one device with the batch in one, two and three parts, and of Keras' layers; runs of two devices."""
    for devices, *layers in (("1", "fast1", "fast2", "fast3", "stock"), ("2", "fast1", "stock", "fast1-stopped")):
        subprocess.run(
            [sys.executable, "tests/replicas.py", small, devices, small.parent / devices, *layers],
            cwd=PROJECT,
            env=environment(),
            check=True,
            timeout=300,
        )
    return {path.name.removesuffix(".npz"): dict(np.load(path)) for path in small.parent.glob("*.npz")}


def difference(one: Tensors, other: Tensors) -> float:
    """The largest difference of a weight."""
    names = [name for name in one if name.startswith("current.")]
    assert names
    return max(float(np.abs(one[name] - other[name]).max()) for name in names)


def spread(found: dict[str, Tensors]) -> float:
    """The most that a weight differs on one device with the batch added in other parts."""
    return max(difference(found["1.fast1"], found[f"1.fast{parts}"]) for parts in (2, 3))


@pytest.mark.parametrize("layer", ["fast1", "stock"])
def test_two_devices_train_as_one(found: dict[str, Tensors], layer: str) -> None:
    one, two = found[f"1.{layer}"], found[f"2.{layer}"]
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=0, atol=1e-5)
    assert two["validation"] == pytest.approx(float(one["validation"]), abs=1e-5)
    assert 0 < difference(one, two) < 3 * spread(found)
    assert one["state.layer1.h"].shape == two["state.layer1.h"].shape  # of all streams


def test_two_devices_that_are_stopped_go_on_to_the_same_bytes(found: dict[str, Tensors]) -> None:
    whole, stopped = found["2.fast1"], found["2.fast1-stopped"]
    assert whole.keys() == stopped.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(stopped[name], values)


def test_parts_of_a_batch_and_keras_layers_have_the_same_dropout(found: dict[str, Tensors]) -> None:
    for other in ("fast2", "fast3", "stock"):
        np.testing.assert_allclose(found[f"1.{other}"]["losses"], found["1.fast1"]["losses"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_workers_train_as_one(
    charrnn: Command, tmp_path: Path, small: Path, found: dict[str, Tensors], workers: int
) -> None:
    result = charrnn("train", small, *options(), "--workers", workers)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("sample from it with") == 1  # only worker 0 speaks
    run = Run(tmp_path / "checkpoints" / "small")
    one, last = found["1.fast1"], checkpoint.load(run.last)
    assert last.progress.step == UPDATES
    begin = 0
    with open(run.history, newline="") as file:
        for row in csv.DictReader(file):
            losses = one["losses"][begin : (begin := int(row["step"]))]
            assert float(row["train_loss"]) == pytest.approx(losses.mean(), abs=1e-5)
    assert begin == UPDATES
    assert float(row["val_loss"]) == pytest.approx(float(one["validation"]), abs=1e-5)
    assert 0 < difference(one, last.training) < 3 * spread(found)


@pytest.mark.slow
def test_a_killed_worker_ends_all_and_the_same_command_ends_in_the_same_bytes() -> None:
    """A short version of the long test in docs/reliability.md."""
    result = subprocess.run(
        [sys.executable, "scripts/crash_test.py", "--kills", "1", "--workers", "2"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def free_ports(count: int) -> list[int]:
    """Ports that no one listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def start(folder: Path, ports: list[int], index: int, *options: object) -> subprocess.Popen[str]:
    """Start one of two workers, a chief and a worker, by TF_CONFIG."""
    jobs = ("chief", "worker")
    cluster = {job: [f"127.0.0.1:{port}"] for job, port in zip(jobs, ports, strict=True)}
    config = json.dumps({"cluster": cluster, "task": {"type": jobs[index], "index": 0}})
    return subprocess.Popen(
        [sys.executable, "-m", "charrnn", "train", *map(str, options)],
        cwd=folder,
        env=environment() | {"TF_CONFIG": config},
        stderr=subprocess.PIPE,
        text=True,
    )


def ends(workers: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """The exit code and the messages of each."""
    try:
        messages = [worker.communicate(timeout=120)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    return [(worker.returncode, message) for worker, message in zip(workers, messages, strict=True)]


def saved_step(run: Run) -> int:
    """The update up to which a run is saved."""
    return checkpoint.read_head(run.last).progress.step if run.last.exists() else 0


def wait_until_saved(run: Run, after: int = 0) -> None:
    """Wait until a run is saved at a later update."""
    deadline = time.monotonic() + 60
    while saved_step(run) <= after and time.monotonic() < deadline:
        time.sleep(0.05)


def test_a_killed_worker_ends_the_other_which_names_it(tmp_path: Path, small: Path) -> None:
    ports = free_ports(2)
    options = (small, *SMALL, "--epochs", 5000, "--save-every", 0.2)
    workers = [start(tmp_path, ports, index, *options) for index in range(2)]
    run = Run(tmp_path / "checkpoints" / "small")
    wait_until_saved(run)
    workers[1].kill()
    (chief_code, chief), (code, _) = ends(workers)
    assert (chief_code, code) == (3, -signal.SIGKILL), chief
    last = chief.splitlines()[-1]
    assert last.startswith(f"Error: worker 1 (127.0.0.1:{ports[1]}) no longer answers, so all workers end; step ")
    assert f"step {saved_step(run):,} of" in last
    assert "is saved; continue with: charrnn train" in last


def test_ctrl_c_on_one_worker_stops_all_saved_and_three_continue(tmp_path: Path, small: Path) -> None:
    """A batch of 8 streams, which three workers cannot divide evenly."""
    ports = free_ports(2)
    options = (*SMALL, "--epochs", "5000", "--save-every", "0.2")
    workers = [start(tmp_path, ports, index, small, *options) for index in range(2)]
    run = Run(tmp_path / "checkpoints" / "small")
    wait_until_saved(run)
    os.kill(workers[1].pid, signal.SIGINT)
    (chief_code, chief), (code, other) = ends(workers)
    assert (chief_code, code) == (130, 130), chief + other
    step = saved_step(run)
    assert f"stopped at step {step:,} of" in chief.splitlines()[-1]
    assert step > 0
    assert other == ""

    command = [sys.executable, "-m", "charrnn", "train", str(small), *options, "--workers", "3"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    wait_until_saved(run, step)
    process.terminate()
    _, message = process.communicate(timeout=60)
    assert process.returncode == 143, message
    assert f"stopped at step {saved_step(run):,} of" in message
    assert saved_step(run) > step
    assert "not byte-identical" in message
    assert "--workers 3" in message.splitlines()[-1]


@pytest.mark.parametrize("what", ["text", "dropout"])
def test_a_worker_that_differs_is_refused_by_name(tmp_path: Path, small: Path, tales: str, what: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "small.txt").write_text(tales[:10_000])
    ports = free_ports(2)
    other = tmp_path / "other" / "small.txt" if what == "text" else small
    options = [*SMALL, "--epochs", "1"]
    workers = [
        start(tmp_path, ports, 0, small, *options),
        start(tmp_path, ports, 1, other, *options, *(["--dropout", "0.3"] if what == "dropout" else [])),
    ]
    for code, message in ends(workers):
        assert code == 1
        assert f"worker 1 (127.0.0.1:{ports[1]}) differs from worker 0 (127.0.0.1:{ports[0]}) in the {what}" in message
    assert not (tmp_path / "checkpoints" / "small").exists()


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1", "b:2"]}}',
        '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": 2}, "task": {"type": "worker", "index": 0}}',
    ],
)
def test_a_wrong_tf_config_is_one_line(charrnn: Command, small: Path, config: str) -> None:
    result = charrnn("train", small, TF_CONFIG=config)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: TF_CONFIG does not describe a cluster")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "config", ["", "{}", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}']
)
def test_a_cluster_of_one_is_this_process(monkeypatch: pytest.MonkeyPatch, config: str) -> None:
    monkeypatch.setenv("TF_CONFIG", config)
    assert (this_worker().count, this_worker().is_chief) == (1, True)


def test_wrong_numbers_of_workers_are_usage_errors(small: Path, tmp_path: Path) -> None:
    config = '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0}}'
    result = run_charrnn("train", small, "--workers", 3, cwd=tmp_path, TF_CONFIG=config)
    assert result.returncode == 2
    assert "TF_CONFIG has 2 workers, not 3" in result.stderr
    result = run_charrnn("train", "-", "--name", "piped", "--workers", 2, cwd=tmp_path, input="text")
    assert result.returncode == 2
    assert "Several workers cannot share standard input" in result.stderr
