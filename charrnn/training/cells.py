"""The recurrent layers in Keras: those of `network.cells.CELLS`, by the same names."""

from __future__ import annotations

from typing import Any

from charrnn.training.backend import keras
from charrnn.training.lstm import FastLSTM

_LAYERS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}
FAST_LAYERS = {"lstm": FastLSTM}
"""The same mathematics and weights, faster on a CPU."""


def stock_layer(cell: str, units: int) -> Any:
    """Keras' own layer, which uses cuDNN on a GPU: it is not unrolled and has no dropout within."""
    return _LAYERS[cell](units, return_sequences=True, return_state=True)
