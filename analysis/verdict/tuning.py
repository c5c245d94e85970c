"""Is tuning still needed? An untuned trial against the tuned baseline, trials to success, regret of few trials."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from vistudy.analysis.estimates.best_of_k import best_left_out, jackknife_error, non_inferior
from vistudy.analysis.estimates.risk_difference import Pairs, mean_interval, pair
from vistudy.analysis.tables.formatting import percent
from vistudy.analysis.verdict.results import BestAtK, StrongClaimTest, Tuning
from vistudy.analysis.verdict.rule import no_room

STABLE_SHARE = 0.9
"""Stable share above which one random trial suffices."""
FEW_TRIALS = (1, 2, 5, 10)
"""Numbers of trials at which arms are compared at equal compute."""


def strong_claim(
    table: pd.DataFrame,
    treatment: str,
    baseline: str,
    claim: Mapping[str, Any],
    tuning: Tuning | None,
    without: str = "",
) -> StrongClaimTest:
    """Test the strong claim in every stratum: one untuned trial of the treatment against the baseline's best of k.

    It does not decide alone whether tuning is needed: `tuning` must agree. `without`: why the block has no room; then
    nothing is tested.
    """
    if without:
        sentence = f"Strong claim not tested: no room ({without})."
        return StrongClaimTest(holds=None, removes_need=False, strata={}, sentence=sentence)
    k = int(claim["best_of"])
    strata, tests = _strata(table, treatment, baseline, claim)
    tested = [holds for holds in tests if holds is not None]
    holds = False if False in tests else None if len(tested) < len(tests) or not tested else True
    removes = bool(holds and tuning is not None and tuning.removes_need)
    one = f"one untuned trial of {treatment}"
    sentences = {
        True: f"Strong claim supported: {one} is as good as the best of {k} of {baseline} in every stratum of the box "
        f"(margin {float(claim['strong_margin']):g} in Q)",
        False: f"Strong claim not supported: {one} is not shown to be as good as the best of {k} of {baseline} in "
        f"{tests.count(False)} of {len(tests)} strata",
        None: f"Strong claim not tested: {tests.count(None)} of {len(tests)} strata allow no test of the best of {k} "
        f"({'; '.join(dict.fromkeys(text for text in strata.values() if text.startswith('not tested')))})",
    }[holds]
    return StrongClaimTest(holds=holds, removes_need=removes, strata=strata, sentence=f"{sentences}.")


def _strata(
    table: pd.DataFrame, treatment: str, baseline: str, claim: Mapping[str, Any]
) -> tuple[dict[str, str], list[bool | None]]:
    """Return (stratum -> result, whether the strong claim holds in each)."""
    k, margin, alpha = int(claim["best_of"]), float(claim["strong_margin"]), float(claim["alpha"])
    strata: dict[str, str] = {}
    tests: list[bool | None] = []
    for name, rows in table.groupby(table["stratum"] if "stratum" in table else np.zeros(len(table)), sort=True):
        stratum = str(name) if isinstance(name, str) and name else "the whole box"
        shares = [float(rows.loc[rows["arm"] == arm, "stable"].mean()) for arm in (baseline, treatment)]
        without = no_room(shares[0], shares[1], float(claim["room_low"]), float(claim["room_high"]))
        try:
            if without:
                raise ValueError(f"no room: {without}")
            test = non_inferior(rows, treatment, baseline, k, margin, alpha=alpha)
        except ValueError as error:
            tests.append(None)
            strata[stratum] = f"not tested: {error}"
            continue
        tests.append(test.holds)
        strata[stratum] = (
            f"{'holds' if test.holds else 'does not hold'}: Q {test.q_treatment:.3f} against {test.q_baseline:.3f}, "
            f"difference {test.difference:+.3f}, up to {test.high:+.3f}"
        )
    return strata, tests


def trials_needed(table: pd.DataFrame, pairs: Pairs, claim: Mapping[str, Any]) -> Tuning:
    """Estimate trials to success of both arms, and the expected best of few trials at equal compute.

    Tuning is not needed if a random trial of the treatment is stable in at least STABLE_SHARE of cases (its whole
    interval), if the baseline's is not, and if no budget of FEW_TRIALS shows the treatment to be possibly worse by
    `strong_margin` in Q than the baseline with as many trials.
    """
    alpha, margin = float(claim["alpha"]), float(claim["strong_margin"])
    of_t, of_b = (_to_success(side, alpha) for side in (pairs.t, pairs.b))
    best = tuple(_best(table, pairs.treatment, pairs.baseline, claim))
    enough = 1 / STABLE_SHARE
    removes = of_t[2] <= enough and not of_b[2] <= enough and bool(best) and all(each.high < margin for each in best)
    sentence = (
        f"Random trials until one is stable: {_trials(of_t)} with {pairs.treatment}, {_trials(of_b)} with "
        f"{pairs.baseline}; "
        + (
            f"tuning is not needed: one is enough in at least {percent(STABLE_SHARE)} of cases"
            if removes
            else f"{pairs.baseline} needs no tuning either"
            if of_b[2] <= enough
            else "tuning is still needed"
        )
    )
    if best:
        each = ", ".join(f"{row.regret:+.3f} with {row.k}" for row in best)
        equal = ", ".join(f"{row.difference:+.3f} with {row.k}" for row in best)
        sentence += (
            f". Expected best Q of {pairs.treatment} minus that of as many trials of {pairs.baseline}: {equal}; minus "
            f"that of {min(int(claim['best_of']), pairs.n_configs - 1)} trials of {pairs.baseline}: {each}"
        )
    return Tuning(treatment=of_t, baseline=of_b, best=best, removes_need=removes, sentence=f"{sentence}.")


def _to_success(side: np.ndarray, alpha: float) -> tuple[float, float, float]:
    """Return 1/p with its interval."""
    shares = np.nanmean(side, axis=1)
    (low, high, _), (down, up, _) = (mean_interval(each, alpha=alpha, share=True) for each in (shares, 1 - shares))
    ends = (float(shares.mean()), 1.0, 0.0)
    if math.isfinite(low):  # the wider of both: few stable trials, or few unstable ones
        ends = (ends[0], min(max(high, 1 - down), 1.0), max(min(low, 1 - up), 0.0))
    estimate, most, least = (1 / p if p > 0 else math.inf for p in ends)
    return estimate, most, least


def _trials(interval: tuple[float, float, float]) -> str:
    if math.isinf(interval[0]):
        return f"none was stable (at least {interval[1]:.1f})"
    upper = f"{interval[2]:.1f}" if math.isfinite(interval[2]) else "unknown"
    return f"{interval[0]:.1f} ({interval[1]:.1f} to {upper})"


def _best(table: pd.DataFrame, treatment: str, baseline: str, claim: Mapping[str, Any]) -> Iterator[BestAtK]:
    try:
        pairs = pair(table, treatment, baseline, "q")
    except ValueError:
        return
    fewest = int(np.isfinite(pairs.t).sum(0).min()) if pairs.n_pairs else 0
    tuned, budgets = min(int(claim["best_of"]), fewest - 1), [k for k in FEW_TRIALS if k < fewest]
    if not budgets:
        return
    most = max(*budgets, tuned)
    (q_t, left_t), (q_b, left_b) = (best_left_out(side, most) for side in (pairs.t, pairs.b))
    quantile = float(t.ppf(1 - float(claim["alpha"]), len(left_t) - 1))
    for k in budgets:
        error = float(jackknife_error(left_t[:, [k - 1]] - left_b[:, [k - 1]])[0])
        difference = float(q_t[k - 1] - q_b[k - 1])
        yield BestAtK(
            k=k, q_treatment=float(q_t[k - 1]), q_baseline=float(q_b[k - 1]), difference=difference,
            high=difference + (quantile * error if math.isfinite(error) else 0.0),
            regret=float(q_t[k - 1] - q_b[tuned - 1]),
        )  # fmt: skip
