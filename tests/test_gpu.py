"""What can be known of training on a GPU without one: which layers and kernels TensorFlow would use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_trainer import trainer_of

from charrnn.planning import machine
from charrnn.planning.defaults import default_settings
from charrnn.planning.machine import machine_class

NETWORK = {"units": 16, "embedding": 8, "layers": 2, "batch_size": 12, "seq_length": 20, "dropout": 0.3, "epochs": 1}


def operations_of_an_update(trainer: Any) -> list[Any]:
    """All operations of the graph of an update, as protocol buffers."""
    from charrnn.training.backend import tf

    batch = next(trainer.batches(0))
    values = trainer.cluster.distribute(12, (*batch, np.ones((12, 1), np.float32)))
    function = trainer._update.get_concrete_function(values, trainer.state, tf.constant([1, 0], tf.int64))
    graph = function.graph.as_graph_def()
    inner = {function.signature.name for function in graph.library.function}
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return [node for node in nodes if node.op not in inner]


def has_gpu_kernel(node: Any) -> bool:
    """Whether TensorFlow has a kernel for an operation, with its types, that runs on a GPU or beside any device."""
    from tensorflow.python.framework import kernels

    return any(
        kernel.device_type in ("GPU", "DEFAULT")
        and all(node.attr[limit.name].type in limit.allowed_values.list.type for limit in kernel.constraint)
        for kernel in kernels.get_registered_kernels_for_op(node.op).kernel
    )


@pytest.mark.parametrize(
    ("cell", "precision"), [("lstm", "float32"), ("lstm", "bfloat16"), ("gru", "float32"), ("rnn", "float32")]
)
def test_every_operation_of_an_update_has_a_gpu_kernel_and_lstms_and_grus_are_cudnns(
    trained: Path, monkeypatch: pytest.MonkeyPatch, cell: str, precision: str
) -> None:
    from charrnn.training.backend import Device, tf
    from charrnn.training.layout import STOCK, choose_layout

    if not tf.test.is_built_with_cuda():
        pytest.skip("this TensorFlow is built without CUDA")
    settings = trainer_of(trained, layout=STOCK, cell=cell, **NETWORK).settings
    # With a GPU, Keras decides by the layers' arguments alone.
    monkeypatch.setattr(sys.modules["keras.src.backend.tensorflow.rnn"], "_is_gpu_available", lambda: True)
    layout = choose_layout(Device("a GPU", True, 1), settings, precision, None)
    assert (layout.fast, layout.precision) == (False, precision)
    nodes = operations_of_an_update(trainer_of(trained, layout=layout, cell=cell, **NETWORK))
    names = {node.op for node in nodes}
    assert {"CudnnRNNV3", "CudnnRNNBackpropV3"} <= names or cell == "rnn"
    assert "ResourceApplyAdam" in names
    assert [node.op for node in nodes if not has_gpu_kernel(node)] == []


def test_an_operation_without_a_gpu_kernel_is_noticed() -> None:
    from charrnn.training.backend import tf

    graph = tf.Graph()
    with graph.as_default():
        tf.strings.length(["text"])
    assert not all(map(has_gpu_kernel, graph.as_graph_def().node))


def test_updates_whose_losses_are_read_together_are_the_same(trained: Path) -> None:
    one, other = (trainer_of(trained, **NETWORK) for _ in range(2))
    rates, batches = [0.001, 0.002, 0.003, 0.002], other.batches(0)
    expected = [other.update(step, rate, next(batches)) for step, rate in enumerate(rates)]
    assert one.updates(0, rates, one.batches(0)) == expected
    for name, tensor in other.training_tensors().items():
        np.testing.assert_array_equal(one.training_tensors()[name], tensor, err_msg=name)


def test_the_speed_is_measured_as_updates_are_made(trained: Path) -> None:
    from charrnn.training.layout import Layout

    found = []
    for at_once in (1, 16):
        trainer = trainer_of(trained, layout=Layout(at_once=at_once), **{**NETWORK, "epochs": None, "minutes": 1.0})
        losses, _ = trainer.begin(2_000, patience=0.0)
        assert len(losses) == (4 if at_once == 1 else 32)
        found.append(losses[:4])
    assert found[0] == found[1]


def test_mixed_precision_is_keras_policy_and_keeps_weights_and_state_float32(trained: Path) -> None:
    from charrnn.training.backend import tf
    from charrnn.training.layout import Layout

    ids = np.random.default_rng(0).integers(0, 98, (3, 20), np.int32)
    logits = {}
    for precision in ("float32", "bfloat16"):
        model = trainer_of(trained, layout=Layout(precision=precision), cell="lstm", **NETWORK).model
        result, state = model(ids, model.zero_state(3))
        logits[precision] = np.array(result)
        assert {tensor.dtype for layer in state for tensor in layer} == {tf.float32}
        assert {weight.dtype for weight in model.weights} == {"float32"}
        assert result.dtype == tf.float32
    difference = np.abs(logits["bfloat16"] - logits["float32"]).max()
    assert 0 < difference < 0.01


def test_a_gpu_is_seen_if_cuda_is_installed_in_either_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, cache = tmp_path / "version", tmp_path / "ld.so.cache"
    monkeypatch.setattr(machine, "NVIDIA", driver)
    monkeypatch.setattr(machine, "LOADED", cache)
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    for variable in ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)
    driver.touch()
    assert machine_class() != "gpu"
    cache.write_bytes(b"libc.so.6\0libcudart.so.12\0")
    assert (machine_class(), machine_class("cpu") == "gpu") == ("gpu", False)
    cache.unlink()
    (tmp_path / "cuda").mkdir()
    (tmp_path / "cuda" / "libcudart.so.12").touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    assert machine_class() != "gpu"
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{tmp_path / 'cuda'}")
    assert machine_class() == "gpu"
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert machine_class() != "gpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert machine_class() == "gpu"
    driver.unlink()
    assert machine_class() != "gpu"


def test_a_gpu_gets_a_batch_and_a_network_that_fill_it() -> None:
    def chosen(characters: int, minutes: float) -> tuple[int, int, int]:
        settings = default_settings(characters, {"minutes": minutes, "vocabulary": "ascii"}, 10.0, gpu=True)
        assert settings.cell == "lstm"  # cuDNN has no coupled LSTM
        return settings.layers, settings.units, settings.batch_size

    assert chosen(1_000_000, 1) == (2, 512, 128)
    assert chosen(100_000_000, 60) == (2, 1024, 128)
    assert chosen(90_000, 1) == (2, 512, 32 // 2)  # a small text still gets updates enough
    assert chosen(20_000, 1)[:2] == (1, 128)
