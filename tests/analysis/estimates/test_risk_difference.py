from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test, ttest_1samp
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from tests.analysis.arm_tables import NAN, arm_table, at
from vistudy.analysis.estimates.risk_difference import (
    MIN_DIFFERING,
    equivalence,
    holm,
    mean_interval,
    missing_bounds,
    pair,
    pool,
    risk_difference,
    sign_flip,
)

T, B = "A1", "A0"


def two(t: object, b: object) -> pd.DataFrame:
    return arm_table({B: np.asarray(b, float), T: np.asarray(t, float)})


# -- pairs -------------------------------------------------------------------------------------------------------------


def test_e1_by_hand() -> None:
    found = risk_difference(pair(two([[1, 1], [1, 0], [0, 0], [1, 1]], [[0, 1], [0, 1], [0, 0], [1, 1]]), T, B))
    assert (found.n_configs, found.n_pairs, found.excluded) == (4, 8, {})
    assert (found.share_treatment, found.share_baseline, found.estimate) == (5 / 8, 4 / 8, 1 / 8)
    assert (found.rescued, found.broken) == (2, 1)
    assert found.p == 1.0  # d_c = 1/2, 0, 0, 0: both signs are as extreme
    assert found.mcnemar_p == 1.0  # 3 discordant pairs, 2 : 1
    json.dumps(dataclasses.asdict(found))


def test_configurations_weigh_the_same_whatever_their_seeds() -> None:
    found = risk_difference(pair(two([[1, 1], [0, NAN]], [[0, 0], [1, 1]]), T, B))
    assert found.estimate == 0.0  # (1 - 1) / 2; the pairs' mean would be 1/3
    assert found.n_pairs == 3
    assert (found.share_treatment, found.share_baseline) == (0.5, 0.5)


def test_what_is_left_out_is_counted_once_by_its_first_reason() -> None:
    table = two([[1, 1]] * 4, [[0, 0]] * 4)
    for config, seed, arm, state in (
        (0, 0, T, "failed"), (0, 0, B, "running"), (0, 1, B, "interrupted"), (1, 0, T, "planned"), (1, 1, T, "running"),
        (2, 0, B, "complete"),
    ):  # fmt: skip
        table.loc[at(table, arm, config, seed), ["state", "stable"]] = [state, NAN]
    table = table[~at(table, B, 2, 1)]
    pairs = pair(table, T, B)
    assert pairs.excluded == {"failed": 1, "missing": 3, "undetermined": 1, "absent": 1}
    assert pairs.configs == ("c0003",)
    assert pairs.n_pairs == 2
    assert sum(pairs.excluded.values()) + pairs.n_pairs == 8


def test_pairs_are_matched_by_name_not_by_place() -> None:
    table = two([[1, 0], [0, 0], [1, 1]], [[0, 1], [0, 0], [0, 1]])
    mixed = table.sample(frac=1, random_state=3)
    assert risk_difference(pair(mixed, T, B)) == risk_difference(pair(table, T, B))
    np.testing.assert_array_equal(pair(mixed, T, B).differences, [0, 0, 0.5])


def test_refusals_of_pairs() -> None:
    table = two([[1.0]], [[0.0]])
    for change, message in (
        (pd.concat([table, table[:1]]), "arm A0 has 1 trials twice; the first: config c0000, seed 0"),
        (table.assign(block=["x", "y"]), "one block at a time, got x, y"),
        (table.drop(columns="stable"), "no column stable"),
        (table[:1], "no arm 'A1'; the table has A0"),
        (table[:0], "no arm 'A1'; the table has no rows"),
        (table.assign(stable=[0.0, math.inf]), "arm A1: stable is infinite"),
    ):
        with pytest.raises(ValueError, match=message):
            pair(change, T, B)
    with pytest.raises(ValueError, match="cannot be compared with itself"):
        pair(table, B, B)
    with pytest.raises(ValueError, match=r"every value must be 0 or 1, got 0\.1"):
        risk_difference(pair(table, T, B, "q"))


def test_no_pairs_is_refused_with_its_reasons() -> None:
    table = two([[1.0], [1.0]], [[0.0], [0.0]])
    table.loc[at(table, B, 0, 0), ["state", "stable"]] = ["failed", NAN]
    table.loc[at(table, T, 1, 0), ["state", "stable"]] = ["running", NAN]
    message = r"no pairs of A1 and A0 \(a trial failed .*: 1; a trial .*not.*: 1\)"
    for function in (risk_difference, equivalence):
        with pytest.raises(ValueError, match=message):
            function(pair(table, T, B))
    apart = pd.concat([arm_table({B: [[1.0]]}), arm_table({T: [[1.0]]}).assign(config="other")])
    with pytest.raises(ValueError, match="the other arm has no trial of this configuration and seed: 2"):
        risk_difference(pair(apart, T, B))


def test_pooled_blocks_share_their_configurations() -> None:
    one = pair(two([[1], [1]], [[0], [0]]), T, B)
    other = pair(two([[0], [NAN], [1]], [[1], [1], [1]]), T, B)
    found = pool([one, other])
    assert found.configs == ("c0000", "c0001", "c0002")
    np.testing.assert_array_equal(found.differences, [0, 1, 0])  # c0000: +1 in one block, -1 in the other
    assert (found.n_pairs, found.excluded) == (4, {"undetermined": 1})
    assert risk_difference(pool([one])) == risk_difference(one)
    with pytest.raises(ValueError, match="nothing to pool"):
        pool([])
    with pytest.raises(ValueError, match="same arms and value"):
        pool([one, dataclasses.replace(other, value="q")])


# -- tests -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_sign_flip_is_scipys_permutation_test(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for d in (rng.integers(-2, 4, 11) / 2, rng.normal(0.4, 1, 9), np.array([1.0, 1, 1, 0, 0])):
        theirs = permutation_test(
            (d,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided", vectorized=True
        )
        assert sign_flip(d) == (pytest.approx(theirs.pvalue, abs=1e-12), "exact")


def test_sign_flip_by_hand_and_exact_for_many_configurations() -> None:
    assert sign_flip(np.array([1.0, 1, 1, 1, 1])) == (pytest.approx(2 / 32), "exact")
    assert sign_flip(np.zeros(7)) == (1.0, "exact")
    assert sign_flip(np.array([0.5])) == (1.0, "exact")
    d = np.repeat([0.5, -0.5, 0.0, 1.0], [40, 25, 100, 3])
    p, method = sign_flip(d)
    assert method == "exact"
    rng = np.random.default_rng(0)
    drawn = np.abs((rng.choice([-1, 1], (40_000, len(d))) * d).sum(1)) >= d.sum() - 1e-9
    assert p == pytest.approx(drawn.mean(), abs=4 * math.sqrt(p / 40_000))


def test_sign_flip_draws_where_it_cannot_enumerate() -> None:
    d = np.random.default_rng(1).normal(0.25, 1, 60)
    p, method = sign_flip(d, draws=20_000)
    assert method == "20000 draws"
    assert p == pytest.approx(ttest_1samp(d, 0).pvalue, rel=0.15)
    assert sign_flip(d, draws=20_000) == (p, method)
    assert sign_flip(np.full(60, 1.0) + np.arange(60) * 1e-3, draws=999)[0] == 1 / 1000  # never 0


def test_mcnemar_is_statsmodels() -> None:
    rng = np.random.default_rng(5)
    pairs = pair(two(rng.random((30, 1)) < 0.6, rng.random((30, 1)) < 0.3), T, B)
    both = [[int(((pairs.t == i) & (pairs.b == j)).sum()) for j in (1, 0)] for i in (1, 0)]
    assert risk_difference(pairs).mcnemar_p == pytest.approx(mcnemar(both, exact=True).pvalue)


# -- intervals ---------------------------------------------------------------------------------------------------------


def test_interval_of_many_configurations_is_students() -> None:
    d = np.random.default_rng(2).choice([-0.5, 0, 0.5, 1], 50)
    low, high, method = mean_interval(d, share=True)
    assert method == "cluster t"
    theirs = ttest_1samp(d, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((theirs.low, theirs.high))
    assert mean_interval(d, alpha=0.1, share=True)[1] < high


def test_few_configurations_that_differ_widen_the_interval() -> None:
    d = np.zeros(60)
    d[: MIN_DIFFERING - 1] = 0.5
    low, high, method = mean_interval(d, share=True)
    plain = mean_interval(d)
    assert "fewer than 10 configurations differ" in method
    assert plain[2] == "cluster t"
    assert high - low > plain[1] - plain[0]
    # by hand: centre 4.5 / 62, variance (9/4 + 1 - 62 centre^2) / 61, t quantile of 59 degrees of freedom
    centre = 4.5 / 62
    half = 2.0009953780882688 * math.sqrt((9 / 4 + 1 - 62 * centre**2) / 61 / 62)
    assert (low, high) == pytest.approx((centre - half, centre + half))


def test_no_configuration_that_differs_is_no_certainty() -> None:
    for values in ([[1, 1]] * 30, [[0, 0]] * 30):
        found = risk_difference(pair(two(values, values), T, B))
        bound = 1 - 0.025 ** (1 / 30)  # (1 - bound)^30 = 2.5 %
        assert (found.estimate, found.p, found.rescued, found.broken) == (0, 1, 0, 0)
        assert (found.low, found.high) == pytest.approx((-bound, bound))
        assert found.interval_method == "exact bound: no configuration differs"
    assert not equivalence(pair(two([[1]] * 30, [[1]] * 30), T, B), 0.08).equivalent
    enough = equivalence(pair(two([[1]] * 36, [[1]] * 36), T, B), 0.08)
    assert enough.p == pytest.approx(0.92**36)
    assert enough.equivalent
    assert enough.high < 0.08


def test_a_single_configuration_has_no_interval() -> None:
    pairs = pair(two([[1, 1, 1]], [[0, 0, 1]]), T, B)
    found = risk_difference(pairs)
    assert found.estimate == pytest.approx(2 / 3)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert (found.p, found.interval_method) == (1.0, "none: a single configuration")
    assert (equivalence(pairs).p, equivalence(pairs).equivalent) == (1.0, False)


def test_an_interval_of_shares_stays_within_them() -> None:
    found = risk_difference(pair(two([[1]] * 3, [[0], [0], [1]]), T, B))
    assert found.high == 1.0
    assert found.low < 0


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_exchanging_the_arms_mirrors_everything(rows: list[tuple[bool, bool, bool, bool]]) -> None:
    table = two([row[:2] for row in rows], [row[2:] for row in rows])
    one, other = (risk_difference(pair(table, *arms)) for arms in ((T, B), (B, T)))
    assert (one.estimate, one.low, one.high) == pytest.approx((-other.estimate, -other.high, -other.low), abs=1e-12)
    assert (one.p, one.rescued, one.mcnemar_p) == (pytest.approx(other.p), other.broken, pytest.approx(other.mcnemar_p))
    assert one.low <= one.estimate + 1e-12 <= one.high + 2e-12
    assert one.estimate == pytest.approx(one.share_treatment - one.share_baseline)


# -- equivalence, several tests, censoring -----------------------------------------------------------------------------


def test_equivalence_is_two_t_tests() -> None:
    rng = np.random.default_rng(4)
    pairs = pair(two(rng.random((80, 2)) < 0.5, rng.random((80, 2)) < 0.5), T, B)
    found, d = equivalence(pairs, 0.2), pairs.differences
    ends = [ttest_1samp(d, end, alternative=way).pvalue for end, way in ((-0.2, "greater"), (0.2, "less"))]
    assert found.p == pytest.approx(max(ends))
    theirs = ttest_1samp(d, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))
    for margin in (0.01, 0.05, 0.1, 0.15, 0.3):
        found = equivalence(pairs, margin)
        assert found.equivalent == (-margin < found.low and found.high < margin)
    with pytest.raises(ValueError, match="margin must be above 0"):
        equivalence(pairs, 0)


def test_holm_by_hand() -> None:
    found = holm([0.01, 0.04, 0.03, 0.005])
    assert found.adjusted == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert found.rejected == (True, False, False, True)
    p = np.random.default_rng(0).random(30) ** 3
    rejected, adjusted = multipletests(p, method="holm")[:2]
    assert holm(p.tolist()).adjusted == pytest.approx(adjusted)
    assert holm(p.tolist()).rejected == tuple(rejected)
    assert holm([]).adjusted == ()
    with pytest.raises(ValueError, match="p values must lie in"):
        holm([0.1, NAN])


def test_missing_bounds_by_hand() -> None:
    table = two([[1, NAN], [0, 0], [NAN, 1]], [[0, 0], [NAN, 0], [1, NAN]])
    table.loc[table["stable"].isna(), "state"] = "failed"
    table.loc[at(table, T, 2, 0), "state"] = "failed"
    found = missing_bounds(table, T, B)
    assert found is not None
    # config 0: 1-0, ?-0; config 1: 0-?, 0-0; config 2: ?-1, 1-?
    assert found.low.estimate == pytest.approx(((1 + 0) / 2 + (-1 + 0) / 2 + (-1 + 0) / 2) / 3)
    assert found.high.estimate == pytest.approx(((1 + 1) / 2 + 0 + (0 + 1) / 2) / 3)
    assert (found.planned, found.missing_treatment, found.missing_baseline) == (6, 2, 2)
    lacking = missing_bounds(table[~at(table, T, 2, 0)], T, B)
    assert lacking is not None
    assert (lacking.low.estimate, lacking.missing_treatment) == (found.low.estimate, 2)
    assert missing_bounds(two([[1], [0]], [[0], [0]]), T, B) is None


def test_missing_trials_of_one_arm_are_seen() -> None:
    table = two([[NAN]] * 8 + [[1]] * 12, [[0]] * 20)
    found = missing_bounds(table, T, B)
    assert found is not None
    assert found.p == pytest.approx(2 * 0.5**8)
