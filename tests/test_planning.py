"""Defaults sized to the text, and what a call of train comes to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from charrnn import CharrnnError
from charrnn.planning import machine
from charrnn.planning.defaults import (
    default_settings,
    final_characters_for,
    learning_rate_for,
    machine_speed,
    most_passes_for,
    precision_for,
)
from charrnn.planning.job import Call, Job, plan_training
from charrnn.runs.records import Settings
from charrnn.text.windows import steps_per_epoch

GIVEN = {"vocabulary": "ascii"}


def plan(
    file: Path, name: str | None, folder: str, device: str | None = None, save_every: float | None = None
) -> Job | str:
    return plan_training(Call([str(file)], {}, folder, name, False, device, save_every), print)


@pytest.mark.parametrize("characters", [64, 100, 1_000, 10_000, 75_000, 300_000, 1_000_000, 10**9])
def test_defaults_give_every_text_something_to_do(characters: int) -> None:
    settings = default_settings(characters, GIVEN)
    assert steps_per_epoch(characters, settings.batch_size, settings.seq_length) >= 1
    assert settings.open_ended


def test_a_small_text_gets_a_small_network_and_narrow_batches() -> None:
    small, large = default_settings(20_000, GIVEN), default_settings(2_000_000, GIVEN)
    assert small.units < large.units
    assert small.batch_size < large.batch_size
    assert steps_per_epoch(20_000, small.batch_size, small.seq_length) >= 32


def test_what_is_given_is_taken_as_it_is() -> None:
    tutorial = {
        "embedding": 256, "units": 512, "layers": 1, "seq_length": 100, "batch_size": 64, "learning_rate": 0.001,
        "epochs": 10, "cell": "lstm", "dropout": 0.0, "seed": 4,
    }  # fmt: skip
    settings = default_settings(1_000_000, {**GIVEN, **tutorial})
    assert {name: getattr(settings, name) for name in tutorial} == tutorial


def test_the_more_often_a_text_is_seen_and_the_shorter_it_is_the_more_dropout() -> None:
    def dropout(characters: int, epochs: int) -> float:
        return default_settings(characters, {**GIVEN, "epochs": epochs}).dropout

    assert dropout(10_000_000, 1) == 0 < dropout(1_000_000, 5) < dropout(1_000_000, 25) < dropout(75_000, 25) <= 0.6


def test_a_run_from_a_model_learns_slowly_and_not_for_long() -> None:
    network = {**GIVEN, "layers": 2, "units": 640}

    def settings(characters: int, minutes: float, surprise: float | None = 1.5) -> Settings:
        return default_settings(characters, {**network, "minutes": minutes}, 1.0, surprise)

    rates = [settings(characters, 1).learning_rate for characters in (10_000, 75_000, 500_000, 10**6, 10**8)]
    assert rates == sorted(rates)
    assert rates[0] > 0.1 * rates[-1]
    usual = settings(10**6, 10, None)
    assert rates[-1] < learning_rate_for(2, 640) == usual.learning_rate
    foreign = settings(10**6, 10, 3.0)  # a text that the model cannot read yet
    assert foreign.learning_rate == usual.learning_rate
    assert settings(10**6, 10).dropout < foreign.dropout < usual.dropout
    assert settings(75_000, 10).dropout == settings(75_000, 100).dropout < 0.4
    assert settings(10**6, 1).dropout < settings(10**6, 10).dropout
    assert most_passes_for(1000) == 2 < most_passes_for(10**6) < most_passes_for(10**8)


@pytest.mark.parametrize(
    ("characters", "minutes", "network"),
    [(20_000, 1, (1, 128)), (1_000_000, 0.05, (1, 128)), (1_000_000, 0.25, (1, 256)), (1_000_000, 1, (2, 320)),
     (1_000_000, 10, (2, 448)), (10_000_000, 1, (2, 320)), (1_000_000, 30, (2, 512))],
)  # fmt: skip
def test_the_more_time_the_larger_the_network(characters: int, minutes: float, network: tuple[int, int]) -> None:
    settings = default_settings(characters, {**GIVEN, "minutes": minutes})
    assert (settings.cell, settings.layers, settings.units) == ("coupled", *network)


@pytest.mark.parametrize(
    ("layers", "units", "rate"), [(1, 16, 0.01), (1, 384, 0.0051), (1, 400, 0.005), (2, 400, 0.004)]
)
def test_the_wider_and_the_deeper_the_network_the_lower_the_learning_rate(layers: int, units: int, rate: float) -> None:
    assert default_settings(1_000_000, {**GIVEN, "layers": layers, "units": units}).learning_rate == rate


def test_a_slower_machine_gets_the_network_and_the_dropout_of_a_shorter_time() -> None:
    def chosen(minutes: float, speed: float) -> tuple[int, int, float]:
        settings = default_settings(1_000_000, {**GIVEN, "minutes": minutes}, speed)
        return settings.layers, settings.units, settings.dropout

    assert chosen(1, 1) != chosen(1, 0.25) == chosen(0.25, 1)
    assert chosen(10, 1) != chosen(10, 0.1) == chosen(1, 1)


@pytest.mark.parametrize(
    ("flags", "found"),
    [("fma avx2", "other"), ("avx2 avx512f", "avx512"), ("avx512f avx512_bf16", "bfloat16"), (None, "other")],
)
def test_the_class_of_a_machine_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str | None, found: str
) -> None:
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(
            f"model name\t: a CPU with avx512ish parts\nflags\t\t: fpu {flags} sse\n\n" * 2
        )
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine, "NVIDIA", tmp_path / "absent")
    assert machine.machine_class() == machine.machine_class("cpu") == found


@pytest.mark.parametrize(
    ("own", "quotas", "cores"),
    [
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "max 100000"}, 64),
        ("0::/a/b", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, 1),
        ("4:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"}, 3),
        ("4:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, 64),
        ("4:memory:/a", {"memory/a/memory.limit_in_bytes": "1000000"}, 64),
    ],
)
def test_a_containers_quota_counts_as_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, quotas: dict[str, str], cores: int
) -> None:
    for name, text in quotas.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    (tmp_path / "own").write_text(f"{own}\n")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert machine.usable_cores() == cores
    assert machine.usable_cores(2) == max(1, cores // 2)
    assert (machine.memory_limit() == 1_000_000) == ("memory" in own)


def test_more_cores_and_a_better_class_count_as_more_time() -> None:
    speeds = [machine_speed(name, 2) for name in ("other", "avx512", "bfloat16", "gpu")]
    assert speeds == sorted(set(speeds))
    assert machine_speed("avx512", 1) < machine_speed("avx512", 4) == machine_speed("avx512", 64)
    assert [precision_for(name, 256) for name in ("other", "bfloat16", "gpu")] == ["float32", "bfloat16", "float32"]


def test_twenty_starts_choose_the_same_beside_a_busy_program(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("A ferry leaves at six. " * 30_000)
    code = (
        "from charrnn.planning.job import Call, plan_training\n"
        "job = plan_training(Call(['x.txt'], {'minutes': 1.0}, 'runs'), lambda _: None)\n"
        "print(job.settings, job.precision, job.final_characters)"
    )
    chosen = []
    for busy in (False, True):
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as program:
            try:
                if not busy:
                    program.kill()
                for _ in range(10):
                    chosen.append(subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, text=True))
            finally:
                program.kill()
    assert len(set(chosen)) == 1


@pytest.mark.parametrize(
    ("characters", "minutes", "scored"),
    [
        (8_000, 0.01, 8_000),
        (20_000, 0.01, 20_000),
        (111_540, 1.0, 111_540),
        (10_000_000, 0.5, 200_000),
        (60_000_000, 600.0, 2_000_000),
    ],
)
def test_a_large_validation_part_is_scored_as_far_as_the_time_allows(
    characters: int, minutes: float, scored: int
) -> None:
    settings = default_settings(9 * characters, {**GIVEN, "minutes": minutes})
    assert final_characters_for(characters, settings, minutes) == scored


def test_minutes_take_the_place_of_epochs() -> None:
    settings = default_settings(1_000_000, {**GIVEN, "minutes": 5.0})
    assert (settings.epochs, settings.minutes) == (None, 5.0)


def test_a_text_that_is_too_short_is_told_the_least_that_is_not(tmp_path: Path) -> None:
    with pytest.raises(CharrnnError, match="needs at least 72 characters"):
        default_settings(63, GIVEN)
    path = tmp_path / "x.txt"
    for length, enough in ((71, False), (72, True)):
        path.write_text("ab" * (length // 2) + "a" * (length % 2))
        if enough:
            assert isinstance(plan(path, None, str(tmp_path)), Job)
        else:
            with pytest.raises(CharrnnError):
                plan(path, None, str(tmp_path))


def test_the_command_that_continues_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHARRNN_CHECKPOINTS_DIR", raising=False)
    odd = tmp_path / "two words; 'quoted'.txt"
    odd.write_text("text " * 100)
    job = plan(odd, None, "checkpoints")
    assert isinstance(job, Job)
    assert job.run.name == "two words; 'quoted'"
    import shlex

    assert shlex.split(job.commands.resume) == ["charrnn", "train", str(odd)]
    job = plan(odd, "n", "elsewhere", "cpu", 30)
    assert isinstance(job, Job)
    assert shlex.split(job.commands.resume) == [
        "charrnn", "train", "--name", "n", "--checkpoints-dir", "elsewhere", "--device", "cpu", "--save-every", "30",
        str(odd),
    ]  # fmt: skip
    assert job.commands.sample == "charrnn sample --checkpoints-dir elsewhere --checkpoint n"


def test_the_command_that_continues_knows_the_environment_and_odd_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-x.txt").write_text("text " * 100)
    monkeypatch.setenv("CHARRNN_CHECKPOINTS_DIR", "elsewhere")
    job = plan(Path("-x.txt"), None, "elsewhere")
    assert isinstance(job, Job)
    assert job.commands.resume == "charrnn train -- -x.txt"
    assert job.commands.sample == "charrnn sample --checkpoint x"
    job = plan(Path("-x.txt"), None, "checkpoints")
    assert isinstance(job, Job)
    assert job.commands.resume == "charrnn train --checkpoints-dir checkpoints -- -x.txt"


def test_the_least_length_is_found_at_once_for_the_largest_windows() -> None:
    with pytest.raises(CharrnnError, match="needs at least"):
        default_settings(1000, {**GIVEN, "batch_size": 65536, "seq_length": 65536})
