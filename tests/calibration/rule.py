"""Is the decision rule calibrated? Whole blocks with a known truth, judged by the present rule and by the earlier one.

    python -m tests.calibration.rule --studies 400

A block has 60 configurations x 2 seeds, learning rates drawn log-uniformly, batch norm in turn, three arms: baseline,
treatment, and a positive control that adds 25 points (half of what is left above .7). The model is that of
`analysis.estimates.power`. Written to `benchmarks/results/rule-DATE-CASES.json`; the table is in docs/statistics.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import binomtest

from benchmarks.machine import machine
from tests.calibration.simulated import BOX, Generator
from vistudy.analysis.estimates.power import intercepts
from vistudy.analysis.verdict.decide import DEFAULTS, judge_all
from vistudy.study.execution.provenance import git_state, versions

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
BASES = (0.05, 0.2, 0.5, 0.8, 0.95)
CONFIGS, SEEDS, CONFIG_SD, INTERACTION_SD = 60, 2, 2.0, 1.0
CLAIM = DEFAULTS | {"baseline": "A0", "treatment": "A1", "positive_control": "A4", "best_of": 10}
SPACE = {"lr": {"low": BOX[0], "high": BOX[1], "log": True}, "batch_norm": {"choices": [True, False]}}
DECLARED = {"arms": {"A0": {}, "A1": {}, "A4": {}}, "factors": {}, "fixed": {}, "sampled": list(SPACE),
            "sample": {"method": "sobol", "n": CONFIGS, "space": SPACE}}  # fmt: skip
CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    *((f"no effect, {base:.0%} stable", {"base": base}) for base in BASES),
    ("no effect, 50% stable, three blocks", {"base": 0.5, "blocks": 3}),
    ("no effect, three blocks, 50, 2 and 2% stable", {"base": 0.5, "blocks": 3, "dead": 2}),
    ("+14 points from 50%", {"base": 0.5, "difference": 0.14}),
    ("+14 points from 50%, three blocks", {"base": 0.5, "difference": 0.14, "blocks": 3}),
    ("+14 points from 50%, and two blocks at 2%", {"base": 0.5, "difference": 0.14, "blocks": 3, "dead": 2}),
    ("+14 points from 50%, the control does nothing", {"base": 0.5, "difference": 0.14, "control": 0.0}),
)


def control_of(base: float) -> float:
    """Points that the positive control adds."""
    return 0.25 if base <= 0.7 else (1 - base) / 2


def block(name: str, base: float, difference: float, control: float, rng: Generator) -> pd.DataFrame:
    """Arm table of one simulated block."""
    shape = (CONFIGS, SEEDS)
    u = rng.normal(0, CONFIG_SD, CONFIGS)
    lr = 10 ** rng.uniform(np.log10(BOX[0]), np.log10(BOX[1]), CONFIGS)
    config, seed = np.repeat(np.arange(CONFIGS), SEEDS), np.tile(np.arange(SEEDS), CONFIGS)
    norm = np.where(config % 2, "true", "false")
    parts = []
    for arm, more in (("A0", None), ("A1", difference), ("A4", control)):
        a, b = intercepts(more or 0.0, base, CONFIG_SD, INTERACTION_SD)
        p = expit(a + u) if more is None else expit(b + u + rng.normal(0, INTERACTION_SD, CONFIGS))
        stable = (rng.random(shape) < p[:, None]).ravel().astype(float)
        q = np.where(stable == 1, 0.05 + 0.2 * rng.random(stable.size), 0.3 + 0.7 * rng.random(stable.size))
        parts.append(pd.DataFrame({
            "block": name, "family": name, "class": "P", "arm": arm, "config": np.char.mod(f"{name}%03d", config),
            "seed": seed, "stable": stable, "q": q, "lr": lr[config], "stratum": np.char.add("batch_norm=", norm),
            "trial_id": np.char.mod(f"{name}{arm}%04d", np.arange(config.size)), "state": "complete",
            "outcome": np.where(stable == 1, "converged", "plateau"), "q_final": q,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def judged(
    rng: Generator,
    *,
    base: float,
    difference: float = 0.0,
    blocks: int = 1,
    dead: int = 0,
    control: float | None = None,
) -> tuple[str, str, float]:
    """(verdict of the whole, the earlier rule's, share of blocks called uninformative of those meant to have room)."""
    added = control_of(base) if control is None else control
    parts = [block(f"b{i}", base, difference, added, rng) for i in range(blocks - dead)]
    parts += [block(f"dead{i}", 0.02, 0.0, 0.0, rng) for i in range(dead)]
    declared = {str(rows["block"].iloc[0]): DECLARED for rows in parts}
    found = judge_all(pd.concat(parts, ignore_index=True), CLAIM, "A1", declared, draws=199, beside=False, earlier=True)
    assert found.overall is not None
    live = [each.room is not None and not each.room.informative for each in found.blocks if each.block[0] == "b"]
    return found.overall.verdict, found.overall.earlier, float(np.mean(live))


def share(hits: int, n: int) -> dict[str, float]:
    """A share with its Clopper-Pearson interval."""
    interval = binomtest(hits, n).proportion_ci(0.95, method="exact")
    return {"share": round(hits / n, 4), "low": round(interval.low, 4), "high": round(interval.high, 4)}


def run(studies: int, seed: int, cases: Sequence[int]) -> list[dict[str, Any]]:
    """One row a case; each has a random stream of its own, so that some can be run alone."""
    rows = []
    for number in cases:
        name, options = CASES[number]
        rng = np.random.default_rng([seed, number])
        found = [judged(rng, **options) for _ in range(studies)]
        now, before = (Counter(each[i] for each in found) for i in (0, 1))
        rows.append({
            "case": name, "studies": studies,
            "supported": share(sum(n for v, n in now.items() if v.startswith("supported")), studies),
            "supported_before": share(sum(n for v, n in before.items() if v.startswith("supported")), studies),
            "uninformative_blocks": round(float(np.mean([each[2] for each in found])), 4),
            "verdicts": dict(now.most_common()), "verdicts_before": dict(before.most_common()),
        })  # fmt: skip
        print(line(rows[-1]), flush=True)
    return rows


def line(row: dict[str, Any]) -> str:
    """A row of the table in docs/statistics.md."""
    cells = [
        f"{100 * row[name]['share']:.1f} % [{100 * row[name]['low']:.1f}, {100 * row[name]['high']:.1f}]"
        for name in ("supported_before", "supported")
    ]
    others = ", ".join(
        f"{v} {100 * n / row['studies']:.0f} %" for v, n in row["verdicts"].items() if v[:9] != "supported"
    )
    return f"| {row['case']} | {cells[0]} | {cells[1]} | {100 * row['uninformative_blocks']:.1f} % | {others} |"


def main() -> None:
    """Simulate, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400, help="Simulated studies a case.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--cases", type=int, nargs="+", default=list(range(len(CASES))), help="Numbers of cases, from 0."
    )
    parser.add_argument("--small", action="store_true", help="Five studies a case; nothing is written.")
    args, started, cpu = parser.parse_args(), datetime.datetime.now(datetime.UTC), time.process_time()
    studies = 5 if args.small else args.studies
    rows = run(studies, args.seed, args.cases)
    result = {
        "date": started.isoformat(timespec="seconds"),
        "command": f"python -m tests.calibration.rule --studies {studies} --seed {args.seed} --cases "
        + " ".join(map(str, args.cases)),
        "machine": machine(), "versions": versions(), "git": git_state(),
        "cpu_seconds": round(time.process_time() - cpu, 1), "cases": rows,
    }  # fmt: skip
    print(f"\n{result['cpu_seconds']} s of processor time")
    if not args.small:
        path = RESULTS / f"rule-{started.date()}-{'-'.join(map(str, args.cases))}.json"
        path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        print(f"written: benchmarks/results/{path.name}")


if __name__ == "__main__":
    main()
