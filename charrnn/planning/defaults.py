"""Every default of a training: what the user left open, sized to the text, the time and the machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from charrnn import CharrnnError
from charrnn.messages import plural
from charrnn.planning.schedule import minutes_worth_waiting
from charrnn.runs.records import Settings
from charrnn.text.corpus import VALIDATION_SHARE, training_size
from charrnn.text.windows import SEQUENTIAL, steps_per_epoch

# A small text gets narrow batches: at least so many updates an epoch, so that it is learned before it
# was seen too often.
_UPDATES_PER_EPOCH = 64
_MIN_BATCH_SIZE, _MIN_SEQ_LENGTH = 2, 32
_TINY_TEXT, _LONG_TEXT = 30_000, 3_000_000  # characters for training
_SPEEDS = {"gpu": 10.0, "bfloat16": 0.45, "avx512": 0.25, "other": 0.125}
"""Of each class of machine, for a core of a CPU; two cores of the machine of docs/diary/quality.md have about 1."""
_MOST_CORES = 4  # that training gains from
_LEAST_UNITS_OF_BFLOAT16 = 64  # below, converting costs more than the products gain
_FINAL_SHARE = 0.05  # of the time, for the final loss


def machine_speed(machine: str, cores: int) -> float:
    """How fast a machine is by its class and cores; 1 is that of docs/diary/quality.md."""
    return _SPEEDS[machine] * (1 if machine == "gpu" else min(_MOST_CORES, cores))


def precision_for(machine: str, units: int) -> str:
    """The precision of an LSTM's products that is the faster on a class of machine."""
    return "bfloat16" if machine == "bfloat16" and units >= _LEAST_UNITS_OF_BFLOAT16 else "float32"


def final_characters_for(characters: int, settings: Settings, minutes: float) -> int:
    """How many of the characters of the validation part the final loss is over: all, if that takes little of the time.

    Args:
        characters: in the validation part.
        settings: of the run.
        minutes: on a machine of usual speed.
    """
    # Scoring has no backward pass.
    affordable = 3 * 60 * minutes * _FINAL_SHARE * usual_speed(settings.layers, settings.units)
    return min(characters, max(SEQUENTIAL, int(float(f"{affordable:.1g}"))))


def usual_speed(layers: int, units: int, batch_size: int = 32) -> float:
    """Characters a second that a network is trained on where `machine_speed` is 1, to a third or so.

    A step of a window takes a fixed time for each layer, and what its products take.
    """
    products = 20e-6 * (units / 512) ** 1.7 * (2 * layers - 1)
    return float(batch_size / (60e-6 * layers + batch_size * products))


def network_for(characters: int, minutes: float) -> tuple[int, int]:
    """The layers and units that get furthest with a text in some minutes: docs/diary/quality.md has the runs behind it.

    Args:
        characters: in the training part.
        minutes: on a machine of usual speed.
    """
    if characters < _TINY_TEXT:
        return 1, 128
    if characters > _LONG_TEXT:
        return 2, _units(128 * math.sqrt(minutes), 512)
    if minutes >= 16:
        return 2, 512
    one_layer = _units(384 * math.sqrt(minutes), 384)
    seen = 60 * minutes * usual_speed(1, one_layer) / characters
    return (2, 384) if minutes >= 1.5 or (minutes >= 0.75 and seen > 20) else (1, one_layer)


def _units(wanted: float, most: int) -> int:
    return min(most, max(128, 64 * round(wanted / 64)))


def dropout_for(characters: int, passes: float) -> float:
    """Against learning a text by heart: the more, the more often it is seen and the shorter it is.

    Args:
        characters: in the training part.
        passes: over it, in the whole training.
    """
    return round(min(0.6, max(0.0, 0.1 * math.log2(max(1, passes) * math.sqrt(1e6 / characters)) - 0.05)), 2)


def learning_rate_for(layers: int, units: int) -> float:
    """What the schedule falls from: the narrower and the shallower, the higher."""
    return round((1 if layers == 1 else 0.8) * min(0.01, 0.1 / math.sqrt(units)), 4)


def usual_minutes(characters: int, given: Mapping[str, Any], speed: float) -> float:
    """How long a run trains: as many minutes as a machine of usual speed would need for it.

    Args:
        characters: in the training part.
        given: the options that were given, by their names in `Settings`.
        speed: of the machine, as `machine_speed` tells it.
    """
    if given.get("epochs"):
        return float(given["epochs"] * characters / usual_speed(1, 384) / 60)
    return float(speed * (given.get("minutes") or minutes_worth_waiting(characters)))


def default_settings(characters: int, given: Mapping[str, Any], speed: float = 1.0) -> Settings:
    """Fill in what the user left open, sized to the text and the time.

    Args:
        characters: in the training part.
        given: the options that were given, by their names in `Settings`.
        speed: of the machine, as `machine_speed` tells it.

    Raises:
        CharrnnError: the text is too short for the batch size and sequence length.
    """
    batch_size, seq_length = given.get("batch_size"), given.get("seq_length")
    if batch_size is None:
        batch_size = 32
        while batch_size > _MIN_BATCH_SIZE and steps_per_epoch(characters, batch_size, seq_length or 64) < (
            _UPDATES_PER_EPOCH
        ):
            batch_size //= 2
    if seq_length is None:
        seq_length = 64
        while seq_length > _MIN_SEQ_LENGTH and steps_per_epoch(characters, batch_size, seq_length) < (
            _UPDATES_PER_EPOCH
        ):
            seq_length //= 2
    if not steps_per_epoch(characters, batch_size, seq_length):
        minimum = int(batch_size * seq_length / (1 - VALIDATION_SHARE))
        while training_size(minimum) < batch_size * seq_length:
            minimum += 1
        raise CharrnnError(
            f"the text is too short: with {plural(batch_size, 'stream')} of windows of {seq_length} characters, "
            f"{plural(minimum, 'character')} are the least"
            + (": lower --batch-size or --seq-length" if {"batch_size", "seq_length"} & given.keys() else "")
        )
    minutes = usual_minutes(characters, given, speed)
    layers, units = network_for(characters, minutes)
    layers, units = given.get("layers", layers), given.get("units", units)
    passes = given.get("epochs") or 60 * minutes * usual_speed(layers, units, batch_size) / characters
    settings = {
        "vocabulary": None,
        "encoding": "utf-8",
        "errors": "strict",
        "embedding": 64,
        "units": units,
        "layers": layers,
        "cell": "lstm",
        "dropout": dropout_for(characters, passes),
        "learning_rate": learning_rate_for(layers, units),
        "epochs": None,
        "minutes": None,
        "seed": 1,
        "precision": "auto",
        "init_from": None,
        **given,
        "batch_size": batch_size,
        "seq_length": seq_length,
    }
    return Settings(**settings)
