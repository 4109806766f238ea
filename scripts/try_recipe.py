"""Train for so many updates with a recipe of your own: what the search in docs/diary/quality.md was made with.

    python scripts/try_recipe.py tinyshakespeare.txt layers=2 units=384 dropout=0.4 updates=9900

A recipe is NAME=VALUE, each with a default:

    updates                                     how many, 3000
    any setting of a run                        units, layers, embedding, dropout, batch_size, seq_length,
                                                learning_rate, seed, precision: as charrnn train has them
    weight_decay average_decay beta_2 clip      of AdamW, of the averaged weights, of the gradient's norm
    schedule last                               cosine, linear, or cooldown: constant up to the last fifth, then in a
                                                straight line; the last rate's share of the highest, 0.05
    grow                                        number of streams in the second half of the updates, if another
    masks                                       of dropout: step (one a character), sequence (one a window)
    weight_drop                                 share of the recurrent kernels dropped, one mask an update
    row_drop                                    share of the characters whose embedding is dropped, likewise
    residual layer_norm                         1: a layer above the first adds its input to its output (as those of
                                                the coupled LSTM always do); has its input normalised, without
                                                weights of its own
    pairs triples                               rows added to the embedding of a character: 1: one for each pair of it
                                                and the character before; N: one of N, by a hash of the last three
    start                                       a run or a checkpoint file to start from, or starter
    pull                                        towards the weights that it started from, as weight_decay is towards
                                                zero (L2-SP: Li et al., 2018)
    muon                                        1: orthogonal updates for the recurrent layers' kernels, each gate by
                                                itself (Jordan et al., 2024), as long as Adam's usually are

It runs on one core, so that two of them side by side do not meet; the batch is one part there, so a loss
differs from that of `charrnn train` by rounding and by its masks. Prints a line at each tenth, the loss of
the weights and of their average over the whole validation part in parallel streams, and at the end the
average's in one sequential pass and by nanoGPT's protocol: windows of 256 characters, each from the zero
state, the mean over all positions. With start, also those of means of the average and the weights that it started
from (Wortsman et al., 2022).
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from charrnn.network.cells import CELLS
from charrnn.planning.schedule import WARM_UP_STEPS

DEFAULTS: dict[str, Any] = {
    "updates": 3000, "weight_decay": 0.05, "average_decay": 0.998, "beta_2": 0.999, "clip": 1.0, "schedule": "cosine",
    "last": 0.05, "grow": 0, "masks": "step", "weight_drop": 0.0, "row_drop": 0.0, "residual": 0, "layer_norm": 0,
    "pairs": 0, "triples": 0, "muon": 0, "start": "", "pull": 0.0,
}  # fmt: skip
WINDOW = 256  # characters, of nanoGPT's protocol
_ROWS = ("pairs", "triples")
SETTINGS: dict[str, Any] = {
    "units": 256, "layers": 1, "embedding": 64, "dropout": 0.2, "batch_size": 32, "seq_length": 64,
    "learning_rate": 0.005, "seed": 1, "precision": "bfloat16", "cell": "coupled",
}  # fmt: skip


def parse(arguments: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipe and the settings out of NAME=VALUE, each of its default's type."""
    recipe, settings = dict(DEFAULTS), dict(SETTINGS)
    for argument in arguments:
        name, _, value = argument.partition("=")
        target = recipe if name in recipe else settings
        if name not in target:
            raise click.BadParameter(f"{argument}: not one of {', '.join([*DEFAULTS, *SETTINGS])}")
        try:
            target[name] = type(target[name])(value)
        except ValueError:
            raise click.BadParameter(f"{argument}: not a {type(target[name]).__name__}") from None
    return recipe, settings


def learning_rate_at(step: int, highest: float, recipe: dict[str, Any]) -> float:
    """As schedule.learning_rate_at, with another last rate, in a straight line or only at the end."""
    updates, last = recipe["updates"], recipe["last"]
    warm_up = min(WARM_UP_STEPS, updates // 10)
    if step < warm_up:
        return highest * (step + 1) / warm_up
    done = (step - warm_up) / (updates - warm_up)
    falls = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "cooldown": min(1.0, (1 - done) / 0.2)}
    fall = falls[recipe["schedule"]]
    return highest * (last + (1 - last) * fall)


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n"))
@click.argument("text")
@click.argument("recipe", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--core", type=int, default=0, show_default=True, help="To run on.")
def main(text: str, recipe: tuple[str, ...], core: int) -> None:
    """Train and print."""
    tried, given = parse(recipe)
    os.sched_setaffinity(0, {core})
    from charrnn.training import trainer as training
    from charrnn.training.backend import keras, tf

    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    from charrnn.planning.defaults import default_settings
    from charrnn.planning.warm_start import load_pretrained
    from charrnn.surroundings import usual_folder
    from charrnn.text.corpus import read_corpus
    from charrnn.text.reading import open_files
    from charrnn.text.windows import validation_streams
    from charrnn.training.layout import Layout
    from charrnn.training.lstm import arrange, logits_of, lstm_over_ids, lstm_over_vectors
    from charrnn.training.model import CharacterModel

    fold = tf.random.experimental.stateless_fold_in
    drop = tf.nn.experimental.stateless_dropout

    class Model(CharacterModel):
        """With what was tried and not kept."""

        update_seed: Any = None  # while an update is made

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            sizes = {"pairs": tried["pairs"] * self.config.vocabulary_size**2, "triples": tried["triples"]}
            for name in [name for name, rows in sizes.items() if rows]:
                zeros = np.zeros((sizes[name], self.config.embedding), np.float32)
                setattr(self, name, keras.Variable(zeros, name=f"{name}_embeddings"))

        @property
        def named_weights(self) -> dict[str, Any]:
            return super().named_weights | {name: getattr(self, name) for name in _ROWS if tried[name]}

        def zero_state(self, batch_size: int) -> Any:
            return [*super().zero_state(batch_size), (tf.zeros((batch_size, 2)),)]  # the last two ids

        def loss_sum(
            self, ids: Any, targets: Any, weights: Any, state: Any, dropout_seed: Any = None, *more: Any, **named: Any
        ) -> Any:
            self.update_seed = dropout_seed
            return super().loss_sum(ids, targets, weights, state, dropout_seed, *more, **named)

        def _arranged(self, exact: bool) -> list[Any]:
            rows = tf.convert_to_tensor(self.embedding.embeddings)
            if tried["row_drop"] and self.update_seed is not None:
                rows = drop(rows, tried["row_drop"], fold(self.update_seed, 77), noise_shape=(rows.shape[0], 1))
            arranged = []
            for index, layer in enumerate(self.recurrent):
                cell = layer.cell
                kernel, recurrent, bias = map(tf.convert_to_tensor, (cell.kernel, cell.recurrent_kernel, cell.bias))
                if tried["weight_drop"] and self.update_seed is not None:
                    recurrent = drop(recurrent, tried["weight_drop"], fold(self.update_seed, 100 + index))
                if index or any(tried[name] for name in _ROWS):
                    added, kernels = bias, [kernel, recurrent]
                else:
                    added, kernels = tf.matmul(rows, kernel) + bias, [recurrent]
                arranged.append(arrange(added, kernels, tf.float32 if exact else layer.operands))
            return arranged

        def _read(self, ids: Any, arranged: list[Any], state: Any, dropout_seed: Any, first: int = 0) -> Any:
            outputs, new_state = ids, []
            two, one, zero = (tf.concat([tf.cast(tf.transpose(state[-1][0]), tf.int32), ids], 0)[n:] for n in range(3))
            two, one = two[:-2], one[:-1]  # ids before those of `zero`
            if any(tried[name] for name in _ROWS):
                vectors = tf.gather(tf.convert_to_tensor(self.embedding.embeddings), ids)
                if tried["pairs"]:
                    vectors += tf.gather(tf.convert_to_tensor(self.pairs), one * self.config.vocabulary_size + zero)
                if tried["triples"]:
                    hashed = ((two * 40503 + one) * 50021 + zero) * 1000003 % tried["triples"]
                    vectors += tf.gather(tf.convert_to_tensor(self.triples), hashed)
                outputs = tf.cast(tf.transpose(vectors, (0, 2, 1)), arranged[0].left.dtype)
            for index, weights in enumerate(arranged):
                inputs = outputs  # (T, H, B)
                if tried["layer_norm"] and index > 0:
                    mean, variance = tf.nn.moments(inputs, axes=[1], keepdims=True)
                    inputs = (inputs - mean) * tf.math.rsqrt(variance + 1e-5)
                below, over = outputs, lstm_over_ids if outputs.dtype.is_integer else lstm_over_vectors
                outputs, *layer_state = over(inputs, weights, *state[index])
                if (tried["residual"] or CELLS[given["cell"]].RESIDUAL) and index > 0:
                    outputs += below
                new_state.append(tuple(layer_state))
                if self.dropout and dropout_seed is not None:
                    shape = None if tried["masks"] == "step" else (1, *outputs.shape[1:])
                    outputs = drop(outputs, self.dropout, fold(dropout_seed, index), noise_shape=shape)
            new_state.append((tf.cast(tf.transpose(tf.stack([one[-1], zero[-1]])), tf.float32),))
            return logits_of(outputs, *map(tf.convert_to_tensor, (self.softmax.kernel, self.softmax.bias))), new_state

    class Optimizer(training.FusedAdam):
        """With Muon for the recurrent layers' kernels: Newton and Schulz's iteration with Jordan's coefficients."""

        starts: list[Any] = []  # noqa: RUF012 - the weights that the pull is towards

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            if tried["pull"]:
                variable.assign_sub(
                    learning_rate * tried["pull"] * (variable - self.starts[self._get_variable_index(variable)])
                )
            gates = CELLS[given["cell"]].GATES
            if not tried["muon"] or variable.shape.rank != 2 or variable.shape[1] != gates * given["units"]:
                super().update_step(gradient, variable, learning_rate)
                return
            momentum = self._momentums[self._get_variable_index(variable)]
            momentum.assign(0.95 * momentum + gradient)
            rows, units = variable.shape[0], given["units"]
            matrices = tf.transpose(tf.reshape(gradient + 0.95 * momentum, (rows, gates, units)), (1, 0, 2))
            is_tall = rows > units
            x = tf.transpose(matrices, (0, 2, 1)) if is_tall else matrices
            x = tf.cast(x / (tf.norm(x, axis=(1, 2), keepdims=True) + 1e-7), tf.bfloat16)
            for _ in range(5):
                square = tf.matmul(x, x, transpose_b=True)
                x = 3.4445 * x + tf.matmul(-4.7750 * square + 2.0315 * tf.matmul(square, square), x)
            x = tf.transpose(x, (2, 0, 1)) if is_tall else tf.transpose(x, (1, 0, 2))
            step = tf.reshape(tf.cast(x, tf.float32), (rows, gates * units))
            variable.assign_sub(learning_rate * 0.2 * math.sqrt(max(rows, units)) * step)

    training.CharacterModel, training.FusedAdam = Model, Optimizer
    training.CLIP_NORM, training.WEIGHT_DECAY = tried["clip"], tried["weight_decay"]
    training.AVERAGE_DECAY = tried["average_decay"]
    corpus, source = read_corpus(open_files([text])), None
    if tried["start"]:
        source = load_pretrained(tried["start"], usual_folder())
        corpus = corpus.extended(source.model.vocabulary)
        for name in ("cell", "layers", "units", "embedding"):
            given[name] = getattr(source.model.settings, name)

    def trainer_of(streams: int) -> Any:
        run = {**given, "batch_size": streams, "epochs": 1, "vocabulary": corpus.vocabulary.kind}
        settings = default_settings(corpus.training_characters, run)
        made = training.Trainer(settings, corpus, Layout(True, given["precision"], 1), source)
        made.optimizer.beta_2 = tried["beta_2"]
        made.validation = validation_streams(corpus.ids, corpus.validation_start, settings.seq_length, limit=part)
        return made

    part = len(corpus.ids) - corpus.validation_start
    trainer = trainer_of(given["batch_size"])
    settings = trainer.settings
    Optimizer.starts = [tf.constant(weight.numpy()) for weight in trainer.model.trainable_variables]
    first = trainer.model.to_numpy()
    click.echo(f"{Path(text).name} {' '.join(recipe)}")
    batches, losses, began, place = trainer.batches(0), [], time.monotonic(), 0
    for step in range(tried["updates"]):
        if tried["grow"] and step == tried["updates"] // 2:
            grown = trainer_of(tried["grow"])
            grown.optimizer.iterations.assign(step)
            for old, new in (
                (trainer.average.named_weights, grown.average.named_weights),
                (trainer._variables(), grown._variables()),
            ):
                for name, variable in new.items():
                    variable.assign(old[name])
            place = place * trainer.characters_per_step // grown.characters_per_step
            trainer, batches = grown, grown.batches(place)
        losses.append(trainer.update(place, learning_rate_at(step, settings.learning_rate, tried), next(batches)))
        place += 1
        if 10 * (step + 1) // tried["updates"] > 10 * step // tried["updates"]:
            click.echo(
                f"update {step + 1:,}  epoch {place / trainer.steps_per_epoch:.2f}  "
                f"train {sum(losses) / len(losses):.4f}  val {trainer.validate():.4f}  "
                f"{(time.monotonic() - began) / 60:.1f} min"
            )
            losses = []
    last = trainer.average.to_numpy()
    for share in (0.25, 0.5, 0.75) if tried["start"] else ():
        trainer.average.from_numpy({name: share * last[name] + (1 - share) * first[name] for name in last})
        click.echo(f"with a share of {1 - share} of the first weights: val {trainer.validate():.4f}")
    trainer.average.from_numpy(last)
    # By the model itself: the NumPy network knows nothing of what is only tried.
    trainer.validation = validation_streams(
        corpus.ids, corpus.validation_start, settings.seq_length, limit=part, streams=1
    )
    one_pass = trainer.validate()
    starts = np.arange(corpus.validation_start, len(corpus.ids) - WINDOW, WINDOW)
    positions = starts[:, None] + np.arange(WINDOW)
    inputs, targets = (corpus.ids[:][positions + shift].astype(np.int32) for shift in (0, 1))
    trainer.validation = inputs, targets, np.ones(inputs.shape, np.float32)
    click.echo(f"one pass {one_pass:.4f}  nanoGPT's protocol {trainer.validate():.4f}")


if __name__ == "__main__":
    main()
