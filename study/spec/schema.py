"""Keys of a study file, as pydantic models. docs/study-file.md and the JSON schema are generated from them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vistudy.analysis.outcomes.labels import STABLE
from vistudy.trainables.config import TrainConfig

ADAPTIVE = ("optuna", "boundary")
"""Sampling methods whose points depend on outcomes."""
FORMER_KEYS = {"sample": "sampling", "samples": "save_samples"}
"""Key of earlier study files, still accepted -> its present name. Hashes of studies use the former names."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"


class _FileModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class BudgetSpec(_FileModel):
    """Length of training and number of evaluations. All trials of a block have the same budget."""

    d_updates: Any = Field(
        description="Discriminator updates per trial. Whole number from 1.", json_schema_extra={"type": "integer"}
    )
    evaluations: Any = Field(
        default=TrainConfig().evaluations,
        json_schema_extra={"type": "integer"},
        description="Number of evaluations, evenly spaced over the training; one more is made before it. Whole number "
        "from 1. At least one period of the D:G ratio must lie between two evaluations.",
    )


class DimensionSpec(_FileModel):
    """Values of one sampled hyperparameter: a range (`low`, `high`, `log`) or `choices`."""

    low: Any = Field(default=None, description="Lowest value of a range.", json_schema_extra={"type": "number"})
    high: Any = Field(default=None, description="Highest value of a range.", json_schema_extra={"type": "number"})
    log: bool = Field(default=False, description="Sample uniformly on a log scale. `low` must be above 0.")
    choices: list[Any] | None = Field(default=None, description="Levels to sample from, instead of a range.")
    when: dict[str, Any] | None = Field(
        default=None,
        description="Condition, as name -> value or list of values. The dimension is sampled only in cells where every "
        "name has one of its values. Names are factors, fixed keys, or dimensions listed above this one.",
    )


class SamplingSpec(_FileModel):
    """Sampled configurations, instead of a grid or within every cell of the grid."""

    method: Literal["sobol", "random", "optuna", "boundary"] = Field(
        description="sobol: scrambled Sobol points, which cover the space most evenly. random: independent points. "
        "optuna: TPE, which adapts to the outcomes of finished trials (for tuned arms). boundary: points where it is "
        "uncertain whether training is stable. The last two are adaptive: their points are not a representative sample "
        "of the space, and a claim cannot use them."
    )
    n: int = Field(ge=1, description="Number of configurations. Raising it keeps the existing ones.")
    start: int | None = Field(
        default=None,
        ge=1,
        description="Number of Sobol points in the first round of `boundary`. Default: a third of `n`.",
    )
    batch: int | None = Field(
        default=None, ge=1, description="Number of points in each later round of `boundary`. Default: 10."
    )
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="Seed of the sampling. It does not affect the seeds of the trials."
    )
    space: dict[str, DimensionSpec] = Field(description="Hyperparameter -> range or choices.")


class SaveSamplesSpec(_FileModel):
    """Evaluations at which a grid of generated samples is saved."""

    evaluations: list[int] = Field(
        description="Indices of evaluations, from 0 (before training) to the number in `budget`."
    )


class ArmValueSpec(_FileModel):
    """Setting of a hyperparameter in an arm, instead of one value. Give exactly one of: `times`; `match_drift`; `low`
    and `high`; `choices`.
    """

    times: Any = Field(
        default=None,
        json_schema_extra={"type": "number"},
        description="Multiply the configuration's value by this number, which must be above 0. Whole numbers "
        "are rounded to at least 1: with 10 steps, `g_steps: {times: 0.2}` gives 2.",
    )
    match_drift: str | None = Field(
        default=None,
        description="Name of another arm. The configuration's value is multiplied by one factor per block, chosen such "
        "that the generator moves as far per period as in that arm. Pilot trials determine the factor.",
    )
    low: Any = Field(default=None, description="Lowest value of a range.", json_schema_extra={"type": "number"})
    high: Any = Field(default=None, description="Highest value of a range.", json_schema_extra={"type": "number"})
    log: bool = Field(default=False, description="Sample uniformly on a log scale. `low` must be above 0.")
    choices: list[Any] | None = Field(default=None, description="Levels to sample from, instead of a range.")


class BlockSpec(_FileModel):
    """One model on one data set. A block inherits the keys it does not give from the top level. A key that it gives
    replaces the inherited value as a whole: `fixed`, for example, is not merged entry by entry. null empties a key.
    """

    name: str | None = Field(default=None, pattern=NAME, description="Name of the block. Default: `model-data`.")
    model: str | None = Field(default=None, description="Model to train. Required, here or at the top level.")
    data: str | None = Field(default=None, description="Data set to learn. Required, here or at the top level.")
    seeds: list[Any] | None = Field(
        default=None,
        description="Random seeds, whole numbers from 0. Every cell is trained once per seed. Required, here "
        "or at the top level.",
    )
    budget: BudgetSpec | None = Field(
        default=None, description="Length of training and number of evaluations. Required, here or at the top level."
    )
    factors: dict[str, list[Any]] | None = Field(
        default=None, description="Hyperparameter -> levels. All combinations are trained."
    )
    fixed: dict[str, Any] | None = Field(
        default=None, description="Hyperparameter -> value in all trials, where it differs from the default."
    )
    sampling: SamplingSpec | None = Field(
        default=None, description="Sampled hyperparameters. Formerly `sample`, which is still accepted."
    )
    arms: dict[str, dict[str, Any]] | None = Field(
        default=None,
        description="Arm -> its settings: hyperparameter -> value, or the keys under *A setting of an arm*. "
        "Every configuration is trained in every arm with the same seeds.",
    )
    family: str | None = Field(
        default=None,
        pattern=NAME,
        description="Name that a claim uses for the combination of model, nets and data. Default: `model_data`.",
    )
    class_: str | None = Field(
        default=None,
        alias="class",
        pattern=NAME,
        description="Class of blocks for which a claim is decided separately, such as a range of D:G ratios. "
        "Default: none.",
    )
    save_samples: SaveSamplesSpec | None = Field(
        default=None,
        description="When to save generated samples. Default: halfway and at the end. Formerly `samples`, "
        "still accepted.",
    )
    keep_checkpoints: Literal["none", "final"] | None = Field(
        default=None, description="`final` keeps the trained nets of every trial. Default: `none`."
    )


class PredictionSpec(_FileModel):
    """Expected verdict for one class of blocks, for listed blocks, or (if neither is given) for all blocks."""

    id: str = Field(pattern=NAME, description="Name of the prediction.")
    class_: str | None = Field(default=None, alias="class", description="A class of blocks.")
    blocks: list[str] | None = Field(default=None, description="Names of blocks.")
    treatment: str | None = Field(
        default=None, description="Arm to compare with the baseline. Default: the claim's `treatment`."
    )
    expect: Literal["supported", "within the margin", "harms", "inconclusive", "identical", "no effect"] = Field(
        description="Expected verdict. `identical` means that the two trials of every pair are equal bit for bit. "
        "`no effect` is the former name of `within the margin`."
    )


class ClaimSpec(_FileModel):
    """A statement to be decided, written down before the results are known; see `docs/claims.md`."""

    id: str = Field(pattern=NAME, description="Name of the claim.")
    question: str = Field(default="", description="Question that the claim answers, in words.")
    baseline: str = Field(description="Arm with which the others are compared.")
    treatment: str = Field(description="Arm whose effect is claimed.")
    slower: list[str] = Field(
        default=[], description="Arms that only slow the generator down. They test whether slowing explains the effect."
    )
    tuned: str | None = Field(
        default=None,
        description="Arm in which the strength of the treatment is sampled together with the configuration.",
    )
    positive_control: str | None = Field(
        default=None,
        description="Arm that is known to help. A block in which neither it nor the treatment helps is uninformative.",
    )
    negative_controls: list[str] = Field(default=[], description="Blocks in which the treatment must have no effect.")
    default: dict[str, Any] = Field(
        default={}, description="Hyperparameter -> value in the default configuration, whose regret is reported."
    )
    sesoi: float = Field(
        default=0.08,
        gt=0,
        lt=1,
        description=f"Smallest effect size of interest: a difference in the share of {STABLE} trials, 0 to 1.",
    )
    margin: float = Field(
        default=0.08, gt=0, lt=1, description="Equivalence margin: differences within it count as no effect."
    )
    alpha: float = Field(
        default=0.05,
        gt=0,
        lt=0.5,
        description="Significance level of the tests. Confidence intervals have coverage 1 - alpha.",
    )
    room_low: float = Field(
        default=0.10,
        ge=0,
        lt=1,
        description="A block is uninformative if baseline and treatment are both stable in less than this share of "
        "trials: it leaves no room for an effect.",
    )
    room_high: float = Field(
        default=0.90,
        gt=0,
        le=1,
        description="A block is also uninformative if both are stable in more than this share. Above `room_low`.",
    )
    strong_margin: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Strong claim: largest allowed difference in Q between one untuned trial and the tuned baseline.",
    )
    best_of: int = Field(
        default=20, ge=1, description="Strong claim: number of trials available for tuning the baseline."
    )
    thresholds: dict[str, Any] = Field(
        default={}, description="Threshold of the outcome rules -> value, where it differs from `docs/outcomes.md`."
    )
    predictions: list[PredictionSpec] = Field(default=[], description="Predictions. Each is checked and reported.")


class StudySpec(BlockSpec):
    """A study file has one block, written at the top level, or several under `blocks`."""

    study: str = Field(
        pattern=NAME,
        description="Name of the study: up to 80 letters, digits, '.', '_' and '-', starting with a letter or digit.",
    )
    description: str = Field(default="", description="Purpose of the study, in words.")
    blocks: list[BlockSpec] | None = Field(
        default=None,
        description="Blocks of a study with several models or data sets. The top level then only gives their defaults.",
    )
    claim: ClaimSpec | None = Field(
        default=None,
        description="Claim that the study is to decide. `vistudy register` freezes it before the first trial.",
    )
