"""Curves and bars of an arm table: stability by learning rate, best of k, times to events, importances.

What cannot be drawn (an arm without trials, a block without learning rates) is said in `notes`: nothing is left out
silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from vistudy.analysis.estimates.best_of_k import best_of_k
from vistudy.analysis.estimates.importance import Importances, importances
from vistudy.analysis.estimates.stable_width import stable_curve
from vistudy.analysis.estimates.survival import TimeCurve, incidence_curve, threshold_curve
from vistudy.analysis.figures.grid_layout import WORDS, numeric_columns, parse_config
from vistudy.analysis.figures.specs import BANDS, MAX_CURVES, Bar, BarFigure, BarPanel, Curve, CurveFigure, Panel
from vistudy.analysis.tables.formatting import level_text

T = TypeVar("T")
NEAR = 0.25
"""Decades of learning rate on either side of a point whose trials its note counts."""


def or_note(notes: list[str], where: str, function: Callable[..., T], *args: Any, **options: Any) -> T | None:
    """The function's result, or None if it refused with a ValueError, whose sentence is added to `notes`."""
    try:
        return function(*args, **options)
    except ValueError as error:
        notes.append(f"{where}: {error}")
        return None


def _parts(table: pd.DataFrame, styles: Mapping[str, int]) -> Iterator[tuple[str, dict[str, pd.DataFrame]]]:
    """(block, arm -> its trials in order of style); at most as many arms as can be told apart."""
    for block, part in numeric_columns(table).groupby("block", sort=False):
        arms = sorted(part["arm"].unique(), key=lambda arm: styles[arm])
        yield str(block), {arm: part[part["arm"] == arm] for arm in arms[:MAX_CURVES]}


def stability_curves(
    table: pd.DataFrame,
    styles: Mapping[str, int],
    notes: list[str],
    boxes: Mapping[str, tuple[float, float]] | None = None,
) -> CurveFigure | None:
    """Share of stable trials against the learning rate, one curve with its band for each arm; None without any.

    `boxes`: block -> lowest and highest learning rate of its box; otherwise those of its trials.
    """
    panels = []
    for block, parts in _parts(table, styles):
        rates = {rate for part in parts.values() if "lr" in part for rate in part["lr"].dropna().unique()}
        if len(rates) < 2:
            notes.append(f"{block}: stability against the learning rate needs at least two learning rates.")
            continue
        curves = []
        for arm, part in parts.items():
            fit = or_note(notes, f"{block}, {arm}", stable_curve, part, arm, box=(boxes or {}).get(block))
            if fit is not None:
                x, share = np.array(fit.lr), np.array(fit.share)
                low, high = np.array(fit.low), np.array(fit.high)
                words = _rate_notes(part, arm, fit.design, x, share, low, high)
                curves.append(Curve(name=arm, x=x, y=share, low=low, high=high, notes=words, style=styles[arm]))
        if curves:
            panels.append(Panel(title=block, curves=tuple(curves)))
    if not panels:
        return None
    return CurveFigure(
        title="Where training is stable", x_label="learning rate", y_label="stable trials", panels=tuple(panels),
        log_x=True, percent=True, markers=max(len(c.x) for p in panels for c in p.curves) <= 15,
        caption=(
            "Share of stable trials against the learning rate, over all other hyperparameters of the box, with 95 % "
            f"bands{_bands(styles)}. A wider hump is less tuning; one that only moves is a changed effective rate."
        ),
    )  # fmt: skip


def _rate_notes(
    trials: pd.DataFrame, arm: str, design: str, rates: np.ndarray, share: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[str, ...]:
    evaluable = trials.dropna(subset=["stable"])
    place, stable = np.log10(evaluable["lr"].to_numpy(dtype=float)), evaluable["stable"].to_numpy(dtype=float)
    grid = design == "grid"
    words = []
    for rate, s, lo, hi in zip(rates, share, low, high, strict=True):
        near = np.abs(place - np.log10(rate)) <= (1e-9 if grid else NEAR)
        within = "" if grid else f" within {NEAR:g} decades"
        words.append(
            f"{arm}, learning rate {level_text(None, float(f'{rate:.2g}'))}\n"
            f"{_percent(s)} stable, 95 % band {_percent(lo)} to {_percent(hi)}\n"
            f"{int(stable[near].sum())} of {int(near.sum())} trials{within}"
        )
    return tuple(words)


def _bands(styles: Mapping[str, int]) -> str:
    with_band = [arm for arm, style in styles.items() if style < BANDS]
    return f" of {' and '.join(with_band)}" if len(styles) > len(with_band) else ""


def _three(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{share:.0%}"


def best_curves(
    table: pd.DataFrame, styles: Mapping[str, int], notes: list[str], k_max: int = 20
) -> CurveFigure | None:
    """Expected best Q of k random configurations, by arm: the need for tuning itself; None without any curve."""
    panels = []
    for block, parts in _parts(table, styles):
        curves = []
        for arm, part in parts.items():
            best = or_note(notes, f"{block}, {arm}", best_of_k, part, arm, k_max)
            if best is None or len(best.k) < 2:
                continue
            low, high = (np.clip(ends, 0.0, 1.0) for ends in (best.low, best.high))  # as Q in an arm table is
            points = zip(best.k, best.q, low, high, best.share_stable, strict=True)
            curves.append(Curve(
                name=arm, x=np.array(best.k, float), y=np.array(best.q), low=low, high=high, style=styles[arm],
                notes=tuple(
                    f"{arm}, best of {k}\nexpected Q {q:.3f}, 95 % interval {_three(lo)} to {_three(hi)}\n"
                    f"at least one stable: {_percent(p)}\n{best.n_trials} trials of {best.n_configs} configurations"
                    for k, q, lo, hi, p in points
                ),
            ))  # fmt: skip
        if curves:
            panels.append(Panel(title=block, curves=tuple(curves)))
    if not panels:
        return None
    return CurveFigure(
        title="How much tuning is needed", x_label="k: configurations tried at random", y_label="expected best Q",
        panels=tuple(panels), markers=False,
        caption=(
            "Expected Q of the best of k configurations drawn at random from the box (0: as real data; about 1: "
            f"untrained), with 95 % bands{_bands(styles)}. A curve that starts low and stays flat needs little tuning."
        ),
    )  # fmt: skip


def time_curves(
    table: pd.DataFrame, styles: Mapping[str, int], notes: list[str], event: str = "threshold", *, draws: int = 500
) -> CurveFigure | None:
    """Share of trials with an event by the time: `threshold` (good and stays so), `collapse` or `divergence`.

    None if no trial of the table has the event.
    """
    column = {"threshold": "t_thr", "collapse": "t_coll", "divergence": "t_div"}[event]
    if not table[column].notna().any():
        return None
    panels, unit, without = [], "", []
    for block, parts in _parts(table, styles):
        if not any(part[column].notna().any() for part in parts.values()):
            without.append(block)
            continue
        curves = []
        for arm, part in parts.items():
            curve: TimeCurve | None
            if event == "threshold":
                curve = or_note(notes, f"{block}, {arm}", threshold_curve, part, arm, draws=draws)
            else:
                curve = or_note(notes, f"{block}, {arm}", incidence_curve, part, arm, event, draws=draws)
            if curve is not None:
                unit = curve.unit
                curves.append(_time_curve(curve, arm, styles[arm], event))
        if curves:
            panels.append(Panel(title=block, curves=tuple(curves)))
    if not panels:
        return None
    title, words = _EVENTS[event]
    nobody = f" None: {', '.join(without)}." if without else ""
    return CurveFigure(
        title=title, x_label=unit, y_label=f"trials {words}", panels=tuple(panels), percent=True, steps=True,
        markers=False,
        caption=(
            f"Share of trials that have {words} by then, with 95 % bands by configuration{_bands(styles)}. "
            f"{_EVENT_CAPTION[event]}{nobody}"
        ),
    )  # fmt: skip


_EVENTS = {
    "threshold": ("How fast training gets there", "converged"),
    "collapse": ("When training collapses", "collapsed for good"),
    "divergence": ("When training diverges", "diverged"),
}
_EVENT_CAPTION = {
    "threshold": "Converged: Q fell to the threshold and stayed there for W evaluations. The rest had not by then.",
    "collapse": "Divergence is a competing event: a trial that diverged cannot collapse later.",
    "divergence": "Numbers became non-finite, or weights or samples exploded.",
}


def _time_curve(curve: TimeCurve, arm: str, style: int, event: str) -> Curve:
    points = zip(curve.time, curve.share, curve.low, curve.high, curve.at_risk, strict=True)
    words = _EVENTS[event][1]
    return Curve(
        name=arm, x=np.array(curve.time, float), y=np.array(curve.share, float), low=np.array(curve.low, float),
        high=np.array(curve.high, float), style=style,
        notes=tuple(
            f"{arm}, {time:,.0f} {curve.unit}\n{_percent(s)} {words}, 95 % band {_percent(lo)} to {_percent(hi)}\n"
            f"{risk:g} trials still at risk"
            for time, s, lo, hi, risk in points
        ),
    )  # fmt: skip


def importance_bars(
    table: pd.DataFrame,
    arms: Sequence[str],
    styles: Mapping[str, int],
    notes: list[str],
    value: str = "q",
    *,
    trees: int = 32,
) -> BarFigure | None:
    """Variance of Q (`value="q"`) or of failing (`"failure"`) that each hyperparameter explains, alone and in pairs."""
    panels = []
    for block, parts in _parts(table, styles):
        importances_ = {}
        for arm in (arm for arm in arms if arm in parts):
            levels = parse_config(parts[arm])
            names = [str(name) for name in levels if levels[name].nunique() > 1]
            data = parts[arm].assign(**{str(name): _numbers(levels[name]) for name in names})
            if names:
                importances_[arm] = or_note(
                    notes, f"{block}, {arm}", importances, data, arm, names, value=value, trees=trees
                )
        panel = _importance_panel(block, {arm: one for arm, one in importances_.items() if one is not None}, styles)
        if panel is not None:
            panels.append(panel)
    if not panels:
        return None
    what = "the final Q" if value == "q" else "whether a trial fails"
    return BarFigure(
        title=f"What decides {what}", x_label="variance explained", panels=tuple(panels),
        caption=(
            f"Variance of {what} over the box that each hyperparameter explains alone and in pairs beyond that "
            "(functional ANOVA of a random forest, diverged trials counted at the cap). Not normalised: bars of two "
            "arms can be compared, and less is less sensitive."
        ),
    )  # fmt: skip


def _numbers(levels: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(levels, errors="coerce")
    return levels if numbers.isna().any() else numbers


def _importance_panel(
    block: str, importances_: Mapping[str, Importances], styles: Mapping[str, int]
) -> BarPanel | None:
    values = {arm: {**one.main, **one.interactions} for arm, one in importances_.items()}
    names = list(dict.fromkeys(name for one in values.values() for name in one))
    if not names:
        return None
    names.sort(key=lambda name: (" x " in name, -max(one.get(name, 0.0) for one in values.values())))
    bars = []
    for arm, one in values.items():
        total = importances_[arm].total
        bars.append(tuple(
            Bar(
                value=one[name], low=np.nan, high=np.nan,
                note=f"{arm}, {_words(name)}\n{one[name]:.4f} of {total:.4f} in all",
            )
            if name in one else None
            for name in names
        ))  # fmt: skip
    return BarPanel(
        title=block, names=tuple(map(_words, names)), arms=tuple(values), styles=tuple(styles[arm] for arm in values),
        bars=tuple(bars),
    )  # fmt: skip


def _words(name: str) -> str:
    return " × ".join(WORDS.get(part, part) for part in name.split(" x "))
