"""One comparison of one block, prepared so that relabelled trials need not be paired again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vistudy.analysis.estimates.lr_axis import EDGE
from vistudy.analysis.estimates.risk_difference import Pairs, equivalence, mean_interval, sign_flip
from vistudy.analysis.outcomes.time_series import Bools, Floats
from vistudy.analysis.verdict.controls import MAX_MISSING_SHARE, why_not_comparable
from vistudy.analysis.verdict.decide_block import validity_problems, widths
from vistudy.analysis.verdict.results import REFUSED, UNINFORMATIVE
from vistudy.analysis.verdict.rule import decide_rule, no_room
from vistudy.analysis.verdict.wording import is_grid

WHOLE, TRIMMED = "whole", "trimmed"
"""Search spaces: `trimmed` leaves out half a decade of the learning rate at each end."""
TRIM = 0.5


def same_but_weight(arms: Mapping[str, Mapping[str, Any]], treatment: str) -> list[str]:
    """Return arms that differ from the treatment only in `reg_weight`, which is above 0."""

    def rest(arm: str) -> dict[str, Any]:
        return {name: value for name, value in arms[arm].items() if name != "reg_weight"}

    def weight(arm: str) -> float:
        value = arms[arm].get("reg_weight")
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0

    others = [arm for arm in arms if arm != treatment and weight(arm) > 0 and rest(arm) == rest(treatment)]
    return others if treatment in arms and weight(treatment) > 0 else []


def comparisons(rows: pd.DataFrame, claim: Mapping[str, Any], declared: Mapping[str, Any]) -> Iterator[RelabelledPairs]:
    """Return the comparisons of one block: the treatment's, then other weights'; none if it cannot be decided."""
    if is_grid(declared):
        return
    arms = declared["arms"]
    for treatment in (str(claim["treatment"]), *same_but_weight(arms, str(claim["treatment"]))):
        if (
            treatment in arms
            and claim["baseline"] in arms
            and not validity_problems(rows, treatment, claim["baseline"], declared)[0]
        ):
            yield RelabelledPairs(rows, treatment, claim, declared)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One comparison under given labels, before correction for multiplicity."""

    estimate: float
    low: float
    high: float
    p: float
    """1 if it is refused."""
    refused: bool
    room: bool
    wider: bool
    equals_slower: bool


class RelabelledPairs:
    """One comparison of one block, as row indices of its table, so that other labels need no new pairing."""

    def __init__(
        self, rows: pd.DataFrame, treatment: str, claim: Mapping[str, Any], declared: Mapping[str, Any]
    ) -> None:
        self.rows, self.treatment, self.claim, self.declared = rows, treatment, claim, declared
        self.block = str(rows["block"].iloc[0])
        self.baseline = str(claim["baseline"])
        self.stable = rows["stable"].to_numpy(dtype=float)
        self._ids = rows["trial_id"].tolist()
        wide = rows.assign(at=np.arange(len(rows))).pivot(index="config", columns=["arm", "seed"], values="at")
        self._places = {arm: wide[arm].sort_index(axis=1) for arm in rows["arm"].unique()}
        self._configs = [str(config) for config in wide.index]
        self.slower = [arm for arm in claim.get("slower") or () if why_not_comparable(rows, treatment, arm) is None]
        control = claim.get("positive_control")
        usable = control and control != treatment and why_not_comparable(rows, control, self.baseline) is None
        self.control = str(control) if usable else None
        self._kept = {WHOLE: np.ones(len(wide), dtype=bool)}
        rate = rows.groupby("config")["lr"].first().reindex(wide.index).to_numpy(dtype=float)
        self._rate = dict(zip(self._configs, rate.tolist(), strict=True))
        ends = self._ends(rate)
        if ends is not None:
            inside = (rate >= ends[0] * 10**TRIM) & (rate <= ends[1] / 10**TRIM)
            if inside.any():
                self._kept[TRIMMED] = inside

    def _ends(self, rate: Floats) -> tuple[float, float] | None:
        space = (self.declared.get("sample") or {}).get("space", {}).get("lr", {})
        if {"low", "high"} <= space.keys():
            return float(space["low"]), float(space["high"])
        return (float(rate.min()), float(rate.max())) if rate.size and np.isfinite(rate).all() else None

    @property
    def boxes(self) -> list[str]:
        """Search spaces in which the block can be decided."""
        return list(self._kept)

    def relabel(self, labels: Mapping[str, float]) -> Floats:
        """Set the stability of every row of the table."""
        nan = float("nan")
        return np.array([labels.get(trial_id, nan) for trial_id in self._ids])

    def _pairs(
        self, stable: Floats, usable: np.ndarray, baseline: str, treatment: str | None = None
    ) -> tuple[Pairs, float]:
        """Return pairs, and the share of planned ones without a result. `treatment`: None is the comparison's own."""
        treatment = treatment or self.treatment
        seeds = sorted({*self._places[treatment].columns} | {*self._places[baseline].columns})
        sides = []
        planned = np.zeros((int(usable.sum()), len(seeds)), dtype=bool)
        for arm in (treatment, baseline):
            at = self._places[arm].reindex(columns=seeds).to_numpy(dtype=float)[usable]
            finite = np.isfinite(at)
            planned |= finite
            sides.append(np.where(finite, stable[np.where(finite, at, 0).astype(int)], np.nan))
        both: Bools = np.asarray(np.isfinite(sides[0]) & np.isfinite(sides[1]))
        rows: Bools = np.asarray(both.any(axis=1))
        pairs = Pairs(
            treatment=treatment, baseline=baseline, value="stable",
            configs=tuple(config for config, keep in zip(np.array(self._configs)[usable], rows, strict=True) if keep),
            seeds=tuple(map(str, seeds)), t=np.where(both, sides[0], np.nan)[rows],
            b=np.where(both, sides[1], np.nan)[rows], excluded={},
        )  # fmt: skip
        return pairs, 1 - both.sum() / planned.sum() if planned.any() else 1.0

    def find(self, stable: Floats, box: str) -> Found:
        """Compare under these labels."""
        claim, usable, nan = self.claim, self._kept[box], float("nan")
        alpha, margin = float(claim["alpha"]), float(claim["margin"])
        pairs, without = self._pairs(stable, usable, self.baseline)
        if pairs.n_configs < 2 or without > MAX_MISSING_SHARE:
            return Found(
                estimate=nan, low=nan, high=nan, p=1.0, refused=True, room=False, wider=False, equals_slower=False
            )
        d = pairs.differences
        low, high, _ = mean_interval(d, alpha=alpha, share=True)
        shares = [float(np.nanmean(side, axis=1).mean()) for side in (pairs.b, pairs.t)]
        room = no_room(shares[0], shares[1], float(claim["room_low"]), float(claim["room_high"])) is None
        if room and not (low > 0 or high < 0) and self.control is not None:
            of_control = self._pairs(stable, usable, self.baseline, self.control)[0].differences
            room = len(of_control) > 0 and mean_interval(of_control, alpha=alpha, share=True)[0] > 0
        tests = [equivalence(self._pairs(stable, usable, arm)[0], margin, alpha).equivalent for arm in self.slower]
        return Found(
            estimate=float(d.mean()), low=low, high=high, p=sign_flip(d, draws=10_000)[0], refused=False, room=room,
            wider=low > 0 and self._wider(stable, box, pairs), equals_slower=any(tests),
        )  # fmt: skip

    def verdict(self, result: Found, p: float) -> str:
        """Return the verdict of a comparison with corrected `p`; strata are ignored."""
        if result.refused:
            return REFUSED
        if not result.room:
            return UNINFORMATIVE
        return decide_rule(
            result.estimate, result.low, result.high, significant=p <= float(self.claim["alpha"]), wider=result.wider,
            equals_slower=result.equals_slower, sesoi=float(self.claim["sesoi"]), margin=float(self.claim["margin"]),
        )  # fmt: skip

    def _wider(self, stable: Floats, box: str, pairs: Pairs) -> bool:
        """Return whether the stable range is wider: known only if no run is stable at the edges of the search space.

        For a log-uniform sample its interval is that of the risk difference times a constant.
        """
        space = (self.declared.get("sample") or {}).get("space", {}).get("lr", {})
        if space.get("log") and "low" in space and self.rows["lr"].notna().all():
            trim = TRIM if box == TRIMMED else 0.0
            low, high = math.log10(space["low"]) + trim, math.log10(space["high"]) - trim
            x, reach = np.log10([self._rate[config] for config in pairs.configs]), EDGE * (high - low)
            ends = (x <= low + reach, x >= high - reach)
            return all(end.any() and not (pairs.t[end] > 0).any() and not (pairs.b[end] > 0).any() for end in ends)
        inside = self.rows["config"].isin(np.array(self._configs)[self._kept[box]])
        rows = self.rows.assign(stable=stable)[inside]
        width, _ = widths(rows, self.treatment, self.baseline, self.declared, float(self.claim["alpha"]), 2)
        return width is not None and not width.cut and width.difference > 0 and width.low > 0
