"""The page and the schema of study files are those of the code, and the page's examples work."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from vistudy.study.planning.plan import plan
from vistudy.study.spec import schema
from vistudy.study.spec.docs import EXAMPLES, FOLDER, generated, json_schema, study_file_markdown
from vistudy.study.spec.hyperparameters import ALIASES
from vistudy.study.spec.parser import parse_study
from vistudy.trainables.config import hyperparameters
from vistudy.trainables.data import DATASETS
from vistudy.trainables.models import MODELS

MODELS_OF_FILE = [
    model
    for model in vars(schema).values()
    if isinstance(model, type) and issubclass(model, BaseModel) and model.__module__ == schema.__name__
]


def errors(text: str) -> list[Any]:
    return list(jsonschema.Draft202012Validator(json_schema()).iter_errors(YAML(typ="safe", pure=True).load(text)))


@pytest.mark.parametrize("name", ["study-file.md", "study.schema.json"])
def test_the_committed_file_is_the_generated_one(name: str) -> None:
    committed = (FOLDER / name).read_text(encoding="utf-8")
    assert committed == generated()[name], f"docs/{name} is stale: run `python -m vistudy.study.spec.docs`"


@pytest.mark.parametrize("model", MODELS_OF_FILE)
def test_every_key_is_described(model: type[BaseModel]) -> None:
    page = study_file_markdown()
    for name, field in model.model_fields.items():
        assert field.description
        assert f"| `{field.alias or name}` |" in page


def test_everything_that_can_be_swept_is_listed() -> None:
    page = study_file_markdown()
    swept = {name for model in MODELS.values() for name in hyperparameters(model.config)}
    names = (swept - {"seed", "data", "d_updates", "evaluations"}) | set(ALIASES) | set(DATASETS)
    assert [name for name in names if f"| `{name}` |" not in page] == []


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", study_file_markdown(), re.DOTALL))
def test_the_examples_work(text: str) -> None:
    assert plan(parse_study(text)).trials
    assert errors(text) == []


def test_there_are_examples_and_their_numbers_are_right() -> None:
    assert len(re.findall("```yaml", study_file_markdown())) == len(EXAMPLES) == 5
    grid, sobol, tuned, _, arms = (plan(parse_study(text)) for _, _, text in EXAMPLES)
    assert (grid.cells, len(grid.trials)) == (20, 60)
    assert (sobol.cells, tuned.cells) == (32, 80)
    assert {trial.cell["arm"] for trial in arms.trials} > {"A0", "A1", "A2", "A3b", "A3a~0.1"}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("lr: [", "lrr: ["),
        ("lr: [1e-4", "lr: [-1e-4"),
        ("lr: [1e-4", 'lr: ["1e-4"'),
        ("reg_weight: [0, 5]", "reg_weight: []"),
        ('"1:10"', '"1:0"'),
        ("model: gan", "model: gam"),
        ("data: ring8", "data: ring9"),
        ("seeds: [0, 1, 2]", "seeds: [0, 0]"),
        ("evaluations: 50", "evaluations: 0"),
        ("anchor: period_start", "anchor: period_star"),
        ("seeds:", "sedes:"),
        ("A1: {reg_weight: 5}", "A1: {reg_weight: -5}"),
        ("A1: {reg_weight: 5}", "A1: {reg_wieght: 5}"),
        ("{times: 0.2}", "{time: 0.2}"),
        ("expect: supported", "expect: suported"),
        ("baseline: A0", "base: A0"),
    ],
)
def test_the_schema_finds_mistakes(right: str, wrong: str) -> None:
    text = EXAMPLES[0][2] if right in EXAMPLES[0][2] else EXAMPLES[-1][2]
    assert right in text
    assert errors(text.replace(right, wrong))
