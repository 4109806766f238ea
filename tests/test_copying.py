"""What a sample copied from a text."""

from __future__ import annotations

import difflib
import re
import unicodedata
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
from conftest import Command
from hypothesis import given, settings
from hypothesis import strategies as st
from test_progress import on_terminal

from charrnn.sampling import copying
from charrnn.sampling.copying import LEAST, find_copies, read_original
from charrnn.text.vocabulary import Vocabulary

PASSAGE = "the keeper of the light counted the boats, and one was missing"


def as_ids(text: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(text.encode("latin-1"), np.uint8)


def copied_by_search(sample: str, text: str, least: int) -> list[bool]:
    """Whether each character lies in a window of `least` that `in` finds in the text."""
    copied = [False] * len(sample)
    for start in range(len(sample) - least + 1):
        if sample[start : start + least] in text:
            copied[start : start + least] = [True] * least
    return copied


# --- the search ------------------------------------------------------------------------------


@st.composite
def samples_and_texts(draw: st.DrawFn) -> tuple[str, str]:
    """A text over few letters, and a sample pieced together of its passages and of others."""
    letters = st.text("abc"[: draw(st.integers(1, 3))], max_size=60)
    text = draw(letters)
    pieces = [draw(letters)[: draw(st.integers(0, 5))]]
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        pieces += [text[start : start + draw(st.integers(0, 50))], draw(letters)[: draw(st.integers(0, 3))]]
    return "".join(pieces), text


@settings(max_examples=500, deadline=None)
@given(samples_and_texts(), st.integers(1, 30), st.sampled_from([1, 2, 7, 1000]))
def test_copies_are_those_that_a_naive_search_finds(pair: tuple[str, str], least: int, chunk: int) -> None:
    sample, text = pair
    with patch.object(copying, "CHUNK", chunk):
        copies = find_copies(as_ids(sample), np.array_split(as_ids(text), 3), least)
    assert copies.copied.tolist() == copied_by_search(sample, text, least)
    longest = difflib.SequenceMatcher(None, sample, text, autojunk=False).find_longest_match()
    assert copies.length == longest.size
    passage = sample[copies.start : copies.start + copies.length]
    assert len(passage) == copies.length
    assert copies.position == text.index(passage)


def test_a_passage_is_found_wherever_it_stands_in_megabytes(tales: str) -> None:
    random = np.random.default_rng(0)
    text = random.integers(97, 123, 2_500_000).astype(np.uint8)
    sample = as_ids(f"{tales[:300]}{PASSAGE}{tales[300:600]}")
    for position in (0, copying.CHUNK - 1, copying.CHUNK - len(PASSAGE), len(text) - len(PASSAGE)):
        with_passage = text.copy()
        with_passage[position : position + len(PASSAGE)] = as_ids(PASSAGE)
        copies = find_copies(sample, np.array_split(with_passage, 7))
        assert (copies.start, copies.length, copies.position) == (300, len(PASSAGE), position)
        assert copies.copied.nonzero()[0].tolist() == list(range(300, 300 + len(PASSAGE)))


def test_passages_of_one_character_repeated_are_found() -> None:
    copies = find_copies(np.zeros(1000, np.uint8), [np.zeros(50_000, np.uint8)])
    assert (copies.length, copies.position) == (1000, 0)
    assert copies.copied.all()


# --- the text it is compared with ------------------------------------------------------------


def written(folder: Path, data: bytes) -> str:
    (folder / "text.txt").write_bytes(data)
    return str(folder / "text.txt")


def test_a_file_is_read_as_an_ascii_model_read_its_text(tmp_path: Path) -> None:
    file = written(tmp_path, f"\ufeffone\r\n\u201ctwo\u201d \u2014\r\n{PASSAGE}\r\n".encode())
    vocabulary = Vocabulary.ascii()
    original = read_original(file, vocabulary, "utf-8")
    sample = vocabulary.encode(f'\n"two" --\n{PASSAGE}\nx')
    assert list(original.describe(sample, find_copies(sample, original.ids()))) == [
        f"copied from {file}: 73 of 74 new characters (98.6%), in runs of 20 or more",
        f'longest passage: 73 characters, line 1: "\n"two" --\n{PASSAGE[:47]}..."',
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_a_model_with_characters_of_its_own_meets_others_in_a_file(tmp_path: Path, encoding: str) -> None:
    file = written(tmp_path, f"z\nz\nÄ {PASSAGE}é".encode(encoding))
    vocabulary = Vocabulary("text", "".join(sorted(set(PASSAGE))) + "é\u4e00")  # no newline, no z, no Ä
    original = read_original(file, vocabulary, encoding)
    sample = vocabulary.encode(f"\u4e00\u4e00 {PASSAGE}é\u4e00")
    assert list(original.describe(sample, find_copies(sample, original.ids())))[1] == (
        f'longest passage: 64 characters, line 3: " {PASSAGE[:56]}..."'
    )


def test_bytes_are_compared_as_bytes(tmp_path: Path) -> None:
    file = written(tmp_path, b"\0\n\xff" + "é".encode() * 12)
    original = read_original(file, Vocabulary.bytes(), "utf-8")
    sample = np.frombuffer("é".encode() * 11, np.uint8)
    assert list(original.describe(sample, find_copies(sample, original.ids()))) == [
        f"copied from {file}: 22 of 22 new bytes (100.0%), in runs of 20 or more",
        f'longest passage: 22 bytes, line 2: "{"é" * 11}"',
    ]


def test_bytes_that_are_not_valid_hide_nothing_else(tmp_path: Path) -> None:
    file = written(tmp_path, b"caf\xe9\n" + PASSAGE.encode())
    original = read_original(file, Vocabulary.ascii(), "utf-8")
    assert find_copies(Vocabulary.ascii().encode(PASSAGE), original.ids()).length == len(PASSAGE)


# --- the command -----------------------------------------------------------------------------


SAMPLE = ("--seed", "1", "--length", "300", "--prime", "The ferry")


def test_the_command_says_what_it_copied(trained: Path, charrnn: Command, tmp_path: Path) -> None:
    where = ("--checkpoints-dir", trained / "checkpoints")
    text = charrnn("sample", *SAMPLE, *where).stdout
    new = text.removeprefix("The ferry")
    (tmp_path / "from.txt").write_text(
        f"The ferry\n\n#{new[50:90]}#\n#{new[:25]}#\n#{new[200:210]}#\n", encoding="utf-8"
    )
    result = charrnn("sample", *SAMPLE, *where, "--against", "from.txt")
    assert result.stdout == text  # exactly, without marks
    said, longest = result.stderr.splitlines()
    assert said == f"copied from from.txt: 65 of 300 new characters ({65 / 300:.1%}), in runs of 20 or more"
    shown = new[50:90].replace("\n", "\\n")
    assert longest == f'longest passage: 40 characters, line 3: "{shown}"'


def test_a_short_longest_passage_is_said_with_its_true_length(trained: Path, charrnn: Command) -> None:
    where = ("--checkpoints-dir", trained / "checkpoints")
    original = (trained / "small.txt").read_text(encoding="utf-8")
    result = charrnn("sample", *SAMPLE, *where, "--against", trained / "small.txt")
    new = result.stdout.removeprefix("The ferry")
    longest = difflib.SequenceMatcher(None, new, original, autojunk=False).find_longest_match().size
    assert f"longest passage: {longest} characters, line " in result.stderr
    line = int(re.findall(r"line ([\d,]+)", result.stderr)[0].replace(",", ""))
    shown = re.findall(r': "(.*)"$', result.stderr)[0].replace("\\n", "\n")
    assert original.split(shown)[0].count("\n") + 1 == line
    assert longest == len(shown) or longest >= LEAST


def test_the_prime_does_not_count(trained: Path, charrnn: Command, tmp_path: Path) -> None:
    (tmp_path / "from.txt").write_text(PASSAGE, encoding="utf-8")
    where = ("--checkpoints-dir", trained / "checkpoints", "--against", "from.txt", "--seed", "1")
    result = charrnn("sample", *where, "--prime", PASSAGE, "--length", "0")
    assert result.stdout == PASSAGE
    assert result.stderr == "copied from from.txt: 0 of 0 new characters, in runs of 20 or more\n"


def test_a_file_that_cannot_be_read_is_said_before_any_text(trained: Path, charrnn: Command) -> None:
    result = charrnn("sample", "--checkpoints-dir", trained / "checkpoints", "--seed", "1", "--against", "absent.txt")
    assert (result.returncode, result.stdout) == (2, "")
    assert "absent.txt: no such file" in result.stderr


@pytest.mark.parametrize(("env", "on"), [({}, "\x1b[31m"), ({"NO_COLOR": "1"}, "\x1b[4m")])
def test_a_terminal_shows_it(trained: Path, charrnn: Command, tmp_path: Path, env: dict[str, str], on: str) -> None:
    where = ("--checkpoints-dir", str(trained / "checkpoints"))
    new = charrnn("sample", *SAMPLE, *where).stdout.removeprefix("The ferry")
    (tmp_path / "from.txt").write_text(f"The ferry#{new[50:90]}#{new[270:]}", encoding="utf-8")
    output, code = on_terminal(tmp_path, "sample", *SAMPLE, *where, "--against", "from.txt", **env)
    assert code == 0, output
    assert "\n".join(output.split("copied from")[0].splitlines()) == (
        f"The ferry{new[:50]}{on}{new[50:90]}\x1b[0m{new[90:270]}{on}{new[270:]}\x1b[0m"
    )


@pytest.mark.parametrize(("mine", "theirs"), [("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9")])
def test_a_text_with_letters_composed_otherwise_is_compared(tmp_path: Path, mine: str, theirs: str) -> None:
    """Its lines are counted in what is compared."""
    sentence = "They went to the {} by the harbour and stayed there. "
    vocabulary = Vocabulary("text", "".join(sorted(set(sentence + mine + "\n"))))
    (tmp_path / "x.txt").write_text(f"\n\n{sentence.format(theirs)}\n", encoding="utf-8")
    original = read_original(str(tmp_path / "x.txt"), vocabulary, "utf-8")
    sample = vocabulary.encode(sentence.format(mine))
    copies = find_copies(sample, original.ids())
    assert copies.copied.all()
    assert "line 3" in list(original.describe(sample, copies))[1]


@pytest.mark.parametrize("between", ["", "\n", "\u4e2d"])
def test_letters_stay_whole_in_a_text_of_one_long_line(tmp_path: Path, between: str) -> None:
    """It is read in pieces, and no piece holds the whole text."""
    text = ("\u0435\u0308" * 997 + between + "cafe\u0301") * 100  # the first letter is Cyrillic
    (tmp_path / "x.txt").write_text(text, encoding="utf-8", newline="\n")
    composed = unicodedata.normalize("NFC", text)
    original = read_original(str(tmp_path / "x.txt"), Vocabulary("text", "".join(sorted(set(composed)))), "utf-8")
    pieces = list(original.text())
    assert "".join(pieces) == composed
    assert max(map(len, pieces)) < len(composed) / 2
