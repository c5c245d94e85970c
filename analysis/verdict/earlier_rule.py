"""The earlier decision rule, which did not ask for room, for claims registered under it (`docs/verdict.md`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, fmean
from typing import Any

import pandas as pd

from vistudy.analysis.estimates.risk_difference import Difference, equivalence, pair, pool, risk_difference
from vistudy.analysis.estimates.stable_width import WidthDifference
from vistudy.analysis.verdict.controls import why_not_comparable
from vistudy.analysis.verdict.decide_block import is_wider, validity_problems, widths
from vistudy.analysis.verdict.results import (
    DESCRIPTIVE,
    DIFFERENT,
    HARMS,
    IDENTICAL,
    INCONCLUSIVE,
    PLACEBO,
    REFUSED,
    SLOWER,
    SUPPORTED,
    BlockVerdict,
)
from vistudy.analysis.verdict.wording import is_grid

NO_EFFECT = "no effect"
NOT_POOLED = "not pooled"


def earlier_rule(
    estimate: float, low: float, high: float, *, wider: bool, equals_slower: bool, sesoi: float, margin: float
) -> str:
    """Return the verdict string; ignores room, multiplicity over blocks and edges of the search space."""
    if low > 0 and estimate >= sesoi - 1e-12 and wider:
        return SLOWER if equals_slower else SUPPORTED
    if -margin < low and high < margin:
        return NO_EFFECT
    return HARMS if high < 0 else INCONCLUSIVE


def earlier_block(
    block: BlockVerdict, table: pd.DataFrame, claim: Mapping[str, Any], declared: Mapping[str, Any]
) -> tuple[str, Difference | None, WidthDifference | None]:
    """Return (verdict, difference, width) of one block."""
    if block.role == PLACEBO:
        return block.verdict, None, None
    alpha = float(claim["alpha"])
    reasons, pairs = validity_problems(table, block.treatment, block.baseline, declared)
    if reasons or pairs is None:
        return REFUSED, None, None
    try:
        difference = risk_difference(pairs, alpha=alpha)
    except ValueError:
        return REFUSED, None, None
    if declared and is_grid(declared):
        return DESCRIPTIVE, difference, None
    width = widths(table, block.treatment, block.baseline, declared, alpha, 2)[0]
    return _rule(difference, is_wider(width), [table], block, claim), difference, width


def _rule(
    d: Difference, wider: bool, parts: Sequence[pd.DataFrame], block: BlockVerdict, claim: Mapping[str, Any]
) -> str:
    return earlier_rule(
        d.estimate, d.low, d.high, wider=wider, equals_slower=any(_equals(parts, block.treatment, arm, claim)
                                                                  for arm in claim.get("slower") or ()),
        sesoi=float(claim["sesoi"]), margin=float(claim["margin"]),
    )  # fmt: skip


def _equals(parts: Sequence[pd.DataFrame], treatment: str, arm: str, claim: Mapping[str, Any]) -> bool:
    if any(why_not_comparable(rows, treatment, arm) is not None for rows in parts):
        return False
    pooled = pool([pair(rows, treatment, arm) for rows in parts])
    return equivalence(pooled, float(claim["margin"]), float(claim["alpha"])).equivalent


def earlier_group(
    members: Sequence[BlockVerdict],
    blocks: Mapping[str, tuple[str, Difference | None, WidthDifference | None]],
    table: pd.DataFrame,
    claim: Mapping[str, Any],
) -> tuple[str, Difference | None]:
    """Return (verdict, pooled difference) of several blocks: pooled unless the signs of their estimates differ, with
    equal weight per configuration; an effect needs a block that is significant after Holm's correction."""
    strings = {blocks[block.block][0] for block in members}
    if members[0].role == PLACEBO:
        return (REFUSED if REFUSED in strings else DIFFERENT if DIFFERENT in strings else IDENTICAL), None
    if strings & {REFUSED, DESCRIPTIVE}:
        return REFUSED if REFUSED in strings else DESCRIPTIVE, None
    differences = [d for _, d, _ in (blocks[block.block] for block in members) if d is not None]
    estimates = [d.estimate for d in differences]
    if len(members) == 1:
        verdict, pooled = strings.pop(), differences[0]
    elif any(e > 0 for e in estimates) and any(e < 0 for e in estimates):
        verdict, pooled = strings.pop() if len(strings) == 1 else NOT_POOLED, None
    else:
        alpha, first = float(claim["alpha"]), members[0]
        parts = [table[table["block"] == block.block] for block in members]
        pooled = risk_difference(pool([pair(rows, first.treatment, first.baseline) for rows in parts]), alpha=alpha)
        wider = _wider([blocks[block.block][2] for block in members], alpha)
        verdict = _rule(pooled, wider, parts, first, claim)
    corrected = [block.p_holm for block in members if block.p_holm is not None]
    if verdict in (SUPPORTED, SLOWER, HARMS) and corrected and min(corrected) > float(claim["alpha"]):
        verdict = INCONCLUSIVE
    return verdict, pooled


def _wider(widths_of: Sequence[WidthDifference | None], alpha: float) -> bool:
    finite_widths = [width for width in widths_of if width is not None and math.isfinite(width.low)]
    if len(finite_widths) < len(widths_of):
        return False
    z = NormalDist().inv_cdf(1 - alpha / 2)
    error = math.hypot(*((width.high - width.low) / (2 * z) for width in finite_widths)) / len(finite_widths)
    return fmean(width.difference for width in finite_widths) > z * error
