"""The sizes of a network, and what follows from them: the name and the shape of every weight."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


GATES = {"lstm": 4, "gru": 3, "rnn": 1}


"""The cells, and how many blocks of H columns their kernels have: i, f, g, o; z, r, h; one."""


@dataclass(frozen=True)
class NetworkConfig:
    """The sizes that the network's shapes follow from."""

    vocabulary_size: int  # V, the ids, the unknown symbol included
    embedding: int  # E, the width of a character's vector
    units: int  # H, of each recurrent layer
    layers: int  # L
    cell: str  # lstm, gru or rnn


def weight_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight, as in Keras' layers, from input to output."""
    gates = GATES[config.cell] * config.units
    shapes: dict[str, tuple[int, ...]] = {"embedding": (config.vocabulary_size, config.embedding)}
    for layer in range(config.layers):
        below = config.embedding if layer == 0 else config.units
        shapes[f"layer{layer}.kernel"] = (below, gates)
        shapes[f"layer{layer}.recurrent_kernel"] = (config.units, gates)
        # Keras' GRU (reset_after, as cuDNN has it) keeps an input and a recurrent bias.
        shapes[f"layer{layer}.bias"] = (2, gates) if config.cell == "gru" else (gates,)
    shapes["softmax.kernel"] = (config.units, config.vocabulary_size)
    shapes["softmax.bias"] = (config.vocabulary_size,)
    return shapes


def count_weights(config: NetworkConfig) -> int:
    """How many numbers the network is made of."""
    return sum(map(math.prod, weight_shapes(config).values()))


def state_parts(cell: str) -> tuple[str, ...]:
    """The names of the tensors that make up one layer's state."""
    return ("h", "c") if cell == "lstm" else ("h",)
