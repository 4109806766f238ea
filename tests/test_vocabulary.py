"""The character map."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.text.vocabulary import PRINTABLE_ASCII, Decoder, Vocabulary


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


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_decode_after_encode_gives_the_text_back(text: str) -> None:
    vocabulary = Vocabulary("text", "".join(sorted(set(text))))
    assert "".join(vocabulary.decode(vocabulary.encode(text))) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_decode_after_encode_gives_what_ascii_knows_back(text: str) -> None:
    vocabulary = Vocabulary.ascii()
    known = "".join(c if c in vocabulary else "\ufffd" for c in text)
    assert "".join(vocabulary.decode(vocabulary.encode(text))) == known


def test_encode_refuses_a_stranger_where_there_is_no_unknown_symbol() -> None:
    with pytest.raises(KeyError, match="z"):
        Vocabulary("text", "abc").encode("abz")


@given(st.text(st.characters(exclude_categories=["Cs"])), st.binary())
def test_bytes_never_give_half_a_character(text: str, noise: bytes) -> None:
    assert "".join(Vocabulary.bytes().decode(text.encode())) == text
    "".join(Vocabulary.bytes().decode(noise)).encode()  # has no surrogates


def test_a_character_that_was_begun_is_said_at_the_end() -> None:
    assert list(Vocabulary.bytes().decode("\u00e9".encode() + b"a\xc5")) == ["", "\u00e9", "a", "", "\ufffd"]


@pytest.mark.parametrize(
    ("character", "nearest"), [("E", "e"), ("\u00e9", "e"), ("\u00c9", "e"), ("\u201c", '"'), ("\u4e00", None)]
)
def test_nearest_known_character(character: str, nearest: str | None) -> None:
    assert Vocabulary("text", '"e').nearest(character) == nearest


def test_a_typewriters_quote_is_nearest_to_the_typographic_one_that_the_model_knows() -> None:
    assert Vocabulary("text", "l\u2019a").nearest("'") == "\u2019"


def test_a_text_vocabulary_takes_plain_characters_for_typography_that_it_lacks() -> None:
    told: list[str] = []
    vocabulary = Vocabulary("text", "\u00e9'\u201c-")
    assert vocabulary.normalise("\u201c\u2019\u2026\u2014\u00e9", told.append) == "\u201c'\u2026--\u00e9"
    assert told == ["mapped 2 typographic characters to ASCII (\u2014 to '--', \u2019 to \"'\")"]


@given(st.lists(st.binary(max_size=6) | st.text(st.characters(exclude_categories=["Cs"])).map(str.encode)))
def test_bytes_are_decoded_the_same_in_any_pieces_and_invalid_sequences_counted(parts: list[bytes]) -> None:
    decoder = Decoder(Vocabulary.bytes())
    text = "".join([*(decoder.decode(list(part)) for part in parts), decoder.decode([], final=True)])
    whole = b"".join(parts)
    assert text == whole.decode("utf-8", "replace")
    invalid = len(list(re.finditer("\ufffd", text))) - whole.decode("utf-8", "ignore").count("\ufffd")
    assert decoder.invalid == invalid
