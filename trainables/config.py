"""How a model declares its hyperparameters: a frozen dataclass whose fields carry their documentation and bounds.

The schema of study files, its documentation, the grouping into packs and the trial's id are derived from these fields,
so a hyperparameter is declared once, next to the model that reads it.
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
    """Declaration of one field, besides its type and default."""

    doc: str
    """One sentence: meaning, unit, range."""
    structural: bool
    """Whether trials that differ in it cannot share a pack."""
    choices: tuple[Any, ...] | None = None
    """Allowed values; None for a number."""
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
    """Declare a dataclass field as a hyperparameter. With `default=None` the data set decides (see `resolve`)."""
    meta = Hyperparameter(doc=doc, structural=structural, choices=choices, ge=ge, gt=gt, le=le, lt=lt)
    return field(default=default, metadata={"hp": meta})


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Fields and methods of every configuration. Each model in `trainables/models/` has one subclass."""

    model: ClassVar[str]
    """Name in MODELS."""
    lr: ClassVar[tuple[str, ...]] = ()
    """The hyperparameters that `lr` in a study file sets together."""
    reference_fields: ClassVar[tuple[str, ...]] = ("model", "data")
    """What samples before training depend on, besides the seed: trials that agree in these share their baselines."""

    data: str = hp("ring8", "Data set to learn: a name in DATASETS.")
    data_fingerprint: str | None = None
    """Fingerprint of the data (`trainables.data.fingerprint`), or NOT_RECORDED; None: that of the data on this machine.
    Users do not set it, so it is not a hyperparameter."""
    seed: int = hp(
        0, "Seed of every random stream of the trial (weights, data order, z).", structural=False, ge=0, lt=2**32
    )
    d_updates: int = hp(2000, "Budget: discriminator updates of the whole run.", ge=1)
    evaluations: int = hp(50, "Evaluations after step 0, equally spaced in discriminator updates.", ge=1)
    batch_size: int = hp(64, "Real images (points) per minibatch.", ge=2)
    precision: str = hp(
        "tf32",
        "Precision of matrix products and convolutions in training: tf32, NVIDIA's TensorFloat-32 (fp32 on other "
        "devices); bf16, bfloat16 by autocast; or fp32. Weights, optimizers and evaluations are always float32.",
        choices=PRECISIONS,
    )

    def resolve(self) -> Self:
        """Return this configuration with each `None` filled in from the data and each unused field at its default.

        Equal resolved configurations are the same training run.
        """
        changes = {**self.data_defaults(), **self.unused_fields(), **self._of_data()}
        return dataclasses.replace(self, **changes) if changes else self

    def _of_data(self) -> dict[str, str]:
        """The fingerprint of the data on this machine, unless one is set."""
        if self.data_fingerprint is not None:
            return {}
        from vistudy.trainables.data import fingerprint  # here: reading data takes torch

        return {"data_fingerprint": fingerprint(self.data)}

    def data_defaults(self) -> dict[str, Any]:
        """Values from the data set for the fields that are None."""
        return {}

    def unused_fields(self) -> dict[str, Any]:
        """Fields that training with this configuration never reads, with their defaults."""
        return {}

    def untrained(self) -> Self:
        """The configuration whose samples before training give the untrained baseline of the distance."""
        return self

    def inert(self) -> tuple[str, ...]:
        """Names of fields that the model reads but that provably cannot change the run (placebos)."""
        return ()

    def steps_of_period(self) -> tuple[int, int]:
        """Numbers of D and G updates per period."""
        return (1, 1)

    def structure(self) -> tuple[tuple[str, Any], ...]:
        """Names and values of the structural fields, which all trials of a pack share."""
        fields = ((name, getattr(self, name)) for name in _structural(type(self)))
        return (("model", self.model), ("data_fingerprint", self.data_fingerprint), *fields)

    def to_dict(self) -> dict[str, Any]:
        """All fields and the model's name as plain JSON values; without the fingerprint if none was recorded."""
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
    """Map the name of each hyperparameter of a configuration to its declaration, in order."""
    return {f.name: f.metadata["hp"] for f in dataclasses.fields(config) if "hp" in f.metadata}
