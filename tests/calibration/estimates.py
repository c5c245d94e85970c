"""Are the statistics calibrated? `python -m tests.calibration.estimates` simulates studies whose truth is known.

    null        how often a study without an effect is called supported, and how often p < .05
    power       how often an effect is found, against what `vistudy.analysis.estimates.power` promises
    coverage    how often the 95 % intervals of E1, E2, E3, E6, E7, E8 contain the truth

`--small` draws few studies (seconds) and writes nothing. Intervals of shares are Clopper-Pearson, 95 %.
"""

from __future__ import annotations

import argparse
import datetime
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.stats import binomtest

from benchmarks.machine import finish
from tests.calibration.simulated import (
    BOX,
    B,
    Design,
    Generator,
    T,
    q_study,
    q_truth,
    stable_pairs,
    time_study,
    time_truth,
    width_study,
    width_truth,
)
from vistudy.analysis.estimates.best_of_k import best_of_k, non_inferior
from vistudy.analysis.estimates.power import power
from vistudy.analysis.estimates.risk_difference import risk_difference
from vistudy.analysis.estimates.stable_width import width_difference
from vistudy.analysis.estimates.survival import cumulative_incidence, restricted_mean_time

SESOI, ALPHA, K = 0.08, 0.05, (1, 2, 5, 10, 20)
Row = dict[str, Any]


def share(hits: int, n: int) -> Row:
    """A share with its Clopper-Pearson interval."""
    interval = binomtest(hits, n).proportion_ci(0.95, method="exact")
    return {"share": round(hits / n, 4), "low": round(interval.low, 4), "high": round(interval.high, 4), "studies": n}


def decisions(design: Design, studies: int, rng: Generator) -> dict[str, int]:
    """How many of simulated studies are supported by the decision rule of E1, have p < .05, and cover the truth."""
    count = dict.fromkeys(("supported", "p", "mcnemar", "covered"), 0)
    for _ in range(studies):
        found = risk_difference(stable_pairs(design, rng), draws=10_000)
        count["supported"] += found.p < ALPHA and found.estimate >= SESOI and found.low > 0
        count["p"] += found.p < ALPHA
        count["mcnemar"] += found.mcnemar_p < ALPHA
        count["covered"] += found.low - 1e-12 <= design.difference <= found.high + 1e-12
    return {name: int(value) for name, value in count.items()}


def words(design: Design) -> Row:
    """A design as columns of a row."""
    return {
        "design": f"{design.n_configs} x {design.n_seeds}",
        "difference": design.difference,
        "base": design.base,
        "config_sd": design.config_sd,
        "interaction_sd": design.interaction_sd,
    }


# -- null --------------------------------------------------------------------------------------------------------------

NULLS = (
    Design(n_configs=100, n_seeds=2, interaction_sd=0.0),
    Design(n_configs=100, n_seeds=2),
    Design(n_configs=60, n_seeds=2),
    Design(n_configs=200, n_seeds=2, interaction_sd=0.0),
    Design(n_configs=200, n_seeds=2),
    Design(n_configs=60, n_seeds=2, base=0.05),
    Design(n_configs=20, n_seeds=20),
    Design(n_configs=50, n_seeds=3, interaction_sd=2.0),
)
"""The last two are those where McNemar's test of single pairs goes wrong."""


def null(studies: int, rng: Generator) -> Iterator[Row]:
    """False positives of studies without an effect on the box."""
    for design in NULLS:
        count = decisions(design, studies, rng)
        yield words(design) | {
            "false_supported": share(count["supported"], studies),
            "p_below_alpha": share(count["p"], studies),
            "mcnemar_below_alpha": share(count["mcnemar"], studies),
        }


# -- power -------------------------------------------------------------------------------------------------------------

DESIGNS = ((50, 4), (100, 2), (200, 1), (200, 2))


def powers(studies: int, rng: Generator) -> Iterator[Row]:
    """Share of studies with p < .05 against `power`, at the planned designs."""
    for difference in (0.08, 0.14):
        for n_configs, n_seeds in DESIGNS:
            design = Design(n_configs=n_configs, n_seeds=n_seeds, difference=difference)
            count, said = decisions(design, studies, rng), power(n_configs, n_seeds, difference, base=design.base)
            error = math.sqrt(said * (1 - said) / studies)
            yield words(design) | {
                "power": round(said, 4),
                "simulated": share(count["p"], studies),
                "supported": share(count["supported"], studies),
                "difference_in_errors": round((count["p"] / studies - said) / error, 2),
            }


# -- coverage ----------------------------------------------------------------------------------------------------------

E1_DESIGNS = (
    *(Design(n_configs=n, n_seeds=2, difference=d) for n in (20, 40, 60, 100, 200) for d in (0.0, 0.14)),
    Design(n_configs=100, n_seeds=1, difference=0.08),
    Design(n_configs=60, n_seeds=2, difference=0.05, base=0.1),
    Design(n_configs=60, n_seeds=2, difference=0.02, base=0.02, interaction_sd=0.3),
)
"""The last one: fewer than ten configurations differ, and the interval is meant to be wide."""


SIZES = (60, 200)
"""Configurations of the studies of E2 to E8, two seeds each."""


def inside(low: float, truth: float, high: float) -> bool:
    """NaN covers nothing."""
    return bool(low - 1e-12 <= truth <= high + 1e-12)


def repeated(studies: int, one: Callable[[], dict[str, bool]]) -> dict[str, Row]:
    """Shares of studies in which each interval covers."""
    count: dict[str, int] = {}
    for _ in range(studies):
        for name, hit in one().items():
            count[name] = count.get(name, 0) + hit
    return {name: share(hits, studies) for name, hits in count.items()}


def coverage(studies: int, draws: int, size: int, rng: Generator) -> Iterator[Row]:
    """Coverage of 95 % intervals. The truth of E3 to E8 is itself that of a study of `size` configurations."""
    for design in E1_DESIGNS:
        yield {"estimate": "E1"} | words(design) | share(decisions(design, studies, rng)["covered"], studies)
    few = studies * 2 // 5

    def rows(what: dict[str, Row], n: int) -> Iterator[Row]:
        for name, found in what.items():
            yield {"estimate": name, "design": f"{n} x 2"} | found

    width, (best, best_b), times = width_truth(), q_truth(max(K), size, rng), time_truth(size, rng)

    def of_width(n: int) -> dict[str, bool]:
        found = width_difference(width_study(n, rng), T, B, box=BOX, design="sample", draws=draws)
        return {
            "E2 width": inside(found.low, width["width"], found.high),
            "E2 shift": inside(found.shift_low, width["shift"], found.shift_high),
        }

    def of_q(n: int) -> dict[str, bool]:
        drawn = q_study(n, rng)
        found = best_of_k(drawn, T, max(K))
        e8 = non_inferior(drawn, T, B, max(K), alpha=ALPHA / 2)
        hits = {f"E3 k = {k}": inside(found.low[k - 1], best[k - 1], found.high[k - 1]) for k in K}
        return hits | {
            f"E8 k = {max(K)}": inside(e8.low, best[0] - best_b[-1], e8.high),
        }

    def of_times(n: int) -> dict[str, bool]:
        drawn = time_study(n, rng)
        e6 = restricted_mean_time(drawn, T, B, "d_updates")
        e7 = cumulative_incidence(drawn, T, B)
        return {
            "E6": inside(e6.low, times["time"], e6.high),
            "E7 incidence": inside(e7.low, times["collapse"], e7.high),
            "E7 free time": inside(e7.free_low, times["free"], e7.free_high),
        }

    for n in SIZES:
        yield from rows(repeated(few, lambda n=n: of_width(n)), n)  # type: ignore[misc]
        yield from rows(repeated(few, lambda n=n: of_q(n)), n)  # type: ignore[misc]
        yield from rows(repeated(few, lambda n=n: of_times(n)), n)  # type: ignore[misc]


def run(studies: int, draws: int, size: int, seed: int) -> Row:
    """All three parts, with streams of their own."""
    streams = np.random.default_rng(seed).spawn(4)
    return {
        "null": list(null(studies, streams[0])),
        "power": list(powers(studies, streams[1])),
        "coverage": list(coverage(studies, draws, size, streams[2])),
    }


def text(parts: Row) -> str:
    """The result as tables."""

    def of(found: Row) -> str:
        return f"{found['share']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"

    lines = [f"{'null':<44} {'false supported':<22} {'p < .05':<22} {'McNemar p < .05':<22}"]
    for row in parts["null"]:
        name = f"{row['design']}, {row['base']:.0%} stable, interaction sd {row['interaction_sd']:g}"
        cells = (of(row[key]) for key in ("false_supported", "p_below_alpha", "mcnemar_below_alpha"))
        lines.append(f"{name:<44} " + " ".join(f"{cell:<22}" for cell in cells))
    lines.append(f"\n{'power':<44} {'promised':<10} {'simulated':<22} {'supported':<22} errors apart")
    for row in parts["power"]:
        name, cells = f"{row['design']}, difference {row['difference']:g}", (of(row["simulated"]), of(row["supported"]))
        lines.append(
            f"{name:<44} {row['power']:<10.3f} {cells[0]:<22} {cells[1]:<22} {row['difference_in_errors']:+.1f}"
        )
    lines.append("\ncoverage of 95 % intervals")
    for row in parts["coverage"]:
        more = f", difference {row['difference']:g}, {row['base']:.0%} stable" if "base" in row else ""
        lines.append(f"{row['estimate'] + ', ' + row['design'] + more:<60} {of(row)}")
    return "\n".join(lines)


def main() -> None:
    """Simulate, print and, in full, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="Few studies; nothing is written.")
    parser.add_argument("--studies", type=int, default=1000, help="Simulated studies a row (two fifths for E2 to E8).")
    parser.add_argument("--seed", type=int, default=0)
    args, started, cpu = parser.parse_args(), datetime.datetime.now(datetime.UTC), time.process_time()
    studies, draws = 40 if args.small else args.studies, 200 if args.small else 1000
    size = 20_000 if args.small else 200_000
    parts = run(studies, draws, size, args.seed)
    print(text(parts))
    command = f"python -m tests.calibration.estimates --studies {studies} --seed {args.seed}"
    name = None if args.small else f"calibration-{started.date()}.json"
    finish(name, {"bootstrap_draws": draws, "size_of_truth": size} | parts, command, started, cpu)


if __name__ == "__main__":
    main()
