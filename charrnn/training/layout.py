"""The layout of a run's arithmetic on the machine: the layer, its precision, the parts of a batch."""

from __future__ import annotations

from dataclasses import dataclass

from charrnn.runs.records import Progress, Settings
from charrnn.training.backend import Device, tf
from charrnn.training.cells import FAST_LAYERS


@dataclass(frozen=True)
class Layout:
    """The layout of the arithmetic on the machine: it changes speed and rounding, nothing else."""

    fast: bool = False  # charrnn's own layer instead of Keras', for a cell that has one, on a CPU
    precision: str = "float32"  # of the operands of its matrix products: float32 or bfloat16
    parts: int = 1  # number of parts of the batch, computed in parallel
    at_once: int = 1  # number of updates between two looks at the losses, which wait for the device


STOCK = Layout()
"""Keras' own layers, for cells without a faster one and for a GPU."""

_AT_ONCE_ON_GPU = 16  # updates: Python prepares them while the GPU computes

_LEAST_ROWS = 8  # of the batch, in each part: with fewer, reading the weights costs more than the products


def choose_layout(
    device: Device, settings: Settings, precision: str, decided: Progress | None, workers: int = 1
) -> Layout:
    """Choose the layout of a run's arithmetic, and set TensorFlow's threads for it.

    Call this before TensorFlow computes anything.

    Args:
        device: device of the run.
        settings: settings of the run.
        precision: precision of a new run.
        decided: progress of a continued run, which keeps its precision, and its parts if it has as many threads;
            None for a new run.
        workers: number of processes that share the batch.
    """
    if decided:
        precision = decided.precision
    if device.gpu:
        return Layout(precision=precision, at_once=_AT_ONCE_ON_GPU)
    if settings.cell not in FAST_LAYERS:
        return Layout()
    parts = min(device.cores, max(1, settings.batch_size // workers // _LEAST_ROWS))
    if decided and decided.threads == device.cores:
        parts = decided.parts
    tf.config.threading.set_inter_op_parallelism_threads(device.cores)
    tf.config.threading.set_intra_op_parallelism_threads(max(1, device.cores // parts))
    return Layout(True, precision, parts)
