"""Check charrnn on this machine's GPU, and print a block to paste into an issue.

    python -m pip install torch      # only for the comparison; a version for this card
    python scripts/check_gpu.py

It takes a few minutes. Trains on data/tales.txt by the real command on the GPU and on the CPU, stops and continues
a run, samples from it, and measures the memory and the speed of the network that a GPU gets by default. With --cpu
it does all this on the CPU, to try the script itself.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

TALES = Path(__file__).parent.parent / "data" / "tales.txt"
NETWORK = ("--cell", "lstm", "--layers", "2", "--units", "256", "--init-from", "none", "--precision", "float32")
SHORT, LONG = ("--batch-size", "32", "--epochs", "2"), ("--batch-size", "32", "--epochs", "40")
SHAPE = (2, 512, 128, 64)  # layers, units, batch size, sequence length: the default on a GPU
SECONDS = 10.0
_FOUND = """
import json
from charrnn.planning.machine import machine_class
from charrnn.training.backend import keras, tf
gpus = tf.config.list_physical_devices("GPU")
build = tf.sysconfig.get_build_info()
print(json.dumps({
    "class of the machine": machine_class(),
    "GPUs": [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus],
    "compute capability": [tf.config.experimental.get_device_details(gpu).get("compute_capability") for gpu in gpus],
    "TensorFlow": tf.__version__, "Keras": keras.__version__,
    "CUDA and cuDNN that it was built with": [build.get("cuda_version"), build.get("cudnn_version")],
}))
"""
_SPEED = """
import json, sys
sys.path.insert(0, "scripts")
from benchmark_training import run_charrnn, run_torch
what, precision, device, seconds, *shape = sys.argv[1:]
shape = [*map(int, shape)]
if what == "charrnn":
    result = run_charrnn(*shape, precision, float(seconds), device)
    if device == "gpu":
        from charrnn.training.backend import tf
        result["GPU memory"] = tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
else:
    result = run_torch(*shape, precision == "bfloat16", float(seconds), device)
print(json.dumps(result))
"""


def python(code: str, *arguments: object) -> str:
    """The last line that a program prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise click.ClickException(done.stderr.strip()[-2000:])
    return done.stdout.splitlines()[-1]


def command(folder: Path, *arguments: str) -> list[str]:
    """A training on the tales in a folder."""
    return [sys.executable, "-m", "charrnn", "train", str(TALES), "--checkpoints-dir", str(folder), *arguments]


def train(folder: Path, *arguments: str) -> str:
    """Run it to its end; return what it prints."""
    done = subprocess.run(command(folder, *arguments), capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(done.stderr)
    return done.stderr


def losses(folder: Path) -> list[float]:
    """The training and validation losses of a run."""
    with open(folder / "tales" / "history.csv", newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) for name in ("train_loss", "val_loss")]


def difference(one: Sequence[float], other: Sequence[float]) -> str:
    """The largest difference of two lists of losses, for people."""
    if len(one) != len(other):
        return f"{len(one)} and {len(other)} losses"
    return f"{max(abs(a - b) for a, b in zip(one, other, strict=True)):.6f} nats"


def stop_and_continue(folder: Path, *arguments: str) -> str:
    """Stop a training in the middle with Ctrl-C, and continue it to its end; return the memory in use before."""
    process = subprocess.Popen(command(folder, *arguments, "--save-every", "1"), stderr=subprocess.PIPE, text=True)
    history = folder / "tales" / "history.csv"
    while process.poll() is None and not (history.exists() and len(history.read_text().splitlines()) > 3):
        time.sleep(0.05)
    memory = memory_in_use()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    if process.returncode != 130:
        raise click.ClickException(f"it was to be stopped: {errors}")
    train(folder, *arguments)
    return memory


def memory_in_use() -> str:
    """What nvidia-smi reports."""
    if shutil.which("nvidia-smi") is None:
        return "no nvidia-smi"
    query = ["nvidia-smi", "--query-gpu=driver_version,memory.total,memory.used", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True).stdout.strip().replace("\n", "; ")


@click.command(help=__doc__)
@click.option("--cpu", is_flag=True, help="Check on the CPU, to try the script.")
def main(cpu: bool) -> None:
    """Check and print."""
    device = "cpu" if cpu else "gpu"
    found = json.loads(python(_FOUND))
    if not cpu and not found["GPUs"]:
        raise click.ClickException("TensorFlow finds no GPU: docs/train.md says what it needs")
    print("```")
    for name, value in found.items():
        print(f"{name}: {value}")
    print(f"driver, memory, in use: {memory_in_use()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        printed = train(folder / "device", *NETWORK, *SHORT, "--device", device)
        print(next(line for line in printed.splitlines() if line.startswith("training")))
        train(folder / "cpu", *NETWORK, *SHORT, "--device", "cpu")
        print(f"losses of 2 epochs, against the CPU: {difference(losses(folder / 'device'), losses(folder / 'cpu'))}")
        train(folder / "again", *NETWORK, *SHORT, "--device", device)
        print(f"the same run again: {difference(losses(folder / 'device'), losses(folder / 'again'))}")
        train(folder / "whole", *NETWORK, *LONG, "--device", device)
        memory = stop_and_continue(folder / "stopped", *NETWORK, *LONG, "--device", device)
        print(f"during a training: {memory}")
        print(f"stopped and continued: {difference(losses(folder / 'whole'), losses(folder / 'stopped'))}")
        sample = [sys.executable, "-m", "charrnn", "sample", "--checkpoint", str(folder / "whole" / "tales")]
        text = subprocess.run([*sample, "--length", "100", "--seed", "1"], capture_output=True, text=True).stdout
        print(f"sampled: {text!r}")
    peers = ["charrnn"] + (["torch"] if importlib.util.find_spec("torch") else [])
    for peer in peers:
        for precision in ("float32", "bfloat16"):
            result = json.loads(python(_SPEED, peer, precision, device, SECONDS, *SHAPE))
            memory = f", {result['GPU memory']:,.0f} MiB of the GPU's memory" if "GPU memory" in result else ""
            speed = f"{result['speed']:,.0f} characters a second" if result["speed"] else "not on this processor"
            print(f"{peer}, 2 x 512, 128 streams of 64, {precision}: {speed}{memory}")
    print("```")


if __name__ == "__main__":
    main()
