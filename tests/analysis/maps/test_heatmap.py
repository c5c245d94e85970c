from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from tests.analysis.frames import LR5, LR9, REG4, REG6, make_frame
from vistudy.analysis.figures.colours import INK, PAPER, contrast, luminance, share_colour, text_colour
from vistudy.analysis.maps.heatmap import heatmap, heatmaps, save_heatmaps

DESIGNS = {
    "1x1": {"lr": [1e-3], "reg_weight": [5]},
    "5x4": {"lr": LR5, "reg_weight": REG4},
    "5x4, 2 facets": {"lr": LR5, "reg_weight": REG4, "batch_norm": [False, True]},
    "5x4, 4 facets": {"lr": LR5, "reg_weight": REG4, "batch_norm": [False, True], "ratio": ["1:1", "1:10"]},
    "9x6, 6 facets": {"lr": LR9, "reg_weight": REG6, "batch_norm": [False, True], "ratio": ["1:1", "1:2", "5:10"]},
    "bins": {"lr": np.geomspace(1e-4, 0.1, 30).tolist(), "reg_weight": REG4},
}


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)
def test_no_text_overlaps_another_or_leaves_the_page(design: dict) -> None:
    figure = heatmap(make_frame(design))
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts(figure)]
    page = figure.bbox
    for text, box in boxes:
        assert page.x0 <= box.x0 <= box.x1 <= page.x1, text
        assert page.y0 <= box.y0 <= box.y1 <= page.y1, text
    for (one, a), (two, b) in itertools.combinations(boxes, 2):
        wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert wide <= 0.5 or high <= 0.5, (one, two)


def test_cells_say_what_became_of_their_trials() -> None:
    frame = make_frame({"lr": LR5, "reg_weight": [0, 5]}, seeds=4, gaps=False)
    frame["outcome"] = ["mode_collapse_late"] * 3 + ["converged"] * 37
    frame.loc[8:11, "state"] = ["failed", "planned", "running", "interrupted"]
    frame.loc[12:15, ["state", "outcome"]] = ["planned", None]
    frame.loc[16:19, ["state", "outcome"]] = ["failed", None]
    found = [text.get_text() for text in texts(heatmap(frame))]
    assert found.count("1/4") == 1
    assert found.count("late\ncollapse") == 1
    assert found.count("4/4") == 6
    assert "0/4 run" in found
    assert "4 failed" in found
    assert "1 failed\n1/4 run" in found
    assert "gan on ring8 · 40 trials, 28 evaluable" in found


def test_failures_are_named_below_one_half_only() -> None:
    frame = make_frame({"lr": [1e-3]}, seeds=2, gaps=False)
    frame["outcome"] = ["converged", "diverged"]
    assert "diverged" not in [text.get_text() for text in texts(heatmap(frame))]
    frame["outcome"] = ["slow", "diverged"]
    assert "diverged" in [text.get_text() for text in texts(heatmap(frame))]


def test_placebo_cells_are_hatched() -> None:
    def hatched(ratio: str) -> int:
        frame = make_frame({"lr": LR5, "reg_weight": [0, 5], "ratio": [ratio]}, gaps=False)
        return sum(patch.get_hatch() == "////" for patch in heatmap(frame).axes[0].patches)

    assert (hatched("1:1"), hatched("1:2")) == (5, 0)


def test_one_figure_a_block() -> None:
    both = pd.concat([make_frame({"lr": LR5}), make_frame({"lr": LR5}, data="digits")])
    assert list(heatmaps(both)) == ["gan-ring8", "gan-digits"]
    with pytest.raises(ValueError, match="gan-ring8, gan-digits"):
        heatmap(both)


def test_saved_files(tmp_path: Path) -> None:
    frame = make_frame({"lr": LR5, "reg_weight": [0, 5]}, study="cost $1 <&> $2")
    png, svg = save_heatmaps(frame, None, tmp_path / "new", "heat")
    assert (png.name, svg.name) == ("heat.png", "heat.svg")
    with Image.open(png) as image:
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
        assert image.width > 900
    again = save_heatmaps(frame, None, tmp_path / "again", "heat")[1]
    assert svg.read_bytes() == again.read_bytes()
    both = pd.concat([frame, frame.assign(data="digits", trial_id="d" + frame["trial_id"])])
    names = [path.name for path in save_heatmaps(both, None, tmp_path, "heat")]
    assert names == ["heat-gan-ring8.png", "heat-gan-ring8.svg", "heat-gan-digits.png", "heat-gan-digits.svg"]


def test_colours_fall_in_lightness_and_text_is_legible() -> None:
    shares = [i / 100 for i in range(101)]
    light = [luminance(share_colour(share)) for share in shares]
    assert all(b < a for a, b in itertools.pairwise(light))
    assert all(contrast(share_colour(s), text_colour(share_colour(s))) >= 4.2 for s in shares)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert (text_colour("#ffffff"), text_colour("#000000")) == (INK, PAPER)
    with pytest.raises(ValueError, match="within 0 and 1"):
        share_colour(float("nan"))
