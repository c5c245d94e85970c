"""docs/add-a-model.md, followed to the letter in a copy of the repository."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add-a-model.md").read_text("utf-8")
CODE, LINE, SMALL = re.findall(r"```python\n(.*?)```", PAGE, re.S)
(STUDY,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code with the page's file and lines in their places."""
    root = tmp_path_factory.mktemp("house")
    for name in ("vistudy", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    models = root / "vistudy" / "trainables" / "models"
    (models / "wgan_gp.py").write_text(CODE, "utf-8")
    insert(models / "__init__.py", "MODELS: dict[str, Model] = {\n", LINE)
    insert(
        models / "__init__.py",
        "from vistudy.trainables.models.vae",
        "from vistudy.trainables.models.wgan_gp import WganGpConfig, WganGpPack\n",
        before=True,
    )
    insert(root / "tests" / "trainables" / "configs.py", "SMALL: dict[str, dict[str, Any]] = {\n", SMALL)
    return root


def insert(path: Path, mark: str, line: str, *, before: bool = False) -> None:
    text = path.read_text("utf-8")
    assert text.count(mark) == 1, (path, mark)
    path.write_text(text.replace(mark, line + mark if before else mark + line), "utf-8")


def python(root: Path, *args: str) -> str:
    done = subprocess.run([sys.executable, *args], cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_a_new_model_passes_the_tests_of_all_models(house):
    out = python(house, "-m", "pytest", "-q", "tests/trainables/models/test_models.py", "-k", "wgan_gp or tried")
    assert "11 passed" in out


def test_its_study_file_is_understood(house):
    (house / "wgan.yaml").write_text(STUDY, "utf-8")
    code = (
        "from vistudy.study.planning.plan import plan; from vistudy.study.spec.parser import load_study; "
        "p = plan(load_study('wgan.yaml')); print(len(p.trials), p.trials[0].config)"
    )
    assert "8 WganGpConfig(" in python(house, "-c", code)


def test_penalty_of_a_linear_critic_is_known(house):
    code = """
import torch
from tests.trainables.configs import small
from vistudy.trainables.models import MODELS

seen = []
config = small("wgan_gp", gp_weight=0.0, optimizer="sgd", d_lr=1.0, g_steps=1)
pack = MODELS["wgan_gp"].pack([config], torch.device("cpu"))
w = torch.tensor([3.0, 4.0], requires_grad=True)


class Linear:
    leaves = frozen = {"w": w}
    flat = torch.zeros(1, 2)

    def __call__(self, x, params):
        return (x * params["w"]).sum(2, keepdim=True)

    def backward(self, loss, **_):
        seen.append(loss)
        return torch.autograd.grad(loss, w)[0][None]


pack.d = Linear()
pack._d_step()
pack._gp_weight = pack._gp_weight + 2.0
pack.d_updates = 0
pack._d_step()
print(float(seen[1] - seen[0]))
"""
    assert float(python(house, "-c", code)) == pytest.approx(2 * (5 - 1) ** 2, rel=1e-4)
