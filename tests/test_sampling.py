"""From logits to text."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from test_network import random_weights

from charrnn import CharrnnError
from charrnn.network.cells import CELLS
from charrnn.network.config import NetworkConfig, weight_shapes
from charrnn.network.network import Network
from charrnn.sampling.choice import Choice
from charrnn.sampling.streams import Streams, beginning, generate, read_beginning
from charrnn.text.typed import encode_prime
from charrnn.text.vocabulary import Vocabulary

LOGITS = np.log(np.array([0.4, 0.05, 0.3, 0.1, 0.15], np.float32))


def network_for(vocabulary: Vocabulary, seed: int = 0) -> Network:
    config = NetworkConfig(len(vocabulary), 8, 16, 1, "lstm")
    random = np.random.default_rng(seed)
    return Network(config, {n: random.normal(0, 0.5, s).astype(np.float32) for n, s in weight_shapes(config).items()})


def sample(vocabulary: Vocabulary, prime: str = "", length: int = 50, seed: int = 1, **choice: float) -> str:
    ids = encode_prime(vocabulary, prime, None, lambda _: None)
    new = generate(network_for(vocabulary), vocabulary, ids, length, Choice(**choice), seed)  # type: ignore[arg-type]
    return "".join(vocabulary.decode([*ids, *new]))


def distribution(choice: Choice, logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    weights = choice.weights(np.array(logits, np.float64))
    return weights / weights.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(1.0), [0.4, 0.05, 0.3, 0.1, 0.15]),
        (Choice(0.5), [0.16, 0.0025, 0.09, 0.01, 0.0225]),  # squares, before normalising
        (Choice(0), [1, 0, 0, 0, 0]),
        (Choice(1e-300), [1, 0, 0, 0, 0]),
        (Choice(1.0, top_k=2), [0.4, 0, 0.3, 0, 0]),
        (Choice(1.0, top_k=100), [0.4, 0.05, 0.3, 0.1, 0.15]),
        (Choice(1.0, top_p=0.6), [0.4, 0, 0.3, 0, 0]),
        (Choice(1.0, top_p=0.71), [0.4, 0, 0.3, 0, 0.15]),
        (Choice(1.0, top_p=1e-9), [1, 0, 0, 0, 0]),
        (Choice(1.0, top_p=1.0), [0.4, 0.05, 0.3, 0.1, 0.15]),
        (Choice(1.0, top_k=3, top_p=0.5), [0.4, 0, 0.3, 0, 0]),  # of 0.85 that are left, 0.4 is less than half
        (Choice(2.0, top_k=1), [1, 0, 0, 0, 0]),
        (Choice(1.0, min_p=0.3), [0.4, 0, 0.3, 0, 0.15]),
        (Choice(1.0, min_p=0.0), [0.4, 0.05, 0.3, 0.1, 0.15]),
        (Choice(1.0, min_p=1.0), [1, 0, 0, 0, 0]),
        (Choice(2.0, min_p=0.55), [0.4**0.5, 0, 0.3**0.5, 0, 0.15**0.5]),  # at temperature 1 0.15 would go
        (Choice(1.0, top_p=0.6, min_p=0.3), [0.4, 0, 0.3, 0, 0]),
        (Choice(1.0, top_k=4, top_p=0.9, min_p=0.3), [0.4, 0, 0.3, 0, 0.15]),
    ],
)
def test_distributions_are_the_analytic_ones(choice: Choice, expected: list[float]) -> None:
    np.testing.assert_allclose(distribution(choice, LOGITS), np.array(expected) / sum(expected), rtol=1e-5)


def reference(logits: list[float], choice: Choice) -> list[float]:
    """The distribution by the definitions, one character after another."""
    weights = [math.exp(score / choice.temperature) for score in logits]
    probability = [weight / math.fsum(weights) for weight in weights]
    kept = sorted(range(len(logits)), key=lambda id: (-probability[id], id))[: choice.top_k]
    if choice.top_p is not None:
        needed = choice.top_p * math.fsum(probability[id] for id in kept)
        kept = [id for n, id in enumerate(kept) if math.fsum(probability[i] for i in kept[:n]) < needed]
    if choice.min_p is not None:
        kept = [id for id in kept if probability[id] >= choice.min_p * max(probability)]
    total = math.fsum(probability[id] for id in kept)
    return [probability[id] / total if id in kept else 0.0 for id in range(len(logits))]


@given(
    st.lists(st.sampled_from([-3.0, 0.0, 0.25, 1.0, 2.5]) | st.floats(-4, 4, width=32), min_size=1, max_size=9),
    st.floats(0.3, 3),
    st.none() | st.integers(1, 10),
    st.none() | st.floats(0.01, 0.99),
    st.none() | st.floats(0.01, 0.99),
)
def test_any_settings_together_follow_their_definitions(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
) -> None:
    """Several rows at once; ties stay or go by their ids."""
    assume((np.diff(np.unique(logits)) > 1e-12).all())  # or rounding, there or here, makes a tie of two
    choice = Choice(temperature, top_k, top_p, min_p)
    rows = [logits, logits[::-1]]
    for row, found in zip(rows, distribution(choice, rows), strict=True):
        expected = reference(row, choice)
        # Rounding may decide at an edge: one character more or less, of the weight that the edge has.
        if [p > 0 for p in expected] == [p > 0 for p in found]:
            np.testing.assert_allclose(found, expected, rtol=1e-9)
        else:
            nearby = [
                reference(row, Choice(temperature, top_k, top_p and top_p * near, min_p and min_p * near))
                for near in (1 - 1e-9, 1 + 1e-9)
            ]
            assert any(np.allclose(found, other, rtol=1e-9) for other in nearby)


@pytest.mark.parametrize(
    "choice",
    [Choice(1.0), Choice(1.6), Choice(0.5, top_k=5), Choice(1.2, top_p=0.8), Choice(1.5, min_p=0.3)],
    ids=str,
)
def test_draws_follow_the_distribution(choice: Choice) -> None:
    """Chi-square of 20,000 seeds' first characters, against a bound that one in 10,000 would exceed by chance."""
    vocabulary = Vocabulary("text", "abcdefgh")
    network = network_for(vocabulary)
    ids = vocabulary.encode("a")
    logits = network.forward(ids[None], network.zero_state())[0][0, -1].tolist()
    draws = Streams(network, vocabulary, read_beginning(network, vocabulary, ids), choice, range(20_000)).step()
    counts = np.bincount(draws, minlength=8)
    expected = 20_000 * np.array(reference(logits, choice))
    possible = expected > 0
    assert counts[~possible].sum() == 0
    freedom = possible.sum() - 1
    assert freedom >= 2
    # Wilson and Hilferty's approximation of chi-square's quantile at 3.72 standard deviations.
    bound = freedom * (1 - 2 / (9 * freedom) + 3.72 * math.sqrt(2 / (9 * freedom))) ** 3
    assert ((counts - expected)[possible] ** 2 / expected[possible]).sum() < bound


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"temperature": math.inf}, {"top_k": 0}, {"top_p": 0}, {"top_p": 1.1}, {"min_p": -1}]
)
def test_a_choice_out_of_its_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(CharrnnError, match=next(iter(wrong))):
        Choice(**wrong)  # type: ignore[arg-type]


def test_a_seed_gives_the_same_text_and_another_another() -> None:
    vocabulary = Vocabulary.ascii()
    assert sample(vocabulary, seed=5) == sample(vocabulary, seed=5) != sample(vocabulary, seed=6)


def test_a_shorter_sample_is_the_start_of_a_longer_one() -> None:
    assert sample(Vocabulary.ascii(), "x", length=80).startswith(sample(Vocabulary.ascii(), "x", length=30))


def test_the_prime_comes_first_and_length_counts_new_characters() -> None:
    text = sample(Vocabulary.ascii(), "Once ", length=20)
    assert text.startswith("Once ")
    assert len(text) == 25
    assert sample(Vocabulary.ascii(), "Once ", length=0) == "Once "


def test_without_a_prime_a_text_starts_as_after_a_blank_line_or_a_boundary() -> None:
    assert "\n\n" + sample(Vocabulary.ascii()) == sample(Vocabulary.ascii(), "\n\n")
    several = Vocabulary("ascii", Vocabulary.ascii().characters, has_boundary=True, writes_boundary=True)
    assert beginning(several, np.zeros(0, np.uint8)).tolist() == [several.id_of("\n"), several.boundary]
    assert len(sample(Vocabulary("text", "ab"), length=9)) == 9  # there is no newline to start after
    unread = Vocabulary.ascii().restricted("ACGT", "ACGT")
    assert beginning(unread, np.zeros(0, np.uint8)).tolist() == [unread.id_of("A")] * 2
    names = several.restricted("Annabel", "Annabel")
    assert beginning(names, np.zeros(0, np.uint8)).tolist() == [names.boundary] * 2


def test_the_unknown_symbol_is_never_chosen() -> None:
    vocabulary = Vocabulary.ascii()
    network = network_for(vocabulary)
    config = network.config
    weights = {name: np.zeros(shape, np.float32) for name, shape in weight_shapes(config).items()}
    assert vocabulary.unknown is not None
    weights["softmax.bias"][vocabulary.unknown] = 20  # all but certain
    for temperature in (0, 1.0):
        ids = vocabulary.encode("a")
        new = list(generate(Network(config, weights), vocabulary, ids, 200, Choice(temperature), 1))
        assert vocabulary.unknown not in new


def test_temperature_0_takes_the_likeliest_each_time() -> None:
    vocabulary = Vocabulary("text", "abcdefgh")
    network = network_for(vocabulary)
    new = list(generate(network, vocabulary, vocabulary.encode("a"), 30, Choice(0), 1))
    ids, state = np.array([[0]]), network.zero_state()
    for id in new:
        logits, state = network.forward(ids, state)
        assert id == int(logits[0, -1].argmax())
        ids = np.array([[id]])


def test_a_long_prime_is_read_in_pieces_to_the_same_end() -> None:
    vocabulary = Vocabulary("text", "abcdefgh")
    network = network_for(vocabulary)
    prime = np.random.default_rng(0).integers(0, 8, 3500).astype(np.uint8)
    logits, _ = network.forward(prime[None], network.zero_state())
    [first] = generate(network, vocabulary, prime, 1, Choice(0), 1)
    assert first == int(logits[0, -1].argmax())


@pytest.mark.parametrize("cell", CELLS)
def test_streams_side_by_side_are_what_each_is_alone(cell: str) -> None:
    """Over 200 characters, in which some of them end; the logits are the same but for rounding."""
    vocabulary = Vocabulary.ascii()
    config = NetworkConfig(len(vocabulary), 8, 48, 2, cell)
    network = Network(config, random_weights(config))
    begun = read_beginning(network, vocabulary, vocabulary.encode("Once "))
    seeds = [7, 8, 9, 10, 11]
    alone = {seed: Streams(network, vocabulary, begun, Choice(0.9, min_p=0.01), [seed]) for seed in seeds}
    together = Streams(network, vocabulary, begun, Choice(0.9, min_p=0.01), seeds)
    for step in range(200):
        ids = together.step()
        assert ids.tolist() == [int(alone[seed].step()[0]) for seed in seeds]
        for row, seed in enumerate(seeds):
            np.testing.assert_allclose(together.logits[row], alone[seed].logits[0], rtol=0, atol=1e-4)
            assert together.log_probabilities()[row] == pytest.approx(alone[seed].log_probabilities()[0], abs=1e-4)
        if step in (50, 120):
            together.keep(np.arange(len(seeds)) != 1)
            del seeds[1]


def test_log_probabilities_are_those_of_the_whole_distribution_at_temperature_1() -> None:
    vocabulary = Vocabulary("text", "abcdefgh")
    network = network_for(vocabulary)
    begun = read_beginning(network, vocabulary, vocabulary.encode("a"))
    streams = Streams(network, vocabulary, begun, Choice(0.3, top_k=2), [1, 2, 3])
    ids = streams.step()
    expected = np.log(reference(streams.logits[0].tolist(), Choice(1.0)))
    np.testing.assert_allclose(streams.log_probabilities(), expected[ids], rtol=1e-6)


def test_sampling_speaks_any_script() -> None:
    text = sample(Vocabulary("text", "\U0001f600\u0301אבغ漢"), "漢", length=40)
    assert len(text) == 41
    assert set(text) <= set("\U0001f600\u0301אבغ漢")
