"""How a model declares its hyperparameters: a frozen dataclass whose fields carry their documentation and bounds.

The study file's schema, its documentation, the packing planner and the trial's hash are all derived from these
fields, so a hyperparameter is declared once, beside the model that reads it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, cast

from vistudy.trainables.device import PRECISIONS
from vistudy.trainables.trial_identity import NOT_RECORDED, make_trial_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Hyperparameter:
    """What is known of one field beside its type and default."""

    doc: str
    """One sentence: meaning, unit, range."""
    structural: bool
    """True: trials that differ in it cannot share a pack."""
    choices: tuple[Any, ...] | None = None
    """The allowed values, or None for a number."""
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None


def hp(
    default: Any,
    doc: str,
    *,
    structural: bool = True,
    choices: tuple[Any, ...] | None = None,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """Declare a dataclass field that is a hyperparameter. `default=None`: the data decides (see `resolve`)."""
    meta = Hyperparameter(doc=doc, structural=structural, choices=choices, ge=ge, gt=gt, le=le, lt=lt)
    return field(default=default, metadata={"hp": meta})


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """What every model's configuration has. Subclassed once a model, in `trainables/models/`."""

    model: ClassVar[str]
    """Name in MODELS."""
    lr: ClassVar[tuple[str, ...]] = ()
    """The hyperparameters that `lr` in a study file sets together."""
    reference_fields: ClassVar[tuple[str, ...]] = ("model", "data")
    """What samples before training depend on besides the seed: trials equal in these share a floor and a ceiling."""

    data: str = hp("ring8", "Data set that is learnt: a name in DATASETS.")
    data_fingerprint: str | None = None
    """What the data set holds (`trainables.data.fingerprint`); None: what it holds here; NOT_RECORDED. Nobody sets it,
    so it is no hyperparameter."""
    seed: int = hp(
        0, "Seed of every random stream of the trial (weights, data order, z).", structural=False, ge=0, lt=2**32
    )
    d_updates: int = hp(2000, "Budget: discriminator updates of the whole run.", ge=1)
    evaluations: int = hp(50, "Evaluations, equally spaced in discriminator updates, besides the one at step 0.", ge=1)
    batch_size: int = hp(64, "Real images (points) in a minibatch.", ge=2)
    precision: str = hp(
        "tf32",
        "Products and convolutions of the training step: tf32, NVIDIA's TensorFloat-32 (elsewhere the same as fp32); "
        "bf16, bfloat16 by autocast; fp32. Weights, optimizers and evaluations are float32 always.",
        choices=PRECISIONS,
    )

    def resolve(self) -> Self:
        """This configuration with every `None` filled in from the data, and every field that it does not read reset.

        Equal resolved configurations are the same training run.
        """
        changes = {**self.data_defaults(), **self.unused_fields(), **self._of_data()}
        return dataclasses.replace(self, **changes) if changes else self

    def _of_data(self) -> dict[str, str]:
        """The fingerprint of the data as they are here, where none is given."""
        if self.data_fingerprint is not None:
            return {}
        from vistudy.trainables.data import fingerprint  # here: reading data takes torch

        return {"data_fingerprint": fingerprint(self.data)}

    def data_defaults(self) -> dict[str, Any]:
        """The values for the fields that are None, from the data set."""
        return {}

    def unused_fields(self) -> dict[str, Any]:
        """Fields that training with this configuration never reads, with their defaults."""
        return {}

    def untrained(self) -> Self:
        """The configuration whose samples before training are the ceiling of the distance."""
        return self

    def inert(self) -> tuple[str, ...]:
        """Fields whose value provably cannot change the run although the model reads them (placebos)."""
        return ()

    def steps_of_period(self) -> tuple[int, int]:
        """D and G updates in one period."""
        return (1, 1)

    def structure(self) -> tuple[tuple[str, Any], ...]:
        """The structural fields with their values: equal for all trials of a pack."""
        fields = ((name, getattr(self, name)) for name in _structural(type(self)))
        return (("model", self.model), ("data_fingerprint", self.data_fingerprint), *fields)

    def to_dict(self) -> dict[str, Any]:
        """All fields and the model's name, as plain JSON values; no fingerprint where none was recorded."""
        values = {"model": self.model, **{name: getattr(self, name) for name in _names(type(self))}}
        if self.data_fingerprint == NOT_RECORDED:
            del values["data_fingerprint"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            TypeError: a field is missing or unknown.
        """
        values = {"data_fingerprint": NOT_RECORDED, **values}
        names = {*_names(cls), "model"}
        if set(values) != names:
            raise TypeError(f"fields of {cls.__name__}: missing or unknown {sorted(names ^ set(values))}")
        return cls(**{name: value for name, value in values.items() if name != "model"})

    def trial_id(self) -> str:
        """Content hash of the resolved configuration, the same in every study. See `trial_identity`."""
        return make_trial_id(self.to_dict() | self.data_defaults() | self.unused_fields() | self._of_data())


def _once(function: Callable[[type[TrainConfig]], tuple[str, ...]]) -> Callable[[type[TrainConfig]], tuple[str, ...]]:
    return cast("Callable[[type[TrainConfig]], tuple[str, ...]]", functools.cache(function))


@_once
def _names(config: type[TrainConfig]) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(config))


@_once
def _structural(config: type[TrainConfig]) -> tuple[str, ...]:
    return tuple(name for name, meta in hyperparameters(config).items() if meta.structural)


def hyperparameters(config: type[TrainConfig]) -> dict[str, Hyperparameter]:
    """Name -> declaration of every hyperparameter of a model's configuration, in order."""
    return {f.name: f.metadata["hp"] for f in dataclasses.fields(config) if "hp" in f.metadata}
