"""What is said of a block beside its verdict: its box, what was left out, and what weakens it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from vistudy.analysis.estimates.pairs import REASONS
from vistudy.analysis.estimates.risk_difference import MissingBounds, Pairs
from vistudy.analysis.estimates.stable_width import WidthDifference
from vistudy.analysis.tables.formatting import percent, points

FEW_CONFIGS = 20
"""Fewer configurations are called few."""
NON_ADAPTIVE = ("sobol", "random")
"""Ways of drawing configurations that make them a sample of the box."""


def is_grid(declared: Mapping[str, Any]) -> bool:
    """Whether a block has levels only: no sample of a box."""
    return not declared.get("sampled") and not declared.get("sample")


def known_sampling(declared: Mapping[str, Any]) -> bool:
    """Whether it is known how a block's configurations were drawn."""
    return bool(declared) and (is_grid(declared) or bool((declared.get("sample") or {}).get("method")))


def excluded_text(pairs: Pairs) -> str:
    """Reasons for which pairs were left out, with counts and shares."""
    planned = pairs.n_pairs + sum(pairs.excluded.values())
    parts = [
        f"{count} of {planned} pairs ({percent(count / planned)}): {REASONS[name]}"
        for name, count in pairs.excluded.items()
    ]
    return "; ".join(parts) or "no pairs were planned"


def cut_text(width: WidthDifference) -> str:
    """Why the box cuts the stable range off."""
    ends = [
        f"{percent(share)} of runs are stable at its {name} end"
        if math.isfinite(share)
        else f"no run is at its {name} end"
        for name, share in width.cut.items()
    ]
    return f"the box cuts it ({' and '.join(ends)}), so wider or moved cannot be told"


def missing_text(table: pd.DataFrame, treatment: str, baseline: str, bounds: MissingBounds) -> str:
    """Trials without a result by arm, and what they could have changed."""
    counts = []
    for arm in (treatment, baseline):
        lost = table[(table["arm"] == arm) & table["stable"].isna()]
        states = lost["state"].where(lost["state"] != "complete", "undetermined").value_counts()
        each = ", ".join(f"{count} {state}" for state, count in states.items()) or "none"
        counts.append(f"{arm} {each} of {(table['arm'] == arm).sum()}")
    said = f"Trials without a result: {'; '.join(counts)} (equal in both arms: sign-flip p = {bounds.p:.2g})"
    ends = f"{points(bounds.low.estimate)} to {points(bounds.high.estimate)} points"
    return f"{said}. Whatever they would have done, the difference is {ends}."


def block_notes(
    table: pd.DataFrame, pairs: Pairs, treatment: str, baseline: str, declared: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """(notes, caveats: what of them travels upwards, in short)."""
    notes = [f"Left out: {excluded_text(pairs)}."] if pairs.excluded and pairs.n_pairs else []
    caveats = []
    if pairs.n_pairs and len(pairs.seeds) == 1:
        notes.append("One seed a configuration: the noise of seeds and the effect of configurations are one.")
        caveats.append("one seed a configuration")
    if 0 < pairs.n_configs < FEW_CONFIGS:
        notes.append(f"Few configurations: {pairs.n_configs}.")
        caveats.append(f"only {pairs.n_configs} configurations")
    if not known_sampling(declared):
        notes.append("How the configurations were drawn is not known here; the interval takes them as a sample.")
        caveats.append("how the configurations were drawn is not known")
    if declared.get("pilot_trials"):
        counts = ", ".join(f"{arm} {count}" for arm, count in declared["pilot_trials"].items())
        notes.append(f"Pilot trials, which find a scale, are in no comparison ({counts}).")
    rows = table[table["arm"] == treatment]
    inert = int(rows["inert"].sum()) if "inert" in rows else 0
    if inert:
        notes.append(f"In {inert} of {len(rows)} trials of {treatment} the term provably has no effect (placebos).")
        caveats.append("part of the trials are placebos")
    same = rows.merge(table[table["arm"] == baseline], on=["config", "seed", "trial_id"])
    if len(same):
        notes.append(f"{len(same)} of the pairs are one trial, which both arms share: their difference is 0.")
        caveats.append("pairs that are one trial")
    return notes, caveats


def search_space_text(declared: Mapping[str, Any], table: pd.DataFrame) -> str:
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
