"""Checkpoints from strangers: a corpus of bad ones, and what the system is asked to do when one is opened."""

from __future__ import annotations

import io
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import PROJECT, environment

sys.path.insert(0, str(PROJECT / "scripts"))

from _forge import GOOD, sealed
from bad_checkpoints import Outcome, faults

SCRIPT = PROJECT / "scripts" / "bad_checkpoints.py"
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits and measures memory as Linux does")


@linux
def test_none_of_100_bad_checkpoints_and_histories_is_accepted() -> None:
    """The long run: python scripts/bad_checkpoints.py --cases 5000."""
    result = subprocess.run(
        [sys.executable, SCRIPT, "--cases", "100"], capture_output=True, text=True, env=environment(), check=False
    )
    assert result.returncode == 0, result.stderr
    assert "| all | 100 | 0 |" in result.stdout


REFUSED = Outcome(1, "", "Error: bad.safetensors: damaged\n", 0.2, 1, frozenset())


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"code": 0}, "accepted"),
        ({"stderr": "Error: last.safetensors: holds weights, but no training state\n"}, "accepted"),
        ({"code": -11}, "exit code -11"),
        ({"code": None}, "not done"),
        ({"stdout": "x"}, "stdout"),
        ({"stderr": ""}, "not one line"),
        ({"stderr": "Error: x\nError: y\n"}, "not one line"),
        ({"stderr": "Error: " + "x" * 1000 + "\n"}, "500 characters"),
        ({"stderr": "Error: there is not enough memory\n"}, "enough memory"),
        ({"seconds": 1.2}, "slow"),
        ({"written": frozenset({"x"})}, "written"),
    ],
)
def test_the_script_sees_what_is_wrong_with_an_answer(changes: dict[str, object], fault: str | None) -> None:
    found = faults(Outcome(**{**vars(REFUSED), **changes}), 0.1)  # type: ignore[arg-type]
    assert any(fault in line for line in found) if fault else not found


class Touch:
    """A pickle that makes a file when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("loaded", "w")


def zipped(data: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("config.json", data)
    return archive.getvalue()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("good", GOOD),
        ("pickle", pickle.dumps(Touch())),
        ("polyglot", sealed(GOOD + zipped(GOOD))),
        ("damaged", GOOD[:-1] + bytes([GOOD[-1] ^ 1])),
    ],
)
def test_opening_a_checkpoint_writes_nothing_connects_nowhere_and_starts_nothing(
    tmp_path: Path, name: str, data: bytes
) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    command = [
        sys.executable,
        "-m",
        "charrnn",
        "sample",
        "--checkpoint",
        "x.safetensors",
        "--length",
        "5",
        "--seed",
        "1",
    ]
    result = subprocess.run(
        ["strace", "-f", "-y", "-o", tmp_path / "trace", "-e", "trace=%file,%network,%process", *command],
        cwd=tmp_path, capture_output=True, text=True, env=environment() | {"PYTHONDONTWRITEBYTECODE": "1"}, check=False,
    )  # fmt: skip
    assert result.returncode == (0 if name == "good" else 1), result.stderr
    calls = (tmp_path / "trace").read_text().splitlines()
    assert any("x.safetensors" in call for call in calls)
    assert sum("execve(" in call for call in calls) == 1
    forbidden = re.compile(
        r"O_WRONLY|O_RDWR|O_CREAT|\b(connect|bind|sendto|socket|fork|vfork|creat|mkdir\w*|unlink\w*|rename\w*"
        r"|truncate|chmod|chown|link\w*|symlink\w*|mknod\w*|utime\w*)\("
        r"|\bclone3?\((?!.*CLONE_THREAD)"
    )
    assert [call for call in calls if forbidden.search(call)] == []
    here = {path for call in calls for path in re.findall(r'open\w*\([^"]*"([^"]*)".* = \d+<' + str(tmp_path), call)}
    assert here <= {"x.safetensors", str(tmp_path), "."}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trace", "x.safetensors"]
