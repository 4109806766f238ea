"""Reading, the corpus, the split and the windows."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import corpus

from charrnn import CharrnnError
from charrnn.messages import Note, ignore_note
from charrnn.text.corpus import Corpus, Reading, read_corpus, training_size
from charrnn.text.reading import Source, decode, encoding_named, open_files
from charrnn.text.windows import steps_per_epoch, validation_streams, windows


def read(*paths: str, kind: str | None = None, note: Note = ignore_note) -> Corpus:
    return read_corpus(open_files(paths), Reading(kind), note)


def write(folder: Path, data: bytes | str, name: str = "text.txt") -> str:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


# --- reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text", "notes"),
    [
        (b"plain\n", "plain\n", []),
        (b"\xef\xbb\xbfmark\n", "mark\n", ["byte-order mark"]),
        (b"a\r\nb\r\n", "a\nb\n", ["2 CRLF line endings"]),
        (b"a\rb\r", "a\nb\n", ["2 lone carriage returns"]),
        (b"a\r\r\nb", "a\n\nb", ["1 CRLF line ending", "1 lone carriage return"]),
    ],
)
def test_line_endings_and_byte_order_mark_are_normalised_and_told(data: bytes, text: str, notes: list[str]) -> None:
    told: list[str] = []
    assert decode("x", data, note=told.append) == text
    assert len(told) == len(notes)
    assert all(part in line for part, line in zip(notes, told, strict=True))


def test_invalid_utf8_is_located(tmp_path: Path) -> None:
    says = r'byte 0x92 at offset 9 \(line 3\).*--encoding cp1252, which reads "one two \u2019three" there, or --errors'
    with pytest.raises(CharrnnError, match=says):
        read(write(tmp_path, b"one\r\ntwo\n\x92three"))


def test_invalid_utf8_can_be_replaced_or_read_as_latin_1() -> None:
    told: list[str] = []
    assert decode("x", b"it\x92s", errors="replace", note=told.append) == "it\ufffds"
    assert "1 invalid byte sequence" in told[0]
    assert decode("x", b"caf\xe9", encoding="iso8859-1") == "café"


def test_a_real_text_with_invalid_utf8_is_located() -> None:
    with pytest.raises(CharrnnError, match=r"byte 0x92 at offset 141,132"):
        read(str(corpus("awkward_invalid_utf8.txt")))


def test_a_real_text_with_lone_cr_and_a_mark_has_lines_afterwards() -> None:
    told: list[str] = []
    found = read(str(corpus("awkward_lone_cr_bom.txt")), note=told.append)
    assert "byte-order mark" in told[0]
    assert "lone carriage returns" in told[1]
    assert (found.ids[:] == found.vocabulary.id_of("\n")).sum() > 100


def test_nuls_and_utf16_are_refused_with_what_to_do() -> None:
    with pytest.raises(CharrnnError, match=r"NUL at offset 3.*--vocabulary bytes"):
        decode("x", "\u00e9b\0cd".encode() + b"\xff")
    with pytest.raises(CharrnnError, match=r"NUL at character 3.*--vocabulary bytes"):
        decode("x", "\u00e9b\0cd".encode())
    with pytest.raises(CharrnnError, match="empty"):
        read_corpus([Source("x", b"\xef\xbb\xbf")])
    with pytest.raises(CharrnnError, match="--encoding utf-16"):
        decode("x", "text".encode("utf-16"))
    assert decode("x", "text".encode("utf-16"), encoding="utf-16") == "text"


def test_encodings_have_one_name() -> None:
    assert encoding_named("UTF8") == "utf-8"
    assert encoding_named("Latin-1") == encoding_named("iso-8859-1")
    for no_text in ("klingon", "rot13", "hex"):
        with pytest.raises(CharrnnError, match="unknown text encoding"):
            encoding_named(no_text)


def test_files_are_joined_in_the_order_given(tmp_path: Path) -> None:
    a, b = write(tmp_path, "first ", "a.txt"), write(tmp_path, "second", "b.txt")
    found = read(b, a)
    assert "".join(found.vocabulary.decode(found.ids[:])) == "secondfirst "


# --- the corpus ------------------------------------------------------------------------------


@pytest.mark.parametrize(("strangers", "kind"), [(1, "ascii"), (2, "text")])
def test_more_than_one_stranger_in_10000_gives_the_text_its_own_vocabulary(
    tmp_path: Path, strangers: int, kind: str
) -> None:
    text = "\u0416" * strangers + "abc \u2019" * 2000
    found = read(write(tmp_path, text[:10_000]))
    assert found.vocabulary.kind == kind
    if kind == "ascii":
        assert found.ids[:][0] == found.vocabulary.unknown
    else:
        assert "\u2019" in found.vocabulary  # nothing was mapped


def test_strangers_are_counted_and_told(tmp_path: Path) -> None:
    told: list[str] = []
    read(write(tmp_path, "h\u00e9h\u00e9 \u00fb" + "a" * 100), kind="ascii", note=told.append)
    assert any("3 characters outside" in line and "\u00e9 (2), \u00fb (1)" in line for line in told)


@pytest.mark.parametrize(("name", "distinct"), [("fr_madame_bovary.txt", 95), ("zh_nahan.txt", 2494)])
def test_real_texts_in_other_scripts_keep_every_character(name: str, distinct: int) -> None:
    path = corpus(name)
    found = read(str(path))
    text = path.read_text(encoding="utf-8")
    assert found.vocabulary.kind == "text"
    assert len(found.vocabulary) == distinct
    assert "".join(found.vocabulary.decode(found.ids[:])) == text
    assert found.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_bytes_are_kept_as_they_are(tmp_path: Path) -> None:
    data = bytes(range(256)) + b"\r\n\xef\xbb\xbf"
    found = read(write(tmp_path, data), kind="bytes")
    assert found.ids[:].tobytes() == data
    assert len(found.vocabulary) == 256


# --- split and windows -----------------------------------------------------------------------


def test_the_split_of_tinyshakespeare_is_the_fields() -> None:
    assert training_size(1_115_394) == 1_003_854


def test_windows_follow_each_other_along_each_stream() -> None:
    ids = np.arange(1000, dtype=np.uint16)
    batches = list(windows(ids, 1000, batch_size=4, seq_length=10, seed=3, epoch=0))
    assert len(batches) == steps_per_epoch(1000, 4, 10) == 25
    inputs = np.concatenate([batch[0] for batch in batches], axis=1)
    targets = np.concatenate([batch[1] for batch in batches], axis=1)
    assert inputs.shape == (4, 250)
    assert ((inputs[:, 1:] - inputs[:, :-1]) % 1000 == 1).all()  # on and on, round the ring
    assert ((targets - inputs) % 1000 == 1).all()
    assert sorted(inputs.ravel()) == list(range(1000))  # every character once


def test_an_epoch_starts_at_an_offset_of_seed_and_epoch_and_can_be_entered_anywhere() -> None:
    ids = np.arange(1000, dtype=np.uint16)
    first = {
        (seed, epoch): int(next(windows(ids, 1000, 4, 10, seed, epoch))[0][0, 0]) for seed in (1, 2) for epoch in (0, 1)
    }
    assert len(set(first.values())) == 4
    whole = list(windows(ids, 1000, 4, 10, 1, 1))
    rest = list(windows(ids, 1000, 4, 10, 1, 1, first=20))
    assert len(rest) == 5
    assert all((a[0] == b[0]).all() for a, b in zip(whole[20:], rest, strict=True))


def test_a_worker_reads_its_own_streams_and_nothing_else() -> None:
    class Watched:
        def __init__(self) -> None:
            self.read: set[int] = set()

        def __getitem__(self, place: slice) -> np.ndarray:
            self.read.update(range(place.start, place.stop))
            return np.arange(place.start, place.stop)

    ids: Any = [Watched(), Watched(), Watched()]
    whole = list(windows(ids[0], 1000, 4, 10, 1, 0))
    halves = [list(windows(ids[half], 1000, 4, 10, 1, 0, streams=range(2 * half - 2, 2 * half))) for half in (1, 2)]
    for window, one, other in zip(whole, *halves, strict=True):
        for together, first, second in zip(window, one, other, strict=True):
            np.testing.assert_array_equal(together, np.concatenate([first, second]))
    assert len(ids[0].read) == 1000
    assert max(len(ids[1].read), len(ids[2].read)) <= 502  # with the target after each stream's last character


@pytest.mark.parametrize(("characters", "start"), [(100_000, 90_000), (700, 630), (80, 72), (2_000_000, 1_800_000)])
def test_validation_scores_each_character_once_after_its_warm_up(characters: int, start: int) -> None:
    ids = np.arange(characters, dtype=np.uint32)
    inputs, targets, weights = validation_streams(ids, start, seq_length=64)
    scored = targets[weights == 1]
    assert len(set(scored)) == len(scored)
    assert scored.min() == start
    if characters - start <= 50_000:
        assert sorted(scored) == list(range(start, characters))
    else:
        assert len(scored) == 50_000
        assert scored.max() > characters - 10_000  # spread over the whole part
    assert (targets - inputs == 1)[weights == 1].all()
    warm_up = (weights.cumsum(axis=1) == 0).sum(axis=1)
    assert (warm_up == min(256, start - 1)).all()
    assert inputs.shape[1] % 64 == 0


# --- other encodings -------------------------------------------------------------------------

RUSSIAN = "Мама мыла раму. Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива. "
CHINESE = "我在年青時候也曾經做過許多夢，後來大半忘卻了，但自己也並不以爲可惜。"
GERMAN = "Zwölf Boxkämpfer jagen Viktor quer über den großen Deich, und niemand weiß, warum. "
QUOTES = "\u201cIt\u2019s late,\u201d she said \u2013 and left the room without another word\u2026 "


@pytest.mark.parametrize(
    ("text", "written", "suggested", "reads"),
    [
        (RUSSIAN, "koi8-r", "koi8-r", "Мама мыла раму."),
        (RUSSIAN.lower(), "koi8-r", "koi8-r", "мама мыла раму."),
        (RUSSIAN, "cp1251", "cp1251", "Мама мыла раму."),
        (CHINESE, "gb18030", "gb18030", "我在年青時候"),
        (CHINESE, "big5", "big5", "我在年青時候"),
        (GERMAN, "latin-1", "cp1252", "Zwölf Boxkämpfer"),
        (QUOTES, "cp1252", "cp1252", "\u201cIt\u2019s late"),
    ],
)
def test_another_encoding_is_suggested_by_name_with_a_piece_of_the_text(
    tmp_path: Path, text: str, written: str, suggested: str, reads: str
) -> None:
    data = (text * 30).encode(written, "ignore")
    with pytest.raises(CharrnnError) as caught:
        read(write(tmp_path, data))
    message = str(caught.value)
    assert f"try --encoding {suggested}, which reads" in message
    assert reads in message
    assert decode("x", data, suggested) == data.decode(written)


@pytest.mark.parametrize(
    "data",
    [
        (GERMAN * 30).encode()[: GERMAN.encode().index(b"\xc3\xb6") + 1 + len(GERMAN.encode())],  # cut within a letter
        (GERMAN * 30).encode() + b"\x92" + GERMAN.encode(),
    ],
)
def test_for_utf8_with_a_few_bad_bytes_no_other_encoding_is_suggested(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CharrnnError, match="is not valid UTF-8; try --errors replace to read such bytes as U"):
        read(write(tmp_path, data))


def test_where_nothing_is_sure_no_encoding_is_named(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(1, 256, 20_000).astype(np.uint8).tobytes()
    with pytest.raises(CharrnnError, match="try another --encoding, or --errors replace"):
        read(write(tmp_path, data))


def test_utf8_that_was_read_as_something_else_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(CharrnnError, match="is not valid ASCII; try --encoding utf-8"):
        decode("x", GERMAN.encode(), "ascii")


@pytest.mark.parametrize(
    ("case", "suggested"),
    [
        ("cp1252.txt", "--encoding cp1252"), ("koi8.txt", "--encoding koi8-r"), ("gbk.txt", "--encoding gb18030"),
        ("sjis.txt", "--encoding cp932"), ("cut_utf8.txt", "--errors replace"),
    ],
)  # fmt: skip
def test_what_users_have_is_told_what_reads_it(case: str, suggested: str) -> None:
    path = corpus(f"../cases/{case}")
    with pytest.raises(CharrnnError, match=f"is not valid UTF-8; try {suggested}"):
        read(str(path))


# --- a validation part that is unlike the rest -----------------------------------------------


def notes_of(path: str) -> list[str]:
    told: list[str] = []
    read(path, note=told.append)
    return told


def test_characters_that_only_the_validation_part_has_are_reported(tmp_path: Path) -> None:
    path = write(tmp_path, "a line of letters that is longer than those of lists are\n" * 90 + "12 34 " * 95 + "\n")
    told = notes_of(path)
    assert [line for line in told if "of the characters in the last tenth of the text" in line] == told[1:]
    assert told[1].startswith("66.5%")
    assert len(notes_of(write(tmp_path, "a line of letters that is longer than those of lists are\n" * 100))) == 1


def test_a_list_in_alphabetical_order_is_told_how_to_shuffle_it(tmp_path: Path) -> None:
    names = sorted(f"{a}{b}{c}" for a in "BCDFGKLM" for b in "aeiou" for c in ("ra", "len", "nny", "t's"))
    path = write(tmp_path, "\n".join(names) + "\n", "my names.txt")
    told = notes_of(path)
    assert "the lines are in alphabetical order" in told[-2]
    command = told[-1].removeprefix("if the order of the lines does not matter, shuffle them: ")
    assert subprocess.run(command, shell=True, cwd=tmp_path, check=True).returncode == 0
    shuffled = (tmp_path / "my names-shuffled.txt").read_text().splitlines()
    assert shuffled != names
    assert sorted(shuffled) == names
    assert (tmp_path / "my names.txt").read_text().splitlines() == names
    assert len(notes_of(str(tmp_path / "my names-shuffled.txt"))) == 1
    wide: list[str] = []
    (tmp_path / "wide.txt").write_text("\n".join(names) + "\n", encoding="utf-16")
    # shuf would cut its lines within characters.
    read_corpus(open_files([str(tmp_path / "wide.txt")]), Reading(encoding="utf-16"), wide.append)
    assert wide[-1] == "if the order of the lines does not matter, shuffle them"
    assert len(notes_of(write(tmp_path, "hello\n" * 500))) == 1
