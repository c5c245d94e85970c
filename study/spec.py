"""Study file -> frozen, validated Study. Every refusal names file, line, key, the value got, and what is allowed."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from study.errors import StudyError
from study.factors import (
    Cell,
    Dimension,
    KeyPath,
    Level,
    Source,
    assign,
    check_levels,
    check_name,
    check_range,
    check_value,
    check_when,
    near,
    overlap,
    range_kind,
    refusal,
)
from trainables.config import TrainConfig
from trainables.data import DATASETS
from trainables.models import MODELS

MAX_BYTES = 1_000_000
"""Largest study file that is read. One of 10,000 trials is a few hundred bytes."""
MAX_NODES = 100_000
"""Most values of a study file after its aliases are expanded."""
MAX_DEPTH = 20
"""Deepest nesting of a study file (a valid one needs 7)."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"


class _FileModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class BudgetSpec(_FileModel):
    """How long every trial trains and how often it is looked at; equal for all trials of a block."""

    d_updates: Any = Field(
        description="Discriminator updates of every trial. Whole number from 1.", json_schema_extra={"type": "integer"}
    )
    evaluations: Any = Field(
        default=TrainConfig().evaluations,
        json_schema_extra={"type": "integer"},
        description="Evaluations, equally spaced in D updates, besides the one before training. Whole number from 1; "
        "each needs at least one period of the D:G ratio.",
    )


class DimensionSpec(_FileModel):
    """What one sampled hyperparameter may be: a range (`low`, `high`, `log`) or `choices`."""

    low: Any = Field(default=None, description="Lowest value of a range.", json_schema_extra={"type": "number"})
    high: Any = Field(default=None, description="Highest value of a range.", json_schema_extra={"type": "number"})
    log: bool = Field(default=False, description="Draw uniformly in the logarithm; `low` must be above 0.")
    choices: list[Any] | None = Field(default=None, description="The levels to choose from, instead of a range.")
    when: dict[str, Any] | None = Field(
        default=None,
        description="Condition: drawn only in cells where each of these names has the value (or one of the list of "
        "values) given. Names are factors, fixed keys, or dimensions that stand above this one.",
    )


class SampleSpec(_FileModel):
    """Sampled configurations instead of a grid, or in every cell of the grid."""

    method: Literal["sobol", "random", "optuna"] = Field(
        description="sobol: scrambled Sobol points, the most even cover; random: independent points; optuna: TPE, "
        "which learns from the trials that are done (for tuned arms; its points are no fair sample of the space)."
    )
    n: int = Field(ge=1, description="Configurations. Raising it keeps the first ones.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of the sample, not of the trials.")
    space: dict[str, DimensionSpec] = Field(description="Name -> range or choices.")


class SamplesSpec(_FileModel):
    """Which evaluations keep a grid of generated samples."""

    evaluations: list[int] = Field(description="Evaluations, from 0 (before training) to the budget's last.")


class BlockSpec(_FileModel):
    """One model on one data set. A key that is not given here is taken from the top level; a key that is given replaces
    the top level's key of that name as a whole (`fixed`, say, is not merged entry by entry; null empties it).
    """

    name: str | None = Field(default=None, pattern=NAME, description="The block's name; default `model-data`.")
    model: str | None = Field(default=None, description="What is trained. Required, here or at the top level.")
    data: str | None = Field(default=None, description="What it learns. Required, here or at the top level.")
    seeds: list[Any] | None = Field(
        default=None,
        description="Every cell is trained once with each. Whole numbers from 0. Required, here or at the top level.",
    )
    budget: BudgetSpec | None = Field(
        default=None, description="Length of training and number of evaluations. Required, here or above."
    )
    factors: dict[str, list[Any]] | None = Field(
        default=None, description="Name -> levels. The grid of all combinations is trained."
    )
    fixed: dict[str, Any] | None = Field(
        default=None, description="Name -> value for all trials, where not the default."
    )
    sample: SampleSpec | None = Field(default=None, description="Sampled hyperparameters.")
    samples: SamplesSpec | None = Field(
        default=None, description="When to keep generated samples; default: after about 1/4, 1/2 and all of the budget."
    )
    keep_checkpoints: Literal["none", "final"] | None = Field(
        default=None, description="`final` keeps the trained nets of every trial; default `none`."
    )


class StudySpec(BlockSpec):
    """A study file: one block written at the top level, or several under `blocks`."""

    study: str = Field(
        pattern=NAME,
        description="Name of the study: at most 80 letters, digits, '.', '_' and '-', the first a letter or digit.",
    )
    description: str = Field(default="", description="What the study asks, in words.")
    blocks: list[BlockSpec] | None = Field(
        default=None,
        description="Several models or data sets in one study; the top level then only holds their defaults.",
    )


EXPECTED = {
    "list_type": "a list, such as [1, 2]",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "model_attributes_type": "keys with values",
    "string_type": "text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "string_pattern_mismatch": "at most 80 letters, digits, '.', '_' and '-', the first a letter or digit",
}
"""pydantic's error type -> what is expected, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A checked sample."""

    method: str
    n: int
    seed: int
    space: tuple[Dimension, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One model on one data set, with everything inherited and checked."""

    name: str
    config: type[TrainConfig]
    data: str
    seeds: tuple[int, ...]
    d_updates: int
    evaluations: int
    factors: Mapping[str, tuple[Level, ...]]
    fixed: Cell
    sample: Sample | None
    sample_evaluations: tuple[int, ...]
    """Evaluations that keep a grid of generated samples."""
    keep_checkpoints: str
    source: Source
    paths: Mapping[str, KeyPath]
    """Key of the block -> where it stands in the file: in the block, or inherited from the top level."""

    @property
    def model(self) -> str:
        """Name in MODELS."""
        return self.config.model

    def error(self, path: KeyPath, message: str) -> StudyError:
        """An error at a key of this block: ("factors", "lr")."""
        return self.source.error(self.paths[str(path[0])] + path[1:] if path else (), message)


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A validated study file."""

    name: str
    description: str
    text: str
    """The file as it was written."""
    hash: str
    """12 hex digits of the SHA-256 of its content: comments, layout and order of keys do not count."""
    blocks: tuple[Block, ...]


def load_study(path: str | os.PathLike[str]) -> Study:
    """Read and check a study file.

    Raises:
        StudyError: the file cannot be read, or asks for something that does not exist or makes no sense.
    """
    return parse_study(_read(Path(path)), str(path))


def parse_study(text: str, name: str = "study.yaml") -> Study:
    """Check the text of a study file; `name` is what error messages call it.

    Raises:
        StudyError: as `load_study`.
    """
    content, source = _parse_yaml(text, name)
    if not isinstance(content, dict):
        got = "an empty file" if content is None else "a list" if isinstance(content, list) else "a single value"
        raise source.error((), f"not a study; got {got}; allowed: keys with values, such as 'study: my-study'")
    try:
        spec = StudySpec.model_validate(content)
    except ValidationError as error:
        raise _shape_error(error, source) from None
    parts: list[tuple[BlockSpec, KeyPath]] = [(spec, ())]
    if spec.blocks is not None:
        parts = [(block, ("blocks", i)) for i, block in enumerate(spec.blocks)]
    if not parts:
        raise source.error(("blocks",), refusal("no block", got=[], mend="list one, or take the key out"))
    blocks: dict[str, Block] = {}
    for part, base in parts:
        block = _block(spec, part, base, source)
        if block.name in blocks:
            mend = "give each a 'name' of its own"
            raise source.error((*base, "name"), refusal("two blocks of one name", got=block.name, mend=mend))
        blocks[block.name] = block
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return Study(
        name=spec.study,
        description=spec.description,
        text=text,
        hash=hashlib.sha256(canonical.encode()).hexdigest()[:12],
        blocks=tuple(blocks.values()),
    )


def _block(top: StudySpec, part: BlockSpec, base: KeyPath, source: Source) -> Block:
    """One block with what it inherits, checked."""
    own = {key: key in part.model_fields_set for key in BlockSpec.model_fields}
    paths: dict[str, KeyPath] = {key: (*base, key) if own[key] else (key,) for key in own}
    given = {key: getattr(part if own[key] else top, key) for key in own}

    def one_of(key: str, known: Sequence[str]) -> str:
        value, words = given[key], ", ".join(known)
        if value is None:
            raise source.error(base, refusal(f"'{key}' is missing", allowed=words, mend=f"add '{key}: {known[0]}'"))
        if value not in known:
            raise source.error(paths[key], refusal(f"unknown {key}", got=value, near=near(value, known), allowed=words))
        return str(value)

    config, data = MODELS[one_of("model", list(MODELS))].config, one_of("data", list(DATASETS))
    d_updates, evaluations = _budget(config, given["budget"], paths["budget"], base, source)
    factors, fixed = given["factors"] or {}, given["fixed"] or {}
    for key, names, what in (("factors", factors, "factor"), ("fixed", fixed, "fixed key")):
        for name in names:
            source.check((*paths[key], name), check_name, config, name, what)
    for name, value in fixed.items():
        source.check((*paths["fixed"], name), assign, config, name, value)
    for name, levels in factors.items():
        check_levels(config, name, levels, source, (*paths["factors"], name))
    known = {name: tuple(levels) for name, levels in factors.items()} | {name: (v,) for name, v in fixed.items()}
    sample = _sample(config, given["sample"], known, source, paths["sample"]) if given["sample"] else None
    _refuse_overlap(config, factors, fixed, sample, paths, source)
    return Block(
        name=part.name or f"{config.model}-{data}",
        config=config,
        data=data,
        seeds=_seeds(config, given["seeds"], paths["seeds"], base, source),
        d_updates=d_updates,
        evaluations=evaluations,
        factors={name: tuple(levels) for name, levels in factors.items()},
        fixed=dict(fixed),
        sample=sample,
        sample_evaluations=_sample_evaluations(given["samples"], evaluations, paths["samples"], source),
        keep_checkpoints=given["keep_checkpoints"] or "none",
        source=source,
        paths=paths,
    )


def _budget(
    config: type[TrainConfig], budget: BudgetSpec | None, path: KeyPath, base: KeyPath, source: Source
) -> tuple[int, int]:
    if budget is None:
        raise source.error(
            base, refusal("'budget' is missing", mend="add 'budget: {d_updates: 2000, evaluations: 50}'")
        )
    d_updates, evaluations = (
        source.check((*path, key), check_value, config, key, getattr(budget, key))
        for key in ("d_updates", "evaluations")
    )
    if evaluations > d_updates:
        problem, allowed = "an evaluation would have no update", f"up to d_updates, {d_updates}"
        raise source.error((*path, "evaluations"), refusal(problem, got=evaluations, allowed=allowed))
    return d_updates, evaluations


def _seeds(
    config: type[TrainConfig], seeds: list[Any] | None, path: KeyPath, base: KeyPath, source: Source
) -> tuple[int, ...]:
    if seeds is None:
        raise source.error(base, refusal("'seeds' is missing", mend="add 'seeds: [0, 1, 2]'"))
    if not seeds:
        raise source.error(path, refusal("no seed", got=[], allowed="whole numbers from 0", mend="list at least one"))
    checked = [source.check((*path, i), check_value, config, "seed", seed) for i, seed in enumerate(seeds)]
    for i, seed in enumerate(checked):
        if seed in checked[:i]:
            raise source.error((*path, i), refusal(f"seed {seed} is listed twice", got=seeds, mend="take one out"))
    return tuple(checked)


def _sample_evaluations(samples: SamplesSpec | None, last: int, path: KeyPath, source: Source) -> tuple[int, ...]:
    if samples is None:
        return tuple(sorted({max(1, round(last * part)) for part in (0.25, 0.5, 1.0)}))
    for i, evaluation in enumerate(samples.evaluations):
        if not 0 <= evaluation <= last:
            message = refusal("no such evaluation", got=evaluation, allowed=f"0 to {last} (budget.evaluations)")
            raise source.error((*path, "evaluations", i), message)
    return tuple(sorted(set(samples.evaluations)))


def _sample(
    config: type[TrainConfig], spec: SampleSpec, known: dict[str, tuple[Level, ...]], source: Source, path: KeyPath
) -> Sample:
    space: list[Dimension] = []
    known = dict(known)
    if not spec.space:
        raise source.error((*path, "space"), refusal("nothing to sample", got={}, mend="name a hyperparameter"))
    for name, dim in spec.space.items():
        at = (*path, "space", name)
        source.check(at, check_name, config, name, "dimension")
        if dim.choices is None:
            source.check(at, check_range, config, name, dim.low, dim.high, dim.log)
        elif dim.low is not None or dim.high is not None or dim.log:
            raise source.error(at, refusal("a range and choices at once", mend="keep 'choices', or 'low' and 'high'"))
        else:
            check_levels(config, name, dim.choices, source, (*at, "choices"))
        when = source.check((*at, "when"), check_when, config, dim.when or {}, known)
        kind = range_kind(config, name) if dim.choices is None else None
        choices = tuple(dim.choices or ())
        known |= {name: choices} if choices else {}
        low, high = (kind(dim.low), kind(dim.high)) if kind else (None, None)
        space.append(Dimension(name=name, kind=kind, low=low, high=high, log=dim.log, choices=choices, when=when))
    return Sample(method=spec.method, n=spec.n, seed=spec.seed, space=tuple(space))


def _refuse_overlap(
    config: type[TrainConfig],
    factors: Cell,
    fixed: Cell,
    sample: Sample | None,
    paths: Mapping[str, KeyPath],
    src: Source,
) -> None:
    """Refuse two names that set the same hyperparameter, be it under two keys or as an alias and what it sets."""
    places: list[tuple[str, KeyPath]] = [
        (name, (*paths[key], name)) for key, names in (("factors", factors), ("fixed", fixed)) for name in names
    ]
    places += [(dim.name, (*paths["sample"], "space", dim.name)) for dim in (sample.space if sample else ())]
    clash = overlap(config, [name for name, _ in places])
    if clash:
        first, second, target = clash
        at = [path for name, path in places if name == second][-1]
        raise src.error(at, refusal(f"'{first}' and '{second}' both set {target}", got=second, mend="keep one of them"))


def _shape_error(error: ValidationError, source: Source) -> StudyError:
    """The first of pydantic's complaints in our words."""
    complaints = error.errors(include_url=False)
    first = min(complaints, key=lambda e: e["type"] != "extra_forbidden")  # a misspelt key also makes one missing
    path, got, kind = tuple(first["loc"]), first["input"], first["type"]
    if kind == "extra_forbidden":
        allowed = list(_model_at(path[:-1]).model_fields)
        word = str(path[-1])
        return source.error(
            path, refusal(f"unknown key '{word}'", got=got, near=near(word, allowed), allowed=", ".join(allowed))
        )
    if kind == "missing":
        return source.error(path[:-1], refusal(f"'{path[-1]}' is missing", mend=f"add '{path[-1]}: ...'"))
    words = EXPECTED.get(kind, first["msg"].removeprefix("Input should be "))
    guess = None
    if kind == "literal_error":
        words = str(first["ctx"]["expected"])
        guess = near(got, re.findall("'([^']*)'", words))
    mend = "put it in quotes" if kind == "string_type" and isinstance(got, int | float) else ""
    return source.error(path, refusal("wrong value", got=got, near=guess, allowed=words, mend=mend))


def _model_at(path: KeyPath) -> type[BaseModel]:
    """The file model whose keys stand at `path`."""
    inner: dict[object, type[BaseModel]] = {"budget": BudgetSpec, "sample": SampleSpec, "samples": SamplesSpec}
    if path[:1] == ("blocks",):
        return inner.get(path[2], BlockSpec) if len(path) == 3 else DimensionSpec if len(path) > 3 else BlockSpec
    return inner[path[0]] if len(path) == 1 else DimensionSpec if path else StudySpec


def _read(path: Path) -> str:
    """The text of a file of moderate size."""
    try:
        if path.exists() and not path.is_file():
            what = "a directory" if path.is_dir() else "no regular file"
            found = sorted(p.name for p in path.glob("*.y*ml"))[:5] if path.is_dir() else []
            raise StudyError(
                f"{path}: {what}; allowed: a YAML file" + (f", such as {', '.join(found)}" if found else "")
            )
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        folder = path.parent
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        yaml = [name for name in names if name.endswith((".yaml", ".yml"))]
        message = refusal("no such file", near=near(path.name, yaml), allowed=", ".join(sorted(yaml)[:10]))
        raise StudyError(f"{path}: {message}") from None
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read: {error}") from None
    if len(raw) > MAX_BYTES:
        raise StudyError(f"{path}: larger than a study file may be; allowed: up to {MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        got = f"got byte 0x{raw[error.start]:02x} at position {error.start}"
        raise StudyError(f"{path}:{line}: not UTF-8; {got}; save the file as UTF-8") from None


class _Builder:
    """YAML nodes -> plain values, and the line of each. Plain values only: no tags, no repeated keys, no bombs."""

    def __init__(self, name: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self.source = Source(name=name, lines=self.lines)
        self._nodes = 0

    def build(self, node: Node, path: KeyPath) -> Any:
        self.lines[path] = node.start_mark.line + 1
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            allowed = f"{MAX_NODES} values, nested {MAX_DEPTH} deep, after aliases (*name) are expanded"
            raise self.source.error((), refusal("too large or too deep for a study file", allowed=allowed))
        if isinstance(node, ScalarNode):
            return self.scalar(node, path)
        if not isinstance(node, MappingNode):
            return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
        out: dict[str, Any] = {}
        for key_node, value in node.value:
            key = self.scalar(key_node, path) if isinstance(key_node, ScalarNode) else None
            line = key_node.start_mark.line + 1
            self.lines[(*path, str(key))] = line
            if not isinstance(key, str):
                raise self.source.error((*path, str(key)), refusal("a key must be a name", got=key, mend="quote it"))
            if key in out:
                raise self.source.error((*path, key), refusal(f"duplicate key '{key}'", mend="take one of them out"))
            out[key] = self.build(value, (*path, key))
            self.lines[(*path, key)] = line
        return out

    def scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        tag, text = str(node.tag).removeprefix("tag:yaml.org,2002:"), node.value
        plain = text.replace("_", "").lower()
        try:
            if tag == "int":
                return int(plain, 0) if re.match("[-+]?0[xob]", plain) else int(plain)
            if tag == "float":
                return float(plain.replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            raise self.source.error(path, refusal("not a number that can be read", got=text)) from None
        if tag in ("str", "timestamp", "merge"):  # YAML 1.2 has no dates: they are text
            return text
        if tag in ("bool", "null"):
            return plain == "true" if tag == "bool" else None
        raise self.source.error(path, refusal("tags are not allowed", got=tag, mend="take the '!' tag out"))


def _parse_yaml(text: str, name: str) -> tuple[Any, Source]:
    """The content of a YAML 1.2 document as plain values, and where they stand."""
    builder = _Builder(name)
    try:
        if re.search("(?m)^%", text):
            raise builder.source.error((), "YAML directives (%...) are not allowed; take the line out")
        node = YAML(typ="safe", pure=True).compose(text)
        return (None if node is None else builder.build(node, ())), builder.source
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise StudyError(f"{name}:{line}: not YAML: {error.problem}") from None
    except RecursionError:
        raise builder.source.error((), refusal("nested too deep", allowed=f"{MAX_DEPTH} levels")) from None
    except YAMLError as error:
        raise StudyError(f"{name}:1: not YAML: {' '.join(str(error).split())}") from None
