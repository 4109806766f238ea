"""Sampling speed of charrnn beside a loop of `model.predict` on the same weights.

    python scripts/benchmark_sampling.py

Prints a Markdown table of characters per second: medians of 5 repeats, taken in turn after a warm-up. 64 samples
side by side are the command `charrnn sample --count 64` as a whole, its start included.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from _machine import machine, untrained

from charrnn.backend import keras
from charrnn.checkpoint import Checkpoint, to_bytes
from charrnn.network import Network
from charrnn.samples import BATCH_SIZE, Request, write_samples
from charrnn.sampling import Choice

CHOICE = Choice(0.8)


def charrnn_sampler(model: Checkpoint) -> Callable[[int], None]:
    """What `charrnn sample` runs."""
    network = Network(model.config, model.weights)
    prime = model.vocabulary.encode("The ")

    def sample(length: int) -> None:
        for one in write_samples(network, model.vocabulary, Request(prime, length, CHOICE), [1]):
            for _ in one.pieces():
                pass

    return sample


def command_sampler(model: Checkpoint, folder: str) -> Callable[[int], None]:
    """The command itself, in a process of its own."""
    path = Path(folder) / "model.safetensors"
    path.write_bytes(to_bytes(model))
    command = [Path(sys.executable).parent / "charrnn", "sample", "--checkpoint", path, "--count", str(BATCH_SIZE)]

    def sample(length: int) -> None:
        subprocess.run([*command, "--seed", "1", "--length", str(length)], check=True, capture_output=True)

    return sample


def predict_sampler(model: Checkpoint) -> Callable[[int], None]:
    """The tutorials' loop: a stateful Keras model, one character a call of `predict`."""
    config = model.config
    stock = keras.Sequential(
        [
            keras.layers.Embedding(config.vocabulary_size, config.embedding),
            *(
                keras.layers.LSTM(config.units, return_sequences=index < config.layers - 1, stateful=True)
                for index in range(config.layers)
            ),
            keras.layers.Dense(config.vocabulary_size),
        ]
    )
    stock.build((1, 1))
    stock.set_weights(list(model.weights.values()))
    random = np.random.default_rng(1)

    def sample(length: int) -> None:
        id = 0
        for _ in range(length):
            logits = stock.predict(np.array([[id]]), verbose=0)[0]
            id = int(random.choice(len(logits), p=CHOICE.distribution(logits)))

    return sample


@click.command(help=__doc__)
@click.option("--repeats", default=5, show_default=True)
def main(repeats: int) -> None:
    """Measure and print."""
    print(f"{machine()}; medians of {repeats}, least and most in brackets\n")
    print("| layers x units | charrnn, chars/s | --count 64, chars/s | `model.predict` loop, chars/s | times |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for layers, units in ((2, 128), (1, 512)):
            measure(layers, units, repeats, folder)


def measure(layers: int, units: int, repeats: int, folder: str) -> None:
    """Measure one network and print its row."""
    model = untrained(layers, units)
    samplers = [
        (charrnn_sampler(model), 5000, 1),
        (command_sampler(model, folder), 2000, BATCH_SIZE),
        (predict_sampler(model), 40, 1),
    ]
    speeds: list[list[float]] = [[] for _ in samplers]
    for repeat in range(repeats + 1):
        for speed, (sample, length, count) in zip(speeds, samplers, strict=True):
            start = time.perf_counter()
            sample(length)
            if repeat > 0:  # the first is the warm-up
                speed.append(count * length / (time.perf_counter() - start))
    one, _, theirs = (statistics.median(speed) for speed in speeds)
    cells = (f"{statistics.median(s):,.0f} ({min(s):,.0f} to {max(s):,.0f})" for s in speeds)
    print(f"| {layers}x{units} | {' | '.join(cells)} | {one / theirs:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
