"""Blocks of a claim together: pooled only if the signs of their effects agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, fmean
from typing import Any

import pandas as pd

from analysis.controls import against_slower
from analysis.decision import (
    DESCRIPTIVE,
    DIFFERENT,
    HARMS,
    IDENTICAL,
    INCONCLUSIVE,
    NOT_POOLED,
    PLACEBO,
    REFUSED,
    SLOWER,
    SUPPORTED,
    BlockVerdict,
    GroupVerdict,
)
from analysis.paired import Difference, Equivalence, equivalence, pair, pool, risk_difference
from analysis.rule import decide_rule, signs_agree
from analysis.wording import group_sentence


def group(name: str, members: Sequence[BlockVerdict], table: pd.DataFrame, claim: Mapping[str, Any]) -> GroupVerdict:
    """Blocks together: pooled if the signs of their effects agree; supported or harms only if Holm's test holds."""
    verdict, pooled, extra = _together(members, table, claim)
    corrected = [block.p_holm for block in members if block.p_holm is not None]
    if verdict in (SUPPORTED, SLOWER, HARMS) and corrected and min(corrected) > float(claim["alpha"]):
        extra.append(f"Without correction it would be '{verdict}', but no block is significant after Holm's correction")
        verdict = INCONCLUSIVE
    sentence = group_sentence(name, members, verdict, pooled, extra)
    names = tuple(block.block for block in members)
    return GroupVerdict(name=name, blocks=names, verdict=verdict, sentence=sentence, pooled=pooled)


def _together(
    members: Sequence[BlockVerdict], table: pd.DataFrame, claim: Mapping[str, Any]
) -> tuple[str, Difference | None, list[str]]:
    without = [block for block in members if block.verdict in (REFUSED, DESCRIPTIVE)]
    if without:
        verdict = REFUSED if any(block.verdict == REFUSED for block in without) else DESCRIPTIVE
        if len(members) == 1:
            return verdict, None, [without[0].sentence.rstrip(".")]
        return verdict, None, [f"{len(without)} of {len(members)} blocks have no verdict, so nothing is said of all"]
    if members[0].role == PLACEBO:
        strings = {block.verdict for block in members}
        counts = [block.identity for block in members if block.identity is not None]
        pairs = f"{sum(each.differing for each in counts)} of {sum(each.n_pairs for each in counts)} pairs differ"
        return (DIFFERENT if DIFFERENT in strings else IDENTICAL), None, [pairs]
    if len(members) == 1:
        return members[0].verdict, members[0].difference, []
    estimates = [block.difference.estimate for block in members if block.difference]
    if not signs_agree(estimates):
        strings = {block.verdict for block in members}
        why = "The blocks are not pooled: the effect is positive in some and negative in others"
        return (strings.pop() if len(strings) == 1 else NOT_POOLED), None, [why]
    treatment, baseline = members[0].treatment, members[0].baseline
    parts = {block.block: table[table["block"] == block.block] for block in members}
    pooled = risk_difference(
        pool([pair(rows, treatment, baseline) for rows in parts.values()]), alpha=float(claim["alpha"])
    )
    tests = [_pooled_equivalence(parts, treatment, arm, claim) for arm in claim["slower"]]
    wider, said = _pooled_width(members, float(claim["alpha"]))
    verdict = decide_rule(
        pooled.estimate,
        pooled.low,
        pooled.high,
        wider=wider,
        equals_slower=any(test is not None and test.equivalent for test in tests),
        sesoi=float(claim["sesoi"]),
        margin=float(claim["margin"]),
    )
    return verdict, pooled, said


def _pooled_equivalence(
    parts: Mapping[str, pd.DataFrame], treatment: str, arm: str, claim: Mapping[str, Any]
) -> Equivalence | None:
    """Treatment against a slower arm over all blocks; None unless every block can be tested."""
    margin, alpha = float(claim["margin"]), float(claim["alpha"])
    if any(against_slower(rows, treatment, [arm], margin, alpha)[0].equivalence is None for rows in parts.values()):
        return None
    return equivalence(pool([pair(rows, treatment, arm) for rows in parts.values()]), margin, alpha)


def _pooled_width(members: Sequence[BlockVerdict], alpha: float) -> tuple[bool, list[str]]:
    """Whether the blocks' mean difference of widths lies above 0, from their intervals (normal approximation)."""
    widths = [block.width for block in members if block.width is not None and math.isfinite(block.width.low)]
    if len(widths) < len(members):
        return False, ["The width of the stable range is not known in every block"]
    z = NormalDist().inv_cdf(1 - alpha / 2)
    mean = fmean(width.difference for width in widths)
    error = math.hypot(*((width.high - width.low) / (2 * z) for width in widths)) / len(widths)
    low, high = mean - z * error, mean + z * error
    change = f"{abs(mean):.2f} decades {'wider' if mean >= 0 else 'narrower'} ({low:+.2f} to {high:+.2f})"
    return low > 0, [f"The stable range of learning rates is on average {change}"]
