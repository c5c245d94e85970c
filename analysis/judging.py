"""The decision rule applied to one block: refusals first, then the comparison and what stands beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.controls import LIMIT, against_slower, identity, left_out, positive, strong_claim
from analysis.decision import (
    DESCRIPTIVE,
    DIFFERENT,
    IDENTICAL,
    PLACEBO,
    REFUSED,
    BlockVerdict,
    Slower,
    percent,
)
from analysis.paired import Difference, Pairs, censoring_bounds, pair, risk_difference
from analysis.pairs import REASONS
from analysis.rule import decide_rule
from analysis.width import WidthDifference, width_difference

FAIR = ("sobol", "random")
"""Ways of drawing configurations that make them a sample of the box."""
SHIFT_DRAWS = 10_000
"""Of the bootstrap of the shift."""


def judge_block(
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
    """Judge one block; its sentence is added by `analysis.wording`.

    Args:
        name: of the block.
        table: arm table of this block alone; it may have no row.
        claim: as in `plan.json`.
        treatment: arm that is compared with the claim's baseline.
        role: `primary`, `negative control` or `placebo`.
        declared: what the plan says of the block; empty if it is not known.
        draws: of the sign-flip test and the bootstrap of the shift.
        beside: also the controls and the strong claim.
    """
    baseline = str(claim["baseline"])
    head: dict[str, Any] = {
        "block": name,
        "family": str(table["family"].iloc[0] if len(table) else declared.get("family", name)),
        "klass": str(table["class"].iloc[0] if len(table) else declared.get("class") or ""),
        "role": role, "treatment": treatment, "baseline": baseline, "sentence": "", "box": box_text(declared, table),
        "p_holm": None, "difference": None, "width": None, "slower": (), "positive": None, "strong": None,
        "identity": None, "bounds": None,
    }  # fmt: skip
    if role == PLACEBO:
        return BlockVerdict(**head | _placebo(table, treatment, baseline))
    reasons, pairs = refusals(table, treatment, baseline, declared)
    notes = _notes(table, pairs, treatment, baseline, declared) if pairs is not None else []
    found: dict[str, Any] = {}
    if pairs is not None and not reasons:
        try:
            found = _compare(table, pairs, claim, treatment, declared, draws)
        except ValueError as error:
            reasons.append(str(error))
        else:
            reasons += found.pop("reasons")
            notes += found.pop("notes")
    head |= {"bounds": found.pop("bounds", None), "notes": tuple(notes), "reasons": tuple(reasons), "verdict": REFUSED}
    if reasons:
        return BlockVerdict(**head)
    head |= found
    if declared and is_grid(declared):
        return BlockVerdict(**head | {"verdict": DESCRIPTIVE})
    if beside:
        arm = claim.get("positive_control")
        head["positive"] = positive(table, arm, baseline, float(claim["alpha"])) if arm else None
        head["strong"] = strong_claim(table, treatment, baseline, claim)
    return BlockVerdict(**head)


def _placebo(table: pd.DataFrame, treatment: str, baseline: str) -> dict[str, Any]:
    """A placebo needs no sample of a box: its pairs are identical or not."""
    found = identity(table, treatment, baseline)
    reasons = []
    if not found.n_pairs:
        reasons.append(f"no pair of two complete trials of {treatment} and {baseline} could be compared")
    elif found.not_compared > LIMIT * (found.n_pairs + found.not_compared) and not found.differing:
        share = percent(found.not_compared / (found.n_pairs + found.not_compared))
        reasons.append(f"{share} of its pairs lack a result, more than {percent(LIMIT)}")
    verdict = REFUSED if reasons else DIFFERENT if found.differing else IDENTICAL
    notes = [f"{found.same_trial} pairs are one trial, trained once, and show nothing."] if found.same_trial else []
    if found.not_compared:
        notes.append(f"{found.not_compared} pairs were not compared: a trial is missing, failed or censored.")
    return {"identity": found, "verdict": verdict, "reasons": tuple(reasons), "notes": tuple(notes)}


def is_grid(declared: Mapping[str, Any]) -> bool:
    """Whether a block has levels only: no sample of a box."""
    return not declared.get("sampled") and not declared.get("sample")


def known_sampling(declared: Mapping[str, Any]) -> bool:
    """Whether it is known how a block's configurations were drawn."""
    return bool(declared) and (is_grid(declared) or bool((declared.get("sample") or {}).get("method")))


def refusals(
    table: pd.DataFrame, treatment: str, baseline: str, declared: Mapping[str, Any]
) -> tuple[list[str], Pairs | None]:
    """Reasons against a verdict that can be seen before comparing; and the pairs, where there are both arms."""
    reasons = []
    method = (declared.get("sample") or {}).get("method")
    if method is not None and method not in FAIR:
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
    if pairs.n_pairs and left_out(pairs) > LIMIT:
        reasons.append(
            f"{percent(left_out(pairs))} of its pairs lack a result, more than {percent(LIMIT)}: {excluded_text(pairs)}"
        )
    return reasons, pairs


def excluded_text(pairs: Pairs) -> str:
    """Reasons for which pairs were left out, with counts and shares."""
    planned = pairs.n_pairs + sum(pairs.excluded.values())
    parts = [
        f"{count} of {planned} pairs ({percent(count / planned)}): {REASONS[name]}"
        for name, count in pairs.excluded.items()
    ]
    return "; ".join(parts) or "no pairs were planned"


def _compare(
    table: pd.DataFrame, pairs: Pairs, claim: Mapping[str, Any], treatment: str, declared: Mapping[str, Any], draws: int
) -> dict[str, Any]:
    baseline, alpha, margin = str(claim["baseline"]), float(claim["alpha"]), float(claim["margin"])
    difference = risk_difference(pairs, alpha=alpha, draws=draws)
    width, why = widths(table, treatment, baseline, declared, alpha, min(draws, SHIFT_DRAWS))
    slower = against_slower(table, treatment, claim.get("slower") or (), margin, alpha)
    notes = [f"The width of the stable range could not be estimated: {why}."] if why else []
    if width is not None:
        notes += _edge_note(width)
    verdict = _rule(difference, width, slower, claim)
    bounds, reasons = None, []
    if pairs.excluded.get("censored"):
        bounds = censoring_bounds(table, treatment, baseline)
        at_ends = {_at_bound(table, lucky, claim, treatment, declared, slower) for lucky in (treatment, baseline)}
        ends = (
            f"{100 * bounds.low:+.1f} to {100 * bounds.high:+.1f} points, whatever the censored trials would have done"
        )
        if at_ends == {verdict}:
            notes.append(f"The difference is {ends}: the verdict is the same.")
        else:
            found = ", ".join(sorted(at_ends | {verdict}))
            reasons.append(f"censored trials could change the verdict: the difference is {ends} ({found})")
    return {
        "difference": difference, "width": width, "slower": tuple(slower), "verdict": verdict, "bounds": bounds,
        "notes": notes, "reasons": reasons,
    }  # fmt: skip


def _rule(difference: Difference, width: WidthDifference | None, slower: list[Slower], claim: Mapping[str, Any]) -> str:
    wider = width is not None and width.difference > 0 and width.low > 0
    return decide_rule(
        difference.estimate,
        difference.low,
        difference.high,
        wider=wider,
        equals_slower=any(each.equivalence is not None and each.equivalence.equivalent for each in slower),
        sesoi=float(claim["sesoi"]),
        margin=float(claim["margin"]),
    )


def _at_bound(
    table: pd.DataFrame,
    lucky: str,
    claim: Mapping[str, Any],
    treatment: str,
    declared: Mapping[str, Any],
    slower: list[Slower],
) -> str:
    """The verdict if censored trials of one arm had been stable and those of the other not."""
    baseline, alpha = str(claim["baseline"]), float(claim["alpha"])
    censored = (table["state"] == "censored") & table["stable"].isna()
    imputed = table.assign(stable=table["stable"].mask(censored, (table["arm"] == lucky).astype(float)))
    difference = risk_difference(pair(imputed, treatment, baseline), alpha=alpha)
    width, _ = widths(imputed, treatment, baseline, declared, alpha, 1000)
    return _rule(difference, width, slower, claim)


def widths(
    table: pd.DataFrame, treatment: str, baseline: str, declared: Mapping[str, Any], alpha: float, draws: int
) -> tuple[WidthDifference | None, str]:
    """(E2, "") or (None, why it cannot be estimated)."""
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


def _edge_note(width: WidthDifference) -> list[str]:
    ends = {"low": width.edge_low, "high": width.edge_high}
    cut = [f"{percent(share)} at its {end} end" for end, share in ends.items() if math.isfinite(share) and share > 0]
    if not cut:
        return []
    return [f"The box may cut the stable range of {width.baseline} off: it is stable in {' and '.join(cut)}."]


def _notes(table: pd.DataFrame, pairs: Pairs, treatment: str, baseline: str, declared: Mapping[str, Any]) -> list[str]:
    notes = [f"Left out: {excluded_text(pairs)}."] if pairs.excluded and pairs.n_pairs else []
    if pairs.n_pairs and len(pairs.seeds) == 1:
        notes.append("One seed a configuration: the noise of seeds and the effect of configurations are one.")
    if not known_sampling(declared):
        notes.append("How the configurations were drawn is not known here; the interval takes them as a sample.")
    if declared.get("pilot_trials"):
        counts = ", ".join(f"{arm} {count}" for arm, count in declared["pilot_trials"].items())
        notes.append(f"Pilot trials, which find a scale, are in no comparison ({counts}).")
    rows = table[table["arm"] == treatment]
    inert = int(rows["inert"].sum()) if "inert" in rows else 0
    if inert:
        notes.append(f"In {inert} of {len(rows)} trials of {treatment} the term provably has no effect (placebos).")
    same = rows.merge(table[table["arm"] == baseline], on=["config", "seed", "trial_id"])
    if len(same):
        notes.append(f"{len(same)} of the pairs are one trial, which both arms share: their difference is 0.")
    if pairs.n_pairs and not (pairs.t > 0).any() and not (pairs.b > 0).any():
        notes.append(
            "Not one trial of either arm was stable: this box leaves no room for an effect that could be seen."
        )
    elif pairs.n_pairs and not (pairs.t == 0).any() and not (pairs.b == 0).any():
        notes.append("Every trial of both arms was stable: this box leaves no room for an improvement.")
    return notes


def box_text(declared: Mapping[str, Any], table: pd.DataFrame) -> str:
    """The box of a block in words."""
    space = (declared.get("sample") or {}).get("space", {})
    parts = [f"{name} in {{{', '.join(map(_level, levels))}}}" for name, levels in declared.get("factors", {}).items()]
    for name, dim in space.items():
        if "choices" in dim:
            parts.append(f"{name} in {{{', '.join(map(_level, dim['choices']))}}}")
        else:
            parts.append(f"{name} {dim['low']:g} to {dim['high']:g}{' (log-uniform)' if dim.get('log') else ''}")
    if not space and "lr" in table and table["lr"].notna().any() and "lr" not in declared.get("factors", {}):
        parts.append(f"lr {table['lr'].min():g} to {table['lr'].max():g} (as trained)")
    drawn = [name for name in declared.get("sampled", ()) if name not in space and name != "lr"]
    parts += [f"{name} (sampled)" for name in drawn]
    parts += [f"{name} = {_level(level)}" for name, level in declared.get("fixed", {}).items()]
    return ", ".join(parts) or "a single configuration"


def _level(level: object) -> str:
    return str(level).lower() if isinstance(level, bool) else f"{level:g}" if isinstance(level, float) else str(level)
