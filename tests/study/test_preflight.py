"""What is compared between nodes: the code of every package that a worker imports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clusters import ROOMS

ROOT = Path(__file__).parents[2]
HASH = "from study.preflight import code_hash; print(code_hash())"
IMPORTED = "import sys, study.executor; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
"""What a worker unpickles first is a function of study.executor, by its name."""


def python(code: str, folder: Path) -> str:
    """What the code prints in a new process that looks for packages in `folder` first."""
    command, env = [sys.executable, "-W", "ignore", "-c", code], os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, env=env).stdout


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_a_worker_imports_all_packages() -> None:
    assert set(python(IMPORTED, ROOT).split()) >= set(ROOMS)


@pytest.mark.parametrize("file", ["analysis/outcome.py", "clusters/base.py", "study/executor.py", "trainables/nets.py"])
def test_one_byte_of_any_package_is_other_code(copied: Path, file: str) -> None:
    before, path = python(HASH, copied), copied / file
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b" \n")  # a space at the end of the last line
    assert python(HASH, copied) != before
    path.write_bytes(content)
    assert python(HASH, copied) == before
