"""Generate `docs/study-file.md` and `docs/study.schema.json` from the schema: `python -m vistudy.study.spec.docs`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from vistudy.study.spec.claim import THRESHOLDS
from vistudy.study.spec.examples import EXAMPLES
from vistudy.study.spec.hyperparameters import ALIASES, RESERVED, describe, field_types, range_kind, settable
from vistudy.study.spec.limits import LIMIT_TRIALS, MAX_TRIALS, PILOT_CONFIGS, PILOT_SCALES, STARTUP_TRIALS
from vistudy.study.spec.schema import (
    ArmValueSpec,
    BlockSpec,
    BudgetSpec,
    ChoiceSpec,
    ClaimSpec,
    DimensionSpec,
    ExploreSpec,
    PredictionSpec,
    SamplingSpec,
    SaveSamplesSpec,
    StudySpec,
)
from vistudy.study.spec.schema_errors import keys
from vistudy.study.spec.yaml_reader import MAX_BYTES
from vistudy.trainables.config import TrainConfig, hyperparameters
from vistudy.trainables.data import DATASETS
from vistudy.trainables.models import MODELS

FOLDER = Path(__file__).resolve().parents[2] / "docs"
"""Where the two files are kept in the repository."""

SECTIONS: tuple[tuple[str, type[BaseModel], str], ...] = (
    ("A block", BlockSpec, "These keys stand at the top level, or in a block of `blocks`."),
    ("An entry of `first_there`", ChoiceSpec, ""),
    ("`budget`", BudgetSpec, ""),
    ("`sampling`", SamplingSpec, ""),
    ("An entry of `sampling.space`", DimensionSpec, ""),
    ("`save_samples`", SaveSamplesSpec, ""),
    ("A setting of an arm", ArmValueSpec, ""),
    ("`claim`", ClaimSpec, ""),
    ("`explore`", ExploreSpec, ""),
    ("An entry of `claim.predictions`", PredictionSpec, ""),
)


def study_file_markdown() -> str:
    """The page `docs/study-file.md`."""
    parts = [_introduction(), _keys("The top level", StudySpec, keys(BlockSpec), StudySpec.__doc__ or "")]
    parts += [
        _keys(title, model, (), "\n\n".join(filter(None, (intro, model.__doc__)))) for title, model, intro in SECTIONS
    ]
    parts += [
        _sampling(),
        _arms(),
        _aliases(),
        *(_hyperparameters(name) for name in MODELS),
        _data_sets(),
        "## Examples",
    ]
    parts += [f"### {title}\n\n{text}\n\n```yaml\n{yaml}```" for title, text, yaml in EXAMPLES]
    return "\n\n".join(parts) + "\n"


def json_schema() -> dict[str, Any]:
    """JSON schema of a study file, for editors; it knows every model's hyperparameters and their bounds."""
    schema = StudySpec.model_json_schema()
    blocks = [schema["properties"], schema["$defs"]["BlockSpec"]["properties"]]
    entry = schema["$defs"]["ChoiceSpec"]["properties"]
    configs = [model.config for model in MODELS.values()]
    levels = {name: _either(_level(c, name) for c in configs if name in settable(c)) for name in _all_names()}
    grids = {name: {"type": "array", "minItems": 1, "items": level} for name, level in levels.items()}
    seed = _either(_level(c, "seed") for c in configs)
    for properties in (*blocks, entry):
        _narrow(properties["factors"], {"type": "object", "properties": grids, "additionalProperties": False})
        _narrow(properties["fixed"], {"type": "object", "properties": levels, "additionalProperties": False})
        _narrow(properties["seeds"], {"type": "array", "minItems": 1, "uniqueItems": True, "items": seed})
    entry["data"] |= {"enum": list(DATASETS)}
    for properties in blocks:
        _narrow(properties["model"], {"enum": list(MODELS)})
        _narrow(properties["data"], {"enum": list(DATASETS)})
        settings = {name: {"anyOf": [level, {"$ref": "#/$defs/ArmValueSpec"}]} for name, level in levels.items()}
        arm = {"type": "object", "properties": settings, "additionalProperties": False}
        _narrow(properties["arms"], {"type": "object", "additionalProperties": arm})
    for name in BudgetSpec.model_fields:
        schema["$defs"]["BudgetSpec"]["properties"][name] |= _level(TrainConfig, name)
    schema["$defs"]["SamplingSpec"]["properties"]["space"]["propertyNames"] = {"enum": _all_names()}
    schema["$defs"]["ArmValueSpec"] = ArmValueSpec.model_json_schema()
    claim = schema["$defs"]["ClaimSpec"]["properties"]
    claim["default"] |= {"properties": levels, "additionalProperties": False}
    claim["thresholds"] |= {"additionalProperties": {"type": "number"}, "propertyNames": {"enum": list(THRESHOLDS)}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "vistudy study file"}


def main() -> None:
    """Rewrite both files."""
    for name, text in generated().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def generated() -> dict[str, str]:
    """File name -> its content, as it has to be in the repository."""
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    return {"study-file.md": study_file_markdown(), "study.schema.json": schema}


def _introduction() -> str:
    return f"""\
<!-- Generated by `python -m vistudy.study.spec.docs` from the code that reads study files. Do not edit. -->
# The study file

A study file says what is trained: a model, a data set, the levels of the factors, the seeds and the budget. It is YAML
1.2 in UTF-8, at most {MAX_BYTES:,} bytes: `1e-4` is a number, `1:10` is text, `yes` is text, and a key may stand only
once. `vistudy plan FILE` shows what it amounts to and starts nothing. More than {MAX_TRIALS:,} trials need `--yes`;
more than {LIMIT_TRIALS:,} are refused.

Editors check a file as you type against [study.schema.json](study.schema.json): with the YAML extension of most of them
by a first line `# yaml-language-server: $schema=PATH/study.schema.json`."""


def _keys(title: str, model: type[BaseModel], without: Iterable[str], intro: str) -> str:
    properties = model.model_json_schema()
    rows = [
        (
            f"`{name}`",
            _type(part),
            "required" if name in properties.get("required", ()) else _default(part),
            part["description"],
        )
        for name, part in properties["properties"].items()
        if name not in without
    ]
    intro = " ".join(intro.split())
    return f"## {title}\n\n{intro}\n\n{_table(('key', 'type', 'default', 'meaning'), rows)}"


def _type(part: dict[str, Any]) -> str:
    """A property's type in words."""
    options = [option for option in part.get("anyOf", [part]) if option.get("type") != "null"]
    if "$ref" in options[0]:
        name = options[0]["$ref"].rsplit("/", 1)[-1].removesuffix("Spec")
        return f"keys of `{re.sub('(?<!^)(?=[A-Z])', '_', name).lower()}`"
    if "$ref" in options[0].get("items", {}):
        return "list of keys"
    if "enum" in options[0]:
        return " or ".join(f"`{value}`" for value in options[0]["enum"])
    words = {"string": "text", "integer": "whole number", "boolean": "true or false", "array": "list", "object": "keys"}
    words["number"] = "number"
    return words.get(options[0]["type"], str(options[0]["type"]))


def _default(part: dict[str, Any]) -> str:
    return "" if part.get("default") in (None, "", [], {}) else f"`{json.dumps(part['default'])}`"


def _sampling() -> str:
    return f"""\
## How samples are drawn

Sobol and random points depend on `seed` and on the names in `space`, not on their order or on `n`: raising `n` keeps
the first points and adds others. Real values are rounded to six digits, so that a trial is the same on every machine.
A whole-number hyperparameter is drawn as a whole number, `high` included. Conditions never shift other values: a
dimension whose condition fails is left out of the cell, and the model's default holds.

`method: optuna` asks Optuna's TPE, one study for each cell of the grid. All that is asked before
{STARTUP_TRIALS} values are known are random points. A diverged trial is told as the worst finite value."""


def _arms() -> str:
    scales = ", ".join(f"{scale:g}" for scale in PILOT_SCALES)
    return f"""\
## Arms

Every configuration (cell of the grid, point of the sample) is trained in every arm with the same seeds: arms are
compared in pairs. An arm overrides what the configuration has fixed or sampled. A factor that an arm would set to one
value is refused; one that it scales (`times`, `match_drift`) is not. In a trial's cell, `arm` is the arm's name, what
the arm has drawn stands under its own name, and what the arm overrides keeps the level of the configuration.

**Ranges and choices of an arm** are drawn beside the sample: raising `n` keeps the first ones, and two arms that draw
the same hyperparameter get the same numbers. With `method: optuna` every arm is tuned on its own, with the same `n`;
what an arm draws is tuned with the rest.

**`match_drift`** takes two passes in one `vistudy run`. The first one trains all other arms and, of this one, pilots:
the first {PILOT_CONFIGS} configurations with the first seed, at {scales} times the hyperparameter. They are trials of
the study like all others, in arms such as `A3a~0.1`. The drift of a trial is the median of `drift`
(`docs/records.md`) over the last half of its evaluations; trials that diverged have none. The scale at which the
median over pilots of log(drift here / drift in the other arm) is 0, linear in its logarithm between the scales tried,
is taken with three digits; it is never beyond the scales tried, and the plan says so if it should be. It depends on
records alone."""


def _aliases() -> str:
    rows = [
        (f"`{name}`", ", ".join(f"`{t}`" for t in alias.targets) or _rates(), alias.allowed, alias.doc)
        for name, alias in ALIASES.items()
    ]
    return (
        "## Aliases\n\nShort names for what is often varied together. A name and an alias that sets it cannot be in "
        f"the same block.\n\n{_table(('name', 'sets', 'levels', 'meaning'), rows)}"
    )


def _rates() -> str:
    """What `lr` sets, by model."""
    rates = {name: ", ".join(f"`{t}`" for t in model.config.lr) for name, model in MODELS.items() if model.config.lr}
    return "; ".join(f"{name}: {targets}" for name, targets in rates.items())


def _hyperparameters(model: str) -> str:
    config = MODELS[model].config
    rows = []
    for name, hyper in hyperparameters(config).items():
        if name in RESERVED:
            continue
        default = getattr(config(), name)
        drawn = "range" if range_kind(config, name) else "choices"
        share = "structural" if hyper.structural else "fusible"
        words = "by the data" if default is None else f"`{json.dumps(default)}`"
        rows.append((f"`{name}`", describe(config, name), words, drawn, share, hyper.doc))
    return (
        f"## Hyperparameters of `model: {model}`\n\nEach can be a factor, a fixed key or a dimension of a sample. "
        "Trials that differ in *fusible* ones only are trained together in one pack; a *structural* one splits packs "
        f"and so costs time.\n\n{_table(('name', 'levels', 'default', 'sampled by', 'packs', 'meaning'), rows)}"
    )


def _data_sets() -> str:
    rows = []
    for name, data in DATASETS.items():
        exact = data.kind == "exact"
        nets = "none" if exact else ", ".join(f"{key} {value}" for key, value in data.net_defaults(None).items())
        rows.append((f"`{name}`", data.kind, " x ".join(map(str, data.shape)), nets))
    return f"## Data sets\n\n{_table(('name', 'kind', 'shape of a sample', 'default net'), rows)}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _all_names() -> list[str]:
    return list(dict.fromkeys(name for model in MODELS.values() for name in settable(model.config)))


def _level(config: type[TrainConfig], name: str) -> dict[str, Any]:
    """JSON schema of one level of a name."""
    if name in ALIASES:
        return {"description": ALIASES[name].doc, **ALIASES[name].schema}
    hyper = hyperparameters(config)[name]
    if hyper.choices is not None:
        return {"description": hyper.doc, "enum": list(hyper.choices)}
    kind = {float: "number", int: "integer", str: "string", bool: "boolean"}[field_types(config)[name]]
    bounds = {"minimum": hyper.ge, "exclusiveMinimum": hyper.gt, "maximum": hyper.le, "exclusiveMaximum": hyper.lt}
    return {
        "description": hyper.doc,
        "type": kind,
        **{key: bound for key, bound in bounds.items() if bound is not None},
    }


def _either(schemas: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One of the models' schemas of a name, which are often the same."""
    different = [json.loads(text) for text in dict.fromkeys(json.dumps(schema) for schema in schemas)]
    return different[0] if len(different) == 1 else {"anyOf": different}


def _narrow(part: dict[str, Any], to: dict[str, Any]) -> None:
    """Replace the type of a property that may be null by a narrower one."""
    part["anyOf"] = [to, {"type": "null"}]


if __name__ == "__main__":
    main()
