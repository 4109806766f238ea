"""`charrnn evaluate`."""

from __future__ import annotations

import json
import lzma
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PROJECT, SMALL, Command, chain_model, environment, on_terminal, run_charrnn
from hypothesis import given
from hypothesis import strategies as st

import charrnn as package
from charrnn.evaluation import rows, tally
from charrnn.evaluation.colours import Painter, colours_of
from charrnn.evaluation.tally import KINDS, Tally
from charrnn.network.config import NetworkConfig
from charrnn.network.network import Network
from charrnn.network.scoring import score_text
from charrnn.runs import checkpoint
from charrnn.runs.folder import Run
from charrnn.text.vocabulary import Vocabulary


def numbers(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert result.returncode == 0, result.stderr
    [line] = result.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.fixture
def model(trained: Path) -> Path:
    return trained / "checkpoints/small"


@pytest.fixture(scope="session")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tales.txt in Latin-1, more than a block, and a run on it with characters of its own."""
    folder = tmp_path_factory.mktemp("larger")
    text = (PROJECT / "data/tales.txt").read_text() * 4
    (folder / "tales.txt").write_text(text.replace("Silas", "Sílås"), encoding="latin-1")
    options = ("--encoding", "latin-1", "--vocabulary", "text", "--epochs", "1")
    result = run_charrnn("train", "tales.txt", *SMALL, *options, "--layers", "1", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


# --- the numbers -----------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_model_in_one_pass(trained: Path, model: Path, charrnn: Command) -> None:
    text = (trained / "small.txt").read_text()
    found = numbers(charrnn("evaluate", trained / "small.txt", "--checkpoint", model, "--json"))
    nats = package.load(model).score(text).nats_per_character
    assert found == {
        "file": str(trained / "small.txt"), "checkpoint": str(model / "best.safetensors"),
        "characters": 20_000, "unknown": 0,
        "nats_per_character": pytest.approx(nats, abs=1e-5), "bits_per_character": pytest.approx(nats / math.log(2)),
        "perplexity": pytest.approx(math.exp(nats)),
        "xz_bits_per_character": 8 * len(lzma.compress(text.encode())) / 20_000,
    }  # fmt: skip


@pytest.mark.parametrize("threads", [{}, {"OPENBLAS_NUM_THREADS": "2"}])
def test_a_long_text_in_many_streams_and_processes_has_the_same_loss(
    larger: Path, charrnn: Command, threads: dict[str, str]
) -> None:
    text = (larger / "tales.txt").read_text(encoding="latin-1")
    assert len(text) > rows.BLOCK
    found = numbers(
        charrnn("evaluate", larger / "tales.txt", "--checkpoint", larger / "checkpoints/tales", "--json", **threads)
    )
    assert found["nats_per_character"] == pytest.approx(
        package.load(larger / "checkpoints/tales").score(text).nats_per_character, abs=1e-4
    )


@pytest.mark.parametrize("text", ["small.txt", "tales.txt"])
def test_the_validation_part_has_the_loss_that_the_run_saved(
    trained: Path, larger: Path, charrnn: Command, text: str
) -> None:
    folder = trained if text == "small.txt" else larger
    run = Run(folder / "checkpoints" / text.removesuffix(".txt"))
    for path in (run.folder, run.last):
        result = charrnn("evaluate", folder / text, "--checkpoint", run.folder, "--validation", "--json")
        assert numbers(result)["nats_per_character"] == pytest.approx(
            checkpoint.load(run.last).progress.final_loss, abs=1e-4
        ), path
    shown = charrnn("evaluate", folder / text, "--checkpoint", run.folder, "--validation").stdout
    listed = re.findall(r"^ +[\d.]+  line ([\d,]+) +(.+)$", shown, re.MULTILINE)
    lines = (folder / text).read_text(encoding=checkpoint.load(run.last).settings.encoding).split("\n")
    assert len(listed) >= 10
    for number, line in listed:
        assert line.removesuffix("...") in lines[int(number.replace(",", "")) - 1]


def test_windows_are_each_read_from_nothing(trained: Path, model: Path, charrnn: Command) -> None:
    best = checkpoint.load(Run(model).best)
    network = Network(best.config, best.weights)

    def mean(ids: Any) -> float:
        scored = [score_text(network, ids[at : at + 257], 1) for at in range(0, len(ids) - 256, 256)]
        return -float(np.mean(scored))

    ids = best.vocabulary.encode((trained / "small.txt").read_text())
    options = ("evaluate", trained / "small.txt", "--checkpoint", model, "--json", "--windows", "256")
    assert numbers(charrnn(*options))["nats_per_character"] == pytest.approx(mean(ids), abs=1e-5)
    found = numbers(charrnn(*options, "--validation"))
    assert found["nats_per_character"] == pytest.approx(mean(ids[18_000:]), abs=1e-5)


@pytest.mark.parametrize("length", [1, 2, 299, 300, 301, 1000, 25_000])
@pytest.mark.parametrize("width", [None, 300])
def test_blocks_are_cut_without_a_seam(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trained: Path, length: int, width: int | None
) -> None:
    from charrnn.evaluation import evaluate

    best = checkpoint.load(Run(trained / "checkpoints/small").best)
    text = (trained / "small.txt").read_text() * 2
    (tmp_path / "x.txt").write_text(text[:length])

    def nats(block: int) -> Any:
        monkeypatch.setattr(evaluate, "BLOCK", block)
        pieces = list(evaluate.evaluate_file(best, str(tmp_path / "x.txt"), width, 1))
        assert "".join(text for text, _ in pieces) == text[: sum(len(piece) for piece, _ in pieces)]
        return np.concatenate([nats for _, nats in pieces])

    if width and length == 1:
        with pytest.raises(package.CharrnnError, match="has no character that the model can score"):
            nats(900)
        return
    one, many = nats(1 << 18), nats(900)
    assert len(one) == len(many) == length
    if width is None:
        assert not np.isnan(one).any()
    else:
        assert np.isnan(one[0])
        assert np.count_nonzero(~np.isnan(one)) == max(min(length - 1, 300), (length - 1) // 300 * 300)
    np.testing.assert_allclose(many, one, atol=2e-3)
    assert np.nanmean(many) == pytest.approx(np.nanmean(one), abs=1e-4)


def test_characters_that_the_model_does_not_know(trained: Path, larger: Path, charrnn: Command, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("the ferry 漢字 came\n" * 30, encoding="utf-8")
    found = numbers(charrnn("evaluate", "x.txt", "--checkpoint", trained / "checkpoints/small", "--json"))
    assert (found["characters"], found["unknown"]) == (540, 60)
    assert found["nats_per_character"] == pytest.approx(
        package.load(trained / "checkpoints/small").score("the ferry 漢字 came\n" * 30).nats_per_character, abs=1e-5
    )
    (tmp_path / "x.txt").write_text("the ferry zø came\n" * 30, encoding="latin-1")
    found = numbers(charrnn("evaluate", "x.txt", "--checkpoint", larger / "checkpoints/tales", "--json"))
    assert (found["characters"], found["unknown"]) == (540, 30)
    assert found["nats_per_character"] == pytest.approx(
        package.load(larger / "checkpoints/tales").score("the ferry z came\n" * 30).nats_per_character, abs=1e-5
    )


def test_a_model_of_bytes(charrnn: Command, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes("é 漢\n".encode() * 400 + b"\xff\0")
    assert charrnn("train", "x.txt", *SMALL, "--vocabulary", "bytes", "--epochs", "1").returncode == 0
    found = numbers(charrnn("evaluate", "x.txt", "--json"))
    assert (found["characters"], found["unknown"]) == (2802, 0)
    loss = checkpoint.load(tmp_path / "checkpoints/x/last.safetensors").progress.final_loss
    assert numbers(charrnn("evaluate", "x.txt", "--validation", "--json"))["nats_per_character"] == pytest.approx(
        loss, abs=1e-4
    )
    shown = charrnn("evaluate", "x.txt").stdout
    assert "x.txt: 2,802 bytes\n" in shown
    assert "nats per byte (" in shown
    assert "é 漢" in charrnn("evaluate", "x.txt", "--show").stdout


def test_bytes_that_are_invalid_are_told(trained: Path, charrnn: Command, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"the ferry caf\xe9 came\n" * 10)
    result = charrnn("evaluate", "x.txt", "--checkpoint", trained / "checkpoints/small")
    assert result.stderr == "x.txt: has bytes that are not valid in utf-8; they are read as U+FFFD\n"
    assert "10 unknown to the model" in result.stdout


def test_a_model_of_one_character(charrnn: Command, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(checkpoint.to_bytes(chain_model(Vocabulary("text", "漢"), "漢")))
    (tmp_path / "x.txt").write_text("漢" * 50, encoding="utf-8")
    result = charrnn("evaluate", "x.txt", "--checkpoint", "m.safetensors")
    assert (result.returncode, result.stderr) == (0, "")
    assert "0.0000 nats per character" in result.stdout
    assert "nan" not in result.stdout


def test_several_files_and_standard_input(trained: Path, model: Path, charrnn: Command) -> None:
    text = (trained / "small.txt").read_text()
    result = charrnn("evaluate", trained / "small.txt", "-", "--checkpoint", model, "--json", input=text)
    one, other = map(json.loads, result.stdout.splitlines())
    assert other.pop("file") == "standard input"
    assert one.pop("file") == str(trained / "small.txt")
    assert one == other


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("other.txt", "--validation"), 1, "other.txt: is not the text that the model was trained on"),
        (("empty.txt",), 1, "empty.txt: empty; there is no text in it"),
        (("absent.txt",), 2, "absent.txt: no such file"),
        (("other.txt", "--windows", "0"), 2, "0 is not in the range"),
        (("other.txt", "--json", "--show"), 2, "--show and --json cannot be combined"),
        ((), 2, "Missing argument 'FILE...'"),
    ],
)
def test_wrong_calls_end_with_one_line(
    model: Path, charrnn: Command, tmp_path: Path, args: tuple[str, ...], code: int, says: str
) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "other.txt").write_text("another text\n" * 100)
    result = charrnn("evaluate", *args, "--checkpoint", model)
    assert (result.returncode, result.stdout) == (code, "")
    assert says in result.stderr.splitlines()[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_ctrl_c_ends_all_processes_quietly(larger: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text((larger / "tales.txt").read_text(encoding="latin-1") * 30, encoding="latin-1")
    with subprocess.Popen(
        [sys.executable, "-m", "charrnn", "evaluate", "long.txt", "--checkpoint", str(larger / "checkpoints/tales")],
        cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background has it ignored
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert process.stderr.readline() == "long.txt: read as iso8859-1, like the training text\n"
        assert process.stderr.readline().startswith("reading ")
        time.sleep(2)
        os.killpg(process.pid, signal.SIGINT)
        assert process.stderr.read().strip() == ""  # read to its end, when the last process has ended
    assert process.returncode == 130


# --- what a reader sees ----------------------------------------------------------------------

TEXTS = st.lists(st.text(alphabet="ab1 ,\n\té漢\u0301", max_size=50), max_size=8)


@given(TEXTS, st.integers(0, 2**32 - 1))
def test_a_tally_is_what_a_plain_loop_finds(pieces: list[str], seed: int) -> None:
    random = np.random.default_rng(seed)
    ours, text, nats = Tally(), "".join(pieces), []
    for piece in pieces:
        some = random.exponential(2, len(piece))
        some[random.random(len(piece)) < 0.1] = np.nan
        ours.add(piece, some)
        nats += some.tolist()
    ours.end()
    counts, sums = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0.0)
    for before, character, value in zip("\n" + text, text, nats, strict=False):
        if not math.isnan(value):
            letters = "abé漢\u0301"
            if character in letters:
                kind = KINDS[0] if before in letters else KINDS[1]
            else:
                kind = {" ": "spaces", "\t": "spaces", "\n": "newlines", "1": "digits", ",": "punctuation"}[character]
            counts[kind] += 1
            sums[kind] += value
    assert ours.counts.tolist() == list(counts.values())
    np.testing.assert_allclose(ours.sums, list(sums.values()))

    lines, at = [], 0
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        values = [value for value in nats[at : at + len(line)] if not math.isnan(value)]
        at += len(line)
        if len(values) >= tally.LEAST:
            lines.append((sum(values) / len(values), number, line.removesuffix("\n")))
    for found, largest_first in ((ours.expected, False), (ours.unexpected, True)):
        extreme = {line: (value, line) for value, _, line in sorted(lines, reverse=not largest_first)}
        expected = sorted(extreme.values(), reverse=largest_first)[:10]
        assert [line.text for line in found] == [line for _, line in expected]
        assert [line.nats for line in found] == pytest.approx([value for value, _ in expected])


def test_a_reader_sees_kinds_and_lines(trained: Path, model: Path, charrnn: Command) -> None:
    text = (trained / "small.txt").read_text()
    output = charrnn("evaluate", trained / "small.txt", "--checkpoint", model).stdout
    assert output.startswith(f"{trained / 'small.txt'}: 20,000 characters\n")
    assert re.search(
        r"^\d\.\d{4} nats per character \(\d\.\d{3} bits, perplexity [\d.]+\); xz needs \d\.\d+ bits$", output, re.M
    )
    counts = dict(re.findall(r"^(\w[\w ]+?) {2,}([\d,]+) ", output, re.MULTILINE))
    assert counts["newlines"] == f"{text.count(chr(10)):,}"
    assert sum(int(count.replace(",", "")) for count in counts.values()) == 20_000
    lines = re.findall(r"^ +[\d.]+  line ([\d,]+) +(.*)$", output, re.MULTILINE)
    assert len(lines) == 20
    for number, line in lines:
        assert text.splitlines()[int(number.replace(",", "")) - 1].strip() == line


@pytest.mark.parametrize(
    ("env", "colours"),
    [
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, 1 << 24),
        ({"TERM": "xterm-256color"}, 256),
        ({"TERM": "xterm"}, 0),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, 0),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, 0),
        ({}, 0),
    ],
)
def test_colours_are_those_that_the_terminal_has(env: dict[str, str], colours: int) -> None:
    assert colours_of(True, env) == colours
    assert colours_of(False, env) == 0


@pytest.mark.parametrize("colours", [256, 1 << 24])
def test_the_colour_behind_a_character_is_its_surprise(colours: int) -> None:
    painter = Painter(Vocabulary.ascii(), colours)
    painted = "".join(painter.paint("ab\x1bc\nd", np.array([0.5, 1.2, 1.4, 9.0, 5.0, np.nan])))
    assert re.sub(r"\x1b\[[\d;]*m", "", painted) == "ab\\x1bc\nd"
    marks = re.findall(r"\x1b\[([\d;]+)m([^\x1b]*)", painted)
    assert [text for mark, text in marks if mark != "0"] == ["b\\x1b", "c"]
    assert marks[0][0] != marks[2][0]
    assert all(f"\x1b[{mark}m" in painter.legend() for mark, _ in marks if mark != "0")


def test_show_prints_the_text(trained: Path, model: Path, charrnn: Command, tmp_path: Path) -> None:
    text = (trained / "small.txt").read_text()[:500]
    (tmp_path / "x.txt").write_text(text)
    assert charrnn("evaluate", "x.txt", "--checkpoint", model, "--show").stdout.startswith(f"{text}\n")
    output, code = on_terminal(tmp_path, "evaluate", "x.txt", "--checkpoint", str(model), "--show")
    assert code == 0
    assert "surprise in nats: " in output.splitlines()[0]
    assert output.count("\x1b[") > 100
    assert text in re.sub(r"\x1b\[[\d;]*m|\r", "", output)


def test_what_several_processes_find_is_what_one_finds() -> None:
    config = NetworkConfig(30, 8, 16, 2, "coupled")
    random = np.random.default_rng(0)
    from charrnn.network.config import weight_shapes

    weights = {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in weight_shapes(config).items()}
    network = Network(config, weights)
    ids = random.integers(0, 30, 5000).astype(np.uint8)
    jobs = [rows.streams(ids[at : at + 300], ids[at + 300 : at + 1300]) for at in range(0, 3000, 500)]
    alone = list(rows.score(network, jobs, 1))
    together = list(rows.score(network, jobs, 3))
    assert len(alone) == len(together) == len(jobs)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
