from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.analysis.armstore import CLAIM, SPACE, entry, make_arm_store, train_all
from tests.analysis.series import cut, series
from tests.analysis.store import train
from vistudy import load_arms, multiverse_check, verdict
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.outcomes.label_study import read_trials
from vistudy.analysis.outcomes.labels import Thresholds
from vistudy.analysis.outcomes.relabel import StabilityByThreshold
from vistudy.analysis.verdict.decide import decide
from vistudy.analysis.verdict.multiverse import BOXES, ENDPOINTS, PERSISTENCE, TAU_OK, WINDOW
from vistudy.analysis.verdict.multiverse_pairs import same_but_weight
from vistudy.analysis.verdict.results import REFUSED

BASES = [Thresholds(), Thresholds(early_coverage=0.9, collapse_peak=0.98, converged_share=0.8)]
VARIANTS = [
    dataclasses.replace(base, tau_ok=tau, window_share=window, persistence_share=0.0, persistence_min=w)
    for base, tau, window, w in itertools.product(BASES, TAU_OK, WINDOW, PERSISTENCE)
]
ARMS: dict[str, Any] = {
    "A0": {"reg_weight": 0},
    "A1": {"reg_weight": 5, "anchor": "period_start"},
    "weak": {"reg_weight": 0.5, "anchor": "period_start"},
    "A5": {"reg_weight": 5, "anchor": "ema"},
    "drawn": {"reg_weight": {"low": 0.5, "high": 50}, "anchor": "period_start"},
}
RING = {"family": "gan_ring", "class": "P", "arms": ARMS, "sampled": list(SPACE), "factors": {}, "fixed": {},
        "sample": {"method": "sobol", "n": 60, "seed": 0, "space": SPACE}}  # fmt: skip


def wild(rng: np.random.Generator, evaluations: int) -> dict[str, np.ndarray]:
    """A run with a little of everything that the rules know."""
    t = np.arange(evaluations + 1) / evaluations
    kind = rng.integers(10)
    floor, rate = rng.choice([0.05, 0.14, 0.2, 0.3, 0.5, 0.9]), rng.choice([3.0, 10.0, 40.0])
    dist = floor + (1 - floor) * np.exp(-rate * t) + rng.normal(0, rng.choice([0, 0.03, 0.1]), t.size)
    cov, prec = np.full(t.size, 1 - floor / 2), np.full(t.size, rng.choice([0.95, 0.6]))
    if kind == 1:
        cov[t > rng.random()] *= rng.choice([0.3, 0.5, 0.8])
    if kind == 2:
        cov[:] = rng.choice([0.1, 0.25, 0.4])
    run = series(np.abs(dist), cov=cov, prec=prec, evaluations=evaluations)
    if kind == 3:
        run["g_param_norm"][int(rng.integers(t.size)) :][: int(rng.integers(1, 6))] = 1e6
    if kind == 4:
        run["dist"][rng.integers(t.size, size=int(rng.integers(1, 8)))] = np.nan
    if kind == 5:
        run["dist"][rng.integers(t.size)] = np.inf
    if kind == 6:
        stop = int(rng.integers(t.size))
        run["finite"][stop] = 0.0
        run = cut(run, stop)
    if kind == 7:
        run = cut(run, int(rng.integers(t.size)))
    if kind == 8:
        del run["cov"], run["prec"]
    if kind == 9:  # more coverage than real data, then much less, and still good enough
        run["cov"], run["dist"] = np.where(t < 0.5, 1.4, 0.67), np.full(t.size, 0.02)
    return run


def test_relabelling_together_says_what_the_label_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    lengths = {f"t{i}": int(rng.choice([4, 12, 50])) for i in range(60)}
    trials = [entry(name, {"arm": "A0", "lr": 1e-3 + i * 1e-6}, config={"evaluations": e})
              for i, (name, e) in enumerate(lengths.items())]  # fmt: skip
    ledger = make_arm_store(tmp_path, trials, {"ring": RING})
    train(ledger, "p1", {name: wild(rng, e) for name, e in lengths.items()})
    read = read_trials(ledger, "demo")
    relabelled = [StabilityByThreshold(read, base) for base in BASES]
    seen = set()
    for i, thresholds in enumerate(VARIANTS):
        last, best = relabelled[i * len(BASES) // len(VARIANTS)].stable(thresholds)
        for name in lengths:
            outcome = read.outcome(name, thresholds)
            assert outcome is not None
            unknown = outcome.label == "undetermined"
            said = (outcome.label == "converged", outcome.t_thr is not None)
            expected = [np.nan, np.nan] if unknown else list(map(float, said))
            assert np.array_equal([last[name], best[name]], expected, equal_nan=True), (name, thresholds)
            seen.add(outcome.label)
    assert len(seen) == 9  # all but stalled_d_won


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """Sixty configurations with one seed in two arms and a weaker one; A1 rescues a half of the others."""
    trials, quality = [], {}
    for i in range(60):
        cell = {"lr": float(f"{10 ** (-4 + 3 * ((0.5 + i * 0.56984) % 1)):.6g}"), "batch_norm": bool(i % 2)}
        for arm, good in (("A0", i % 2), ("A1", i % 4 > 0), ("weak", i % 2)):
            name = f"{arm}-{i}"
            trials.append(entry(name, {"arm": arm, **cell}, config={"reg_weight": float(ARMS[arm]["reg_weight"])}))
            # good: below every threshold at the end; bad: below one of them, or late
            quality[name] = 0.1 if good else 0.2 if i % 12 == 0 else (lambda t: np.where((t > 9) & (t < 16), 0.1, 0.9))
    other = RING | {"class": "G"}
    grid = [entry(f"g{arm}", {"arm": arm, "lr": 1e-3}, block="grid") for arm in ("A0", "A1")]
    flat = {"grid": RING | {"sampled": [], "sample": None, "factors": {"lr": [1e-3]}}, "ring": RING, "empty": other}
    ledger = make_arm_store(tmp_path_factory.mktemp("multiverse"), trials + grid, flat, CLAIM)
    train_all(ledger, quality)
    return ledger


def test_every_variant_is_decided(store: Ledger) -> None:
    found = multiverse_check(store, "demo")
    assert [block.block for block in found.blocks] == ["ring"]
    own = found.table[found.table["treatment"] == "A1"]
    assert len(own) == len(TAU_OK) * len(WINDOW) * len(PERSISTENCE) * len(ENDPOINTS) * len(BOXES)
    assert not own.duplicated(["tau_ok", "window", "persistence", "endpoint", "box"]).any()
    block = found.blocks[0]
    assert (block.variants, block.same) == (len(own), int(own["same"].sum()))
    assert found.share == pytest.approx(own["same"].mean())
    assert 0 < found.share < 1
    assert sum(block.counts.values()) == len(own)
    assert sum(block.other_weights.values()) == len(found.table) - len(own)
    assert "With other weights (weak)" in block.sentence
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["share"] == found.share
    assert block.sentence in found.to_markdown()


def test_a_variant_is_what_the_decision_says_under_its_thresholds(store: Ledger) -> None:
    found = multiverse_check(store, "demo")
    decided = {block.block: block for block in verdict(store, "demo").blocks}
    assert found.blocks[0].verdict == decided["ring"].verdict
    assert decided["grid"].verdict == decided["empty"].verdict == REFUSED
    assert "it has no trial of arm A1 or A0" in decided["empty"].sentence
    assert (decided["empty"].block_class, decided["empty"].family) == ("G", "gan_ring")
    rows = found.table[(found.table["endpoint"] == "last window") & (found.table["box"] == "whole")]
    for tau in (0.15, 0.35):
        claim = CLAIM | {"thresholds": {"tau_ok": tau}}
        row = rows[(rows["tau_ok"] == tau) & (rows["window"] == 0.25) & (rows["persistence"] == 5)].iloc[0]
        table = load_arms(store, "demo", Thresholds(tau_ok=tau))

        block = next(b for b in decide(table, claim, draws=100).blocks if b.block == "ring")
        assert block.difference is not None
        assert (row["estimate"], row["low"], row["high"]) == pytest.approx(
            (block.difference.estimate, block.difference.low, block.difference.high)
        )
        assert row["verdict"] == block.verdict


def test_the_trimmed_box_has_no_edges(store: Ledger) -> None:
    table = load_arms(store, "demo")
    inside = table[(table["block"] == "ring") & table["lr"].between(10**-3.5, 10**-1.5)]
    stable = inside.pivot(index="config", columns="arm", values="stable")
    found = multiverse_check(store, "demo").table
    row = found[(found["box"] == "trimmed") & (found["tau_ok"] == 0.25) & (found["endpoint"] == "last window")
                & (found["treatment"] == "A1")].iloc[0]  # fmt: skip
    assert 0 < len(stable) < 60
    assert row["estimate"] == pytest.approx((stable["A1"] - stable["A0"]).mean())


def test_best_so_far_counts_what_was_good_once(store: Ledger) -> None:
    rows = multiverse_check(store, "demo").table
    best = rows[(rows["endpoint"] == "best so far") & (rows["treatment"] == "A1")]
    assert best["estimate"].to_numpy() == pytest.approx(0)  # every run was good for six evaluations at some time


def test_nothing_to_vary(tmp_path: Path) -> None:
    trials = [entry(arm, {"arm": arm, "lr": 1e-3}) for arm in ("A0", "A1")]
    found = multiverse_check(make_arm_store(tmp_path, trials, {"ring": RING}, CLAIM), "demo")
    assert (found.blocks, len(found.table)) == ((), 0)
    assert np.isnan(found.share)
    assert found.to_json()["share"] is None
    assert found.to_markdown().startswith("No block")


def test_a_variant_that_leaves_too_few_pairs_is_refused(tmp_path: Path) -> None:
    trials, runs = [], {}
    for i in range(20):
        for arm in ("A0", "A1"):
            trials.append(entry(f"{arm}-{i}", {"arm": arm, "lr": 10 ** (-3.9 + 0.14 * i), "batch_norm": True}))
            runs[f"{arm}-{i}"] = series(0.1)
            if i < 3:  # five of the last eight, of the last thirteen or of the last eighteen are not known
                runs[f"{arm}-{i}"]["dist"][45:50] = np.nan
    ledger = make_arm_store(tmp_path, trials, {"ring": RING}, CLAIM)
    train(ledger, "p1", runs)
    rows = multiverse_check(ledger, "demo").table
    assert not (rows[rows["box"] == "trimmed"]["verdict"] == REFUSED).any()  # the three are at the edge
    rows = rows[rows["box"] == "whole"]
    assert set(rows["window"]) == {0.15, 0.25, 0.35}
    assert (rows[rows["window"] == 0.15]["verdict"] == REFUSED).all()
    assert not (rows[rows["window"] > 0.15]["verdict"] == REFUSED).any()


def test_arms_that_differ_in_the_weight_alone() -> None:
    assert same_but_weight(ARMS, "A1") == ["weak"]
    assert same_but_weight(ARMS, "A0") == []
    assert same_but_weight(ARMS, "drawn") == []
