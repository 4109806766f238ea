"""How a run's arithmetic is laid out on the machine: the layer, its precision, the parts of a batch."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from charrnn.runs.records import Progress, Settings
from charrnn.training.backend import Device, tf


@dataclass(frozen=True)
class Layout:
    """How the arithmetic is laid out on the machine: it changes speed and rounding, nothing else."""

    fast: bool = False  # FastLSTM instead of stock Keras layers: for an LSTM on a CPU
    precision: str = "float32"  # of the operands of FastLSTM's matrix products: float32 or bfloat16
    parts: int = 1  # that the batch is split into, to be worked on side by side


STOCK = Layout()
"""Keras' own layers: for other cells than the LSTM, and on a GPU."""

_LEAST_ROWS = 8  # of the batch in a part: with fewer, reading the weights costs more than the products


def choose_layout(device: Device, settings: Settings, decided: Progress | None) -> Layout:
    """Decide how a run's arithmetic is laid out, and give TensorFlow its threads for it.

    To be called before anything else is computed.

    Args:
        device: that the run is placed on.
        settings: of the run.
        decided: where a run that is continued stands, whose precision and parts are kept.
    """
    if device.gpu or settings.cell != "lstm":
        return Layout()
    parts = decided.parts if decided else min(device.cores, max(1, settings.batch_size // _LEAST_ROWS))
    tf.config.threading.set_inter_op_parallelism_threads(device.cores)
    tf.config.threading.set_intra_op_parallelism_threads(max(1, device.cores // parts))
    if decided:
        precision = decided.precision
    elif settings.precision == "auto":
        precision = faster_precision(settings.batch_size // parts, settings.units)
    else:
        precision = settings.precision
    return Layout(True, precision, parts)


def faster_precision(rows: int, units: int) -> str:
    """Measure, in some milliseconds, whether bfloat16 operands pay: `float32` or `bfloat16`.

    Args:
        rows: of the batch in one part.
        units: H.
    """
    steps = {}
    for precision in ("float32", "bfloat16"):
        weights = tf.cast(tf.random.normal((4 * units, units)), precision)

        @tf.function(autograph=False)  # type: ignore[untyped-decorator]  # TensorFlow has no types
        def step(h: Any, weights: Any = weights, precision: str = precision) -> Any:
            for _ in range(10):
                z = tf.cast(tf.matmul(weights, tf.cast(h, precision)), tf.float32)
                h = z[:units] / (1 + tf.abs(z[units : 2 * units]))
            return h

        steps[precision] = step
    h, seconds = tf.random.normal((units, rows)), dict.fromkeys(steps, math.inf)
    for trial in range(16):  # in turn, so that the machine's moods meet both
        for precision, step in steps.items():
            start = time.perf_counter()
            step(h)
            if trial > 0:  # in the first it is traced
                seconds[precision] = min(seconds[precision], time.perf_counter() - start)
    return "bfloat16" if seconds["bfloat16"] < 0.9 * seconds["float32"] else "float32"
