"""The packages: who may import whom, and that what is installed holds all of them."""

from __future__ import annotations

import ast
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PROJECT

PACKAGE = PROJECT / "charrnn"
FLOORS = (
    "",
    "text",
    "network",
    "runs",
    "sampling",
    "evaluation",
    "language_model",
    "page",
    "planning",
    "training",
    "export",
    "cli",
    "__main__",
)
"""From the ground up; "" are the modules that need no package. Each imports only from its own floor and those below."""
MODULES = sorted(PACKAGE.rglob("*.py"))


def floor_of(module: str) -> int:
    """The floor of a module, named as in `import`."""
    first = module.split(".")[1] if "." in module else ""
    return FLOORS.index(first) if first in FLOORS else 0


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    """The modules that a module imports, wherever in it, as `package.module`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    module = name_of(path)
    above = {found for found in imports_of(path) if found.startswith("charrnn") and floor_of(found) > floor_of(module)}
    if module == "charrnn":
        above.remove("charrnn.language_model.LanguageModel")  # which `charrnn.load` imports when it is called
    assert above == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_training_and_export_import_tensorflow(path: Path) -> None:
    heavy = {found for found in imports_of(path) if found.split(".")[0] in ("tensorflow", "keras")}
    assert heavy == set() or name_of(path).startswith(("charrnn.training.", "charrnn.export."))


@pytest.mark.parametrize("path", [path for path in MODULES if path.parent != PACKAGE and path.name == "__init__.py"])
def test_a_package_says_what_it_is_for_and_nothing_else(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


def test_what_is_built_holds_every_module(tmp_path: Path) -> None:
    copy = tmp_path / "charrnn"
    names = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False).stdout.split()
    if not names:
        pytest.skip("not a checkout of git")
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((PROJECT / name).read_bytes())
    code = "from setuptools import build_meta as b; print(b.build_wheel('out'), b.build_sdist('out'))"
    result = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    wheel, sdist = result.stdout.split()[-2:]
    needed = {name for name in names if name.startswith("charrnn/")}
    assert "charrnn/py.typed" in needed
    with zipfile.ZipFile(copy / "out" / wheel) as archive:
        assert needed <= set(archive.namelist())
    with tarfile.open(copy / "out" / sdist) as archive:
        assert needed <= {name.partition("/")[2] for name in archive.getnames()}
