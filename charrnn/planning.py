"""What a call of `charrnn train` is to do: a new run, the rest of one, or nothing.

Everything here is decided before TensorFlow is imported, so that a wrong call is answered at once.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrnn import CharrnnError, checkpoint
from charrnn.checkpoint import Checkpoint, CorpusIdentity, Settings
from charrnn.data import Corpus, Note, encoding_named, plural, read_corpus, steps_per_epoch, training_size
from charrnn.runs import DEFAULT_FOLDER, Run, run_named


@dataclass(frozen=True)
class Job:
    """A training to be done.

    Attributes:
        run: the folder it is kept in.
        corpus: the text.
        settings: all of them, chosen or given.
        resume: where the run stands, None for a new one.
        command: what continues the run, for the user to type.
        sample_command: what samples from it.
    """

    run: Run
    corpus: Corpus
    settings: Settings
    resume: Checkpoint | None
    command: str
    sample_command: str


# A small text gets narrow batches: at least so many updates an epoch, so that it is learned before it
# was seen too often; and dropout, against learning it by heart.
_UPDATES_PER_EPOCH = 32
_MIN_BATCH_SIZE, _MIN_SEQ_LENGTH = 2, 32
_SMALL_TEXT = 300_000  # characters for training
_TINY_TEXT = 30_000
_TRAINED_CHARACTERS = 10_000_000  # in all epochs together
_MAX_EPOCHS = 50


def default_settings(characters: int, given: Mapping[str, Any]) -> Settings:
    """Fill in what the user left open, sized to the text.

    Args:
        characters: in the training part.
        given: the options that were given, by their names in `Settings`.

    Raises:
        CharrnnError: the text is too short for the batch size and sequence length.
    """
    batch_size, seq_length = given.get("batch_size"), given.get("seq_length")
    if batch_size is None:
        batch_size = 32
        while batch_size > _MIN_BATCH_SIZE and steps_per_epoch(characters, batch_size, seq_length or 64) < (
            _UPDATES_PER_EPOCH
        ):
            batch_size //= 2
    if seq_length is None:
        seq_length = 64
        while seq_length > _MIN_SEQ_LENGTH and steps_per_epoch(characters, batch_size, seq_length) < (
            _UPDATES_PER_EPOCH
        ):
            seq_length //= 2
    if not steps_per_epoch(characters, batch_size, seq_length):
        minimum = batch_size * seq_length
        while training_size(minimum) < batch_size * seq_length:
            minimum += 1
        raise CharrnnError(
            f"the text is too short: {plural(minimum, 'character')} are the least to train on "
            f"in {plural(batch_size, 'stream')} of windows of {seq_length}"
        )
    settings = {
        "vocabulary": None,
        "encoding": "utf-8",
        "errors": "strict",
        "embedding": 64,
        "units": 128 if characters < _TINY_TEXT else 256,
        "layers": 1,
        "cell": "lstm",
        "dropout": 0.5 if characters < _SMALL_TEXT else 0.0,
        "learning_rate": 0.005,
        "epochs": None if "minutes" in given else min(_MAX_EPOCHS, max(1, round(_TRAINED_CHARACTERS / characters))),
        "minutes": None,
        "seed": 1,
        **given,
        "batch_size": batch_size,
        "seq_length": seq_length,
    }
    return Settings(**settings)


def plan_training(
    files: Sequence[str], given: Mapping[str, Any], name: str | None, folder: str, fresh: bool, note: Note
) -> Job | str:
    """Decide what `charrnn train` does.

    Args:
        files: the text files, in the order they are joined.
        given: the options that were given, by their names in `Settings`.
        name: of the run; None takes the first file's stem.
        folder: where runs are kept.
        fresh: start over even if there is a run of that name.
        note: told, a line each, what was read and chosen.

    Returns:
        The job, or, where the run is finished, a line that says so.

    Raises:
        CharrnnError: the files, the options or the run do not allow it.
    """
    if name is None:
        if files[0] == "-":
            raise CharrnnError("reading standard input: name the run with --name", exit_code=2)
        name = Path(files[0]).stem.lstrip(".")
    if given.get("vocabulary") == "bytes" and ("encoding" in given or "errors" in given):
        raise CharrnnError(
            "--vocabulary bytes reads the files' bytes as they are: leave --encoding and --errors out", exit_code=2
        )
    run = run_named(name, folder)
    if "encoding" in given:
        given = {**given, "encoding": encoding_named(given["encoding"])}
    run.check_writable()
    resume = None if fresh else _load_unfinished(run)
    if resume is not None:
        _refuse_changes(run, resume.settings, given)
        given = dataclasses.asdict(resume.settings)

    notes: list[str] = []
    corpus = read_corpus(
        files, given.get("vocabulary"), given.get("encoding", "utf-8"), given.get("errors", "strict"), notes.append
    )
    if resume is not None:
        identity = CorpusIdentity(corpus.sha256, len(corpus.ids))
        if identity != resume.corpus:
            raise CharrnnError(
                f"{run.folder} trains on another text ({plural(resume.corpus.characters, 'character')}; "
                f"{' '.join(files)} has {identity.characters:,}"
                + (", but not the same ones" if identity.characters == resume.corpus.characters else "")
                + "): train on this one with --name NAME, or with --fresh to start over"
            )
        if resume.progress.finished:
            return (
                f"{run.folder} is finished: {plural(resume.progress.total_steps, 'step')}, validation loss "
                f"{resume.progress.final_loss:.4f} nats per character; to go further give --fresh with more "
                "--epochs or --minutes, or sample from it with charrnn sample"
            )
        settings = resume.settings
    else:
        settings = default_settings(len(corpus.training), {**given, "vocabulary": corpus.vocabulary.kind})
    for line in notes:
        note(line)
    return Job(run, corpus, settings, resume, *_commands(files, name, folder))


def _load_unfinished(run: Run) -> Checkpoint | None:
    if not run.exists():
        return None
    try:
        resume = checkpoint.load(run.last)
        if not resume.training:
            raise CharrnnError(f"{run.last}: has only weights to sample from, nothing to continue")
    except CharrnnError as error:
        raise CharrnnError(f"{error}; start over with --fresh, which keeps {run.folder} under another name") from None
    return resume


def _refuse_changes(run: Run, settings: Settings, given: Mapping[str, Any]) -> None:
    def option(name: str, value: Any) -> str:
        return (
            f"--{name.replace('_', '-')} {value:g}"
            if isinstance(value, float)
            else f"--{name.replace('_', '-')} {value}"
        )

    changed = {name: value for name, value in given.items() if getattr(settings, name) != value}
    if not changed:
        return
    old = {name: getattr(settings, name) for name in changed}
    if "epochs" in changed or "minutes" in changed:  # one of the two is set, the other None
        old |= {"epochs": settings.epochs, "minutes": settings.minutes}
    raise CharrnnError(
        f"{run.folder} was started with {', '.join(option(n, v) for n, v in old.items() if v is not None)}, "
        f"not {', '.join(option(n, v) for n, v in changed.items())}: leave that out to continue it, "
        "or give --fresh to start over, or --name for another run"
    )


def _commands(files: Sequence[str], name: str, folder: str) -> tuple[str, str]:
    where = [] if folder == DEFAULT_FOLDER else ["--checkpoints-dir", folder]
    named = [] if files[0] != "-" and name == Path(files[0]).stem.lstrip(".") else ["--name", name]
    return (
        shlex.join(["charrnn", "train", *files, *named, *where]),
        shlex.join(["charrnn", "sample", "--checkpoint", name, *where]),
    )
