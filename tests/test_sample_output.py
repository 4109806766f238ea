"""What `charrnn sample` writes: several samples, stop texts, JSON, and what it says of them."""

from __future__ import annotations

import base64
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, Command, chain_model, corpus, environment, on_terminal
from hypothesis import given, settings
from hypothesis import strategies as st

import charrnn as library
from charrnn.runs.checkpoint import to_bytes
from charrnn.sampling.loops import LOOP_CHARACTERS, LOOP_TIMES, repeated_passage
from charrnn.text.vocabulary import Vocabulary


@pytest.fixture
def chain(tmp_path: Path) -> None:
    """Two models in the folder: a.safetensors writes `a`, U+00E9 and an emoji, b.safetensors invalid bytes."""
    text = Vocabulary("text", "ae\n\u0301\u00e9\u200d\U0001f4bb\U0001f469'")
    for name, vocabulary, chain in (
        ("text", text, "ae\u0301\U0001f469\u200d\U0001f4bb\n"),
        ("utf8", Vocabulary.bytes(), "a\u00e9\U0001f4bb\n"),
        ("noise", Vocabulary.bytes(), "a\udcf0\udc9fb\n"),
    ):
        (tmp_path / f"{name}.safetensors").write_bytes(to_bytes(chain_model(vocabulary, chain)))


def where(trained: Path) -> tuple[str, ...]:
    return ("sample", "--checkpoints-dir", str(trained / "checkpoints"))


# --- several samples -------------------------------------------------------------------------


def test_each_of_several_samples_is_what_its_seed_gives_alone(trained: Path, charrnn: Command) -> None:
    options = (*where(trained), "--prime", "The ", "--length", "60")
    several = charrnn(*options, "--seed", "5", "--count", "3")
    assert several.stderr == "seeds 5 to 7, one for each sample\n"
    *samples, end = several.stdout.split("\n%\n")
    assert end == ""
    assert samples == [charrnn(*options, "--seed", seed).stdout for seed in (5, 6, 7)]


def test_a_fresh_seed_of_several_samples_is_named(trained: Path, charrnn: Command) -> None:
    first = charrnn(*where(trained), "--count", "2", "--length", "40")
    seed = first.stderr.split()[1]
    assert charrnn(*where(trained), "--count", "2", "--length", "40", "--seed", seed).stdout == first.stdout


def test_the_stop_text_ends_each_of_several_samples(trained: Path, charrnn: Command) -> None:
    """With a newline as stop text each sample is a line."""
    options = (*where(trained), "--prime", "The ", "--length", "500", "--stop", r"\n")
    lines = charrnn(*options, "--seed", "1", "--count", "20").stdout
    assert lines.count("\n") == 20
    assert all(line.startswith("The ") for line in lines.splitlines())
    whole = charrnn(*options[:-2], "--seed", "3").stdout
    assert lines.splitlines()[2] == whole.split("\n")[0] == charrnn(*options, "--seed", "3").stdout


def test_samples_that_did_not_come_to_the_stop_text_are_counted(chain: None, charrnn: Command) -> None:
    options = ("sample", "--checkpoint", "text.safetensors", "--temperature", "0", "--seed", "1")
    result = charrnn(*options, "--stop", "'", "--length", "3", "--count", "2")
    assert result.stdout == "ae\u0301'" * 2
    assert "2 of 2 samples reached --length 3 before the stop text" in result.stderr
    assert "the sample reached --length 3" in charrnn(*options, "--stop", "'", "--length", "3").stderr
    assert charrnn(*options, "--stop", "\u0301").stderr == ""


# --- JSON ------------------------------------------------------------------------------------


def test_json_says_what_was_written_and_how_probable_it_was(trained: Path, charrnn: Command) -> None:
    options = (*where(trained), "--length", "80", "--stop", r"\n\n", "--temperature", "0.7", "--top-p", "0.9")
    plain = charrnn(*options, "--prime", "\u201cYes", "--seed", "1", "--count", "3").stdout.split("\n\n")
    result = charrnn(*options, "--prime", "\u201cYes", "--seed", "1", "--count", "3", "--json")
    samples = [json.loads(line) for line in result.stdout.splitlines()]
    assert [sample["prime"] + sample["text"] for sample in samples] == plain[:3]
    model = library.load(trained / "checkpoints" / "small")
    for sample, seed in zip(samples, (1, 2, 3), strict=True):
        assert sample["seed"] == seed
        assert sample["prime"] == '"Yes'
        assert sample["stopped"] == (len(sample["text"]) < 80)
        assert sample["settings"] == {
            "checkpoint": str(trained / "checkpoints/small/best.safetensors"),
            "length": 80, "temperature": 0.7, "top_k": None, "top_p": 0.9, "min_p": None, "stop": "\n\n",
        }  # fmt: skip
        score = model.score(sample["text"], sample["prime"])
        np.testing.assert_allclose(sample["probabilities"], np.exp(-score.nats), rtol=1e-4)
        assert sample["log_probability"] == pytest.approx(score.log_probability, rel=1e-5)
        assert sample["nats_per_character"] == pytest.approx(score.nats_per_character, rel=1e-5)
        assert math.fsum(map(math.log, sample["probabilities"])) == pytest.approx(sample["log_probability"], rel=1e-5)


def test_json_of_an_empty_sample_has_no_mean(trained: Path, charrnn: Command) -> None:
    sample = json.loads(charrnn(*where(trained), "--length", "0", "--json").stdout)
    assert sample["text"] == ""
    assert sample["nats_per_character"] is None
    assert sample["log_probability"] == 0
    assert sample["probabilities"] == []


# --- any script, any place -------------------------------------------------------------------

C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_a_length_counts_code_points_and_marks_and_joiners_survive(chain: None, charrnn: Command) -> None:
    options = ("sample", "--checkpoint", "text.safetensors", "--temperature", "0", "--seed", "1")
    assert charrnn(*options, "--length", "7").stdout == "ae\u0301\U0001f469\u200d\U0001f4bb\n"
    assert charrnn(*options, "--length", "4").stdout == "ae\u0301\U0001f469"


def test_bytes_are_written_as_whole_characters(chain: None, charrnn: Command) -> None:
    options = ("sample", "--temperature", "0", "--seed", "1", "--checkpoint")
    result = charrnn(*options, "utf8.safetensors", "--length", "5")
    assert result.stdout == "a\u00e9\U0001f4bb"
    assert result.stderr == ""
    result = charrnn(*options, "utf8.safetensors", "--stop", "\U0001f4bb")
    assert result.stdout == "a\u00e9"
    result = charrnn(*options, "noise.safetensors", "--length", "11", "--count", "2", "--json")
    assert [json.loads(line)["text"] for line in result.stdout.splitlines()] == ["a\ufffdb\na\ufffdb\na"] * 2
    assert result.stderr.splitlines()[1:] == ["4 invalid byte sequences became U+FFFD"]


def test_a_model_of_bytes_writes_its_very_bytes_to_a_pipe(chain: None, tmp_path: Path) -> None:
    """On a terminal and as JSON they are text, where what is not UTF-8 becomes U+FFFD; JSON has the bytes too."""
    call = ("sample", "--checkpoint", "noise.safetensors", "--temperature", "0", "--seed", "1", "--length", "11")
    command = [sys.executable, "-m", "charrnn", *call]
    written = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, check=True)
    assert written.stdout == b"a\xf0\x9fb\na\xf0\x9fb\na"
    as_json = subprocess.run([*command, "--json"], cwd=tmp_path, env=environment(), capture_output=True, check=True)
    line = json.loads(as_json.stdout)
    assert base64.b64decode(line["bytes"]) == written.stdout
    assert line["text"] == written.stdout.decode(errors="replace")
    shown, _ = on_terminal(tmp_path, *call)
    assert shown.splitlines()[0] == line["text"].splitlines()[0]
    stop = ["--count", "2", "--stop", b"\xf0\x9f"]
    several = subprocess.run([*command, *stop], cwd=tmp_path, env=environment(), capture_output=True, check=True)
    assert several.stdout == b"a\xf0\x9f" * 2
    asked = subprocess.run(
        [*command, "--interactive"], cwd=tmp_path, env=environment(), input=b"\n", capture_output=True, check=True
    )
    assert asked.stdout == written.stdout


@pytest.mark.parametrize("options", [(), ("--json",), ("--count", "2"), ("--count", "2", "--json")], ids=" ".join)
def test_a_c_locale_changes_nothing(chain: None, charrnn: Command, options: tuple[str, ...]) -> None:
    call = ("sample", "--checkpoint", "text.safetensors", "--prime", "\u00e9\u2019", "--seed", "1", "--stop", "\u0301")
    here, there = charrnn(*call, *options), charrnn(*call, *options, **C_LOCALE)
    assert there.returncode == 0, there.stderr
    assert there.stdout == here.stdout
    assert "\u00e9'" in here.stdout
    assert 'prime: mapped 1 typographic character to ASCII (\u2019 to "\'")' in here.stderr


@pytest.mark.parametrize("options", ["--length 9000", "--length 40000 --json", "--count 70", "--count 70 --json"])
def test_a_reader_that_has_enough_ends_it_quietly(trained: Path, options: str) -> None:
    """With nothing said of loops either, though at temperature 0 there are some: more is written than a pipe holds."""
    result = subprocess.run(
        f"'{sys.executable}' -m charrnn sample --seed 1 --temperature 0 {options} | head -c 10 >&2"
        "; echo ${PIPESTATUS[0]}",
        shell=True, executable="/bin/bash", cwd=trained, capture_output=True, text=True, check=True,
        env=environment() | {"PYTHONUNBUFFERED": ""},  # with it Python does not notice that a write was cut short
    )  # fmt: skip
    assert result.stdout == "0\n"
    said, shown = result.stderr[:-10], result.stderr[-10:]
    assert said == ("seeds 1 to 70, one for each sample\n" if "--count" in options else "")
    assert len(shown) == 10


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_on_a_terminal_what_is_said_stands_on_a_line_of_its_own(trained: Path) -> None:
    import pexpect

    call = ["-m", "charrnn", "sample", "--seed", "1", "--temperature", "0", "--length", "1001"]
    child = pexpect.spawn(sys.executable, call, cwd=str(trained), env=environment() | {"TERM": "xterm"}, timeout=60)
    text = child.read().decode().replace("\r\n", "\n")
    assert "\nthe sample with seed 1 repeats " in text


# --- loops -----------------------------------------------------------------------------------


def test_a_sample_in_a_loop_is_said_and_left_as_it_is(trained: Path, charrnn: Command) -> None:
    options = (*where(trained), "--length", "1000", "--seed", "1", "--temperature")
    result = charrnn(*options, "0")
    assert result.stderr.startswith("the sample with seed 1 repeats ")
    assert result.stderr.endswith("over and over: use a --temperature above 0\n")
    assert len(result.stdout) == 1000
    assert charrnn(*options, "1").stderr == ""


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (("--top-k", "1"), "use a larger --top-k"),
        (("--temperature", "0.1", "--top-k", "9"), "use a --temperature above 0.1, leave out --top-k or try another"),
        (("--temperature", "0.1"), "use a --temperature above 0.1 or try another --seed"),
    ],
)
def test_what_to_change_depends_on_what_was_given(
    chain: None, charrnn: Command, options: tuple[str, ...], advice: str
) -> None:
    result = charrnn("sample", "--checkpoint", "utf8.safetensors", "--seed", "1", *options)
    assert result.stderr.count("\n") == 1
    assert advice in result.stderr


def as_ids(text: str) -> np.ndarray:
    return np.array([ord(c) for c in text], np.uint32)


@given(st.text("ab", max_size=30), st.text("abc", min_size=1, max_size=70), st.integers(1, 260), st.integers(0, 69))
@settings(deadline=None)
def test_a_loop_is_what_its_definition_says(before: str, passage: str, times: int, more: int) -> None:
    text = (before + passage * times + passage[:more])[-600:]
    periods = []
    for period in range(1, len(text) // LOOP_TIMES + 1):
        repeating = 0
        while repeating < len(text) - period and text[-1 - repeating] == text[-1 - repeating - period]:
            repeating += 1
        if repeating + period >= max(LOOP_CHARACTERS, LOOP_TIMES * period):
            periods.append(period)
    found = repeated_passage(as_ids(text))
    assert (found is None) == (not periods)
    assert found is None or found == periods[0]


@pytest.mark.parametrize("name", ["tales.txt", "tinyshakespeare.txt"])
def test_real_text_is_no_loop(name: str) -> None:
    path = PROJECT / "data" / name if name == "tales.txt" else corpus(name)
    ids = as_ids(path.read_text(encoding="utf-8"))
    for end in range(200, len(ids), len(ids) // 150):
        assert repeated_passage(ids[:end]) is None
