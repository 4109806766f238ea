"""Reading, the character map, the split and the windows."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from conftest import corpus
from hypothesis import given
from hypothesis import strategies as st

from charrnn import CharrnnError
from charrnn.data import (
    PRINTABLE_ASCII,
    Vocabulary,
    decode,
    encoding_named,
    read_corpus,
    steps_per_epoch,
    training_size,
    validation_streams,
    windows,
)


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
    with pytest.raises(CharrnnError, match=r"byte 0x92 at offset 9 \(line 3\).*--encoding latin-1.*--errors replace"):
        read_corpus([write(tmp_path, b"one\r\ntwo\n\x92three")])


def test_invalid_utf8_can_be_replaced_or_read_as_latin_1() -> None:
    told: list[str] = []
    assert decode("x", b"it\x92s", errors="replace", note=told.append) == "it\ufffds"
    assert "1 invalid sequence" in told[0]
    assert decode("x", b"caf\xe9", encoding="iso8859-1") == "café"


def test_a_real_text_with_invalid_utf8_is_located() -> None:
    with pytest.raises(CharrnnError, match=r"byte 0x92 at offset 141,132"):
        read_corpus([str(corpus("awkward_invalid_utf8.txt"))])


def test_a_real_text_with_lone_cr_and_a_mark_has_lines_afterwards() -> None:
    told: list[str] = []
    found = read_corpus([str(corpus("awkward_lone_cr_bom.txt"))], note=told.append)
    assert "byte-order mark" in told[0]
    assert "lone carriage returns" in told[1]
    assert (found.ids == found.vocabulary.id_of("\n")).sum() > 100


def test_nuls_and_utf16_are_refused_with_what_to_do() -> None:
    with pytest.raises(CharrnnError, match=r"NUL at offset 2.*--vocabulary bytes"):
        decode("x", b"ab\0cd")
    with pytest.raises(CharrnnError, match="--encoding utf-16"):
        decode("x", "text".encode("utf-16"))
    assert decode("x", "text".encode("utf-16"), encoding="utf-16") == "text"


def test_encodings_have_one_name() -> None:
    assert encoding_named("UTF8") == "utf-8"
    assert encoding_named("Latin-1") == encoding_named("iso-8859-1")
    for no_text in ("klingon", "rot13", "hex"):
        with pytest.raises(CharrnnError, match="no text encoding"):
            encoding_named(no_text)


def test_files_are_joined_in_the_order_given(tmp_path: Path) -> None:
    a, b = write(tmp_path, "first ", "a.txt"), write(tmp_path, "second", "b.txt")
    found = read_corpus([b, a])
    assert "".join(map(found.vocabulary.decoder(), found.ids)) == "secondfirst "


# --- the vocabulary --------------------------------------------------------------------------


def test_ascii_has_97_symbols_and_an_unknown_one() -> None:
    vocabulary = Vocabulary.ascii()
    assert len(PRINTABLE_ASCII) == 97
    assert len(vocabulary) == 98
    assert vocabulary.unknown == 97
    assert vocabulary.encode("a\u4e00").tolist() == [vocabulary.id_of("a"), 97]


def test_typography_is_mapped_to_ascii() -> None:
    told: list[str] = []
    text = "\u201cIt\u2019s\u00a0\u2013 no \u2014 \u00abso\u00bb\u2026\u201d"
    assert Vocabulary.ascii().normalise(text, told.append) == '"It\'s - no -- "so"..."'
    assert "9 typographic characters" in told[0]


@pytest.mark.parametrize(("strangers", "kind"), [(1, "ascii"), (2, "text")])
def test_more_than_one_stranger_in_10000_gives_the_text_its_own_vocabulary(
    tmp_path: Path, strangers: int, kind: str
) -> None:
    text = "\u0416" * strangers + "abc \u2019" * 2000
    found = read_corpus([write(tmp_path, text[:10_000])])
    assert found.vocabulary.kind == kind
    if kind == "ascii":
        assert found.ids[0] == found.vocabulary.unknown
    else:
        assert "\u2019" in found.vocabulary  # nothing was mapped


def test_strangers_are_counted_and_told(tmp_path: Path) -> None:
    told: list[str] = []
    read_corpus([write(tmp_path, "h\u00e9h\u00e9 \u00fb" + "a" * 100)], kind="ascii", note=told.append)
    assert any("3 characters outside" in line and "\u00e9 (2), \u00fb (1)" in line for line in told)


@pytest.mark.parametrize(("name", "distinct"), [("fr_madame_bovary.txt", 95), ("zh_nahan.txt", 2494)])
def test_real_texts_in_other_scripts_keep_every_character(name: str, distinct: int) -> None:
    path = corpus(name)
    found = read_corpus([str(path)])
    text = path.read_text(encoding="utf-8")
    assert found.vocabulary.kind == "text"
    assert len(found.vocabulary) == distinct
    assert "".join(map(found.vocabulary.decoder(), found.ids)) == text
    assert found.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_bytes_are_kept_as_they_are(tmp_path: Path) -> None:
    data = bytes(range(256)) + b"\r\n\xef\xbb\xbf"
    found = read_corpus([write(tmp_path, data)], kind="bytes")
    assert found.ids.tobytes() == data
    assert len(found.vocabulary) == 256


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_decode_after_encode_gives_the_text_back(text: str) -> None:
    vocabulary = Vocabulary("text", "".join(sorted(set(text))))
    assert "".join(map(vocabulary.decoder(), vocabulary.encode(text))) == text


def test_encode_refuses_a_stranger_where_there_is_no_unknown_symbol() -> None:
    with pytest.raises(KeyError, match="z"):
        Vocabulary("text", "abc").encode("abz")


@given(st.text(st.characters(exclude_categories=["Cs"])), st.binary())
def test_bytes_never_give_half_a_character(text: str, noise: bytes) -> None:
    decoded = Vocabulary.bytes().decoder()
    assert "".join(map(decoded, text.encode())) == text
    "".join(map(decoded, noise)).encode()  # has no surrogates


@pytest.mark.parametrize(
    ("character", "nearest"), [("E", "e"), ("\u00e9", "e"), ("\u00c9", "e"), ("\u201c", '"'), ("\u4e00", None)]
)
def test_nearest_known_character(character: str, nearest: str | None) -> None:
    assert Vocabulary("text", '"e').nearest(character) == nearest


# --- split and windows -----------------------------------------------------------------------


def test_the_split_of_tinyshakespeare_is_the_fields() -> None:
    assert training_size(1_115_394) == 1_003_854


def test_windows_follow_each_other_along_each_stream() -> None:
    ids = np.arange(1000, dtype=np.uint16)
    batches = list(windows(ids, batch_size=4, seq_length=10, seed=3, epoch=0))
    assert len(batches) == steps_per_epoch(1000, 4, 10) == 25
    inputs = np.concatenate([batch[0] for batch in batches], axis=1)
    targets = np.concatenate([batch[1] for batch in batches], axis=1)
    assert inputs.shape == (4, 250)
    assert ((inputs[:, 1:] - inputs[:, :-1]) % 1000 == 1).all()  # on and on, round the ring
    assert ((targets - inputs) % 1000 == 1).all()
    assert sorted(inputs.ravel()) == list(range(1000))  # every character once


def test_an_epoch_starts_at_an_offset_of_seed_and_epoch_and_can_be_entered_anywhere() -> None:
    ids = np.arange(1000, dtype=np.uint16)
    first = {(seed, epoch): int(next(windows(ids, 4, 10, seed, epoch))[0][0, 0]) for seed in (1, 2) for epoch in (0, 1)}
    assert len(set(first.values())) == 4
    whole = list(windows(ids, 4, 10, 1, 1))
    rest = list(windows(ids, 4, 10, 1, 1, first=20))
    assert len(rest) == 5
    assert all((a[0] == b[0]).all() for a, b in zip(whole[20:], rest, strict=True))


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
        assert len(scored) <= 50_032
        assert scored.max() > characters - 10_000  # spread over the whole part
    assert (targets - inputs == 1)[weights == 1].all()
    warm_up = (weights.cumsum(axis=1) == 0).sum(axis=1)
    assert (warm_up == min(256, start - 1)).all()
    assert inputs.shape[1] % 64 == 0
