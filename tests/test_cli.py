"""The command line: what it imports, its help, its answers to wrong calls, its streams."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import PROJECT, SMALL, Command, environment

from charrnn import __version__
from charrnn.cli.main import _COMMANDS

HEAVY = ("tensorflow", "keras", "matplotlib", "rich")


# --- start -----------------------------------------------------------------------------------


def imported_by(folder: Path, *args: str) -> set[str]:
    """The top-level modules that a command has imported when it ends."""
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('MODULES', *{m.split('.')[0] for m in sys.modules}, file=sys.stderr))\n"
        f"sys.argv = ['charrnn', *{args!r}]\n"
        "from charrnn.cli.main import main\n"
        "main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip
    [line] = [line for line in result.stderr.splitlines() if line.startswith("MODULES")]
    return set(line.split()[1:])


@pytest.mark.parametrize(
    ("args", "allowed"),
    [
        (("--help",), ()),
        (("--version",), ()),
        (("train", "--help"), ("numpy",)),
        (("sample", "--length", "5"), ("numpy",)),
        (("sample", "--length", "5", "--interactive"), ("numpy",)),
        (("sample", "--length", "5", "--against", "small.txt"), ("numpy",)),
        (("sample", "--checkpoint", "absent"), ("numpy",)),
        (("train", "absent.txt"), ("numpy",)),
        (("train", "small.txt"), ("numpy",)),  # finished: nothing to do
        (("plot-loss", "--out", "absent/x.png"), ("numpy", "matplotlib")),
        (("runs",), ("numpy",)),
        (("evaluate", "small.txt"), ("numpy",)),
        (("page", "absent", "--out", "x.html"), ("numpy",)),
        (("export", "absent", "--out", "x.keras"), ("numpy",)),
        (("corpus", "--list"), ()),
    ],
)
def test_light_commands_stay_light(trained: Path, args: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    modules = imported_by(trained, *args)
    assert "click" in modules
    assert not modules & ({*HEAVY, "numpy", "safetensors"} - set(allowed))


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("charrnn tr", "train"),
        ("charrnn sample --chec", "--checkpoint"),
        ("charrnn sample --checkpoint sm", "small"),
        ("charrnn sample --checkpoint st", "starter"),
        ("charrnn plot-loss sm", "small"),
        ("charrnn train --cell l", "lstm"),
        ("charrnn train sm", "file"),  # the shell's own completion of names goes on
    ],
)
def test_the_shell_completes_commands_options_runs_and_files(trained: Path, line: str, offers: str) -> None:
    variables = {
        "_CHARRNN_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    result = subprocess.run(
        [Path(sys.executable).parent / "charrnn"],
        cwd=trained, capture_output=True, text=True, env=environment() | variables, check=False,
    )  # fmt: skip
    assert offers in [part for found in result.stdout.split() for part in found.split(",")], result


@pytest.mark.parametrize("args", [("--help",), *((name, "-h") for name in _COMMANDS)])
def test_every_command_has_help(charrnn: Command, args: tuple[str, ...]) -> None:
    result = charrnn(*args)
    assert result.returncode == 0
    assert result.stdout.startswith("Usage: charrnn")
    assert result.stderr == ""
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_the_help_shows_three_commands_as_they_are_typed(charrnn: Command) -> None:
    lines = [line.strip() for line in charrnn("--help").stdout.splitlines()]
    for command in ("charrnn train text_data.txt", 'charrnn sample --prime "The quick brown fox"', "charrnn plot-loss"):
        assert command in lines


def test_version(charrnn: Command) -> None:
    assert charrnn("--version").stdout == f"charrnn {__version__}\n"


def test_the_installed_command_is_the_module(tmp_path: Path) -> None:
    command = Path(sys.executable).parent / "charrnn"
    result = subprocess.run([command, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout == f"charrnn {__version__}\n"


def test_the_commands_help_in_docs_is_current() -> None:
    """Regenerate with: python scripts/write_command_docs.py."""
    result = subprocess.run(
        [sys.executable, PROJECT / "scripts" / "write_command_docs.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


# --- wrong calls and bad input ---------------------------------------------------------------


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def bad_input(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    for name, data in {
        "empty.txt": b"",
        "one.txt": b"x",
        "binary.bin": bytes(range(256)) * 50,
        "nul.txt": b"text\0text" * 100,
        "latin.txt": b"caf\xe9 " * 100,
        "good.txt": b"A good text. " * 200,
        "truncated.safetensors": (1000).to_bytes(8, "little") + b'{"a"',
        "other.safetensors": b"\x80\x04 a pickle, say",
        "prime.txt": b"\xff\xfe\xff",
    }.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


WRONG_CALLS = [
    # arguments, exit code, what the message says
    (["train", "absent.txt"], 2, "absent.txt: no such file"),
    (["train", "folder"], 2, "folder: is a folder; name its text files, or select them with charrnn train --glob"),
    (["train", "empty.txt"], 1, "empty.txt: empty"),
    (["train", "/dev/zero"], 1, "/dev/zero: is a device"),
    (["train", "one.txt"], 1, "needs at least 72 characters"),
    (["train", "binary.bin"], 1, "--vocabulary bytes"),
    (["train", "nul.txt"], 1, "NUL at character 5"),
    (["train", "latin.txt"], 1, "byte 0xe9 at offset 3 (line 1)"),
    (["train", "good.txt", "absent.txt"], 2, "absent.txt: no such file"),
    (["train", "good.txt", "--units", "0"], 2, "--units"),
    (["train", "good.txt", "--dropout", "1"], 2, "--dropout"),
    (["train", "good.txt", "--learning-rate", "nan"], 2, "--learning-rate"),
    (["train", "good.txt", "--epochs", "1", "--minutes", "1"], 2, "cannot be combined"),
    (["train", "good.txt", "--minutes", "0"], 2, "--minutes"),
    (["train", "good.txt", "--cell", "transformer"], 2, "'coupled', 'lstm', 'gru', 'rnn'"),
    (["train", "good.txt", "--encoding", "klingon"], 2, "klingon"),
    (["train", "binary.bin", "--vocabulary", "bytes", "--encoding", "latin-1"], 2, "--encoding"),
    (["train", "good.txt", "--name", "a/b"], 2, "--name"),
    (["train", "good.txt", "--checkpoints-dir", "good.txt"], 1, "cannot be written to"),
    (["train", "good.txt", "--unit", "5"], 2, "--units"),
    (["train"], 2, "FILE"),
    (["train", "."], 2, "is a folder"),
    (["sample", "--checkpoint", "x" * 300], 1, "File name too long"),
    (["sample", "--checkpoint", "absent"], 2, "absent: no such run"),
    (["sample", "--checkpoint", "absent.safetensors"], 2, "absent.safetensors: no such checkpoint"),
    (["sample", "--checkpoint", "truncated.safetensors"], 1, "truncated"),
    (["sample", "--checkpoint", "other.safetensors"], 1, "not a charrnn checkpoint"),
    (["sample", "--checkpoint", "good.txt"], 1, "not a charrnn checkpoint"),
    (["sample", "--temperature", "-1"], 2, "--temperature"),
    (["sample", "--temperature", "nan"], 2, "--temperature"),
    (["sample", "--temperature", "inf"], 2, "--temperature"),
    (["sample", "--top-p", "0"], 2, "--top-p"),
    (["sample", "--top-p", "1.5"], 2, "--top-p"),
    (["sample", "--top-k", "0"], 2, "--top-k"),
    (["sample", "--min-p", "-0.1"], 2, "--min-p"),
    (["sample", "--min-p", "1.5"], 2, "--min-p"),
    (["sample", "--length", "-1"], 2, "--length"),
    (["sample", "--count", "0"], 2, "--count"),
    (["sample", "--count", "99999999999999999999"], 2, "--count"),
    (["sample", "--length", "99999999999999999999"], 2, "--length"),
    (
        ["sample", "tales"],
        2,
        "unexpected argument 'tales': --checkpoint tales names a run, --prime gives a text",
    ),
    (["sample", "--seed", "1", "a b"], 2, "--checkpoint 'a b' names a run"),
    (["train", "/dev/fd/0"], 2, "/dev/fd/0, which has no name of its own: choose a name with --name"),
    (["sample", "--prime", "a", "--prime-file", "good.txt"], 2, "cannot be combined"),
    (["page", "starter", "--out", "."], 2, "is a directory"),
    (["page", "starter", "--out", "good.txt"], 2, "good.txt: a page's name must end in .html"),
    (["page", "starter", "--out", "absent/x.html"], 2, "absent: there is no such folder to write the page to"),
    (["plot-loss", "--out", "folder"], 2, "is a directory"),
    (["sample", "--temprature", "1"], 2, "--temperature"),
    (["plot-loss"], 2, "/checkpoints yet: train one with charrnn train FILE"),
    (["plot-los"], 2, "plot-los"),
    (["corpus"], 2, "shakespeare or python"),
    (["corpus", "shakespere"], 2, "'shakespeare', 'python'"),
]


@pytest.mark.parametrize(
    ("args", "code", "says"), WRONG_CALLS, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input_is_answered_in_one_line_and_nothing_is_written(
    bad_input: Path, charrnn: Command, args: list[str], code: int, says: str
) -> None:
    before = files(bad_input)
    result = charrnn(*args)
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    *hint, message = result.stderr.splitlines()
    assert message.startswith("Error: ")
    assert says in message
    assert "Traceback" not in result.stderr
    assert all(line.startswith(("Usage:", "Try ")) or not line for line in hint), hint
    assert bool(hint) == (code == 2)
    assert files(bad_input) == before


def test_debug_shows_where(bad_input: Path, charrnn: Command) -> None:
    for args, code in ((["sample", "--checkpoint", "other.safetensors"], 1), (["train", "absent.txt"], 2)):
        result = charrnn(*args, "--debug")
        assert result.returncode == code
        assert "Traceback" in result.stderr


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs Unix users")
@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["train", "secret.txt", "--checkpoints-dir", "open"], "secret.txt: no permission to read it"),
        (["train", "good.txt", "--checkpoints-dir", "locked"], "locked/good: cannot be written to: Permission denied"),
        (["sample", "--checkpoint", "secret.safetensors"], "secret.safetensors: cannot be read: Permission denied"),
    ],
)
def test_missing_permissions_are_said(bad_input: Path, args: list[str], says: str) -> None:
    (bad_input / "locked").mkdir(mode=0o555)
    (bad_input / "open").mkdir()
    (bad_input / "open").chmod(0o777)
    for name in ("secret.txt", "secret.safetensors"):
        (bad_input / name).write_bytes(b"x" * 1000)
        (bad_input / name).chmod(0)
    # Root may read everything: become nobody once everything is imported (the environment may be root's own).
    code = (
        "import os, sys, click.exceptions, click.formatting, charrnn.planning.job\n"
        "from charrnn.cli import corpus, plot_loss, runs, sample, train\n"
        "from charrnn.cli.main import main\n"
        "'x'.encode('utf-32-le')\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "main()\n"
    )
    if os.geteuid() == 0:
        for folder in (bad_input, *bad_input.parents):
            if folder.stat().st_uid == os.geteuid() and folder.name.startswith(("pytest", "test_")):
                folder.chmod(0o755)
    result = subprocess.run(
        [sys.executable, "-c", code, *args],
        cwd=bad_input,
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert result.returncode == 1, result.stderr
    assert result.stderr.startswith("Error: ")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


# --- sample's streams ------------------------------------------------------------------------


def test_the_text_alone_goes_to_stdout(trained: Path, charrnn: Command) -> None:
    where = ("--checkpoints-dir", trained / "checkpoints")
    result = charrnn("sample", *where, "--prime", "The ferry", "--length", "100", "--seed", "1")
    assert result.stdout.startswith("The ferry")
    assert len(result.stdout) == 109
    assert result.stderr == ""
    assert charrnn("sample", *where, "--prime", "The ferry", "--length", "100", "--seed", "1").stdout == result.stdout


def test_a_fresh_seed_is_named_and_gives_the_same_text_again(trained: Path, charrnn: Command) -> None:
    where = ("--checkpoints-dir", trained / "checkpoints", "--length", "80")
    first = charrnn("sample", *where)
    word, seed = first.stderr.split()
    assert word == "seed"
    assert charrnn("sample", *where, "--seed", seed).stdout == first.stdout
    assert charrnn("sample", *where).stdout != first.stdout


def test_the_folder_of_runs_comes_from_the_environment(trained: Path, charrnn: Command) -> None:
    folder = str(trained / "checkpoints")
    assert charrnn("sample", "--seed", "1", CHARRNN_CHECKPOINTS_DIR=folder).returncode == 0


def test_a_prime_comes_from_a_file_or_from_standard_input(trained: Path, charrnn: Command, tmp_path: Path) -> None:
    where = ("--checkpoints-dir", trained / "checkpoints", "--seed", "1", "--length", "40")
    (tmp_path / "prime.txt").write_bytes("\ufeffThe “bell”\r\n".encode())
    from_file = charrnn("sample", *where, "--prime-file", "prime.txt")
    from_stdin = charrnn("sample", *where, "--prime-file", "-", input='The "bell"\n')
    assert from_file.stdout.startswith('The "bell"\n')
    assert from_file.stdout == from_stdin.stdout
    assert "mapped 2 typographic characters" in from_file.stderr
    result = charrnn("sample", *where, "--prime-file", "absent")
    assert result.returncode == 2
    assert "absent: no such file" in result.stderr


def test_an_unknown_character_of_the_prime_is_refused_unless_told(trained: Path, charrnn: Command) -> None:
    where = ("--checkpoints-dir", trained / "checkpoints", "--seed", "1", "--length", "0")
    result = charrnn("sample", *where, "--prime", "caf\u00e9")
    assert result.returncode == 2
    assert "'\u00e9' at position 4 (nearest: 'e')" in result.stderr
    assert charrnn("sample", *where, "--prime", "caf\u00e9", "--unknown", "skip").stdout == "caf"
    assert charrnn("sample", *where, "--prime", "caf\u00e9", "--unknown", "replace").stdout == "cafe"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("option", ["", "--interactive"])
def test_a_full_disk_is_said_in_one_line(trained: Path, option: str) -> None:
    command = f"'{sys.executable}' -m charrnn sample --seed 1 {option} > /dev/full"
    result = subprocess.run(
        command, shell=True, cwd=trained, capture_output=True, text=True, env=environment(), check=False,
        input="The\nA\n",
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr == "Error: stdout: cannot be written to: No space left on device\n"


def test_a_c_locale_writes_utf8(trained: Path, charrnn: Command, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("äöü ß " * 200, encoding="utf-8")
    options = ("--units", "8", "--epochs", "1")
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = charrnn("train", "x.txt", *options, **env)
    assert result.returncode == 0, result.stderr
    result = charrnn("sample", "--length", "50", "--seed", "1", **env)
    assert result.returncode == 0, result.stderr
    assert set(result.stdout) <= set("äöü ß ")


# --- runs and folders that are odd -----------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs Unix users")
def test_a_run_that_cannot_be_read_is_left_out_and_said(trained: Path, tmp_path: Path) -> None:
    """The one last trained; by its name it is an error."""
    runs = tmp_path / "checkpoints"
    shutil.copytree(trained / "checkpoints" / "small", runs / "readable")
    shutil.copytree(trained / "checkpoints" / "small", runs / "locked")
    (runs / "locked").chmod(0)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder.name.startswith(("pytest", "test_")):
            folder.chmod(0o755)
    code = (
        "import os, click.exceptions, click.formatting, numpy.random\n"
        "from charrnn.cli import sample\n"
        "from charrnn.cli.main import main\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "main()\n"
    )

    def sample(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, "sample", "--seed", "1", "--length", "20", *args],
            cwd=tmp_path, capture_output=True, text=True, env=environment(), check=False,
        )  # fmt: skip

    result = sample()
    assert (result.returncode, len(result.stdout)) == (0, 20), result.stderr
    skipped = "checkpoints/locked: cannot be read: Permission denied; skipped\n"
    assert result.stderr == skipped
    shutil.rmtree(runs / "readable")
    result = sample()
    assert (result.returncode, len(result.stdout)) == (0, 20), result.stderr
    assert result.stderr.startswith(f"{skipped}no runs in ")
    result = sample("--checkpoint", "locked")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "Error: checkpoints/locked: cannot be read: Permission denied\n"
    (runs / "locked").chmod(0o755)


def test_a_run_may_have_a_name_like_a_file(trained: Path, charrnn: Command, tmp_path: Path) -> None:
    shutil.copytree(trained / "checkpoints" / "small", tmp_path / "checkpoints" / "odd.safetensors")
    for where in ("odd.safetensors", "checkpoints/odd.safetensors", "checkpoints/odd.safetensors/best.safetensors"):
        assert charrnn("sample", "--checkpoint", where, "--seed", "1", "--length", "5").returncode == 0


def test_a_working_folder_that_was_deleted_is_said(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    result = subprocess.run(
        f"cd gone && rmdir ../gone && exec '{Path(sys.executable).parent / 'charrnn'}' sample", shell=True,
        cwd=tmp_path, capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr == "Error: the current folder was deleted: cd to another one\n"


def test_a_prime_file_may_be_in_the_encoding_of_the_training_text(charrnn: Command, tmp_path: Path) -> None:
    text = "Émile rêve à l'été où Noël naît. "
    (tmp_path / "fr.txt").write_text(text * 200, encoding="latin-1")
    (tmp_path / "prime.txt").write_text("Émile rêve", encoding="latin-1")
    result = charrnn("train", "fr.txt", "--encoding", "latin-1", *SMALL, "--epochs", "1")
    assert result.returncode == 0, result.stderr
    result = charrnn("sample", "--prime-file", "prime.txt", "--length", "5", "--seed", "1")
    assert result.stdout.startswith("Émile rêve")
    go_on = "charrnn train --init-from fr --name fr-1 --encoding=iso8859-1 fr.txt"
    assert f"start a new run from its weights: {go_on};" in charrnn("train", "fr.txt").stderr
    assert result.stderr == "prime.txt: not UTF-8, read as iso8859-1 like the training text\n"
    (tmp_path / "prime.txt").write_text("Émile rêve", encoding="utf-8")
    result = charrnn("sample", "--prime-file", "prime.txt", "--length", "5", "--seed", "1")
    assert (result.stdout[:10], result.stderr) == ("Émile rêve", "")


@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
def test_what_a_shell_gives_as_an_open_file_is_named_as_it_was_typed(tmp_path: Path, tales: str) -> None:
    (tmp_path / "a.txt").write_text(tales[:3000])
    command = f"'{sys.executable}' -m charrnn train --name piped {' '.join(SMALL)} --epochs 9999 <(cat a.txt)"
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stderr is not None
        while not (tmp_path / "checkpoints/piped/last.safetensors").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        last = process.stderr.read().splitlines()[-1]
    assert last.endswith("continue with: charrnn train --name piped <(...)")


def test_a_finished_run_and_a_text_that_has_grown_name_the_command_that_goes_on(
    trained: Path, charrnn: Command, tmp_path: Path
) -> None:
    """And the command works."""
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    text = (trained / "small.txt").read_text()
    (tmp_path / "small.txt").write_text(text)
    go_on = "charrnn train --init-from small --name small-1 small.txt"
    result = charrnn("train", "small.txt")
    assert result.returncode == 0
    assert f"start a new run from its weights: {go_on}; start over: --fresh" in result.stderr
    result = charrnn("train", "small.txt", "--minutes", "5")
    assert result.returncode == 1
    assert result.stderr.endswith(f"to start a new run from its weights: {go_on}\n")
    (tmp_path / "small.txt").write_text(text + "And more was written. " * 20)
    result = charrnn("train", "small.txt")
    assert result.returncode == 1
    assert f"Start a new run from its weights with this text: {go_on}; or start from scratch" in result.stderr
    result = charrnn(*go_on.split()[1:], "--epochs", "1")
    assert result.returncode == 0, result.stderr
