"""Sampling at a prompt: type a beginning, read how the model continues it, change how it chooses characters."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import numpy as np

from charrnn import CharrnnError
from charrnn.messages import plural, say, show_reading
from charrnn.network.network import Network
from charrnn.sampling.choice import RANGES, Choice
from charrnn.sampling.samples import LENGTH
from charrnn.sampling.streams import generate
from charrnn.stdout import errors_for_stdout, is_terminal
from charrnn.text.typed import encode_prime
from charrnn.text.vocabulary import Ids, Vocabulary

Write = Callable[[Iterable[str]], bool]
"""Streams text to the user. Returns whether somebody still reads it."""


class Session:
    """A model, the text that it is writing, and the settings with which it continues."""

    def __init__(
        self,
        network: Network,
        vocabulary: Vocabulary,
        choice: Choice,
        length: int,
        seed: int,
        unknown: str | None,
        write: Write,
    ) -> None:
        """Start a session with the options of `sample`.

        Args:
            network: the model.
            vocabulary: its character map.
            choice: how to choose a character, until the user changes it.
            length: number of new characters at a time, until the user changes it.
            seed: the seed for the first text; later texts use the next numbers.
            unknown: how to treat characters that the model does not know, as in `encode_prime`.
            write: writes the text.
        """
        self._network = network
        self._vocabulary = vocabulary
        self._choice = choice
        self._length = length
        self._seed = seed - 1  # of the text so far
        self._unknown = unknown
        self._write = write
        self._ids: list[int] = []  # of the text so far, including the prime
        self._coming: Iterator[int] = iter(())  # ids after them
        self._text: Iterator[str] | None = None  # one piece for each id, until the model ends it
        self._in_line = False  # whether the last text ended within a line

    def run(self, prime: Ids | None) -> None:
        """Write texts as the user asks for them, until the end of the input.

        Args:
            prime: of a first text, which is written before the first prompt.

        Raises:
            CharrnnError: there is no standard input, or the text cannot be written.
            KeyboardInterrupt: the user pressed Ctrl-C at the prompt.
        """
        if not isinstance(sys.stdin, io.TextIOWrapper):
            raise CharrnnError("standard input is closed: --interactive needs it to ask for a beginning")
        if sys.stdin.isatty():
            with contextlib.suppress(ImportError):  # Windows has no readline
                import readline  # noqa: F401 - it gives input() its line editing and history
            say("type a beginning and press Enter; Enter alone continues; :help lists the commands, Ctrl-D quits")
        else:
            sys.stdin.reconfigure(encoding="utf-8")
        sys.stdin.reconfigure(errors="surrogateescape")  # as Python decodes invalid bytes on the command line
        more = prime is None or self._begin(prime)
        while more and (line := _ask()) is not None:
            more = self._answer(line)

    def _answer(self, line: str) -> bool:
        """Do what a line asks for, and return whether somebody still reads the text."""
        if line.startswith("::"):
            line = line[1:]
        elif line.startswith(":"):
            self._command(*line[1:].split())
            return True
        if not line and self._text is not None:
            return self._go_on(self._length)
        try:
            prime = encode_prime(self._vocabulary, line, self._unknown, say, "type another beginning")
        except CharrnnError as error:
            say(f"Error: {error}")
            return True
        return self._begin(prime)

    def _begin(self, prime: Ids) -> bool:
        self._ids = []
        self._seed += 1
        self._coming = chain(map(int, prime), self._continuation(prime))
        self._text = self._vocabulary.decode(self._kept(), errors_for_stdout())
        if self._in_line and not is_terminal():  # on a terminal, the line has already been ended
            self._write("\n")
        return self._go_on(len(prime) + self._length)

    def _continuation(self, text: Ids) -> Iterator[int]:
        return generate(self._network, self._vocabulary, text, sys.maxsize, self._choice, self._seed, show_reading)

    def _kept(self) -> Iterator[int]:
        """The ids that are coming, as they are read; a new temperature may replace those after them."""
        while (id := next(self._coming, None)) is not None:
            self._ids.append(id)
            yield id

    def _go_on(self, count: int) -> bool:
        """Write the next pieces of the text, fewer after Ctrl-C, and return whether somebody still reads them."""
        with _ctrl_c() as pressed:
            return self._write(self._pieces(count, pressed))

    def _pieces(self, count: int, stopped: Callable[[], bool]) -> Iterator[str]:
        assert self._text is not None  # `_begin` has started it
        for _ in range(count):
            if stopped():
                return
            piece = next(self._text, None)
            if piece is None:
                self._text = None
                if self._in_line:
                    self._in_line = False
                    yield "\n"
                say("the model ended the text; Enter begins another")
                return
            if piece:
                self._in_line = not piece.endswith("\n")
            yield piece

    def _command(self, name: str = "", value: str = "", *rest: str) -> None:
        if name == "help" and not value:
            self._help()
        elif name == "t" and not rest:
            self._set_temperature(value)
        elif name == "length" and not rest:
            self._set_length(value)
        else:
            say(
                f"Error: {' '.join((':' + name, value, *rest)).rstrip()}: no such command; "
                ":help lists the commands, Ctrl-D quits; type two colons to begin a text with one"
            )

    def _help(self) -> None:
        say("some text     the model continues it")
        say("::) smiles    two colons begin a text with one")
        say("an empty line continues from where the text stopped")
        say(f":t 0.7        temperature, now {self._choice.temperature:g}: below 1 plays safer, above 1 wilder")
        say(f":length 500   new characters at a time, now {self._length:,}")
        say("Ctrl-C        stops a text; at the prompt it quits, as Ctrl-D does")

    def _set_temperature(self, value: str) -> None:
        try:
            temperature = float(value)
            if temperature not in RANGES["temperature"]:
                raise ValueError
        except ValueError:
            say(f"Error: {f':t {value}'.rstrip()}: the temperature must be a number, 0 or more, as in :t 0.7")
            return
        self._choice = dataclasses.replace(self._choice, temperature=temperature)
        if self._text is not None:
            self._coming = self._continuation(np.array(self._ids, self._vocabulary.dtype))
        say(f"temperature {temperature:g}")

    def _set_length(self, value: str) -> None:
        if not re.fullmatch("[0-9]{1,20}", value) or not int(value) or int(value) not in LENGTH:
            say(
                f"Error: {f':length {value[:40]}'.rstrip()}: "
                "the length must be a whole number above 0, as in :length 500"
            )
            return
        self._length = int(value)
        say(plural(self._length, "new character") + " at a time")


@contextlib.contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """Record Ctrl-C instead of raising it. The result tells whether the user has pressed it."""
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def _ask() -> str | None:
    """The next line without its line ending, or None at the end of the input."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.removesuffix("\n") if line else None
    try:
        with _stdout_on_stderr():
            return input("> ")
    except EOFError:
        say("")
        return None
    except KeyboardInterrupt:
        say("")
        raise


@contextlib.contextmanager
def _stdout_on_stderr() -> Iterator[None]:
    """Redirect file descriptor 1 to stderr, so that input() prompts and edits there, whatever stdout is."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
