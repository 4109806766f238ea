"""The sizes of a network, and what follows from them: the name and the shape of every weight."""

from __future__ import annotations

import math
from dataclasses import dataclass

from charrnn.network.cells import CELLS


@dataclass(frozen=True)
class NetworkConfig:
    """The sizes that the network's shapes follow from."""

    vocabulary_size: int  # V, the ids, the unknown symbol included
    embedding: int  # E, the width of a character's vector
    units: int  # H, of each recurrent layer
    layers: int  # L
    cell: str  # one of `cells.CELLS`


def weight_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight, as in Keras' layers, from input to output."""
    cell = CELLS[config.cell]
    gates = cell.GATES * config.units
    shapes: dict[str, tuple[int, ...]] = {"embedding": (config.vocabulary_size, config.embedding)}
    for layer in range(config.layers):
        below = config.embedding if layer == 0 else config.units
        shapes[f"layer{layer}.kernel"] = (below, gates)
        shapes[f"layer{layer}.recurrent_kernel"] = (config.units, gates)
        shapes[f"layer{layer}.bias"] = (2, gates) if cell.HAS_RECURRENT_BIAS else (gates,)
    shapes["softmax.kernel"] = (config.units, config.vocabulary_size)
    shapes["softmax.bias"] = (config.vocabulary_size,)
    return shapes


def count_weights(config: NetworkConfig) -> int:
    """How many numbers the network is made of."""
    return sum(map(math.prod, weight_shapes(config).values()))
