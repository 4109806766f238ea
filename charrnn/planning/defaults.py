"""Every default of a training: what the user left open, sized to the text, the time and the machine."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from charrnn import CharrnnError
from charrnn.messages import plural
from charrnn.planning.machine import usable_cores
from charrnn.planning.schedule import minutes_worth_waiting
from charrnn.runs.records import Settings
from charrnn.text.corpus import VALIDATION_SHARE, training_size
from charrnn.text.windows import steps_per_epoch

# A small text gets narrow batches: at least so many updates an epoch, so that it is learned before it
# was seen too often.
_UPDATES_PER_EPOCH = 64


_MIN_BATCH_SIZE, _MIN_SEQ_LENGTH = 2, 32


_TINY_TEXT, _LONG_TEXT = 30_000, 3_000_000  # characters for training


_USUAL_RATE = 500e9  # floating-point operations a second, as `machine_speed` measures them, where 1 is usual


def machine_speed() -> float:
    """How fast this machine multiplies matrices, measured in some milliseconds; 1 is that of docs/quality.md.

    NumPy has one thread in the command, but training splits a batch over up to four cores (`layout.choose_layout`).
    """
    kernel, state = np.ones((1536, 384), np.float32), np.ones((384, 32), np.float32)
    seconds = []
    for _ in range(100):
        before = time.perf_counter()
        kernel @ state
        seconds.append(time.perf_counter() - before)
    cores = min(4, usable_cores()) if os.environ.get("OPENBLAS_NUM_THREADS") == "1" else 1  # else all are measured
    return cores * 2 * kernel.size * state.shape[1] / min(seconds) / _USUAL_RATE


def usual_speed(layers: int, units: int) -> float:
    """Characters a second that a network is trained on, by and large: to guess how often a text is seen."""
    return float(130_000 * (256**2 / (units**2 * (2 * layers - 1))) ** 0.75)


def network_for(characters: int, minutes: float) -> tuple[int, int]:
    """The layers and units that get furthest with a text in some minutes: docs/quality.md has the runs behind it.

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
    if "epochs" in given:
        minutes = given["epochs"] * characters / usual_speed(1, 384) / 60
    else:
        minutes = speed * given.get("minutes", minutes_worth_waiting(characters))
    layers, units = network_for(characters, minutes)
    layers, units = given.get("layers", layers), given.get("units", units)
    passes = given.get("epochs") or 60 * minutes * usual_speed(layers, units) / characters
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
