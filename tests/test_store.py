"""Large texts: read in pieces, kept as ids in a file, found again, and never taken for what they are not."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL, Command, environment
from hypothesis import given
from hypothesis import strategies as st

from charrnn import CharrnnError
from charrnn.files import try_lock
from charrnn.text import corpus as corpus_module
from charrnn.text import store as store_module
from charrnn.text.corpus import Corpus, Reading, read_corpus
from charrnn.text.reading import LARGE, open_files
from charrnn.text.store import FOLDER, StoredIds

CJK = "".join(map(chr, range(0x4E00, 0x4E00 + 5000)))


@pytest.fixture
def every_text_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of any size are kept in files."""
    monkeypatch.setattr(corpus_module, "LARGE", 0)


def read(folder: Path, *files: str, how: Reading | None = None) -> tuple[Corpus, list[str]]:
    """Read files, with a folder for their ids: the corpus and what was told."""
    told: list[str] = []
    sources = open_files([str(folder / file) for file in files])
    return read_corpus(sources, how or Reading(), told.append, folder=folder / "ids"), told


def old(path: Path, seconds: float = 100) -> None:
    """Make a file look as if it had not been written just now."""
    then = time.time() - seconds
    os.utime(path, (then, then))


# --- a text on disk has the ids that it has in memory ----------------------------------------


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("plain text\n" * 20_000, Reading()),
        ("\ufeffone\r\ntwo\rthree “four” — five…\r\n" * 5000, Reading()),
        ("\ufeffone\r\ntwo\rthree “four” — five…\r\n" * 5000, Reading("text")),
        ("\ufeffone\r\ntwo\rthree “four” — five…\r\n" * 5000, Reading("bytes")),
        (CJK * 20, Reading()),
        ("漢字 and ASCII “quotes” " * 5000, Reading("ascii")),
        ("a😀é" * 30_000, Reading()),
        ("one\n\n\ntwo\n\n\n\n\nthree\f" * 5000, Reading(several=True, split_at="\n\n\n")),
        ("one\f\ntwo\f" * 9000, Reading("bytes", several=True, split_at="\f")),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("every_text_is_large")
def test_ids_in_a_file_are_those_in_memory(tmp_path: Path, text: str, how: Reading) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode())
    stored, told = read(tmp_path, "a.txt", how=how)
    whole = read_corpus(open_files([str(tmp_path / "a.txt")]), how)
    assert isinstance(stored.ids, StoredIds)
    assert isinstance(whole.ids, np.ndarray)
    assert (stored.ids[:] == whole.ids).all()
    assert stored.ids[:].dtype == whole.ids.dtype
    assert (stored.vocabulary, stored.sha256) == (whole.vocabulary, whole.sha256)
    assert stored.validation_start == whole.validation_start
    assert (stored.training_counts == whole.training_counts).all()
    expected = np.bincount(whole.ids[: whole.validation_start], minlength=len(whole.vocabulary))
    assert (whole.training_counts == expected).all()
    again, told_again = read(tmp_path, "a.txt", how=how)
    assert (again.ids[:] == whole.ids).all()
    assert (again.vocabulary, again.sha256) == (whole.vocabulary, whole.sha256)
    assert told_again[-1] == f"{told[-1]}, from an earlier start"
    assert told_again[:-1] == told[:-1]


@given(st.integers(0, 300), st.integers(0, 400))
def test_any_slice_of_a_file_is_that_of_an_array(first: int, end: int) -> None:
    assert (STORED[first:end] == ARRAY[first:end]).all()


@pytest.fixture(autouse=True, scope="module")
def a_stored_text(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A text of 310 characters, of which five are Chinese, in a file and in memory."""
    global STORED, ARRAY
    folder = tmp_path_factory.mktemp("stored")
    (folder / "a.txt").write_text("abc 漢\n" * 51 + "abcd", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "LARGE", 0)
        found, _ = read(folder, "a.txt")
        STORED = found.ids
    ARRAY = read_corpus(open_files([str(folder / "a.txt")])).ids[:]


def test_a_text_is_kept_in_a_file_from_a_size_on(tmp_path: Path) -> None:
    line = b"A line of some length, in plain ASCII.\n"
    (tmp_path / "small.txt").write_bytes(line * (LARGE // len(line)))
    (tmp_path / "large.txt").write_bytes(line * (LARGE // len(line) + 1))
    assert isinstance(read(tmp_path, "small.txt")[0].ids, np.ndarray)
    assert not (tmp_path / "ids").exists()
    assert isinstance(read(tmp_path, "large.txt")[0].ids, StoredIds)


def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from charrnn.text.corpus import read_corpus\n"
        "from charrnn.text.reading import open_files\n"
        "read_corpus(open_files(sys.argv[1:]), folder=Path('ids'))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )

    def peak(megabytes: int) -> int:
        (tmp_path / "large.txt").write_bytes("A line with a “quote”, é and 漢.\n".encode() * (megabytes * 25_000))
        result = subprocess.run(
            [sys.executable, "-c", code, "large.txt"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return int(result.stdout)

    assert peak(80) < peak(20) + 4 * 1024  # KiB


# --- a second start --------------------------------------------------------------------------


@pytest.mark.usefixtures("every_text_is_large")
def test_what_is_unchanged_is_found_again_and_what_is_edited_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one two three\n" * 1000)
    old(path)
    first, told = read(tmp_path, "a.txt")
    [file] = (tmp_path / "ids").glob("*.ids")
    assert f"{file} (0 MB)" in told[-1]
    # unchanged; only touched; moved: the hash decides
    for change in (lambda: None, lambda: old(path, 50), lambda: shutil.copy(path, tmp_path / "b.txt")):
        change()
        assert read(tmp_path, "b.txt" if (tmp_path / "b.txt").exists() else "a.txt")[1][-1].endswith("earlier start")
    path.write_text("one two threE\n" * 1000)  # as long
    old(path, 40)
    edited, told = read(tmp_path, "a.txt")
    assert "earlier start" not in told[-1]
    assert edited.sha256 != first.sha256
    assert len(list((tmp_path / "ids").glob("*.ids"))) == 2
    assert read(tmp_path, "b.txt")[0].sha256 == first.sha256


@pytest.mark.usefixtures("every_text_is_large")
def test_a_file_that_was_written_just_now_is_hashed(tmp_path: Path) -> None:
    """Its time does not show whether it has been written since."""
    path = tmp_path / "a.txt"
    path.write_text("one two three\n" * 1000)
    status = path.stat()
    read(tmp_path, "a.txt")
    path.write_text("one two threE\n" * 1000)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    found, told = read(tmp_path, "a.txt")
    assert "E" in found.vocabulary
    assert found.training_counts[found.vocabulary.id_of("E")] == 900
    assert "earlier start" not in told[-1]


@pytest.mark.usefixtures("every_text_is_large")
def test_each_way_to_read_a_text_has_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("“one”\n\ntwo\n\n" * 1000, encoding="utf-8")
    old(path)
    ways = [Reading(), Reading("text"), Reading("bytes"), Reading(several=True, split_at="\n\n"), Reading("ascii")]
    found = [read(tmp_path, "a.txt", how=how) for how in ways]
    assert [told[-1].endswith("earlier start") for _, told in found] == [False, False, False, False, True]
    assert len({corpus.sha256 for corpus, _ in found}) == 3  # what UTF-8 holds is what its bytes are
    for how, (corpus, _) in zip(ways, found, strict=True):
        again, told = read(tmp_path, "a.txt", how=how)
        assert (again.ids[:] == corpus.ids[:]).all()
        assert told[-1].endswith("earlier start")


# --- damage ----------------------------------------------------------------------------------


def with_other_head(data: bytes, change: Callable[[dict[str, object]], object]) -> bytes:
    line, rest = data.split(b"\n", 1)
    document = json.loads(line)
    change(document)
    return json.dumps(document, sort_keys=True).encode() + b"\n" + rest


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:-1],
    "cut in its head": lambda data: data[:200],
    "cut in its counts": lambda data: data[: data.index(b"\n") + 30],
    "longer": lambda data: data + b"\0",
    "another id": lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
    "an impossible id": lambda data: data[:-5] + b"\xff" + data[-4:],
    "another count": lambda data: with_other_byte(data, data.index(b"\n") + 1 + 4 * 7 + 1),
    "another character": lambda data: with_other_byte(data, data.index(b"\n") + 1),
    "not JSON": lambda data: b"[" * 5000 + data,
    "not JSON at all": lambda data: b"\x89PNG" + data,
    "spaces in its head": lambda data: data.replace(b'"format": 1', b'"format":  1', 1),
    "another format": lambda data: with_other_head(data, lambda head: head.update(format=2)),
    "a text's hash that is not its own": lambda data: with_other_head(data, lambda head: head.update(sha256="0" * 64)),
    "a key too many": lambda data: with_other_head(data, lambda head: head.update(more=1)),
    "a key too few": lambda data: with_other_head(data, lambda head: head.pop("size")),
    "a string for a number": lambda data: with_other_head(data, lambda head: head.update(characters="7")),
    "a huge number of characters": lambda data: with_other_head(data, lambda head: head.update(characters=10**15)),
}


def with_other_byte(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.usefixtures("every_text_is_large")
def test_a_damaged_file_is_written_again(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    (tmp_path / "a.txt").write_text("one two\n" * 1000)
    old(tmp_path / "a.txt")
    first = read(tmp_path, "a.txt")[0].ids[:]
    [file] = (tmp_path / "ids").glob("*.ids")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    again, told = read(tmp_path, "a.txt")
    assert (again.ids[:] == first).all()
    assert "earlier start" not in told[-1]
    assert file.read_bytes() == whole


@pytest.mark.usefixtures("every_text_is_large")
def test_a_fifo_in_its_place_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two\n" * 1000)
    (tmp_path / "ids").mkdir()
    os.mkfifo(tmp_path / "ids" / "0.ids")
    assert len(read(tmp_path, "a.txt")[0].ids) == 8000


@pytest.mark.usefixtures("every_text_is_large")
def test_a_file_that_loses_its_end_while_it_is_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two\n" * 100_000)
    found, _ = read(tmp_path, "a.txt")
    [file] = (tmp_path / "ids").glob("*.ids")
    os.truncate(file, 1000)
    with pytest.raises(CharrnnError, match=r"\.ids: was truncated: run the command again"):
        found.ids[700_000:700_010]


@pytest.mark.usefixtures("every_text_is_large")
@pytest.mark.parametrize("other", ["one TWO\n", "two one\n", "two\n"])  # other characters, another order, fewer
def test_a_text_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one two\n" * 1000)
    choose = corpus_module._kind_for  # between the two passes

    def write_and_choose(*args: object) -> str:
        path.write_text(other * 1000)
        return choose(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(corpus_module, "_kind_for", write_and_choose)
    with pytest.raises(CharrnnError, match=r"a\.txt: changed while charrnn read it: run the command again"):
        read(tmp_path, "a.txt")
    assert list((tmp_path / "ids").iterdir()) == []


@pytest.mark.usefixtures("every_text_is_large")
def test_a_file_that_another_process_took_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, refused = store_module.try_lock, []

    def too_late(file: Any) -> bool:
        if not refused:
            refused.append(Path(file.name))
            refused[0].unlink()
            return False
        return lock(file)

    monkeypatch.setattr(store_module, "try_lock", too_late)
    (tmp_path / "a.txt").write_text("one two\n" * 1000)
    corpus, _ = read(tmp_path, "a.txt")
    assert len(corpus.ids) == 8000
    assert len(refused) == 1
    assert [path.suffix for path in (tmp_path / "ids").iterdir()] == [".ids"]


# --- kills and full disks --------------------------------------------------------------------

READ = (
    "import sys\n"
    "from pathlib import Path\n"
    "from charrnn.text.corpus import read_corpus\n"
    "from charrnn.text.reading import open_files\n"
    "read_corpus(open_files(['large.txt']), note=print, folder=Path('ids'))\n"
)


def large_text(folder: Path) -> None:
    (folder / "large.txt").write_text("".join(random.Random(1).choices("abcdefgh \n", k=100_000)) * 170)
    old(folder / "large.txt")


def test_a_start_that_is_killed_while_it_writes_leaves_nothing_that_counts(tmp_path: Path) -> None:
    large_text(tmp_path)
    whole = read(tmp_path, "large.txt")[0].ids[:]
    [file] = (tmp_path / "ids").glob("*.ids")
    data = file.read_bytes()
    shutil.rmtree(tmp_path / "ids")
    kills = 0
    for number in range(8):
        process = subprocess.Popen([sys.executable, "-c", READ], cwd=tmp_path, stdout=subprocess.PIPE)
        while process.poll() is None and not list((tmp_path / "ids").glob("*")):
            time.sleep(0.001)
        time.sleep(0.02 * number)
        process.kill()
        process.communicate()
        kills += not list((tmp_path / "ids").glob("*.ids"))
        if list((tmp_path / "ids").glob("*.ids")):
            break
    assert kills
    found, _ = read(tmp_path, "large.txt")
    assert (found.ids[:] == whole).all()
    assert [path.name for path in (tmp_path / "ids").iterdir()] == [file.name]
    assert file.read_bytes() == data


@pytest.mark.usefixtures("every_text_is_large")
def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two\n" * 1000)
    (tmp_path / "ids").mkdir()
    for name in (".1.tmp", ".2.tmp"):
        (tmp_path / "ids" / name).write_text("half")
    with open(tmp_path / "ids" / ".1.tmp", "r+b") as written:
        assert try_lock(written)
        read(tmp_path, "a.txt")
        assert sorted(path.suffix for path in (tmp_path / "ids").iterdir()) == [".ids", ".tmp"]


def test_a_disk_without_room_is_told_before_any_training(tmp_path: Path) -> None:
    large_text(tmp_path)
    result = subprocess.run(
        [sys.executable, "-m", "charrnn", "train", "large.txt"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000)),
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        f"Error: checkpoints/{FOLDER}: cannot be written to: File too large; a text of this size is kept there as ids: "
        "free some space, or choose another folder with --checkpoints-dir"
    )
    assert list((tmp_path / "checkpoints" / FOLDER).iterdir()) == []


# --- the command -----------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs Unix")
def test_the_command_trains_on_a_large_text_from_a_file_and_from_a_pipe(tmp_path: Path, charrnn: Command) -> None:
    large_text(tmp_path)
    train = (*SMALL, "--minutes", "0.05")
    result = charrnn("train", "large.txt", *train)
    assert result.returncode == 0, result.stderr
    [file] = (tmp_path / "checkpoints" / FOLDER).iterdir()
    where = f"the ids of this text are in {file.relative_to(tmp_path)} (17 MB)"
    assert "reading 17 MB of text" in result.stderr.splitlines()
    assert where in result.stderr.splitlines()
    assert "validation loss over" in result.stderr
    text = (tmp_path / "large.txt").read_text()
    piped = charrnn("train", "-", "--name", "large", input=text)
    assert "checkpoints/large is finished" in piped.stderr
    changed = charrnn("train", "-", "--name", "large", input=f"{text[:-1]}x")
    assert changed.returncode == 1
    assert "checkpoints/large trains on another text" in changed.stderr
