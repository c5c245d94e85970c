"""Study file -> frozen, validated Study. Every refusal names file, line, key, the value got, and what is allowed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vistudy.study.spec.arms import parse_arms
from vistudy.study.spec.claim import parse_claim
from vistudy.study.spec.hyperparameters import Cell, Level, assign, check_levels, check_name, check_value, overlap
from vistudy.study.spec.messages import (
    KeyPath,
    LocatedError,
    SourceMap,
    check_at,
    closest_match,
    error_message,
)
from vistudy.study.spec.model import Block, Sample, Study
from vistudy.study.spec.schema import FORMER_KEYS, BlockSpec, BudgetSpec, SamplingSpec, SaveSamplesSpec, StudySpec
from vistudy.study.spec.schema_errors import to_study_error
from vistudy.study.spec.search_space import Dimension, check_when, dimension
from vistudy.study.spec.yaml_reader import parse_yaml, read_text
from vistudy.trainables.config import TrainConfig
from vistudy.trainables.data import DATASETS
from vistudy.trainables.models import MODELS

_FORMER = {key: former for former, key in FORMER_KEYS.items()}
RECIPES = Path(__file__).parents[1] / "recipes"
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


def load_study(path: str | os.PathLike[str]) -> Study:
    """Read and check a study file. The name of a recipe (`quickstart`) is its file, if no other has that name.

    Raises:
        StudyError: the file cannot be read, or asks for something that does not exist or makes no sense.
    """
    recipe = RECIPES / f"{path}.yaml"
    file = recipe if not Path(path).exists() and recipe.parent == RECIPES and recipe.is_file() else Path(path)
    return parse_study(read_text(file), str(path))


def parse_study(text: str, name: str = "study.yaml") -> Study:
    """Check the text of a study file; `name` is what error messages call it.

    Raises:
        StudyError: as `load_study`.
    """
    content, source = parse_yaml(text, name)
    with source.located():
        if not isinstance(content, dict):
            got = "an empty file" if content is None else "a list" if isinstance(content, list) else "a single value"
            raise LocatedError((), f"not a study; got {got}; allowed: keys with values, such as 'study: my-study'")
        content, source, renamed = _with_present_keys(content, source)
    with source.located():
        _refuse_removed(content)
    return dataclasses.replace(_checked(content, source, text), notes=tuple(renamed))


def _refuse_removed(content: Mapping[str, Any]) -> None:
    """Refuse keys of earlier versions with what to write instead."""
    blocks = content.get("blocks")
    parts: list[tuple[KeyPath, Any]] = [((), content)]
    parts += [(("blocks", i), block) for i, block in enumerate(blocks)] if isinstance(blocks, list) else []
    for place, part in parts:
        for key, (reason, hint) in REMOVED.items():
            if isinstance(part, dict) and key in part:
                raise LocatedError((*place, key), error_message(f"'{key}' was removed: {reason}", hint=hint))


def _with_present_keys(content: dict[str, Any], source: SourceMap) -> tuple[dict[str, Any], SourceMap, list[str]]:
    """Replace former keys by their present names; return content, lines, and at most one note about it."""
    listed = content["blocks"] if isinstance(content.get("blocks"), list) else []
    parts: list[tuple[KeyPath, Any]] = [((), content), *((("blocks", i), block) for i, block in enumerate(listed))]
    lines = dict(source.lines)
    renamed: dict[str, int] = {}
    for path, part in parts:
        for former, key in FORMER_KEYS.items() if isinstance(part, dict) else ():
            if former not in part:
                continue
            at = (*path, former)
            if key in part:
                raise LocatedError(
                    at, error_message(f"'{former}' is the former name of '{key}'", hint="keep one of them")
                )
            renamed.setdefault(former, lines[at])
            lines |= {(*path, key, *old[len(at) :]): line for old, line in source.lines.items() if old[: len(at)] == at}
    renames = ", ".join(f"'{former}' (line {line}) is now '{FORMER_KEYS[former]}'" for former, line in renamed.items())
    notes = [f"former keys are still accepted: {renames}"] if renames else []
    return _rename_keys(content, FORMER_KEYS), SourceMap(name=source.name, lines=lines), notes


def _rename_keys(content: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Rename keys at the top level and in each block."""

    def rename(part: Any) -> Any:
        return {names.get(key, key): value for key, value in part.items()} if isinstance(part, dict) else part

    out: dict[str, Any] = rename(content)
    return out | ({"blocks": [rename(block) for block in out["blocks"]]} if isinstance(out.get("blocks"), list) else {})


def _validate_schema(content: Mapping[str, Any]) -> StudySpec:
    try:
        return StudySpec.model_validate(content)
    except ValidationError as error:
        raise to_study_error(error, StudySpec) from None


def _checked(content: Mapping[str, Any], source: SourceMap, text: str) -> Study:
    """Check the content of a file, without former or removed keys."""
    with source.located():
        spec = _validate_schema(content)
        parts: list[tuple[BlockSpec, KeyPath]] = [(spec, ())]
        if spec.blocks is not None:
            parts = [(block, ("blocks", i)) for i, block in enumerate(spec.blocks)]
        if not parts:
            raise LocatedError(("blocks",), error_message("no block", got=[], hint="list one, or take the key out"))
        blocks: dict[str, Block] = {}
        for part, base in parts:
            block = _block(spec, part, base, source)
            if block.name in blocks:
                hint = "give each a 'name' of its own"
                raise LocatedError((*base, "name"), error_message("two blocks of one name", got=block.name, hint=hint))
            blocks[block.name] = block
        canonical = json.dumps(_rename_keys(content, _FORMER), sort_keys=True, separators=(",", ":"))
        return Study(
            name=spec.study,
            description=spec.description,
            text=text,
            hash=hashlib.sha256(canonical.encode()).hexdigest()[:12],
            blocks=tuple(blocks.values()),
            claim=parse_claim(spec.claim, list(blocks.values())) if spec.claim else None,
        )


def _block(top: StudySpec, part: BlockSpec, base: KeyPath, source: SourceMap) -> Block:
    """One block with what it inherits, checked."""
    own = {key: key in part.model_fields_set for key in BlockSpec.model_fields}
    words = {key: field.alias or key for key, field in BlockSpec.model_fields.items()}
    paths: dict[str, KeyPath] = {key: (*base, words[key]) if own[key] else (words[key],) for key in own}
    settings = {key: getattr(part if own[key] else top, key) for key in own}

    def one_of(key: str, choices: Sequence[str]) -> str:
        value, words = settings[key], ", ".join(choices)
        if value is None:
            raise LocatedError(
                base, error_message(f"'{key}' is missing", allowed=words, hint=f"add '{key}: {choices[0]}'")
            )
        if value not in choices:
            raise LocatedError(
                paths[key],
                error_message(f"unknown {key}", got=value, closest=closest_match(value, choices), allowed=words),
            )
        return str(value)

    config, data = MODELS[one_of("model", list(MODELS))].config, one_of("data", list(DATASETS))
    d_updates, evaluations = _budget(config, settings["budget"], paths["budget"], base)
    factors, fixed = settings["factors"] or {}, settings["fixed"] or {}
    for key, names, what in (("factors", factors, "factor"), ("fixed", fixed, "fixed key")):
        for name in names:
            check_at((*paths[key], name), check_name, config, name, what)
    for name, value in fixed.items():
        check_at((*paths["fixed"], name), assign, config, name, value)
    for name, levels in factors.items():
        check_levels(config, name, levels, (*paths["factors"], name))
    levels_of = {name: tuple(levels) for name, levels in factors.items()} | {name: (v,) for name, v in fixed.items()}
    sample = _sample(config, settings["sampling"], levels_of, paths["sampling"]) if settings["sampling"] else None
    _refuse_overlap(config, factors, fixed, sample, paths)
    sampled = tuple(dim.name for dim in sample.space) if sample else ()
    method = sample.method if sample else None
    return Block(
        name=part.name or f"{config.model}-{data}",
        config=config,
        data=data,
        seeds=_seeds(config, settings["seeds"], paths["seeds"], base),
        d_updates=d_updates,
        evaluations=evaluations,
        factors={name: tuple(levels) for name, levels in factors.items()},
        fixed=dict(fixed),
        sample=sample,
        arms=parse_arms(config, settings["arms"] or {}, factors, sampled, method, paths["arms"]),
        family=settings["family"] or f"{config.model}_{data}",
        class_=settings["class_"] or "",
        sample_evaluations=_sample_evaluations(settings["save_samples"], evaluations, paths["save_samples"]),
        keep_checkpoints=settings["keep_checkpoints"] or "none",
        source=source,
        paths=paths,
    )


def _budget(config: type[TrainConfig], budget: BudgetSpec | None, path: KeyPath, base: KeyPath) -> tuple[int, int]:
    if budget is None:
        raise LocatedError(
            base, error_message("'budget' is missing", hint="add 'budget: {d_updates: 2000, evaluations: 50}'")
        )
    d_updates, evaluations = (
        check_at((*path, key), check_value, config, key, getattr(budget, key)) for key in ("d_updates", "evaluations")
    )
    if evaluations > d_updates:
        problem, allowed = "an evaluation would have no update", f"up to d_updates, {d_updates}"
        raise LocatedError((*path, "evaluations"), error_message(problem, got=evaluations, allowed=allowed))
    return d_updates, evaluations


def _seeds(config: type[TrainConfig], seeds: list[Any] | None, path: KeyPath, base: KeyPath) -> tuple[int, ...]:
    if seeds is None:
        raise LocatedError(base, error_message("'seeds' is missing", hint="add 'seeds: [0, 1, 2]'"))
    if not seeds:
        raise LocatedError(
            path, error_message("no seed", got=[], allowed="whole numbers from 0", hint="list at least one")
        )
    checked = [check_at((*path, i), check_value, config, "seed", seed) for i, seed in enumerate(seeds)]
    for i, seed in enumerate(checked):
        if seed in checked[:i]:
            raise LocatedError(
                (*path, i), error_message(f"seed {seed} is listed twice", got=seeds, hint="take one out")
            )
    return tuple(checked)


def _sample_evaluations(samples: SaveSamplesSpec | None, last: int, path: KeyPath) -> tuple[int, ...]:
    if samples is None:
        return tuple(sorted({max(1, round(last * part)) for part in (0.5, 1.0)}))
    for i, evaluation in enumerate(samples.evaluations):
        if not 0 <= evaluation <= last:
            message = error_message("no such evaluation", got=evaluation, allowed=f"0 to {last} (budget.evaluations)")
            raise LocatedError((*path, "evaluations", i), message)
    return tuple(sorted(set(samples.evaluations)))


def _sample(
    config: type[TrainConfig], spec: SamplingSpec, levels_of: dict[str, tuple[Level, ...]], path: KeyPath
) -> Sample:
    space: list[Dimension] = []
    levels_of = dict(levels_of)
    if not spec.space:
        raise LocatedError((*path, "space"), error_message("nothing to sample", got={}, hint="name a hyperparameter"))
    for name, dim in spec.space.items():
        at = (*path, "space", name)
        check_at(at, check_name, config, name, "dimension")
        parsed = dimension(config, name, dim, at)
        when = check_at((*at, "when"), check_when, config, dim.when or {}, levels_of)
        levels_of |= {name: parsed.choices} if parsed.choices else {}
        space.append(dataclasses.replace(parsed, when=when))
    start, batch = _rounds(spec, path)
    return Sample(method=spec.method, n=spec.n, seed=spec.seed, space=tuple(space), start=start, batch=batch)


def _rounds(spec: SamplingSpec, path: KeyPath) -> tuple[int, int]:
    """`start` and `batch` of a sample."""
    settings = {key: getattr(spec, key) for key in ("start", "batch") if getattr(spec, key) is not None}
    if spec.method != "boundary":
        for key, value in settings.items():
            raise LocatedError(
                (*path, key), error_message(f"'{key}' is for method boundary", got=value, hint="take it out")
            )
        return 0, 0
    if spec.n > MOST_REFINED:
        problem = "its model is refitted to all points in every round"
        raise LocatedError((*path, "n"), error_message(problem, got=spec.n, allowed=f"up to {MOST_REFINED}"))
    start = settings.get("start", max(1, spec.n // 3))
    if start > spec.n:
        raise LocatedError((*path, "start"), error_message("more than n", got=start, allowed=f"1 to {spec.n}"))
    return start, settings.get("batch", 10)


def _refuse_overlap(
    config: type[TrainConfig],
    factors: Cell,
    fixed: Cell,
    sample: Sample | None,
    paths: Mapping[str, KeyPath],
) -> None:
    """Refuse two names that set the same hyperparameter, be it under two keys or as an alias and what it sets."""
    places: list[tuple[str, KeyPath]] = [
        (name, (*paths[key], name)) for key, names in (("factors", factors), ("fixed", fixed)) for name in names
    ]
    places += [(dim.name, (*paths["sampling"], "space", dim.name)) for dim in (sample.space if sample else ())]
    clash = overlap(config, [name for name, _ in places])
    if clash:
        first, second, target = clash
        at = [path for name, path in places if name == second][-1]
        raise LocatedError(
            at, error_message(f"'{first}' and '{second}' both set {target}", got=second, hint="keep one of them")
        )
