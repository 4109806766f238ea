"""Defaults sized to the text, and what a call of train comes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from charrnn import CharrnnError
from charrnn.planning.defaults import default_settings, machine_speed
from charrnn.planning.job import Job, plan_training
from charrnn.text.windows import steps_per_epoch

GIVEN = {"vocabulary": "ascii"}


def plan(
    file: Path, name: str | None, folder: str, device: str | None = None, save_every: float | None = None
) -> Job | str:
    return plan_training([str(file)], {}, name, folder, False, device, save_every, print)


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


@pytest.mark.parametrize(
    ("characters", "minutes", "network"),
    [(1_000_000, 0.05, (1, 128)), (1_000_000, 0.25, (1, 192)), (1_000_000, 1, (1, 384)), (75_000, 0.25, (1, 192)),
     (75_000, 1, (2, 384)), (1_000_000, 10, (2, 384)), (10_000_000, 1, (2, 128)), (10_000_000, 10, (2, 384)),
     (1_000_000, 30, (2, 512)), (10_000_000, 30, (2, 512))],
)  # fmt: skip
def test_the_more_time_the_larger_the_network(characters: int, minutes: float, network: tuple[int, int]) -> None:
    settings = default_settings(characters, {**GIVEN, "minutes": minutes})
    assert (settings.layers, settings.units) == network


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
    assert 0.001 < machine_speed() < 1000


def test_minutes_take_the_place_of_epochs() -> None:
    settings = default_settings(1_000_000, {**GIVEN, "minutes": 5.0})
    assert (settings.epochs, settings.minutes) == (None, 5.0)


def test_a_text_that_is_too_short_is_told_the_least_that_is_not(tmp_path: Path) -> None:
    with pytest.raises(CharrnnError, match="72 characters are the least"):
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
    with pytest.raises(CharrnnError, match="are the least"):
        default_settings(1000, {**GIVEN, "batch_size": 65536, "seq_length": 65536})
