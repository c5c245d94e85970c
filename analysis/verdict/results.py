"""What a decision is made of: verdict strings and frozen results that print as JSON or Markdown. No computation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

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
"""Every verdict -> what it says. `depends on` is followed by what it depends on."""
PREDICTION_NAMES = {SUPPORTED: "supported", SLOWER: "supported"}
"""Verdicts that predictions call by another name."""
OLDER = {"no effect": WITHIN}
"""What predictions of earlier study files call a verdict."""
WORKS, NOTHING = "works", "does nothing"
"""Of a control; the third word is HARMS."""
SILENT = (REFUSED, DESCRIPTIVE, UNINFORMATIVE, NO_DOSE)
"""Verdicts from which nothing follows: what is predicted of such a block cannot be checked."""


def depends_on(names: Iterable[str]) -> str:
    """`depends on lr and batch norm`."""
    return f"{DEPENDS} {' and '.join(name.replace('_', ' ') for name in names)}"


def meaning(verdict: str) -> str:
    """What a verdict says, in words."""
    return VERDICTS[DEPENDS if verdict.startswith(DEPENDS) else verdict]


PRIMARY, NEGATIVE, PLACEBO = "primary", "negative control", "placebo"
"""Roles of a block. Only primary ones are tests of the claim."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Whether two arms did the same, to the last bit."""

    n_pairs: int
    """Pairs of two different complete trials that were compared."""
    differing: int
    """Those that differ in outcome, final or best Q, or an event time."""
    same_trial: int
    """Pairs that are one trial, trained once: they show nothing."""
    not_compared: int
    """Pairs of which a trial is missing, failed or censored."""

    @property
    def holds(self) -> bool | None:
        """True without a difference in any pair; None without pairs."""
        return self.differing == 0 if self.n_pairs else None


@dataclass(frozen=True, kw_only=True, slots=True)
class EquivalenceToSlower:
    """The treatment against an arm that only slows the generator down."""

    arm: str
    equivalence: Equivalence | None
    """None: it could not be tested, or the block had no room."""
    equivalent: bool
    """Also at both extremes of what trials without a result would have done."""
    share_slow: float
    """Share of the arm's judged trials whose outcome is `slow`; NaN without any."""
    g_updates: tuple[float, float] | None
    """Mean generator updates of a trial of (the arm, the treatment); None where they are not known."""
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """The positive control against the baseline."""

    arm: str
    difference: Difference | None
    word: str | None
    """works, does nothing or harms; None: it could not be told."""
    sentence: str

    @property
    def failed(self) -> bool:
        """Whether it is known not to beat the baseline."""
        return self.word in (NOTHING, HARMS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """Whether an effect could have been seen in a block."""

    informative: bool
    why: str
    """Why not; empty if it could."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dose:
    """How much the term did in one arm of a block: medians over trials of their medians over evaluations."""

    arm: str
    n_trials: int
    rho: float
    """Gradient norm of the term over that of the loss; NaN where it is not recorded."""
    drift: float
    """Mean squared change of the samples in a period; NaN where it is not recorded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BestAtK:
    """Expected smallest Q of k trials of the treatment, and what is lost against the baseline."""

    k: int
    q_treatment: float
    q_baseline: float
    """Of as many trials of the baseline: equal compute."""
    difference: float
    high: float
    """Upper end of the one-sided 1 - alpha interval of the difference at equal compute."""
    regret: float
    """q_treatment minus the expected best of `best_of` trials of the baseline."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """How many trials a user needs: what decides whether tuning is needed."""

    treatment: tuple[float, float, float]
    """Expected number of random trials until one is stable, 1/p, with its interval; infinite where none is."""
    baseline: tuple[float, float, float]
    best: tuple[BestAtK, ...]
    removes_need: bool
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StrongClaimTest:
    """E8: one untuned trial of the treatment is as good as the tuned baseline, in every stratum of the box."""

    holds: bool | None
    """None: it could not be tested in every stratum."""
    removes_need: bool
    """It holds, and trials to success and the regret of a few trials say so, too."""
    strata: dict[str, str]
    """Stratum -> what was found there."""
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockVerdict:
    """The decision rule applied to one block."""

    block: str
    family: str
    klass: str
    role: str
    treatment: str
    baseline: str
    verdict: str
    """One of VERDICTS."""
    sentence: str
    reasons: tuple[str, ...]
    """Of a refusal."""
    notes: tuple[str, ...]
    caveats: tuple[str, ...]
    """Those notes, in short, that travel upwards with the verdict."""
    box: str
    difference: Difference | None
    """None where it was refused."""
    width: WidthDifference | None
    """None where it is not known: among others, where an arm is stable at an edge of the box."""
    p_holm: float | None
    """p after Holm over all primary blocks; None of others."""
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
    """Only with trials without a result."""
    earlier: str = ""
    """Verdict by the rule before there was room; of a refused block `refused`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pooled:
    """Random-effects mean of the differences of blocks with room, one weight a block."""

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
    """Block -> weight; they add up to 1."""
    n_configs: int
    n_pairs: int
    stable_treatment: int
    """Stable trials of the treatment in these blocks, of the `n_pairs`: a plain count."""
    stable_baseline: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupVerdict:
    """The blocks of one class, or of all classes, together."""

    name: str
    blocks: tuple[str, ...]
    with_room: tuple[str, ...]
    """Those of them in which an effect could have been seen: only they are pooled."""
    verdict: str
    sentence: str
    pooled: Pooled | None
    """None where nothing was pooled."""
    notes: tuple[str, ...]
    """What the blocks' notes say, with the blocks' names."""
    earlier: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionCheck:
    """One prediction of the claim."""

    id: str
    scope: str
    expected: str
    found: str
    holds: bool | None
    """None: it could not be checked."""
    figures: str
    """The numbers that say so."""
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistrationStatus:
    """Whether the claim was fixed before its first record."""

    before_first_record: bool
    claim_hash: str | None
    registered_ms: int | None
    first_ms: int | None
    amendments: int
    """Registrations after the first."""
    differences: tuple[str, ...]
    """What differs between that registration and the present claim and blocks."""
    sentence: str
    earlier_rule: bool = False
    """Whether it was registered before the rule asked for room; then both verdicts are given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """All that a claim's study says."""

    study: str
    claim: Mapping[str, Any]
    verdict: str
    """Of all primary blocks together."""
    sentence: str
    registered: RegistrationStatus
    blocks: tuple[BlockVerdict, ...]
    classes: tuple[GroupVerdict, ...]
    overall: GroupVerdict | None
    """None without a primary block."""
    predictions: tuple[PredictionCheck, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; a number that is not finite is null."""
        return {"verdict": self.verdict, **_plain(dataclasses.asdict(self))}

    def to_markdown(self) -> str:
        """A page; text of the study file is shown as text."""
        from vistudy.analysis.verdict.markdown import page

        return page(self)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
