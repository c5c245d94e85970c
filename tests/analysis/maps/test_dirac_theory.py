"""The theoretical boundary of the Dirac-GAN: against known numbers, against the model's own map, against training."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.analysis.browser import chromium
from tests.analysis.frames import make_frame
from tests.trainables.models.exact import outcomes
from vistudy.analysis.figures.colours import PAPER, THEORY
from vistudy.analysis.figures.matplotlib_renderer import draw
from vistudy.analysis.maps.difference import grid_figure
from vistudy.analysis.maps.dirac_overlay import NAME, boundary_lines
from vistudy.analysis.maps.dirac_theory import MODEL, TOLERANCE, Game, boundary, game_of, period_map, radius
from vistudy.analysis.maps.heatmap import heatmap
from vistudy.analysis.maps.heatmap_cells import blocks
from vistudy.analysis.maps.heatmap_page import heatmap_html
from vistudy.trainables.models.base import ANCHORS
from vistudy.trainables.models.dirac_gan import DiracConfig
from vistudy.trainables.models.dirac_gan import period_map as map_of_the_model

EXPLODED = 1e4
"""Growth by which a trial has surely crossed the outcome rules' bound (1,000 times the start) and stayed beyond it."""
WEIGHTS = np.array([0, 0.05, 0.2, 0.5, 1, 5])
RATES = np.arange(0.005, 2.6, 0.005)
TABLE = {
    1: (2.00, 2.00, 2.00, 2.00, 2.00, 2.00),
    2: (1.41, 1.47, 1.75, 2.00, 1.00, 0.20),
    5: (0.89, 0.99, 1.61, 2.00, 1.21, 0.36),
    20: (0.45, 0.58, 1.60, 2.00, 1.00, 0.20),
}
"""Largest rate at which a distance does not grow, by G steps, for WEIGHTS; slope 1, one D step."""


def frame_of(configs: list[DiracConfig], labels: list[str] | None = None) -> pd.DataFrame:
    """Their table of trials."""
    rows = make_frame({"lr": [0.1] * len(configs)}, seeds=1, gaps=False).to_dict("records")
    for row, config in zip(rows, configs, strict=True):
        row |= config.to_dict() | {"trial_id": config.trial_id(), "norm": None, "z_use": None, "optimizer": None}
        row["cell"] = f"lr={config.g_lr:g},reg_weight={config.reg_weight:g}"
    return pd.DataFrame(rows).assign(outcome=labels or "converged")


def grid(rates: list[float], weights: list[float], **fields: Any) -> list[DiracConfig]:
    fields = {"loss": "wgan", "g_steps": 2, "start_sd": 0.0} | fields
    return [DiracConfig(g_lr=h, d_lr=h, reg_weight=w, **fields).resolve() for w in weights for h in rates]


@pytest.mark.parametrize("g_steps", TABLE)
def test_known_largest_rates(g_steps: int) -> None:
    assert boundary(RATES, WEIGHTS, Game(g_steps=g_steps)) == pytest.approx(TABLE[g_steps], abs=0.008)


@pytest.mark.parametrize(("g_steps", "d_steps", "slope"), [(1, 1, 1.0), (4, 4, 0.5), (1, 5, 0.5), (5, 2, 1.0)])
def test_bound_of_alternating_descent(g_steps: int, d_steps: int, slope: float) -> None:
    """Without the term: sqrt(n_G n_D) h a <= 2."""
    game = Game(g_steps=g_steps, d_steps=d_steps, slope=slope)
    assert float(boundary(RATES, 0.0, game)) == pytest.approx(2 / math.sqrt(g_steps * d_steps) / slope, abs=1e-5)


def test_ends_of_the_range() -> None:
    rates = np.array([0.5, 1.0])
    assert np.isposinf(boundary(rates, 0.0, Game()))
    assert np.isnan(boundary(rates, 0.0, Game(schedule="simultaneous")))
    windows = Game(g_steps=2)  # stable again beyond the first window, up to 1 / lambda
    assert float(boundary(np.arange(0.1, 8, 0.1), 0.2, windows)) == pytest.approx(5.0, abs=1e-5)
    separate = Game(d_lr=0.25)
    assert float(boundary(np.arange(1.0, 20, 0.5), 0.0, separate)) == pytest.approx(16.0, abs=1e-5)


@pytest.mark.parametrize("schedule", ["alternating", "simultaneous"])
@pytest.mark.parametrize("anchor", ANCHORS)
def test_the_map_is_that_of_the_model(anchor: str, schedule: str) -> None:
    """Radii agree for every anchor, of which the model's map remembers a place more than is needed."""
    for loss, g_steps, d_steps in (("wgan", 3, 2), ("saturating", 1, 1)):
        config = DiracConfig(
            anchor=anchor, schedule=schedule, loss=loss, anchor_lag=3, anchor_decay=0.8, g_steps=g_steps,
            d_steps=d_steps, g_lr=0.3, d_lr=0.2, reg_weight=0.7, r1_weight=0.4,
        ).resolve()  # fmt: skip
        game = Game.of(config.to_dict(), d_lr=config.d_lr)
        expected = np.abs(np.linalg.eigvals(map_of_the_model(config))).max()
        assert float(radius(config.g_lr, config.reg_weight, game)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("anchor", "radii"),
    [
        ("previous_update", (0.999815, 0.999305, 0.998978)),
        ("ema", (0.992421, 0.988140, 0.991327)),
        ("period_start", (1.0, 1.0, 1.0)),
    ],
)
def test_known_radii(anchor: str, radii: tuple[float, ...]) -> None:
    """One G step of rate .2, slope .5, lambda = .1, .5, 1."""
    game = Game(slope=0.5, anchor=anchor, anchor_decay=0.9)
    assert radius(0.2, np.array([0.1, 0.5, 1.0]), game) == pytest.approx(radii, abs=6e-7)


def test_shapes() -> None:
    found = period_map(np.ones((4, 1)), np.zeros(3), Game(anchor="lag", anchor_lag=3))
    assert found.shape == (4, 3, 5, 5)
    assert radius(np.ones((4, 1)), np.zeros(3), Game()).shape == (4, 3)


def agreement(frame: pd.DataFrame) -> pd.DataFrame:
    """Theory and measurement of every judged Dirac-GAN trial in which both are exact, a row each.

    A trial counts as stable when it was measured to stay bounded: its outcome is anything but `diverged`. Converging
    is another question: with the paper's anchor the radius is never below 1, and a trial circles for ever. Only
    Wasserstein's losses without clipping are compared, for only there a period is linear however far from 0.

    Columns: trial_id, g_lr, reg_weight, radius; `stable` (radius at most 1), `bounded` (measured), `decidable` (False:
    the radius is above 1, but by so little that the budget is too short to see the distance explode).
    """
    columns = ["trial_id", "g_lr", "reg_weight", "radius", "stable", "bounded", "decidable"]
    rows = []
    dirac = frame[(frame["model"] == MODEL) & frame["outcome"].notna()]
    dirac = dirac[(dirac["loss"] == "wgan") & (dirac["d_clip"] == 0)] if len(dirac) else dirac
    for config in dirac.to_dict("records"):
        named: dict[str, Any] = {str(name): value for name, value in config.items()}
        found = float(radius(config["g_lr"], config["reg_weight"], Game.of(named, d_lr=float(config["d_lr"]))))
        periods, stable = config["d_updates"] / config["d_steps"], found <= 1 + TOLERANCE
        # Nine tenths: the rest is the time for which an explosion has to last.
        seen = 0.9 * periods * math.log(found) > math.log(EXPLODED) if found > 1 else True
        bounded = config["outcome"] != "diverged"
        key = [config[name] for name in columns[:3]]
        rows.append([*key, found, stable, bounded, stable or seen])
    return pd.DataFrame(rows, columns=columns)


def test_training_is_bounded_where_theory_says_so() -> None:
    """A grid around the boundary: every trial stays bounded or explodes as its radius says."""
    rates = [0.9, 1.1, 1.35, 1.5, 1.7, 1.9, 2.1]
    configs = grid(rates, [0.0, 0.2, 0.5, 1.0], d_updates=300, evaluations=20)
    found = agreement(frame_of(configs, outcomes(*configs)))
    assert found["decidable"].all()
    assert (found["stable"] == found["bounded"]).all()
    by_weight = found.groupby("reg_weight")["stable"].sum().tolist()
    assert by_weight == [3, 5, 6, 1]


def test_what_is_compared() -> None:
    """Exact cases only; a radius just above 1 cannot be told from 1 within the budget; unjudged trials do not count."""
    configs = grid([1.0], [0.0], d_updates=100) + grid([1.4143], [0.0], d_updates=100)
    configs += [dataclasses.replace(configs[0], loss="saturating"), dataclasses.replace(configs[0], d_clip=1.0)]
    found = agreement(frame_of(configs, ["oscillating"] * 4))
    assert found["trial_id"].tolist() == [c.trial_id() for c in configs[:2]]
    assert found["stable"].tolist() == [True, False]
    assert found["decidable"].tolist() == [True, False]
    assert agreement(frame_of(configs).assign(outcome=None)).empty
    assert agreement(make_frame({"lr": [1e-3]})).empty


def test_a_game_is_that_of_all_its_trials() -> None:
    configs = grid([0.5, 1.0], [0.0])
    assert game_of(frame_of(configs)) == Game(g_steps=2)
    fixed = [dataclasses.replace(c, d_lr=0.3) for c in configs]
    assert game_of(frame_of(fixed)) == Game(g_steps=2, d_lr=0.3)
    assert game_of(frame_of([configs[0], dataclasses.replace(configs[1], d_lr=0.3)])) is None
    assert game_of(frame_of([configs[0], dataclasses.replace(configs[1], g_steps=3)])) is None
    assert game_of(frame_of([dataclasses.replace(c, d_clip=1.0) for c in configs])) is None
    assert game_of(make_frame({"lr": [1e-3]})) is None


def test_the_line_parts_stable_cells_from_unstable_ones() -> None:
    """From the middle of every stable cell to that of an unstable neighbour the line is crossed, else it is not."""
    rates, weights = [0.2, 0.8, 1.3, 1.7, 2.2], [0.0, 0.2, 0.5, 1.0]
    (block,) = blocks(frame_of(grid(rates, weights)))
    (facet,) = block.facets
    lines = boundary_lines(block, facet)
    stable = radius(np.array(rates), np.array(weights)[:, None], Game(g_steps=2)) <= 1 + 1e-6
    assert stable.sum() == 13
    for y in range(4):
        for x in range(4):
            crossed = sum(crossings(line, x + 0.5, y + 0.5) for line in lines)
            assert crossed % 2 == int(stable[y, x] != stable[y, x + 1]), (x, y)
    edge = float(boundary(RATES, 0.0, Game(g_steps=2)))
    at = 2.5 + (edge - 1.3) / (1.7 - 1.3)
    across = [x for line in lines for x in crossings_at(line, 0.5)]
    assert across == pytest.approx([at], abs=0.002)


def crossings(line: np.ndarray, x: float, y: float) -> int:
    """How often a line crosses the segment from (x, y) to (x + 1, y)."""
    return sum(x < at < x + 1 for at in crossings_at(line, y))


def crossings_at(line: np.ndarray, y: float) -> list[float]:
    """Where a line crosses the height y."""
    a, b = line[:-1], line[1:]
    spans = (a[:, 1] > y) != (b[:, 1] > y)
    a, b = a[spans], b[spans]
    found: list[float] = (a[:, 0] + (y - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0])).tolist()
    return found


def test_the_heatmap_has_the_line() -> None:
    def drawn(frame: pd.DataFrame, **options: Any) -> tuple[int, bool]:
        figure = heatmap(frame, **options)
        lines = [line for line in figure.axes[0].lines if line.get_color() == THEORY]
        return len(lines), NAME in [text.get_text() for text in figure.axes[0].texts]

    frame = frame_of(grid([0.8, 1.3, 1.7, 2.2], [0.0, 0.2, 1.0]))
    count, named = drawn(frame)
    assert count >= 2  # one in the legend
    assert named
    assert drawn(frame, overlay=None) == (0, False)
    assert drawn(frame.assign(model="gan")) == (0, False)
    assert drawn(frame_of(grid([0.1, 0.2], [0.0, 0.1]))) == (0, False)  # stable everywhere


def test_pages_have_the_line() -> None:
    """The page of heatmaps and the picture of the report draw the lines that the print has, each once."""
    frame = frame_of(grid([0.8, 1.3, 1.7, 2.2], [0.0, 0.2, 1.0]))
    (block,) = blocks(frame)
    lines = boundary_lines(block, block.facets[0])
    html = heatmap_html(frame, study="s")
    paths = re.findall(r'<path d="M([^"]*)" stroke="([^"]*)"', html[html.index('class="theory"') :])
    assert [colour for _, colour in paths] == [PAPER] * len(lines) + [THEORY] * len(lines)
    drawn = [np.array([point.split(" ") for point in path.split("L")], np.float64) for path, _ in paths[: len(lines)]]
    for found, line in zip(drawn, lines, strict=True):
        assert found == pytest.approx(np.column_stack([line[:, 0], 3 - line[:, 1]]), abs=0.001)
    assert NAME in html
    assert NAME in grid_figure(block).caption
    printed = draw(grid_figure(block)).axes[0].lines
    assert sum(line.get_color() == THEORY for line in printed) == len(lines)


def test_pages_without_a_line() -> None:
    frame = frame_of(grid([0.8, 1.3, 1.7, 2.2], [0.0, 0.2, 1.0])).assign(model="gan")
    (block,) = blocks(frame)
    html = heatmap_html(frame, study="s")
    assert "<svg" not in html
    assert NAME not in html + grid_figure(block).caption
    assert not draw(grid_figure(block)).axes[0].lines


@pytest.mark.browser
def test_the_line_lies_where_the_cells_are(tmp_path: Path) -> None:
    """The middle of every cell on the screen is its middle in the line's coordinates; cells can still be clicked."""
    rates, weights = [0.8, 1.3, 1.7, 2.2], [0.0, 0.2, 1.0]
    html = heatmap_html(frame_of(grid(rates, weights)), study="s")
    probe = """<script>
    const svg = document.querySelector("svg.theory"), back = svg.getScreenCTM().inverse(), found = [];
    for (const cell of document.querySelectorAll("button.cell")) {
      const box = cell.getBoundingClientRect(), x = box.left + box.width / 2, y = box.top + box.height / 2;
      const at = new DOMPoint(x, y).matrixTransform(back);
      found.push([cell.dataset.cell, at.x, at.y, document.elementFromPoint(x, y).closest("button") === cell]);
    }
    const line = svg.querySelector("path"), at = line.getPointAtLength(line.getTotalLength() / 2).matrixTransform(svg.getScreenCTM());
    const under = document.elementFromPoint(at.x, at.y);
    document.body.dataset.hit = under.closest("td") !== null && under.closest("svg") === null;
    document.body.append(Object.assign(document.createElement("pre"), { id: "found", textContent: JSON.stringify(found) }));
    </script></body>"""  # noqa: E501
    file = tmp_path / "page.html"
    file.write_text(html.replace("</body>", probe), encoding="utf-8")
    done = chromium(tmp_path, "--dump-dom", "--window-size=1300,800", file.as_uri())
    assert ":CONSOLE" not in done.stderr, done.stderr
    (text,) = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout)
    places = {cell: (x, y, clickable) for cell, x, y, clickable in json.loads(text)}
    assert len(places) == 12
    for i, rate in enumerate(rates):
        for j, weight in enumerate(weights):
            x, y, clickable = places[f"lr={rate:g},reg_weight={weight:g}"]
            assert (x, y) == pytest.approx((i + 0.5, 2.5 - j), abs=0.02)
            assert clickable
    assert 'data-hit="true"' in done.stdout


def test_no_line_over_bins() -> None:
    (block,) = blocks(frame_of(grid(np.linspace(0.1, 2.4, 30).tolist(), [0.0, 0.2])))
    assert block.x.label.endswith("in bins")
    assert boundary_lines(block, block.facets[0]) == []
