"""How many threads the products of a step are made with."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from conftest import with_blas
from threadpoolctl import threadpool_limits

from charrnn.blas import BlasThreads, FastestNumber, threads_now


def numbers_taken(choice: FastestNumber, seconds_of: Callable[[int], float], length: float) -> dict[int, float]:
    """Make steps for so many seconds: how many of these each number of threads had."""
    taken = dict.fromkeys((1, 2, 4), 0.0)
    while sum(taken.values()) < length:
        number = choice.number
        taken[number] += seconds_of(number)
        choice.took(seconds_of(number))
    return taken


def test_nearly_all_steps_are_made_with_the_number_that_is_fastest_at_the_time() -> None:
    choice = FastestNumber([1, 2, 4])
    quiet = {1: 3e-4, 2: 2e-4, 4: 1e-4}
    busy = {1: 3e-4, 2: 8e-3, 4: 15e-3}  # threads wait until another program lets go of a core
    taken = numbers_taken(choice, quiet.__getitem__, 20)
    assert taken[4] > 0.95 * 20
    taken = numbers_taken(choice, busy.__getitem__, 20)
    assert taken[1] > 0.95 * 20
    taken = numbers_taken(choice, quiet.__getitem__, 20)
    assert taken[4] > 0.8 * 20  # each of the others has its trial within two seconds


def test_one_number_is_no_choice() -> None:
    choice = FastestNumber([1])
    assert numbers_taken(choice, lambda _: 1e-4, 5)[1] >= 5


def test_a_new_choice_goes_on_from_what_is_known() -> None:
    busy = {1: 3e-4, 2: 8e-3, 4: 15e-3}
    choice = FastestNumber([1, 2, 4])
    numbers_taken(choice, busy.__getitem__, 20)
    choice = FastestNumber([1, 2], choice)
    assert numbers_taken(choice, busy.__getitem__, 1)[1] >= 1


def test_trials_are_made_though_choices_do_not_live_until_one() -> None:
    seconds = {1: 3e-4, 2: 8e-3, 4: 15e-3}
    choice = FastestNumber([1, 2, 4])
    numbers_taken(choice, seconds.__getitem__, 20)
    quiet = {1: 3e-4, 2: 2e-4, 4: 1e-4}
    taken = dict.fromkeys(quiet, 0.0)
    for _ in range(60):
        choice = FastestNumber([1, 2, 4], choice)
        for number, spent in numbers_taken(choice, quiet.__getitem__, 0.5).items():
            taken[number] += spent
    assert taken[4] > 0.8 * 30


def numbers_used(threads: BlasThreads, steps: int) -> set[int]:
    """Make so many steps: the numbers of threads that BLAS had in them."""
    used = set()
    for _ in range(steps):
        threads.run(lambda: used.add(threads_now()))
    return used


@with_blas
def test_a_number_of_threads_that_gives_another_product_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charrnn.blas._BLOCK_SECONDS", 0)
    product = np.zeros(3, np.float32)

    def multiply() -> list[np.ndarray]:
        product[:] = np.float32(1e-9) if threads_now() == 2 else 0
        return [product]

    with threadpool_limits(4, "blas"):
        threads = BlasThreads(multiply)
        assert numbers_used(threads, 300) == {1, 4}
        assert threads_now() == 4


@with_blas
def test_any_thread_of_python_can_choose_after_another_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charrnn.blas._BLOCK_SECONDS", 0)
    ones = [np.ones(3, np.float32)]
    used: list[set[int]] = []

    def elsewhere() -> None:
        used.append(numbers_used(BlasThreads(lambda: ones), 300))

    thread = threading.Thread(target=elsewhere)
    with threadpool_limits(2, "blas"):
        numbers_used(BlasThreads(lambda: ones), 300)
        thread.start()
        thread.join()
        assert threads_now() == 2
    assert used == [{1, 2}]


@with_blas
def test_a_limit_that_is_set_later_counts_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charrnn.blas._BLOCK_SECONDS", 0)
    with threadpool_limits(4, "blas"):
        threads = BlasThreads(lambda: [np.ones(3, np.float32)])
        numbers_used(threads, 3)
        with threadpool_limits(1, "blas"):
            assert numbers_used(threads, 300) == {1}
            assert threads_now() == 1
        with threadpool_limits(3, "blas"):
            assert numbers_used(threads, 300) <= {1, 2}
            assert threads_now() == 3


@with_blas
def test_an_error_leaves_the_number_of_threads_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charrnn.blas._BLOCK_SECONDS", 0)

    def fail() -> list[np.ndarray]:
        assert threads_now() != 2, "with 2"
        return []

    with threadpool_limits(2, "blas"):
        with pytest.raises(AssertionError, match="with 2"):
            BlasThreads(fail)
        assert threads_now() == 2
        threads = BlasThreads(lambda: [np.ones(3, np.float32)])

        def interrupt() -> None:
            assert threads_now() != 1, "with 1"

        assert numbers_used(threads, 4) == {2}
        with pytest.raises(AssertionError, match="with 1"):
            threads.run(interrupt)  # the number not tried yet
        assert threads_now() == 2
        numbers_used(threads, 1)  # nothing is left locked
