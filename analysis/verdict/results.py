"""Parts of a decision: verdict strings and frozen results that print as JSON or Markdown. No computation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vistudy.analysis.estimates.effect_sizes import OddsRatio, QShift
from vistudy.analysis.estimates.risk_difference import Difference, Equivalence, MissingBounds
from vistudy.analysis.estimates.stable_width import WidthDifference
from vistudy.analysis.estimates.strata import Factor

SUPPORTED = "supported (reduces sensitivity)"
MORE = "supported (more runs are stable)"
SLOWER = "supported, but equals a slower generator"
WITHIN = "within the margin"
HARMS = "harms"
DEPENDS = "depends on"
INCONCLUSIVE = "inconclusive"
UNINFORMATIVE = "uninformative"
NO_DOSE = "no dose"
REFUSED = "refused"
DESCRIPTIVE = "descriptive only"
IDENTICAL = "identical"
DIFFERENT = "not identical"

VERDICTS: dict[str, str] = {
    SUPPORTED: "more runs are stable, by at least the smallest effect of interest, and the stable range of learning "
    "rates is wider",
    SLOWER: "as above, and the same is reached by slowing the generator down",
    MORE: "more runs are stable, by at least the smallest effect of interest; whether the stable range is wider or has "
    "only moved is not known",
    WITHIN: "the whole interval lies within the margin of equivalence",
    HARMS: "the whole interval lies below zero",
    DEPENDS: "the effect is not the same everywhere in the box, and one number would hide that",
    INCONCLUSIVE: "there was room, and none of these can be said",
    UNINFORMATIVE: "there was no room to see an effect, so that nothing follows from seeing none",
    NO_DOSE: "of a negative control: the term did nothing there that could have had an effect",
    REFUSED: "the data do not allow a verdict; the reasons are given",
    DESCRIPTIVE: "a grid is no sample of a box, so nothing is inferred from it",
    IDENTICAL: "of a placebo: no pair differs in anything",
    DIFFERENT: "of a placebo: some pairs differ, although the term cannot have an effect there",
}
"""Verdict -> its meaning. `depends on` is followed by the factors."""
PREDICTION_NAMES = {SUPPORTED: "supported", SLOWER: "supported"}
"""Names that predictions use for verdicts."""
OLDER = {"no effect": WITHIN}
"""Names that predictions of earlier study files use for verdicts."""
WORKS, NOTHING = "works", "does nothing"
"""Results of a control; the third is HARMS."""
SILENT = (REFUSED, DESCRIPTIVE, UNINFORMATIVE, NO_DOSE)
"""Uninformative verdicts: predictions about such a block cannot be checked."""


def depends_on(names: Iterable[str]) -> str:
    """`depends on lr and batch norm`."""
    return f"{DEPENDS} {' and '.join(name.replace('_', ' ') for name in names)}"


def meaning(verdict: str) -> str:
    """Return the meaning of a verdict."""
    return VERDICTS[DEPENDS if verdict.startswith(DEPENDS) else verdict]


PRIMARY, NEGATIVE, PLACEBO = "primary", "negative control", "placebo"
"""Roles of a block. Only primary blocks test the claim."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Bitwise comparison of two arms."""

    n_pairs: int
    """Number of compared pairs of two different complete trials."""
    differing: int
    """Number of those that differ in outcome, final or best Q, or an event time."""
    same_trial: int
    """Number of pairs that are one trial, trained once: they show nothing."""
    not_compared: int
    """Number of pairs of which a trial has no result."""

    @property
    def holds(self) -> bool | None:
        """True without a difference in any pair; None without pairs."""
        return self.differing == 0 if self.n_pairs else None


@dataclass(frozen=True, kw_only=True, slots=True)
class EquivalenceToSlower:
    """Equivalence test of the treatment and an arm that only slows the generator down."""

    arm: str
    equivalence: Equivalence | None
    """None if it could not be tested, or if the block had no room."""
    equivalent: bool
    """Whether it also holds for both extremes of the trials without a result."""
    share_slow: float
    """Share of the arm's evaluable trials whose outcome is `slow`; NaN without any."""
    g_updates: tuple[float, float] | None
    """Mean generator updates per trial of (the arm, the treatment); None if unknown."""
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """Comparison of the positive control with the baseline."""

    arm: str
    difference: Difference | None
    word: str | None
    """`works`, `does nothing` or `harms`; None if unknown."""
    sentence: str

    @property
    def failed(self) -> bool:
        """Whether it is known not to beat the baseline."""
        return self.word in (NOTHING, HARMS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """Whether an effect was detectable in a block."""

    informative: bool
    why: str
    """Why not; empty if it was."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dose:
    """Dose of the term in one arm of a block: medians over trials of medians over evaluations."""

    arm: str
    n_trials: int
    rho: float
    """Gradient norm of the term divided by that of the loss; NaN if not recorded."""
    drift: float
    """Mean squared change of the samples per period; NaN if not recorded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BestAtK:
    """Expected best Q of k trials of the treatment, and its loss against the baseline."""

    k: int
    q_treatment: float
    q_baseline: float
    """Expected best Q of as many trials of the baseline: equal compute."""
    difference: float
    high: float
    """Upper end of the one-sided 1 - alpha interval of the difference at equal compute."""
    regret: float
    """q_treatment minus the expected best of `best_of` trials of the baseline."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """Number of trials that a user needs, which decides whether tuning is needed."""

    treatment: tuple[float, float, float]
    """Expected number of random trials until one is stable, 1/p, with its interval; infinite if none is."""
    baseline: tuple[float, float, float]
    best: tuple[BestAtK, ...]
    removes_need: bool
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StrongClaimTest:
    """Strong claim: one untuned trial of the treatment is as good as the tuned baseline, in every stratum."""

    holds: bool | None
    """None if it could not be tested in every stratum."""
    removes_need: bool
    """Whether it holds, and trials to success and the regret of a few trials agree."""
    strata: dict[str, str]
    """Stratum -> result."""
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockVerdict:
    """Decision on one block."""

    block: str
    family: str
    block_class: str
    role: str
    treatment: str
    baseline: str
    verdict: str
    """One of VERDICTS."""
    sentence: str
    reasons: tuple[str, ...]
    """Reasons of a refusal."""
    notes: tuple[str, ...]
    caveats: tuple[str, ...]
    """Short forms of the notes that any summary must repeat."""
    box: str
    difference: Difference | None
    """None if refused."""
    width: WidthDifference | None
    """None if unknown, for example because an arm is stable at an edge of the search space."""
    p_holm: float | None
    """p after Holm's correction over all primary blocks; None for other blocks."""
    room: Room | None
    odds: OddsRatio | None
    q_shift: QShift | None
    factors: tuple[Factor, ...]
    """Differences by stratum."""
    slower: tuple[EquivalenceToSlower, ...]
    positive: Control | None
    strong: StrongClaimTest | None
    tuning: Tuning | None
    doses: tuple[Dose, ...]
    identity: Identity | None
    bounds: MissingBounds | None
    """None if every trial has a result."""
    earlier: str = ""
    """Verdict by the earlier rule; `refused` for a refused block."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pooled:
    """Random-effects mean of the differences of blocks with room, one weight per block."""

    estimate: float
    low: float
    high: float
    p: float
    alpha: float
    between_sd: float
    """Standard deviation of the true differences between blocks (Paule-Mandel)."""
    p_equal: float
    """Cochran's Q test of equal differences; NaN with one block."""
    weights: dict[str, float]
    """Block -> weight; weights sum to 1."""
    n_configs: int
    n_pairs: int
    stable_treatment: int
    """Number of stable trials of the treatment in these blocks, out of `n_pairs`."""
    stable_baseline: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupVerdict:
    """Decision on the blocks of one class, or of all classes."""

    name: str
    blocks: tuple[str, ...]
    with_room: tuple[str, ...]
    """Blocks in which an effect was detectable: only they are pooled."""
    verdict: str
    sentence: str
    pooled: Pooled | None
    """None if nothing was pooled."""
    notes: tuple[str, ...]
    """Caveats of the blocks, with the blocks' names."""
    earlier: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionCheck:
    """One prediction of the claim."""

    id: str
    scope: str
    expected: str
    found: str
    holds: bool | None
    """None if it could not be checked."""
    figures: str
    """The figures behind `holds`."""
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistrationStatus:
    """Whether the claim was registered before its first record."""

    before_first_record: bool
    claim_hash: str | None
    registered_ms: int | None
    first_ms: int | None
    amendments: int
    """Number of registrations after the first."""
    differences: tuple[str, ...]
    """Differences between that registration and the current claim and blocks."""
    sentence: str
    earlier_rule: bool = False
    """Whether it was registered under the earlier rule; then both verdicts are given."""
