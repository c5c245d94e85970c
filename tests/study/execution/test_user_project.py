"""A user's project whose folders are named like ours: nothing of it is imported in place of vistudy, or executed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clusters.test_existing import STUDY, TOKEN, head  # noqa: F401  (a fixture)
from tests.study.runs import ENVIRONMENT, VISTUDY, write
from vistudy.analysis.tables.trials import load_frame

NAMES = ("analysis/__init__.py", "clusters/__init__.py", "study.py", "trainables/__init__.py", "worker.py")
SCRIPT = """
import vistudy as vs

if __name__ == "__main__":
    vs.run("tiny.yaml", store="st", cluster={cluster!r})
    print(len(vs.load_frame("st", "on-a-cluster")), "trials")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a study file, and modules that leave a mark and fail if anybody imports them."""
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("open('IMPORTED', 'a').write(__file__ + '\\n'); raise RuntimeError(__file__)\n")
    write(tmp_path / "tiny.yaml", STUDY | {"seeds": [0]})
    return tmp_path


def in_project(project: Path, *command: str, env: dict[str, str] | None = None) -> str:
    """Output of a command in the project's folder, which Python searches first, as `PYTHONPATH=.` asks for."""
    path = os.pathsep.join([".", str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=project, env=ENVIRONMENT | {"PYTHONPATH": path} | (env or {}),
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(project.rglob("IMPORTED"))
    assert load_frame(project / "st", "on-a-cluster")["state"].tolist() == ["complete"] * 2
    return done.stdout + done.stderr


@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_the_command_line(project: Path, cluster: str) -> None:
    in_project(project, *VISTUDY, "run", "tiny.yaml", "--store", "st", "--cluster", cluster)
    assert "complete" in in_project(project, *VISTUDY, "status", "on-a-cluster", "--store", "st")


@pytest.mark.parametrize("as_a_notebook_does", [False, True])
def test_python(project: Path, as_a_notebook_does: bool) -> None:
    """A script's folder comes first; of a notebook's kernel, it is the folder in which it was started."""
    code = SCRIPT.format(cluster="debug" if as_a_notebook_does else "local")
    (project / "sweep.py").write_text(code)
    assert "2 trials" in in_project(project, sys.executable, *(("-c", code) if as_a_notebook_does else ("sweep.py",)))


@pytest.mark.cluster
def test_a_running_cluster(project: Path, head: str) -> None:  # noqa: F811
    in_project(project, *VISTUDY, "run", "tiny.yaml", "--store", "st", "--cluster", head, env=TOKEN)
