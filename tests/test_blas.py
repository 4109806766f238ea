"""How many threads the products of one stream are made with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from threadpoolctl import ThreadpoolController, threadpool_limits

from charrnn.blas import BlasThreads, FastestNumber


def numbers_taken(choice: FastestNumber, seconds_of: Callable[[int], float], length: float) -> dict[int, float]:
    """Make steps for so many seconds: how many of these each number of threads had."""
    taken = dict.fromkeys((1, 2, 4), 0.0)
    while sum(taken.values()) < length:
        number = choice.number
        taken[number] += seconds_of(number)
        choice.took(seconds_of(number))
    return taken


def test_nearly_all_steps_are_made_with_the_number_that_is_fastest_at_the_time() -> None:
    choice = FastestNumber([1, 2, 4], {})
    quiet = {1: 3e-4, 2: 2e-4, 4: 1e-4}
    busy = {1: 3e-4, 2: 8e-3, 4: 15e-3}  # threads wait until another program lets go of a core
    taken = numbers_taken(choice, quiet.__getitem__, 20)
    assert taken[4] > 0.95 * 20
    taken = numbers_taken(choice, busy.__getitem__, 20)
    assert taken[1] > 0.95 * 20
    taken = numbers_taken(choice, quiet.__getitem__, 20)
    assert taken[4] > 0.8 * 20  # each of the others has its trial within two seconds


def test_one_number_is_no_choice() -> None:
    choice = FastestNumber([1], {})
    assert numbers_taken(choice, lambda _: 1e-4, 5)[1] >= 5


def test_a_number_of_threads_that_gives_another_product_is_not_used() -> None:
    product = np.zeros(3, np.float32)

    def threads_now() -> int:
        libraries = ThreadpoolController().select(user_api="blas").lib_controllers
        return max((library.num_threads for library in libraries), default=1)

    def multiply() -> list[np.ndarray]:
        product[:] = np.float32(1e-9) if threads_now() == 2 else 0
        return [product]

    used = set()
    with threadpool_limits(4, "blas"):
        threads = BlasThreads(multiply)
        for _ in range(300):
            with threads:
                used.add(threads_now())
                assert not multiply()[0].any()
        assert threads_now() == 4
    assert used == {1, 4}
