from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.legend import Legend
from matplotlib.text import Text

from vistudy.analysis.figures.curves import best_curves, importance_bars, stability_curves, time_curves
from vistudy.analysis.figures.html import inline_svg
from vistudy.analysis.figures.matplotlib_renderer import draw
from vistudy.analysis.figures.specs import AnyFigure, Curve, CurveFigure, arm_styles, save

RATES = (1e-4, 1e-3, 1e-2)
RATES5 = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def arms_table(
    stable: dict[str, Sequence[float]], *, rates: Sequence[float] = RATES, seeds: int = 2, block: str = "ring8-P"
) -> pd.DataFrame:
    """An arm table by hand: the share of seeds that are stable at each learning rate, for each arm."""
    rows: list[dict[str, Any]] = []
    for arm, shares in stable.items():
        for rate, share in zip(rates, shares, strict=True):
            for bn in ("true", "false"):
                for seed in range(seeds):
                    good = math.nan if math.isnan(share) else float(seed < round(share * seeds))
                    rows.append({
                        "block": block, "family": "gan", "class": "P", "arm": arm, "seed": seed, "stable": good,
                        "config": f"batch_norm={bn},lr={rate:g}", "lr": rate, "trial_id": f"{arm}{rate}{bn}{seed}",
                        "q": math.nan if math.isnan(good) else 0.9 - 0.8 * good - (0.05 if bn == "true" else 0),
                        "state": "failed" if math.isnan(good) else "complete",
                        "outcome": None if math.isnan(good) else "converged" if good else "mode_collapse_late",
                        "t_thr": 500.0 if good == 1 else math.nan, "t_coll": 1000.0 if good == 0 else math.nan,
                        "t_div": math.nan, "d_updates": 2000, "d_steps": 1, "g_steps": 2, "batch_size": 64,
                        "wall_s": 10.0, "evaluations": 20,
                    })  # fmt: skip
    return pd.DataFrame(rows)


TABLE = arms_table({"A0": (0, 1, 0), "A1": (0.5, 1, 1)})
STYLES = arm_styles(["A0", "A1"], "A0", "A1")


def curves(figure: CurveFigure | None) -> dict[str, Curve]:
    assert figure is not None
    return {curve.name: curve for panel in figure.panels for curve in panel.curves}


def test_stability_by_learning_rate_of_a_grid() -> None:
    notes: list[str] = []
    found = curves(stability_curves(TABLE, STYLES, notes))
    assert notes == []
    assert found["A0"].x == pytest.approx(RATES)
    assert found["A0"].y == pytest.approx([0, 1, 0])
    assert found["A1"].y == pytest.approx([0.5, 1, 1])
    assert "learning rate 1e-3\n100% stable" in found["A0"].notes[1]
    assert "4 of 4 trials" in found["A0"].notes[1]
    assert "2 of 4 trials" in found["A1"].notes[0]
    assert (found["A1"].low <= found["A1"].y + 1e-9).all()
    assert (found["A1"].y <= found["A1"].high + 1e-9).all()


def test_best_of_k_counted_by_hand() -> None:
    # A0: Q of six configurations, equal for both seeds: .85 .9 .05 .1 .85 .9
    found = curves(best_curves(TABLE, STYLES, []))["A0"]
    values = [0.85, 0.9, 0.05, 0.1, 0.85, 0.9]
    assert found.x.tolist() == [1, 2, 3, 4, 5, 6]
    assert found.y[0] == pytest.approx(np.mean(values))
    assert found.y[1] == pytest.approx(np.mean([min(a, b) for i, a in enumerate(values) for b in values[:i]]))
    assert found.y[5] == pytest.approx(0.05)
    assert "at least one stable: 33%" in found.notes[0]
    assert "12 trials of 6 configurations" in found.notes[0]


def test_time_curves_end_at_the_share_with_the_event() -> None:
    found = curves(time_curves(TABLE, STYLES, [], "threshold", draws=50))
    assert found["A0"].y[-1] == pytest.approx(4 / 12)
    assert found["A1"].y[-1] == pytest.approx(10 / 12)
    collapse = curves(time_curves(TABLE, STYLES, [], "collapse", draws=50))
    assert collapse["A0"].y[-1] == pytest.approx(8 / 12)
    assert time_curves(TABLE, STYLES, [], "divergence") is None
    calm = arms_table({"A0": (1, 1, 1), "A1": (1, 1, 1)}, block="calm")
    both = time_curves(pd.concat([TABLE, calm]), STYLES, [], "collapse", draws=50)
    assert both is not None
    assert [panel.title for panel in both.panels] == ["ring8-P"]
    assert both.caption.endswith("None: calm.")


def test_importances_rank_what_decides() -> None:
    table = arms_table({"A0": (0, 0, 0, 1, 1, 1)}, rates=[1e-4, 2e-4, 4e-4, 1e-2, 2e-2, 4e-2], seeds=3)
    figure = importance_bars(table, ["A0"], arm_styles(["A0"], "A0"), [])
    assert figure is not None
    (panel,) = figure.panels
    assert panel.names == ("learning rate", "batch norm", "batch norm × learning rate")
    values = [bar.value for bar in panel.bars[0] if bar is not None]
    assert values[0] > 10 * values[1]


def test_what_cannot_be_drawn_is_said() -> None:
    one = arms_table({"A0": (1,)}, rates=[1e-3])
    notes: list[str] = []
    assert stability_curves(one, STYLES, notes) is None
    assert notes == ["ring8-P: stability against the learning rate needs at least two learning rates."]
    nothing = arms_table({"A0": (math.nan,) * 3, "A1": (math.nan,) * 3})
    notes = []
    assert stability_curves(nothing, STYLES, notes) is None
    assert best_curves(nothing, STYLES, notes) is None
    assert importance_bars(nothing, ["A0"], STYLES, notes) is None
    assert time_curves(nothing, STYLES, notes) is None
    assert len(notes) == 5
    assert all(note.startswith("ring8-P, A") for note in notes)


@pytest.mark.parametrize("kind", ["lr", "best", "time", "bars"])
def test_pictures_have_all_words_and_hover_texts(kind: str, tmp_path: Path) -> None:
    made: dict[str, AnyFigure | None] = {
        "lr": stability_curves(TABLE, STYLES, []), "best": best_curves(TABLE, STYLES, []),
        "time": time_curves(TABLE, STYLES, [], draws=50),
        "bars": importance_bars(arms_table({"A0": (0, 0, 1, 1, 1)}, rates=RATES5), ["A0"], STYLES, []),
    }  # fmt: skip
    described = made[kind]
    assert described is not None
    figure = draw(described)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    figure.canvas.draw()
    words = [t for t in figure.findobj(Text) if t.get_text() and "mathdefault" not in t.get_text()]  # powers of ten
    assert described.title in [t.get_text() for t in words]
    for word in words:
        box = word.get_window_extent(renderer)
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1 + 1, word.get_text()
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1 + 1, word.get_text()
    root = ElementTree.parse(save(figure, tmp_path, kind, png=False)[0])
    titles = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
    if isinstance(described, CurveFigure):
        (legend,) = figure.findobj(Legend)
        assert {t.get_text() for t in legend.get_texts()} == {"A0", "A1"}
        assert titles == [note for curve in curves(described).values() for note in curve.notes]
    else:
        assert any(title and title.startswith("A0, learning rate") for title in titles)


def test_inline_pictures_escape_text_and_share_no_ids(tmp_path: Path) -> None:
    evil = "</title><script>alert(1)</script>"
    figure = stability_curves(TABLE.assign(arm=TABLE["arm"].replace("A0", evil), block="<b>"), {evil: 0, "A1": 1}, [])
    assert figure is not None
    svg = save(draw(figure), tmp_path, "evil", png=False)[0].read_bytes()
    first, second = (inline_svg(svg, name, evil, 640) for name in ("a", "b"))
    assert "<script" not in first
    assert ElementTree.fromstring(first).get("viewBox")
    ids, others = (set(re.findall(r' id="([^"]+)"', text)) for text in (first, second))
    assert ids
    assert not ids & others
    assert set(re.findall(r'#(a-[^")]+)', first)) == ids
