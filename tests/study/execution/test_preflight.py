"""What is compared between nodes: all code of vistudy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HASH = "from vistudy.study.execution.preflight import code_hash; print(code_hash())"


def python(code: str, folder: Path) -> str:
    """What the code prints in a new process that looks for packages in `folder` first."""
    command, env = [sys.executable, "-W", "ignore", "-c", code], os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, env=env).stdout


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    shutil.copytree(ROOT / "vistudy", folder / "vistudy", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize(
    "file",
    ["analysis/outcomes/rules.py", "clusters/base.py", "study/execution/ray_tune.py", "trainables/nets/packed_net.py"],
)
def test_one_byte_of_any_package_is_other_code(copied: Path, file: str) -> None:
    before, path = python(HASH, copied), copied / "vistudy" / file
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b" \n")  # a space at the end of the last line
    assert python(HASH, copied) != before
    path.write_bytes(content)
    assert python(HASH, copied) == before
