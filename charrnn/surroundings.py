"""Keeps what the user configured of Keras and matplotlib from changing or breaking what charrnn does with them."""

from __future__ import annotations

import logging
import os

_SET = {
    "KERAS_BACKEND": "tensorflow",
    "KERAS_HOME": os.devnull,  # no keras.json: charrnn computes in float32
    "MATPLOTLIBRC": os.devnull,  # no matplotlibrc: a picture has charrnn's own style
    "MPLBACKEND": "agg",  # a notebook names one that only its own environment has
}


def ignore_configuration() -> None:
    """Set the environment that Keras and matplotlib are to be imported in.

    docs/reliability.md lists every variable and file, whether it is honoured, and the test that shows it.
    """
    for variable in [variable for variable in os.environ if variable.startswith("KERAS_")]:
        del os.environ[variable]
    os.environ.update(_SET)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # that it has no folder for its cache, say
