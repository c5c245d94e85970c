"""Pool the blocks of a claim that have room by a random-effects mean, with one weight per block.

Blocks may share configurations (the same Sobol points), so their effects are correlated: that enters the variance of
the mean, but no weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, fmean
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t
from statsmodels.stats.meta_analysis import combine_effects

from vistudy.analysis.estimates.pairs import Floats
from vistudy.analysis.estimates.risk_difference import Pairs, mean_interval, pair
from vistudy.analysis.estimates.strata import Factor, dependent
from vistudy.analysis.verdict.controls import why_not_comparable
from vistudy.analysis.verdict.results import (
    DEPENDS,
    DESCRIPTIVE,
    DIFFERENT,
    HARMS,
    IDENTICAL,
    INCONCLUSIVE,
    MORE,
    NO_DOSE,
    PLACEBO,
    REFUSED,
    SLOWER,
    SUPPORTED,
    UNINFORMATIVE,
    BlockVerdict,
    GroupVerdict,
    Pooled,
    depends_on,
)
from vistudy.analysis.verdict.rule import decide_rule
from vistudy.analysis.verdict.wording import factor_text, group_sentence

EFFECTS = (SUPPORTED, SLOWER, MORE, HARMS)
"""Verdicts that state an effect."""


def group(name: str, members: Sequence[BlockVerdict], table: pd.DataFrame, claim: Mapping[str, Any]) -> GroupVerdict:
    """Decide blocks together; an overall effect also needs a block whose own test holds after Holm's correction."""
    room = [block for block in members if _informative(block)]
    verdict, pooled, extra = _together(members, room, table, claim)
    corrected = [block.p_holm for block in members if block.p_holm is not None]
    if verdict in EFFECTS and corrected and min(corrected) > float(claim["alpha"]):
        extra.append(f"Without correction it would be '{verdict}', but no block is significant after Holm's correction")
        verdict = INCONCLUSIVE
    return GroupVerdict(
        name=name, blocks=tuple(block.block for block in members), with_room=tuple(block.block for block in room),
        verdict=verdict, sentence=group_sentence(name, members, room, verdict, pooled, extra), pooled=pooled,
        notes=tuple(_caveats(members)),
    )  # fmt: skip


def _informative(block: BlockVerdict) -> bool:
    return (
        block.difference is not None
        and block.room is not None
        and block.room.informative
        and block.verdict not in (REFUSED, DESCRIPTIVE, NO_DOSE)
    )


def _caveats(members: Sequence[BlockVerdict]) -> list[str]:
    """Return the blocks' caveats with their names; equal caveats once."""
    where: dict[str, list[str]] = {}
    for block in members:
        for caveat in dict.fromkeys(block.caveats):
            where.setdefault(caveat, []).append(block.block)
    names = {caveat: "every block" if len(of) == len(members) > 1 else ", ".join(of) for caveat, of in where.items()}
    return [f"{caveat[:1].upper()}{caveat[1:]} ({names[caveat]})" for caveat in where]


def _together(
    members: Sequence[BlockVerdict], room: Sequence[BlockVerdict], table: pd.DataFrame, claim: Mapping[str, Any]
) -> tuple[str, Pooled | None, list[str]]:
    if members[0].role == PLACEBO:
        return _placebos(members)
    without = [block for block in members if block.verdict in (REFUSED, DESCRIPTIVE)]
    if without:
        verdict = REFUSED if any(block.verdict == REFUSED for block in without) else DESCRIPTIVE
        if len(members) == 1:
            return verdict, None, [without[0].sentence.rstrip(".")]
        return verdict, None, [f"{len(without)} of {len(members)} blocks have no verdict, so nothing is said of all"]
    if not room:
        dosed = any(block.verdict != NO_DOSE for block in members)
        return (UNINFORMATIVE if dosed else NO_DOSE), None, []
    alpha = float(claim["alpha"])
    pairs = {block.block: _pairs(table, block.block, block.treatment, block.baseline) for block in room}
    pooled = random_effects(pairs, alpha=alpha)
    verdicts = {block.verdict for block in room}
    mixed = [block for block in room if block.verdict.startswith(DEPENDS)]
    if len(room) == 1:
        return room[0].verdict, pooled, [factor_text(factor) for factor in _unequal(room[0], claim)]
    if mixed:
        names = dict.fromkeys(factor.name for block in mixed for factor in _unequal(block, claim))
        where = ", ".join(block.block for block in mixed)
        each = [f"{block.block} {factor_text(factor)}" for block in mixed for factor in _unequal(block, claim)]
        return depends_on(names), None, [f"Nothing is averaged over blocks: in {where} it {depends_on(names)}", *each]
    if HARMS in verdicts and verdicts & {SUPPORTED, SLOWER, MORE}:
        return depends_on(["block"]), None, ["The treatment helps in some blocks and harms in others"]
    wider, width_text = _pooled_width(room, alpha)
    verdict = decide_rule(
        pooled.estimate, pooled.low, pooled.high, significant=pooled.p <= alpha, wider=wider,
        equals_slower=any(_equals(room, table, arm, claim) for arm in claim["slower"]),
        sesoi=float(claim["sesoi"]), margin=float(claim["margin"]),
    )  # fmt: skip
    if len(verdicts) == 1 and verdict == INCONCLUSIVE and room[0].verdict != INCONCLUSIVE:
        verdict = room[0].verdict
        width_text.append("Every block with room has this verdict; their mean is not known well")
    return verdict, pooled, width_text


def _unequal(block: BlockVerdict, claim: Mapping[str, Any]) -> tuple[Factor, ...]:
    """Return the factors on which a block's effect depends, by its verdict."""
    if not block.verdict.startswith(DEPENDS):
        return ()
    return dependent(block.factors, float(claim["alpha"]), float(claim["sesoi"]))


def _placebos(members: Sequence[BlockVerdict]) -> tuple[str, None, list[str]]:
    strings = {block.verdict for block in members}
    if REFUSED in strings:
        count = sum(block.verdict == REFUSED for block in members)
        return REFUSED, None, [f"{count} of {len(members)} blocks have no verdict, so nothing is said of all"]
    counts = [block.identity for block in members if block.identity is not None]
    pairs = f"{sum(each.differing for each in counts)} of {sum(each.n_pairs for each in counts)} pairs differ"
    return (DIFFERENT if DIFFERENT in strings else IDENTICAL), None, [pairs]


def _pairs(table: pd.DataFrame, block: str, treatment: str, baseline: str) -> Pairs:
    return pair(table[table["block"] == block], treatment, baseline)


# -- the mean over blocks ----------------------------------------------------------------------------------------------


def random_effects(parts: Mapping[str, Pairs], *, alpha: float = 0.05) -> Pooled:
    """Return the random-effects mean of the blocks' differences; weights: 1 / (own + between-block variance).

    The variance between blocks is estimated after Paule and Mandel. The variance of the mean has a part within blocks,
    with covariances of blocks that share configurations, and a part between blocks; t has Satterthwaite's degrees of
    freedom of both parts.

    Args:
        parts: block -> its pairs.

    Source: DerSimonian & Kacker 2007.
    """
    names, d = list(parts), [pairs.differences for pairs in parts.values()]
    estimates = np.array([values.mean() for values in d])
    covariance = _covariance(list(parts.values()))
    within, k = np.diag(covariance), len(names)
    between, p_equal, weights = 0.0, math.nan, np.ones(1)
    if k > 1:
        with np.errstate(divide="ignore", invalid="ignore"):  # its I^2, of differences that are all equal
            combined = combine_effects(estimates, within, method_re="iterated", atol=1e-10, maxiter=200)
        between, p_equal = max(float(combined.tau2), 0.0), float(combined.test_homogeneity().pvalue)
        weights = 1 / (within + between)
        weights = weights / weights.sum()
    estimate = float(weights @ estimates)
    if k == 1:
        (low, high, _), p = mean_interval(d[0], alpha=alpha, share=True), math.nan
    else:
        parts_of = float(weights @ covariance @ weights), between * float((weights**2).sum())
        variance = sum(parts_of)
        df = variance**2 / (parts_of[0] ** 2 / (sum(map(len, d)) - k) + parts_of[1] ** 2 / (k - 1))
        half = float(t.ppf(1 - alpha / 2, df)) * math.sqrt(variance)
        low, high = max(estimate - half, -1.0), min(estimate + half, 1.0)
        p = 2 * float(t.sf(abs(estimate) / math.sqrt(variance), df))
    return Pooled(
        estimate=estimate, low=low, high=high, p=p, alpha=alpha, between_sd=math.sqrt(between), p_equal=p_equal,
        weights=dict(zip(names, weights.tolist(), strict=True)),
        n_configs=len({config for pairs in parts.values() for config in pairs.configs}),
        n_pairs=sum(pairs.n_pairs for pairs in parts.values()),
        stable_treatment=sum(int(np.nansum(pairs.t)) for pairs in parts.values()),
        stable_baseline=sum(int(np.nansum(pairs.b)) for pairs in parts.values()),
    )  # fmt: skip


def _covariance(parts: Sequence[Pairs]) -> Floats:
    """Return the covariance (blocks, blocks) of the mean differences; the diagonal is that of the intervals."""
    k = len(parts)
    covariance = np.zeros((k, k))
    for i, one in enumerate(parts):
        low, high, _ = mean_interval(one.differences, share=True)
        covariance[i, i] = ((high - low) / (2 * float(t.ppf(0.975, max(one.n_configs - 1, 1))))) ** 2
        for j, other in enumerate(parts[:i]):
            place = {config: row for row, config in enumerate(other.configs)}
            shared = [(row, place[config]) for row, config in enumerate(one.configs) if config in place]
            if len(shared) > 1:
                x, y = one.differences[[a for a, _ in shared]], other.differences[[b for _, b in shared]]
                covariance[i, j] = covariance[j, i] = (
                    float(np.cov(x, y)[0, 1]) * len(shared) / (one.n_configs * other.n_configs)
                )
    return covariance


def _equals(room: Sequence[BlockVerdict], table: pd.DataFrame, arm: str, claim: Mapping[str, Any]) -> bool:
    """Return whether the treatment equals a slower arm over all blocks with room; False unless all can be tested."""
    rows = {block.block: table[table["block"] == block.block] for block in room}
    treatment, margin = room[0].treatment, float(claim["margin"])
    if any(why_not_comparable(of_block, treatment, arm) is not None for of_block in rows.values()):
        return False
    pooled = random_effects(
        {name: pair(of_block, treatment, arm) for name, of_block in rows.items()}, alpha=2 * float(claim["alpha"])
    )
    return -margin < pooled.low and pooled.high < margin


def _pooled_width(room: Sequence[BlockVerdict], alpha: float) -> tuple[bool, list[str]]:
    """Return whether the mean difference of widths lies above 0, by a normal approximation."""
    widths = [block.width for block in room if block.width is not None and math.isfinite(block.width.low)]
    if len(widths) < len(room):
        missing = len(room) - len(widths)
        return False, [
            f"Wider or moved cannot be told: in {missing} of {len(room)} blocks the range is cut or not known"
        ]
    z = NormalDist().inv_cdf(1 - alpha / 2)
    mean = fmean(width.difference for width in widths)
    error = math.hypot(*((width.high - width.low) / (2 * z) for width in widths)) / len(widths)
    low, high = mean - z * error, mean + z * error
    change = f"{abs(mean):.2f} decades {'wider' if mean >= 0 else 'narrower'} ({low:+.2f} to {high:+.2f})"
    return low > 0, [f"The stable range of learning rates is on average {change}"]
