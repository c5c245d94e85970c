"""Verdicts as sentences: effect, interval, how many, which box. Pure text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.decision import (
    DESCRIPTIVE,
    HARMS,
    INCONCLUSIVE,
    NOT_POOLED,
    PRIMARY,
    REFUSED,
    SLOWER,
    SUPPORTED,
    BlockVerdict,
    p_equals,
    percent,
    points,
)
from analysis.paired import Difference


def place(block: BlockVerdict) -> str:
    """A block by its name, family and class."""
    named = f"{block.block} (family {block.family}"
    return f"{named}, class {block.klass})" if block.klass else f"{named})"


def block_sentence(block: BlockVerdict, claim: Mapping[str, Any], tests: int) -> str:
    """One sentence on a block; `tests`: primary tests that Holm corrects for."""
    head = f"{place(block)}: {block.verdict}"
    if block.role != PRIMARY:
        head = f"{place(block)}, {block.role}: {block.verdict}"
    if block.verdict == REFUSED:
        return f"{head}, because {'; '.join(block.reasons)}."
    if block.identity is not None:
        pairs = f"{block.identity.differing} of {block.identity.n_pairs} pairs differ in outcome, Q or an event time"
        return f"{head}: {pairs}, where the term cannot have an effect. Box: {block.box}."
    d = block.difference
    assert d is not None, "only placebos and refused verdicts have no estimate"
    if block.verdict == DESCRIPTIVE:
        return (
            f"{head}, because a grid is no sample of a box: on these levels {effect(d, interval=False)}. "
            f"Box: {block.box}."
        )
    parts = [f"{head}. {_upper(effect(d))}", *_consequences(block, claim)]
    if block.p_holm is not None and tests > 1:
        parts.append(f"After Holm's correction over {tests} tests {p_equals(block.p_holm)}")
    return ". ".join([*parts, f"Box: {block.box}."])


def effect(d: Difference, *, interval: bool = True) -> str:
    """Shares, difference, interval and numbers of a comparison."""
    n = f"{d.n_configs} configurations, {d.n_pairs} pairs"
    shares = f"{d.treatment} was stable in {percent(d.share_treatment)} of runs, {d.baseline} in "
    shares += f"{percent(d.share_baseline)}: {points(d.estimate)} points"
    if not interval:
        return f"{shares} ({n})"
    return (
        f"{shares}, {100 * (1 - d.alpha):g} % interval {points(d.low)} to {points(d.high)} "
        f"({n}, sign-flip {p_equals(d.p)})"
    )


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _consequences(block: BlockVerdict, claim: Mapping[str, Any]) -> list[str]:
    """What the width says, and why a verdict is not stronger than it is."""
    d, w, found = block.difference, block.width, []
    assert d is not None, "only placebos and refused verdicts have no estimate"
    if w is not None:
        found.append(
            f"The stable range of learning rates is {abs(w.difference):.2f} decades "
            f"{'wider' if w.difference >= 0 else 'narrower'} ({w.low:+.2f} to {w.high:+.2f}) and its centre "
            + (f"moves by {w.shift:+.2f}" if math.isfinite(w.shift) else "cannot be compared")
        )
    if block.verdict == SLOWER:
        same = [each.arm for each in block.slower if each.equivalence is not None and each.equivalence.equivalent]
        found.append(f"It is equivalent to {' and '.join(same)}, which only slows the generator down")
    elif block.verdict == INCONCLUSIVE:
        found.append(_why_inconclusive(d, claim))
        if d.low > 0 and d.estimate >= float(claim["sesoi"]):
            found.append("More runs are stable, but the stable range of learning rates is not shown to be wider")
    if block.verdict not in (SUPPORTED, SLOWER, HARMS) and block.positive is not None and block.positive.beats is False:
        arm = block.positive.arm
        found.append(f"The positive control {arm} has no effect either: the benchmark had no room to show one")
    return found


def _why_inconclusive(d: Difference, claim: Mapping[str, Any]) -> str:
    half, margin = (d.high - d.low) / 2, float(claim["margin"])
    return f"The interval reaches {100 * half:.1f} points to each side, with a margin of {100 * margin:g}"


def group_sentence(
    name: str, blocks: Sequence[BlockVerdict], verdict: str, pooled: Difference | None, extra: Sequence[str]
) -> str:
    """One sentence on several blocks together."""
    if not blocks:
        return f"{_upper(name)}: no block of the claim."
    if pooled is not None:
        joined = f" over {len(blocks)} blocks" if len(blocks) > 1 else f" ({blocks[0].block})"
        return ". ".join([f"{_upper(name)}: {verdict}{joined}. {_upper(effect(pooled))}", *extra]) + "."
    each = "; ".join(
        f"{block.block} {block.verdict}"
        + (f" ({points(block.difference.estimate)} points)" if block.difference else "")
        for block in blocks
    )
    head = [f"{_upper(name)}: {verdict}"] if verdict != NOT_POOLED else []
    return ". ".join([*head, *extra, f"Blocks: {each}"]) + "."


def warnings(blocks: Sequence[BlockVerdict]) -> list[str]:
    """What a reader must know before any verdict."""
    found = []
    for block in blocks:
        if block.identity is not None and block.identity.differing:
            found.append(
                f"Placebo {block.block}: {block.identity.differing} of {block.identity.n_pairs} pairs differ although "
                "the term cannot have an effect there: the trials are not reproducible, or the arms differ otherwise."
            )
        elif block.role != PRIMARY and block.verdict in (SUPPORTED, SLOWER, HARMS):
            found.append(
                f"{_upper(block.role)} {block.block} shows an effect ({block.verdict}): "
                "doubt the pipeline or the design before believing another block."
            )
    return found
