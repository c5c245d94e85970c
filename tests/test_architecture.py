"""The layout: where Ray, MLflow and torch may be imported, and how large a folder and its `__init__` may be.

Which package may import which is checked by import-linter (pyproject.toml).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("study", "trainables", "analysis", "clusters")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FOLDERS = sorted({path.parent for path in FILES})
PLACES = {
    "ray": ("clusters/", "study/execution/ray_tune.py", "study/execution/remote_profiling.py"),
    "mlflow": ("study/tracking/",),
}


def imported(path: Path) -> Iterator[str]:
    """First names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).partition(".")[0]


@pytest.mark.parametrize("name", PLACES)
def test_libraries_of_the_outside_world_are_imported_in_their_places(name: str) -> None:
    users = [path.relative_to(ROOT).as_posix() for path in FILES if name in imported(path)]
    assert len(users) > 1
    assert [user for user in users if not user.startswith(PLACES[name])] == []


def test_nothing_imports_our_packages_by_their_bare_names() -> None:
    everywhere = [*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    assert [path for path in everywhere if set(PACKAGES) & set(imported(path))] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_size_of_a_folder(folder: Path) -> None:
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    inner = [path for path in folder.iterdir() if (path / "__init__.py").exists()]
    assert len(modules) <= 14
    assert len(modules) + len(inner) >= 3
    registry = folder.name in ("models", "data")  # MODELS and DATASETS
    assert registry or len((folder / "__init__.py").read_text("utf-8").splitlines()) <= 40
