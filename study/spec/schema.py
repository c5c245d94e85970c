"""The keys of a study file, as pydantic models: what docs/study-file.md and the JSON schema are made from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vistudy.analysis.outcomes.labels import STABLE
from vistudy.trainables.config import TrainConfig

ADAPTIVE = ("optuna", "boundary")
"""Methods of sampling whose points depend on outcomes."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"


class _FileModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


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

    method: Literal["sobol", "random", "optuna", "boundary"] = Field(
        description="sobol: scrambled Sobol points, the most even cover; random: independent points; optuna: TPE, "
        "which learns from the trials that are done (for tuned arms); boundary: points where it is uncertain whether "
        "training is stable. The points of the last two are no fair sample of the space: a claim on them is refused."
    )
    n: int = Field(ge=1, description="Configurations. Raising it keeps the first ones.")
    start: int | None = Field(
        default=None, ge=1, description="Sobol points of the first round of `boundary`; default: a third of `n`."
    )
    batch: int | None = Field(default=None, ge=1, description="Points of each later round of `boundary`; default 10.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of the sample, not of the trials.")
    space: dict[str, DimensionSpec] = Field(description="Name -> range or choices.")


class SamplesSpec(_FileModel):
    """Which evaluations keep a grid of generated samples."""

    evaluations: list[int] = Field(description="Evaluations, from 0 (before training) to the budget's last.")


class ArmValueSpec(_FileModel):
    """What an arm may say of a hyperparameter instead of one value. Exactly one of: `times`; `match_drift`; `low` and
    `high`; `choices`.
    """

    times: Any = Field(
        default=None,
        json_schema_extra={"type": "number"},
        description="The configuration's own value times this number above 0. Whole numbers are rounded and at least "
        "1, so `g_steps: {times: 0.2}` of 10 steps is 2.",
    )
    match_drift: str | None = Field(
        default=None,
        description="Another arm: the configuration's own value is scaled by one factor a block, found by pilot "
        "trials, so that the generator moves as far in a period as it does in that arm.",
    )
    low: Any = Field(default=None, description="Lowest value of a range.", json_schema_extra={"type": "number"})
    high: Any = Field(default=None, description="Highest value of a range.", json_schema_extra={"type": "number"})
    log: bool = Field(default=False, description="Draw uniformly in the logarithm; `low` must be above 0.")
    choices: list[Any] | None = Field(default=None, description="Levels to draw from, instead of a range.")


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
    arms: dict[str, dict[str, Any]] | None = Field(
        default=None,
        description="Name -> settings of an arm: hyperparameters with a value, or as under *A setting of an arm*. "
        "Every configuration is trained in every arm, with the same seeds.",
    )
    family: str | None = Field(
        default=None,
        pattern=NAME,
        description="What a claim calls model, nets and data together; default `model_data`.",
    )
    class_: str | None = Field(
        default=None,
        alias="class",
        pattern=NAME,
        description="Class of blocks that a claim judges apart, such as one of D:G ratios; default none.",
    )
    samples: SamplesSpec | None = Field(
        default=None, description="When to keep generated samples; default: after half and all of the budget."
    )
    keep_checkpoints: Literal["none", "final"] | None = Field(
        default=None, description="`final` keeps the trained nets of every trial; default `none`."
    )


class PredictionSpec(_FileModel):
    """What is expected, of the blocks of one class, of some blocks, or (neither given) of all."""

    id: str = Field(pattern=NAME, description="Name of the prediction.")
    class_: str | None = Field(default=None, alias="class", description="A class of blocks.")
    blocks: list[str] | None = Field(default=None, description="Names of blocks.")
    treatment: str | None = Field(
        default=None, description="Arm that is compared with the baseline; default the claim's `treatment`."
    )
    expect: Literal["supported", "within the margin", "harms", "inconclusive", "identical", "no effect"] = Field(
        description="Verdict that is expected; `identical`: not one pair differs in anything. `no effect` is what "
        "`within the margin` was called before."
    )


class ClaimSpec(_FileModel):
    """What is claimed, before it is known. `docs/claims.md` explains it."""

    id: str = Field(pattern=NAME, description="Name of the claim.")
    question: str = Field(default="", description="The question in words.")
    baseline: str = Field(description="Arm that the others are compared with.")
    treatment: str = Field(description="Arm whose effect is claimed.")
    slower: list[str] = Field(default=[], description="Arms that only slow the generator: does one explain the effect?")
    tuned: str | None = Field(default=None, description="Arm in which the treatment is tuned with the configuration.")
    positive_control: str | None = Field(
        default=None,
        description="Arm that is known to help: where neither it nor the treatment does, the block is uninformative.",
    )
    negative_controls: list[str] = Field(
        default=[], description="Names of blocks in which the treatment must have no effect."
    )
    default: dict[str, Any] = Field(
        default={}, description="Hyperparameter -> value of the default configuration, whose regret is reported."
    )
    sesoi: float = Field(
        default=0.08,
        gt=0,
        lt=1,
        description=f"Smallest effect of interest: difference of the share of {STABLE} trials, 0 to 1.",
    )
    margin: float = Field(default=0.08, gt=0, lt=1, description="Differences within this margin count as none.")
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="Level of the tests; intervals cover 1 - alpha.")
    room_low: float = Field(
        default=0.10,
        ge=0,
        lt=1,
        description="A block in which baseline and treatment are both stable in less than this share of trials has no "
        "room to show an effect: it is uninformative.",
    )
    room_high: float = Field(
        default=0.90,
        gt=0,
        le=1,
        description="The same where both are stable in more than this share; above `room_low`.",
    )
    strong_margin: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Margin in Q within which one untuned trial must be of the tuned baseline (strong claim).",
    )
    best_of: int = Field(default=20, ge=1, description="Trials that the tuned baseline is given (strong claim).")
    thresholds: dict[str, Any] = Field(
        default={}, description="Thresholds of the outcome rules that differ from those of `docs/outcomes.md`."
    )
    predictions: list[PredictionSpec] = Field(default=[], description="Each is checked and reported.")


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
    claim: ClaimSpec | None = Field(
        default=None, description="What the study is to decide; `vistudy register` freezes it before the first trial."
    )
