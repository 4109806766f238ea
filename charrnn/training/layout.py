"""How a run's arithmetic is laid out on the machine: the layer, its precision, the parts of a batch."""

from __future__ import annotations

from dataclasses import dataclass

from charrnn.runs.records import Progress, Settings
from charrnn.training.backend import Device, tf
from charrnn.training.cells import FAST_LAYERS


@dataclass(frozen=True)
class Layout:
    """How the arithmetic is laid out on the machine: it changes speed and rounding, nothing else."""

    fast: bool = False  # FastLSTM instead of stock Keras layers: for an LSTM on a CPU
    precision: str = "float32"  # of the operands of FastLSTM's matrix products: float32 or bfloat16
    parts: int = 1  # that the batch is split into, to be worked on side by side


STOCK = Layout()
"""Keras' own layers: for other cells than the LSTM, and on a GPU."""

_LEAST_ROWS = 8  # of the batch in a part: with fewer, reading the weights costs more than the products


def choose_layout(device: Device, settings: Settings, precision: str, decided: Progress | None) -> Layout:
    """Decide how a run's arithmetic is laid out, and give TensorFlow its threads for it.

    To be called before anything else is computed.

    Args:
        device: that the run is placed on.
        settings: of the run.
        precision: of a new run.
        decided: where a run that is continued stands, whose precision and parts are kept.
    """
    if device.gpu or settings.cell not in FAST_LAYERS:
        return Layout()
    parts = decided.parts if decided else min(device.cores, max(1, settings.batch_size // _LEAST_ROWS))
    tf.config.threading.set_inter_op_parallelism_threads(device.cores)
    tf.config.threading.set_intra_op_parallelism_threads(max(1, device.cores // parts))
    return Layout(True, decided.precision if decided else precision, parts)
