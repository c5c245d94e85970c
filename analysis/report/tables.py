"""The tables of a report: what became of trials, estimates by block and arm, every trial. Frames first, then text."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from vistudy.analysis.estimates.best_of_k import best_of_k, default_regret, non_inferior
from vistudy.analysis.estimates.risk_difference import pair, risk_difference
from vistudy.analysis.estimates.stable_width import width_difference
from vistudy.analysis.estimates.survival import CLOCKS, cumulative_incidence, restricted_mean_time
from vistudy.analysis.figures.curves import or_note
from vistudy.analysis.figures.grid_layout import numeric_columns
from vistudy.analysis.outcomes.labels import LABEL_TEXT, LABELS, STABLE, UNDETERMINED
from vistudy.analysis.tables.rates import wilson

DRAWS = 2000
"""Resamples of an interval: the Monte Carlo error of its ends is small beside its width."""
TRIAL_COLUMNS = (
    "block", "arm", "config", "seed", "trial_id", "state", "outcome", "flags", "q_final", "q_best", "t_thr", "t_coll",
    "t_div", "wall_s", "device",
)  # fmt: skip
"""What the report lists of every trial; the files have all columns."""
ESTIMATE_COLUMNS = (
    "block", "class", "estimate", "treatment", "baseline", "quantity", "value", "low", "high", "unit", "p", "n_configs",
    "n_pairs", "note",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table as it is read: text in cells. `frame` has the numbers."""

    name: str
    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    frame: pd.DataFrame
    numeric: tuple[bool, ...]
    """Columns that are set flush right."""
    folded: bool = False
    """Shown when it is asked for; on paper always."""


_LOST = ("failed", "planned", "running", "interrupted", "undetermined")


def arm_tally(table: pd.DataFrame) -> Table:
    """What became of the trials of each block and arm: shares of stable ones, every outcome, and trials without one."""
    rows = []
    for (block, arm), part in table.groupby(["block", "arm"], sort=False):
        evaluable = part["stable"].notna()
        n, k = int(evaluable.sum()), int(part["stable"].sum())
        low, high = wilson(k, n)
        lost = part.loc[~evaluable, "state"].where(part.loc[~evaluable, "state"] != "complete", "undetermined")
        rows.append({
            "block": block, "class": part["class"].iloc[0], "arm": arm, "configurations": part["config"].nunique(),
            "trials": len(part), "evaluable": n, "stable": k, "share": k / n if n else math.nan,
            "low": low, "high": high,
            **{name: int((part.loc[evaluable, "outcome"] == name).sum()) for name in LABELS if name != UNDETERMINED},
            **{name: int((lost == name).sum()) for name in _LOST},
        })  # fmt: skip
    frame = pd.DataFrame(rows)
    outcomes = [n for n in LABEL_TEXT if n not in (STABLE, "undetermined") and n in frame and frame[n].any()]
    lost_seen = [n for n in _LOST if n in frame and frame[n].any()]
    head = (
        "block",
        "arm",
        "configurations",
        "trials",
        "stable",
        "share",
        *(LABEL_TEXT[n][0] for n in outcomes),
        *lost_seen,
    )
    text = tuple(
        (
            str(r["block"]), str(r["arm"]), f"{r['configurations']:,}", f"{r['trials']:,}",
            f"{r['stable']}/{r['evaluable']}",
            f"{r['share']:.0%} ({r['low']:.0%}–{r['high']:.0%})" if r["evaluable"] else "–",
            *(str(r[n] or "·") for n in (*outcomes, *lost_seen)),
        )
        for r in rows
    )  # fmt: skip
    return Table(
        name="outcomes", title="What became of the trials", head=head, rows=text, frame=frame,
        numeric=(False, False, *[True] * (len(head) - 2)),
        note="Stable: k of the n evaluable trials, with the 95 % Wilson interval of the share over all trials.",
    )  # fmt: skip


def estimates(table: pd.DataFrame, claim: Mapping[str, Any], notes: list[str], *, draws: int = DRAWS) -> pd.DataFrame:
    """Estimates of every block that has both arms, one row per quantity. Columns: ESTIMATE_COLUMNS.

    What cannot be estimated is said in `notes`.
    """
    baseline, treatment = claim["baseline"], claim["treatment"]
    rows: list[dict[str, Any]] = []
    for block, part in numeric_columns(table).groupby("block", sort=False):
        arms = list(dict.fromkeys(part["arm"]))
        if not {baseline, treatment} <= set(arms):
            continue
        head = {"block": block, "class": part["class"].iloc[0]}
        compared = part[part["arm"].isin([baseline, treatment, claim.get("tuned")])]
        for other in (treatment, *(arm for arm in arms if arm not in (baseline, treatment))):
            rows += [head | row for row in _differences(part, str(other), baseline, str(block), notes, draws)]
        for maker in (_widths, _best, _times, _collapses):
            rows += [head | row for row in maker(compared, claim, str(block), notes, draws)]
    return pd.DataFrame(rows, columns=list(ESTIMATE_COLUMNS))


Rows = Iterator[dict[str, Any]]


def _row(estimate: str, quantity: str, unit: str, claim: Mapping[str, Any], **values: Any) -> dict[str, Any]:
    return {
        "estimate": estimate, "quantity": quantity, "unit": unit, "treatment": claim["treatment"],
        "baseline": claim["baseline"], **values,
    }  # fmt: skip


def _differences(part: pd.DataFrame, treatment: str, baseline: str, block: str, notes: list[str], draws: int) -> Rows:
    arms = {"treatment": treatment, "baseline": baseline}
    pairs = or_note(notes, f"{block}: {treatment} against {baseline}", pair, part, treatment, baseline)
    if pairs is None:
        return
    difference = or_note(notes, f"{block}: {treatment} against {baseline}", risk_difference, pairs, draws=draws)
    if difference is None:
        return
    excluded = ", ".join(f"{count} pairs left out ({reason})" for reason, count in difference.excluded.items() if count)
    yield _row(
        "risk difference",
        "difference of stable shares",
        "points",
        arms,
        value=100 * difference.estimate,
        low=100 * difference.low,
        high=100 * difference.high,
        p=difference.p,
        n_configs=difference.n_configs,
        n_pairs=difference.n_pairs,
        note=f"{difference.share_treatment:.0%} against {difference.share_baseline:.0%}; {difference.rescued} rescued, "
        f"{difference.broken} broken" + (f"; {excluded}" if excluded else ""),
    )


def _widths(part: pd.DataFrame, claim: Mapping[str, Any], block: str, notes: list[str], draws: int) -> Rows:
    box = claim.get("boxes", {}).get(block)
    arms = claim["treatment"], claim["baseline"]
    width = or_note(notes, f"{block}, stable width", width_difference, part, *arms, box=box, draws=draws)
    if width is None:
        return
    counts = {"n_configs": width.n_configs, "n_pairs": width.n_pairs}
    yield _row(
        "stable width",
        "difference of widths of the stable range",
        "decades of learning rate",
        claim,
        value=width.difference,
        low=width.low,
        high=width.high,
        note=f"{width.width_t:.2f} against {width.width_b:.2f}",
        **counts,
    )
    yield _row(
        "stable width",
        "shift of its centre",
        "decades of learning rate",
        claim,
        value=width.shift,
        low=width.shift_low,
        high=width.shift_high,
        note="a shift alone is a changed effective learning rate",
        **counts,
    )


def _best(part: pd.DataFrame, claim: Mapping[str, Any], block: str, notes: list[str], draws: int) -> Rows:
    for arm in dict.fromkeys(a for a in (claim["baseline"], claim["treatment"], claim.get("tuned")) if a):
        if not (part["arm"] == arm).any():
            continue
        best = or_note(notes, f"{block}, best of k, {arm}", best_of_k, part, arm, claim["best_of"])
        if best is None:
            continue
        for i in sorted({0, min(4, len(best.k) - 1), len(best.k) - 1}):
            yield _row(
                "best of k", f"{arm}: expected best Q of {best.k[i]}", "Q", claim, value=best.q[i], low=best.low[i],
                high=best.high[i], n_configs=best.n_configs,
                note=f"at least one stable: {best.share_stable[i]:.0%}",
            )  # fmt: skip
        regret = (
            or_note(notes, f"{block}, default regret, {arm}", default_regret, part, arm, claim["default"])
            if claim.get("default")
            else None
        )
        if regret is not None:
            yield _row(
                "default regret",
                f"{arm}: regret of the default",
                "Q",
                claim,
                value=regret.regret,
                n_configs=regret.n_configs,
                note=f"Q {regret.q_default:.2f} at the default, {regret.q_best:.2f} at the best; {regret.selection}",
            )
    arms = claim["treatment"], claim["baseline"]
    options = claim["best_of"], claim["strong_margin"]
    strong = or_note(notes, f"{block}, untuned vs tuned", non_inferior, part, *arms, *options)
    if strong is not None:
        yield _row(
            "untuned vs tuned",
            f"Q of one draw of {claim['treatment']} minus best of {strong.k} of {claim['baseline']}",
            "Q",
            claim,
            value=strong.difference,
            low=strong.low,
            high=strong.high,
            p=strong.p,
            n_configs=strong.n_configs,
            note=f"{'not inferior' if strong.holds else 'not shown to be non-inferior'} at margin {strong.margin:g}",
        )


def _times(part: pd.DataFrame, claim: Mapping[str, Any], block: str, notes: list[str], draws: int) -> Rows:
    for clock in ("images", "g_updates", "seconds"):
        assert clock in CLOCKS
        effect = or_note(
            notes,
            f"{block}, time to threshold",
            restricted_mean_time,
            part,
            claim["treatment"],
            claim["baseline"],
            clock,
        )
        if effect is not None:
            yield _row(
                "time to threshold",
                "difference of mean times to convergence",
                effect.unit,
                claim,
                value=effect.difference,
                low=effect.low,
                high=effect.high,
                n_configs=effect.n_configs,
                n_pairs=effect.n_pairs,
                note=f"up to the budget; {effect.reached_t:.0%} against {effect.reached_b:.0%} got there",
            )


def _collapses(part: pd.DataFrame, claim: Mapping[str, Any], block: str, notes: list[str], draws: int) -> Rows:
    for event in ("collapse", "divergence"):
        effect = or_note(
            notes,
            f"{block}, incidence",
            cumulative_incidence,
            part,
            claim["treatment"],
            claim["baseline"],
            event,
        )
        if effect is not None:
            yield _row(
                "incidence", f"difference of shares with a {event}", "points", claim, value=100 * effect.difference,
                low=100 * effect.low, high=100 * effect.high, n_configs=effect.n_configs, n_pairs=effect.n_pairs,
                note=f"{effect.share_t:.0%} against {effect.share_b:.0%} by the budget",
            )  # fmt: skip


def estimate_tables(frame: pd.DataFrame) -> tuple[Table, ...]:
    """Estimates in reading order: risk differences, then all others."""
    first = frame["estimate"] == "risk difference"
    head = ("block", "comparison", "points", "95 % interval", "p", "configurations", "pairs", "")
    rows = tuple(
        (
            str(r["block"]), f"{r['treatment']} − {r['baseline']}", number(r["value"], r["unit"]),
            _interval(r), probability(r["p"]), f"{int(r['n_configs']):,}", f"{int(r['n_pairs']):,}", str(r["note"]),
        )
        for r in frame[first].to_dict("records")
    )  # fmt: skip
    effects = Table(
        name="estimates", title="Effects: differences of stable shares", head=head, rows=rows, frame=frame,
        numeric=(False, False, True, True, True, True, True, False),
        note="Risk difference, every arm against the baseline. p: sign-flip test by configuration, not corrected.",
    )  # fmt: skip
    head = ("block", "", "quantity", "estimate", "95 % interval", "unit", "configurations", "")
    rows = tuple(
        (
            str(r["block"]), r["estimate"], r["quantity"], number(r["value"], r["unit"]), _interval(r), r["unit"],
            "–" if pd.isna(r["n_configs"]) else f"{int(r['n_configs']):,}", str(r["note"]),
        )
        for r in frame[~first].to_dict("records")
    )  # fmt: skip
    others = Table(
        name="estimates", title="Width, tuning, times, collapses", head=head, rows=rows, frame=frame,
        numeric=(False, False, False, True, True, False, True, False), folded=True,
        note="Differences are treatment minus baseline. "
        "Untuned vs tuned has a 90 % interval, as a one-sided test at 5 % does.",
    )  # fmt: skip
    return tuple(table for table in (effects, others) if table.rows)


def _interval(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["low"]) or pd.isna(row["high"]):
        return "–"
    return f"{number(row['low'], row['unit'])} to {number(row['high'], row['unit'])}"


def number(value: float, unit: str) -> str:
    """A number as precise as its unit deserves."""
    if pd.isna(value):
        return "–"
    if unit == "points":
        return f"{value:+.1f}".replace("-", "−")
    if unit == "Q" or unit.startswith("decades"):
        return f"{value:.2f}".replace("-", "−")
    return f"{value:,.3g}".replace("-", "−") if abs(value) < 1000 else f"{value:,.0f}".replace("-", "−")


def probability(p: float | None) -> str:
    """A p value: three digits, or below .001."""
    return "–" if p is None or pd.isna(p) else "< .001" if p < 0.001 else f"{p:.3f}"


def packed(frame: pd.DataFrame) -> dict[str, Any]:
    """A table of trials for the page: one list a column, repeated texts as numbers of a list of them."""
    columns: dict[str, Any] = {}
    for name in TRIAL_COLUMNS:
        if name not in frame:
            continue
        series = frame[name]
        if pd.api.types.is_numeric_dtype(series):
            columns[name] = {"v": [None if pd.isna(v) or not math.isfinite(v) else float(f"{v:.5g}") for v in series]}
        else:
            codes, texts = pd.factorize(series.astype(object))
            columns[name] = {"c": codes.tolist(), "t": [str(t) for t in texts]}
    return columns
