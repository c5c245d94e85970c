"""What stands beside the primary comparison of a block: slower generators, controls, the strong claim, placebos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.budget import non_inferior
from analysis.decision import Control, Identity, Slower, Strong, percent, points
from analysis.paired import Pairs, equivalence, pair, risk_difference

LIMIT = 0.05
"""Largest share of the planned pairs that may lack a result; beyond it nothing is concluded."""
STABLE_SHARE = 0.9
"""Stable share of the treatment from which tuning is not needed at all."""
EVIDENCE = ("outcome", "q_final", "q_best", "t_thr", "t_coll", "t_div")
"""Columns in which identical trials agree to the last bit."""


def left_out(pairs: Pairs) -> float:
    """Share of the planned pairs without a result; NaN if none was planned."""
    planned = pairs.n_pairs + sum(pairs.excluded.values())
    return sum(pairs.excluded.values()) / planned if planned else float("nan")


def unusable(table: pd.DataFrame, treatment: str, baseline: str) -> str | None:
    """Why two arms cannot be compared, in words; None if they can."""
    absent = [arm for arm in (treatment, baseline) if not (table["arm"] == arm).any()]
    if absent:
        return f"the block has no trial of arm {' or '.join(absent)}"
    pairs = pair(table, treatment, baseline)
    if not pairs.n_pairs:
        return "not one of the pairs has a result in both arms"
    if pairs.n_configs < 2:
        return "there is only one configuration"
    if left_out(pairs) > LIMIT:
        return f"{percent(left_out(pairs))} of the pairs lack a result (allowed: {percent(LIMIT)})"
    return None


def against_slower(
    table: pd.DataFrame, treatment: str, arms: Sequence[str], margin: float, alpha: float
) -> list[Slower]:
    """Test whether the treatment is equivalent to each arm that only slows the generator down."""
    found = []
    for arm in arms:
        why = unusable(table, treatment, arm)
        if why is not None:
            sentence = f"{treatment} could not be compared with {arm}, a slower generator: {why}."
            found.append(Slower(arm=arm, equivalence=None, sentence=sentence))
            continue
        test = equivalence(pair(table, treatment, arm), margin, alpha)
        said = "equivalent to" if test.equivalent else "not shown to be equivalent to"
        sentence = (
            f"{treatment} is {said} {arm}, a slower generator: {points(test.estimate)} points, "
            f"{100 * (1 - 2 * alpha):g} % interval {points(test.low)} to {points(test.high)}, margin {100 * margin:g}."
        )
        found.append(Slower(arm=arm, equivalence=test, sentence=sentence))
    return found


def positive(table: pd.DataFrame, arm: str, baseline: str, alpha: float) -> Control:
    """Compare an arm that is known to help with the baseline: is there room to show an effect?"""
    why = unusable(table, arm, baseline)
    if why is not None:
        sentence = f"Positive control: {arm} could not be compared with {baseline}: {why}."
        return Control(arm=arm, difference=None, beats=None, sentence=sentence)
    d = risk_difference(pair(table, arm, baseline), alpha=alpha)
    beats = bool(d.low > 0)
    room = (
        "it beats the baseline, so an effect could have been seen"
        if beats
        else "it does not beat the baseline: the benchmark had no room to show an effect"
    )
    sentence = (
        f"Positive control: {arm} is stable in {percent(d.share_treatment)} of runs, {baseline} in "
        f"{percent(d.share_baseline)} ({points(d.estimate)} points, {points(d.low)} to {points(d.high)}): {room}."
    )
    return Control(arm=arm, difference=d, beats=beats, sentence=sentence)


def strong_claim(table: pd.DataFrame, treatment: str, baseline: str, claim: Mapping[str, Any]) -> Strong:
    """Test E8 in every stratum: one untuned trial of the treatment against the best of k of the baseline."""
    k, margin, alpha = int(claim["best_of"]), float(claim["strong_margin"]), float(claim["alpha"])
    judged: list[bool | None] = []
    strata: dict[str, str] = {}
    for name, rows in table.groupby(table["stratum"] if "stratum" in table else np.zeros(len(table)), sort=True):
        stratum = str(name) if isinstance(name, str) and name else "the whole box"
        try:
            test = non_inferior(rows, treatment, baseline, k, margin, alpha=alpha)
        except ValueError as error:
            judged.append(None)
            strata[stratum] = f"not tested: {error}"
            continue
        judged.append(test.holds)
        strata[stratum] = (
            f"{'holds' if test.holds else 'does not hold'}: Q {test.q_treatment:.3f} against {test.q_baseline:.3f}, "
            f"difference {test.difference:+.3f}, up to {test.high:+.3f}"
        )
    holds = False if False in judged else None if None in judged or not judged else True
    share = float(table.loc[table["arm"] == treatment, "stable"].mean())
    removes = bool(holds and share >= STABLE_SHARE)
    one = f"one untuned trial of {treatment}"
    said = {
        True: f"Strong claim supported: {one} is as good as the best of {k} of {baseline} in every stratum of the box "
        f"(margin {margin:g} in Q)",
        False: f"Strong claim not supported: {one} is not shown to be as good as the best of {k} of {baseline} in "
        f"{judged.count(False)} of {len(judged)} strata",
        None: f"Strong claim not tested: {judged.count(None)} of {len(judged)} strata allow no test of the best of {k}",
    }[holds]
    if holds:
        said += "; tuning is not needed" if removes else "; tuning is still needed"
        said += f": {percent(share)} of its trials are stable ({percent(STABLE_SHARE)} asked)"
    return Strong(holds=holds, removes_need=removes, strata=strata, sentence=f"{said}.")


def identity(table: pd.DataFrame, treatment: str, baseline: str) -> Identity:
    """Compare two arms bit by bit, pair by pair."""
    columns = [name for name in EVIDENCE if name in table]
    sides = [
        table.loc[table["arm"] == arm, ["config", "seed", "trial_id", "state", *columns]]
        for arm in (treatment, baseline)
    ]
    both = sides[0].merge(sides[1], on=["config", "seed"], how="outer", suffixes=("_t", "_b"), indicator=True)
    ready = (both["_merge"] == "both") & (both["state_t"] == "complete") & (both["state_b"] == "complete")
    same_trial = ready & (both["trial_id_t"] == both["trial_id_b"])
    compared = both[ready & ~same_trial]
    differs = pd.Series(False, index=compared.index)
    for name in columns:
        t, b = compared[f"{name}_t"], compared[f"{name}_b"]
        differs |= ~((t == b).fillna(False).astype(bool) | (t.isna() & b.isna()))
    return Identity(
        n_pairs=len(compared),
        differing=int(differs.sum()),
        same_trial=int(same_trial.sum()),
        not_compared=int((~ready).sum()),
    )
