from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from tests.analysis.frames import LR5, make_frame
from vistudy.analysis.figures.grid_layout import layout_arm_table
from vistudy.analysis.figures.matplotlib_renderer import draw
from vistudy.analysis.figures.specs import Tile, arm_styles, save, tile_colour
from vistudy.analysis.maps.difference import (
    difference_figure,
    difference_map,
    grid_figure,
    paired_interval,
    stability_figure,
    whole_points,
)
from vistudy.analysis.maps.heatmap_cells import blocks
from vistudy.analysis.tables.arm_table import arms_by_weight
from vistudy.analysis.tables.rates import wilson


def arm_rows(
    arm: str, stable: dict[tuple[str, int], float], *, block: str = "ring8-P", state: str = "complete"
) -> pd.DataFrame:
    """An arm table by hand: (config, seed) -> stable."""
    rows: list[dict[str, Any]] = []
    for (config, seed), value in stable.items():
        levels = dict(part.split("=") for part in config.split(","))
        rows.append({
            "block": block, "family": "gan", "class": "P", "arm": arm, "config": config, "seed": seed, "stable": value,
            "q": 0.1 if value else 0.9, "lr": float(levels["lr"]), "trial_id": f"{arm}{config}{seed}",
            "state": "failed" if math.isnan(value) else state, "outcome": "converged" if value else "slow",
        })  # fmt: skip
    return pd.DataFrame(rows)


LOW, HIGH = "batch_norm=true,lr=0.001", "batch_norm=true,lr=0.01"
NAN = float("nan")
HAND = pd.concat([
    arm_rows("A0", {(LOW, 0): 1, (LOW, 1): 0, (LOW, 2): 0, (LOW, 3): 1, (HIGH, 0): 1, (HIGH, 1): NAN}),
    arm_rows("A1", {(LOW, 0): 1, (LOW, 1): 1, (LOW, 2): 1, (LOW, 3): 0, (HIGH, 0): NAN, (HIGH, 1): 1}),
])  # fmt: skip


def tiles(table: pd.DataFrame) -> list[Tile | None]:
    return [tile for row in difference_map(table, "A1", "A0").tiles for tile in row]


def test_difference_of_pairs_counted_by_hand() -> None:
    low, high = tiles(HAND)
    assert low is not None
    assert high is not None
    assert low.value == pytest.approx(1 / 4)  # 2 rescued, 1 broken of 4 pairs
    assert (low.text, low.small[0]) == ("+25", "3 vs 2 of 4")
    assert "2 rescued, 1 broken, 4 pairs of 4" in low.note
    assert (math.isnan(high.value), high.text, high.small) == (True, "", ("no pairs",))
    assert "none of 2 pairs is evaluable in both arms" in high.note


def test_paired_interval() -> None:
    # Newcombe's formula, worked out: no discordance, phi = 0 as a margin is 0
    low, high = paired_interval(4, 0, 0, 0)
    assert high == pytest.approx(1 - wilson(4, 4)[0])
    assert low == pytest.approx(-high)
    assert paired_interval(20, 12, 2, 16) == pytest.approx((0.0562, 0.3292), abs=1e-4)  # Newcombe 1998, table III
    for counts in ((3, 2, 1, 4), (0, 5, 0, 0), (9, 0, 1, 0), (1, 1, 1, 1), (0, 0, 0, 7)):
        both, rescued, broken, neither = counts
        low, high = paired_interval(*counts)
        assert -1 <= low <= (rescued - broken) / sum(counts) <= high <= 1
        assert paired_interval(both, broken, rescued, neither) == pytest.approx((-high, -low))
    assert np.isnan(paired_interval(0, 0, 0, 0)).all()


def test_outline_says_that_the_interval_leaves_zero_out() -> None:
    seeds = range(6)
    clear = pd.concat([
        arm_rows("A0", dict.fromkeys(((LOW, s) for s in seeds), 0)),
        arm_rows("A1", dict.fromkeys(((LOW, s) for s in seeds), 1)),
    ])  # fmt: skip
    (tile,) = tiles(clear)
    assert tile is not None
    assert tile.strong
    assert not any(tile.strong for tile in tiles(HAND) if tile)


def test_a_trial_twice_and_several_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"arm A0 has two trials of config .*lr=0.001"):
        difference_map(pd.concat([HAND, HAND]), "A1", "A0")
    with pytest.raises(ValueError, match="one block at a time"):
        difference_map(pd.concat([HAND, HAND.assign(block="b")]), "A1", "A0")
    assert difference_figure(HAND, "A9", "A0").maps == ()


def test_box_bins_rates_orders_rows_and_pools_what_has_too_many_levels() -> None:
    rng = np.random.default_rng(0)
    texts = [
        f"beta={rng.random():.6f},lr={10 ** rng.uniform(-4, -1):.6g},ratio={r}"
        for r in ("10:1", "1:2", "1:10")
        for _ in range(20)
    ]
    table = arm_rows("A0", {(text.replace(":", "/"), 0): 1.0 for text in texts})
    table["config"] = table["config"].str.replace("/", ":")
    box = layout_arm_table(table)
    assert len(box.x_texts) == 8
    assert box.x_label.endswith("in bins")
    assert box.y_texts == ("1:2", "1:10", "10:1")
    assert box.pooled == ("beta",)
    order = np.argsort(table["lr"])
    assert (np.diff(box.x[order]) >= 0).all()
    assert set(box.x) <= set(range(8))


def test_levels_of_reg_weight_are_the_arms_of_a_study_without_arms() -> None:
    frame = make_frame({"lr": LR5, "reg_weight": [0, 5]}, seeds=2, gaps=False)
    frame.loc[0, "outcome"] = "diverged"
    frame.loc[1, ["state", "outcome"]] = ["failed", None]
    frame.loc[2, "q_final"] = 7.0
    table = arms_by_weight(frame)
    assert table["arm"].unique().tolist() == ["λ = 0", "λ = 5"]
    assert table["config"].unique().tolist() == [f"lr={lr:g}" for lr in LR5]
    by_id = table.set_index("trial_id")
    first, second, third = (by_id.loc[trial_id] for trial_id in frame["trial_id"][:3])
    assert (first["q"], first["stable"]) == (1.0, 0.0)
    assert np.isnan(second["stable"])
    assert np.isnan(second["q"])
    assert third["q"] == 1.0
    found = difference_map(table, "λ = 5", "λ = 0")
    assert sum(tile is not None for row in found.tiles for tile in row) == 5


def test_maps_of_shares_and_of_heatmaps_say_k_of_n() -> None:
    frame = make_frame({"lr": LR5, "reg_weight": [0, 5]}, seeds=4, gaps=False)
    frame["outcome"] = ["converged", "slow", "slow", "slow"] * 10
    shares = stability_figure(arms_by_weight(frame))
    grid = grid_figure(blocks(frame)[0])
    for figure in (shares, grid):
        found = [tile for m in figure.maps for row in m.tiles for tile in row if tile]
        assert len(found) == 10
        assert {(tile.text, tile.value) for tile in found} == {("1/4", 0.25)}
        assert all("1 of 4 stable, 95 % interval 5% to 70%" in tile.note for tile in found)


def test_print_has_the_numbers_and_nothing_leaves_the_page(tmp_path: Any) -> None:
    figure = draw(difference_figure(HAND, "A1", "A0"))
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    words = [t for t in figure.findobj(Text) if t.get_text()]
    assert {"+25", "3 vs 2 of 4", "no pairs"} <= {word.get_text() for word in words}
    for word in words:
        box = word.get_window_extent(renderer)
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, word.get_text()
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1, word.get_text()
    first = save(figure, tmp_path / "a", "x", png=False)[0].read_bytes()
    again = save(draw(difference_figure(HAND, "A1", "A0")), tmp_path / "b", "x", png=False)[0].read_bytes()
    assert first == again


def test_colours_and_styles() -> None:
    assert tile_colour(0.0, True) == tile_colour(-1e-9, True) == "#f5f3ee"
    assert tile_colour(1.0, True) != tile_colour(-1.0, True)
    assert arm_styles(["A1", "X", "A0"], "A0", "A1") == {"A0": 0, "A1": 1, "X": 2}
    assert max(arm_styles([str(i) for i in range(20)]).values()) == 7
    assert [whole_points(x) for x in (0.254, -0.03, 0.001, NAN)] == ["+25", "−3", "0", "–"]
