"""Apply the decision rule to one block: validity first, then room, then the primary and secondary comparisons."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from vistudy.analysis.estimates.effect_sizes import odds_ratio, q_shift
from vistudy.analysis.estimates.risk_difference import Difference, Pairs, missing_bounds, pair, risk_difference
from vistudy.analysis.estimates.stable_width import WidthDifference, width_difference
from vistudy.analysis.estimates.strata import box_of, dependent, factors, opposite
from vistudy.analysis.tables.formatting import percent, points
from vistudy.analysis.verdict.controls import (
    MAX_MISSING_SHARE,
    against_slower,
    check_positive_control,
    compare_bitwise,
    doses,
    missing_share,
    no_dose,
)
from vistudy.analysis.verdict.results import (
    DESCRIPTIVE,
    DIFFERENT,
    HARMS,
    IDENTICAL,
    INCONCLUSIVE,
    NEGATIVE,
    NO_DOSE,
    PLACEBO,
    REFUSED,
    UNINFORMATIVE,
    WITHIN,
    BlockVerdict,
    Control,
    Room,
    depends_on,
)
from vistudy.analysis.verdict.rule import decide_rule, no_room
from vistudy.analysis.verdict.tuning import strong_claim, trials_needed
from vistudy.analysis.verdict.wording import (
    NON_ADAPTIVE,
    block_notes,
    cut_text,
    excluded_text,
    is_grid,
    missing_text,
    search_space_text,
)

SHIFT_DRAWS = 10_000
"""Resamples of the bootstrap of the shift of Q."""


def decide_block(
    name: str,
    table: pd.DataFrame,
    claim: Mapping[str, Any],
    treatment: str,
    role: str,
    declared: Mapping[str, Any],
    *,
    draws: int = 100_000,
    beside: bool = True,
) -> BlockVerdict:
    """Compare the arms of one block. Its verdict needs the other blocks' tests (`conclude`), unless it is final:
    refused, descriptive, a placebo's, or no dose.

    Args:
        name: name of the block.
        table: arm table of this block; may be empty.
        claim: as in `plan.json`.
        treatment: arm that is compared with the claim's baseline.
        role: `primary`, `negative control` or `placebo`.
        declared: the block's entry in the plan; empty if unknown.
        draws: resamples of the sign-flip test, the permutation test and the bootstrap of the shift.
        beside: also the strong claim and what tuning costs.
    """
    baseline = str(claim["baseline"])
    block_verdict = BlockVerdict(
        block=name,
        family=str(table["family"].iloc[0] if len(table) else declared.get("family", name)),
        block_class=str(table["class"].iloc[0] if len(table) else declared.get("class") or ""),
        role=role, treatment=treatment, baseline=baseline, box=search_space_text(declared, table), verdict=REFUSED,
        sentence="", reasons=(), notes=(), caveats=(), difference=None, width=None, p_holm=None, room=None, odds=None,
        q_shift=None, factors=(), slower=(), positive=None, strong=None, tuning=None, doses=doses(table),
        identity=None, bounds=None,
    )  # fmt: skip
    if role == PLACEBO:
        return dataclasses.replace(block_verdict, **_placebo(table, treatment, baseline))
    reasons, pairs = validity_problems(table, treatment, baseline, declared)
    notes, caveats = block_notes(table, pairs, treatment, baseline, declared) if pairs is not None else ([], [])
    block_verdict = dataclasses.replace(
        block_verdict, reasons=tuple(reasons), notes=tuple(notes), caveats=tuple(caveats)
    )
    if reasons or pairs is None:
        return block_verdict
    try:
        if declared and is_grid(declared):
            block_verdict = dataclasses.replace(
                block_verdict, difference=risk_difference(pairs, draws=draws), verdict=DESCRIPTIVE
            )
        else:
            block_verdict = _compare(block_verdict, table, pairs, claim, declared, draws, beside)
    except ValueError as error:
        return dataclasses.replace(block_verdict, reasons=(str(error),))
    why = no_dose(block_verdict.doses, treatment, compare_bitwise(table, treatment, baseline))
    if why is None:
        return block_verdict
    if role == NEGATIVE:
        return dataclasses.replace(block_verdict, verdict=NO_DOSE, reasons=(why,))
    return dataclasses.replace(
        block_verdict,
        notes=(*block_verdict.notes, f"No dose: {why}."),
        caveats=(*block_verdict.caveats, "the treatment has no dose"),
    )


def _placebo(table: pd.DataFrame, treatment: str, baseline: str) -> dict[str, Any]:
    """Decide a placebo: its pairs are identical or not, however configurations were drawn."""
    identity = compare_bitwise(table, treatment, baseline)
    reasons = []
    if not identity.n_pairs:
        reasons.append(f"no pair of two complete trials of {treatment} and {baseline} could be compared")
    elif (
        identity.not_compared > MAX_MISSING_SHARE * (identity.n_pairs + identity.not_compared)
        and not identity.differing
    ):
        share = percent(identity.not_compared / (identity.n_pairs + identity.not_compared))
        reasons.append(f"{share} of its pairs lack a result, more than {percent(MAX_MISSING_SHARE)}")
    verdict = REFUSED if reasons else DIFFERENT if identity.differing else IDENTICAL
    notes = (
        [f"{identity.same_trial} pairs are one trial, trained once, and show nothing."] if identity.same_trial else []
    )
    if identity.not_compared:
        notes.append(f"{identity.not_compared} pairs were not compared: a trial is missing or failed.")
    return {"identity": identity, "verdict": verdict, "reasons": tuple(reasons), "notes": tuple(notes)}


def validity_problems(
    table: pd.DataFrame, treatment: str, baseline: str, declared: Mapping[str, Any]
) -> tuple[list[str], Pairs | None]:
    """Return reasons to refuse a verdict that are known before comparing, and the pairs if both arms exist."""
    reasons = []
    method = (declared.get("sample") or {}).get("method")
    if method is not None and method not in NON_ADAPTIVE:
        reasons.append(
            f"its configurations were placed by {method}, which looks at results: they are no sample of the box"
        )
    absent = [arm for arm in (treatment, baseline) if not (table["arm"] == arm).any()]
    if absent:
        return [*reasons, f"it has no trial of arm {' or '.join(absent)}"], None
    try:
        pairs = pair(table, treatment, baseline)
    except ValueError as error:
        return [*reasons, str(error)], None
    if not pairs.n_pairs:
        reasons.append(f"no pair of {treatment} and {baseline} has a result in both arms ({excluded_text(pairs)})")
    elif pairs.n_configs < 2:
        reasons.append("it has one configuration, and the spread between configurations cannot be seen")
    if pairs.n_pairs and missing_share(pairs) > MAX_MISSING_SHARE:
        reasons.append(
            f"{percent(missing_share(pairs))} of its pairs lack a result, more than {percent(MAX_MISSING_SHARE)}: "
            f"{excluded_text(pairs)}"
        )
    return reasons, pairs


def _compare(
    block_verdict: BlockVerdict, table: pd.DataFrame, pairs: Pairs, claim: Mapping[str, Any],
    declared: Mapping[str, Any], draws: int, beside: bool,
) -> BlockVerdict:  # fmt: skip
    treatment, baseline, alpha = block_verdict.treatment, block_verdict.baseline, float(claim["alpha"])
    difference = risk_difference(pairs, alpha=alpha, draws=draws)
    arm = claim.get("positive_control")
    control = check_positive_control(table, arm, baseline, alpha) if arm and arm != treatment else None
    room = find_room(difference, control, claim)
    width, why = widths(table, treatment, baseline, declared, alpha, min(draws, SHIFT_DRAWS))
    notes, caveats = list(block_verdict.notes), list(block_verdict.caveats)
    if width is not None and width.cut:
        why, width = cut_text(width), None
    if why:
        notes.append(f"The width of the stable range could not be estimated: {why}.")
    bounds = missing_bounds(table, treatment, baseline, alpha=alpha)
    if bounds is not None:
        notes.append(missing_text(table, treatment, baseline, bounds))
        caveats.append("trials without a result")
    if control is not None and control.failed:
        text = f"the positive control {control.arm} {'harms' if control.word == HARMS else 'does nothing'}"
        rests = "; there is room only because the treatment itself differs, and a mean over such blocks flatters it"
        caveats.append(text + (rests if room.informative else ""))
    slower = against_slower(table, treatment, claim.get("slower") or (), float(claim["margin"]), alpha, room.why)
    tuning = trials_needed(table, pairs, claim) if beside and room.informative else None
    strong = strong_claim(table, treatment, baseline, claim, tuning, room.why) if beside else None
    return dataclasses.replace(
        block_verdict, verdict="", difference=difference, room=room, width=width, bounds=bounds, positive=control,
        odds=odds_ratio(pairs, alpha=alpha), q_shift=q_shift(table, treatment, baseline, alpha=alpha),
        factors=factors(table, pairs, box_of(declared), alpha, draws=min(draws, 4999)), slower=tuple(slower),
        strong=strong, tuning=tuning, notes=tuple(notes), caveats=tuple(caveats),
    )  # fmt: skip


def find_room(difference: Difference, control: Control | None, claim: Mapping[str, Any]) -> Room:
    """Return whether an effect was detectable, by the stable shares and by the positive control.

    A failed control does not invalidate an effect that was detected, in either direction.
    """
    why = no_room(
        difference.share_baseline, difference.share_treatment, float(claim["room_low"]), float(claim["room_high"])
    )
    detected = difference.low > 0 or difference.high < 0
    if why is None and control is not None and control.failed and not detected:
        why = f"the positive control {control.arm} does not beat the baseline, and the treatment does not either"
    return Room(informative=why is None, why=why or "")


def conclude(
    block: BlockVerdict, p_holm: float | None, at_worst: Sequence[float | None], claim: Mapping[str, Any]
) -> BlockVerdict:
    """Conclude a compared block.

    Args:
        block: result of `decide_block`; a final verdict stays, only `p_holm` is added.
        p_holm: p after Holm's correction; None for a block that does not test the claim.
        at_worst: the same for each of the block's `bounds`.
    """
    block = dataclasses.replace(block, p_holm=p_holm if block.difference else None)
    if block.verdict or block.difference is None:
        return block
    plain = _verdict(block, block.difference, p_holm, claim)
    if block.bounds is not None:
        ends = zip((block.bounds.low, block.bounds.high), at_worst, strict=True)
        others = {_verdict(block, end, p, claim) for end, p in ends} - {plain}
        if others:
            text = f"{points(block.bounds.low.estimate)} to {points(block.bounds.high.estimate)} points"
            strings = ", ".join(sorted({plain, *others}))
            reason = f"trials without a result could change the verdict: the difference is {text} ({strings})"
            return dataclasses.replace(
                block, verdict=REFUSED, reasons=(reason,), difference=None, width=None, p_holm=None, odds=None,
                q_shift=None, factors=(), slower=(), strong=None, tuning=None,
            )  # fmt: skip
    if plain == UNINFORMATIVE:
        return dataclasses.replace(block, verdict=plain)
    unequal = dependent(block.factors, float(claim["alpha"]), float(claim["sesoi"]))
    if any(map(opposite, unequal)) or (unequal and plain in (WITHIN, INCONCLUSIVE)):
        return dataclasses.replace(block, verdict=depends_on(factor.name for factor in unequal))
    if unequal:
        names = depends_on(factor.name for factor in unequal)
        block = dataclasses.replace(block, caveats=(*block.caveats, f"the size of the effect {names}"))
    return dataclasses.replace(block, verdict=plain)


def _verdict(block: BlockVerdict, difference: Difference, p: float | None, claim: Mapping[str, Any]) -> str:
    if not find_room(difference, block.positive, claim).informative:
        return UNINFORMATIVE
    return decide_rule(
        difference.estimate,
        difference.low,
        difference.high,
        significant=(difference.p if p is None else p) <= float(claim["alpha"]),
        wider=is_wider(block.width),
        equals_slower=any(each.equivalent for each in block.slower),
        sesoi=float(claim["sesoi"]),
        margin=float(claim["margin"]),
    )


def is_wider(width: WidthDifference | None) -> bool:
    """Return whether the stable range is known to be wider."""
    return width is not None and width.difference > 0 and width.low > 0


def widths(
    table: pd.DataFrame, treatment: str, baseline: str, declared: Mapping[str, Any], alpha: float, draws: int
) -> tuple[WidthDifference | None, str]:
    """Return (difference of stable widths, "") or (None, why it cannot be estimated)."""
    if "lr" not in table or not table["lr"].notna().all():
        return None, "the configurations do not set `lr`, the learning rate of all nets together"
    space = (declared.get("sample") or {}).get("space", {}).get("lr")
    if space is not None and (not space.get("log") or "choices" in space):
        return None, "the learning rate was not drawn log-uniformly"
    box = (float(space["low"]), float(space["high"])) if space else None
    design = "sample" if space else "grid" if "lr" in declared.get("factors", {}) else None
    try:
        return width_difference(table, treatment, baseline, box=box, design=design, alpha=alpha, draws=draws), ""
    except ValueError as error:
        return None, str(error)
