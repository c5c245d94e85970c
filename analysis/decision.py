"""What a decision is made of: verdict strings and frozen results that print as JSON or Markdown. No computation."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.paired import CensoringBounds, Difference, Equivalence
from analysis.width import WidthDifference

SUPPORTED = "supported (reduces sensitivity)"
SLOWER = "supported, but equals a slower generator"
NO_EFFECT = "no effect"
HARMS = "harms"
INCONCLUSIVE = "inconclusive"
REFUSED = "refused"
DESCRIPTIVE = "descriptive only"
NOT_POOLED = "not pooled"
IDENTICAL = "identical"
DIFFERENT = "not identical"

VERDICTS: dict[str, str] = {
    SUPPORTED: "more runs are stable, by at least the smallest effect of interest, and the stable range of learning "
    "rates is wider",
    SLOWER: "as above, and the same is reached by slowing the generator down",
    NO_EFFECT: "the whole interval lies within the margin of equivalence",
    HARMS: "the whole interval lies below zero",
    INCONCLUSIVE: "neither of these can be said",
    REFUSED: "the data do not allow a verdict; the reasons are given",
    DESCRIPTIVE: "a grid is no sample of a box, so nothing is inferred from it",
    NOT_POOLED: "the blocks differ in the sign of the effect, and a common number would hide that",
    IDENTICAL: "of a placebo: no pair differs in anything",
    DIFFERENT: "of a placebo: some pairs differ, although the term cannot have an effect there",
}
"""Every verdict -> what it says."""
SHORT = {SUPPORTED: "supported", SLOWER: "supported"}
"""Verdicts that predictions call by another name."""

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
class Slower:
    """The treatment against an arm that only slows the generator down."""

    arm: str
    equivalence: Equivalence | None
    """None: it could not be tested."""
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """The positive control against the baseline."""

    arm: str
    difference: Difference | None
    beats: bool | None
    """Whether its interval lies above zero; None: it could not be tested."""
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Strong:
    """E8: one untuned trial of the treatment is as good as the tuned baseline, in every stratum of the box."""

    holds: bool | None
    """None: it could not be tested in every stratum."""
    removes_need: bool
    """Also at least 90 % of the treatment's trials are stable."""
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
    box: str
    difference: Difference | None
    """None where it was refused."""
    width: WidthDifference | None
    p_holm: float | None
    """p after Holm over all primary blocks; None of others."""
    slower: tuple[Slower, ...]
    positive: Control | None
    strong: Strong | None
    identity: Identity | None
    bounds: CensoringBounds | None
    """Only with censored trials."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupVerdict:
    """The blocks of one class, or of all classes, together."""

    name: str
    blocks: tuple[str, ...]
    verdict: str
    sentence: str
    pooled: Difference | None
    """None where the blocks were not pooled."""


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
class Registered:
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """All that a claim's study says."""

    study: str
    claim: Mapping[str, Any]
    verdict: str
    """Of all primary blocks together."""
    sentence: str
    registered: Registered
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
        return "\n".join(_markdown(self)) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: object) -> str:
    """Text that Markdown shows as it is, in a table cell, too."""
    escaped = html.escape(str(value), quote=False)
    for mark in "\\`*_[]|~":
        escaped = escaped.replace(mark, f"\\{mark}")
    return " ".join(escaped.split())


def _markdown(decision: Decision) -> list[str]:
    claim = decision.claim
    lines = [f"# Verdict: {_text(claim.get('id', decision.study))}", ""]
    lines += [f"> {_text(claim['question'])}", ""] if claim.get("question") else []
    lines += [f"**{_text(decision.verdict)}.** {_text(decision.sentence)}", "", _text(decision.registered.sentence), ""]
    lines += [f"- **{_text(warning)}**" for warning in decision.warnings] + [""] * bool(decision.warnings)
    lines += ["## Classes", "", *(f"- {_text(group.sentence)}" for group in decision.classes), ""]
    lines += ["## Blocks", "", *_block_table(decision), ""]
    for block in decision.blocks:
        lines += [f"### {_text(block.block)}", "", _text(block.sentence), ""]
        said = [*block.notes, *(s.sentence for s in block.slower)]
        said += [part.sentence for part in (block.positive, block.strong) if part is not None]
        lines += [f"- {_text(sentence)}" for sentence in said] + [""] * bool(said)
    if decision.predictions:
        lines += ["## Predictions", "", *(f"- {_text(check.sentence)}" for check in decision.predictions), ""]
    return lines[:-1]


def _block_table(decision: Decision) -> list[str]:
    head = ("block", "class", "role", "verdict", "difference", "interval", "configurations", "pairs", "p (Holm)")
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for block in decision.blocks:
        d = block.difference
        figures = ["", "", "", "", ""]
        if d is not None:
            p = d.p if block.p_holm is None else block.p_holm
            figures = [points(d.estimate), f"{points(d.low)} to {points(d.high)}", str(d.n_configs), str(d.n_pairs)]
            figures += [p_text(p)]
        cells = (block.block, block.klass, block.role, block.verdict, *figures)
        rows.append("| " + " | ".join(map(_text, cells)) + " |")
    return rows


def points(share: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * share:+.1f}" if math.isfinite(share) else "unknown"


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.1f} %" if math.isfinite(share) else "unknown"


def p_text(p: float) -> str:
    """A p value in three digits."""
    return f"{p:.2g}" if p >= 0.0001 else "< 0.0001"


def p_equals(p: float) -> str:
    """A p value in a sentence: `p = 0.012` or `p < 0.0001`."""
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"
