r"""Time to loss: how long charrnn and three others train on a text until they reach a validation loss.

    python -m pip install torch==2.13.0      # a peer, never a dependency
    python scripts/time_to_loss.py shakespeare.txt

One after the other, each in a process of its own with all cores:

\b
- charrnn as `charrnn train TEXT --minutes M` trains, and once more with a tenth of the minutes
- PyTorch's nn.LSTM with charrnn's recipe: sizes, first weights, batches, dropout, AdamW, schedule, averaged weights
- a transformer with nanoGPT's recipe for a CPU: 4 layers, 4 heads, 128 wide, context 64, batch 12, no dropout, 2,000
  iterations of AdamW, where it ends
- the tutorial listing's way: windows of 100 at stride 1, one target each, embedding 256, LSTM 512, `model.fit`

All have the same text, vocabulary, and last 10 % to validate on, of which they learn nothing. The clock counts
training alone, from the first update, with whatever is compiled in it; it stands still during validations, which
come after 1 second and then whenever the time is 1.1 times as long. Trials by which those in PyTorch choose between
float32 and bfloat16 do not count. A mark is reached at the first validation at or below it.

Every loss is in nats per character, over the whole validation part (of more than 200,000 characters a sample,
spread evenly), and each contender is scored in the way that suits it: the LSTMs in 32 streams with carried state,
each warmed up on the 256 characters before it; the transformer in windows of its context, either side by side from
nothing, as nanoGPT does it, or overlapping by half with only the last half scored, whichever is lower; the listing on
2,000 characters, spread evenly, each with the 100 before it.

Writes a table into docs/results.md, or beside the picture that --out names (.md), and the curves (.csv).
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
from _clock import Clock

from charrnn import CharrnnError
from charrnn.text.corpus import Corpus, read_corpus
from charrnn.text.reading import open_files
from charrnn.text.windows import validation_streams

MARKS = (1.88, 1.60, 1.50, 1.4697, 1.43)
SCORED = 200_000  # characters of a validation at most
WINDOW, LISTING_BATCH, LISTING_SCORED = 100, 64, 2000
PICTURE = Path(__file__).parent.parent / "docs" / "time_to_loss.png"
TRANSFORMER = "transformer, nanoGPT's recipe"
LIBRARIES = {
    "charrnn": "charrnn.training.trainer",
    "lstm": "torch",
    "transformer": "torch",
    "listing": "charrnn.training.backend",
}

Curve = list[dict[str, float]]
"""Validations of a contender in their order: `seconds`, `step`, `loss`."""


def train_charrnn(corpus: Corpus, minutes: float) -> None:
    """Train as `charrnn train --minutes` does, and print the losses."""
    from charrnn.planning.defaults import default_settings, machine_speed, precision_for
    from charrnn.planning.machine import machine_class, usable_cores
    from charrnn.planning.schedule import learning_rate_at, trial_seconds
    from charrnn.training.backend import choose_device
    from charrnn.training.layout import choose_layout
    from charrnn.training.trainer import Trainer

    given = {"vocabulary": corpus.vocabulary.kind, "minutes": minutes}
    machine = machine_class("cpu")
    settings = default_settings(corpus.training_characters, given, machine_speed(machine, usable_cores()))
    precision = precision_for(machine, settings.units)
    trainer = Trainer(settings, corpus, choose_layout(choose_device("cpu"), settings, precision, None))
    scored = validation_streams(corpus.ids, corpus.validation_start, settings.seq_length, limit=SCORED)
    updates, total_steps = trainer.updates, None

    def validate() -> float:
        planned_with, trainer.validation = trainer.validation, scored
        try:
            return trainer.validate()
        finally:
            trainer.validation = planned_with

    def timed_updates(step: int, *arguments: Any) -> list[float]:
        losses = updates(step, *arguments)
        for done in range(step + 1, step + 1 + len(losses)):
            clock.tick(last=done == total_steps)
        return losses

    trainer.updates = timed_updates  # type: ignore[method-assign]
    clock = Clock(validate)
    losses, speed = trainer.begin(1, trial_seconds(60 * minutes))  # the clock does without a final pass
    total_steps = len(losses) + speed.steps_within(
        60 * minutes - clock.seconds, trainer.characters_per_step, trainer.validation_characters
    )
    batches = trainer.batches(len(losses))
    for step in range(len(losses), total_steps):
        trainer.update(step, learning_rate_at(step, total_steps, settings.learning_rate), next(batches))
    assert clock.steps == total_steps


def train_listing(corpus: Corpus, minutes: float) -> None:
    """Train as the well-known tutorial listing does, as far as it gets in the time, and print the losses."""
    from charrnn.training.backend import keras

    ids = corpus.ids[:].astype(np.int32)
    training = ids[: corpus.validation_start]
    model = keras.Sequential(
        [
            keras.layers.Input((WINDOW,)),
            keras.layers.Embedding(len(corpus.vocabulary), 256),
            keras.layers.LSTM(512),
            keras.layers.Dense(len(corpus.vocabulary)),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))  # a rate of 0.001
    dataset = keras.utils.timeseries_dataset_from_array(
        training[:-WINDOW], training[WINDOW:], WINDOW, batch_size=LISTING_BATCH, shuffle=True, seed=1
    )
    positions = np.linspace(
        corpus.validation_start, len(ids) - 1, min(LISTING_SCORED, len(ids) - corpus.validation_start)
    ).astype(int)
    inputs = ids[positions[:, None] - np.arange(WINDOW, 0, -1)]

    class Ticks(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = not clock.tick()

    clock = Clock(lambda: float(model.evaluate(inputs, ids[positions], batch_size=500, verbose=0)), 60 * minutes)
    model.fit(dataset, epochs=1000, shuffle=False, verbose=0, callbacks=[Ticks()])  # the windows are shuffled already


def run(contender: str, corpus: Corpus, minutes: float) -> None:
    """Train one contender in this process: lines of JSON, first the seconds that its library takes to import."""
    start = time.perf_counter()
    importlib.import_module(LIBRARIES[contender])
    print(json.dumps({"import": time.perf_counter() - start}), flush=True)
    match contender:
        case "charrnn":
            train_charrnn(corpus, minutes)
        case "listing":
            train_listing(corpus, minutes)
        case _:
            import _peers

            train = _peers.train_lstm if contender == "lstm" else _peers.train_transformer
            train(corpus, minutes, SCORED)


def race(name: str, contender: str, text: str, minutes: float) -> tuple[float, Curve]:
    """Run a contender in a process of its own, and say on stderr how it goes.

    Returns:
        Seconds of import, and its validations.

    Raises:
        click.ClickException: it failed.
    """
    command = [sys.executable, __file__, text, "--minutes", repr(minutes), "--one", contender]
    curve: Curve = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        imported = json.loads(process.stdout.readline() or '{"import": 0}')["import"]
        for line in process.stdout:
            curve.append(json.loads(line))
            print(
                f"{name}: {curve[-1]['seconds']:.1f} s, step {curve[-1]['step']:,}, loss {curve[-1]['loss']:.4f}",
                file=sys.stderr,
            )
    if process.returncode:
        raise click.ClickException(f"{name}: failed; what it says is above")
    return imported, curve


def seconds_until(curve: Curve, mark: float) -> float | None:
    """Of training, until the first validation at or below a loss; None if there is none."""
    return next((point["seconds"] for point in curve if point["loss"] <= mark), None)


def table(curves: dict[str, Curve], imports: dict[str, float]) -> list[str]:
    """The lines of a Markdown table: minutes until each mark, and until the last update."""
    marks = " | ".join(f"{mark:.5g}" for mark in MARKS)
    lines = [
        f"| contender | import, s | {marks} | last loss | after, min | steps |",
        "|---" * (len(MARKS) + 5) + "|",
    ]
    for name, curve in curves.items():
        times = (seconds_until(curve, mark) for mark in MARKS)
        last = curve[-1]
        cells = [f"{imports[name]:.1f}"]
        cells += ["" if seconds is None else f"{seconds / 60:.2f}" for seconds in times]
        cells += [f"{last['loss']:.4f}", f"{last['seconds'] / 60:.2f}", f"{last['step']:,}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def comparison(curves: dict[str, Curve]) -> list[str]:
    """A paragraph: how much longer the transformer takes to the first mark than charrnn, where both reach it."""
    transformer = seconds_until(curves[TRANSFORMER], MARKS[0])
    found = [
        f"{transformer / seconds:.1f} times as long as {name}"
        for name, curve in curves.items()
        if name.startswith("charrnn") and transformer and (seconds := seconds_until(curve, MARKS[0]))
    ]
    return ["", f"Until {MARKS[0]:.2f} the transformer takes {' and '.join(found)}."] if found else []


@click.command(help=__doc__)
@click.argument("text", type=click.Path(exists=True, dir_okay=False))
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="Of each.")
@click.option("--out", type=click.Path(path_type=Path), default=PICTURE, show_default="docs/time_to_loss.png")
@click.option("--one", type=click.Choice(list(LIBRARIES)), hidden=True)  # in this process
def main(text: str, minutes: float, out: Path, one: str | None) -> None:
    """Train, print and write."""
    if one is not None:
        try:
            corpus = read_corpus(open_files([text]))
        except CharrnnError as error:
            raise click.ClickException(str(error)) from None
        run(one, corpus, minutes)
        return
    if importlib.util.find_spec("torch") is None:
        raise click.ClickException("PyTorch, one of the contenders, is missing: python -m pip install torch==2.13.0")
    from _loss_picture import draw
    from _machine import RESULTS, machine, write_results

    contenders = {
        f"charrnn, {minutes:g} min": ("charrnn", minutes),
        f"charrnn, {minutes / 10:g} min": ("charrnn", minutes / 10),
        "nn.LSTM, charrnn's recipe": ("lstm", minutes),
        TRANSFORMER: ("transformer", minutes),
        "the tutorial listing": ("listing", minutes),
    }
    curves: dict[str, Curve] = {}
    imports: dict[str, float] = {}
    for name, (contender, limit) in contenders.items():
        imports[name], curves[name] = race(name, contender, text, limit)

    lines = [
        f"`python scripts/time_to_loss.py {Path(text).name} --minutes {minutes:g}` on {machine()}, "
        f"TensorFlow {version('tensorflow')}, Keras {version('keras')}, PyTorch {version('torch')}.",
        "",
        *table(curves, imports),
        *comparison(curves),
    ]
    print("\n".join(lines))
    write_results(RESULTS if out == PICTURE else out.with_suffix(".md"), Path(__file__).name, lines)
    with open(out.with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["contender", "seconds", "step", "loss"])
        for name, curve in curves.items():
            writer.writerows([name, f"{p['seconds']:.2f}", p["step"], f"{p['loss']:.4f}"] for p in curve)
    draw(curves, MARKS, f"Time to loss: {Path(text).name}, {os.cpu_count()} cores", out)


if __name__ == "__main__":
    main()
