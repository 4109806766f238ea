"""The recurrent layers in Keras, under their names in `network.cells.CELLS`."""

from __future__ import annotations

from typing import Any

from charrnn.training.backend import keras
from charrnn.training.lstm import CoupledLSTMCell, FastCoupledLSTM, FastLSTM


def _coupled(units: int, dtype: Any, **options: Any) -> Any:
    return keras.layers.RNN(CoupledLSTMCell(units, dtype=dtype), dtype=dtype, **options)


STOCK_LAYERS: dict[str, Any] = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}
"""Keras' own layers."""
FAST_LAYERS: dict[str, Any] = {"coupled": FastCoupledLSTM, "lstm": FastLSTM}
"""Layers with the same mathematics and weights that are faster on a CPU."""


def stock_layer(cell: str, units: int, precision: str = "float32") -> Any:
    """Keras' own layer or loop, not unrolled and without inner dropout, so that it can use cuDNN on a GPU.

    Its weights are float32. With `bfloat16` it computes by Keras' policy `mixed_bfloat16`.
    """
    policy = keras.DTypePolicy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    return STOCK_LAYERS.get(cell, _coupled)(units, return_sequences=True, return_state=True, dtype=policy)
