"""The processes that train one network together: their addresses, and starting several on this machine."""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from charrnn import CharrnnError
from charrnn.messages import say
from charrnn.surroundings import HANG_UP, stop_signals

VARIABLE = "TF_CONFIG"
LOST = 3  # the exit code of a worker that has reported the loss of another
_PR_SET_PDEATHSIG = 1  # of prctl(2)
_PATIENCE = 20.0  # seconds that the other workers have to end by themselves after one has ended
_PATIENCE_WITHOUT_CHIEF = 2.0  # the same after worker 0 has failed: without it, they have nothing to save


@dataclass(frozen=True)
class Worker:
    """This process among those that train one network together.

    Attributes:
        index: its number, from 0; worker 0, the chief, writes the run's files.
        addresses: HOST:PORT of each worker; empty if there is only one.
        chiefs: how many of them TF_CONFIG lists under the job `chief`, 0 or 1; the others are under `worker`.
    """

    index: int = 0
    addresses: tuple[str, ...] = ()
    chiefs: int = 0

    @property
    def count(self) -> int:
        """The number of workers."""
        return max(1, len(self.addresses))

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes the run's files and shows the progress."""
        return self.index == 0

    @property
    def beside(self) -> int:
        """The number of workers on this one's host, itself included, which share its cores."""
        hosts = [address.rpartition(":")[0] for address in self.addresses]
        return max(1, sum(host == hosts[self.index] for host in hosts)) if hosts else 1

    def name(self, index: int) -> str:
        """A worker's name for messages."""
        return f"worker {index} ({self.addresses[index]})"

    def name_of(self, job: str, task: int) -> str:
        """The name for messages of the worker that TF_CONFIG has as this task of a job."""
        return self.name(task + (self.chiefs if job == "worker" else 0))


ALONE = Worker()


def this_worker() -> Worker:
    """This process's place in the cluster that TF_CONFIG describes.

    Raises:
        CharrnnError: TF_CONFIG is not what TensorFlow documents, or gives this process another task than to train.
    """
    text = os.environ.get(VARIABLE, "")
    if not text.strip():
        return ALONE
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster", {}), config.get("task", {})
        chiefs, others = cluster.get("chief", []), cluster.get("worker", [])
        addresses = [*chiefs, *others]
        if not all(isinstance(address, str) and ":" in address for address in addresses):
            raise ValueError
        if len(addresses) < 2:
            return ALONE
        kind, index = task["type"], int(task["index"])
        if index not in range(len({"chief": chiefs, "worker": others}[kind])) or len(chiefs) > 1:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CharrnnError(
            f"{VARIABLE} does not describe a cluster with this process as a chief or worker: it is like "
            '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}; '
            "to train alone, unset it"
        ) from None
    return Worker(index + (len(chiefs) if kind == "worker" else 0), tuple(addresses), len(chiefs))


def train_with(count: int) -> int:
    """Start this very command as several workers on this machine, and wait until they have ended.

    The workers have sessions of their own, so that a Ctrl-C in the terminal reaches them only through this process. It
    passes the other signals on as SIGINT too: while TensorFlow waits for other workers, it ignores SIGTERM. A second
    signal kills them.

    Args:
        count: number of workers.

    Returns:
        The exit code of worker 0, but 1 if a worker died, and 128 + N after signal N.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for place in sockets:
            place.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{place.getsockname()[1]}" for place in sockets]
    with contextlib.ExitStack() as stack:
        logs: list[IO[bytes] | None] = [None]  # worker 0 writes to stderr itself
        logs += [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count - 1)]
        workers: list[subprocess.Popen[bytes]] = []
        signals: list[int] = []

        def forward(number: int, _: Any) -> None:
            if signals and number == HANG_UP:
                return  # a terminal that is closed sends several
            signals.append(number)
            if len(signals) == 1 and len(workers) == count:
                workers[0].send_signal(signal.SIGINT)  # it tells the others
            elif len(signals) > 1:
                for worker in workers:
                    worker.kill()

        before = {number: signal.signal(number, forward) for number in stop_signals()}
        try:
            for index, log in enumerate(logs):
                config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
                command = [sys.executable, "-m", "charrnn", *sys.argv[1:]]
                environment = {**os.environ, VARIABLE: json.dumps(config)}
                workers.append(
                    subprocess.Popen(
                        command,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stderr=log,
                        start_new_session=True,
                        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
                    )
                )
            if signals:  # it came while they were started
                workers[0].send_signal(signal.SIGINT)
            return _outcome(workers, logs, signals)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
            for number, handler in before.items():
                signal.signal(number, handler)


def _die_with_parent() -> None:
    """Have Linux kill this process when the one that started it is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _outcome(
    workers: Sequence[subprocess.Popen[bytes]], logs: Sequence[IO[bytes] | None], signals: Sequence[int]
) -> int:
    """Wait for the workers, and report those that failed."""
    codes = [worker.poll() for worker in workers]
    deadline = math.inf
    while None in codes and time.monotonic() < deadline:
        time.sleep(0.05)
        codes = [worker.poll() for worker in workers]
        if codes[0] not in (None, 0):
            deadline = min(deadline, time.monotonic() + _PATIENCE_WITHOUT_CHIEF)
        elif set(codes) - {None, 0, 128 + signal.SIGINT}:  # worker 0 may take its time to save
            deadline = min(deadline, time.monotonic() + _PATIENCE)
    chief = codes[0]
    if signals and chief in (None, -signal.SIGKILL, -signal.SIGINT, 128 + signal.SIGINT):
        if chief == -signal.SIGINT:
            say("stopped while the workers were connecting; the same command starts them again")
        return 128 + signals[0]
    for index, (code, log) in enumerate(zip(codes, logs, strict=True)):
        if code is not None and code < 0 and chief != LOST:
            say(
                f"Error: worker {index} was killed by signal {-code}, so all of them have ended; the same command, "
                "without --fresh, continues from the last checkpoint, if there is one"
            )
        elif log is not None and code == 1 and chief != 1:  # worker 0 has not reported the same error
            log.seek(0)
            for line in log.read().decode(errors="replace").splitlines():
                say(f"worker {index}: {line}")
    return chief if chief is not None and chief not in (LOST, *range(-64, 0)) else 1
