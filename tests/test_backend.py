"""TensorFlow, imported quietly, and the device."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import environment

from charrnn import CharrnnError


def test_the_import_says_nothing(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", "import charrnn.training.backend"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout + result.stderr == ""


def test_an_import_that_fails_says_what_it_said_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text("import os; os.write(2, b'its own words\\n'); raise ImportError('broken')")
    (tmp_path / "keras.py").write_text("")
    (tmp_path / "x.txt").write_text("text " * 100)
    result = subprocess.run(
        [sys.executable, "-m", "charrnn", "train", "x.txt"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment() | {"PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert result.returncode == 1
    assert "its own words" in result.stderr
    assert "cannot be imported (broken); reinstall them" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_the_device_is_said() -> None:
    from charrnn.training.backend import choose_device, tf

    assert choose_device("cpu").name.startswith("the CPU (")
    if not tf.config.list_physical_devices("GPU"):
        with pytest.raises(CharrnnError, match=r"charrnn\[cuda\]"):
            choose_device("gpu")
