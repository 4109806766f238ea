"""Training speed and memory of charrnn, stock Keras and PyTorch, and the machine's limit, in one run.

    python -m pip install torch==2.13.0      # a peer, never a dependency
    python scripts/benchmark_training.py

Every contender runs in a process of its own, round after round in turn, so that the machine's moods meet
all of them. Each makes whole updates (forward, backward, clipping, Adam) with carried state on random
characters; "charrnn train" is the whole command on a text of such, at the speed that it reports, which is that
of its updates without validations and saving. Prints a table, medians with least and most in brackets, and
writes it into docs/results.md.

The limit is an update's matrix products and nothing else: of each layer and step of time one forwards and
one backwards, of each layer one for its weights' gradient, and the softmax layer's three; in parts of the
batch on a core each, in the faster of float32 and bfloat16, as charrnn lays them out.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from charrnn.runs.checkpoint import load
from charrnn.runs.folder import Run
from charrnn.text.vocabulary import PRINTABLE_ASCII

VOCABULARY, EMBEDDING = 98, 64
SHAPES = {  # layers, units: batch size, sequence length
    (2, 128): (50, 50),
    (1, 512): (64, 100),
    (2, 512): (64, 128),
    (3, 512): (64, 128),
}
CONTENDERS = (
    "charrnn, float32", "charrnn, auto", "charrnn train", "Keras fit", "PyTorch float32", "PyTorch bfloat16", "limit",
)  # fmt: skip


def peak_memory() -> float:
    """Of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(update: Callable[[], Any], characters: int, seconds: float) -> float:
    """Characters per second of updates, after two of warm-up."""
    update()
    update()
    done, start = 0, time.perf_counter()
    while done < 2 or time.perf_counter() - start < seconds:
        update()
        done += 1
    return done * characters / (time.perf_counter() - start)


def run_charrnn(
    layers: int, units: int, batch: int, length: int, precision: str, seconds: float, device: str = "cpu"
) -> dict[str, Any]:
    """Charrnn's own update, laid out as `charrnn train` lays it out."""
    import numpy as np

    from charrnn.planning.defaults import default_settings, precision_for
    from charrnn.planning.machine import machine_class
    from charrnn.text.corpus import Corpus, training_size
    from charrnn.text.vocabulary import Vocabulary
    from charrnn.training.backend import choose_device
    from charrnn.training.layout import choose_layout

    before = peak_memory()
    ids = np.random.default_rng(0).integers(0, VOCABULARY - 1, 400_000).astype(np.uint8)
    start = training_size(len(ids))
    counts = np.bincount(ids[:start], minlength=len(Vocabulary.ascii()))
    corpus = Corpus(ids, Vocabulary.ascii(), "", start, counts)
    settings = default_settings(
        corpus.training_characters,
        {
            "vocabulary": "ascii", "layers": layers, "units": units, "embedding": EMBEDDING, "batch_size": batch,
            "seq_length": length, "dropout": 0.0, "precision": precision, "epochs": 1, "cell": "lstm",
        },
    )  # fmt: skip
    if precision == "auto":
        precision = precision_for(machine_class(device), units)
    layout = choose_layout(choose_device(device), settings, precision, None)
    from charrnn.training.trainer import Trainer

    trainer = Trainer(settings, corpus, layout)
    batches = trainer.batches(0)
    rates = [0.001] * layout.at_once
    speed = measure(lambda: trainer.updates(1, rates, batches), len(rates) * batch * length, seconds)
    return {"speed": speed, "memory": peak_memory() - before, "detail": f"{layout.precision}, {layout.parts} parts"}


def run_command(layers: int, units: int, batch: int, length: int, seconds: float) -> dict[str, Any]:
    """The whole `charrnn train`, validations and saving apart: the speed that it reports."""
    shape = ("--layers", layers, "--units", units, "--embedding", EMBEDDING, "--batch-size", batch)
    options = (*shape, "--seq-length", length, "--dropout", 0, "--minutes", max(0.2, seconds / 30))
    options = (*options, "--cell", "lstm", "--checkpoints-dir", "checkpoints")
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "text.txt")
        text.write_text("".join(random.Random(0).choices(PRINTABLE_ASCII, k=400_000)))
        command = [sys.executable, "-m", "charrnn", "train", text.name, *map(str, options)]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        run = Run(Path(folder, "checkpoints", "text"))
        reports = run.read_history()
        progress = load(run.last).progress
    # Each row's speed is over the updates since the row before it.
    steps = [after.step - before.step for before, after in itertools.pairwise(reports)]
    taken = sum(count / report.chars_per_second for count, report in zip(steps, reports[1:], strict=True))
    speed = sum(steps) / taken if steps else reports[-1].chars_per_second
    return {"speed": speed, "memory": None, "detail": f"{progress.precision}, {progress.parts} parts"}


def run_keras(layers: int, units: int, batch: int, length: int, seconds: float) -> dict[str, Any]:
    """Stock Keras at its best: `fit` on whole epochs of prepared windows, stateful layers, no metrics."""
    import numpy as np

    from charrnn.training.backend import keras

    before = peak_memory()
    model = keras.Sequential(
        [
            keras.layers.Input((length,), batch_size=batch),
            keras.layers.Embedding(VOCABULARY, EMBEDDING),
            *(keras.layers.LSTM(units, return_sequences=True, stateful=True) for _ in range(layers)),
            keras.layers.Dense(VOCABULARY),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.001, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    steps = max(4, 40_000 // (batch * length))
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (steps * batch, length + 1)).astype(np.int32)

    def epoch() -> None:
        model.fit(ids[:, :-1], ids[:, 1:], batch_size=batch, shuffle=False, verbose=0)

    speed = measure(epoch, steps * batch * length, seconds)
    return {"speed": speed, "memory": peak_memory() - before, "detail": ""}


def run_torch(
    layers: int, units: int, batch: int, length: int, bfloat16: bool, seconds: float, device: str = "cpu"
) -> dict[str, Any]:
    """PyTorch's nn.LSTM on all cores or a GPU, time-major (its faster layout), with or without bfloat16 autocast."""
    import torch
    from _peers import has_bfloat16

    before = peak_memory()
    if bfloat16 and device == "cpu" and not has_bfloat16():
        return {"speed": None}
    place = "cuda" if device == "gpu" else device
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(VOCABULARY, EMBEDDING).to(place)
    lstm = torch.nn.LSTM(EMBEDDING, units, layers).to(place)
    softmax = torch.nn.Linear(units, VOCABULARY).to(place)
    parameters = [*embedding.parameters(), *lstm.parameters(), *softmax.parameters()]
    optimizer = torch.optim.Adam(parameters, 0.001, fused=True)
    ids = torch.randint(VOCABULARY, (length + 1, batch)).to(place)
    state = tuple(torch.zeros(layers, batch, units, device=place) for _ in range(2))

    def update() -> None:
        nonlocal state
        with torch.autocast(place, torch.bfloat16, enabled=bfloat16):
            outputs, new_state = lstm(embedding(ids[:-1]), state)
            logits = softmax(outputs)
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        state = tuple(part.detach().float() for part in new_state)

    at_once = 16 if device == "gpu" else 1  # updates, after which the program waits for a GPU, as charrnn does

    def updates() -> None:
        for _ in range(at_once):
            update()
        if device == "gpu":
            torch.cuda.synchronize()

    speed = measure(updates, at_once * batch * length, seconds)
    return {"speed": speed, "memory": peak_memory() - before, "detail": ""}


def run_limit(layers: int, units: int, batch: int, length: int, seconds: float) -> dict[str, Any]:
    """The matrix products of an update alone, in parts side by side, a thread each."""
    from charrnn.training.backend import choose_device, tf

    cores = choose_device("cpu").cores
    tf.config.threading.set_inter_op_parallelism_threads(cores)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    columns = batch // cores
    widths = [units] + [2 * units] * (layers - 1)  # of what a layer's kernels multiply; the first has a table
    results = []
    for dtype in (tf.float32, tf.bfloat16):

        def random(*shape: int, dtype: Any = dtype) -> Any:
            return tf.cast(tf.random.normal(shape, stddev=0.01), dtype)

        kernels = [(random(4 * units, width), random(width, 4 * units)) for width in widths]

        def loop(kernel: Any, other: Any) -> Any:
            """As many products as steps of time, each with what came from the one before."""
            rows, width = kernel.shape

            def body(t: Any, x: Any) -> Any:
                z = tf.matmul(kernel, x)
                return t + 1, z[:width] if rows >= width else tf.concat([z] * (width // rows), axis=0)

            return tf.while_loop(lambda t, _: t < length, body, (0, other), parallel_iterations=1)[1]

        @tf.function
        def update(parts: Any, kernels: Any = kernels, loop: Any = loop) -> list[Any]:
            found = []
            for columns_of, dz, inputs, outputs, softmax, d_logits in parts:
                for (forwards, backwards), x in zip(kernels, inputs, strict=True):
                    found += [loop(forwards, x[:, :columns_of]), loop(backwards, dz[:, :columns_of])]
                    found.append(tf.matmul(x, dz, transpose_b=True))
                found.append(tf.matmul(tf.cast(outputs, tf.float32), tf.cast(softmax, tf.float32), transpose_a=True))
                found.append(tf.matmul(softmax, d_logits, transpose_b=True))
                found.append(tf.matmul(outputs, d_logits))
            return found

        rows = length * columns
        parts = [
            (
                columns, random(4 * units, rows), [random(width, rows) for width in widths],
                random(units, rows), random(units, VOCABULARY), random(rows, VOCABULARY),
            )
            for _ in range(cores)
        ]  # fmt: skip
        speed = measure(lambda f=update, p=parts: f(p)[-1].numpy(), rows * cores, seconds / 2)
        flops = 6 * (sum(4 * units * width for width in widths) + units * VOCABULARY) * speed
        results.append((speed, f"{dtype.name}, {flops / 1e9:.0f} GFLOP/s"))
    best, detail = max(results)
    return {"speed": best, "memory": None, "detail": detail}


def run(contender: str, layers: int, units: int, seconds: float) -> dict[str, Any]:
    """Measure one contender at one shape, in this process."""
    shape = (layers, units, *SHAPES[layers, units])
    match contender:
        case "charrnn, float32":
            return run_charrnn(*shape, "float32", seconds)
        case "charrnn, auto":
            return run_charrnn(*shape, "auto", seconds)
        case "charrnn train":
            return run_command(*shape, seconds)
        case "Keras fit":
            return run_keras(*shape, seconds)
        case "PyTorch float32":
            return run_torch(*shape, False, seconds)
        case "PyTorch bfloat16":
            return run_torch(*shape, True, seconds)
        case _:
            return run_limit(*shape, seconds)


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True, help="Measurements of each contender.")
@click.option("--seconds", default=4.0, show_default=True, help="Of updates in each measurement.")
@click.option("--one", nargs=3, type=(str, int, int), hidden=True)  # contender, layers, units: in this process
def main(rounds: int, seconds: float, one: tuple[str, int, int] | None) -> None:
    """Measure, print and write."""
    if one is not None:
        print(json.dumps(run(*one, seconds)))
        return
    from _machine import RESULTS, machine, write_results

    lines = [
        f"{machine()}; medians of {rounds}, least and most in brackets",
        "",
        "| layers x units, B, T | contender | chars/s | of the limit | charrnn auto is | peak memory, MB | |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for (layers, units), (batch, length) in SHAPES.items():
        results: dict[str, list[dict[str, Any]]] = {contender: [] for contender in CONTENDERS}
        for _ in range(rounds):
            for contender, found in results.items():
                command = [sys.executable, __file__, "--seconds", str(seconds), "--one", contender]
                output = subprocess.run(
                    [*command, str(layers), str(units)], capture_output=True, text=True, check=False
                )
                if output.returncode:
                    raise click.ClickException(f"{contender}: {output.stderr[-2000:]}")
                found.append(json.loads(output.stdout.splitlines()[-1]))
        speeds = {name: [entry["speed"] for entry in found] for name, found in results.items()}
        medians = {name: statistics.median(values) for name, values in speeds.items() if None not in values}
        for name, values in speeds.items():
            if name not in medians:
                lines.append(f"| {layers}x{units}, {batch}, {length} | {name} | not on this processor | | | | |")
                print(lines[-1], flush=True)
                continue
            memory = [entry["memory"] for entry in results[name]]
            lines.append(
                f"| {layers}x{units}, {batch}, {length} | {name} "
                f"| {medians[name]:,.0f} ({min(values):,.0f} to {max(values):,.0f}) "
                f"| {medians[name] / medians['limit']:.0%} | {medians['charrnn, auto'] / medians[name]:.2f} times "
                f"| {'' if None in memory else f'{statistics.median(memory):,.0f}'} | {results[name][0]['detail']} |"
            )
            print(lines[-1], flush=True)
    write_results(RESULTS, Path(__file__).name, lines)


if __name__ == "__main__":
    main()
