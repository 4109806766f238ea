"""Files that no command may accept: damaged and forged checkpoints, other things, hostile histories."""

from __future__ import annotations

import functools
import gzip
import io
import itertools
import json
import os
import pickle
import random
import socket
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import _forgeries as forgeries
import numpy as np
from _forge import BODY, GOOD, HEAD, forged, sealed, with_header
from _forgeries import Content, Named

SPARSE = 20 << 30  # bytes


@dataclass(frozen=True)
class Case:
    """A bad file: what it is, and the command that is to refuse it."""

    kind: str
    name: str
    content: Content
    command: str


def truncated(first: int, last: int) -> Named:
    """The good file, ending early."""
    for length in range(first, last):
        yield f"{length} bytes", GOOD[:length]


def flipped(first: int, last: int, chance: random.Random) -> Named:
    """The good file with one bit of one byte the other way round."""
    for at in range(first, last):
        bit = chance.randrange(8)
        yield f"byte {at} bit {bit}", GOOD[:at] + bytes([GOOD[at] ^ 1 << bit]) + GOOD[at + 1 :]


def changed(chance: random.Random) -> Named:
    """The good file with a few bytes replaced, taken out or put in."""
    for number in itertools.count():
        data = bytearray(GOOD)
        for _ in range(chance.randint(1, 8)):
            at, noise = chance.randrange(len(data)), chance.randbytes(chance.randint(0, 4))
            data[at : at + chance.randint(0, 4)] = noise
        if data != GOOD:
            yield f"number {number}", bytes(data)


def header_lengths() -> Named:
    """The first eight bytes, and what they promise."""
    size = HEAD - 8
    for length in (0, 1, 2, 7, size - 1, size + 1, len(GOOD) - 8, len(GOOD) - 7, 10**6, 1 << 24, 10**8, 2**31, 2**32):
        yield f"{length}", sealed(length.to_bytes(8, "little") + GOOD[8:])
    for length in (2**63 - 1, 2**63, 2**64 - 1, 2**64 - 8):
        yield f"{length}", sealed(length.to_bytes(8, "little") + GOOD[8:])


def not_files() -> Named:
    """Something else that has a path."""

    def bind(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            here = os.open(path.parent, os.O_RDONLY)  # a socket's path has some 100 bytes at most
            server.bind(f"/proc/self/fd/{here}/{path.name}")
            os.close(here)

    yield "a link to nothing", lambda path: path.symlink_to("nothing")
    yield "a link to itself", lambda path: path.symlink_to(path.name)
    yield "a link to a folder", lambda path: path.symlink_to("/")
    yield "a FIFO", os.mkfifo
    yield "a socket", bind
    yield "a folder", Path.mkdir
    for device in ("/dev/zero", "/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/stdin"):
        yield device, functools.partial(_link, target=device)
    for pseudo in ("/proc/self/mem", "/proc/self/environ", "/proc/kmsg", "/proc/kcore", "/proc/self/exe"):
        if os.path.exists(pseudo):
            yield pseudo, functools.partial(_link, target=pseudo)


def _link(path: Path, target: str) -> None:
    path.symlink_to(target)


def sparse_files() -> Named:
    """20 GB that take no space."""

    def sparse(path: Path, start: bytes) -> None:
        path.write_bytes(start)
        os.truncate(path, SPARSE)

    for name, start in {
        "zeros": b"",
        "a header of no length": bytes(8) + b"{",
        "a header of one byte": (1).to_bytes(8, "little") + b"{",
        "a header of 16 MB of zeros": (1 << 24).to_bytes(8, "little") + b"{",
        "a header of all of it": (SPARSE - 8).to_bytes(8, "little") + b"{",
        "the good header": GOOD[:HEAD],
        "the good file": GOOD,
        "a zip's start": b"PK\x03\x04",
    }.items():
        yield name, functools.partial(sparse, start=start)


class _Marker:
    """What a pickle would do to whoever loads it."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("a-pickle-was-loaded",)


def _zip() -> bytes:
    """As a .keras archive is made, with code that Keras would run."""
    config = {"class_name": "Lambda", "config": {"function": "__import__('os').mkdir('a-lambda-was-run')"}}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("config.json", json.dumps(config))
        file.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        file.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(2000))
    return archive.getvalue()


def other_formats() -> Named:
    """Files that other programs keep models and other things in."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield f"a pickle, protocol {protocol}", pickle.dumps(_Marker(), protocol)
        yield f"a pickle of weights, protocol {protocol}", pickle.dumps({"w": np.zeros((9, 9))}, protocol)
    yield "a .keras archive", _zip()
    yield "an .h5 file", b"\x89HDF\r\n\x1a\n\x00\x00\x00\x00\x00\x08\x08\x00" + bytes(10_000)
    yield "gzip of the good file", gzip.compress(GOOD)
    yield "the good file in hexadecimal", GOOD.hex().encode()
    yield "the good file with CRLF for LF", GOOD.replace(b"\n", b"\r\n").replace(b"\x00", b"\x00\r\n")
    yield "the good file as Latin-1 in UTF-8", GOOD.decode("latin-1").encode()
    yield "the good file twice", GOOD + GOOD
    yield "the good file backwards", GOOD[::-1]
    yield "a npy file of objects", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', }" + pickle.dumps(_Marker())
    yield (
        "another program's safetensors",
        with_header(b'{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    )
    yield from {
        "empty": b"",
        "one byte": b"{",
        "JSON": b'{"units": 4}',
        "a script": b"#!/bin/sh\nmkdir a-script-was-run\n",
        "Python": b"import os; os.mkdir('a-script-was-run')\n",
        "YAML": b"!!python/object/apply:os.mkdir ['yaml-was-loaded']\n",
        "a program": b"\x7fELF\x02\x01\x01" + bytes(1000),
        "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(1000),
        "GGUF": b"GGUF\x03\x00\x00\x00" + bytes(1000),
        "a tar": b"x" + bytes(256) + b"ustar\x0000" + bytes(1000),
        "a text": b"It was the best of times, it was the worst of times.\n" * 100,
        "UTF-16": "a text".encode("utf-16"),
        "noise": random.Random(0).randbytes(10_000),
        "zeros": bytes(10_000),
        "braces": b"{" * 10_000,
    }.items()


def polyglots() -> Named:
    """A good checkpoint that is something else as well."""
    for name, other in {"a zip": _zip(), "a pickle": pickle.dumps(_Marker()), "a script": b"\nimport os\n"}.items():
        yield f"{name} after it", GOOD + other
        yield f"{name} after it, sealed", sealed(GOOD + other)
        yield f"{name} before it", other + GOOD
        yield f"{name} between header and tensors", sealed(GOOD[:HEAD] + other + BODY)
        yield f"{name} in the header", with_header(GOOD[8:HEAD] + other)
        yield (
            f"{name} as a tensor",
            forged(
                body=BODY + other,
                other={"dtype": "U8", "shape": [len(other)], "data_offsets": [len(BODY), len(BODY) + len(other)]},
            ),
        )


COLUMNS = "step,epoch,train_loss,val_loss,learning_rate,seconds,chars_per_second\n"
ROW = ["10", "0.5", "2.5", "2.4", "0.005", "1.25", "1000"]


def _many_rows() -> bytes:
    return (COLUMNS + "".join(f"{step},{step},1,1,1,1,1\n" for step in range(1, 500_000))).encode()


def bad_histories() -> Named:
    """What plot-loss reads."""

    def sparse(path: Path, start: bytes) -> None:
        path.write_bytes(start)
        os.truncate(path, SPARSE)

    row = ",".join(ROW) + "\n"
    for name, text in {
        "empty": "",
        "NULs": "\0" * 10_000,
        "another header": "a,b\n" + row,
        "header of another case": COLUMNS.upper() + row,
        "no header": row,
        "header twice": COLUMNS * 2 + row,
        "a row twice": COLUMNS + row * 2,
        "a row without an end": COLUMNS + '"' + row,
        "a short row": COLUMNS + "10,0.5\n",
        "a long row": COLUMNS + row.strip() + ",1\n",
        "a blank row": COLUMNS + "\n" + row,
        "a row of a million columns": COLUMNS + ",".join(["1"] * 1_000_000),
        "steps backwards": COLUMNS + "".join(f"{step},1,1,1,1,1,1\n" for step in range(100, 0, -1)),
        "a field of 10 MB": COLUMNS + '"' + "1" * 10_000_000 + '",1,1,1,1,1,1\n',
        "JSON": '{"step": 1}',
    }.items():
        yield name, text.encode()
    yield "half a million rows", forgeries.lazily(_many_rows)
    for column in range(7):
        for value in ("nan", "inf", "-inf", "1e999", "1e39", "9" * 5000, "x", "", "0x10", "\0", "=1+1", "\x1b[31m"):
            yield (
                f"{value[:10]!r} in column {column}",
                (COLUMNS + ",".join([*ROW[:column], value, *ROW[column + 1 :]]) + "\n").encode(),
            )
    for value in ("0", "-1", "1.5", "1e3", str(2**53 + 1), str(2**63)):
        yield f"step {value}", (COLUMNS + ",".join([value, *ROW[1:]]) + "\n").encode()
    for value in ("0", "-1", "1e-300", "1e300"):
        yield f"epoch {value}", (COLUMNS + ",".join([ROW[0], value, *ROW[2:]]) + "\n").encode()
    yield "UTF-16", (COLUMNS + row).encode("utf-16")
    yield "Latin-1", (COLUMNS + row).encode() + b"\xe9"
    yield "a good one and 20 GB of zeros", functools.partial(sparse, start=(COLUMNS + row).encode())
    yield "20 GB of zeros", functools.partial(sparse, start=b"")
    yield "a checkpoint", GOOD
    yield from not_files()


def all_cases(chance: random.Random) -> Iterator[Case]:
    """Cases of all kinds in turn, those of each kind in random order, without an end."""
    checkpoints: dict[str, Named] = {
        "header ends early": truncated(0, HEAD + 1),
        "tensors end early": truncated(HEAD + 1, len(GOOD)),
        "bit of the header flipped": flipped(0, HEAD, chance),
        "bit of the tensors flipped": flipped(HEAD, len(GOOD), chance),
        "header's length": header_lengths(),
        "hostile JSON": forgeries.hostile_json(),
        "wrong values": forgeries.wrong_values(),
        "impossible sizes": forgeries.impossible_sizes(),
        "wrong tensors": forgeries.wrong_tensors(),
        "weights not finite": forgeries.not_finite(chance),
        "wrong vocabulary": forgeries.wrong_vocabularies(),
        "wrong checksum": forgeries.wrong_checksums(),
        "wrong keys": forgeries.wrong_keys(),
        "spelled otherwise": forgeries.other_spellings(),
        "other version": forgeries.other_versions(),
        "wrong characters": forgeries.wrong_characters(),
        "not a file": not_files(),
        "20 GB without content": sparse_files(),
        "another format": other_formats(),
        "two formats at once": polyglots(),
    }
    kinds: list[Iterator[Case]] = []
    for kind, cases in [*checkpoints.items(), ("bytes changed", changed(chance)), ("history", bad_histories())]:
        some: Iterable[tuple[str, Content]] = cases
        if kind != "bytes changed":
            some = chance.sample(listed := list(cases), len(listed))
        kinds.append(_cases(kind, some))
    while True:
        for cases_of_kind in list(kinds):
            case = next(cases_of_kind, None)
            if case is None:
                kinds.remove(cases_of_kind)
            else:
                yield case


def _cases(kind: str, some: Iterable[tuple[str, Content]]) -> Iterator[Case]:
    for number, (name, content) in enumerate(some):
        # train reads a checkpoint through the same door: now and then is enough.
        yield Case(kind, name, content, "plot-loss" if kind == "history" else "train" if number % 10 == 5 else "sample")
