"""Every default of a training, fitted to the text, the time and the machine."""

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

# A small text gets narrow batches. At least this many updates per epoch let the network learn the text before it
# has seen it too often.
_UPDATES_PER_EPOCH = 64
_MIN_BATCH_SIZE, _MIN_SEQ_LENGTH = 2, 32
_TINY_TEXT = 30_000  # characters for training
_SPEEDS = {"gpu": 10.0, "bfloat16": 0.39, "avx512": 0.25, "other": 0.125}
"""By class of machine; for CPUs, per core. Two cores of the machine in docs/diary/quality.md have about speed 1."""
_MOST_CORES = 4  # more do not speed up training
_LEAST_UNITS_OF_BFLOAT16 = 64  # with fewer, conversion costs more than the faster products save
_STREAMS = 32
_STREAMS_ON_GPU = 128
"""cuDNN's products are limited by memory below this many: NVIDIA, Recurrent Layers User's Guide, checklist. Merity,
Keskar, Socher (2018, arXiv:1803.08240) train their character-level LSTMs with as many."""
_LARGE_TEXT = 10_000_000  # characters for training, from which a wide network pays on a GPU
_SETTING_UP = 3  # seconds to build the network and to trace the first update
_UPDATING = 0.9  # of the time after that; validating and saving take the rest
_MOST_NATS = 2.1
"""Per character, below which a model can read a text: English is below 1.6 for one of English, code above 3."""
_DROPOUT_SHARE = 0.6  # of the usual dropout, for a run that starts from a model
_FINAL_SHARE = 0.05  # of the training time, for the final loss
_MOST_FINAL = 2_000_000  # characters that it covers: more would need memory that grows with the text


def machine_speed(machine: str, cores: int) -> float:
    """The relative speed of a machine, from its class and cores; the machine of docs/diary/quality.md has speed 1."""
    return _SPEEDS[machine] * (1 if machine == "gpu" else min(_MOST_CORES, cores))


def precision_for(machine: str, units: int) -> str:
    """The faster precision for the products of a fast layer on a class of machine."""
    return "bfloat16" if machine == "bfloat16" and units >= _LEAST_UNITS_OF_BFLOAT16 else "float32"


def final_characters_for(characters: int, settings: Settings, minutes: float) -> int:
    """The number of validation characters that the final loss covers: all, if that takes little time and memory.

    Args:
        characters: number in the validation part.
        settings: settings of the run.
        minutes: training time on a machine of usual speed.
    """
    # Scoring has no backward pass, but its products are in float32.
    affordable = 1.5 * 60 * minutes * _FINAL_SHARE * usual_speed(settings.layers, settings.units)
    return min(characters, _MOST_FINAL, max(SEQUENTIAL, int(float(f"{affordable:.1g}"))))


def usual_speed(layers: int, units: int, batch_size: int = 32) -> float:
    """Training speed in characters per second, where `machine_speed` is 1; accurate to about a fifth.

    Each step of a window takes a fixed time per layer, plus the time for its products. Fitted to coupled LSTMs.
    """
    products = 10e-6 * (units / 512) ** 1.7
    return float(batch_size / (layers * (60e-6 + batch_size * products)))


def network_for(characters: int, minutes: float, gpu: bool = False) -> tuple[int, int]:
    """The layers and units that learn most from a text in the given time; docs/diary/quality.md has the runs.

    On a GPU the network is large enough to keep it busy, by the sources of docs/gpu.md.

    Args:
        characters: number in the training part.
        minutes: training time on a machine of usual speed.
        gpu: whether it is a GPU.
    """
    if characters < _TINY_TEXT:
        return 1, 128
    if gpu:
        return 2, 1024 if characters >= _LARGE_TEXT and minutes >= 160 else 512
    if minutes < 0.5:
        return 1, _units(512 * math.sqrt(minutes), 384)
    return 2, 512 if minutes >= 16 else _units(340 * math.sqrt(minutes), 448)


def _units(wanted: float, most: int) -> int:
    return min(most, max(128, 64 * round(wanted / 64)))


def dropout_for(characters: int, passes: float) -> float:
    """The dropout that keeps a network from memorising a text: higher for more passes and for shorter texts.

    Args:
        characters: number in the training part.
        passes: number of passes over it in the whole training.
    """
    return round(min(0.6, max(0.0, 0.13 * math.log2(max(1, passes) * math.sqrt(1e6 / characters)) - 0.2)), 2)


def learning_rate_for(layers: int, units: int) -> float:
    """The highest learning rate of the schedule; narrower and shallower networks get a higher one."""
    return round((1 if layers == 1 else 0.8) * min(0.01, 0.1 / math.sqrt(units)), 4)


def fine_tuning_share(characters: int, passes: float) -> float:
    """The share of the usual learning rate for a run from a model that can already read such a text.

    Args:
        characters: number in the training part.
        passes: number of passes over it in the whole training.
    """
    return 0.6 * min(1.0, math.sqrt(math.sqrt(characters / 1e6))) / math.sqrt(max(1.0, passes))


def can_read_at(surprise: float | None) -> bool:
    """Whether a model that expects a text at so many nats per character can already read it; None stands for none."""
    return surprise is not None and surprise < _MOST_NATS


def most_passes_for(characters: int) -> float:
    """The number of passes after which a model that could already read such a text begins to learn it by heart.

    Args:
        characters: number in the training part.
    """
    return max(2.0, 3 * math.sqrt(characters / 1e6))


def usual_minutes(characters: int, given: Mapping[str, Any], speed: float) -> float:
    """The training time of a run, converted to minutes on a machine of usual speed.

    Args:
        characters: number in the training part.
        given: the given options, by their names in `Settings`.
        speed: speed of the machine, from `machine_speed`.
    """
    if given.get("epochs"):
        return float(given["epochs"] * characters / usual_speed(2, 320) / 60)
    return float(speed * (given.get("minutes") or minutes_worth_waiting(characters)))


def default_settings(
    characters: int, given: Mapping[str, Any], speed: float = 1.0, surprise: float | None = None, gpu: bool = False
) -> Settings:
    """Complete the given options with defaults that fit the text and the time.

    Args:
        characters: number in the training part.
        given: the given options, by their names in `Settings`.
        speed: speed of the machine, from `machine_speed`.
        surprise: of the model that the run starts from, before any training, nats per character; None from nothing.
        gpu: whether the run is on a GPU.

    Raises:
        CharrnnError: the text is too short for the batch size and sequence length.
    """
    batch_size, seq_length = given.get("batch_size"), given.get("seq_length")
    if batch_size is None:
        batch_size = _STREAMS_ON_GPU if gpu else _STREAMS
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
            f"the text is too short: training in {plural(batch_size, 'stream')} of {seq_length}-character windows "
            f"needs at least {plural(minimum, 'character')}"
            + ("; lower --batch-size or --seq-length" if {"batch_size", "seq_length"} & given.keys() else "")
        )
    minutes = usual_minutes(characters, given, speed)
    layers, units = network_for(characters, minutes, gpu)
    layers, units = given.get("layers", layers), given.get("units", units)
    seconds = _UPDATING * max(0, 60 * minutes - _SETTING_UP)
    passes = given.get("epochs") or seconds * usual_speed(layers, units, batch_size) / characters
    can_read = can_read_at(surprise)
    if can_read and not given.get("epochs"):
        passes = min(passes, most_passes_for(characters))
    dropout = dropout_for(characters, passes)
    learning_rate = learning_rate_for(layers, units)
    if surprise is not None:  # a model that was trained with little dropout suffers from much
        dropout = round(_DROPOUT_SHARE * dropout, 2)
    if can_read:
        learning_rate = float(f"{fine_tuning_share(characters, passes) * learning_rate:.2g}")
    settings = {
        "vocabulary": None,
        "encoding": "utf-8",
        "errors": "strict",
        "embedding": 64,
        "units": units,
        "layers": layers,
        "cell": "lstm" if gpu else "coupled",  # cuDNN has no coupled LSTM
        "dropout": dropout,
        "learning_rate": learning_rate,
        "epochs": None,
        "minutes": None,
        "seed": 1,
        "precision": "auto",
        "init_from": None,
        "source": None,
        "split_at": None,
        **given,
        "batch_size": batch_size,
        "seq_length": seq_length,
    }
    return Settings(**settings)
