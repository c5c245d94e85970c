"""How many trials finding a boundary costs: `python -m benchmarks.refinement`.

Replays recorded outcomes of two dense grids (benchmarks/recorded/*.csv) through three ways of placing trials: coarser
grids, random points, and `method: boundary` of a study file's sample. From the trials placed so far each way guesses
every cell of the dense grid; the error is the share of cells that are guessed wrong. A point that is asked is answered
by the recorded trial nearest to it. `record` trains the dense grids again (minutes): engine alone, no store.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vistudy.analysis.outcomes.labels import STABLE
from vistudy.study.execution.provenance import git_state, versions
from vistudy.study.packing.packs import MAX_TRIALS_CPU, make_packs
from vistudy.study.planning.boundary import BoundarySampler, Floats, Surrogate
from vistudy.study.planning.plan import plan
from vistudy.study.planning.sampling import sample_points
from vistudy.study.spec.hyperparameters import Cell
from vistudy.study.spec.model import Block, Study
from vistudy.study.spec.parser import parse_study

HERE = Path(__file__).parent
SEEDS = tuple(range(10))
"""Of the samples: the trials are recorded once."""
BUDGETS = (16, 25, 36, 49, 64, 81, 100, 121, 144, 196)
START, BATCH = 16, 8
DATA: dict[str, dict[str, Any]] = {
    "dirac": {
        "levels": {"lr": np.linspace(0.05, 2.4, 48), "reg_weight": np.linspace(0, 2, 41)},
        "log": False,
        "head": "model: dirac_gan\ndata: point0\nbudget: {d_updates: 1000, evaluations: 20}\n"
        "fixed: {loss: wgan, anchor: period_start, ratio: '1:2', r1_weight: 0.1}\n",
    },
    "ring": {
        "levels": {"lr": np.geomspace(1e-4, 1e-1, 20), "reg_weight": np.geomspace(0.05, 500, 14)},
        "log": True,
        "head": "model: gan\ndata: ring8\nbudget: {d_updates: 2000, evaluations: 20}\n"
        "fixed: {anchor: period_start, z_use: pool, ratio: '1:5'}\n",
    },
}
"""Dense grids: the Dirac-GAN's sharp boundary; the ring's, which is blurred by the luck of single seeds."""


def study(name: str, rest: str) -> Study:
    """A study of one of DATA, with its factors or its sample."""
    return parse_study(
        f"study: refinement-{name}\nseeds: [0]\nsamples: {{evaluations: []}}\n{DATA[name]['head']}{rest}"
    )


def record(name: str) -> Path:
    """Train a dense grid and write one row a trial: levels and outcome."""
    from vistudy.analysis.outcomes.rules import Reference, label
    from vistudy.trainables.engine import Engine, reference

    levels = {key: [float(f"{v:.6g}") for v in values] for key, values in DATA[name]["levels"].items()}
    planned = plan(study(name, f"factors: {json.dumps(levels)}\n"))
    cells = {trial.trial_id: trial.cell for trial in planned.trials}
    rows = []
    for pack in make_packs([trial.config for trial in planned.trials], slots=1, max_trials=MAX_TRIALS_CPU):
        known = reference(pack.configs[0])
        scale = Reference.from_dict(known)
        found: dict[str, list[Any]] = {}
        for item in Engine(pack.configs).evaluations():
            for each in item.records:
                found.setdefault(each.trial_id, []).append(each)
        for trial_id, records in found.items():
            names = {value for each in records for value in each.values}
            series = {value: np.array([each.values.get(value, np.nan) for each in records]) for value in names}
            series |= {key: np.array([getattr(each, key) for each in records]) for key in ("evaluation", "step")}
            outcome = label(series, scale, evaluations=pack.configs[0].evaluations).label
            rows.append([cells[trial_id]["lr"], cells[trial_id]["reg_weight"], outcome])
        print(f"{name}: {len(rows)} of {len(planned.trials)}", flush=True)
    path = HERE / "recorded" / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([["lr", "reg_weight", "outcome"], *sorted(rows)])
    return path


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """A dense grid in the unit square."""

    block: Block
    """With a `boundary` sample of the same space."""
    x: Floats
    """(rows, 2)."""
    stable: Floats
    """(rows,), 0 or 1."""
    shape: tuple[int, int]

    @classmethod
    def read(cls, name: str, n: int, seed: int) -> Recorded:
        """The recorded grid `name`; `n`, `seed` of the sample."""
        with (HERE / "recorded" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        log = str(DATA[name]["log"]).lower()
        space = {
            key: f"{{low: {float(values[0]):g}, high: {float(values[-1]):g}, log: {log}}}"
            for key, values in DATA[name]["levels"].items()
        }
        inside = ", ".join(f"{key}: {value}" for key, value in space.items())
        options = f"method: boundary, n: {max(n, START)}, start: {START}, batch: {BATCH}, seed: {seed}"
        (block,) = study(name, f"sampling: {{{options}, space: {{{inside}}}}}\n").blocks
        cells: list[Cell] = [{key: float(row[key]) for key in ("lr", "reg_weight")} for row in rows]
        lr, reg_weight = (len({row[key] for row in rows}) for key in ("lr", "reg_weight"))
        return cls(
            block=block,
            x=BoundarySampler(block).features(cells),
            stable=np.array([float(row["outcome"] == STABLE) for row in rows]),
            shape=(lr, reg_weight),
        )

    def answers(self, x: Floats) -> Floats:
        """What the nearest recorded trials showed, (n,)."""
        return self.stable[((x[:, None] - self.x) ** 2).sum(-1).argmin(1)]

    def error(self, x: Floats) -> dict[str, float]:
        """Share of all cells that are guessed wrong from trials at `x`: by the nearest trial, and by the model."""
        told = self.answers(x)
        near = told[((self.x[:, None] - x) ** 2).sum(-1).argmin(1)]
        guess = near
        if len(set(told)) > 1:
            guess = (Surrogate.fit(x, 2 * told - 1).mean(self.x) > 0).astype(float)
        return {"nearest": float(np.mean(near != self.stable)), "model": float(np.mean(guess != self.stable))}


def coarse(recorded: Recorded, n: int) -> Floats:
    """A k x k grid with its points in the middles of k x k equal parts."""
    k = round(n**0.5)
    middles = (np.arange(k) + 0.5) / k
    return np.stack(np.meshgrid(middles, middles, indexing="ij"), -1).reshape(-1, 2)


def refined(recorded: Recorded) -> Floats:
    """Points that `method: boundary` asks, in order."""
    design = BoundarySampler(recorded.block)
    while new := design.next_cells(BATCH):
        for cell, answer in zip(new, recorded.answers(design.features(new)), strict=True):
            design.tell(cell, float(answer))
    return design.features(design.cells)


def replay(name: str, seeds: Sequence[int], budgets: Sequence[int]) -> list[dict[str, Any]]:
    """Errors of every way at every budget: mean, lowest and highest over the seeds (a grid has none)."""
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for seed in seeds:
        recorded = Recorded.read(name, max(budgets), seed)
        rng = np.random.default_rng(seed)
        sobol = sample_points(_sobol(recorded, max(budgets)))
        points = {
            "random": rng.random((max(budgets), 2)),
            "sobol": BoundarySampler(recorded.block).features(
                [dict(zip(("lr", "reg_weight"), point, strict=True)) for point in sobol]
            ),
            "boundary": refined(recorded),
        }
        for n in budgets:
            for way, x in points.items():
                found.setdefault((way, n), []).append(recorded.error(x[:n]))
            if seed == seeds[0]:
                found["grid", n] = [recorded.error(coarse(recorded, n))]
    rows = []
    for (way, n), errors in found.items():
        row: dict[str, Any] = {"way": way, "trials": n}
        for guess in ("nearest", "model"):
            values = [error[guess] for error in errors]
            row[guess] = {"mean": _r(np.mean(values)), "low": _r(min(values)), "high": _r(max(values))}
        rows.append(row)
    return sorted(rows, key=lambda row: (row["way"], row["trials"]))


def _sobol(recorded: Recorded, n: int) -> Any:
    import dataclasses

    assert recorded.block.sample is not None
    return dataclasses.replace(recorded.block.sample, method="sobol", n=n)


def _r(value: Any) -> float:
    return round(float(value), 4)


def savings(rows: Sequence[dict[str, Any]], guess: str) -> list[dict[str, Any]]:
    """For each size of the coarse grid: the fewest trials with which each other way is as good (mean error)."""
    table: dict[str, dict[int, float]] = {}
    for row in rows:
        table.setdefault(row["way"], {})[row["trials"]] = row[guess]["mean"]
    found = []
    for n, error in sorted(table["grid"].items()):
        needed = {
            way: min((m for m, e in table[way].items() if e <= error), default=None)
            for way in ("random", "sobol", "boundary")
        }
        found.append({"grid_trials": n, "error": error, **needed})
    return found


def main() -> None:
    """Replay, print and write the result; or record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", nargs="?", choices=("record",))
    parser.add_argument("--only", choices=tuple(DATA), help="one of the recorded grids; nothing is written")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    options = parser.parse_args()
    names = [options.only] if options.only else list(DATA)
    if options.mode == "record":
        for name in names:
            print(record(name))
        return
    result = {}
    for name in names:
        rows = replay(name, SEEDS[: options.seeds], BUDGETS)
        cells = Recorded.read(name, 1, 0)
        result[name] = {
            "cells": len(cells.stable),
            "stable": _r(cells.stable.mean()),
            "errors": rows,
            "as_good_as_a_grid": {guess: savings(rows, guess) for guess in ("nearest", "model")},
        }
        print(json.dumps(result[name]["as_good_as_a_grid"], indent=None))
    whole = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "seeds": options.seeds, "result": result,
        "git": git_state(), "versions": versions(),
    }  # fmt: skip
    if not options.only and options.seeds == len(SEEDS):
        path = HERE / "results" / f"refinement-{whole['date']}.json"
        path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
