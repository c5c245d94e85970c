"""Whose commit is recorded as that of the code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
STATE = "import json; from vistudy.study.execution.provenance import git_state; print(json.dumps(git_state()))"


def git_state_of(folder: Path) -> dict[str, str | bool | None]:
    """What code in a folder says of itself."""
    done = subprocess.run([sys.executable, "-c", STATE], cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_repository_of_a_user_who_installed_vistudy_in_it_is_not_ours(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "vistudy", tmp_path / "vistudy", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".gitignore").write_text("vistudy/\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=u", "-c", "user.email=u@example.org"]
    for command in (["init", "-q"], ["add", ".gitignore"], ["commit", "-qm", "theirs"]):
        subprocess.run([*git, *command], check=True)
    assert git_state_of(tmp_path) == {"commit": None, "dirty": None}
    subprocess.run([*git, "add", "-f", "vistudy"], check=True)
    subprocess.run([*git, "commit", "-qm", "a checkout of it"], check=True)
    state = git_state_of(tmp_path)
    assert len(str(state["commit"])) == 40
    assert state["dirty"] is False
