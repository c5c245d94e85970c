from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from tests.analysis.arm_tables import NAN, arm_table, at
from vistudy.analysis.estimates.importance import importances

NAMES = ["lr", "norm", "ratio", "idle"]


def study(f: Callable[..., np.ndarray], n: int = 400, *, noise: float = 0.05, seed: int = 0) -> pd.DataFrame:
    """Configurations drawn over lr (x = -1..1 in its logarithm), norm (s = -1, 1) and ratio; q = f(x, s) + noise."""
    rng = np.random.default_rng(seed)
    x, s = rng.uniform(-1, 1, n), rng.choice([-1, 1], n)
    q = f(x, s)[:, None] + noise * rng.standard_normal((n, 2))
    norm = np.where(s > 0, "bn", "none")
    ratio, idle = rng.choice(["1:2", "1:10"], n), rng.random(n)
    return arm_table({"A0": q}, "q", lr=10 ** (1.5 * x - 3.5), norm=norm, ratio=ratio, idle=idle, constant=7)


def test_additive_function_has_its_main_effects_and_no_interaction() -> None:
    found = importances(study(lambda x, s: 0.5 + 0.3 * x + 0.1 * s), "A0", NAMES)
    assert found.main["lr"] == pytest.approx(0.09 / 3, rel=0.08)  # variance of uniform -1..1 is 1/3
    assert found.main["norm"] == pytest.approx(0.01, rel=0.12)
    assert max(found.main["ratio"], found.main["idle"], *found.interactions.values()) < 0.0008
    assert set(found.interactions) == {
        "lr x norm", "lr x ratio", "lr x idle", "norm x ratio", "norm x idle", "ratio x idle"
    }  # fmt: skip
    assert found.seed_variance == pytest.approx(0.0025, rel=0.15)
    assert found.total == pytest.approx(0.03 + 0.01 + 0.0025, rel=0.1)
    assert (found.n_configs, found.n_trials, found.floor) == (400, 800, {})


def test_pure_interaction_has_no_main_effect() -> None:
    found = importances(study(lambda x, s: 0.5 + 0.3 * x * s), "A0", NAMES)
    assert 0.8 * 0.03 < found.interactions["lr x norm"] < 1.05 * 0.03
    assert max(found.main.values()) < 0.002


def test_variance_is_not_normalised() -> None:
    """Half the effect is a quarter of the variance, although each is all there is."""
    strong, weak = (
        importances(study(lambda x, s, size=size: size * x, noise=0.001), "A0", ["lr"]).main["lr"]
        for size in (0.4, 0.2)
    )
    assert strong / weak == pytest.approx(4, rel=0.02)
    assert strong == pytest.approx(0.16 / 3, rel=0.1)


def test_diverged_trials_take_part_with_the_cap() -> None:
    """All that lr does is to make trials diverge: without them there would be nothing to explain."""
    table = study(lambda x, s: np.where(x > 0, 1.0, 0.2), noise=0.0)
    assert importances(table, "A0", NAMES).main["lr"] == pytest.approx(0.8**2 / 4, rel=0.05)
    kept = table[table["q"] < 1]
    assert importances(kept, "A0", NAMES).main["lr"] == pytest.approx(0, abs=1e-9)


def test_failure_and_labels() -> None:
    table = study(lambda x, s: np.where(s > 0, 0.1, 0.9), noise=0.0)
    assert importances(table, "A0", NAMES, value="failure").main["norm"] == pytest.approx(0.25, rel=0.03)
    table["outcome"] = np.where(table["stable"] > 0, "converged", np.where(table["lr"] > 10**-3.5, "diverged", "slow"))
    found = importances(table, "A0", NAMES, value="diverged")
    # 1 where norm is none and x > 0: both main effects 1/16, interaction 1/16
    assert [found.main["lr"], found.main["norm"], found.interactions["lr x norm"]] == pytest.approx(
        [1 / 16] * 3, rel=0.25
    )


def test_the_floor_is_what_noise_gives() -> None:
    found = importances(study(lambda x, s: 0.5 + 0.3 * x, 60), "A0", NAMES, permutations=5, trees=16)
    assert set(found.floor) == {*found.main, *found.interactions}
    assert 0 < found.floor["lr"] < 0.2 * found.main["lr"]
    assert found.main["idle"] < 5 * found.floor["idle"]


def test_a_constant_hyperparameter_explains_nothing_and_all_equal_is_zero() -> None:
    table = study(lambda x, s: 0.5 + 0.3 * x, 40)
    assert importances(table, "A0", ["lr", "constant"], trees=8).main["constant"] == pytest.approx(0, abs=1e-12)
    flat = importances(table.assign(q=0.3), "A0", NAMES, trees=8)
    assert max(flat.main.values()) == pytest.approx(0, abs=1e-12)
    assert flat.total == pytest.approx(0)


def test_same_seed_same_numbers_and_order_of_rows_does_not_matter() -> None:
    table = study(lambda x, s: 0.5 + 0.3 * x, 30)
    assert importances(table, "A0", NAMES, trees=8) == importances(table, "A0", NAMES, trees=8)
    assert importances(table, "A0", NAMES, trees=8) != importances(table, "A0", NAMES, trees=8, seed=1)
    mixed = importances(table.sample(frac=1, random_state=0), "A0", NAMES, trees=8)
    assert mixed.main == pytest.approx(importances(table, "A0", NAMES, trees=8).main, rel=1e-6)


def test_importances_refuse() -> None:
    table = study(lambda x, s: x, 12)
    few = table[table["config"] < "c0009"]
    for change, names, value, message in (
        (table, NAMES, "loss", "unknown value 'loss'; allowed: q, failure, diverged"),
        (table, [], "q", "one or more different"),
        (table, ["lr", "lr"], "q", "one or more different"),
        (table, ["depth"], "q", "no column depth"),
        (table.assign(lr=NAN), NAMES, "q", "hyperparameter lr has no value in 24 trials"),
        (table.assign(lr=np.linspace(1, 2, 24)), NAMES, "q", "lr differs within a configuration"),
        (few, NAMES, "q", "at least 10 evaluable configurations, arm A0 has 9"),
        (table.assign(q=NAN, state="failed"), NAMES, "q", "arm A0 has 0"),
    ):
        with pytest.raises(ValueError, match=message):
            importances(change, "A0", names, value=value)
    table.loc[at(table, "A0", 0, 0), ["q", "stable", "state"]] = [NAN, NAN, "failed"]
    found = importances(table, "A0", NAMES, trees=4)
    assert (found.excluded, found.n_trials, found.n_configs) == ({"failed": 1}, 23, 12)
