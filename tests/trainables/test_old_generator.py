from __future__ import annotations

import pytest
import torch

from vistudy.trainables.old_generator import Anchor
from vistudy.trainables.optim import column

CPU = torch.device("cpu")


def history(kind: str, *, lag: int = 2, decay: float = 0.75, g_steps: int = 3, periods: int = 3) -> list[float]:
    """The anchor's parameter at each generator update, when update u leads from parameter u to u + 1."""
    flat, seen = torch.zeros(1, 1), []
    anchor = Anchor(kind, flat, lag=lag, decay=column([decay], CPU))
    for _ in range(periods):
        anchor.start_period(flat)
        for _ in range(g_steps):
            seen.append(anchor.flat.item())
            flat += 1
            anchor.updated(flat)
    return seen


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("period_start", [0, 0, 0, 3, 3, 3, 6, 6, 6]),
        ("param_space", [0, 0, 0, 3, 3, 3, 6, 6, 6]),
        ("previous_period", [0, 0, 0, 0, 0, 0, 3, 3, 3]),
        ("previous_update", [0, 0, 1, 2, 3, 4, 5, 6, 7]),
        ("lag", [0, 0, 0, 1, 2, 3, 4, 5, 6]),
        # a_u = 3/4 a_(u-1) + u/4
        (
            "ema",
            [0, 0.25, 0.6875, 1.265625, 1.94921875, 2.7119140625, 3.533935546875, 4.40045166015625, 5.3003387451171875],
        ),
    ],
)
def test_which_generator_is_the_old_one(kind, expected):
    assert history(kind) == expected


def test_previous_period_is_previous_update_where_a_period_has_one_update():
    assert history("previous_period", g_steps=1, periods=6) == history("previous_update", g_steps=1, periods=6)


def test_previous_update_is_lag_1():
    assert history("lag", lag=1) == history("previous_update")


@pytest.mark.parametrize("kind", ["period_start", "previous_update", "previous_period", "lag", "ema"])
def test_state_is_complete(kind):
    def run(restart: bool) -> list[float]:
        flat, seen = torch.zeros(2, 1), []
        anchor = Anchor(kind, flat, lag=3, decay=column([0.9, 0.5], CPU))
        for period in range(4):
            if restart and period == 2:
                state = anchor.state()
                anchor = Anchor(kind, torch.full_like(flat, -7), lag=3, decay=column([0.9, 0.5], CPU))
                anchor.load(state)
            anchor.start_period(flat)
            for _ in range(2):
                seen += anchor.flat.flatten().tolist()
                flat += torch.tensor([[1.0], [2.0]])
                anchor.updated(flat)
        return seen

    assert run(restart=True) == run(restart=False)
