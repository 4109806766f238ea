"""How many updates a run makes, when it validates, and the learning rate of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

WARM_UP_STEPS = 25  # updates; a tenth of a run of fewer than 250
VALIDATIONS = 20  # in a run, unless they would cost more than the share below
VALIDATION_COST = 1 / 15  # of the time of the updates, about
PATIENCE = 5  # validations, of those, in which a run whose end is left open must have got better
SPEED_KEPT = 0.97  # the mean speed of a run is a little below that of its first steps


def learning_rate_at(step: int, total_steps: int | None, highest: float) -> float:
    """The learning rate of an update: linear warm-up, then half a cosine down to a twentieth.

    The form of Loshchilov and Hutter (2017, arXiv:1608.03983), without restarts.

    Args:
        step: counted from 0.
        total_steps: of the run; None while it is not known, of a long run that has only begun.
        highest: what the warm-up reaches.
    """
    warm_up = WARM_UP_STEPS if total_steps is None else min(WARM_UP_STEPS, total_steps // 10)
    if step < warm_up:
        return highest * (step + 1) / warm_up
    done = 0.0 if total_steps is None else (step - warm_up) / (total_steps - warm_up)
    return highest * (0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2)


def minutes_worth_waiting(characters: int) -> float:
    """How long to train where nobody says it: with the square root of the text's length, 10 for a megabyte.

    Args:
        characters: in the training part.
    """
    return min(60.0, float(f"{10 * math.sqrt(characters / 1e6):.1g}"))


def trial_seconds(budget: float) -> float:
    """How long to look at the first updates, to tell how many fit into a run of `budget` seconds."""
    return min(15.0, max(0.5, budget / 10))


def validation_interval(total_steps: int, characters_per_step: int, validation_characters: int) -> int:
    """Steps between validations: some twenty in a run, fewer where they would cost too much.

    Args:
        total_steps: of the run.
        characters_per_step: that an update trains on, B * T.
        validation_characters: that one validation reads.
    """
    affordable = validation_characters / 3 / VALIDATION_COST  # a third: it has no backward pass
    characters = max(total_steps * characters_per_step / VALIDATIONS, affordable)
    return min(total_steps, math.ceil(characters / characters_per_step))


@dataclass(frozen=True)
class Speed:
    """What the first steps of a run took, in seconds."""

    step: float  # of one update
    validation: float  # of one validation
    final_pass: float  # of scoring the best weights at the end

    def steps_within(self, seconds: float, characters_per_step: int, validation_characters: int) -> int:
        """How many updates fit, with their validations and the final pass; one at the least."""
        left = (seconds - self.final_pass) * SPEED_KEPT
        steps = 1
        for _ in range(3):  # the interval between validations depends on the number of steps
            interval = validation_interval(steps, characters_per_step, validation_characters)
            steps = max(1, int(left / (self.step + self.validation / interval)))
        return steps
