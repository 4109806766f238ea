"""How often a forked process waits for ever in NumPy alone, without charrnn, if a thread multiplied meanwhile.

    OPENBLAS_NUM_THREADS=1 python scripts/fork_numpy.py

OpenBLAS, which NumPy brings, has locks that a fork copies as they are at that moment. The child's first product
waits for them if another thread of the parent had them. docs/python.md says what to do instead.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import click
import numpy as np

PATIENCE = 5.0  # seconds for a product of some microseconds


def is_done(child: int) -> bool:
    """Wait for a child process; one that is not done after PATIENCE is killed."""
    end = time.monotonic() + PATIENCE
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.0005)
    return True


@click.command(help=__doc__)
@click.option("--forks", default=5000, show_default=True, help="How many processes.")
@click.option("--rows", default=1536, show_default=True, help="Of the matrix: four times a layer's units.")
def main(forks: int, rows: int) -> None:
    """Fork and count."""
    kernel, state = np.ones((rows, rows // 4), np.float32), np.ones((rows // 4, 1), np.float32)

    def multiply_for_ever() -> None:
        while True:
            kernel @ state

    threading.Thread(target=multiply_for_ever, daemon=True).start()
    hung = 0
    for done in range(1, forks + 1):
        child = os.fork()
        if not child:
            kernel @ state
            os._exit(0)
        hung += not is_done(child)
        print(f"\r{done:,} forks, {hung:,} never ended", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    os._exit(0)  # the thread goes on


if __name__ == "__main__":
    main()
