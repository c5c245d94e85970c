"""Study file -> frozen, validated Study. Every refusal names file, line, key, the value got, and what is allowed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vistudy.analysis.ledger.errors import StudyError
from vistudy.study.spec.arms import Arm, parse_arms
from vistudy.study.spec.claim import Claim, parse_claim
from vistudy.study.spec.hyperparameters import (
    Cell,
    KeyPath,
    Level,
    Source,
    assign,
    check_levels,
    check_name,
    check_value,
    near,
    overlap,
    refusal,
)
from vistudy.study.spec.schema import ADAPTIVE, BlockSpec, BudgetSpec, SampleSpec, SamplesSpec, StudySpec
from vistudy.study.spec.schema_errors import shape_error
from vistudy.study.spec.search_space import Dimension, check_when, dimension
from vistudy.study.spec.yaml_reader import parse_yaml, read_text
from vistudy.trainables.config import TrainConfig
from vistudy.trainables.data import DATASETS
from vistudy.trainables.models import MODELS

MOST_REFINED = 500
"""Points of a `boundary` sample."""
REMOVED = {
    "explore": (
        "trials that are stopped early support no conclusion",
        "leave it out; trials are trained to their end",
    ),
    "first_there": ("a study names its data, so that it is the same on every machine", "write 'data' instead"),
}
"""Key of earlier versions -> why it was removed, and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A checked sample."""

    method: str
    n: int
    seed: int
    space: tuple[Dimension, ...]
    start: int = 0
    """Points of the first round of `boundary`; 0 with other methods."""
    batch: int = 0
    """Points of its later rounds."""

    @property
    def looks_at_results(self) -> bool:
        """Whether its points depend on outcomes: then they are no sample of the space."""
        return self.method in ADAPTIVE

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        space = {dim.name: dim.to_json() for dim in self.space}
        rounds = {"start": self.start, "batch": self.batch} if self.method == "boundary" else {}
        return {"method": self.method, "n": self.n, **rounds, "seed": self.seed, "space": space}


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
    arms: Mapping[str, Arm]
    """Name -> arm; empty: every configuration is trained as it is."""
    family: str
    """Model, nets and data in one word, for a claim."""
    class_: str
    """Class of blocks that a claim judges apart; empty: none."""
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

    @property
    def varied(self) -> tuple[str, ...]:
        """Names that differ between configurations: factors and sampled ones."""
        return (*self.factors, *(dim.name for dim in (self.sample.space if self.sample else ())))

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
    claim: Claim | None
    """What the study is to decide, if it says so."""

    def error(self, path: KeyPath, message: str) -> StudyError:
        """An error at a key of the top level: ("claim", "baseline")."""
        return self.blocks[0].source.error(path, message)


def load_study(path: str | os.PathLike[str]) -> Study:
    """Read and check a study file.

    Raises:
        StudyError: the file cannot be read, or asks for something that does not exist or makes no sense.
    """
    return parse_study(read_text(Path(path)), str(path))


def parse_study(text: str, name: str = "study.yaml") -> Study:
    """Check the text of a study file; `name` is what error messages call it.

    Raises:
        StudyError: as `load_study`.
    """
    content, source = parse_yaml(text, name)
    if not isinstance(content, dict):
        got = "an empty file" if content is None else "a list" if isinstance(content, list) else "a single value"
        raise source.error((), f"not a study; got {got}; allowed: keys with values, such as 'study: my-study'")
    _refuse_removed(content, source)
    return _checked(content, source, text)


def _refuse_removed(content: Mapping[str, Any], source: Source) -> None:
    """Refuse keys of earlier versions with what to write instead."""
    blocks = content.get("blocks")
    parts: list[tuple[KeyPath, Any]] = [((), content)]
    parts += [(("blocks", i), block) for i, block in enumerate(blocks)] if isinstance(blocks, list) else []
    for place, part in parts:
        for key, (reason, mend) in REMOVED.items():
            if isinstance(part, dict) and key in part:
                raise source.error((*place, key), refusal(f"'{key}' was removed: {reason}", mend=mend))


def _checked(content: Mapping[str, Any], source: Source, text: str) -> Study:
    """The study of a file without removed keys."""
    try:
        spec = StudySpec.model_validate(content)
    except ValidationError as error:
        raise shape_error(error, source, StudySpec) from None
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
        claim=parse_claim(spec.claim, list(blocks.values()), source) if spec.claim else None,
    )


def _block(top: StudySpec, part: BlockSpec, base: KeyPath, source: Source) -> Block:
    """One block with what it inherits, checked."""
    own = {key: key in part.model_fields_set for key in BlockSpec.model_fields}
    words = {key: field.alias or key for key, field in BlockSpec.model_fields.items()}
    paths: dict[str, KeyPath] = {key: (*base, words[key]) if own[key] else (words[key],) for key in own}
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
    sampled = tuple(dim.name for dim in sample.space) if sample else ()
    method = sample.method if sample else None
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
        arms=parse_arms(config, given["arms"] or {}, factors, sampled, method, source, paths["arms"]),
        family=given["family"] or f"{config.model}_{data}",
        class_=given["class_"] or "",
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
        return tuple(sorted({max(1, round(last * part)) for part in (0.5, 1.0)}))
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
        made = dimension(config, name, dim, source, at)
        when = source.check((*at, "when"), check_when, config, dim.when or {}, known)
        known |= {name: made.choices} if made.choices else {}
        space.append(dataclasses.replace(made, when=when))
    start, batch = _rounds(spec, source, path)
    return Sample(method=spec.method, n=spec.n, seed=spec.seed, space=tuple(space), start=start, batch=batch)


def _rounds(spec: SampleSpec, source: Source, path: KeyPath) -> tuple[int, int]:
    """`start` and `batch` of a sample."""
    given = {key: getattr(spec, key) for key in ("start", "batch") if getattr(spec, key) is not None}
    if spec.method != "boundary":
        for key, value in given.items():
            raise source.error((*path, key), refusal(f"'{key}' is for method boundary", got=value, mend="take it out"))
        return 0, 0
    if spec.n > MOST_REFINED:
        problem = "its model is refitted to all points in every round"
        raise source.error((*path, "n"), refusal(problem, got=spec.n, allowed=f"up to {MOST_REFINED}"))
    start = given.get("start", max(1, spec.n // 3))
    if start > spec.n:
        raise source.error((*path, "start"), refusal("more than n", got=start, allowed=f"1 to {spec.n}"))
    return start, given.get("batch", 10)


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
