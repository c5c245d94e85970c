from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import t
from statsmodels.stats.power import TTestPower

from vistudy.analysis.estimates import power as powers
from vistudy.analysis.estimates.power import intercepts

HALF = 0.5
power, standard_error = partial(powers.power, base=HALF), partial(powers.standard_error, base=HALF)
detectable, needed = partial(powers.detectable, base=HALF), partial(powers.needed, base=HALF)


def test_the_base_rate_is_never_taken_silently() -> None:
    for call in (powers.power, powers.standard_error):
        with pytest.raises(TypeError, match="'base'"):
            call(60, 2, 0.08)
    for call in (powers.detectable, powers.needed):
        with pytest.raises(TypeError, match="'base'"):
            call(60, 2)
    assert powers.power(60, 2, 0.14, base=0.1) != pytest.approx(power(60, 2, 0.14), abs=0.05)


def test_standard_error_by_hand_without_heterogeneity() -> None:
    """All configurations alike, half stable: a pair's difference has variance 1/4 + 1/4."""
    assert standard_error(50, 2, config_sd=0, interaction_sd=0) == pytest.approx(math.sqrt(0.5 / 2 / 50))
    shares = (0.3, 0.5)
    error = standard_error(40, 3, 0.2, base=0.3, config_sd=0, interaction_sd=0)
    assert error == pytest.approx(math.sqrt(sum(p * (1 - p) for p in shares) / 3 / 40))


def test_standard_error_is_that_of_simulated_studies() -> None:
    rng = np.random.default_rng(0)
    a, b = intercepts(0.1, 0.4, 2.0, 1.0)
    u, v = rng.normal(0, 2, 400_000), rng.normal(0, 1, 400_000)
    p0, p1 = expit(a + u), expit(b + u + v)
    assert (p0.mean(), p1.mean()) == pytest.approx((0.4, 0.5), abs=0.002)
    d = rng.binomial(2, p1) / 2 - rng.binomial(2, p0) / 2
    assert standard_error(1, 2, 0.1, base=0.4) == pytest.approx(d.std(), rel=0.005)


def test_power_is_that_of_the_t_test_on_a_lattice() -> None:
    error = standard_error(60, 2, 0.08)
    level = 2 * t.sf(t.ppf(0.975, 59) + (1 / 2) / 60 / error, 59)  # half a step of the sum
    theirs = TTestPower().power(effect_size=0.08 / error / math.sqrt(60), nobs=60, alpha=level)
    assert power(60, 2, 0.08) == pytest.approx(theirs, rel=1e-6)
    assert power(60, 2, -0.08) == pytest.approx(power(60, 2, 0.08))
    assert 0.03 < power(60, 2, 0.0) < 0.05
    assert power(60, 1000, 0.0) == pytest.approx(0.05, abs=1e-3)
    assert power(60, 1000, 0.0, alpha=0.01) == pytest.approx(0.01, abs=1e-3)


@pytest.mark.parametrize(
    ("design", "difference", "found"),
    [((200, 2), 0.08, 0.79), ((100, 2), 0.08, 0.50), ((50, 4), 0.08, 0.41), ((100, 4), 0.08, 0.69),
     ((100, 4), 0.04, 0.27), ((300, 3), 0.08, 0.99), ((200, 1), 0.14, 0.94), ((100, 2), 0.14, 0.88)],
)  # fmt: skip
def test_power_of_the_planned_designs(design: tuple[int, int], difference: float, found: float) -> None:
    """Simulated elsewhere with the sign-flip test, a few hundred studies each: within .07."""
    assert power(*design, difference) == pytest.approx(found, abs=0.07)


def test_more_configurations_beat_more_seeds() -> None:
    assert power(200, 1, 0.08) > power(100, 2, 0.08) > power(50, 4, 0.08) > power(25, 8, 0.08)


def test_needed_and_detectable_invert_power() -> None:
    configs = needed(0.08, 2)
    assert power(configs, 2, 0.08) >= 0.8 > power(configs - 1, 2, 0.08)
    least = detectable(60, 2)
    assert power(60, 2, least) == pytest.approx(0.8, abs=1e-3)
    assert 0.13 < least < 0.18
    assert needed(0.08, 4) < configs < needed(0.08, 1)
    assert detectable(60, 2, target=0.9) > least
    assert math.isnan(detectable(2, 1))
    assert power(2000, 3, 0.4) == pytest.approx(1.0)
    assert math.isnan(detectable(60, 2, base=0.97))


def test_refusals() -> None:
    for call, message in (
        (lambda: power(1, 2, 0.1), "at least two configurations, got 1"),
        (lambda: power(10, 0, 0.1), "configurations and seeds, got 10 and 0"),
        (lambda: power(10, 2, 0.6), r"between 0 and 1, got 0\.5 and 1\.1"),
        (lambda: power(10, 2, 0.1, alpha=0), "alpha must lie between"),
        (lambda: power(10, 2, 0.1, config_sd=-1), "must not be negative"),
        (lambda: needed(0.0, 2), "cannot be found"),
        (lambda: needed(0.1, 2, target=0.01), "target power must lie between"),
        (lambda: detectable(10, 2, target=1), "target power must lie between"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
