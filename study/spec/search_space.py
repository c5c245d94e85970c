"""What a sample draws: ranges and choices of a hyperparameter, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from vistudy.study.spec.hyperparameters import Level, assign, check_levels, contains_level, describe, range_kind
from vistudy.study.spec.messages import (
    KeyPath,
    LocatedError,
    check_at,
    closest_match,
    error_message,
    format_value,
)
from vistudy.trainables.config import TrainConfig


class DimensionLike(Protocol):
    """A range or choices, as a study file has them."""

    @property
    def low(self) -> Any:
        """Lowest value."""

    @property
    def high(self) -> Any:
        """Highest value."""

    @property
    def log(self) -> bool:
        """Drawn in the logarithm."""

    @property
    def choices(self) -> list[Any] | None:
        """Levels instead of a range."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dimension:
    """One checked dimension of a sample's space, in the user's names and values."""

    name: str
    kind: type | None
    """float or int for a range, None for choices."""
    low: Any
    high: Any
    log: bool
    choices: tuple[Level, ...]
    """Empty for a range."""
    when: Mapping[str, tuple[Level, ...]]
    """Name -> values with which this dimension is drawn; all must hold."""

    def is_active(self, cell: Mapping[str, Level]) -> bool:
        """Whether the condition holds in a cell (names that are not drawn hold no condition)."""
        return all(name in cell and contains_level(cell[name], values) for name, values in self.when.items())

    def to_json(self) -> dict[str, Any]:
        """As in a study file."""
        when = {"when": {name: list(values) for name, values in self.when.items()}} if self.when else {}
        bounds = {"low": self.low, "high": self.high, "log": self.log}
        return ({"choices": list(self.choices)} if self.choices else bounds) | when


def dimension(
    config: type[TrainConfig],
    name: str,
    spec: DimensionLike,
    path: KeyPath,
    when: Mapping[str, tuple[Level, ...]] | None = None,
) -> Dimension:
    """A range or choices of `name`, checked; `path`: where it stands.

    Raises:
        StudyError: a value that the name does not take, an empty range, or a range and choices at once.
    """
    if spec.choices is None:
        check_at(path, check_range, config, name, spec.low, spec.high, spec.log)
    elif spec.low is not None or spec.high is not None or spec.log:
        raise LocatedError(
            path, error_message("a range and choices at once", hint="keep 'choices', or 'low' and 'high'")
        )
    else:
        check_levels(config, name, spec.choices, (*path, "choices"))
    kind = range_kind(config, name) if spec.choices is None else None
    low, high = (kind(spec.low), kind(spec.high)) if kind else (None, None)
    choices = tuple(spec.choices or ())
    return Dimension(name=name, kind=kind, low=low, high=high, log=spec.log, choices=choices, when=when or {})


def check_range(config: type[TrainConfig], name: str, low: Any, high: Any, log: bool) -> None:
    """Refuse a range that the name does not take, is empty, or has no logarithm."""
    if range_kind(config, name) is None:
        hint = "write choices: [...]"
        raise ValueError(error_message(f"'{name}' takes no range", allowed=describe(config, name), hint=hint))
    for bound, value in (("low", low), ("high", high)):
        if value is None:
            raise ValueError(error_message(f"'{bound}' is missing", allowed="low and high, or choices"))
        assign(config, name, value)
    if not low < high:
        raise ValueError(
            error_message("low is not below high", got=[low, high], hint="exchange them, or make it fixed")
        )
    if log and low <= 0:
        raise ValueError(
            error_message("a log range has no place for 0", got=low, allowed="low > 0", hint="or log: false")
        )


def check_when(
    config: type[TrainConfig], when: Mapping[str, Any], levels_of: Mapping[str, tuple[Level, ...]]
) -> dict[str, tuple[Level, ...]]:
    """The condition of a dimension with its values as tuples; `known`: what the names above it can be."""
    out: dict[str, tuple[Level, ...]] = {}
    for name, condition in when.items():
        if name not in levels_of:
            problem = f"unknown name '{name}' in a condition"
            allowed = ", ".join(levels_of) or "a factor, fixed key, or dimension of choices above this one"
            raise ValueError(error_message(problem, closest=closest_match(name, levels_of), allowed=allowed))
        out[name] = tuple(condition) if isinstance(condition, list) else (condition,)
        for value in out[name]:
            if not contains_level(value, levels_of[name]):
                allowed = ", ".join(format_value(level) for level in levels_of[name])
                guess = closest_match(value, map(str, levels_of[name]))
                raise ValueError(
                    error_message(f"'{name}' never has this value", got=value, closest=guess, allowed=allowed)
                )
    return out
