from __future__ import annotations

import numpy as np
import pytest

from tests.analysis.armstore import also, block, share
from vistudy.analysis.estimates.risk_difference import pair
from vistudy.analysis.estimates.strata import dependent, equal_p, factors, opposite
from vistudy.analysis.verdict.pooling import random_effects

BOX = (1e-4, 1e-1)


def test_strata_have_their_own_differences() -> None:
    rows = block({"A0": share(0.3), "A1": lambda c, s: bool(c % 2) or share(0.3)(c, s)}, cut=True)
    pairs = pair(rows, "A1", "A0")
    norm, lr = factors(rows, pairs, BOX, 0.05)
    assert [s.level for s in norm.strata] == ["false", "true"]
    assert [s.level for s in lr.strata] == ["below 0.0032", "from 0.0032"]
    odd = rows["stratum"] == "batch_norm=true"
    means = rows[odd].groupby("arm")["stable"].mean()
    assert norm.strata[1].estimate == pytest.approx(means["A1"] - means["A0"])
    assert norm.strata[0].estimate == 0
    assert (norm.p, norm.p_holm) == pytest.approx((0.0002, 0.0004))
    assert lr.p > 0.05
    assert dependent((norm, lr), 0.05, 0.08) == (norm,)
    assert dependent((norm, lr), 0.05, 0.95) == ()
    assert not opposite(norm)


def test_equal_differences_are_seldom_called_unequal() -> None:
    """With a dead half of the box, whose differences have no spread."""
    rng, place, few = np.random.default_rng(0), np.arange(60) % 2, 0
    for _ in range(300):
        d = place * (rng.integers(0, 2, 60) - rng.integers(0, 2, 60)).astype(float)
        few += equal_p(d, place, 199) <= 0.05
    assert few <= 28  # 15 are expected


def test_random_effects_of_blocks_that_differ() -> None:
    """Many degrees of freedom where blocks agree; as many as blocks less one where they do not."""
    blocks = {name: pair(block({"A0": share(0.2), "A1": also(share(0.2), more)}, name), "A1", "A0")
              for name, more in (("a", 0.1), ("b", 0.8))}  # fmt: skip
    found = random_effects(blocks)
    estimates = [pairs.differences.mean() for pairs in blocks.values()]
    assert found.between_sd == pytest.approx(np.ptp(estimates) / 2**0.5, rel=0.1)
    assert found.p_equal < 1e-6
    assert list(found.weights.values()) == pytest.approx([0.5, 0.5], abs=0.05)
    assert found.low == -1  # two blocks that differ say little of a third
    assert found.high == 1
