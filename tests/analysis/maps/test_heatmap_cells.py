from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.analysis.frames import LR5, REG4, make_frame
from vistudy.analysis.maps.facets import wrapped
from vistudy.analysis.maps.heatmap_cells import blocks, factors_of
from vistudy.analysis.tables.formatting import level_text


def test_every_trial_is_in_exactly_one_cell() -> None:
    first = make_frame({"lr": LR5, "reg_weight": REG4, "batch_norm": [False, True], "ratio": ["1:2", "1:10"]})
    second = make_frame({"lr": LR5[:2], "reg_weight": [0, 5]}, data="digits")
    frame = pd.concat([first, second.assign(trial_id="d" + second["trial_id"])], ignore_index=True)
    found = blocks(frame)
    assert [block.key for block in found] == ["gan-ring8", "gan-digits"]
    ids = [i for b in found for f in b.facets for c in f.cells for i in c.trials["trial_id"]]
    assert sorted(ids) == sorted(frame["trial_id"])


def test_cells_lie_at_their_levels() -> None:
    frame = make_frame({"lr": LR5[::-1], "reg_weight": REG4, "ratio": ["5:10", "1:2"]})
    (block,) = blocks(frame)
    assert block.x.levels == tuple(LR5)
    assert block.y.levels == (0, 0.5, 5, 50)
    assert [facet.title for facet in block.facets] == ["D:G steps 5:10", "D:G steps 1:2"]
    for facet in block.facets:
        assert len({(c.x, c.y) for c in facet.cells}) == 20
        for cell in facet.cells:
            assert set(cell.trials["g_lr"]) == {LR5[cell.x]}
            assert set(cell.trials["reg_weight"]) == {float(REG4[cell.y])}
            assert set(cell.trials["g_steps"]) == {int(facet.title.rsplit(":", 1)[1])}


def test_two_factors_make_rows_and_columns() -> None:
    factors = {"lr": LR5, "batch_norm": [False, True], "ratio": ["1:1", "1:2", "1:10"]}
    (block,) = blocks(make_frame(factors))
    assert block.shape == (2, 3)
    assert [(f.row, f.column, f.title) for f in block.facets][3:] == [
        (1, 0, "batch norm on · D:G steps 1:1"),
        (1, 1, "batch norm on · D:G steps 1:2"),
        (1, 2, "batch norm on · D:G steps 1:10"),
    ]


def test_rates_that_differ_are_an_axis_and_a_facet() -> None:
    frame = make_frame({"lr": LR5, "reg_weight": [0, 5]})
    assert blocks(frame)[0].x.label == "learning rate of G and D (Adam)"
    both = pd.concat([frame, frame.assign(d_lr=1.0, trial_id="d" + frame["trial_id"])])
    (block,) = blocks(both, ["g_lr", "d_lr", "reg_weight"])
    assert block.x.label == "learning rate of G (Adam)"
    assert len(block.facets) == len(set(both["d_lr"])) == 6


def test_a_sampled_axis_is_cut_into_bins() -> None:
    rates = np.geomspace(1e-4, 1e-1, 40).tolist()
    frame = make_frame({"lr": rates, "reg_weight": [0, 5]})
    (block,) = blocks(frame)
    assert block.x.label.endswith("in bins")
    assert len(block.x.levels) == len(block.x.texts) == 8
    assert block.x.texts[0] == "1e-4–2.4e-4"
    assert sum(c.rates["planned"] for f in block.facets for c in f.cells) == len(frame)
    assert set(block.facets[0].cells[0].trials["g_lr"]) <= set(rates)


def test_a_factor_with_many_levels_is_pooled_and_named() -> None:
    frame = make_frame({"lr": LR5, "beta1": list(range(9))})
    frame["beta1"] = [int(tag.split(",")[0].removeprefix("beta1=")) for tag in frame["cell"]]
    (block,) = blocks(frame)
    assert (block.pooled, len(block.facets)) == (("beta1",), 1)


def test_models_without_rates_or_regularizer_still_have_a_cell() -> None:
    frame = make_frame({"lr": [1e-3]}).assign(reg_weight=np.nan, g_lr=np.nan, d_lr=np.nan)
    (block,) = blocks(frame)
    assert (block.x.texts, block.y.texts, block.y.label) == (("",), ("",), "")
    assert block.facets[0].cells[0].rates["planned"] == 3


def test_factors_of_the_cells() -> None:
    assert factors_of(make_frame({"reg_weight": [0], "lr": LR5})) == ("lr", "reg_weight")


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("g_lr", 1e-4, "1e-4"), ("g_lr", 0.0256, "0.0256"), ("reg_weight", 0.0, "0"), ("reg_weight", 5e6, "5e6"),
        ("reg_weight", 500.0, "500"), ("norm", "bn", "on"), ("norm", "none", "off"), ("ratio", "1:2", "1:2"),
        ("x", True, "on"), ("x", None, "–"), ("x", 64, "64"),
    ],
)  # fmt: skip
def test_level_text(column: str, value: object, text: str) -> None:
    assert level_text(column, value) == text


def test_titles_of_narrow_facets_are_broken_between_factors():
    title = "batch norm off · D:G steps 5:10 · z pool"
    assert wrapped(title, 9.0) == title
    assert wrapped(title, 1.4) == "batch norm off\nD:G steps 5:10\nz pool"
    assert max(map(len, wrapped(title, 0.8).splitlines())) <= 10
    assert wrapped("", 1.0) == ""
