"""The keys of a study file, as pydantic models: what docs/study-file.md and the JSON schema are made from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trainables.config import TrainConfig

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
        default=None, description="When to keep generated samples; default: after half and all of the budget."
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
