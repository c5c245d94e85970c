"""Pairs of trials: one configuration and seed, trained in two arms. What is left out is counted by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vistudy.analysis.tables.validation import check_trials

Floats = NDArray[np.float64]
REASONS: dict[str, str] = {
    "absent": "the other arm has no trial of this configuration and seed",
    "failed": "a trial failed for reasons of the machine",
    "missing": "a trial has not finished",
    "undetermined": "a complete trial's records cannot tell",
}
"""Why a pair is left out -> plain words. A pair with several reasons counts once, under the first of them."""
STATE_REASONS = {"failed": "failed", "planned": "missing", "running": "missing", "interrupted": "missing"}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pairs:
    """Values of two arms at the same configurations and seeds."""

    treatment: str
    baseline: str
    value: str
    """Column that was paired."""
    configs: tuple[str, ...]
    """Configurations with at least one pair: the rows of `t` and `b`."""
    seeds: tuple[str, ...]
    """Seeds: the columns of `t` and `b`."""
    t: Floats
    """Treatment's values, (configs, seeds); NaN where there is no pair."""
    b: Floats
    """Baseline's values, NaN at the same places."""
    excluded: dict[str, int]
    """Reason (REASONS) -> pairs that were left out for it."""

    @property
    def n_configs(self) -> int:
        """Configurations with at least one pair."""
        return len(self.configs)

    @property
    def n_pairs(self) -> int:
        """Pairs of trials."""
        return int(np.isfinite(self.t).sum())

    @property
    def differences(self) -> Floats:
        """d_c, (configs,): each configuration's mean of treatment - baseline."""
        return np.asarray(np.nanmean(self.t - self.b, axis=1)) if self.configs else np.empty(0)


def one_block(table: pd.DataFrame, columns: Sequence[str], arms: Sequence[str]) -> None:
    """Raise ValueError unless the table has the columns and arms, one block, and no trial twice."""
    absent = [name for name in ("arm", "config", "seed", *columns) if name not in table]
    if absent:
        raise ValueError(f"the table has no column {', '.join(absent)}")
    check_trials(table, ())
    if "block" in table and len(table["block"].unique()) > 1:
        raise ValueError(f"one block at a time, got {', '.join(map(str, table['block'].unique()))}")
    present = table["arm"].unique()
    for arm in arms:
        if arm not in present:
            raise ValueError(f"no arm {arm!r}; the table has {', '.join(map(str, present)) or 'no rows'}")
    again = table.duplicated(["arm", "config", "seed"])
    if not again.any():
        return
    for arm in arms:
        twice = table[again & (table["arm"] == arm)]
        if len(twice):
            first = twice.iloc[0]
            raise ValueError(
                f"arm {arm} has {len(twice)} trials twice; the first: config {first['config']}, seed {first['seed']}"
            )


def reason_codes(rows: pd.DataFrame, value: str) -> Floats:
    """Per row: NaN if the value is there, else the place in REASONS of why it is not. (rows,)"""
    names = list(REASONS)
    lacking = rows[value].isna().to_numpy()
    states = rows.loc[lacking, "state"] if "state" in rows else ["complete"] * int(lacking.sum())
    codes = np.full(len(rows), np.nan)
    codes[lacking] = [names.index(STATE_REASONS.get(str(state), "undetermined")) for state in states]
    return codes


def pair(table: pd.DataFrame, treatment: str, baseline: str, value: str = "stable") -> Pairs:
    """Pair two arms of one block by configuration and seed; count the pairs that are left out by reason.

    Raises:
        ValueError: a column or arm that is not there, several blocks, a trial twice, an arm against itself, an
            infinite value.
    """
    configs, seeds, (t, b), codes = _sides(table, treatment, baseline, value)
    somewhere = ~np.isnan(codes).all(axis=0)
    first = np.nan_to_num(codes, nan=0.0, posinf=np.inf).min(axis=0)  # nobody's: "absent"
    excluded = Counter(list(REASONS)[int(code)] for code in first[somewhere & np.isfinite(first)])
    paired = np.isfinite(t) & np.isfinite(b)
    complete = paired.any(axis=1)
    return Pairs(
        treatment=treatment,
        baseline=baseline,
        value=value,
        configs=tuple(np.asarray(configs)[complete].tolist()),
        seeds=tuple(map(str, seeds)),
        t=np.where(paired, t, np.nan)[complete],
        b=np.where(paired, b, np.nan)[complete],
        excluded=dict(excluded),
    )


def worst_cases(table: pd.DataFrame, treatment: str, baseline: str) -> tuple[Pairs, Pairs]:
    """The pairs as they are at worst and at best for the treatment, whatever the trials without a result had done.

    At worst every such trial of the treatment fails and every one of the baseline is stable; at best the reverse. A
    trial that the table lacks counts, too, where the other arm has one of that configuration and seed.

    Raises:
        ValueError: as `pair`.
    """
    configs, seeds, (t, b), codes = _sides(table, treatment, baseline, "stable")
    somewhere = ~np.isnan(codes).all(axis=0)

    def filled(of_treatment: float) -> Pairs:
        sides = [
            np.where(somewhere, np.where(np.isfinite(side), side, value), np.nan)
            for side, value in ((t, of_treatment), (b, 1 - of_treatment))
        ]
        return Pairs(
            treatment=treatment, baseline=baseline, value="stable", configs=configs, seeds=tuple(map(str, seeds)),
            t=sides[0], b=sides[1], excluded={},
        )  # fmt: skip

    return filled(0.0), filled(1.0)


def _sides(
    table: pd.DataFrame, treatment: str, baseline: str, value: str
) -> tuple[tuple[str, ...], Sequence[object], Floats, Floats]:
    """(configs, seeds, values, codes): values and codes (2, configs, seeds) of treatment and baseline.

    Codes: NaN where there is no trial, infinity where there is a value, else the place in REASONS of why there is none.
    """
    if treatment == baseline:
        raise ValueError(f"arm {treatment} cannot be compared with itself")
    one_block(table, [value], [treatment, baseline])
    columns = ["arm", "config", "seed", value, *({"state"} & set(table))]
    rows = table.loc[table["arm"].isin([treatment, baseline]), columns]
    values = rows[value].to_numpy(dtype=float, na_value=np.nan)
    if np.isinf(values).any():
        raise ValueError(f"arm {rows['arm'][np.isinf(values)].iloc[0]}: {value} is infinite somewhere")
    config, configs = pd.factorize(rows["config"].astype(str), sort=True)
    seed, seeds = pd.factorize(rows["seed"], sort=True)
    place = ((rows["arm"] != treatment).to_numpy(dtype=int), config, seed)
    sides = np.full((2, len(configs), len(seeds)), np.nan)  # (arm, config, seed)
    sides[place] = values
    codes = np.full(sides.shape, np.nan)
    codes[place] = np.nan_to_num(reason_codes(rows, value), nan=np.inf)
    return tuple(map(str, configs)), list(seeds), sides, codes


def pool(parts: Sequence[Pairs]) -> Pairs:
    """Put the pairs of several blocks together. A configuration met in several blocks is one cluster: its effect may
    be common to them. Every configuration weighs the same.

    Raises:
        ValueError: nothing to pool; parts of different arms or values.
    """
    if not parts:
        raise ValueError("nothing to pool")
    if len({(part.treatment, part.baseline, part.value) for part in parts}) > 1:
        raise ValueError("only pairs of the same arms and value can be pooled")
    configs = list(dict.fromkeys(config for part in parts for config in part.configs))
    place = {config: row for row, config in enumerate(configs)}

    def together(side: str) -> Floats:
        columns = []
        for part in parts:
            column = np.full((len(configs), len(part.seeds)), np.nan)
            column[[place[config] for config in part.configs]] = getattr(part, side)
            columns.append(column)
        return np.concatenate(columns, axis=1)

    return Pairs(
        treatment=parts[0].treatment,
        baseline=parts[0].baseline,
        value=parts[0].value,
        configs=tuple(configs),
        seeds=tuple(f"{number}:{seed}" for number, part in enumerate(parts) for seed in part.seeds),
        t=together("t"),
        b=together("b"),
        excluded=dict(sum((Counter(part.excluded) for part in parts), Counter[str]())),
    )


def no_pairs(pairs: Pairs) -> ValueError:
    """The refusal of a comparison without pairs."""
    reasons = "; ".join(f"{REASONS[name]}: {count}" for name, count in pairs.excluded.items())
    return ValueError(f"no pairs of {pairs.treatment} and {pairs.baseline} ({reasons or 'no trials'})")
