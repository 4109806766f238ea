"""What a call of `charrnn train` does: it starts a run, continues one, or does nothing.

All this is decided before TensorFlow is imported, so that charrnn rejects a wrong call at once.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrnn import CharrnnError
from charrnn.messages import Note, plural
from charrnn.network.config import count_weights
from charrnn.planning.defaults import (
    can_read_at,
    default_settings,
    final_characters_for,
    machine_speed,
    most_passes_for,
    precision_for,
    usual_minutes,
)
from charrnn.planning.machine import machine_class, memory_limit, usable_cores
from charrnn.planning.warm_start import Pretrained, load_pretrained, starter_for
from charrnn.planning.workers import ALONE, Worker
from charrnn.runs import checkpoint, starter
from charrnn.runs.folder import Run, run_named
from charrnn.runs.records import MAX_SEPARATOR, Checkpoint, CorpusIdentity, Settings
from charrnn.surroundings import usual_folder
from charrnn.text.corpus import Corpus, Reading, read_corpus
from charrnn.text.reading import encoding_named, is_nameless, names_of, open_files, plain_text
from charrnn.text.store import FOLDER as TEXTS_FOLDER
from charrnn.text.typed import escaped, unescaped
from charrnn.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Call:
    """A call of `charrnn train`.

    Attributes:
        files: the text files, in order, and folders; `-` is standard input.
        given: the given options, by their names in `Settings`; `init_from` locates a checkpoint.
        folder: the folder that contains the runs.
        name: name of the run; None takes the first file's stem.
        fresh: whether to start over even if a run of that name exists.
        device: `cpu` or `gpu`; None if not given.
        save_every: seconds between checkpoints; None if not given.
        glob: which files in the folders; None if not given.
        worker: this process, of those that make the same call.
    """

    files: Sequence[str]
    given: Mapping[str, Any]
    folder: str
    name: str | None = None
    fresh: bool = False
    device: str | None = None
    save_every: float | None = None
    glob: str | None = None
    worker: Worker = ALONE


@dataclass(frozen=True)
class Job:
    """A planned training.

    Attributes:
        call: the call that asked for it.
        run: the run, with its folder.
        corpus: the text.
        machine: class of the machine that the settings are chosen for.
        settings: all settings, chosen or given.
        precision: precision of the matrix products, for a new run.
        final_characters: number of characters that the final loss of a new run covers.
        most_passes: after which more minutes would do harm to a new run.
        resume: the run's last checkpoint; None for a new run.
        source: the model whose weights a new run starts from; None if there is none.
        commands: commands for the user to type.
    """

    call: Call
    run: Run
    corpus: Corpus
    machine: str
    settings: Settings
    precision: str
    final_characters: int
    most_passes: float
    resume: Checkpoint | None
    source: Pretrained | None
    commands: Commands


@dataclass(frozen=True)
class Commands:
    """Commands that the user can type next."""

    resume: str  # continues the run
    sample: str  # samples from it
    go_on: str  # starts a new run from it


def plan_training(call: Call, note: Note) -> Job | str:
    """Decide what `charrnn train` does.

    Args:
        call: the call, with its options.
        note: called with one line for each thing that charrnn read or chose.

    Returns:
        The job, or, if the run is finished, one line that says so.

    Raises:
        CharrnnError: the files, the options or the run do not permit training.
    """
    given = _checked(call)
    run = run_named(_default_name(call.files) if call.name is None else call.name, call.folder)
    notes: list[str] = []
    texts = Path(call.folder) / TEXTS_FOLDER
    sources = open_files(call.files, call.glob, texts, notes.append)
    if call.worker.is_chief:
        run.check_writable()
    if run.name in (starter.NAME, starter.NOTHING) and not run.exists():
        raise CharrnnError(
            f"a new run cannot be called {run.name}, which means something else to --init-from: choose another "
            "name with --name",
            exit_code=2,
        )
    resume = None if call.fresh else load_last(run)
    source = _named_source(call, run, resume)
    if "split_at" in given:
        began = resume or (None if source is None else source.model)
        kind = given.get("vocabulary") or (None if began is None else began.vocabulary.kind)
        given = {**given, "split_at": _separator(given["split_at"], kind == "bytes")}
    commands = _commands(call, run, given if resume is None else dataclasses.asdict(resume.settings))
    if "init_from" in given:
        given = {**given, **({"init_from": None} if source is None else source.identity)}

    machine = machine_class(call.device)
    speed = machine_speed(machine, call.worker.count * usable_cores(call.worker.beside))
    most_passes = math.inf
    if resume is not None:
        _refuse_changes(run, resume.settings, resume.progress.finished, given, commands.go_on)
        source, settings = None, resume.settings
        given = dataclasses.asdict(settings)
        # A run that an earlier charrnn began on several files goes on with one text.
        how = _reading(given, several=resume.vocabulary.writes_boundary)
        corpus = read_corpus(sources, how, notes.append, texts).extended(resume.vocabulary)
        _refuse_another_text(call, run, resume, corpus, commands.go_on)
        if resume.progress.finished:
            return (
                f"{run.folder} is finished: {plural(resume.progress.step, 'step')}, validation loss "
                f"{resume.progress.final_loss:.4f} nats per {resume.vocabulary.unit}. "
                f"Sample from it: {commands.sample}; start a new run from its weights: {commands.go_on}; "
                "start over: --fresh"
            )
        advice = "continue on a machine with more memory"
    else:
        if source is not None:
            given = {**given, **source.settings(given)}
        if given.get("vocabulary") == "bytes" and ("encoding" in given or "errors" in given):
            raise CharrnnError(
                "a byte vocabulary reads the files as raw bytes: leave out --encoding and --errors", exit_code=2
            )
        how = _reading(given, several=len(sources) > 1 or "split_at" in given)
        corpus, surprise = read_corpus(sources, how, notes.append, texts), None
        if source is not None:
            surprise = source.surprise(corpus)
        elif _may_start_from_starter(call.given):
            if machine == "gpu":
                if starter.is_installed():
                    notes.append("starting from nothing: the starter is for CPUs (--device cpu may start from it)")
            elif found := starter_for(corpus, notes.append):
                source, surprise = found
                given = {**given, **source.identity, **source.settings(given)}
        if source is not None:
            corpus = corpus.extended(source.model.vocabulary)
            notes.append(source.summary(corpus.vocabulary))
        known = {**given, "vocabulary": corpus.vocabulary.kind}
        settings = default_settings(corpus.training_characters, known, speed, surprise, machine == "gpu")
        if can_read_at(surprise) and settings.epochs is None:
            most_passes = most_passes_for(corpus.training_characters)
        advice = "start from a smaller model" if source is not None else "lower --units or --layers"
    _refuse_too_large(settings, corpus.vocabulary, advice)
    for line in notes:
        note(line)
    precision = precision_for(machine, settings.units) if settings.precision == "auto" else settings.precision
    minutes = usual_minutes(corpus.training_characters, given, speed)
    final_characters = final_characters_for(corpus.validation_characters, settings, minutes)
    return Job(call, run, corpus, machine, settings, precision, final_characters, most_passes, resume, source, commands)


def _checked(call: Call) -> dict[str, Any]:
    """The given options, with the encoding's own name.

    Raises:
        CharrnnError: there is no such encoding, or the run has no name.
    """
    if call.name is None and is_nameless(call.files[0]):
        what = "standard input" if call.files[0] == "-" else f"{call.files[0]}, which has no name of its own"
        raise CharrnnError(f"cannot name the run after {what}: choose a name with --name", exit_code=2)
    given = dict(call.given)
    if "encoding" in given:
        given["encoding"] = encoding_named(given["encoding"])
    return given


def _named_source(call: Call, run: Run, resume: Checkpoint | None) -> Pretrained | None:
    """The model that --init-from names, if it names one.

    Raises:
        CharrnnError: it cannot be read.
    """
    where = call.given.get("init_from")
    if where is None or where == starter.NOTHING:
        return None
    try:
        return load_pretrained(where, call.folder)
    except CharrnnError as error:
        if resume is None:
            raise
        raise CharrnnError(
            f"{error}; to continue {run.folder}, leave out --init-from", exit_code=error.exit_code
        ) from None


def _reading(given: Mapping[str, Any], several: bool) -> Reading:
    """How to read the files, by the options."""
    encoding, errors = (given.get(name, usual) for name, usual in _HOW_TO_READ.items())
    return Reading(given.get("vocabulary"), encoding, errors, several, given.get("split_at"))


def _refuse_another_text(call: Call, run: Run, resume: Checkpoint, corpus: Corpus, go_on: str) -> None:
    identity = CorpusIdentity.of(corpus)
    # The characters differ only in a forged file.
    if identity == resume.corpus and corpus.vocabulary.characters == resume.vocabulary.characters:
        return
    raise CharrnnError(
        f"{run.folder} trains on another text ({plural(resume.corpus.characters, resume.vocabulary.unit)}; "
        f"{names_of(call.files)} {'has' if len(call.files) == 1 else 'have'} {identity.characters:,}"
        + (", but not the same ones" if identity.characters == resume.corpus.characters else "")
        + f"). Start a new run from its weights with this text: {go_on}; or start from scratch with --name NAME or "
        "--fresh"
    )


_OF_NETWORK = {"units", "layers", "cell", "embedding"}
"""The options that ask for another network than the starter's."""


def _may_start_from_starter(given: Mapping[str, Any]) -> bool:
    """Whether the given options leave it to charrnn what a new run starts from."""
    return "init_from" not in given and not _OF_NETWORK & given.keys() and given.get("vocabulary") != "bytes"


def _separator(typed: str, is_raw: bool) -> str:
    """The text at which to split, as the user typed it, without escapes.

    Args:
        typed: what the user typed.
        is_raw: whether the files are read as bytes, which keep their line endings.

    Raises:
        CharrnnError: it is empty or too long.
    """
    separator = unescaped(typed)
    if not is_raw:
        separator = plain_text("--split-at", separator)
    if not 1 <= len(separator) <= MAX_SEPARATOR:
        raise CharrnnError(f"--split-at has {len(separator):,} characters, not 1 to {MAX_SEPARATOR:,}", exit_code=2)
    return separator


_COPIES = 5  # training keeps the weights, their gradients, two moments and the moving average


def _refuse_too_large(settings: Settings, vocabulary: Vocabulary, advice: str) -> None:
    """Reject a network whose weights, with all that training keeps for each of them, do not fit into memory.

    Raises:
        CharrnnError: they do not fit.
    """
    weights = count_weights(settings.network(vocabulary))
    limit = memory_limit()
    if limit is not None and 4 * _COPIES * weights > limit:
        raise CharrnnError(
            f"a network of {weights:,} weights needs {4 * _COPIES * weights / 2**30:,.1f} GiB of memory to train, but "
            f"only {limit / 2**30:,.1f} GiB are available: {advice}"
        )


def load_last(run: Run) -> Checkpoint | None:
    """The last checkpoint of a run; None if there is no such run yet.

    Raises:
        CharrnnError: the run exists, but cannot be continued.
    """
    if not run.exists():
        return None
    try:
        last = checkpoint.load(run.last)
        if not last.training:
            raise CharrnnError(f"{run.last}: holds weights to sample from, but no training state to continue from")
    except CharrnnError as error:
        raise CharrnnError(f"{error}; start over with --fresh, which keeps {run.folder} under another name") from None
    return last


def _refuse_changes(run: Run, settings: Settings, finished: bool, given: Mapping[str, Any], go_on: str) -> None:
    def option(name: str, value: Any) -> str:
        return (
            f"--{name.replace('_', '-')} {value:g}"
            if isinstance(value, float)
            else f"--{name.replace('_', '-')} {value}"
        )

    changed = {name: value for name, value in given.items() if getattr(settings, name) != value}
    changed.pop("source", None)  # which may have another name now
    if not changed:
        return
    old = {name: getattr(settings, name) for name in changed}
    if "epochs" in changed or "minutes" in changed:  # at most one of the two is set
        old |= {"epochs": settings.epochs, "minutes": settings.minutes}
    if "init_from" in changed:  # a checksum, which means nothing to the user
        began = (settings.source or "another checkpoint") if settings.init_from else "nothing"
        how = f"was started from {began}, not from what --init-from names"
    else:
        before = [option(n, v) for n, v in old.items() if v is not None]
        if "split_at" in old and settings.split_at is None:
            before.append("no --split-at")
        if "epochs" in old and settings.open_ended:
            before.append("a training time chosen by charrnn")
        how = (
            f"{'ran' if finished else 'was started'} with {', '.join(before)}, "
            f"not {', '.join(option(n, v) for n, v in changed.items())}"
        )
    more = f"; to start a new run from its weights: {go_on}" if finished else ""
    raise CharrnnError(
        f"{run.folder} {'is finished; it ' if finished else ''}{how}: "
        + ("" if finished else "leave that out to continue it, or ")
        + f"give --fresh to start over, or --name for another run{more}"
    )


def _default_name(files: Sequence[str]) -> str:
    first = Path(files[0])
    return (first.resolve().name if first.is_dir() else first.stem).lstrip(".-")


_HOW_TO_READ = {"encoding": "utf-8", "errors": "strict"}
"""The options that a run started from this one's model does not take over, and their defaults."""


def _commands(call: Call, run: Run, settings: Mapping[str, Any]) -> Commands:
    files = call.files
    where = [] if call.folder == usual_folder() else ["--checkpoints-dir", call.folder]
    which = [] if call.glob is None else ["--glob", call.glob]
    read = [f"--{name}={settings[name]}" for name, usual in _HOW_TO_READ.items() if settings.get(name, usual) != usual]
    split_at = settings.get("split_at")
    read += [] if split_at is None else ["--split-at", escaped(split_at)]
    named = [] if not is_nameless(files[0]) and run.name == _default_name(files) else ["--name", run.name]
    options = [] if call.device is None else ["--device", call.device]
    options += [] if call.save_every is None else ["--save-every", f"{call.save_every:g}"]
    is_local = call.worker.beside == call.worker.count > 1
    options += ["--workers", str(call.worker.count)] if is_local else []
    separator = ["--"] if any(file.startswith("-") and file != "-" for file in files) else []
    # /dev/fd/63 exists only for this command: the user must type the shell's <(...) again.
    typed = ["<(...)" if is_nameless(file) and file != "-" else shlex.quote(file) for file in files]
    texts = " ".join([*separator, *typed])
    start_from = ["--init-from", run.name, "--name", run.next_free().name]
    return Commands(
        f"{shlex.join(['charrnn', 'train', *named, *where, *options, *which])} {texts}",
        shlex.join(["charrnn", "sample", *where, "--checkpoint", run.name]),
        f"{shlex.join(['charrnn', 'train', *where, *start_from, *read, *which])} {texts}",
    )
