"""Texts that older programs stumbled over: what comes of each is a row of docs/reliability.md."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import PROJECT, SMALL, Command, environment
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(PROJECT / "scripts"))

from _forge import GOOD, sealed, small_checkpoint

from charrnn import CharrnnError
from charrnn.messages import one_line
from charrnn.runs.checkpoint import from_bytes, to_bytes
from charrnn.text.corpus import Reading, read_corpus
from charrnn.text.reading import Source, decode, open_files

EMOJI = "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f\n"
RIGHT_TO_LEFT = "\u05e9\u05dc\u05d5\u05dd \u200f\u0627\u0644\u0633\u0644\u0627\u0645\u202b\n"
CJK = "".join(map(chr, range(0x4E00, 0x4E00 + 5000)))

# title in the docs, bytes, options, and the text that is read or why it is refused
READ: list[tuple[str, bytes, dict[str, str], str]] = [
    ("UTF-8 byte-order mark", b"\xef\xbb\xbfa text\n", {}, "a text\n"),
    ("UTF-16 with its mark, as UTF-16", "a text\n".encode("utf-16"), {"encoding": "utf-16"}, "a text\n"),
    ("CRLF", b"a\r\ntext\r\n", {}, "a\ntext\n"),
    ("lone CR", b"a\rtext\r", {}, "a\ntext\n"),
    ("NULs, as bytes", b"a\0b", {"kind": "bytes"}, "a\0b"),
    ("a line of 50 MB", b"x yz " * 10_000_000, {}, "x yz " * 10_000_000),
    ("one distinct character", b"a" * 3000, {}, "a" * 3000),
    ("only newlines", b"\n" * 3000, {}, "\n" * 3000),
    ("5,000 distinct characters", CJK.encode(), {}, CJK),
    ("emoji with joiners", EMOJI.encode(), {}, EMOJI),
    ("right-to-left text", RIGHT_TO_LEFT.encode(), {}, RIGHT_TO_LEFT),
]
REFUSED: list[tuple[str, bytes, dict[str, str], str]] = [
    (
        "UTF-16 with its mark",
        "a text".encode("utf-16"),
        {},
        "UTF-16 byte-order mark; convert it to UTF-8, or train on it with --encoding utf-16",
    ),
    (
        "UTF-32 with its mark",
        "a text".encode("utf-32"),
        {},
        "UTF-32 byte-order mark; convert it to UTF-8, or train on it with --encoding utf-32",
    ),
    ("UTF-16 without a mark", "a text".encode("utf-16-le"), {}, "NUL at character 2"),
    ("half a surrogate pair, in UTF-8", b"a\xed\xa0\x80", {}, "byte 0xed at offset 1"),
    (
        "half a surrogate pair, in UTF-16",
        "a\ud800b".encode("utf-16", "surrogatepass"),
        {"encoding": "utf-16"},
        "is not valid UTF-16",
    ),
    ("half a surrogate pair, in UTF-7", b"a+2AA-", {"encoding": "utf-7"}, "cannot be decoded as utf-7"),
    ("NULs", b"a text\0 text", {}, "NUL at character 7"),
    ("gzip", gzip.compress(b"a text"), {}, "compressed with gzip, not text; unpack it"),
    (
        "RTF",
        b"{\\rtf1\\ansi one}",
        {},
        "RTF, a word processor's format, not text; save it as plain text",
    ),
    ("PDF", b"%PDF-1.4\n1 0 obj\n", {}, "a PDF, not text; convert it"),
    ("zip, .docx, .epub", b"PK\x03\x04" + bytes(100), {}, "a zip archive"),
    ("nothing but a byte-order mark", b"\xef\xbb\xbf", {}, "empty"),
]
OTHERS = {  # tested below
    "a file that grows while it is read",
    "a file that shrinks while it is read",
    "a FIFO",
    "a file name with spaces, newlines and bytes that are not UTF-8",
    "a prime with a space where the vocabulary has none",
}


def titles(rows: list[tuple[str, bytes, dict[str, str], str]]) -> list[str]:
    return [row[0] for row in rows]


@pytest.mark.parametrize(("_", "data", "options", "text"), READ, ids=titles(READ))
def test_it_is_read(tmp_path: Path, _: str, data: bytes, options: dict[str, str], text: str) -> None:
    (tmp_path / "x.txt").write_bytes(data)
    found = read_corpus(open_files([str(tmp_path / "x.txt")]), Reading(**options))
    if len(text) < 10_000:
        assert "".join(found.vocabulary.decode(found.ids[:])) == text
    else:
        assert len(found.ids) == len(text)
        assert (found.ids[:] == found.vocabulary.encode(text)).all()


@pytest.mark.parametrize(("_", "data", "options", "reason"), REFUSED, ids=titles(REFUSED))
def test_it_is_refused_in_one_line(tmp_path: Path, _: str, data: bytes, options: dict[str, str], reason: str) -> None:
    (tmp_path / "x.txt").write_bytes(data)
    with pytest.raises(CharrnnError, match=re.escape(reason)) as caught:
        read_corpus(open_files([str(tmp_path / "x.txt")]), Reading(**options))
    assert str(caught.value) == one_line(str(caught.value))


def test_the_docs_have_a_row_for_each() -> None:
    table = (PROJECT / "docs" / "reliability.md").read_text(encoding="utf-8").split("## Bad text")[1]
    rows = {line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")}
    assert rows - {"text"} == {*titles(READ), *titles(REFUSED), *OTHERS}


# --- files that change, and what is no file --------------------------------------------------


@contextlib.contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Do something over and over in another thread."""
    done = threading.Event()

    def loop() -> None:
        while not done.is_set():
            work()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def content(path: Path) -> bytes:
    return b"".join(Source.open(str(path)).blocks())


BLOCK = b"0123456789abcdef" * 4096


def test_a_file_that_grows_is_read_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(BLOCK)

    def grow() -> None:
        if path.stat().st_size < 1 << 26:
            with open(path, "ab") as file:
                file.write(BLOCK)

    with meanwhile(grow):
        for _ in range(10):
            least = path.stat().st_size
            data = content(path)
            assert least <= len(data) <= path.stat().st_size
            assert data == (BLOCK * (len(data) // len(BLOCK) + 1))[: len(data)]


def test_a_file_that_shrinks_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(BLOCK * 64)

    def shrink() -> None:
        os.truncate(path, len(BLOCK))
        with open(path, "ab") as file:
            file.write(BLOCK * 63)

    with meanwhile(shrink):
        for _ in range(200):
            data = content(path)
            assert len(data) >= len(BLOCK)
            assert data == (BLOCK * 64)[: len(data)]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs Unix")
def test_a_fifo_is_read_to_its_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    writer = threading.Thread(target=lambda: (tmp_path / "fifo").write_bytes(BLOCK * 8))
    writer.start()
    data = content(tmp_path / "fifo")
    writer.join()
    assert data == BLOCK * 8


# --- through the commands --------------------------------------------------------------------


def test_a_prime_with_a_space_where_the_vocabulary_has_none(charrnn: Command, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(to_bytes(small_checkpoint("abc\n")))
    sample = ("sample", "--checkpoint", "x.safetensors", "--prime", "a b", "--length", "0", "--seed", "1")
    result = charrnn(*sample)
    assert result.returncode == 2
    assert "the model does not know 'U+0020' at position 2 of the prime" in result.stderr
    assert charrnn(*sample, "--unknown", "skip").stdout == "ab"
    assert charrnn(*sample, "--unknown", "replace").stdout == "ab"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_awkward_texts_train_and_sample(tmp_path: Path) -> None:
    """One process trains on all of them: TensorFlow starts once."""
    texts = {
        "one": "a" * 2000,
        "newlines": "\n" * 2000,
        "5000": CJK,
        "emoji": EMOJI * 150,
        "right-to-left": RIGHT_TO_LEFT * 150,
        os.fsdecode(b" a b\n\xff"): "a strange name " * 100,
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    code = (
        "import sys\n"
        "from charrnn.cli.main import cli\n"
        "for file in sys.argv[1:]:\n"
        f"    cli.main(['train', file, *{SMALL!r}, '--epochs', '1'], standalone_mode=False)\n"
    )
    files = [f"{name}.txt" for name in texts]
    trained = subprocess.run(
        [sys.executable, "-c", code, *files], cwd=tmp_path, capture_output=True, env=environment(), check=False
    )
    assert trained.returncode == 0, trained.stderr.decode()
    assert rb"charrnn sample --checkpoint ' a b\n\udcff'" in trained.stderr
    for name, text in texts.items():
        command = [sys.executable, "-m", "charrnn", "sample", "--checkpoint", name, "--length", "60"]
        sample = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment(), check=False)
        assert sample.returncode == 0, sample.stderr
        assert len(sample.stdout.decode()) == 60
        if not text.isascii():  # a vocabulary of its own
            assert set(sample.stdout.decode()) <= set(text)
    picture = subprocess.run(
        [sys.executable, "-m", "charrnn", "plot-loss"], cwd=tmp_path, capture_output=True, env=environment(), check=True
    )
    assert picture.stdout == b"checkpoints/ a b\n\xff/loss.png\n"


# --- any bytes -------------------------------------------------------------------------------

ENCODINGS = ["utf-8", "utf-16", "utf-16-le", "utf-32", "utf-7", "latin-1", "cp1252", "shift_jis", "gb18030"]


pieces = st.sampled_from(
    [b"\r\n", b"\r", b"\n", b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"abc", "é漢".encode()]
)


@given(
    st.one_of(st.binary(), st.lists(st.one_of(pieces, st.binary(max_size=3))).map(b"".join)),
    st.sampled_from(ENCODINGS),
    st.sampled_from(["strict", "replace"]),
)
def test_any_bytes_are_read_as_text_or_refused_in_one_line(data: bytes, encoding: str, errors: str) -> None:
    text = message = ""
    try:
        text = decode("x", data, encoding, errors)
    except CharrnnError as error:
        message = str(error)
    assert len(message) < 400
    assert not {"\0", "\r"} & set(text)
    text.encode()  # whole characters
    if text:
        corpus = read_corpus([Source("x", data)], Reading("text", encoding, errors))
        assert "".join(corpus.vocabulary.decode(corpus.ids[:])) == text


def with_changes(changes: list[tuple[int, int, bytes]]) -> bytes:
    """The good checkpoint with pieces of it replaced."""
    data = bytearray(GOOD)
    for at, length, new in changes:
        data[at : at + length] = new
    return bytes(data)


change = st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 8), st.binary(max_size=8))


@given(st.one_of(st.binary(), st.lists(change, max_size=4).map(with_changes)), st.booleans())
def test_any_bytes_are_the_checkpoint_that_was_written_or_refused(data: bytes, seal: bool) -> None:
    if seal:
        data = sealed(data)
    found, message = None, ""
    try:
        found = from_bytes(data)
    except ValueError as error:
        message = str(error)
    assert len(message) < 400
    assert found is None or to_bytes(found) == data
