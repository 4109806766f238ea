"""Several texts that stay several: where they end, in training, in samples and in scores."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, Command, chain_model, corpus, run_charrnn
from hypothesis import given
from hypothesis import strategies as st

from charrnn import CharrnnError
from charrnn.evaluation.evaluate import evaluate_file
from charrnn.language_model import LanguageModel
from charrnn.messages import ignore_note
from charrnn.network.config import weight_shapes
from charrnn.planning.job import Call, Job, plan_training
from charrnn.runs import checkpoint
from charrnn.runs.folder import Run
from charrnn.runs.records import Checkpoint
from charrnn.sampling.choice import Choice
from charrnn.text.corpus import Corpus, Reading, read_corpus
from charrnn.text.reading import Source, ended
from charrnn.text.typed import encode_prime
from charrnn.text.vocabulary import Vocabulary, boundary_mark


def read(*texts: str, **how: object) -> Corpus:
    """A corpus of several texts."""
    sources = [Source(f"{number}.txt", text.encode()) for number, text in enumerate(texts)]
    return read_corpus(sources, Reading(several=True, **how))  # type: ignore[arg-type]


def shown(found: Corpus, boundary: str = "|") -> str:
    """The text of a corpus with a sign for each boundary."""
    ids = found.ids[:].tolist()
    return "".join(boundary if id == found.vocabulary.boundary else found.vocabulary.characters[id] for id in ids)


# --- reading ---------------------------------------------------------------------------------


def test_each_file_is_a_text_that_a_boundary_ends() -> None:
    found = read("one\n", "two", "", "\nthree")
    assert shown(found) == "one\n|two|\nthree|"
    assert len(found.vocabulary) == 99
    assert found.vocabulary.boundary == 98


@pytest.mark.parametrize("kind", ["ascii", "text", "bytes"])
def test_every_kind_of_vocabulary_has_one_more_id(kind: str) -> None:
    found = read("one", "two", kind=kind)
    assert shown(found) == "one|two|"
    assert found.vocabulary.boundary == len(found.vocabulary) - 1
    one = read_corpus([Source("x", b"onetwo")], Reading(kind))
    assert len(found.vocabulary) == len(one.vocabulary) + 1
    assert one.vocabulary.boundary is None


@pytest.mark.parametrize(
    ("separator", "text", "expected"),
    [
        ("\n", "Ann\nBea\n\n\nCid\n", "Ann|Bea|Cid|"),
        ("\f", "first\n\f\nsecond\n\f\n", "first\n|second\n|"),
        ("\n\n\n", "a\nb\n\n\n\n\nc\n\nd\n\n\n", "a\nb|c\n\nd|"),
        ("<|endoftext|>", "<|endoftext|>x<|endoftext|><|endoftext|>\ny<|endoftex", "x|y<|endoftex|"),
        ("aba", "xabababy", "x|baby|"),
    ],
)
def test_a_file_is_split_where_the_separator_stands(separator: str, text: str, expected: str) -> None:
    assert shown(read(text, split_at=separator)) == expected


@given(
    st.text(alphabet="ab\n", max_size=60),
    st.text(alphabet="ab\n", min_size=1, max_size=4),
    st.lists(st.integers(0, 60), max_size=6),
)
def test_the_split_does_not_depend_on_the_pieces(text: str, separator: str, cuts: list[int]) -> None:
    places = sorted({0, *(cut for cut in cuts if cut < len(text)), len(text)})
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    texts = [part.lstrip("\n") for part in text.split(separator)]
    assert "".join(ended(pieces, separator, "\0")) == "".join(f"{part}\0" for part in texts if part)


def test_bytes_are_split_at_the_bytes_of_the_separator() -> None:
    found = read("\x00é\n¶x¶ÿ", kind="bytes", split_at="¶")
    assert found.vocabulary.boundary == 256
    ids = [*"\x00é\n".encode(), 256, ord("x"), 256, *"ÿ".encode(), 256]
    assert found.ids[:].tolist() == ids


def test_several_texts_are_not_the_text_that_they_make_together() -> None:
    hashes = {read("ab", "c").sha256, read("a", "bc").sha256, read_corpus([Source("x", b"abc")]).sha256}
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("lengths", "start"),
    [
        ([100] * 10, 909),  # at nine tenths, where a boundary is
        ([880, 119], 881),  # moved back
        ([941, 57], 942),  # moved on
        ([840, 100, 56], 942),  # the nearer one
        ([700, 299], 900),  # none is near
        ([990, 7], 899),
    ],
)
def test_the_validation_part_begins_at_a_boundary_if_one_is_near(lengths: list[int], start: int) -> None:
    found = read(*("x" * length for length in lengths))
    assert found.validation_start == start
    assert found.training_counts.sum() == start
    assert found.training_counts[found.vocabulary.boundary] == (found.ids[:start] == found.vocabulary.boundary).sum()


def test_a_separator_that_does_not_occur_is_told(charrnn: Command, tmp_path: Path) -> None:
    for end in ("", "%%\n"):
        (tmp_path / "a.txt").write_text("one\ntwo\n" * 500 + end)
        result = charrnn("train", "a.txt", "--split-at", "%%")
        assert result.returncode == 2
        assert result.stderr.endswith("Error: a.txt: the --split-at text separates nothing, so it is one text\n")
    assert "Error: --split-at has 0 characters, not 1 to 1,000" in charrnn("train", "a.txt", "--split-at", "").stderr


def test_real_books_are_cut_into_books() -> None:
    lzma = pytest.importorskip("lzma")
    with lzma.open(corpus("starter/prose.txt.xz")) as file:
        data = file.read(20_000_000)
    told: list[str] = []
    found = read_corpus([Source("prose.txt", data)], Reading(several=True, split_at="\f"), told.append)
    books = [book for book in data.decode("utf-8", "ignore").split("\f") if book.strip("\n")]
    assert told[0].startswith(f"prose.txt: {len(books)} texts, ")
    assert found.ids[found.validation_start - 1 :][0] == found.vocabulary.boundary


# --- the command -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run trained on a few names, one per line."""
    folder = tmp_path_factory.mktemp("names")
    (folder / "names.txt").write_text("Ann\nBea\nCid\nDora\n" * 150)
    train = ("train", "names.txt", "--split-at", r"\n", *SMALL, "--epochs", "25", "--learning-rate", "0.01")
    result = run_charrnn(*train, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines()[0] == "names.txt: 600 texts, 1,950 characters, 11 distinct"
    return folder


def in_folder(folder: Path, *args: object) -> str:
    result = run_charrnn(*args, cwd=folder)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_list_of_names_gives_whole_names(named: Path) -> None:
    names = in_folder(named, "sample", "--count", "20", "--seed", "1", "--temperature", "0.3").splitlines()
    assert len(names) == 20
    assert set(names) <= {"Ann", "Bea", "Cid", "Dora"}
    assert len(set(names)) > 1
    assert in_folder(named, "sample", "--seed", "1", "--temperature", "0.3") == names[0]
    assert in_folder(named, "sample", "--prime", "Do", "--temperature", "0.3") == "Dora"


def test_json_says_what_ended_each_sample(named: Path) -> None:
    def ends(*more: str) -> list[str]:
        lines = in_folder(named, "sample", "--json", "--temperature", "0.3", "--seed", "3", *more).splitlines()
        return [json.loads(line)["end"] for line in lines]

    assert ends("--count", "3") == ["boundary"] * 3
    assert ends("--length", "1") == ["length"]
    assert ends("--prime", "Do", "--stop", "a") == ["stop"]


def test_python_ends_a_text_and_scores_its_end(named: Path) -> None:
    model = LanguageModel.load(named / "checkpoints/names")
    for seed in range(3):
        text = "".join(model.generate(temperature=0.3, seed=seed))
        assert text in {"Ann", "Bea", "Cid", "Dora"}
        whole, open_ended = model.score(text, end=True), model.score(text)
        assert len(whole.nats) == len(text) + 1
        assert (whole.nats[:-1] == open_ended.nats).all()
        assert whole.nats[-1] < 0.5
        assert whole.text == text
    assert model.score("An", end=True).nats[-1] > 1


def test_texts_come_one_after_the_other_at_the_prompt(named: Path) -> None:
    result = run_charrnn(
        "sample", "--interactive", "--seed", "1", "--temperature", "0.3", cwd=named, input="Do\n\n\n",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    texts = result.stdout.splitlines()
    assert texts[0] == "Dora"
    assert len(texts) == 3
    assert set(texts) <= {"Ann", "Bea", "Cid", "Dora"}
    assert result.stderr.count("the model ended the text; Enter begins another") == 3


def test_the_finished_run_names_the_command_that_goes_on(named: Path) -> None:
    said = run_charrnn("train", "names.txt", cwd=named).stderr
    assert r"charrnn train --init-from names --name names-1 --split-at '\n' names.txt" in said
    refused = run_charrnn("train", "names.txt", "--split-at", ",", cwd=named)
    assert refused.returncode == 1
    assert r"with --split-at \n, not --split-at ,: " in refused.stderr


def test_a_text_is_evaluated_as_several_like_that_of_the_run(named: Path) -> None:
    (named / "same.txt").write_text("Ann\nBea\nCid\nDora\n" * 20)
    found = json.loads(in_folder(named, "evaluate", "same.txt", "--json"))
    assert (found["characters"], found["unknown"]) == (20 * 17, 0)
    assert found["checkpoint"].endswith("best.safetensors")
    saved = checkpoint.load(named / "checkpoints/names/last.safetensors").progress.final_loss
    assert found["nats_per_character"] == pytest.approx(saved, abs=0.05)
    assert in_folder(named, "evaluate", "same.txt", "--show").startswith("Ann\nBea\nCid\nDora\n")


def test_a_text_is_split_for_evaluation_before_its_characters_are_replaced(tmp_path: Path) -> None:
    vocabulary = dataclasses.replace(Vocabulary.ascii(), has_boundary=True, writes_boundary=True)
    model = chain_model(vocabulary, "abc")
    model = dataclasses.replace(model, settings=dataclasses.replace(model.settings, split_at="—"))
    (tmp_path / "x.txt").write_text("ab—“c”—ab", encoding="utf-8")
    pieces = list(evaluate_file(model, str(tmp_path / "x.txt"), None, 1))
    assert "".join(text for text, _ in pieces) == 'ab\n"c"\nab\n'


def test_the_validation_part_of_several_texts_has_the_loss_that_the_run_saved(named: Path) -> None:
    found = json.loads(in_folder(named, "evaluate", "names.txt", "--validation", "--json"))
    saved = checkpoint.load(named / "checkpoints/names/last.safetensors").progress.final_loss
    assert found["nats_per_character"] == pytest.approx(saved, abs=1e-4)


def test_options_without_effect_and_options_that_were_not_given_are_named(charrnn: Command, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("One text, one line.\n" * 50)
    small = ("--epochs", "1", "--units", "8", "--cell", "rnn", "--precision", "bfloat16", "--device", "cpu")
    result = charrnn("train", "one.txt", *small)
    assert result.returncode == 0, result.stderr
    assert "--precision bfloat16 has no effect on --cell rnn on a CPU" in result.stderr
    refused = charrnn("train", "one.txt", "--split-at", ",")
    assert refused.returncode == 1
    assert "ran with no --split-at, not --split-at ,: " in refused.stderr


def test_a_folder_is_read_by_a_pattern(charrnn: Command, tmp_path: Path) -> None:
    for name, text in {"b.txt": "second", "a.txt": "first", "c.md": "no", "sub/d.txt": "third"}.items():
        (tmp_path / "letters" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "letters" / name).write_text(f"{text} letter\n" * 50)
    job = plan(tmp_path, "letters", glob="*.txt")
    assert job.run.name == "letters"
    assert shown(job.corpus).startswith("first letter\n")
    assert shown(job.corpus).count("|") == 2
    assert shown(plan(tmp_path, "letters", glob="**/*.txt").corpus).count("|") == 3
    assert job.commands.resume == f"charrnn train --checkpoints-dir {tmp_path / 'runs'} --glob '*.txt' letters"
    for args, says in {
        ("letters",): "letters: is a folder; name its text files, or select them with charrnn train --glob '*.txt'",
        ("letters", "--glob", "*.doc"): "letters: contains no file that matches --glob '*.doc'",
        ("letters/a.txt", "--glob", "*"): "--glob selects files in a folder: name a folder, or leave out --glob",
    }.items():
        result = charrnn("train", *args)
        assert (result.returncode, result.stderr.splitlines()[-1]) == (2, f"Error: {says}")


@pytest.mark.parametrize(("separator", "shown"), [("\r\n", "one|two|"), ("\udcff", "one\r|two|")])
def test_a_separator_of_bytes_is_taken_as_it_is(tmp_path: Path, separator: str, shown: str) -> None:
    raw = separator.encode("utf-8", "surrogateescape")
    (tmp_path / "x.txt").write_bytes(b"one" + (b"" if separator == "\r\n" else b"\r") + raw + b"two" + raw * 2)
    found = plan(tmp_path, "x.txt", vocabulary="bytes", split_at=separator, batch_size=1, seq_length=2).corpus
    texts = found.vocabulary.texts("|")
    assert "".join(texts[id] for id in found.ids[:].tolist()) == shown


def plan(folder: Path, *files: str, glob: str | None = None, **given: object) -> Job:
    """What `charrnn train` would do in a folder."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        call = Call(files, {"batch_size": 2, "seq_length": 32, **given}, str(folder / "runs"), glob=glob)
        job = plan_training(call, ignore_note)
        assert isinstance(job, Job)
        return job
    finally:
        os.chdir(before)


def test_the_first_lines_count_files_and_texts(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.txt").write_bytes(b"a text\r\n" * 40)
    told: list[str] = []
    call = Call([str(tmp_path)], {"batch_size": 2, "seq_length": 32}, str(tmp_path / "runs"), glob="*.txt")
    plan_training(call, told.append)
    first = ", ".join(str(tmp_path / f"{number}.txt") for number in range(3))
    assert told[:3] == [
        f"{tmp_path}: 5 files matching *.txt",
        f"{first} and 2 more: turned 200 CRLF line endings into newlines",
        f"{first} and 2 more: 5 texts, 1,400 characters, 6 distinct",
    ]


# --- other runs ------------------------------------------------------------------------------


def test_a_run_that_began_on_joined_files_continues_on_joined_files(trained: Path, tmp_path: Path, tales: str) -> None:
    """As every run on several files did before there were boundaries: its checkpoint knows none."""
    (tmp_path / "a.txt").write_text(tales[:9000], encoding="utf-8")
    (tmp_path / "b.txt").write_text(tales[9000:], encoding="utf-8")
    run = Run(tmp_path / "runs" / "a")
    shutil.copytree(trained / "checkpoints" / "small", run.folder)
    last = checkpoint.load(run.last)
    older = dataclasses.replace(last, progress=dataclasses.replace(last.progress, final_loss=None))
    run.last.write_bytes(checkpoint.to_bytes(older))
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        job = plan_training(Call(["a.txt", "b.txt"], {}, "runs"), print)
        new = plan_training(Call(["a.txt", "b.txt"], {}, "runs", name="new"), print)
    finally:
        os.chdir(before)
    assert isinstance(job, Job)
    assert isinstance(new, Job)
    assert job.resume is not None
    assert job.corpus.vocabulary.boundary is None
    assert new.corpus.vocabulary.writes_boundary


def test_init_from_carries_the_boundary_or_adds_it(named: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("Ann met Bea and Cid.\n" * 60)
    (tmp_path / "two.txt").write_text("Ann met Dora and Cid.\n" * 60)

    def started(source: Path, *files: str) -> tuple[Job, Checkpoint, dict[str, np.ndarray]]:
        job = plan(tmp_path, *files, init_from=str(source))
        assert job.source is not None
        shapes = weight_shapes(job.settings.network(job.corpus.vocabulary))
        fresh = {name: np.full(shape, 7.0, np.float32) for name, shape in shapes.items()}
        return job, job.source.model, job.source.initial_weights(job.corpus, fresh)

    job, source, weights = started(named / "checkpoints/names", "one.txt")
    vocabulary, end = job.corpus.vocabulary, source.vocabulary.boundary
    assert vocabulary.boundary is not None
    assert not vocabulary.writes_boundary
    assert not vocabulary.writable[vocabulary.boundary]
    assert (weights["embedding"][vocabulary.boundary] == source.weights["embedding"][end]).all()
    assert weights["softmax.bias"][vocabulary.boundary] == source.weights["softmax.bias"][end]
    job, source, weights = started(trained / "checkpoints/small", "one.txt", "two.txt")
    vocabulary = job.corpus.vocabulary
    assert source.vocabulary.boundary is None
    assert vocabulary.writes_boundary
    assert (weights["embedding"][vocabulary.boundary] == 7).all()


# --- models that were not trained ------------------------------------------------------------


def model_of(kind: str, characters: str, writes: bool = True) -> Checkpoint:
    """A model that writes the characters in turn, then ends the text."""
    vocabulary = Vocabulary.bytes() if kind == "bytes" else Vocabulary("text", characters)
    vocabulary = dataclasses.replace(vocabulary, has_boundary=True, writes_boundary=writes)
    if kind == "text":
        return chain_model(vocabulary, characters + boundary_mark(kind))
    # For bytes, `chain_model` takes the bytes of a text, none of which is a boundary.
    model = chain_model(vocabulary, characters)
    kernel = model.weights["softmax.kernel"]
    last, first = characters[-1:].encode()[-1], characters[:1].encode()[0]
    kernel[last] = kernel[256] = 0
    kernel[last, 256] = kernel[256, first] = 5
    return model


@pytest.mark.parametrize("kind", ["text", "bytes"])
def test_samples_end_where_the_model_ends_them(charrnn: Command, tmp_path: Path, kind: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(checkpoint.to_bytes(model_of(kind, "abé")))
    sample = ("sample", "--checkpoint", "x.safetensors", "--temperature", "0")
    assert charrnn(*sample).stdout == "abé"
    assert charrnn(*sample, "--prime", "b").stdout == "bé"
    assert charrnn(*sample, "--length", "2").stdout == "ab"
    assert charrnn(*sample, "--count", "2").stdout == "abé\n%\nabé\n%\n"
    line = json.loads(charrnn(*sample, "--json").stdout)
    assert (line["text"], line["end"], len(line["probabilities"])) == (
        "abé",
        "boundary",
        len("abé".encode()) if kind == "bytes" else 3,
    )
    if kind == "bytes":
        assert base64.b64decode(line["bytes"]) == "abé".encode()
    (tmp_path / "original.txt").write_text("abé", encoding="utf-8")
    compared = charrnn(*sample, "--against", "original.txt")
    assert compared.stdout == "abé"
    assert re.search(r"longest passage: [34] (bytes|characters), line 1", compared.stderr)


def test_a_model_that_was_trained_on_one_text_never_ends_it(tmp_path: Path) -> None:
    model = LanguageModel(model_of("text", "abc", writes=False))
    text = "".join(model.generate("a", length=500, seed=1, temperature=1))
    assert len(text) == 500
    with pytest.raises(CharrnnError, match="knows no end"):
        model.score("a", end=True)
    with pytest.raises(CharrnnError, match="knows no end"):
        LanguageModel(chain_model(Vocabulary("text", "ab\n"), "ab\n")).score("a", end=True)


def test_nobody_can_type_a_boundary() -> None:
    for typed in ("\0", "\u0100"):
        with pytest.raises(CharrnnError, match="does not know"):
            encode_prime(model_of("text", "abc").vocabulary, typed, None, ignore_note)
        assert encode_prime(model_of("bytes", "abc").vocabulary, typed, None, ignore_note).tolist() == [*typed.encode()]


@pytest.mark.parametrize("kind", ["text", "bytes"])
@pytest.mark.parametrize("writes", [True, False])
def test_a_checkpoint_keeps_the_boundary(kind: str, writes: bool) -> None:
    model = model_of(kind, "abc", writes)
    if writes:
        model = dataclasses.replace(model, settings=dataclasses.replace(model.settings, split_at="\f"))
    found = checkpoint.from_bytes(checkpoint.to_bytes(model))
    assert (found.vocabulary, found.settings) == (model.vocabulary, model.settings)


def test_choices_apply_to_the_end_as_to_any_character() -> None:
    model = LanguageModel(model_of("text", "ab"))
    boundary = model.vocabulary.boundary
    logits = np.zeros((1, len(model.vocabulary)), np.float32)
    logits[0, boundary] = 5
    assert Choice(1.0, top_k=1).weights(logits).argmax() == boundary
