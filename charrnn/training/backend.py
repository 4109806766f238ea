"""TensorFlow and Keras, imported without their start-up messages, and the device for the work.

Import both from here: TensorFlow's C++ code writes messages to the file descriptor during the import, before any
logging setting applies.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from charrnn import CharrnnError
from charrnn.messages import plural
from charrnn.planning.machine import usable_cores
from charrnn.surroundings import is_number, prepare_for_training_and_pictures


@contextlib.contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Hold back what is written to file descriptor 2, and show it only if the block fails."""
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        stderr = os.dup(2)
    except OSError:  # closed: nothing to hold back
        yield
        return
    with _temporary_file() as held:
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


def _temporary_file() -> IO[bytes]:
    """A temporary file, or one that keeps nothing if no folder for temporary files is writable."""
    try:
        return tempfile.TemporaryFile()
    except OSError:
        tempfile.tempdir = os.curdir  # the import of TensorFlow asks for the folder's name, but writes nothing to it
        return open(os.devnull, "w+b")


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """Block imports of a module: Keras needs no matplotlib, which loads slowly and can fail if misconfigured."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # how Python marks a blocked module
    try:
        yield
    finally:
        del sys.modules[module]


prepare_for_training_and_pictures()
if not is_number(os.environ.get("TF_CPP_MIN_LOG_LEVEL", "")):
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # TensorFlow also raises what matters
if platform.machine().lower() in ("x86_64", "amd64"):
    # By itself, TensorFlow uses its faster CPU kernels only if there is AVX512_VNNI (docs/diary/speed.md, 22).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
try:
    with _stderr_held_back(), _without("matplotlib"):
        import keras
        import tensorflow as tf

        _GPUS = tf.config.list_physical_devices("GPU")
except ImportError as error:
    if "failed to map segment" in str(error):
        raise CharrnnError(
            "there is not enough memory to load TensorFlow, which needs about 2 GB of address space"
        ) from error
    lines = str(error).splitlines() or [""]
    cause = next((line for line in lines if "Error: " in line), lines[0])  # TensorFlow's own has a traceback
    raise CharrnnError(
        f"TensorFlow or Keras cannot be imported ({cause}); reinstall them: "
        "python -m pip install --force-reinstall tensorflow keras"
    ) from error

__all__ = ["Device", "arithmetic", "choose_device", "keras", "tf"]


@dataclass(frozen=True)
class Device:
    """The device that computes."""

    name: str  # for messages
    gpu: bool
    cores: int  # that this process may use


def choose_device(wanted: str | None, processes: int = 1) -> Device:
    """Use a GPU if TensorFlow finds one, otherwise the CPU.

    Args:
        wanted: `cpu` or `gpu` to force one of them.
        processes: number of processes that share the cores.

    Raises:
        CharrnnError: a GPU is wanted, but TensorFlow finds none.
    """
    if wanted == "gpu" and not _GPUS:
        raise CharrnnError(
            "TensorFlow finds no GPU: on Linux with an NVIDIA card and its driver, the extra charrnn[cuda] installs "
            "the CUDA libraries (python -m pip install '.[cuda]' in charrnn's folder); "
            "to train on the CPU, leave out --device"
        )
    cores = usable_cores(processes)
    if wanted == "cpu" or not _GPUS:
        tf.config.set_visible_devices([], "GPU")
        return Device(f"the CPU ({plural(cores, 'core')})", False, cores)
    for gpu in _GPUS:
        tf.config.experimental.set_memory_growth(gpu, True)
    details = tf.config.experimental.get_device_details(_GPUS[0])
    return Device(f"the GPU ({details.get('device_name', _GPUS[0].name)})", True, cores)


_PROCESSOR = {
    *("vendor_id", "cpu family", "model", "model name", "stepping", "cache size", "flags"),  # x86
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features"),  # ARM
}
"""Fields of /proc/cpuinfo that determine a processor's instructions and the order of its long sums."""


def arithmetic(device: Device, replicas: int) -> str:
    """A short digest of what, besides the number of threads, decides how results are rounded.

    It covers the processor, the libraries that compute, the setting that selects one of TensorFlow's two sets of CPU
    kernels, and the number of replicas.
    """
    parts = [platform.machine(), tf.__version__, keras.__version__, np.__version__]
    parts += [os.environ.get("TF_ENABLE_ONEDNN_OPTS", ""), device.name if device.gpu else "cpu"]
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
        parts += [line for line in first.splitlines() if line.partition(":")[0].strip() in _PROCESSOR]
    except OSError:  # not Linux
        parts.append(platform.processor())
    if replicas > 1:
        parts.append(f"{replicas} replicas")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
