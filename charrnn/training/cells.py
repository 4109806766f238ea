"""The recurrent layers in Keras, under their names in `network.cells.CELLS`."""

from __future__ import annotations

from typing import Any

from charrnn.training.backend import keras
from charrnn.training.lstm import CoupledLSTMCell, FastCoupledLSTM, FastLSTM


def _coupled(units: int, **options: Any) -> Any:
    return keras.layers.RNN(CoupledLSTMCell(units), **options)


_LAYERS = {"coupled": _coupled, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}
FAST_LAYERS: dict[str, Any] = {"coupled": FastCoupledLSTM, "lstm": FastLSTM}
"""Layers with the same mathematics and weights that are faster on a CPU."""


def stock_layer(cell: str, units: int) -> Any:
    """Keras' own layer, not unrolled and without inner dropout, so that it can use cuDNN on a GPU."""
    return _LAYERS[cell](units, return_sequences=True, return_state=True)
