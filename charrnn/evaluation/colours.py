"""A text with its surprise as the colour behind it, for a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import numpy as np

from charrnn.evaluation.tally import Nats
from charrnn.messages import show_controls
from charrnn.text.vocabulary import Decoder, Vocabulary

# From one nat on, a colour for each; ColorBrewer's YlOrRd (Brewer, Harrower) and the nearest of 256 colours.
_COLOURS = ((255, 237, 160), (254, 217, 118), (254, 178, 76), (253, 141, 60), (240, 59, 32), (189, 0, 38))
_OF_256 = (229, 222, 215, 209, 202, 124)
_LIGHT_LETTERS = 4  # from this colour on
_RESET = "\x1b[0m"


class Painter:
    """Paints a text that comes in pieces."""

    def __init__(self, vocabulary: Vocabulary, colours: int) -> None:
        """Choose from 1 << 24, 256 or no colours."""
        self._styles = [_style(level, colours) for level in range(len(_COLOURS))] if colours else []
        self._decoder = Decoder(vocabulary) if vocabulary.kind == "bytes" else None
        self._waiting = 0.0  # nats of the bytes of an unfinished character

    def legend(self) -> str:
        """One line that shows the colours; empty without any."""
        if not self._styles:
            return ""
        last = len(self._styles)
        levels = [
            f"{style} {level}{'+' if level == last else ''} {_RESET}" for level, style in enumerate(self._styles, 1)
        ]
        return f"surprise in nats: {''.join(levels)}\n"

    def paint(self, text: str, nats: Nats) -> Iterator[str]:
        """The next piece, painted.

        Args:
            text: N characters; for a `bytes` model, U+0000 to U+00FF are the bytes.
            nats: of each, (N,); nan for a character that was not scored.
        """
        now = ""
        for character, surprise in zip(text, np.nan_to_num(nats).tolist(), strict=True):
            self._waiting += surprise
            shown = character if self._decoder is None else self._decoder.decode((ord(character),))
            if not shown:
                continue
            level = min(int(self._waiting), len(self._styles))
            self._waiting = 0.0
            # A coloured newline would colour the rest of the line.
            style = self._styles[level - 1] if level and character != "\n" else ""
            if style != now:
                yield (_RESET if now else "") + style
                now = style
            yield show_controls(shown) if self._styles else shown
        if now:
            yield _RESET


def _style(level: int, colours: int) -> str:
    # Black and white by number: themes make something else of their names.
    is_light = level >= _LIGHT_LETTERS
    if colours == 256:
        return f"\x1b[38;5;{231 if is_light else 16};48;5;{_OF_256[level]}m"
    return f"\x1b[38;2;{'255;255;255' if is_light else '0;0;0'};48;2;{';'.join(map(str, _COLOURS[level]))}m"


def colours_of(is_terminal: bool, environment: Mapping[str, str] = os.environ) -> int:
    """How many colours stdout has, as the usual variables say: 1 << 24, 256 or none."""
    term = environment.get("TERM", "")
    if not is_terminal or environment.get("NO_COLOR") or term in ("", "dumb"):
        return 0
    if environment.get("COLORTERM", "") in ("truecolor", "24bit"):
        return 1 << 24
    return 256 if "256color" in term else 0
