"""Sampling speed of charrnn, of what else samples from the same weights, and the machine's limit, in one run.

    python -m pip install torch==2.13.0      # a peer, never a dependency
    python scripts/benchmark_sampling.py

Every contender lives in a process of its own; they are measured in turn, round after round, so that the
machine's moods meet all of them. A first round tries each contender's settings (threads, XLA, oneDNN) and keeps
the fastest for each shape, for one stream and for 64 at once. All have the same float32 weights and draw from
softmax(logits / 0.8). Prints a table of each shape, medians with least and most in brackets, and writes them
into docs/results.md.

The limit of one stream is the time to read the weights that a character needs, once: as fast as one core reads a
buffer of that size again and again.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click

SHAPES = ((2, 128), (1, 512), (2, 512), (3, 512))  # layers, units
MANY = 64
TEMPERATURE = 0.8

Sampler = Callable[[int], Any]
"""Writes so many characters of each stream."""


def charrnn_sampler(layers: int, units: int, streams: int) -> Sampler:
    """What `charrnn sample` runs."""
    from _machine import untrained

    from charrnn.network.network import Network
    from charrnn.sampling.choice import Choice
    from charrnn.sampling.samples import Request, write_samples

    model = untrained(layers, units)
    network = Network(model.config, model.weights)
    prime = model.vocabulary.encode("The ")

    def sample(length: int) -> None:
        request = Request(prime, length, Choice(TEMPERATURE))
        for one in write_samples(network, model.vocabulary, request, range(streams)):
            for _ in one.pieces():
                pass

    return sample


def predict_sampler(layers: int, units: int, streams: int, threads: int) -> Sampler:
    """The tutorials' loop: a stateful Keras model, one character of every stream a call of `predict`."""
    import numpy as np
    from _machine import untrained

    from charrnn.sampling.choice import Choice
    from charrnn.training.backend import keras, tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    model = untrained(layers, units)
    stock = keras.Sequential(
        [
            keras.layers.Embedding(model.config.vocabulary_size, model.config.embedding),
            *(keras.layers.LSTM(units, return_sequences=n < layers - 1, stateful=True) for n in range(layers)),
            keras.layers.Dense(model.config.vocabulary_size),
        ]
    )
    stock.build((streams, 1))
    stock.set_weights(list(model.weights.values()))
    random = np.random.default_rng(1)
    choice = Choice(TEMPERATURE)

    def sample(length: int) -> None:
        ids = np.zeros((streams, 1), np.int32)
        for _ in range(length):
            distribution = choice.weights(stock.predict(ids, batch_size=streams, verbose=0).astype(np.float64))
            distribution /= distribution.sum(axis=-1, keepdims=True)
            ids[:, 0] = (distribution.cumsum(1) > random.random((streams, 1))).argmax(1)

    return sample


def function_sampler(layers: int, units: int, streams: int, threads: int, xla: bool, whole: bool) -> Sampler:
    """TensorFlow's plain operations in a `tf.function`: a call for each character, or the whole loop in one."""
    from _machine import untrained

    from charrnn.training.backend import tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    weights = {name: tf.constant(weight) for name, weight in untrained(layers, units).weights.items()}
    kernels = [
        tf.concat([weights[f"layer{n}.kernel"], weights[f"layer{n}.recurrent_kernel"]], axis=0) for n in range(layers)
    ]
    state_of = [tf.TensorSpec((streams, units))] * (2 * layers)

    def step(ids: Any, seed: Any, state: list[Any]) -> tuple[Any, list[Any]]:
        x, new = tf.gather(weights["embedding"], ids), []
        for n, kernel in enumerate(kernels):
            h, c = state[2 * n : 2 * n + 2]
            z = tf.matmul(tf.concat([x, h], axis=1), kernel) + weights[f"layer{n}.bias"]
            i, f, g, o = tf.split(z, 4, axis=1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            x = tf.sigmoid(o) * tf.tanh(c)
            new += [x, c]
        logits = tf.matmul(x, weights["softmax.kernel"]) + weights["softmax.bias"]
        drawn = tf.random.stateless_categorical(logits / TEMPERATURE, 1, tf.stack([seed, 0]), tf.int32)
        return drawn[:, 0], new

    signature = (tf.TensorSpec((streams,), tf.int32), tf.TensorSpec((), tf.int32), state_of)
    zeros = [tf.zeros(spec.shape) for spec in state_of]
    first = tf.zeros((streams,), tf.int32)

    one = tf.function(step, input_signature=signature, jit_compile=xla)

    def sample_steps(length: int) -> None:
        ids, state = first, zeros
        for seed in range(length):
            ids, state = one(ids, tf.constant(seed), state)
            ids.numpy()

    most = 4096  # characters a call: XLA has to know the room that they need

    @tf.function(input_signature=(*signature, tf.TensorSpec((), tf.int32)), jit_compile=xla)
    def loop(ids: Any, seed: Any, state: list[Any], length: Any) -> tuple[Any, ...]:
        def body(t: Any, ids: Any, state: list[Any], found: Any) -> tuple[Any, ...]:
            ids, state = step(ids, seed + t, state)
            return t + 1, ids, state, found.write(t, ids)

        found = tf.TensorArray(tf.int32, most, element_shape=(streams,))
        _, ids, state, found = tf.while_loop(
            lambda t, *_: t < length, body, (0, ids, state, found), parallel_iterations=1
        )
        return ids, state, found.stack()

    def sample_whole(length: int) -> None:
        ids, state = first, zeros
        for start in range(0, length, most):
            count = min(most, length - start)
            ids, state, found = loop(ids, tf.constant(start), state, tf.constant(count))
            found[:count].numpy()

    return sample_whole if whole else sample_steps


def torch_sampler(layers: int, units: int, streams: int, threads: int, onednn: bool) -> Sampler:
    """PyTorch's nn.LSTM, one character of every stream a call."""
    import torch
    from _machine import untrained

    torch.set_num_threads(threads)
    model = untrained(layers, units)
    weights = {name: torch.from_numpy(weight) for name, weight in model.weights.items()}
    embedding = torch.nn.Embedding.from_pretrained(weights["embedding"])
    lstm = torch.nn.LSTM(model.config.embedding, units, layers)
    softmax = torch.nn.Linear(units, model.config.vocabulary_size)
    with torch.no_grad():
        for n in range(layers):
            getattr(lstm, f"weight_ih_l{n}").copy_(weights[f"layer{n}.kernel"].T)
            getattr(lstm, f"weight_hh_l{n}").copy_(weights[f"layer{n}.recurrent_kernel"].T)
            getattr(lstm, f"bias_ih_l{n}").copy_(weights[f"layer{n}.bias"])
            getattr(lstm, f"bias_hh_l{n}").zero_()
        softmax.weight.copy_(weights["softmax.kernel"].T)
        softmax.bias.copy_(weights["softmax.bias"])

    @torch.inference_mode()
    def sample(length: int) -> None:
        torch.backends.mkldnn.enabled = onednn
        ids = torch.zeros(1, streams, dtype=torch.long)
        state = (torch.zeros(layers, streams, units), torch.zeros(layers, streams, units))
        for _ in range(length):
            outputs, state = lstm(embedding(ids), state)
            ids = torch.multinomial(torch.softmax(softmax(outputs[0]) / TEMPERATURE, 1), 1).T
            ids.numpy()

    return sample


def limit_sampler(layers: int, units: int, streams: int, read: str) -> Sampler:
    """Read as many bytes as a character's weights have: sums of squares (OpenBLAS) or the greatest (NumPy)."""
    import numpy as np
    from _machine import untrained

    # The first layer's input projection is a row of a table, not a product.
    weights = [
        weight
        for name, weight in untrained(layers, units).weights.items()
        if name not in ("embedding", "layer0.kernel")
    ]
    room = np.ones(sum(weight.size for weight in weights) // 2 * 2, np.float32)
    read_room = {"dot": lambda: room.dot(room), "max": room.max, "integer max": room.view(np.int64).max}[read]

    def sample(length: int) -> None:
        for _ in range(length):
            read_room()

    return sample


THREADS = sorted({1, len(os.sched_getaffinity(0))})
WITH_XLA = [{"threads": threads, "xla": xla} for threads in THREADS for xla in (False, True)]
CONTENDERS: dict[str, tuple[Callable[..., Sampler], list[dict[str, Any]]]] = {
    "charrnn": (charrnn_sampler, [{}]),
    "`model.predict` loop": (predict_sampler, [{"threads": threads} for threads in THREADS]),
    "`tf.function` a step": (functools.partial(function_sampler, whole=False), WITH_XLA),
    "`tf.function`, whole loop": (functools.partial(function_sampler, whole=True), WITH_XLA),
    "PyTorch `nn.LSTM` loop": (
        torch_sampler,
        [{"threads": threads, "onednn": onednn} for threads in THREADS for onednn in (False, True)],
    ),
    "limit": (limit_sampler, [{"read": read} for read in ("dot", "max", "integer max")]),
}


@functools.lru_cache(maxsize=8)
def build(contender: str, setting: tuple[tuple[str, Any], ...], shape: tuple[int, int], streams: int) -> Sampler:
    """A contender's sampler, warmed up."""
    sample = CONTENDERS[contender][0](*shape, streams, **dict(setting))
    sample(2)
    return sample


def measure(contender: str, setting: dict[str, Any], shape: tuple[int, int], streams: int, seconds: float) -> float:
    """Characters per second of a contender, in this process."""
    sample = build(contender, tuple(setting.items()), shape, streams)
    length = 2
    while True:
        start = time.perf_counter()
        sample(length)
        passed = time.perf_counter() - start
        if passed >= seconds / 2:
            return length * streams / passed
        length = math.ceil(length * min(seconds / passed, 100))


class Processes:
    """A process for each contender and number of threads."""

    def __init__(self) -> None:
        self._pools: dict[tuple[str, int], ProcessPoolExecutor] = {}

    def measure(self, contender: str, setting: dict[str, Any], *arguments: Any) -> float:
        """As `measure`, in the contender's process."""
        key = contender, setting.get("threads", 1)
        if key not in self._pools:
            self._pools[key] = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
            self._pools[key].submit(os.getpid).result()  # it begins with this environment
        return self._pools[key].submit(measure, contender, setting, *arguments).result()


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True, help="Measurements of each contender.")
@click.option("--seconds", default=0.4, show_default=True, help="Of each measurement.")
def main(rounds: int, seconds: float) -> None:
    """Measure, print and write."""
    from _machine import RESULTS, machine, write_results

    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as the command has it
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # they slow OpenBLAS down on some machines
        os.environ.pop(name, None)
    processes = Processes()
    lines = [f"{machine()}; medians of {rounds}, least and most in brackets"]
    print(lines[0])
    for shape in SHAPES:
        speeds = measure_shape(processes, shape, rounds, seconds)
        lines += ["", *table(shape, speeds)]
        print("\n".join(lines[-len(CONTENDERS) - 3 :]), flush=True)
    write_results(RESULTS, Path(__file__).name, lines)


Speeds = dict[tuple[str, int], tuple[dict[str, Any], list[float]]]
"""Of each contender and number of streams its best setting and what was measured with it."""


def measure_shape(processes: Processes, shape: tuple[int, int], rounds: int, seconds: float) -> Speeds:
    """Find everyone's best setting, then measure everyone in turn."""
    found: Speeds = {}
    for contender, (_, settings) in CONTENDERS.items():
        for streams in (1,) if contender == "limit" else (1, MANY):
            tried = [processes.measure(contender, setting, shape, streams, seconds / 2) for setting in settings]
            found[contender, streams] = settings[tried.index(max(tried))], []
    for _ in range(rounds):
        for (contender, streams), (setting, speeds) in found.items():
            speeds.append(processes.measure(contender, setting, shape, streams, seconds))
    return found


def table(shape: tuple[int, int], speeds: Speeds) -> list[str]:
    """A shape's table in Markdown."""
    medians = {key: statistics.median(values) for key, (_, values) in speeds.items()}
    lines = [
        f"| {shape[0]}x{shape[1]} | one stream, chars/s | of the limit | charrnn is | setting "
        f"| {MANY} streams, chars/s | charrnn is | setting |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for contender in CONTENDERS:
        cells = []
        for key in ((contender, 1), (contender, MANY)):
            if key not in speeds:
                continue
            setting, values = speeds[key]
            cells.append(f"{medians[key]:,.0f} ({min(values):,.0f} to {max(values):,.0f})")
            if key[1] == 1:
                cells.append(f"{medians[key] / medians['limit', 1]:.0%}")
            times = medians["charrnn", key[1]] / medians[key]
            cells.append(f"{times:,.{0 if times >= 100 else 2}f} times")
            cells.append(", ".join(f"{name} {value}" for name, value in setting.items()))
        lines.append(f"| {contender} | {' | '.join(cells + [''] * (7 - len(cells)))} |")
    return lines


if __name__ == "__main__":
    main()
