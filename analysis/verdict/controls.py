"""Secondary comparisons of a block: slower generators, positive control, doses, placebos."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from vistudy.analysis.estimates.pairs import worst_cases
from vistudy.analysis.estimates.risk_difference import (
    Difference,
    Equivalence,
    Pairs,
    equivalence,
    missing_bounds,
    pair,
    risk_difference,
)
from vistudy.analysis.tables.formatting import percent, points
from vistudy.analysis.verdict.results import HARMS, NOTHING, WORKS, Control, Dose, EquivalenceToSlower, Identity

MAX_MISSING_SHARE = 0.05
"""Maximum share of planned pairs without a result; above it, no conclusion is drawn."""
IDENTITY_COLUMNS = ("outcome", "q_final", "q_best", "t_thr", "t_coll", "t_div")
"""Columns in which identical trials agree bitwise."""
NO_DOSE_RHO = 0.01
"""A term whose gradient norm is below 1 % of the loss's has no dose."""


def missing_share(pairs: Pairs) -> float:
    """Return the share of planned pairs without a result; NaN if none was planned."""
    planned = pairs.n_pairs + sum(pairs.excluded.values())
    return sum(pairs.excluded.values()) / planned if planned else float("nan")


def why_not_comparable(table: pd.DataFrame, treatment: str, baseline: str) -> str | None:
    """Explain why two arms cannot be compared; None if they can."""
    absent = [arm for arm in (treatment, baseline) if not (table["arm"] == arm).any()]
    if absent:
        return f"the block has no trial of arm {' or '.join(absent)}"
    pairs = pair(table, treatment, baseline)
    if not pairs.n_pairs:
        return "not one of the pairs has a result in both arms"
    if pairs.n_configs < 2:
        return "there is only one configuration"
    if missing_share(pairs) > MAX_MISSING_SHARE:
        return f"{percent(missing_share(pairs))} of the pairs lack a result (allowed: {percent(MAX_MISSING_SHARE)})"
    return None


# -- slower generators -------------------------------------------------------------------------------------------------


def against_slower(
    table: pd.DataFrame, treatment: str, arms: Sequence[str], margin: float, alpha: float, no_room: str = ""
) -> list[EquivalenceToSlower]:
    """Test whether the treatment is equivalent to each arm that only slows the generator down.

    `no_room`: why no effect could be detected in this block; then equivalence is not tested.
    """
    return [_slower(table, treatment, arm, margin, alpha, no_room) for arm in arms]


def _slower(
    table: pd.DataFrame, treatment: str, arm: str, margin: float, alpha: float, no_room: str
) -> EquivalenceToSlower:
    why = why_not_comparable(table, treatment, arm)
    test, equivalent = None, False
    if why is not None:
        sentence = f"{treatment} could not be compared with {arm}, a slower generator: {why}"
    elif no_room:
        sentence = f"{treatment} was not compared with {arm}, a slower generator: no room ({no_room})"
    else:
        test = equivalence(pair(table, treatment, arm), margin, alpha)
        equivalent = test.equivalent and _equivalent_at_worst(table, treatment, arm, margin, alpha)
        words = "equivalent to" if equivalent else "not shown to be equivalent to"
        sentence = (
            f"{treatment} is {words} {arm}, a slower generator: {points(test.estimate)} points, "
            f"{100 * (1 - 2 * alpha):g} % interval {points(test.low)} to {points(test.high)}, margin {100 * margin:g}"
        )
        if test.equivalent and not equivalent:
            sentence += "; trials without a result could change that"
    evaluable = table[(table["arm"] == arm) & table["stable"].notna()]
    share = float((evaluable["outcome"] == "slow").mean()) if len(evaluable) else math.nan
    updates = g_updates(table, arm), g_updates(table, treatment)
    finite_updates = None if math.nan in updates or any(map(math.isnan, updates)) else updates
    parts = [sentence, *_budget_words(arm, treatment, share, finite_updates, test, equivalent)]
    return EquivalenceToSlower(
        arm=arm, equivalence=test, equivalent=equivalent, share_slow=share, g_updates=finite_updates,
        sentence=f"{'. '.join(parts)}.",
    )  # fmt: skip


def _equivalent_at_worst(table: pd.DataFrame, treatment: str, arm: str, margin: float, alpha: float) -> bool:
    return all(equivalence(pairs, margin, alpha).equivalent for pairs in worst_cases(table, treatment, arm))


def _budget_words(
    arm: str, treatment: str, share: float, updates: tuple[float, float] | None, test: Equivalence | None, same: bool
) -> list[str]:
    if not math.isfinite(share):
        return []
    sentences = [f"{percent(share)} of the trials of {arm} are `slow`: still improving when the budget ended"]
    if updates is None:
        sentences.append("Whether it had as many generator updates is not recorded")
    elif math.isclose(*updates, rel_tol=0.01):
        sentences.append(f"It had as many generator updates ({updates[0]:,.0f} a trial)")
    else:
        sentences.append(
            f"Its budget is not equal: {updates[0]:,.0f} generator updates a trial, {updates[1]:,.0f} in {treatment}"
        )
        if test is not None and not same:
            sentences.append("So it is not known whether it would do as well with as many")
    return sentences


def g_updates(table: pd.DataFrame, arm: str) -> float:
    """Return the mean number of generator updates per trial of an arm; NaN if unknown."""
    rows = table[table["arm"] == arm]
    names = ("d_updates", "d_steps", "g_steps")
    if rows.empty or any(name not in rows or rows[name].isna().any() for name in names):
        return math.nan
    d, d_steps, g_steps = (rows[name].astype(float) for name in names)
    return float((d / d_steps * g_steps).mean())


# -- the positive control ----------------------------------------------------------------------------------------------


def check_positive_control(table: pd.DataFrame, arm: str, baseline: str, alpha: float) -> Control:
    """Test whether the positive control, an arm that is known to help, beats the baseline here."""
    why = why_not_comparable(table, arm, baseline)
    if why is not None:
        sentence = f"Positive control: {arm} could not be compared with {baseline}: {why}."
        return Control(arm=arm, difference=None, word=None, sentence=sentence)
    d = risk_difference(pair(table, arm, baseline), alpha=alpha)
    bounds = missing_bounds(table, arm, baseline, alpha=alpha)
    words = {control_word(each) for each in (d, *((bounds.low, bounds.high) if bounds else ()))}
    word = words.pop() if len(words) == 1 else None
    sentences = {
        WORKS: "it works: it beats the baseline, so an effect could have been seen",
        NOTHING: "it does nothing here: the control failed, and nothing vouches that an effect could have been seen",
        HARMS: "the control failed: it harms",
        None: "trials without a result could change what it says",
    }[word]
    sentence = (
        f"Positive control: {arm} is stable in {percent(d.share_treatment)} of runs, {baseline} in "
        f"{percent(d.share_baseline)} ({points(d.estimate)} points, {points(d.low)} to {points(d.high)}): {sentences}."
    )
    return Control(arm=arm, difference=d, word=word, sentence=sentence)


def control_word(d: Difference) -> str:
    """Return `works`, `does nothing` or `harms`, by where the interval lies."""
    return WORKS if d.low > 0 else HARMS if d.high < 0 else NOTHING


# -- doses and placebos ------------------------------------------------------------------------------------------------


def doses(table: pd.DataFrame) -> tuple[Dose, ...]:
    """Return median rho and drift of every arm of a block, if the table has them (`tables.doses`)."""
    if not {"rho", "drift"} & set(table):
        return ()
    doses_ = []
    for arm, rows in table.groupby("arm", sort=False):
        values = {name: rows[name].dropna() if name in rows else rows["q"].iloc[:0] for name in ("rho", "drift")}
        n = max(map(len, values.values()))
        if n:
            medians = {name: float(np.median(value)) if len(value) else math.nan for name, value in values.items()}
            doses_.append(Dose(arm=str(arm), n_trials=n, **medians))
    return tuple(doses_)


def no_dose(doses_: Sequence[Dose], treatment: str, same: Identity) -> str | None:
    """Explain why the treatment's dose was too small to have an effect; None if it was not, or if it is unknown."""
    if same.holds:
        return f"not one of {same.n_pairs} pairs differs in a bit"
    rho = next((dose.rho for dose in doses_ if dose.arm == treatment), math.nan)
    if rho < NO_DOSE_RHO:
        return f"the gradient of the term is {rho:.2g} of the loss's (below {NO_DOSE_RHO:g})"
    return None


def compare_bitwise(table: pd.DataFrame, treatment: str, baseline: str) -> Identity:
    """Compare two arms bitwise, pair by pair."""
    columns = [name for name in IDENTITY_COLUMNS if name in table]
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
