"""How many updates, when to validate, and the learning rates."""

from __future__ import annotations

import pytest

from charrnn.planning.schedule import (
    VALIDATION_COST,
    Speed,
    learning_rate_at,
    minutes_worth_waiting,
    validation_interval,
)


def test_the_learning_rate_is_keras_cosine_after_a_linear_warm_up() -> None:
    from charrnn.training.backend import keras

    total, highest = 2000, 0.005
    cosine = keras.optimizers.schedules.CosineDecay(highest, decay_steps=total - 25, alpha=0.05)
    ours = [learning_rate_at(step, total, highest) for step in range(total)]
    assert ours[:25] == pytest.approx([highest * (step + 1) / 25 for step in range(25)])
    assert ours[25:] == pytest.approx([float(cosine(step)) for step in range(total - 25)], rel=1e-4)
    assert learning_rate_at(0, 1, highest) == highest  # a run of one step has no time to warm up
    assert [learning_rate_at(step, None, highest) for step in range(25)] == ours[:25]
    assert learning_rate_at(5000, None, highest) == highest


def test_the_time_worth_waiting_for_grows_with_the_text() -> None:
    texts = (64, 70_000, 1_000_000, 9_000_000, 10**9)
    assert [minutes_worth_waiting(characters) for characters in texts] == [0.08, 3, 10, 30, 60]


@pytest.mark.parametrize("total_steps", [1, 7, 100, 1_000, 123_456])
@pytest.mark.parametrize("validation_characters", [1_000, 60_000])
def test_validations_are_few_enough_to_be_cheap(total_steps: int, validation_characters: int) -> None:
    interval = validation_interval(total_steps, 2048, validation_characters)
    assert 1 <= interval <= total_steps
    assert -(-total_steps // interval) <= 20
    if interval < total_steps:
        assert validation_characters / 3 <= VALIDATION_COST * interval * 2048


def test_steps_with_their_validations_and_the_final_pass_fill_the_time() -> None:
    speed = Speed(step=0.05, validation=1.0, final_pass=10.0)
    steps = speed.steps_within(300, 2048, 60_000)
    needed = steps * 0.05 + steps / validation_interval(steps, 2048, 60_000) * 1.0 + 10
    assert 0.95 * 300 < needed < 300
    assert Speed(0.05, 1.0, final_pass=1e6).steps_within(300, 2048, 60_000) == 1
    assert Speed(1e3, 1.0, 1.0).steps_within(1, 2048, 60_000) == 1
