"""Arms: named settings in which every configuration of a block is trained, with the same seeds, to be compared.

An arm overrides what a configuration has fixed or sampled; `times` and `match_drift` scale the configuration's own
value.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from vistudy.study.spec.hyperparameters import (
    Cell,
    assign,
    check_name,
    check_value,
    describe,
    field_types,
    overlap,
    range_kind,
    settable,
)
from vistudy.study.spec.messages import (
    KeyPath,
    LocatedError,
    check_at,
    closest_match,
    error_message,
    format_value,
)
from vistudy.study.spec.schema import ADAPTIVE, NAME, ArmValueSpec
from vistudy.study.spec.schema_errors import to_study_error
from vistudy.study.spec.search_space import Dimension, dimension
from vistudy.trainables.config import TrainConfig

MOST_TIMES = 1_000_000
SETTINGS = "a value, {times: X}, {match_drift: ARM}, {low: .., high: ..} or {choices: [..]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """A checked arm, in the user's names."""

    name: str
    fixed: Cell
    """Hyperparameters with one value."""
    times: Mapping[str, float]
    """Hyperparameters whose own value is multiplied."""
    space: tuple[Dimension, ...]
    """Hyperparameters that are drawn, in this arm only, together with the configuration."""
    match: tuple[str, str] | None
    """(hyperparameter, other arm): scaled by one factor until the drift is that of the other arm."""
    written: Mapping[str, Any]
    """The settings as they stand in the file."""

    @property
    def text(self) -> str:
        """The settings in one line."""
        return ", ".join(f"{key} {format_value(value)}" for key, value in self.written.items()) or "as configured"


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """What the pilots of an arm with `match_drift` have shown."""

    scale: float | None
    """Factor, three digits; None: no pilot could be compared, and the arm is left out."""
    note: str
    """How it was found, in a sentence."""


def parse_arms(
    config: type[TrainConfig],
    spec: Mapping[str, Mapping[str, Any]],
    factors: Iterable[str],
    sampled: tuple[str, ...],
    method: str | None,
    path: KeyPath,
) -> dict[str, Arm]:
    """Check the arms of a block. `sampled`, `method`: of the block's sample (empty and None without one).

    Raises:
        StudyError: an unknown or unfit setting, or one that contradicts a factor, the sample or another arm.
    """
    arms: dict[str, Arm] = {}
    for name, settings in spec.items():
        at = (*path, name)
        if not re.fullmatch(NAME, name):
            allowed = "letters, digits, '.', '_' and '-', the first a letter or digit"
            raise LocatedError(at, error_message("wrong name of an arm", got=name, allowed=allowed))
        arms[name] = _arm(config, name, settings, at)
    for arm in arms.values():
        at = (*path, arm.name)
        _refuse_contradiction(config, arm, factors, sampled, at)
        _refuse_sampling(arm, method, at)
        _refuse_match(config, arm, arms, at)
    return arms


def _arm(config: type[TrainConfig], name: str, settings: Mapping[str, Any], path: KeyPath) -> Arm:
    fixed: Cell = {}
    times: dict[str, float] = {}
    space: list[Dimension] = []
    match = None
    for key, value in settings.items():
        at = (*path, key)
        check_at(at, check_name, config, key, "setting of an arm")
        if not isinstance(value, dict):
            check_at(at, assign, config, key, value)
            fixed[key] = value
            continue
        spec = _value_spec(value, at)
        if spec.times is not None:
            times[key] = check_at((*at, "times"), _factor, config, key, spec.times)
        elif spec.match_drift is not None:
            if match is not None:
                problem = f"'{match[0]}' and '{key}' are both matched"
                raise LocatedError(
                    at, error_message(problem, allowed="one match_drift an arm", hint="make two arms of it")
                )
            match = (key, spec.match_drift)
        else:
            space.append(dimension(config, key, spec, at))
    clash = overlap(config, settings)
    if clash:
        first, second, target = clash
        problem = f"'{first}' and '{second}' both set {target}"
        raise LocatedError((*path, second), error_message(problem, got=second, hint="keep one of them"))
    return Arm(name=name, fixed=fixed, times=times, space=tuple(space), match=match, written=dict(settings))


def _value_spec(value: dict[str, Any], path: KeyPath) -> ArmValueSpec:
    try:
        spec = ArmValueSpec.model_validate(value)
    except ValidationError as error:
        raise to_study_error(error, ArmValueSpec, path) from None
    is_range = any(key in value for key in ("low", "high", "log", "choices"))
    kinds = is_range + (spec.times is not None) + (spec.match_drift is not None)
    if kinds != 1:
        problem = "more than one way to set it" if kinds else "nothing is set"
        raise LocatedError(path, error_message(problem, got=value, allowed=SETTINGS))
    return spec


def _factor(config: type[TrainConfig], name: str, factor: object) -> float:
    if range_kind(config, name) is None:
        allowed = describe(config, name)
        raise ValueError(
            error_message(f"'{name}' is no number that can be multiplied", allowed=allowed, hint="give a value")
        )
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= MOST_TIMES:
        raise ValueError(error_message("no factor", got=factor, allowed=f"number > 0, at most {MOST_TIMES:,}"))
    return float(factor)


def _refuse_contradiction(
    config: type[TrainConfig], arm: Arm, factors: Iterable[str], sampled: tuple[str, ...], path: KeyPath
) -> None:
    """Refuse a factor whose levels an arm sets aside, and a hyperparameter that is drawn twice."""
    sets = settable(config)
    replaced = {target: name for name in (*arm.fixed, *(d.name for d in arm.space)) for target in sets[name]}
    for factor in factors:
        if set(sets[factor]) <= replaced.keys():
            name = replaced[sets[factor][-1]]
            problem = f"'{factor}' is a factor, and arm {arm.name} would train all of its levels alike"
            hint = f"take it out of the arm or of 'factors', or scale it: {name}: {{times: 0.5}}"
            raise LocatedError((*path, name), error_message(problem, got=arm.written[name], hint=hint))
    for dim in arm.space:
        twice = [name for name in sampled if set(sets[name]) & set(sets[dim.name])]
        if twice:
            problem = f"'{dim.name}' is drawn by arm {arm.name}, and '{twice[0]}' under sampling.space"
            raise LocatedError((*path, dim.name), error_message(problem, hint="draw it in one of the two"))


def _refuse_sampling(arm: Arm, method: str | None, path: KeyPath) -> None:
    if arm.space and method is None:
        hint = "add 'sampling', or make an arm of each value"
        raise LocatedError((*path, arm.space[0].name), error_message("an arm draws with the block's sample", hint=hint))
    if arm.match and method in ADAPTIVE:
        problem = f"a matched arm needs the configurations of the other arm, and {method} gives each arm its own"
        hint = "scale it by a number, such as {times: 0.3}"
        raise LocatedError((*path, arm.match[0]), error_message(problem, allowed="sobol, random or a grid", hint=hint))


def _refuse_match(config: type[TrainConfig], arm: Arm, arms: Mapping[str, Arm], path: KeyPath) -> None:
    if arm.match is None:
        return
    key, other = arm.match
    at = (*path, key, "match_drift")
    possible = [name for name, a in arms.items() if a.match is None]
    allowed = ", ".join(possible) or "an arm that is not itself matched"
    if other not in arms:
        guess = closest_match(other, possible)
        raise LocatedError(at, error_message("no such arm", got=other, closest=guess, allowed=allowed))
    if other == arm.name or arms[other].match:
        problem = "an arm cannot be matched to itself" if other == arm.name else f"arm {other} is itself matched"
        raise LocatedError(at, error_message(problem, got=other, allowed=allowed))
    if range_kind(config, key) is not float:
        problem = f"'{key}' has no continuous scale"
        hint = "multiply it by a number: {times: 0.2}"
        raise LocatedError(at, error_message(problem, allowed="a hyperparameter that is a real number", hint=hint))


def overrides(config: TrainConfig, arm: Arm, cell: Cell, scale: float | None) -> dict[str, Any]:
    """Hyperparameter -> its value in an arm.

    Args:
        config: what the configuration sets, without the arm.
        arm: the arm.
        cell: has the values that the arm has drawn.
        scale: factor of the matched hyperparameter.

    Raises:
        ValueError: a scaled value that the hyperparameter does not take; `name: why`.
    """
    kind = type(config)
    values: dict[str, Any] = {}
    for name, level in (arm.fixed | {dim.name: cell[dim.name] for dim in arm.space}).items():
        values |= assign(kind, name, level)
    factors = dict(arm.times) | ({arm.match[0]: scale} if arm.match and scale is not None else {})
    own = dataclasses.replace(config, **config.data_defaults()) if factors else config
    for name, factor in factors.items():
        for target in settable(kind)[name]:
            value = getattr(own, target)
            number = value * factor if value is not None else None
            if number is not None and field_types(kind)[target] is int:
                number = max(1, math.floor(number + 0.5))
            elif number is not None:
                number = float(f"{number:.12g}")  # 0.1 * 3 is 0.3, as somebody else may write it
            try:
                values[target] = check_value(kind, target, number)
            except ValueError as error:
                raise ValueError(f"{name}: {value} times {factor:g}: {error}") from None
    return values


def matched_settings(arm: Arm, match: Match | None) -> dict[str, Any]:
    """The settings as written; of a matched one also the scale, once it is known."""
    out = dict(arm.written)
    if arm.match and match is not None:
        out[arm.match[0]] = {**out[arm.match[0]], "scale": match.scale}
    return out
