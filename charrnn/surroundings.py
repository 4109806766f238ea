"""The user's environment: the folder of runs, and settings of libraries that must not change what charrnn does.

docs/reliability.md lists the variables and files, whether charrnn honours them, and the test for each.
"""

from __future__ import annotations

import logging
import os
import signal

DEFAULT_FOLDER = "checkpoints"
FOLDER_VARIABLE = "CHARRNN_CHECKPOINTS_DIR"
HANG_UP: int | None = getattr(signal, "SIGHUP", None)  # Windows has none

_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_OF_NUMPY = ("NPY_", "NUMPY_", "OPENBLAS_VERBOSE")

_OF_OTHERS = ("TF_", "XLA_", "ONEDNN_", "DNNL_", "PROTOCOL_BUFFERS_", "KERAS_", "SOURCE_DATE_EPOCH")
_HONOURED = (
    *("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS", "TF_CONFIG", "TF_FORCE_GPU_ALLOW_GROWTH"),
    *("TF_GPU_", "TF_CUDNN_", "TF_CUDA_"),
)
_SET = {
    "KERAS_BACKEND": "tensorflow",
    "KERAS_HOME": os.devnull,  # no keras.json: charrnn computes in float32
    "MATPLOTLIBRC": os.devnull,  # no matplotlibrc: plots have charrnn's own style
    "MPLBACKEND": "agg",  # a notebook sets one that only its own environment has
}


def prepare_for_the_command() -> None:
    """Set the environment for the command: one thread for NumPy's products, unless the user has set a number.

    The products in sampling are too small to gain much from several threads. If another program occupies one of the
    cores, several threads are tens of times slower than one.
    """
    _forget(_OF_NUMPY)
    shell, _, wish = os.environ.get("_CHARRNN_COMPLETE", "").partition("_")
    if shell not in ("bash", "zsh", "fish") or not (
        wish == "source" or (wish == "complete" and "COMP_WORDS" in os.environ)
    ):
        os.environ.pop("_CHARRNN_COMPLETE", None)  # not set by a shell; click would exit silently
    for variable in _THREADS:
        if not is_number(os.environ.get(variable, "")) or int(os.environ[variable]) == 0:
            os.environ[variable] = "1"


def prepare_for_training_and_pictures() -> None:
    """Set the environment before TensorFlow, Keras or matplotlib is imported."""
    _forget(_OF_OTHERS, _HONOURED)
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS", "") not in ("0", "1"):
        os.environ.pop("TF_ENABLE_ONEDNN_OPTS", None)
    os.environ.update(_SET)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # for example, that it has no folder for its cache


def stop_signals() -> list[int]:
    """The signals that ask a training to stop: SIGINT, SIGTERM and, unless nohup has it ignored, SIGHUP."""
    signals: list[int] = [signal.SIGINT, signal.SIGTERM]
    return signals if HANG_UP is None or signal.getsignal(HANG_UP) == signal.SIG_IGN else [*signals, HANG_UP]


def usual_folder() -> str:
    """The folder of runs, if the user names none."""
    return os.path.expanduser(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)


def is_number(value: str) -> bool:
    """Whether a variable's value is a whole number, 0 or more, as C programs read it."""
    return value.isascii() and value.isdecimal()


def _forget(prefixes: tuple[str, ...], but: tuple[str, ...] = ()) -> None:
    for variable in [*os.environ]:
        if variable.startswith(prefixes) and not (but and variable.startswith(but)):
            del os.environ[variable]
