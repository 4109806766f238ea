"""Updates and validation against stock Keras and the NumPy network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from charrnn.network.network import Network
from charrnn.network.scoring import score_text
from charrnn.planning.defaults import default_settings
from charrnn.planning.schedule import learning_rate_at
from charrnn.runs import checkpoint
from charrnn.runs.folder import Run
from charrnn.runs.records import Checkpoint
from charrnn.text.corpus import read_corpus
from charrnn.text.reading import open_files
from charrnn.text.windows import validation_streams

if TYPE_CHECKING:
    from charrnn.training.layout import Layout
    from charrnn.training.trainer import Streams, Trainer


def trainer_of(folder: Path, precision: str = "float32", layout: Layout | None = None, **given: Any) -> Trainer:
    """A trainer, by default with the layout that `charrnn train` has on a CPU."""
    from charrnn.training.layout import Layout
    from charrnn.training.trainer import Trainer

    corpus = read_corpus(open_files([str(folder / "small.txt")]))
    settings = default_settings(corpus.training_characters, {"vocabulary": "ascii", **given})
    return Trainer(settings, corpus, layout or Layout(True, precision, parts=2))


def loss_by_numpy(best: Checkpoint, streams: Streams) -> float:
    """An independent reference: each stream read by the NumPy network from its warm-up on."""
    inputs, targets, weights = streams
    network = Network(best.config, best.weights)
    logits, _ = network.forward(inputs, network.zero_state(len(inputs)))
    scores = logits.astype(np.float64)
    log_sum = np.log(np.exp(scores).sum(axis=-1))
    losses = log_sum - np.take_along_axis(scores, targets[..., None], axis=-1)[..., 0]
    return float((losses * weights).sum() / weights.sum())


def test_validation_in_streams_is_the_numpy_networks_loss(trained: Path) -> None:
    trainer = trainer_of(trained, epochs=1, units=32, layers=1, embedding=16)
    best = checkpoint.load(Run(trained / "checkpoints" / "small").best)
    trainer.restore(0, best.weights, trainer.training_tensors())
    assert trainer.validate() == pytest.approx(loss_by_numpy(best, trainer.validation), abs=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("characters", [20_000, 30_000])  # of 30,000
def test_the_final_loss_of_a_large_text_is_the_numpy_networks_in_streams(
    trained: Path, tmp_path: Path, tales: str, precision: str, characters: int
) -> None:
    """In float32 whatever the updates compute in."""
    (tmp_path / "small.txt").write_text((tales * 16)[:300_000], encoding="utf-8")
    trainer = trainer_of(tmp_path, precision, epochs=1, units=32, layers=1, embedding=16)
    best = checkpoint.load(Run(trained / "checkpoints" / "small").best)
    told: list[int] = []
    average = trainer.weights()
    found = trainer.final_loss(best.weights, characters, told.append)
    assert all((weight == average[name]).all() for name, weight in trainer.weights().items())
    corpus = trainer.corpus
    streams = validation_streams(corpus.ids, corpus.validation_start, 64, limit=characters)
    assert sum(told) == streams[2].sum() == characters
    assert found == pytest.approx(loss_by_numpy(best, streams), abs=1e-5)
    pass_in_one = -score_text(Network(best.config, best.weights), corpus.ids[-30_256:], 256).mean()
    assert found == pytest.approx(pass_in_one, abs=0.02)


def test_an_update_is_stock_keras_on_the_same_batches(trained: Path) -> None:
    """Five updates with carried state, against stock layers with `stateful=True` and `train_on_batch`."""
    from charrnn.training.backend import keras
    from charrnn.training.trainer import AVERAGE_DECAY, CLIP_NORM, WEIGHT_DECAY

    trainer = trainer_of(
        trained, epochs=1, cell="lstm", units=24, embedding=8, layers=2, batch_size=4, seq_length=20, dropout=0.0
    )
    stock = keras.Sequential(
        [
            keras.layers.Embedding(98, 8),
            keras.layers.LSTM(24, return_sequences=True, stateful=True),
            keras.layers.LSTM(24, return_sequences=True, stateful=True),
            keras.layers.Dense(98),
        ]
    )
    stock.build((4, 20))
    stock.set_weights(list(trainer.model.to_numpy().values()))
    optimizer = keras.optimizers.AdamW(0.003, weight_decay=WEIGHT_DECAY, global_clipnorm=CLIP_NORM)
    optimizer.exclude_from_weight_decay(var_names=["bias", "embeddings"])
    stock.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    batches = trainer.batches(0)
    averages = stock.get_weights()
    for step in range(5):
        batch = next(batches)
        ours = trainer.update(step, 0.003, batch)
        theirs = stock.train_on_batch(*batch)
        assert ours == pytest.approx(float(theirs), abs=1e-5)
        decay = min(AVERAGE_DECAY, (1 + step) / (10 + step))
        averages = [
            decay * average + (1 - decay) * weight
            for average, weight in zip(averages, stock.get_weights(), strict=True)
        ]
    for ours, theirs in ((trainer.model.to_numpy(), stock.get_weights()), (trainer.weights(), averages)):
        for (name, weight), reference in zip(ours.items(), theirs, strict=True):
            np.testing.assert_allclose(weight, reference, rtol=0, atol=2e-4, err_msg=name)


def test_streams_start_anew_in_turn(trained: Path) -> None:
    from charrnn.training.trainer import FRESH_EVERY

    trainer = trainer_of(trained, epochs=1, units=16, embedding=8, batch_size=4, seq_length=20, dropout=0.0)
    batches = trainer.batches(1)
    weights = np.full((4, 20), 1 / 80, np.float32)
    for step in range(1, 3 * FRESH_EVERY + 1):
        batch = next(batches)
        keep = np.ones((4, 1), np.float32)
        if step % FRESH_EVERY == 0:
            keep[step // FRESH_EVERY] = 0
        state = [tuple(tensor * keep for tensor in layer) for layer in trainer.state]
        expected, _ = trainer.model.loss_sum(*batch, weights, state)
        assert trainer.update(step, 0.01, batch) == pytest.approx(float(expected), rel=1e-6)


def test_the_updates_that_the_speed_is_measured_with_are_those_of_any_run(trained: Path) -> None:
    begun, other = (trainer_of(trained, minutes=1.0, units=16, embedding=8) for _ in range(2))
    losses, speed = begun.begin(2_000, patience=0.1)
    assert min(speed.step, speed.validation, speed.final_pass) > 0
    assert len(losses) > 3
    batches = other.batches(0)
    rate = other.settings.learning_rate
    assert losses == [
        other.update(step, learning_rate_at(step, None, rate), next(batches)) for step in range(len(losses))
    ]
    expected = {**other.weights(), **other.training_tensors()}
    for name, tensor in {**begun.weights(), **begun.training_tensors()}.items():
        np.testing.assert_array_equal(tensor, expected[name], name)


def test_training_begins_with_the_frequencies_of_characters(trained: Path) -> None:
    """What the network says before its first update, whatever came before: no symbol that the text never has."""
    trainer = trainer_of(trained, epochs=1, units=16, embedding=8, dropout=0.0)
    vocabulary = trainer.corpus.vocabulary
    network = Network(trainer.model.config, trainer.model.to_numpy())
    logits, _ = network.forward(vocabulary.encode("The bell")[None], network.zero_state())
    probabilities = np.exp(logits[0].astype(np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    text = trainer.corpus.ids[: trainer.corpus.training_characters].tolist()
    for character in "e q\n":
        id = vocabulary.id_of(character)
        assert id is not None
        np.testing.assert_allclose(probabilities[:, id], text.count(id) / len(text), rtol=0.3)
    never = [id for id in range(len(vocabulary)) if id not in text]
    assert len(never) > 20
    assert (probabilities[:, never].sum(axis=1) < 1e-4).all()
