"""From what a user types to ids."""

from __future__ import annotations

import pytest

from charrnn import CharrnnError
from charrnn.text.typed import encode_prime, encode_stop, unescaped
from charrnn.text.vocabulary import Vocabulary

WORDS = Vocabulary("text", "\n abcdeé")


def test_unknown_characters_of_a_prime_are_named_with_place_and_nearest() -> None:
    with pytest.raises(CharrnnError) as caught:
        encode_prime(WORDS, "aX B\u4e00X", None, print)
    message = str(caught.value)
    assert "'X' at position 2," in message
    assert "'B' at position 4 (nearest: 'b')" in message
    assert "'\u4e00' at position 5" in message
    assert message.count("'X'") == 1
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("unknown", "text"), [("skip", "a "), ("replace", "a b")])
def test_unknown_characters_can_be_skipped_or_replaced_and_it_is_said(unknown: str, text: str) -> None:
    told: list[str] = []
    ids = encode_prime(WORDS, "aX B", unknown, told.append)
    assert "".join(WORDS.decode(ids)) == text
    assert "2 characters unknown" in told[0]
    assert "'X' left out" in told[0]


def test_an_ascii_model_replaces_what_has_no_neighbour_by_its_unknown_symbol() -> None:
    vocabulary = Vocabulary.ascii()
    assert encode_prime(vocabulary, "\u4e00", "replace", lambda _: None).tolist() == [vocabulary.unknown]


def test_a_prime_is_normalised_as_the_training_text_was() -> None:
    told: list[str] = []
    ids = encode_prime(Vocabulary.ascii(), "\u201cso\u201d\r\n", None, told.append)
    assert "".join(Vocabulary.ascii().decode(ids)) == '"so"\n'
    assert len(told) == 2


def test_positions_are_those_of_the_prime_as_it_was_given() -> None:
    with pytest.raises(CharrnnError, match="'\u4e00' at position 5 of the prime"):
        encode_prime(Vocabulary.ascii(), "\u2026\u2014\r\n\u4e00", None, print)


def test_a_prime_of_bytes_is_taken_as_it_is() -> None:
    assert encode_prime(Vocabulary.bytes(), "\u00e9\udc80", None, print).tolist() == [0xC3, 0xA9, 0x80]


def test_a_plain_quote_takes_the_place_of_a_typographic_one_that_the_model_lacks() -> None:
    told: list[str] = []
    ids = encode_prime(Vocabulary("text", "\n 'd\u00e9\u00ab"), "\ufeff\u00abd\u2019\u00e9", None, told.append)
    assert ids.tolist() == [5, 3, 2, 4]
    assert told == [
        "prime: removed the byte-order mark",
        'prime: mapped 1 typographic character to ASCII (\u2019 to "\'")',
    ]


# --- stop texts ------------------------------------------------------------------------------


def test_a_stop_text_is_normalised_as_the_training_text_was() -> None:
    told: list[str] = []
    assert encode_stop(Vocabulary.ascii(), "\u201d\r\n", told.append).tolist() == [
        Vocabulary.ascii().id_of('"'),
        Vocabulary.ascii().id_of("\n"),
    ]
    assert [line.split(":")[0] for line in told] == ["stop text", "stop text"]
    assert encode_stop(Vocabulary.bytes(), "\u00e9", told.append).tolist() == [0xC3, 0xA9]


@pytest.mark.parametrize(("stop", "says"), [("", "empty"), ("\ufeff", "empty"), ("a\u4e00", "'\u4e00'")])
def test_a_stop_text_that_cannot_come_is_refused(stop: str, says: str) -> None:
    with pytest.raises(CharrnnError, match=says) as caught:
        encode_stop(WORDS, stop, lambda _: None)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(r"\n\n", "\n\n"), (r"a\tb", "a\tb"), (r"\\n", r"\n"), (r"\end", r"\end"), ("\n", "\n"), ("\\", "\\")],
)
def test_a_newline_can_be_typed(typed: str, meant: str) -> None:
    assert unescaped(typed) == meant


@pytest.mark.parametrize(
    ("known", "typed", "form"), [("caf\u00e9 ", "cafe\u0301", "NFC"), ("cafe\u0301 ", "caf\u00e9", "NFD")]
)
def test_composed_and_decomposed_letters_are_taken_for_one_another(known: str, typed: str, form: str) -> None:
    vocabulary = Vocabulary("text", known)
    told: list[str] = []
    assert "".join(vocabulary.decode(encode_prime(vocabulary, typed, None, told.append))) == known.strip()
    assert told == [f"prime: normalised to {form}, the form of the training text"]
    assert "".join(vocabulary.decode(encode_stop(vocabulary, typed, print))) == known.strip()
    with pytest.raises(CharrnnError, match="does not know 'z' at position 5 of the prime"):
        encode_prime(vocabulary, f"{known.strip()[:4]}z" if form == "NFC" else "cafez", None, print)


def test_a_form_that_the_model_does_not_know_either_is_not_taken() -> None:
    told: list[str] = []
    for typed in ("\u1112\u1161\u11ab", "e\u0323\u0302"):
        encode_prime(Vocabulary.ascii(), typed, "replace", told.append)
    assert not any("normalised" in line for line in told)


def test_what_cannot_be_seen_alone_is_named_by_its_code_point() -> None:
    for character in ("\u0301", "\u200d", "\u093e", "\u3164"):
        with pytest.raises(CharrnnError, match=f"does not know 'U\\+{ord(character):04X}' at position 2"):
            encode_prime(WORDS, f"a{character}", None, print)


def test_what_no_text_can_have_is_refused() -> None:
    for vocabulary in (WORDS, Vocabulary.ascii()):
        with pytest.raises(CharrnnError, match=r"U\+D800"):
            encode_prime(vocabulary, "a\ud800", None, print)
    with pytest.raises(CharrnnError, match=r"the prime has half of a surrogate pair \(U\+D800\) at position 2"):
        encode_prime(Vocabulary.bytes(), "a\ud800", None, print)


def test_characters_that_the_text_does_not_have_are_strangers_unless_the_source_knew_them() -> None:
    """A run on A, C, G and T that was started from a model that knows x too."""
    vocabulary = Vocabulary.ascii().restricted("ACGTx\n", "ACGT\n")
    assert len(encode_prime(vocabulary, "xACGT", None, print)) == 5
    with pytest.raises(CharrnnError, match="does not know 'H' at position 1, 'e' at position 2"):
        encode_prime(vocabulary, "Hello", None, print)
    assert len(encode_prime(vocabulary, "HxA", "skip", lambda _: None)) == 2
    with pytest.raises(CharrnnError, match="does not know 'x' in the stop text, so no sample would contain it"):
        encode_stop(vocabulary, "x", print)
