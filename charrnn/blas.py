"""How many threads BLAS has for a step: as many as were fastest a moment ago.

threads = BlasThreads(multiply)
with threads:
    multiply()

The threads of OpenBLAS, which NumPy brings, wait for each other at every product. On a machine with nothing else to
do two of them multiply by a large kernel in half the time of one; where another program has one of the cores, they
can take tens of times as long as one. So neither number is right, and steps are timed.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_BLOCK_SECONDS = 0.025  # of steps that are timed together: longer than another program has a core for at a time
_BLOCK_STEPS = 4  # at the least
_TRIAL_EVERY = 64  # blocks; a bad one, and the moments until the machine has recovered from it, take as long as four
_MOST_THREADS = 8


class FastestNumber:
    """The number of threads to make the next step with, by the time that the steps before it took.

    Steps come in blocks. Each block has the number that was fastest when it was last tried, except that now and then
    one tries the number that has not been tried for longest.

    Attributes:
        number: of threads, for the next step.
        seconds: of a step with each number, when it was last tried; 0 before.
    """

    def __init__(self, numbers: Sequence[int], known: Mapping[int, float]) -> None:
        """Begin with the fastest of the numbers, by the known seconds of a step; and with those not known."""
        # The number tried last comes last.
        self.seconds = {number: known.get(number, 0.0) for number in reversed(numbers)}
        self.number = min(self.seconds, key=self.seconds.__getitem__)
        self._blocks, self._steps, self._spent = 0, 0, 0.0

    def took(self, seconds: float) -> None:
        """Take into account how long a step took, with `number` threads."""
        self._steps += 1
        self._spent += seconds
        if self._spent >= _BLOCK_SECONDS and self._steps >= _BLOCK_STEPS:
            del self.seconds[self.number]
            self.seconds[self.number] = self._spent / self._steps
            self._blocks, self._steps, self._spent = self._blocks + 1, 0, 0.0
            is_trial = self._blocks % _TRIAL_EVERY == 0
            self.number = next(iter(self.seconds)) if is_trial else min(self.seconds, key=self.seconds.__getitem__)


class BlasThreads:
    """What a step is made within, so that it has the number of threads that it is fastest with.

    Outside of it NumPy has the number that it had. Numbers of threads that do not give the very same products are not
    used, so that what is computed does not depend on what else the machine does.
    """

    def __init__(
        self, multiply: Callable[[], Sequence[npt.NDArray[np.float32]]], similar: BlasThreads | None = None
    ) -> None:
        """Find the numbers of threads that there are to choose from.

        Args:
            multiply: makes products as a step's; called once for each number.
            similar: what such steps were made within before, to go on from what it knows.
        """
        self._libraries = [(library, library.num_threads) for library in _libraries()]
        expected: list[bytes] = []
        numbers = []
        for number in (1 << power for power in range(min(threads_now(), _MOST_THREADS).bit_length())):
            self._give(number)
            found = [product.tobytes() for product in multiply()]
            self._take_back(number)
            expected = expected or found
            if found == expected:
                numbers.append(number)
        self._choice: FastestNumber = FastestNumber(numbers, similar._choice.seconds if similar else {})

    def _give(self, number: int) -> None:
        for library, before in self._libraries:
            if number != before:  # it takes a microsecond or two
                library.set_num_threads(number)

    def _take_back(self, number: int) -> None:
        for library, before in self._libraries:
            if number != before:
                library.set_num_threads(before)

    def __enter__(self) -> None:
        self._given = self._choice.number
        self._give(self._given)
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._choice.took(time.perf_counter() - self._began)
        self._take_back(self._given)


def threads_now() -> int:
    """How many BLAS has."""
    return min((library.num_threads for library in _libraries()), default=1)


@functools.cache
def _libraries() -> list[Any]:
    """The controllers of BLAS: none where NumPy has one that takes no number, as Apple's."""
    from threadpoolctl import ThreadpoolController  # large networks alone want it

    controllers: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
    return controllers
