"""Train a small transformer for so many minutes: what docs/diary/quality.md compares charrnn with.

    python -m pip install torch==2.13.0      # a peer, never a dependency
    python scripts/try_transformer.py tinyshakespeare.txt --minutes 10 --layers 6 --width 256 --dropout 0.2

It has rotary positions, a context of 256 characters, layers that normalise first, AdamW, a warm-up and a cosine,
bfloat16 where that is faster, and, as charrnn has, a moving average of its weights, which is scored. The number of
updates is what fits into the minutes after a trial; neither the trial nor validations count.
The text, its vocabulary and its last tenth, which it never trains on, are charrnn's. Prints the loss of that tenth
over windows of 256 of which the last 64 are scored, so that each has 192 characters or more before it.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path

import click
import numpy as np
import torch
from _peers import (
    Size,
    Transformer,
    Update,
    all_cores,
    faster,
    transformer_optimizer,
    transformer_rate,
    transformer_update,
    window_loss,
)
from torch import nn

from charrnn.text.corpus import read_corpus
from charrnn.text.reading import open_files

CONTEXT, LAST = 256, 64
AVERAGE_DECAY = 0.998  # charrnn's
SCORED = 2_000_000  # characters at most, in the end
ON_THE_WAY = 50_000  # and in what is printed before


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n"))
@click.argument("text")
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--layers", default=6, show_default=True)
@click.option("--width", default=256, show_default=True)
@click.option("--heads", default=4, show_default=True)
@click.option("--dropout", default=0.2, show_default=True)
@click.option("--batch-size", default=16, show_default=True)
@click.option("--rate", default=2e-3, show_default=True, help="The highest.")
@click.option("--seed", default=1, show_default=True)
@click.option("--updates", type=int, help="Instead of those that fit into the minutes.")
def main(
    text: str, minutes: float, layers: int, width: int, heads: int, dropout: float, batch_size: int, rate: float,
    seed: int, updates: int | None,
) -> None:  # fmt: skip
    """Train and print."""
    all_cores()
    corpus = read_corpus(open_files([text]))
    ids = torch.from_numpy(corpus.ids[:].astype(np.int64))
    size = Size(layers, heads, width, CONTEXT, is_rotary=True, dropout=dropout)
    iterations, losses = updates or 1_000_000, []

    def prepare(bfloat16: bool) -> tuple[nn.Module, Update]:
        torch.manual_seed(seed)
        model = Transformer(len(corpus.vocabulary), size)
        average = copy.deepcopy(model).eval()
        optimizer = transformer_optimizer(model, 0.99)
        averages, parameters = list(average.parameters()), list(model.parameters())

        def update(step: int) -> None:
            positions = torch.randint(corpus.training_characters - CONTEXT, (batch_size, 1)) + torch.arange(CONTEXT)
            step_rate = transformer_rate(step, iterations, rate, rate / 20)
            losses.append(transformer_update(model, optimizer, ids, positions, step_rate, bfloat16))
            with torch.no_grad():
                torch._foreach_lerp_(averages, parameters, 1 - min(AVERAGE_DECAY, (step + 1) / (step + 10)))

        return average, update

    bfloat16, seconds = faster(prepare)
    iterations = updates or int(60 * minutes / seconds)
    average, update = prepare(bfloat16)
    weights = sum(weight.numel() for weight in average.parameters())
    click.echo(
        f"{Path(text).name} {layers} x {width}, {weights:,} weights, dropout {dropout}, "
        f"batch {batch_size} x {CONTEXT}, rate {rate}, seed {seed}: {iterations:,} updates of {seconds * 1e3:.0f} ms "
        f"in {'bfloat16' if bfloat16 else 'float32'}, "
        f"{iterations * batch_size * CONTEXT / corpus.training_characters:.2f} passes"
    )
    losses.clear()
    trained = 0.0
    for step in range(iterations):
        begin = time.perf_counter()
        update(step)
        trained += time.perf_counter() - begin
        if 5 * (step + 1) // iterations > 5 * step // iterations:
            scored = SCORED if step + 1 == iterations else ON_THE_WAY
            loss = window_loss(average, ids, corpus.validation_start, CONTEXT, LAST, scored)
            click.echo(
                f"update {step + 1:,}  train {sum(losses) / len(losses):.4f}  val {loss:.4f}  {trained / 60:.1f} min"
            )
            losses.clear()


if __name__ == "__main__":
    main()
