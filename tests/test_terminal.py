"""What a stranger's file brings to a terminal: control characters as escapes, and to a pipe as they are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, environment, on_terminal

sys.path.insert(0, str(PROJECT / "scripts"))

from _forge import DOCUMENT, forged, small_checkpoint

from charrnn.messages import show_controls
from charrnn.runs.checkpoint import to_bytes

# Colour, title, bell, backspace, carriage return, delete, CSI in C1, next line, right-to-left override and isolate.
HOSTILE = "\x1b\x07\x08\r\x7f\x9b\x85\u202e\u2067"
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def seen(output: str) -> str:
    """What a terminal was sent, its own line endings apart."""
    text = output.replace("\r\n", "\n")
    assert not FORBIDDEN.search(text), repr(text)
    return text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint whose vocabulary is of control characters and what makes sequences of them."""
    (tmp_path / "hostile.safetensors").write_bytes(to_bytes(small_checkpoint(HOSTILE + "\n\ta[0m")))
    return tmp_path


def test_a_sample_and_its_prime_are_escaped_on_a_terminal_and_exact_in_a_pipe(folder: Path) -> None:
    args = ["sample", "--checkpoint", "hostile.safetensors", "--seed", "1", "--length", "300"]
    prime = "a" + HOSTILE.replace("\r", "")  # which would become a newline, and be told
    args += ["--prime", prime]
    output, code = on_terminal(folder, *args)
    piped = subprocess.run(
        [sys.executable, "-m", "charrnn", *args], cwd=folder, capture_output=True, env=environment(), check=True
    )
    text = piped.stdout.decode()
    assert code == 0
    assert text.startswith(prime)
    assert set(HOSTILE) <= set(text)
    assert seen(output) == show_controls(text) + "\n" * (not text.endswith("\n"))


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({**DOCUMENT, "settings": {**DOCUMENT["settings"], "cell": HOSTILE}}, r"cell is '\x1b\x07\x08"),
        ({**DOCUMENT, "settings": {**DOCUMENT["settings"], "vocabulary": "\u202e\x1b"}}, r"vocabulary is '\u202e\x1b'"),
        ({**DOCUMENT, "format": "\x1b]0;title\x07"}, "not a number"),
    ],
)
def test_a_message_about_a_file_is_escaped(tmp_path: Path, document: dict[str, object], says: str) -> None:
    name = "x\x1b[31m\n\u202e\x9b.safetensors"
    (tmp_path / name).write_bytes(forged(document))
    output, code = on_terminal(tmp_path, "sample", "--checkpoint", name)
    assert code == 1
    text = seen(output)
    assert text.count("\n") == 1
    assert r"x\x1b[31m\n\u202e\x9b.safetensors: damaged: " in text
    assert says in text
    output, code = on_terminal(tmp_path, "sample", "--checkpoint", name, "--debug")
    assert "Traceback" in seen(output)


@pytest.mark.parametrize(
    "args",
    [
        ["sample", "--checkpoint", "absent" + HOSTILE],
        ["sample", "--checkpoint", "hostile.safetensors", "--prime", "b" + HOSTILE + "\u202a"],
        ["sample", "--checkpoint", "hostile.safetensors", "--temperature", HOSTILE],
        ["sample", "--unknown-option" + HOSTILE],
        ["train", "x", "--cell", HOSTILE],
        ["train", "absent" + HOSTILE],
        ["train", "hostile.safetensors", "--encoding", HOSTILE],
        [HOSTILE],
    ],
)
def test_a_message_about_a_call_is_escaped(folder: Path, args: list[str]) -> None:
    output, code = on_terminal(folder, *args)
    assert code == 2
    assert "Error: " in seen(output)


def test_the_path_of_a_picture_is_escaped_on_a_terminal_and_exact_in_a_pipe(folder: Path) -> None:
    name = b"run\x1b[31m\xc2\x9b\xff$"  # what no encoding has in it is a file's name too
    run = bytes(folder / "checkpoints") + b"/" + name
    Path(run.decode("utf-8", "surrogateescape")).mkdir(parents=True)
    for file, data in {
        b"last.safetensors": b"",
        b"history.csv": b"step,epoch,train_loss,val_loss,learning_rate,seconds,chars_per_second\n1,1,1,1,1,1,1\n",
    }.items():
        Path((run + b"/" + file).decode("utf-8", "surrogateescape")).write_bytes(data)
    output, code = on_terminal(folder, "plot-loss")
    assert code == 0, output
    assert r"run\x1b[31m\x9b" in seen(output)
    piped = subprocess.run(
        [sys.executable, "-m", "charrnn", "plot-loss"], cwd=folder, capture_output=True, env=environment(), check=True
    )
    assert piped.stdout == b"checkpoints/" + name + b"/loss.png\n"
    assert piped.stderr == b""
