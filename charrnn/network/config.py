"""The sizes of a network, and the name and shape of every weight, which follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from charrnn.network.cells import CELLS


@dataclass(frozen=True)
class NetworkConfig:
    """The sizes that determine the shapes of a network's weights."""

    vocabulary_size: int  # V, the number of ids, including the unknown symbol
    embedding: int  # E, the width of a character's vector
    units: int  # H, the width of each recurrent layer
    layers: int  # L
    cell: str  # one of `cells.CELLS`


def weight_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight, as in Keras' layers, from input to output."""
    shapes: dict[str, tuple[int, ...]] = {"embedding": (config.vocabulary_size, config.embedding)}
    for layer in range(config.layers):
        below = config.embedding if layer == 0 else config.units
        for name, shape in CELLS[config.cell].weight_shapes(below, config.units).items():
            shapes[f"layer{layer}.{name}"] = shape
    shapes["softmax.kernel"] = (config.units, config.vocabulary_size)
    shapes["softmax.bias"] = (config.vocabulary_size,)
    return shapes


def embedding_deviation(config: NetworkConfig) -> float:
    """The standard deviation of an embedding's first values.

    With it, the first layer's projections of the characters, through its Glorot kernel, have variance 1. With Keras'
    0.05, hardly anything of a character reaches the gates until training has enlarged it.
    """
    return math.sqrt((config.embedding + CELLS[config.cell].GATES * config.units) / (2 * config.embedding))


def count_weights(config: NetworkConfig) -> int:
    """The total number of weights in the network."""
    return sum(map(math.prod, weight_shapes(config).values()))
