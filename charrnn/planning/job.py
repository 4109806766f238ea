"""What a call of `charrnn train` is to do: a new run, the rest of one, or nothing.

Everything here is decided before TensorFlow is imported, so that a wrong call is answered at once.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrnn import CharrnnError
from charrnn.messages import Note, plural
from charrnn.network.config import count_weights
from charrnn.planning.defaults import (
    default_settings,
    final_characters_for,
    machine_speed,
    precision_for,
    usual_minutes,
)
from charrnn.planning.machine import machine_class, memory_limit, usable_cores
from charrnn.planning.warm_start import Source, load_source
from charrnn.runs import checkpoint
from charrnn.runs.folder import DEFAULT_FOLDER, FOLDER_VARIABLE, Run, run_named
from charrnn.runs.records import Checkpoint, CorpusIdentity, Settings
from charrnn.text.corpus import Corpus, read_corpus
from charrnn.text.reading import encoding_named, is_nameless, read_bytes
from charrnn.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Call:
    """A call of `charrnn train`.

    Attributes:
        files: the text files, in the order they are joined; `-` is standard input.
        given: the options that were given, by their names in `Settings`; `init_from` says where a checkpoint is.
        folder: where runs are kept.
        name: of the run; None takes the first file's stem.
        fresh: start over even if there is a run of that name.
        device: `cpu` or `gpu` if it was given.
        save_every: seconds between checkpoints if they were given.
    """

    files: Sequence[str]
    given: Mapping[str, Any]
    folder: str
    name: str | None = None
    fresh: bool = False
    device: str | None = None
    save_every: float | None = None


@dataclass(frozen=True)
class Job:
    """A training to be done.

    Attributes:
        call: that asked for it.
        run: the folder it is kept in.
        corpus: the text.
        settings: all of them, chosen or given.
        precision: of the products of matrices, for a new run on a CPU.
        final_characters: that the final loss of a new run is over.
        resume: where the run stands, None for a new one.
        source: what a new run takes its first weights from, None where it learns from nothing.
        commands: for the user to type.
    """

    call: Call
    run: Run
    corpus: Corpus
    settings: Settings
    precision: str
    final_characters: int
    resume: Checkpoint | None
    source: Source | None
    commands: Commands


@dataclass(frozen=True)
class Commands:
    """What the user can type next."""

    resume: str  # continues the run
    sample: str  # samples from it
    go_on: str  # starts a new run from it


def plan_training(call: Call, note: Note) -> Job | str:
    """Decide what `charrnn train` does.

    Args:
        call: what it was called with.
        note: told, a line each, what was read and chosen.

    Returns:
        The job, or, where the run is finished, a line that says so.

    Raises:
        CharrnnError: the files, the options or the run do not allow it.
    """
    files, given = call.files, call.given
    if call.name is None and is_nameless(files[0]):
        what = "standard input" if files[0] == "-" else f"{files[0]}, which has no name of its own"
        raise CharrnnError(f"reading {what}: name the run with --name", exit_code=2)
    if "encoding" in given:
        given = {**given, "encoding": encoding_named(given["encoding"])}
    contents = read_bytes(files)
    run = run_named(_default_name(files) if call.name is None else call.name, call.folder)
    run.check_writable()
    commands = _commands(call, run)
    resume = None if call.fresh else load_last(run)
    source = None
    if "init_from" in given:
        try:
            source = load_source(given["init_from"], call.folder)
        except CharrnnError as error:
            if resume is None:
                raise
            raise CharrnnError(
                f"{error}; to continue {run.folder} leave --init-from out", exit_code=error.exit_code
            ) from None
        given = {**given, "init_from": source.checksum}
    model = None
    if resume is not None:
        _refuse_changes(run, resume.settings, resume.progress.finished, given, commands.go_on)
        given, source, model = dataclasses.asdict(resume.settings), None, resume.vocabulary
    elif source is not None:
        given, model = {**given, **source.settings(given)}, source.model.vocabulary
    if resume is None and given.get("vocabulary") == "bytes" and ("encoding" in given or "errors" in given):
        raise CharrnnError(
            "a vocabulary of bytes reads the files as they are: leave --encoding and --errors out", exit_code=2
        )

    machine = machine_class(call.device)
    speed = machine_speed(machine, usable_cores())
    notes: list[str] = []
    reading = given.get("vocabulary"), given.get("encoding", "utf-8"), given.get("errors", "strict")
    corpus = read_corpus(contents, *reading, notes.append, model)
    if source is not None:
        notes.append(source.summary(corpus.vocabulary))
    if resume is None:
        settings = default_settings(len(corpus.training), {**given, "vocabulary": corpus.vocabulary.kind}, speed)
    else:
        settings = resume.settings
        identity = CorpusIdentity.of(corpus)
        characters = corpus.vocabulary.characters  # which differ in a forged file only
        if identity != resume.corpus or characters != resume.vocabulary.characters:
            raise CharrnnError(
                f"{run.folder} trains on another text ({plural(resume.corpus.characters, 'character')}; "
                f"{' '.join(files)} has {identity.characters:,}"
                + (", but not the same ones" if identity.characters == resume.corpus.characters else "")
                + f"). Go on from what it learned, with this text: {commands.go_on}; "
                "or start from nothing, with --name NAME or --fresh"
            )
        if resume.progress.finished:
            return (
                f"{run.folder} is finished: {plural(resume.progress.step, 'step')}, validation loss "
                f"{resume.progress.final_loss:.4f} nats per character. Sample from it: {commands.sample}; "
                f"go on from what it learned: {commands.go_on}; start over: --fresh"
            )
    advice = "continue it on a machine that has more" if resume else "start from a smaller model" if source else ""
    _refuse_too_large(settings, corpus.vocabulary, advice or "lower --units or --layers")
    for line in notes:
        note(line)
    precision = precision_for(machine, settings.units) if settings.precision == "auto" else settings.precision
    minutes = usual_minutes(len(corpus.training), given, speed)
    final_characters = final_characters_for(len(corpus.ids) - corpus.validation_start, settings, minutes)
    return Job(call, run, corpus, settings, precision, final_characters, resume, source, commands)


_COPIES = 5  # of the weights that training keeps: they, their gradients, two moments, the moving average


def _refuse_too_large(settings: Settings, vocabulary: Vocabulary, advice: str) -> None:
    """Refuse a network whose weights alone, with all that training keeps of each, do not fit into the memory.

    Raises:
        CharrnnError: it is one.
    """
    weights = count_weights(settings.network(vocabulary))
    limit = memory_limit()
    if limit is not None and 4 * _COPIES * weights > limit:
        raise CharrnnError(
            f"a network of {weights:,} weights needs {4 * _COPIES * weights / 2**30:,.1f} GiB of memory to train, but "
            f"only {limit / 2**30:,.1f} GiB are available: {advice}"
        )


def load_last(run: Run) -> Checkpoint | None:
    """Where a run stands, None if there is no such run yet.

    Raises:
        CharrnnError: there is one, but it cannot be continued.
    """
    if not run.exists():
        return None
    try:
        last = checkpoint.load(run.last)
        if not last.training:
            raise CharrnnError(f"{run.last}: has only weights to sample from, nothing to continue")
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
    if not changed:
        return
    old = {name: getattr(settings, name) for name in changed}
    if "epochs" in changed or "minutes" in changed:  # at the most one of the two is set
        old |= {"epochs": settings.epochs, "minutes": settings.minutes}
    if "init_from" in changed:  # a checksum, which says nothing to anybody
        began = "from another checkpoint than --init-from names" if settings.init_from else "without --init-from"
        how = f"was started {began}"
    else:
        before = [option(n, v) for n, v in old.items() if v is not None]
        if "epochs" in old and settings.open_ended:
            before.append("an end of its own choice")
        how = (
            f"{'ran' if finished else 'was started'} with {', '.join(before)}, "
            f"not {', '.join(option(n, v) for n, v in changed.items())}"
        )
    more = f"; to go on from what it learned, give: {go_on}" if finished else ""
    raise CharrnnError(
        f"{run.folder} {'is finished; it ' if finished else ''}{how}: "
        + ("" if finished else "leave that out to continue it, or ")
        + f"give --fresh to start over, or --name for another run{more}"
    )


def _default_name(files: Sequence[str]) -> str:
    return Path(files[0]).stem.lstrip(".-")


def _commands(call: Call, run: Run) -> Commands:
    files, usual = call.files, os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER
    where = [] if call.folder == usual else ["--checkpoints-dir", call.folder]
    named = [] if not is_nameless(files[0]) and run.name == _default_name(files) else ["--name", run.name]
    options = [] if call.device is None else ["--device", call.device]
    options += [] if call.save_every is None else ["--save-every", f"{call.save_every:g}"]
    separator = ["--"] if any(file.startswith("-") and file != "-" for file in files) else []
    # What a shell gave as /dev/fd/63 has to be typed again.
    typed = ["<(...)" if is_nameless(file) and file != "-" else shlex.quote(file) for file in files]
    texts = " ".join([*separator, *typed])
    return Commands(
        f"{shlex.join(['charrnn', 'train', *named, *where, *options])} {texts}",
        shlex.join(["charrnn", "sample", *where, "--checkpoint", run.name]),
        f"{shlex.join(['charrnn', 'train', *where, '--init-from', run.name, '--name', run.next_free().name])} {texts}",
    )
