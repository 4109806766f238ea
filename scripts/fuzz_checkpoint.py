"""Fuzz the reader of checkpoints.

    python -m pip install atheris && python scripts/fuzz_checkpoint.py --minutes 15

Atheris guides the changes by the lines of the reader that they reach; it is no dependency of charrnn, and
where it is not installed hypothesis makes them blindly. Half of the changed files get a checksum
that is right, and half a header length that is right, so that what stands behind those checks is reached.

A find is an exception that is not the reader's own, or a file that was accepted and is not, byte for byte,
what charrnn writes for what it read there. The first find ends it with an exit code that is not 0; the file is kept.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import sys
import tempfile
import time
from pathlib import Path

import click
from _forge import BODY, GOOD, sealed, small_checkpoint

from charrnn.runs import checkpoint

_SEAL, _MEASURE = 1, 2  # bits of an input's last byte, which is no part of the file


class Find(Exception):  # noqa: N818 - not every find is an error
    """The reader did what it must not do."""


def file_of(data: bytes) -> bytes:
    """The file that an input of the fuzzer stands for."""
    file, choice = data[:-1], data[-1] if data else 0
    if choice & _MEASURE and len(file) > 8 + len(BODY):
        file = (len(file) - 8 - len(BODY)).to_bytes(8, "little") + file[8:]
    return sealed(file) if choice & _SEAL else file


def try_one(data: bytes) -> None:
    """Read one file.

    Raises:
        Find: it was accepted and is not what charrnn writes, or the reader failed.
    """
    file = file_of(data)
    try:
        found = checkpoint.from_bytes(file)
    except ValueError as error:
        if type(error).__module__ != checkpoint.__name__:  # some other function's, which escaped
            raise Find(repr(error)) from error
        return
    if checkpoint.to_bytes(found) != file:
        raise Find("accepted, but written otherwise")


def with_atheris(seconds: float, finds: Path) -> None:
    """Fuzz until the time is over; libFuzzer prints what it does, and ends the process."""
    import atheris

    for function in vars(checkpoint).values():
        if inspect.isfunction(function):
            atheris.instrument_func(function)
    seeds = finds / "seeds"
    seeds.mkdir()
    half = checkpoint.to_bytes(dataclasses.replace(small_checkpoint(), weights_type="float16"))
    for choice in range(4):
        (seeds / str(choice)).write_bytes(GOOD + bytes([choice]))
        (seeds / f"half-{choice}").write_bytes(half + bytes([choice]))
    options = [f"-max_total_time={seconds:.0f}", f"-artifact_prefix={finds}/", "-max_len=8192", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], str(seeds), *options], try_one)
    atheris.Fuzz()


def with_hypothesis(seconds: float, finds: Path) -> None:
    """Fuzz until the time is over."""
    from hypothesis import given, seed, settings
    from hypothesis import strategies as st

    changes = st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 8), st.binary(max_size=8)), max_size=4)
    tried = 0

    @settings(max_examples=1000, deadline=None, database=None)
    @given(changes, st.integers(0, 3))
    def change_and_try(changes: list[tuple[int, int, bytes]], choice: int) -> None:
        nonlocal tried
        data = bytearray(GOOD)
        for at, length, new in changes:
            data[at : at + length] = new
        (finds / "last").write_bytes(data + bytes([choice]))
        tried += 1
        try_one(data + bytes([choice]))

    start = time.monotonic()
    for number in range(sys.maxsize):
        seed(number)(change_and_try)()
        if time.monotonic() - start > seconds:
            break
    print(f"{tried:,} files, no find", file=sys.stderr)


@click.command(help=__doc__)
@click.option("--minutes", default=15.0, show_default=True, help="How long.")
def main(minutes: float) -> None:
    """Fuzz with what is installed."""
    finds = Path(tempfile.mkdtemp(prefix="fuzz-checkpoint-"))
    print(f"finds go to {finds}", file=sys.stderr)
    fuzz = with_atheris if importlib.util.find_spec("atheris") else with_hypothesis
    fuzz(60 * minutes, finds)


if __name__ == "__main__":
    main()
