"""What a model makes of a text: the work of `charrnn evaluate`."""

from __future__ import annotations

import dataclasses
import json
import lzma
import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from charrnn import CharrnnError
from charrnn.evaluation.rows import BLOCK, Rows, cold_windows, score, streams
from charrnn.evaluation.tally import KINDS, Line, Nats, Tally
from charrnn.messages import encodable, one_line, plural
from charrnn.network.network import Network
from charrnn.runs.records import Checkpoint, CorpusIdentity
from charrnn.sampling.copying import Original, read_original
from charrnn.sampling.streams import beginning
from charrnn.text.corpus import Corpus, Reading, read_corpus
from charrnn.text.reading import names_of, open_files
from charrnn.text.vocabulary import Ids, Vocabulary, look_up
from charrnn.text.windows import SEQUENTIAL, WARM_UP, validation_streams

_SHOWN = 80  # characters of a line
_BOUNDARY = "\n"  # how a boundary between texts is shown


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts a text.

    Attributes:
        file: the name of the file, or of several.
        characters: number in the text, or of its validation part; for a `bytes` model, of bytes.
        unit: `character` or `byte`.
        unknown: number of them that the model does not know.
        tally: the sums.
        xz_bits: what xz makes of the same characters, in bits per character; None if only a sample of them was scored.
    """

    file: str
    characters: int
    unit: str
    unknown: int
    tally: Tally
    xz_bits: float | None

    @property
    def scored(self) -> int:
        """The number of scored characters."""
        return int(self.tally.counts.sum())


Scoring = Generator[tuple[str, Nats], None, Evaluation]
"""Yields the text in pieces, with the nats of each character (nan: not scored), and returns the whole."""


def evaluate_file(model: Checkpoint, file: str, width: int | None, cores: int) -> Scoring:
    """Score a text from its start; a model of several texts reads it as several, split as its own text was.

    The model reads it in parallel streams that carry their state, each warmed up on the text before it. Characters that
    the model does not know are read and scored as the unknown symbol; if the vocabulary has none, they are left out.

    Args:
        model: the model.
        file: a path; `-` is standard input.
        width: start from the zero state after every so many characters; None carries the state on.
        cores: processes to use.

    Raises:
        CharrnnError: the file cannot be read, or has nothing to score.
    """
    original = read_original(file, model.vocabulary, model.settings.encoding)
    how = _reading(model)
    return _score_original(model, dataclasses.replace(original, marked=how.marked), how, width, cores)


def _score_original(model: Checkpoint, original: Original, how: Reading, width: int | None, cores: int) -> Scoring:
    vocabulary, unknown, rest = model.vocabulary, 0, ""
    tally = Tally(vocabulary.kind == "bytes", 1 if _keeps_lines(model) else None)
    compressor = _Compressor(vocabulary)
    has_symbol = vocabulary.unknown is not None
    table = vocabulary.unrestricted.table()
    strange = vocabulary.unknown if has_symbol else len(vocabulary)
    waiting: deque[tuple[str, npt.NDArray[np.intp]]] = deque()  # texts without results, and the places scored in them

    def jobs() -> Iterator[Rows]:
        nonlocal unknown, rest
        before: Ids = beginning(vocabulary, np.zeros(0, vocabulary.dtype)) if width is None else np.zeros(0, np.uint8)
        size = BLOCK if width is None else max(1, BLOCK // width) * width
        for text in _blocks(original.text(), size + (width is not None), size):
            found = look_up(table, text)
            text = text.replace(how.mark, _BOUNDARY) if how.several else text
            compressor.add(text)
            unknown += int((found == strange).sum())
            places = np.arange(len(found)) if has_symbol else np.flatnonzero(found != strange)
            ids = found[places].astype(vocabulary.dtype)
            joined = np.concatenate([before, ids])
            if width is None:
                waiting.append((text, places))
                yield streams(before, ids)
            elif len(joined) > (width if len(before) else 1):
                waiting.append((text, places[1 - len(before) :]))
                yield cold_windows(joined, width)
            else:  # the end of the text, not a full window
                rest = text
            before = joined[-WARM_UP - 1 :] if width is None else joined[-1:]

    for found in score(Network(model.config, model.weights), jobs(), cores):
        text, places = waiting.popleft()
        nats = np.full(len(text), np.nan, np.float32)
        nats[places[: len(found)]] = found
        tally.add(text, nats)
        yield text, nats
    if rest:
        yield rest, np.full(len(rest), np.nan)
    tally.end()
    if not tally.counts.any():
        raise CharrnnError(f"{original.source.name}: has no character that the model can score")
    return Evaluation(original.source.name, compressor.characters, vocabulary.unit, unknown, tally, compressor.bits())


def evaluate_validation(model: Checkpoint, files: Sequence[str], width: int | None, cores: int, texts: Path) -> Scoring:
    """Score the validation part of the text that a run trains on, by the method of its final loss.

    Args:
        model: one of the run's checkpoints.
        files: the files of the run, in their order.
        width: see `evaluate_file`.
        cores: see `evaluate_file`.
        texts: the folder for the ids of a large text.

    Raises:
        CharrnnError: the files cannot be read, or the model was trained on another text.
    """
    settings, vocabulary = model.settings, model.vocabulary
    name = names_of(files)
    corpus = read_corpus(open_files(files), _reading(model), folder=texts).extended(vocabulary)
    if CorpusIdentity.of(corpus) != model.corpus or corpus.vocabulary.characters != vocabulary.characters:
        raise CharrnnError(
            f"{name}: is not the text that the model was trained on, whose validation part --validation scores; "
            + ("give the files in the order of the training, or " if len(files) > 1 else "")
            + "leave out --validation to score this text"
        )
    part, limit = corpus.validation_characters, model.progress.final_characters
    rows = _validation_rows(corpus, settings.seq_length, limit)
    if width is not None:
        rows, limit = cold_windows(corpus.ids[corpus.validation_start :], width), part
    characters = np.array(vocabulary.texts(_BOUNDARY), object)  # not as strings, from which NumPy strips NUL
    jobs = [
        Rows(rows.ids[some], rows.scored[some]) for some in np.array_split(np.arange(len(rows.ids)), cores) if len(some)
    ]
    ends = (vocabulary.id_of("\n"), vocabulary.boundary)
    lines_before = sum(int(corpus.training_counts[end]) for end in ends if end is not None)
    lists_lines = limit == part and _keeps_lines(model)
    tally = Tally(vocabulary.kind == "bytes", 1 + lines_before if lists_lines else None)
    for job, found in zip(jobs, score(Network(model.config, model.weights), jobs, cores), strict=True):
        text = "".join(characters[job.ids[:, 1:][job.scored]])
        tally.add(text, found)
        yield text, found
    tally.end()
    unknown = 0 if vocabulary.unknown is None else int((rows.ids[:, 1:][rows.scored] == vocabulary.unknown).sum())
    xz = None
    if limit == part:
        compressor = _Compressor(vocabulary)
        compressor.add("".join(characters[corpus.ids[corpus.validation_start :]]))
        xz = compressor.bits()
    return Evaluation(name, part, vocabulary.unit, unknown, tally, xz)


def _reading(model: Checkpoint) -> Reading:
    """How a run reads its text."""
    settings = model.settings
    several = model.vocabulary.writes_boundary
    return Reading(settings.vocabulary, settings.encoding, settings.errors, several, settings.split_at)


def _keeps_lines(model: Checkpoint) -> bool:
    """Whether a boundary between texts is shown where the file has the end of one line."""
    return model.settings.split_at in (None, "\n")


def _validation_rows(corpus: Corpus, seq_length: int, limit: int) -> Rows:
    """The validation part as `Trainer.final_loss` reads it."""
    start = corpus.validation_start
    if corpus.validation_characters <= SEQUENTIAL:
        return streams(corpus.ids[max(0, start - 1 - WARM_UP) : start], corpus.ids[start:])
    inputs, targets, weights = validation_streams(corpus.ids, start, seq_length, limit)
    return Rows(np.concatenate([inputs[:, :1], targets], axis=1), weights > 0)


def _blocks(pieces: Iterable[str], first: int, size: int) -> Iterator[str]:
    """Cut a text in pieces into blocks of a size, of which the first may have another."""
    held, length, wanted = [], 0, first
    for piece in pieces:
        held.append(piece)
        length += len(piece)
        while length >= wanted:
            text = "".join(held)
            yield text[:wanted]
            held, length, wanted = [text[wanted:]], length - wanted, size
    if length:
        yield "".join(held)


class _Compressor:
    """Measures what xz makes of a text in pieces."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.characters = 0
        self._encoding = "latin-1" if vocabulary.kind == "bytes" else "utf-8"
        self._size = 0
        self._xz = lzma.LZMACompressor()

    def add(self, text: str) -> None:
        self.characters += len(text)
        self._size += len(self._xz.compress(text.encode(self._encoding)))

    def bits(self) -> float | None:
        """Bits per character; call this last."""
        self._size += len(self._xz.flush())
        return 8 * self._size / self.characters if self.characters else None


def as_json(evaluation: Evaluation, checkpoint: str) -> str:
    """One object in one line, with the model's file; characters of a `bytes` model are bytes."""
    nats = evaluation.tally.nats_per_character
    return (
        json.dumps(
            {
                "file": encodable(evaluation.file),
                "checkpoint": encodable(checkpoint),
                "characters": evaluation.characters,
                "unknown": evaluation.unknown,
                "nats_per_character": nats,
                "bits_per_character": nats / math.log(2),
                "perplexity": math.exp(nats),
                "xz_bits_per_character": evaluation.xz_bits,
            }
        )
        + "\n"
    )


def as_text(evaluation: Evaluation) -> Iterator[str]:
    """Lines for a reader: the loss, a table by kind of character, and the extreme lines."""
    tally, nats = evaluation.tally, evaluation.tally.nats_per_character
    some = "" if evaluation.scored == evaluation.characters else f", {evaluation.scored:,} of them scored"
    unknown = f", {evaluation.unknown:,} unknown to the model" if evaluation.unknown else ""
    yield f"{one_line(evaluation.file)}: {plural(evaluation.characters, evaluation.unit)}{some}{unknown}\n"
    xz = "" if evaluation.xz_bits is None else f"; xz needs {evaluation.xz_bits:.3f} bits"
    measures = f"{nats / math.log(2):.3f} bits, perplexity {math.exp(nats):.2f}"
    yield f"{nats:.4f} nats per {evaluation.unit} ({measures}){xz}\n\n"
    yield f"{f'kind of {evaluation.unit}':<22}{'number':>12}{'nats':>8}{'share of all nats':>19}\n"
    whole = float(tally.sums.sum())
    for kind, count, total in zip(KINDS, tally.counts.tolist(), tally.sums.tolist(), strict=True):
        if count:
            yield f"{kind:<22}{count:>12,}{total / count:>8.3f}{total / whole if whole else 0:>18.1%}\n"
    expected = tally.expected
    unexpected = [line for line in tally.unexpected if line not in expected]  # of a short text, they may be the same
    for title, lines in (("most", expected), ("least", unexpected)):
        if lines:
            yield f"\nthe {title} expected lines\n"
            yield from map(_line, lines)


def _line(line: Line) -> str:
    text = one_line(line.text.strip())
    return f"{line.nats:8.3f}  line {line.number:<9,}{text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'}\n"
