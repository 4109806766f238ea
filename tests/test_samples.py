"""Samples side by side, their length and their stop text."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import chain_model
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn.network.network import Network
from charrnn.sampling.choice import Choice
from charrnn.sampling.samples import BATCH_SIZE, Request, Sample, write_samples
from charrnn.sampling.streams import generate
from charrnn.text.vocabulary import Vocabulary


def write(
    vocabulary: Vocabulary,
    chain: str,
    length: int,
    choice: Choice,
    stop: str | None = None,
    prime: str = "",
    count: int = 1,
    noise: float = 0.0,
) -> list[Sample]:
    model = chain_model(vocabulary, chain, noise)
    ids = [
        np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)
        if vocabulary.kind == "bytes"
        else vocabulary.encode(text)
        for text in (prime, stop or "")
    ]
    request = Request(ids[0], length, choice, None if stop is None else ids[1])
    return list(write_samples(Network(model.config, model.weights), vocabulary, request, range(count)))


def texts(samples: list[Sample]) -> list[str]:
    return ["".join(sample.pieces()) for sample in samples]


AB = Vocabulary("text", "ab\n")


@given(st.text("ab", min_size=1, max_size=6), st.integers(0, 40), st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_samples_end_before_the_stop_text_or_at_their_length(stop: str, length: int, extra: int) -> None:
    """Of two letters, so that what looks like the stop text often turns out to be something else."""
    plain = texts(write(AB, "ab", length, Choice(3.0), count=5, noise=2.0))
    stopped = write(AB, "ab", length, Choice(3.0), stop, count=5 + extra, noise=2.0)
    for expected, sample in zip(plain, stopped, strict=False):
        pieces = list(sample.pieces())
        assert "".join(pieces) == expected.split(stop)[0]
        assert (sample.end == "stop") == (stop in expected)
        assert all(pieces)


def test_text_that_may_become_the_stop_text_is_held_back_and_nothing_else() -> None:
    [sample] = write(AB, "ab", 7, Choice(0), stop="bb", prime="b")
    assert list(sample.pieces()) == ["a", "ba", "ba", "ba"]
    [sample] = write(AB, "ab", 6, Choice(0), stop="\n", prime="b")
    assert list(sample.pieces()) == list("ababab")
    [sample] = write(AB, "ab", 6, Choice(0), stop="bb", prime="b")
    assert list(sample.pieces())[-1] == "b"  # it ended, and so this is not the start of anything


def test_the_stop_text_is_not_looked_for_in_the_prime() -> None:
    assert texts(write(AB, "ab", 4, Choice(0), stop="ba", prime="ab")) == ["a"]


def test_a_sample_does_not_depend_on_how_many_are_written() -> None:
    vocabulary = Vocabulary("text", "\nabcdefgh")
    count = BATCH_SIZE + 3
    many = write(vocabulary, "abcd", 60, Choice(1.0), "hh", count=count, noise=2.0)
    model = chain_model(vocabulary, "abcd", 2.0)
    network, no_prime = Network(model.config, model.weights), np.zeros(0, np.uint8)
    for seed, text in enumerate(texts(many)):
        ids = generate(network, vocabulary, no_prime, 60, Choice(1.0), seed)
        assert text == "".join(vocabulary.decode(ids)).split("hh")[0]
    assert [sample.seed for sample in many] == list(range(count))
    assert len(set(texts(many))) > BATCH_SIZE / 2


def test_samples_can_be_read_in_any_order() -> None:
    samples = write(AB, "ab", 30, Choice(3.0), "bbb", count=3, noise=2.0)
    last_first = texts(samples[::-1])
    assert last_first[::-1] == texts(write(AB, "ab", 30, Choice(3.0), "bbb", count=3, noise=2.0))


# --- bytes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "text"), [(0, ""), (1, "a"), (2, "a😀"), (4, "a😀"), (5, "a😀"), (6, "a😀a")])
def test_bytes_go_on_to_the_end_of_the_character_that_was_begun(length: int, text: str) -> None:
    [sample] = write(Vocabulary.bytes(), "a😀", length, Choice(0), prime="😀")
    assert "".join(sample.pieces()) == text
    assert len(sample.ids) == len(text.encode())
    assert sample.decoder.invalid == 0


def test_a_prime_may_end_within_a_character() -> None:
    """And what is written then completes it."""
    model = chain_model(Vocabulary.bytes(), "a😀")
    network = Network(model.config, model.weights)
    request = Request(np.frombuffer("a😀".encode()[:3], np.uint8), 1, Choice(0))
    [sample] = write_samples(network, Vocabulary.bytes(), request, [1])
    assert sample.prime == "a"
    assert "".join(sample.pieces()) == "😀"


def test_an_invalid_sequence_is_shown_and_counted() -> None:
    [sample] = write(Vocabulary.bytes(), "a\udcf0\udc9fb", 9, Choice(0), prime="b")
    assert "".join(sample.pieces()) == "a\ufffdba\ufffdba"
    assert sample.decoder.invalid == 2


def test_a_byte_model_that_ends_no_character_ends_all_the_same() -> None:
    [sample] = write(Vocabulary.bytes(), "\udcf0", 10, Choice(0), prime="\udcf0")
    assert len("".join(sample.pieces())) == 14  # with the prime's half
    assert len(sample.ids) == 13
