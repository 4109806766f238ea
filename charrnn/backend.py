"""TensorFlow and Keras, imported without their start-up chatter, and the device that is used.

Import both from here: the messages that TensorFlow's C++ parts write to the file descriptor during
import come before any logging setting counts.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from charrnn import CharrnnError


@contextlib.contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Keep what is written to file descriptor 2, and show it only if the block fails."""
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        stderr = os.dup(2)
    except OSError:  # closed: there is nothing to hold back
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
try:
    with _stderr_held_back():
        import keras
        import tensorflow as tf

        _GPUS = tf.config.list_physical_devices("GPU")
except ImportError as error:
    raise CharrnnError(
        f"TensorFlow or Keras cannot be imported ({error}); install them anew: "
        "python -m pip install --force-reinstall tensorflow keras"
    ) from error

__all__ = ["choose_device", "keras", "tf"]


def choose_device(wanted: str | None) -> str:
    """Place the work on a GPU when TensorFlow sees one, else on the CPU.

    Args:
        wanted: `cpu` or `gpu` to force it.

    Returns:
        What it is placed on, in words.

    Raises:
        CharrnnError: a GPU is wanted and there is none.
    """
    if wanted == "gpu" and not _GPUS:
        raise CharrnnError(
            "TensorFlow sees no GPU: on Linux with an NVIDIA card and its driver, "
            "pip install 'charrnn[cuda]' brings the CUDA libraries; or leave --device out to train on the CPU"
        )
    if wanted == "cpu" or not _GPUS:
        tf.config.set_visible_devices([], "GPU")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return f"the CPU ({cores} core{'' if cores == 1 else 's'})"
    for gpu in _GPUS:
        tf.config.experimental.set_memory_growth(gpu, True)
    details = tf.config.experimental.get_device_details(_GPUS[0])
    return f"the GPU ({details.get('device_name', _GPUS[0].name)})"
