"""How many threads BLAS has for a step: as many as were fastest a moment ago.

threads = BlasThreads(multiply)
threads.run(step, x)

The threads of OpenBLAS, which NumPy brings, wait for each other at every product. On a machine with nothing else to
do two of them multiply by a large kernel in half the time of one; where another program has one of the cores, they
can take tens of times as long as one. So neither number is right, and steps are timed.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVarTuple

import numpy as np
import numpy.typing as npt

_Arguments = TypeVarTuple("_Arguments")

_BLOCK_SECONDS = 0.025  # of steps that are timed together: longer than another program has a core for at a time
_BLOCK_STEPS = 4  # at the least
_TRIAL_EVERY = 64  # blocks; a bad one, and the moments until the machine has recovered from it, take as long as four
_MOST_THREADS = 8
_LOCK = threading.Lock()  # the number is that of the whole process: one step at a time


class FastestNumber:
    """The number of threads to make the next step with, by the time that the steps before it took.

    Steps come in blocks. Each block has the number that was fastest when it was last tried, except that now and then
    one tries the number that has not been tried for longest.

    Attributes:
        number: of threads, for the next step.
        seconds: of a step with each number, when it was last tried; 0 before. The number tried last comes last.
    """

    def __init__(self, numbers: Sequence[int], similar: FastestNumber | None = None) -> None:
        """Go on from what is known of similar steps, and begin with numbers of which nothing is known."""
        known = similar.seconds if similar else {}
        self.seconds: dict[int, float] = {number: 0.0 for number in reversed(numbers) if number not in known}
        self.seconds |= {number: seconds for number, seconds in known.items() if number in numbers}
        self.number = min(self.seconds, key=self.seconds.__getitem__)
        self._blocks: int = similar._blocks if similar else 0
        self._steps, self._spent = 0, 0.0

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
    """Makes steps with the number of threads that they are fastest with.

    Before and after a step NumPy has the number that it was given, and no step has more. Numbers of threads that do
    not give the very same products are not used, so that what is computed does not depend on what else the machine
    does.
    """

    def __init__(
        self, multiply: Callable[[], Sequence[npt.NDArray[np.float32]]], similar: BlasThreads | None = None
    ) -> None:
        """Find the numbers of threads that there are to choose from.

        Args:
            multiply: makes products as a step's; called once for each number.
            similar: what made such steps before, to go on from what it knows.
        """
        expected: list[bytes] = []
        numbers = []
        with _LOCK:
            for number in (1 << power for power in range(min(threads_now(), _MOST_THREADS).bit_length())):
                with _limited(number):
                    is_given = threads_now() == number
                    found = [product.tobytes() for product in multiply()]
                expected = expected or found
                if is_given and found == expected:
                    numbers.append(number)
        self._choice: FastestNumber = FastestNumber(numbers or [1], similar._choice if similar else None)

    def run(self, step: Callable[[*_Arguments], None], *arguments: *_Arguments) -> None:
        """Make a step."""
        with _LOCK:
            most, chosen = threads_now(), self._choice.number
            began = time.perf_counter()
            if chosen == most:
                step(*arguments)
            else:
                with _limited(chosen if chosen < most else 1):
                    step(*arguments)
            if chosen <= most:
                self._choice.took(time.perf_counter() - began)


def threads_now() -> int:
    """How many BLAS has."""
    return min((library.num_threads for library in _libraries()), default=1)


@contextlib.contextmanager
def _limited(number: int) -> Iterator[None]:
    """Give BLAS so many threads: as `threadpoolctl.threadpool_limits`, which takes four times as long about it."""
    before = [(library, library.num_threads) for library in _libraries()]
    try:
        for library, _ in before:
            library.set_num_threads(number)
        yield
    finally:
        for library, number_before in before:
            library.set_num_threads(number_before)
            if hasattr(library, "clear_controlling_thread"):  # or no other thread of Python could set a number
                library.clear_controlling_thread()


@functools.cache
def _libraries() -> list[Any]:
    """The controllers of BLAS: none where NumPy has one that takes no number, as Apple's."""
    from threadpoolctl import ThreadpoolController  # large networks alone want it

    controllers: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
    return controllers
