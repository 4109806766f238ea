"""Cells of a network that keep track of something in a text.

They are single cells, as in "Visualizing and Understanding Recurrent Networks" (Karpathy, Johnson, Fei-Fei, 2015,
arXiv:1506.02078), but found by measurement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from charrnn.network.cells import CELLS, Array
from charrnn.network.config import NetworkConfig, embedding_deviation, weight_shapes
from charrnn.network.network import Network
from charrnn.page.features import FEATURES, Values

MOST_CHARACTERS = 100_000
MARGIN = 0.1  # by which a cell must beat the best one of an untrained network
_STREAMS, _WARM_UP = 32, 100  # in which a text is read, and characters that each of them reads first
_LEAST_EXAMPLES = 200  # of each kind of place, in each half of the text
_LEVELS = 256  # of a memory
_UNTRAINED = 3  # networks to compare with, since the best cell of one may be there by chance
_AT_ONCE = 64  # cells whose levels are counted together, to bound the memory

Levels = npt.NDArray[np.uint8]
"""The memory of each cell after each character, (cells, N): tanh, from 1 for -1 to 255 for 1."""


@dataclass(frozen=True)
class Found:
    """A cell that keeps track of a property.

    Attributes:
        feature: the property's name.
        layer, cell: the cell, counted from 1.
        measure: of what `figure` is: `balanced accuracy` or `r`.
        figure: how well the cell shows the property, on text that did not choose it.
    """

    feature: str
    layer: int
    cell: int
    measure: str
    figure: float


def find_neurons(network: Network, ids: npt.NDArray[np.integer], text: str) -> list[Found]:
    """For each property, the cell that shows it best, if no cell of three untrained networks does nearly as well.

    One half of the text chooses the cell, and for a property that holds or does not, a threshold. The other half
    gives the figure.

    Args:
        network: the model.
        ids: the text as the model reads it, (N,).
        text: the same, of as many characters.
    """
    levels = _levels(network, ids)
    untrained = [
        _levels(Network(network.config, untrained_weights(network.config, seed)), ids) for seed in range(_UNTRAINED)
    ]
    found = []
    for name, feature in FEATURES.items():
        values = feature(text)
        if not _can_be_measured(values):
            continue
        cell, figure = best_cell(levels, values)
        if figure >= max(best_cell(other, values)[1] for other in untrained) + MARGIN:
            layer, place = divmod(cell, network.config.units)
            measure = "balanced accuracy" if values.dtype == np.bool_ else "r"
            found.append(Found(name, layer + 1, place + 1, measure, figure))
    return sorted(found, key=lambda neuron: -neuron.figure)


def untrained_weights(config: NetworkConfig, seed: int = 0) -> dict[str, Array]:
    """Random weights as training starts with: Glorot's uniform kernels, orthogonal recurrent ones, forget biases 1."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in weight_shapes(config).items():
        if name.endswith("bias"):
            weight = np.zeros(shape)
            if (forget := CELLS[config.cell].FORGET) is not None and name.startswith("layer"):
                weight[forget * config.units : (forget + 1) * config.units] = 1
        elif name == "embedding":
            weight = random.normal(0, embedding_deviation(config), shape)
        elif name.endswith("recurrent_kernel"):
            weight = np.linalg.qr(random.normal(size=shape[::-1]))[0].T
        else:
            limit = math.sqrt(6 / sum(shape))
            weight = random.uniform(-limit, limit, shape)
        weights[name] = weight.astype(np.float32)
    return weights


def _levels(network: Network, ids: npt.NDArray[np.integer]) -> Levels:
    """Read a text in parallel streams, each from the zero state some characters before its part."""
    streams = max(1, min(_STREAMS, len(ids) // (2 * _WARM_UP)))
    length = -(-len(ids) // streams)
    padded = np.concatenate([np.repeat(ids[:1], _WARM_UP), ids, np.repeat(ids[-1:], streams * length - len(ids))])
    rows = np.stack([padded[n * length : (n + 1) * length + _WARM_UP] for n in range(streams)])
    state = network.zero_state(streams)
    pieces: list[list[Levels]] = [[] for _ in range(network.config.layers)]
    for start in range(0, rows.shape[1], _WARM_UP):
        memories: list[Array] = []
        _, state = network.forward(rows[:, start : start + _WARM_UP], state, memories)
        if start:  # the first piece warms up
            for layer, memory in zip(pieces, memories, strict=True):
                layer.append(np.rint(128 + 127 * np.tanh(memory)).astype(np.uint8))
    whole = [np.concatenate(layer) for layer in pieces]  # (length, H, B) each
    return np.concatenate([layer.transpose(1, 2, 0).reshape(layer.shape[1], -1) for layer in whole])[:, : len(ids)]


def _can_be_measured(values: Values) -> bool:
    """Whether both halves of a text have enough places of each kind, or different numbers."""
    halves = np.array_split(values, 2)
    if values.dtype == np.bool_:
        return all(_LEAST_EXAMPLES <= half.sum() <= len(half) - _LEAST_EXAMPLES for half in halves)
    return all(half.std() > 0 and np.count_nonzero(half) >= _LEAST_EXAMPLES for half in halves)


def best_cell(levels: Levels, values: Values) -> tuple[int, float]:
    """The cell that shows a property best on the first half of a text, and its figure on the second.

    Args:
        levels: the cells' memories, (cells, N).
        values: the property, (N,).

    Returns:
        The cell's number, and the balanced accuracy of a threshold, or the correlation for a property with numbers.
    """
    half = len(values) // 2
    if values.dtype == np.bool_:
        holds = values.astype(np.bool_)
        parts = [levels[start : start + _AT_ONCE, :half] for start in range(0, len(levels), _AT_ONCE)]
        curves = np.concatenate([_accuracies(part, holds[:half]) for part in parts])
        cell, threshold = divmod(int(np.abs(curves - 0.5).argmax()), _LEVELS)
        accuracy = float(_accuracies(levels[cell : cell + 1, half:], holds[half:])[0, threshold])
        return cell, accuracy if curves[cell, threshold] > 0.5 else 1 - accuracy
    correlations = _correlations(levels[:, :half], values[:half])
    cell = int(np.abs(correlations).argmax())
    figure = float(_correlations(levels[cell : cell + 1, half:], values[half:])[0])
    return cell, figure if correlations[cell] > 0 else -figure


def _accuracies(levels: Levels, holds: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The balanced accuracy of "above a level" as a sign that a property holds, (cells, levels)."""
    above = [_shares_above(levels[:, which]) for which in (holds, ~holds)]
    return np.asarray((above[0] + 1 - above[1]) / 2)


def _shares_above(levels: Levels) -> npt.NDArray[np.float64]:
    """The share of places at which each cell is above each level, (cells, levels)."""
    rows = np.arange(len(levels), dtype=np.int32)[:, None] * _LEVELS
    counts = np.bincount((rows + levels).reshape(-1), minlength=len(levels) * _LEVELS).reshape(-1, _LEVELS)
    return np.asarray(1 - counts.cumsum(axis=1) / levels.shape[1])


def _correlations(levels: Levels, values: Values) -> npt.NDArray[np.float64]:
    """Pearson's r of each cell's memory and the numbers, (cells,); 0 for a cell that never changes."""
    centred = (values - values.mean()).astype(np.float32)
    sums = [np.zeros(0)]
    for start in range(0, len(levels), _AT_ONCE):
        memory = levels[start : start + _AT_ONCE].astype(np.float32)
        memory -= memory.mean(axis=1, keepdims=True)
        size = np.sqrt(np.square(memory).sum(axis=1) * np.square(centred).sum())
        sums.append(np.divide(memory @ centred, size, out=np.zeros(len(memory)), where=size > 0))
    return np.concatenate(sums)
