"""The devices and processes that train one network together, by `tf.distribute`.

A replica is a device with a copy of the network, which reads some of the streams. A worker is a process with one or
more replicas.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from charrnn import CharrnnError
from charrnn.messages import Note
from charrnn.planning.workers import ALONE, LOST, Worker
from charrnn.surroundings import stop_signals
from charrnn.training.backend import Device, tf

_LONGEST = 1 << 14  # bytes that describe a worker's training


class Cluster:
    """All replicas of the network, on this worker's devices and on those of the others.

    Attributes:
        strategy: TensorFlow's strategy, which copies the variables and adds the gradients.
        worker: this process.
        replicas: the number of replicas on all workers.
    """

    def __init__(self, strategy: Any = None, worker: Worker = ALONE) -> None:
        """Take a strategy; by default TensorFlow's own for a single device."""
        self.strategy = tf.distribute.get_strategy() if strategy is None else strategy
        self.worker = worker
        self.replicas: int = self.strategy.num_replicas_in_sync
        self._here = self.replicas // worker.count
        self._joined = tf.function(self._gather_eagerly, autograph=False)
        self._total = tf.function(self._total_eagerly, autograph=False)

    def streams(self, batch_size: int, replica: int) -> range:
        """The streams of one replica."""
        return range(batch_size * replica // self.replicas, batch_size * (replica + 1) // self.replicas)

    def own_streams(self, batch_size: int) -> range:
        """The streams of this worker's replicas."""
        first = self.worker.index * self._here
        return range(self.streams(batch_size, first).start, self.streams(batch_size, first + self._here - 1).stop)

    def distribute(self, batch_size: int, arrays: Sequence[npt.NDArray[Any]]) -> Any:
        """Give each of this worker's replicas the rows of its streams, out of arrays that hold the worker's."""
        start = self.own_streams(batch_size).start

        def rows(context: Any) -> tuple[Any, ...]:
            own = self.streams(batch_size, context.replica_id_in_sync_group)
            return tuple(tf.constant(array[own.start - start : own.stop - start]) for array in arrays)

        return self.strategy.experimental_distribute_values_from_function(rows)

    def gather(self, state: Any) -> Any:
        """Join the rows of all streams, in their order, in each tensor of a state; every worker must call this."""
        return self._joined(state)

    def _gather_eagerly(self, state: Any) -> Any:
        return [tuple(self.strategy.gather(tensor, axis=0) for tensor in layer_state) for layer_state in state]

    def sum(self, values: Any) -> Any:
        """Add the values of all replicas; within a `tf.function`."""
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    def _total_eagerly(self, values: Any) -> Any:
        def add(values: Any) -> Any:
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(values))

        return self.strategy.experimental_local_results(self.strategy.run(add, (values,)))[0]

    def share(self, values: Sequence[float]) -> npt.NDArray[np.float64]:
        """Tell all workers some numbers, and learn theirs, one row a worker; every worker must call this."""
        if self.worker.count == 1:
            return np.array([values], np.float64)
        own = np.zeros((self.worker.count, len(values)))
        own[self.worker.index] = values
        total: npt.NDArray[np.float64] = self._total(tf.constant(own)).numpy() / self._here
        return total

    def agree(self, value: float) -> float:
        """The chief's value; every worker must call this."""
        return float(self.share([value])[0, 0])

    def refuse_differences(self, training: Mapping[str, Any]) -> None:
        """Check that all workers are about to do the same training; every worker must call this.

        Args:
            training: what must be the same, with names for messages.

        Raises:
            CharrnnError: some worker differs from the chief.
        """
        if self.worker.count == 1:
            return
        own = json.dumps(training, default=str).encode()[:_LONGEST]
        rows = self.share(list(own.ljust(_LONGEST))).astype(np.uint8)
        described = [json.loads(row.tobytes()) for row in rows]
        for index, other in enumerate(described):
            for name, value in described[0].items():
                if other.get(name) != value:
                    raise CharrnnError(
                        f"{self.worker.name(index)} differs from {self.worker.name(0)} in the {name} "
                        f"({other.get(name)}, not {value}): start every worker with the same text, options, versions "
                        "and checkpoints"
                    )


def connect(worker: Worker, device: Device, batch_size: int, note: Note) -> Cluster:
    """Meet the other workers and take this machine's GPUs, before TensorFlow computes anything.

    Args:
        worker: this process.
        device: its device.
        batch_size: number of streams, of which each GPU needs at least one.
        note: called before waiting for others.
    """
    if worker.count > 1:
        others = [worker.name(index) for index in range(worker.count) if index != worker.index]
        note(f"waiting for {', '.join(others)}")
        os.environ.setdefault("grpc_proxy", "")  # not through the user's proxy for the web
        with _default_signals():  # TensorFlow waits in C++ code, which Python's handlers cannot interrupt
            return Cluster(tf.distribute.MultiWorkerMirroredStrategy(), worker)
    gpus = [gpu.name for gpu in tf.config.list_logical_devices("GPU")[:batch_size]] if device.gpu else []
    return Cluster(tf.distribute.MirroredStrategy(gpus)) if len(gpus) > 1 else Cluster()


@contextlib.contextmanager
def _default_signals() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_DFL) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def losing_workers(worker: Worker, remedy: Callable[[], str]) -> Iterator[None]:
    """Turn TensorFlow's errors about other workers into one line.

    Args:
        worker: this process.
        remedy: says what is saved and how to go on.

    Raises:
        CharrnnError: another worker has ended or was started for another number of workers.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if worker.count == 1 or isinstance(error, tf.errors.ResourceExhaustedError):
            raise
        text = str(error)
        if found := re.search(r"/job:(\w+)/\S*task:(\d+)\S* is joining a group with size ?(\d+).*?size (\d+)", text):
            raise CharrnnError(
                f"{worker.name_of(found[1], int(found[2]))} counts {found[3]} replicas, other workers {found[4]}: give "
                "all of them the same cluster in TF_CONFIG, and as many GPUs"
            ) from None
        if found := re.search(r"/job:(\w+)/\S*task:(\d+)\S* is joining a group with incompatible device type", text):
            raise CharrnnError(
                f"{worker.name_of(found[1], int(found[2]))} has another kind of device than other workers: give all of "
                "them the same --device"
            ) from None
        if "Could not start gRPC server" in text:
            raise CharrnnError(
                f"{worker.name(worker.index)} cannot use its own address in TF_CONFIG: another program may use the port"
            ) from None
        found = re.search(r"/job:(\w+)/replica:\d+/task:(\d+)", text)
        who = worker.name_of(found[1], int(found[2])) if found else "another worker"
        raise CharrnnError(f"{who} no longer answers, so all workers end; {remedy()}", exit_code=LOST) from error
