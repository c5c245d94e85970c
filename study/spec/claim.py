"""What a study is to decide, stated before it is known: the `claim` of a study file, checked against its blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vistudy.analysis.outcomes.labels import Thresholds
from vistudy.study.spec.hyperparameters import Cell, Level, assign
from vistudy.study.spec.messages import (
    KeyPath,
    LocatedError,
    check_at,
    closest_match,
    error_message,
)
from vistudy.study.spec.schema import ClaimSpec, PredictionSpec

if TYPE_CHECKING:
    from vistudy.study.spec.model import Block

THRESHOLDS: dict[str, int | float] = dataclasses.asdict(Thresholds())
"""Name of a threshold of the outcome rules -> its default."""
del THRESHOLDS["version"]  # claims are decided by the present rules


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One thing that is expected."""

    id: str
    expect: str
    """supported, within the margin (or, as before, no effect), harms, inconclusive or identical."""
    class_: str | None
    blocks: tuple[str, ...] | None
    treatment: str | None
    """Arm that is compared with the baseline; None: the claim's."""

    def to_json(self) -> dict[str, Any]:
        """As in the file: only the keys that are given."""
        fields = {
            "id": self.id,
            "class": self.class_,
            "blocks": list(self.blocks) if self.blocks is not None else None,
            "treatment": self.treatment,
            "expect": self.expect,
        }
        return {key: value for key, value in fields.items() if value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A checked claim with its defaults filled in. What each field means: `vistudy.study.spec.schema.ClaimSpec`."""

    id: str
    question: str
    baseline: str
    treatment: str
    slower: tuple[str, ...]
    tuned: str | None
    positive_control: str | None
    negative_controls: tuple[str, ...]
    default: Cell
    sesoi: float
    margin: float
    alpha: float
    room_low: float
    room_high: float
    strong_margin: float
    best_of: int
    thresholds: Mapping[str, float]
    """All of them, those of the file and the defaults."""
    predictions: tuple[Prediction, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        names = [field.name for field in dataclasses.fields(self)]
        plain = {name: getattr(self, name) for name in names if name != "predictions"}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
        return plain | {
            "default": dict(self.default),
            "thresholds": dict(self.thresholds),
            "predictions": [prediction.to_json() for prediction in self.predictions],
        }


def parse_claim(spec: ClaimSpec, blocks: Sequence[Block]) -> Claim:
    """Check a claim against the blocks of its study.

    Raises:
        StudyError: it names an arm, block, class, hyperparameter or threshold that there is not.
    """
    path: KeyPath = ("claim",)
    with_arms = [block for block in blocks if block.arms]
    if not with_arms:
        hint = "add 'arms: {A0: {reg_weight: 0}, A1: {reg_weight: 5}}'"
        raise LocatedError(path, error_message("a claim compares arms, and no block has any", hint=hint))
    _check_arms(spec, with_arms, path)
    _one_of(spec.negative_controls, [b.name for b in blocks], "block", (*path, "negative_controls"))
    tested = [b for b in with_arms if {spec.baseline, spec.treatment} <= b.arms.keys()]
    for block in tested:
        if block.sample is not None and block.sample.n == 1 and not block.factors:
            problem = f"block {block.name} has a single configuration: a spread between configurations cannot be seen"
            raise LocatedError(path, error_message(problem, hint="give its sampling n of 2 or more, 60 say"))
    if {b.name for b in tested} <= set(spec.negative_controls):
        problem = "every block with baseline and treatment is a negative control: nothing is left that tests the claim"
        raise LocatedError((*path, "negative_controls"), error_message(problem, got=list(spec.negative_controls)))
    default = {name: _default(name, level, with_arms, (*path, "default")) for name, level in spec.default.items()}
    if spec.room_low >= spec.room_high:
        problem = f"room_low must be below room_high, which is {spec.room_high:g}"
        raise LocatedError((*path, "room_low"), error_message(problem, got=spec.room_low))
    thresholds = THRESHOLDS | {
        name: _threshold(name, value, (*path, "thresholds", name)) for name, value in spec.thresholds.items()
    }
    return Claim(
        id=spec.id,
        question=spec.question,
        baseline=spec.baseline,
        treatment=spec.treatment,
        slower=tuple(spec.slower),
        tuned=spec.tuned,
        positive_control=spec.positive_control,
        negative_controls=tuple(spec.negative_controls),
        default=default,
        sesoi=float(spec.sesoi),
        margin=float(spec.margin),
        alpha=float(spec.alpha),
        room_low=float(spec.room_low),
        room_high=float(spec.room_high),
        strong_margin=float(spec.strong_margin),
        best_of=spec.best_of,
        thresholds=thresholds,
        predictions=_predictions(spec.predictions, spec, blocks, (*path, "predictions")),
    )


def _check_arms(spec: ClaimSpec, blocks: Sequence[Block], path: KeyPath) -> None:
    arms = list(dict.fromkeys(name for block in blocks for name in block.arms))
    for key in ("baseline", "treatment", "tuned", "positive_control"):
        name = getattr(spec, key)
        if name is not None:
            _one_of([name], arms, "arm", (*path, key))
    _one_of(spec.slower, arms, "arm", (*path, "slower"))
    named: dict[str, list[str | None]] = {"treatment": [spec.treatment], "slower": list(spec.slower)}
    named |= {"tuned": [spec.tuned], "positive_control": [spec.positive_control]}
    for key, names in named.items():
        if spec.baseline in names:
            raise LocatedError((*path, key), error_message("an arm is not compared with itself", got=spec.baseline))
    if spec.treatment in spec.slower:
        raise LocatedError(
            (*path, "slower"), error_message("the treatment is no control of itself", got=spec.treatment)
        )
    if not any({spec.baseline, spec.treatment} <= block.arms.keys() for block in blocks):
        problem = f"no block has both arms, {spec.baseline} and {spec.treatment}"
        raise LocatedError((*path, "treatment"), error_message(problem, hint="give one block both"))


def _one_of(names: Iterable[str], choices: Sequence[str], what: str, path: KeyPath) -> None:
    for name in names:
        if name not in choices:
            allowed = ", ".join(choices) or "none: no block has one"
            raise LocatedError(
                path, error_message(f"no such {what}", got=name, closest=closest_match(name, choices), allowed=allowed)
            )


def _default(name: str, level: Any, blocks: Sequence[Block], path: KeyPath) -> Level:
    """A level of the default configuration, which must be of something that the configurations vary."""
    varied = {varied: block for block in blocks for varied in block.varied}
    if name not in varied:
        problem = f"the configurations do not vary '{name}'"
        raise LocatedError(
            (*path, name), error_message(problem, closest=closest_match(name, varied), allowed=", ".join(varied))
        )
    check_at((*path, name), assign, varied[name].config, name, level)
    checked: Level = level
    return checked


def _threshold(name: str, value: Any, path: KeyPath) -> float:
    if name not in THRESHOLDS:
        message = error_message(
            f"no threshold '{name}'", closest=closest_match(name, THRESHOLDS), allowed=", ".join(THRESHOLDS)
        )
        raise LocatedError(path, message)
    kind = type(THRESHOLDS[name])
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not -1e9 < value < 1e9 or (kind is int and (value != int(value) or value < 0)):
        allowed = f"a {'whole number from 0' if kind is int else 'number'}; the default is {THRESHOLDS[name]}"
        raise LocatedError(path, error_message("wrong threshold", got=value, allowed=allowed))
    return int(value) if kind is int else float(value)


def _predictions(
    specs: Sequence[PredictionSpec], claim: ClaimSpec, blocks: Sequence[Block], path: KeyPath
) -> tuple[Prediction, ...]:
    classes = list(dict.fromkeys(block.class_ for block in blocks if block.class_))
    predictions: dict[str, Prediction] = {}
    for i, spec in enumerate(specs):
        at = (*path, i)
        if spec.id in predictions:
            raise LocatedError(
                (*at, "id"), error_message("two predictions of one name", got=spec.id, hint="rename one")
            )
        if spec.class_ is not None and spec.blocks is not None:
            raise LocatedError((*at, "blocks"), error_message("a class and blocks at once", hint="keep one of them"))
        if spec.class_ is not None:
            _one_of([spec.class_], classes, "class", (*at, "class"))
        chosen = [b for b in blocks if spec.class_ is None or b.class_ == spec.class_]
        if spec.blocks is not None:
            _one_of(spec.blocks, [b.name for b in blocks], "block", (*at, "blocks"))
            chosen = [b for b in blocks if b.name in spec.blocks]
        treatment = spec.treatment or claim.treatment
        if spec.treatment is not None:
            arms = list(dict.fromkeys(a for b in chosen for a in b.arms if a != claim.baseline))
            _one_of([spec.treatment], arms, "arm", (*at, "treatment"))
        if not any({claim.baseline, treatment} <= b.arms.keys() for b in chosen):
            problem = f"none of its blocks has both arms, {claim.baseline} and {treatment}"
            where = "class" if spec.class_ is not None else "blocks" if spec.blocks is not None else "id"
            raise LocatedError((*at, where), error_message(problem, got=[b.name for b in chosen]))
        predictions[spec.id] = Prediction(
            id=spec.id,
            expect=spec.expect,
            class_=spec.class_,
            blocks=None if spec.blocks is None else tuple(spec.blocks),
            treatment=spec.treatment,
        )
    return tuple(predictions.values())
