"""What can be swept: the hyperparameters of a model under their own names, and aliases that set several at once.

Nothing is declared here that a model's configuration declares already: types, choices and bounds come from
`trainables.config.hyperparameters`. Every function refuses with a ValueError that says what is wrong, the value got,
what is allowed and the nearest match; `check_at` adds the key, and `parse_study` file and line.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vistudy.study.spec.messages import KeyPath, LocatedError, check_at, closest_match, error_message, format_value
from vistudy.trainables.config import Hyperparameter, TrainConfig, hyperparameters

Level = bool | int | float | str
"""One value of a factor, as the user wrote it."""
Cell = dict[str, Level]
"""One combination of levels, in the user's names."""
Table = typing.TypeVar("Table")

FP32_MAX, FP32_MIN = 3.4e38, 1.2e-38

RESERVED = {
    "seed": "seeds are no factor: list them under 'seeds'",
    "model": "give another model in a block of its own, under 'blocks'",
    "data": "give another data set in a block of its own, under 'blocks'",
    "d_updates": "the budget is no factor: set it under 'budget'",
    "evaluations": "the budget is no factor: set it under 'budget'",
}
"""Hyperparameters that a study sets under another key, and how."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alias:
    """A name of the study file that sets several hyperparameters, or one in other words."""

    targets: tuple[str, ...]
    """The hyperparameters that it sets; empty if the model says (`TrainConfig.lr`)."""
    doc: str
    """One sentence."""
    allowed: str
    """Its levels, in words."""
    expand: Callable[[Level], dict[str, Level]]
    """Level -> value of each target; ValueError for a level that it does not know."""
    continuous: bool = False
    """True: a sample may draw it from a range, as it may its first target."""
    schema: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """JSON schema of one level."""


def _ratio(level: Level) -> dict[str, Level]:
    match = re.fullmatch(r"([0-9]{1,6}):([0-9]{1,6})", level) if isinstance(level, str) else None
    d_steps, g_steps = map(int, match.groups()) if match else (0, 0)
    if not (d_steps and g_steps):
        raise ValueError(
            error_message("no D:G ratio", got=level, allowed='"d:g" with whole numbers from 1, such as "1:10"')
        )
    return {"d_steps": d_steps, "g_steps": g_steps}


def _batch_norm(level: Level) -> dict[str, Level]:
    if isinstance(level, bool):
        return {"norm": "bn" if level else "none"}
    if level == "none_ref_nobias":
        return {"norm": level}
    allowed = ["true", "false", "none_ref_nobias"]
    guess = closest_match(level, allowed)
    raise ValueError(error_message("no setting of batch norm", got=level, closest=guess, allowed=", ".join(allowed)))


ALIASES: dict[str, Alias] = {
    "lr": Alias(
        targets=(),
        doc="All learning rates of the model together: those of the generator and the discriminator of a GAN.",
        allowed="number > 0",
        expand=lambda level: {},
        continuous=True,
        schema={"type": "number", "exclusiveMinimum": 0},
    ),
    "ratio": Alias(
        targets=("d_steps", "g_steps"),
        doc="Discriminator and generator updates in one period, `d_steps:g_steps`.",
        allowed='"d:g", whole numbers from 1',
        expand=_ratio,
        schema={"type": "string", "pattern": "^0*[1-9][0-9]*:0*[1-9][0-9]*$"},
    ),
    "batch_norm": Alias(
        targets=("norm",),
        doc="Batch norm on (norm: bn), off (norm: none), or off as in the paper's code (norm: none_ref_nobias).",
        allowed="false, true, none_ref_nobias",
        expand=_batch_norm,
        schema={"enum": [False, True, "none_ref_nobias"]},
    ),
}


def _cached_per_model(function: Callable[[type[TrainConfig]], Table]) -> Callable[[type[TrainConfig]], Table]:
    return typing.cast("Callable[[type[TrainConfig]], Table]", functools.cache(function))


_declared = _cached_per_model(hyperparameters)


@_cached_per_model
def field_types(config: type[TrainConfig]) -> dict[str, type]:
    """Hyperparameter -> float, int, str or bool."""
    hints = typing.get_type_hints(config)
    return {name: hints[name] for name in _declared(config)}


@_cached_per_model
def settable(config: type[TrainConfig]) -> dict[str, tuple[str, ...]]:
    """Name of the study file -> hyperparameters that it sets; aliases first, and only those that the model can read."""
    fields = _declared(config)
    aliases = {name: alias.targets or config.lr for name, alias in ALIASES.items()}
    read = {name: targets for name, targets in aliases.items() if targets and set(targets) <= fields.keys()}
    return read | {name: (name,) for name in fields if name not in RESERVED}


def check_name(config: type[TrainConfig], name: str, what: str) -> None:
    """Refuse a name that the model does not read. `what` is the word for it: factor, fixed key."""
    if name in RESERVED and name in (*_declared(config), "model"):
        raise ValueError(error_message(f"'{name}' cannot be a {what}", hint=RESERVED[name]))
    names = settable(config)
    if name not in names:
        problem = f"unknown {what} '{name}' for model {config.model}"
        raise ValueError(error_message(problem, closest=closest_match(name, names), allowed=", ".join(names)))


def assign(config: type[TrainConfig], name: str, level: object) -> dict[str, Any]:
    """Hyperparameters that a level sets -> their values, checked and in their declared type.

    Raises:
        ValueError: the level is of a wrong type, no choice, or out of bounds.
    """
    if not isinstance(level, bool | int | float | str):
        raise ValueError(error_message("not a value", got=level, allowed=describe(config, name)))
    model: Any = config  # mypy takes a dataclass type for unhashable
    return dict(_assign(model, name, level))


@functools.lru_cache(maxsize=65_536, typed=True)  # the checks, the search for unused settings and every trial ask
def _assign(config: Any, name: str, level: Level) -> dict[str, Any]:
    values = {name: level}
    if name in ALIASES:
        values = ALIASES[name].expand(level) if ALIASES[name].targets else dict.fromkeys(config.lr, level)
    return {target: check_value(config, target, value) for target, value in values.items()}


def check_value(config: type[TrainConfig], field: str, value: object) -> Any:
    """The value of one hyperparameter in its declared type; ValueError if type, choice or bound forbids it."""
    hyper, kind, allowed = _declared(config)[field], field_types(config)[field], _bounds_in_words(config)[field]
    if hyper.choices is not None:
        if not any(value == choice and type(value) is type(choice) for choice in hyper.choices):
            guess = closest_match(value, map(str, hyper.choices))
            raise ValueError(error_message("not a choice", got=value, closest=guess, allowed=allowed))
        return value
    if kind in (float, int):
        return _number(value, kind, hyper, allowed)
    if type(value) is not kind:
        raise ValueError(error_message("wrong type", got=value, allowed=allowed))
    return value


def _number(value: object, kind: type, hyper: Hyperparameter, allowed: str) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        quoted = isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?", value.strip())
        hint = "remove the quotes" if quoted else ""
        raise ValueError(error_message("not a number", got=value, allowed=allowed, hint=hint))
    if abs(value) > FP32_MAX or not math.isfinite(value):
        raise ValueError(error_message("not a finite single-precision number", got=value, allowed=allowed))
    if kind is int and value != int(value):
        raise ValueError(error_message("not a whole number", got=value, allowed=allowed))
    number = kind(value) + kind(0)  # -0.0 becomes 0.0: equal values must hash alike
    if kind is float and 0 < abs(number) < FP32_MIN:
        raise ValueError(error_message("zero in single precision", got=value, allowed=allowed))
    above = (hyper.ge is None or number >= hyper.ge) and (hyper.gt is None or number > hyper.gt)
    below = (hyper.le is None or number <= hyper.le) and (hyper.lt is None or number < hyper.lt)
    if not (above and below):
        raise ValueError(error_message("out of bounds", got=value, allowed=allowed))
    return typing.cast("float | int", number)


def describe(config: type[TrainConfig], name: str) -> str:
    """What a name's levels may be, in words: 'number > 0', 'one of mlp, dcgan'."""
    if name in ALIASES and name in settable(config):
        alias = ALIASES[name]
        return describe(config, settable(config)[name][0]) if alias.continuous else alias.allowed
    return _bounds_in_words(config)[name]


@_cached_per_model
def _bounds_in_words(config: type[TrainConfig]) -> dict[str, str]:
    out: dict[str, str] = {}
    for name, hyper in _declared(config).items():
        words = {float: "number", int: "whole number", str: "text", bool: "true or false"}[field_types(config)[name]]
        signs = {">=": hyper.ge, ">": hyper.gt, "<=": hyper.le, "<": hyper.lt}
        bounds = " and ".join(f"{sign} {bound:.10g}" for sign, bound in signs.items() if bound is not None)
        choices = ", ".join(map(str, hyper.choices or ()))
        out[name] = f"one of {choices}" if choices else f"{words} {bounds}".strip()
    return out


def range_kind(config: type[TrainConfig], name: str) -> type | None:
    """`float` or `int` for a name that a sample may draw from a range, None for one that takes choices only."""
    if name in ALIASES and not ALIASES[name].continuous:
        return None
    field = settable(config)[name][0]
    kind = field_types(config)[field]
    return kind if kind in (float, int) and _declared(config)[field].choices is None else None


def overlap(config: type[TrainConfig], names: Iterable[str]) -> tuple[str, str, str] | None:
    """The first two names that set the same hyperparameter, and that hyperparameter; None if there are none."""
    owner: dict[str, str] = {}
    for name in names:
        for target in settable(config)[name]:
            if target in owner:
                return owner[target], name, target
            owner[target] = name
    return None


def contains_level(value: Level, values: Iterable[Level]) -> bool:
    """Whether `value` is among `values`; true and 1 are different, 1 and 1.0 are not."""
    return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in values)


def check_levels(config: type[TrainConfig], name: str, levels: Sequence[Any], path: KeyPath) -> None:
    """Refuse a list of levels that is empty, has a level that the name does not take, or two that mean the same."""
    if not levels:
        hint = "list at least one, or take the key out"
        raise LocatedError(path, error_message("no levels", got=[], allowed=describe(config, name), hint=hint))
    seen: dict[str, object] = {}
    for i, level in enumerate(levels):
        key = repr(check_at((*path, i), assign, config, name, level))
        if key in seen:
            problem = f"duplicate levels: {format_value(seen[key])} and {format_value(level)} mean the same"
            raise LocatedError((*path, i), error_message(problem, got=list(levels), hint="take one of them out"))
        seen[key] = level
