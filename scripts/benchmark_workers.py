"""The speed of several workers, and a model of it that is checked: the tables of docs/scaling.md.

    python scripts/benchmark_workers.py TEXT      # Linux, two cores at least; as root for the network of 1 Gbit/s

First: 1, 2 and 4 workers that share this machine's first two cores, so that only what they cost shows.

Then the model. An update of W workers, each with B / W streams, takes

    t(W) = t1(B / W) + latency + 2 (W - 1) / W * 4 * weights / bandwidth

where t1 is that of one worker on one core, measured, which has the arithmetic and the reading of weights in it; the
last term is a ring that adds 4 bytes for each weight. The latency is fitted to the smallest network. Two workers on
a core each, in network namespaces that a link of 1 Gbit/s connects, show how far the model is off for the others.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
from _machine import machine

from charrnn.network.config import count_weights
from charrnn.runs.checkpoint import read_head
from charrnn.runs.folder import Run

STREAMS, LENGTH = 32, 64
NETWORKS = ((1, 128), (1, 384), (2, 384), (2, 512))
GBIT = 1e9 / 8  # bytes a second
NAMESPACES = ("charrnn0", "charrnn1")
PORT = 25_800


class Bench:
    """Trainings of one text for so many seconds each."""

    def __init__(self, text: Path, folder: Path, seconds: float) -> None:
        self.text, self.folder, self.seconds = text, folder, seconds
        self.count = 0
        self.weights: dict[tuple[int, int], int] = {}

    def _command(self, name: str, layers: int, units: int, streams: int, *options: object) -> list[str]:
        network = ("--layers", layers, "--units", units, "--dropout", 0.1, "--init-from", "none", "--device", "cpu")
        shape = ("--batch-size", streams, "--seq-length", LENGTH, "--minutes", self.seconds / 60)
        where = ("--checkpoints-dir", self.folder, "--name", name)
        return [sys.executable, "-m", "charrnn", "train", *map(str, (self.text, *network, *shape, *where, *options))]

    def _seconds(self, name: str, network: tuple[int, int], streams: int) -> float:
        """Seconds per update: the fewest in the later rows of a run's history."""
        run = Run(self.folder / name)
        self.weights[network] = count_weights(read_head(run.last).config)
        with open(run.history, newline="") as file:
            speeds = [float(row["chars_per_second"]) for row in csv.DictReader(file)]
        return streams * LENGTH / max(speeds[1:] or speeds)

    def together(self, network: tuple[int, int], workers: int) -> float:
        """Seconds of an update of workers that share two cores."""
        self.count += 1
        command = self._command(str(self.count), *network, STREAMS, "--workers", workers)
        subprocess.run(["taskset", "-c", "0,1", *command], check=True, capture_output=True)
        return self._seconds(str(self.count), network, STREAMS)

    def alone(self, network: tuple[int, int], streams: int) -> float:
        """Seconds of an update of one worker on one core."""
        self.count += 1
        command = self._command(str(self.count), *network, streams)
        subprocess.run(["taskset", "-c", "0", *command], check=True, capture_output=True)
        return self._seconds(str(self.count), network, streams)

    def apart(self, network: tuple[int, int]) -> float:
        """Seconds of an update of two workers on a core each, with the link between them."""
        self.count += 1
        addresses = [f"10.77.0.{index + 1}:{PORT + self.count}" for index in range(2)]
        workers = []
        for index, namespace in enumerate(NAMESPACES):
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            command = self._command(str(self.count), *network, STREAMS)
            workers.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", namespace, "taskset", "-c", str(index), *command],
                    env=os.environ | {"TF_CONFIG": json.dumps(config)},
                    stderr=subprocess.DEVNULL,
                )
            )
        codes = [worker.wait() for worker in workers]
        if any(codes):
            raise click.ClickException("a worker failed")
        return self._seconds(str(self.count), network, STREAMS)


def ip(*arguments: str) -> None:
    """Run ip."""
    subprocess.run(["ip", *arguments], check=True)


def connect(namespaces: Sequence[str]) -> None:
    """Make two network namespaces and a link of 1 Gbit/s between them."""
    ip("link", "add", "crnn0", "type", "veth", "peer", "name", "crnn1")
    for index, namespace in enumerate(namespaces):
        ip("netns", "add", namespace)
        ip("link", "set", f"crnn{index}", "netns", namespace)
        ip("-n", namespace, "addr", "add", f"10.77.0.{index + 1}/24", "dev", f"crnn{index}")
        for device in ("lo", f"crnn{index}"):
            ip("-n", namespace, "link", "set", device, "up")
        limit = ("rate", "1gbit", "burst", "256kb", "latency", "50ms")
        command = ["tc", "-n", namespace, "qdisc", "add", "dev", f"crnn{index}", "root", "tbf", *limit]
        subprocess.run(command, check=True)


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n"))
@click.argument("text", type=click.Path(exists=True, path_type=Path))
@click.option("--seconds", default=15.0, show_default=True, help="Of each training.")
def main(text: Path, seconds: float) -> None:
    """Measure and print."""
    print(f"{machine()}\n")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(text, Path(folder), seconds)
        print("| network | weights | 1 worker | 2 workers | 4 workers |\n|---|---|---|---|---|")
        for network in NETWORKS[1], NETWORKS[3]:
            times = [bench.together(network, workers) for workers in (1, 2, 4)]
            found = " | ".join(f"{time * 1e3:.0f} ms" for time in times)
            print(f"| {network[0]} x {network[1]} | {bench.weights[network]:,} | {found} |", flush=True)
        if os.geteuid() != 0:
            return
        print(
            "\n| network | sent, MB | 32 streams | 16 streams | 2 workers | model | off by |\n"
            "|---|---|---|---|---|---|---|"
        )
        try:
            connect(NAMESPACES)
            latency = None
            for network in NETWORKS:
                whole, half = (bench.alone(network, streams) for streams in (STREAMS, STREAMS // 2))
                found = bench.apart(network)
                sent = 4 * bench.weights[network]
                if latency is None:
                    latency = found - half - sent / GBIT
                model = half + latency + sent / GBIT
                print(
                    f"| {network[0]} x {network[1]} | {sent / 1e6:.1f} | {whole * 1e3:.0f} ms | {half * 1e3:.0f} ms "
                    f"| {found * 1e3:.0f} ms | {model * 1e3:.0f} ms | {model / found - 1:+.0%} |",
                    flush=True,
                )
        finally:
            for namespace in NAMESPACES:
                subprocess.run(["ip", "netns", "del", namespace], check=False)


if __name__ == "__main__":
    main()
