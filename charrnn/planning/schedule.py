"""The number of updates in a run, when it validates, and the learning rate of each update."""

from __future__ import annotations

import math
from dataclasses import dataclass

WARM_UP_STEPS = 25  # updates; a tenth of a run with fewer than 250
VALIDATIONS = 20  # in a run, unless they would cost more than VALIDATION_COST
VALIDATION_COST = 1 / 15  # approximate share of the time of the updates
PATIENCE = 5  # validations without improvement after which an open-ended run stops
SPEED_KEPT = 0.97  # the mean speed of a run is a little lower than the speed of its first steps


def learning_rate_at(step: int, total_steps: int | None, highest: float) -> float:
    """The learning rate of an update: linear warm-up, then half a cosine down to a twentieth.

    The schedule is that of Loshchilov and Hutter (2017, arXiv:1608.03983), without restarts.

    Args:
        step: number of the update, counted from 0.
        total_steps: updates in the run; None at the start of a long run, while the number is unknown.
        highest: learning rate that the warm-up reaches.
    """
    warm_up = WARM_UP_STEPS if total_steps is None else min(WARM_UP_STEPS, total_steps // 10)
    if step < warm_up:
        return highest * (step + 1) / warm_up
    done = 0.0 if total_steps is None else (step - warm_up) / (total_steps - warm_up)
    return highest * (0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2)


def minutes_worth_waiting(characters: int) -> float:
    """The default training time: it grows with the square root of the text's length, to 10 minutes for a megabyte.

    Args:
        characters: number in the training part.
    """
    return min(60.0, float(f"{10 * math.sqrt(characters / 1e6):.1g}"))


def trial_seconds(budget: float) -> float:
    """Seconds of first updates that show how many updates fit into a run of `budget` seconds."""
    return min(15.0, max(0.5, budget / 10))


def validation_interval(total_steps: int, characters_per_step: int, validation_characters: int) -> int:
    """Steps between validations: about twenty validations in a run, fewer if they would cost too much.

    Args:
        total_steps: updates in the run.
        characters_per_step: characters that one update trains on, B * T.
        validation_characters: characters that one validation reads.
    """
    affordable = validation_characters / 3 / VALIDATION_COST  # a third, since validation has no backward pass
    characters = max(total_steps * characters_per_step / VALIDATIONS, affordable)
    return min(total_steps, math.ceil(characters / characters_per_step))


@dataclass(frozen=True)
class Speed:
    """Times measured in the first steps of a run, in seconds."""

    step: float  # of one update
    validation: float  # of one validation
    final_pass: float  # of scoring the best weights at the end

    def steps_within(self, seconds: float, characters_per_step: int, validation_characters: int) -> int:
        """The number of updates that fit, with their validations and the final pass; at least one."""
        left = (seconds - self.final_pass) * SPEED_KEPT
        steps = 1
        for _ in range(3):  # the interval between validations depends on the number of steps
            interval = validation_interval(steps, characters_per_step, validation_characters)
            steps = max(1, int(left / (self.step + self.validation / interval)))
        return steps
