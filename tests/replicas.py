"""Train for 50 updates on logical CPUs, one replica on each, and save the losses and all that the updates changed.

    python tests/replicas.py TEXT DEVICES OUT LAYERS...

LAYERS are `stock`, Keras' own, or `fast` and a number of parts of the batch: fast1, fast2; with `-stopped`, another
trainer makes the second half of the updates from what the first one saved. OUT becomes OUT.LAYERS.npz.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

STREAMS, LENGTH = 12, 30
UPDATES = 50
GIVEN: dict[str, Any] = {
    "units": 24, "layers": 2, "embedding": 16, "dropout": 0.3, "batch_size": STREAMS, "seq_length": LENGTH,
    "epochs": 1, "seed": 3, "learning_rate": 0.005, "precision": "float32", "vocabulary": "ascii",
}  # fmt: skip


def train(text: str, cluster: Any, layer: str, stopped_at: int | None) -> dict[str, Any]:
    """The losses, and the tensors that a resume needs; after a stop, another trainer goes on."""
    from charrnn.planning.defaults import default_settings
    from charrnn.planning.schedule import learning_rate_at
    from charrnn.text.corpus import read_corpus
    from charrnn.text.reading import open_files
    from charrnn.training.layout import STOCK, Layout
    from charrnn.training.trainer import Trainer

    corpus = read_corpus(open_files([text]))
    settings = default_settings(corpus.training_characters, GIVEN)
    layout = STOCK if layer == "stock" else Layout(True, "float32", int(layer.removeprefix("fast")))
    rates = [learning_rate_at(step, UPDATES, settings.learning_rate) for step in range(UPDATES)]
    trainer = Trainer(settings, corpus, layout, cluster=cluster)
    losses, batches = [], trainer.batches(0)
    for step, rate in enumerate(rates):
        if step == stopped_at:
            last = trainer.weights(), trainer.training_tensors()
            trainer = Trainer(settings, corpus, layout, cluster=cluster)
            trainer.restore(step, *last)
            batches = trainer.batches(step)
        losses.append(trainer.update(step, rate, next(batches)))
    return {"losses": losses, "validation": trainer.validate(), **trainer.training_tensors()}


def main(text: str, devices: str, out: str, *layers: str) -> None:
    """Train once with each layer."""
    from charrnn.training.backend import tf
    from charrnn.training.cluster import Cluster

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(devices))
    names = [f"CPU:{number}" for number in range(int(devices))]
    cluster = Cluster(tf.distribute.MirroredStrategy(names) if len(names) > 1 else None)
    for layer in layers:
        kind, is_stopped, _ = layer.partition("-stopped")
        np.savez(f"{out}.{layer}.npz", **train(text, cluster, kind, UPDATES // 2 if is_stopped else None))


if __name__ == "__main__":
    main(*sys.argv[1:])
