"""Sampling at a prompt: through a pipe, where all is exact, and at a terminal."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, environment, on_terminal
from test_sampling import network_for

from charrnn.sampling.choice import Choice
from charrnn.sampling.prompt import Session
from charrnn.text.vocabulary import Vocabulary

# --- through a pipe --------------------------------------------------------------------------


@pytest.fixture
def talk(trained: Path, charrnn: Command) -> Any:
    def run(*lines: str, seed: int = 1, length: int = 40, args: tuple[str, ...] = ()) -> tuple[str, str]:
        result = charrnn(
            *("sample", "--checkpoints-dir", trained / "checkpoints", "--interactive"),
            *("--seed", seed, "--length", length, *args),
            input="".join(f"{line}\n" for line in lines),
        )
        assert result.returncode == 0, result.stderr
        return result.stdout, result.stderr

    return run


@pytest.fixture
def sample(trained: Path, charrnn: Command) -> Any:
    def run(prime: str, *args: object) -> str:
        return charrnn("sample", "--checkpoints-dir", trained / "checkpoints", "--prime", prime, *args).stdout

    return run


def test_an_empty_line_goes_on_as_if_the_text_had_not_stopped(talk: Any, sample: Any) -> None:
    assert talk("The ferry", "", "") == (sample("The ferry", "--seed", 1, "--length", 120), "")
    assert talk("", "") == (sample("", "--seed", 1, "--length", 80), "")


def test_each_beginning_starts_a_text_of_its_own_with_the_next_seed(talk: Any, sample: Any) -> None:
    first, second = sample("The ferry", "--seed", 7, "--length", 40), sample("A bell", "--seed", 8, "--length", 40)
    text, _ = talk("The ferry", "A bell", seed=7)
    assert text == first + ("" if first.endswith("\n") else "\n") + second


def test_the_temperature_changes_for_what_comes(talk: Any, sample: Any) -> None:
    begun = sample("The ferry", "--seed", 1, "--length", 40)
    text, told = talk("The ferry", ":t 0", "", ":t 0.50")
    assert text == sample(begun, "--seed", 1, "--length", 40, "--temperature", 0)
    assert told == "temperature 0\ntemperature 0.5\n"


def test_the_length_changes_for_what_comes(talk: Any) -> None:
    text, told = talk(":length 15", "The ferry", ":length 5", "")
    assert len(text) == len("The ferry") + 15 + 5
    assert told == "15 new characters at a time\n5 new characters at a time\n"


def test_a_prime_of_the_call_comes_first(talk: Any, sample: Any) -> None:
    assert talk("", args=("--prime", "A bell")) == (sample("A bell", "--seed", 1, "--length", 80), "")


def test_an_unknown_character_is_answered_as_the_command_does(talk: Any, trained: Path, charrnn: Command) -> None:
    text, told = talk("caf\u00e9", "cafe")
    assert text.startswith("cafe")
    result = charrnn("sample", "--checkpoints-dir", trained / "checkpoints", "--prime", "caf\u00e9", "--seed", "1")
    what, _ = result.stderr.splitlines()[-1].split(";")
    assert told == f"{what}; type another beginning\n"
    assert talk("caf\u00e9", args=("--unknown", "replace"))[0].startswith("cafe")


@pytest.mark.parametrize(
    "line", [":", ":x", ":quit", ":t", ":t warm", ":t -1", ":t nan", ":t 1 2", ":length 1.5", ":length 0"]
)
def test_what_is_no_command_is_said_in_one_line_and_changes_nothing(talk: Any, sample: Any, line: str) -> None:
    text, told = talk("The ferry", line, "")
    assert text == sample("The ferry", "--seed", 1, "--length", 80)
    assert told.startswith(f"Error: {line}")
    assert told.count("\n") == 1


def test_a_beginning_may_begin_with_a_colon(talk: Any, charrnn: Command, trained: Path) -> None:
    text, told = talk("::The", args=("--unknown", "skip"))
    assert (text[:4], told) == (":The", "")
    assert "type two colons to begin a text with one" in talk(":)")[1]
    assert "::) smiles" in talk(":help")[1]


def test_reading_a_long_prime_shows(trained: Path, charrnn: Command, tmp_path: Path) -> None:
    """Once in a log; on a terminal in a line that goes away."""
    (tmp_path / "long.txt").write_text("The ferry went over the water. " * 400)
    where = ("--checkpoints-dir", str(trained / "checkpoints"), "--prime-file", str(tmp_path / "long.txt"))
    call = ("sample", *where, "--length", "5", "--seed", "1")
    result = charrnn(*call)
    assert result.stderr == "reading 12,400 characters\n"
    output, code = on_terminal(tmp_path, *call)
    assert code == 0
    assert "\rreading 12,400 characters: 0%\rreading 12,400 characters: 8%\r" in output
    assert output.index(f"\r{' ' * 29}") < output.index("The ferry")
    with terminal(trained, f"--prime-file '{tmp_path / 'long.txt'}'", length=5) as child:
        assert child.before.rindex("reading 12,400 characters: ") < child.before.index("The ferry")
    result = charrnn(*call, "--interactive", input="")
    assert result.stderr == "reading 12,400 characters\n"


def test_help_names_the_commands_and_what_is_set(talk: Any) -> None:
    text, told = talk(":t 0.25", ":length 1500", ":help")
    assert text == ""
    assert ":t 0.7        temperature, now 0.25" in told
    assert ":length 500   new characters at a time, now 1,500" in told


def test_it_ends_when_nobody_reads(trained: Path) -> None:
    result = subprocess.run(
        f"yes The | '{sys.executable}' -m charrnn sample --interactive --seed 1 | head -c 100; echo ${{PIPESTATUS[1]}}",
        shell=True, executable="/bin/bash", cwd=trained, capture_output=True, text=True, env=environment(), check=True,
    )  # fmt: skip
    assert result.stdout.endswith("0\n")
    assert result.stderr == ""


def test_a_character_of_several_bytes_may_span_two_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    def written(typed: str, length: int) -> list[str]:
        pieces: list[str] = []

        def write(more: Iterable[str]) -> bool:
            pieces.extend(more)
            return True

        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode())))
        vocabulary = Vocabulary.bytes()
        Session(network_for(vocabulary), vocabulary, Choice(), length, 1, None, write).run(None)
        return pieces

    assert written("äöü\n\n\n", 3) == written("äöü\n", 9)
    assert "".join(written("äöü\n", 0)) == "äöü"


def test_it_does_not_compare(trained: Path, charrnn: Command) -> None:
    result = charrnn("sample", "--interactive", "--against", trained / "small.txt")
    assert result.returncode == 2
    assert "--interactive and --against cannot be combined" in result.stderr


# --- at a terminal ---------------------------------------------------------------------------


@contextmanager
def terminal(trained: Path, redirect: str = "", length: int = 60) -> Iterator[Any]:
    """The command at a terminal, waiting at its first prompt; `redirect` is the shell's."""
    pexpect = pytest.importorskip("pexpect", reason="a terminal to drive needs Unix")
    command = f"exec '{sys.executable}' -m charrnn sample --interactive --seed 1 --length {length} {redirect}"
    child = pexpect.spawn(
        "/bin/bash",
        ["-c", command],
        cwd=str(trained),
        env=environment() | {"TERM": "xterm-256color", "INPUTRC": "/dev/null"},
        dimensions=(24, 200),
        encoding="utf-8",
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs in the background may ignore it
    )
    try:
        child.expect("Ctrl-D quits\r\n")
        child.expect("> ")
        yield child
    finally:
        child.close(force=True)


def ends(child: Any) -> tuple[int, str]:
    """The exit code, and what was written until then."""
    rest = child.read()
    child.close()
    return child.exitstatus, rest


def test_a_text_streams_and_ctrl_d_quits(trained: Path, sample: Any) -> None:
    with terminal(trained) as child:
        child.sendline("The ferry")
        child.expect("\r\n> ")
        echoed, text = child.before.split("\r\n", 1)
        assert echoed.endswith("The ferry")
        expected = sample("The ferry", "--seed", 1, "--length", 60)
        assert text.replace("\r\n", "\n").removesuffix("\n") == expected.removesuffix("\n")
        child.sendeof()
        assert ends(child)[0] == 0


def test_the_line_can_be_edited_and_comes_back_from_the_history(trained: Path) -> None:
    pytest.importorskip("readline", reason="this Python has no line editing")
    with terminal(trained) as child:
        child.sendline("Te ferry\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x1b[Dh")  # seven to the left
        child.expect("\nThe ferry")
        child.expect("\r\n> ")
        child.sendline("A bell")
        child.expect("\nA bell")
        child.expect("\r\n> ")
        child.sendline("\x1b[A\x1b[A")  # two up
        child.expect("\nThe ferry")


def test_ctrl_c_at_the_prompt_quits(trained: Path) -> None:
    with terminal(trained) as child:
        child.send("The")
        child.expect("The")
        child.sendintr()
        code, rest = ends(child)
        assert code == 130
        assert "Traceback" not in rest


def test_ctrl_c_stops_the_text_alone_and_nothing_of_it_is_lost(trained: Path, sample: Any, tmp_path: Path) -> None:
    """The text goes to a file, the talk stays on the terminal."""
    out = tmp_path / "out.txt"
    with terminal(trained, f"> '{out}'", length=100_000_000) as child:
        for line in ("The ferry", "", ""):
            size = out.stat().st_size
            child.sendline(line)
            deadline = time.monotonic() + 60
            while out.stat().st_size < size + 1000 and time.monotonic() < deadline:
                time.sleep(0.01)
            child.sendintr()
            child.expect("> ")
        child.sendeof()
        assert ends(child)[0] == 0
    text = out.read_text(encoding="utf-8")
    assert len(text) > 3000
    assert text == sample("The ferry", "--seed", 1, "--length", len(text) - len("The ferry"))
