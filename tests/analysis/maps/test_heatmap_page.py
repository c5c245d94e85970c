from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import pandas as pd
import pytest

from tests.analysis.browser import chromium
from tests.analysis.frames import LR5, REG4, make_frame
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.maps.heatmap_page import heatmap_html, mlflow_filter

DESIGN = {"lr": LR5, "reg_weight": REG4, "batch_norm": [False, True], "ratio": ["1:1", "1:10"]}
CELL = "batch_norm=false,lr=0.0001,ratio=1:10,reg_weight=0"
EVIL = "</script><img src=x onerror=alert(1)><b>bold</b> & 'q'"


class Page(HTMLParser):
    """Buttons and embedded data of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.buttons: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.feed(text)
        found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
        assert found is not None
        self.data = json.loads(found[1])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "button":
            self.buttons.append(dict(attrs))


def test_every_cell_is_a_button_with_its_trials() -> None:
    frame = make_frame(DESIGN)
    page = Page(heatmap_html(frame, study="s"))
    assert len(page.buttons) == 80
    assert {button["data-cell"] for button in page.buttons} == set(page.data["cells"]) == set(frame["cell"])
    shown = {trial[0]: key for key, cell in page.data["cells"].items() for trial in cell["trials"]}
    assert shown == dict(zip(frame["trial_id"], frame["cell"], strict=True))
    cell = page.data["cells"][CELL]
    assert cell["filters"] == [f"tags.\"vistudy.cell\" = '{CELL}'"]
    assert cell["links"] == []
    assert "gan on ring8, batch norm off · D:G steps 1:10" in cell["place"]


def test_interval_in_the_tooltip() -> None:
    frame = make_frame({"lr": [1e-3], "reg_weight": [5]}, seeds=4, gaps=False)
    frame["outcome"] = ["converged"] * 3 + ["slow"]
    (button,) = Page(heatmap_html(frame, study="s")).buttons
    assert button["title"] == (
        "gan on ring8, learning rate of G and D (Adam): 1e-3, reg_weight λ (mean convention): 5: "
        "3 of 4 stable (95 % interval 30% to 95%)"
    )


def test_text_of_a_study_is_text() -> None:
    frame = make_frame({"lr": [1e-3]}, study=EVIL).assign(error=EVIL, data=EVIL)
    html = heatmap_html(frame, study=EVIL, title=EVIL, provenance={EVIL: EVIL})
    page = Page(html)
    plain = make_frame({"lr": [1e-3]}).assign(error="e")
    assert page.tags == Page(heatmap_html(plain, study="s", provenance={"p": "q"})).tags
    assert EVIL in page.data["cells"]["lr=0.001"]["trials"][0]


def test_the_page_needs_no_network() -> None:
    html = heatmap_html(make_frame(DESIGN), study="s")
    assert re.findall(r"https?:|//[a-z]|url\(|@import|src=", html.replace("default-src 'none'", "")) == []
    assert "default-src 'none'" in html


def test_links_to_mlflow() -> None:
    url = "http://127.0.0.1:5000/#/experiments/1"
    cell = Page(heatmap_html(make_frame(DESIGN), study="s", mlflow_url=url)).data["cells"][CELL]
    (link,) = cell["links"]
    assert link.startswith(f"{url}?searchFilter=")
    assert unquote(link.split("searchFilter=")[1]) == cell["filters"][0]
    with pytest.raises(StudyError, match="http"):
        heatmap_html(make_frame(DESIGN), study="s", mlflow_url="javascript:alert(1)")


def test_cells_of_two_blocks_are_told_apart() -> None:
    one = make_frame({"lr": LR5})
    page = Page(heatmap_html(pd.concat([one, one.assign(data="digits", trial_id="d" + one["trial_id"])]), study="s"))
    assert len(page.data["cells"]) == 10
    filters = {cell["filters"][0] for cell in page.data["cells"].values()}
    assert len(filters) == 10
    assert any(text.endswith("and params.model = 'gan' and params.data = 'digits'") for text in filters)


def test_pooled_cells_list_every_filter() -> None:
    rates = np.geomspace(1e-4, 0.1, 16).tolist()
    page = Page(heatmap_html(make_frame({"lr": rates}), study="s"))
    assert sum(len(cell["filters"]) for cell in page.data["cells"].values()) == 16
    assert len(page.data["cells"]) == 8
    assert mlflow_filter(["a='b'"]) == ['tags."vistudy.cell" = "a=\'b\'"']


def test_non_finite_numbers_survive() -> None:
    frame = make_frame({"lr": [1e-3]}, seeds=1).assign(q_final=np.inf, q_best=np.nan, attempt=pd.NA)
    (cell,) = Page(heatmap_html(frame, study="s")).data["cells"].values()
    assert "inf" in cell["trials"][0]


def test_size_of_500_trials() -> None:
    frame = make_frame(DESIGN, seeds=7)
    assert len(frame) == 560
    assert len(heatmap_html(frame, study="s").encode()) < 1_000_000


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.mark.browser
def test_page_in_a_browser(tmp_path: Path) -> None:
    frame = make_frame(DESIGN, study=EVIL)
    file = tmp_path / "page.html"
    file.write_text(heatmap_html(frame, study=EVIL), encoding="utf-8")
    done = chromium(tmp_path, "--dump-dom", f"{file.as_uri()}#cell={quote(CELL, safe='')}")
    dom = done.stdout
    assert ":CONSOLE" not in done.stderr, done.stderr
    assert dom.count('class="cell') == 80
    pressed = re.findall(r'data-cell="([^"]+)" aria-pressed="true"', dom)
    assert pressed == [CELL]
    panel = re.sub(r"<[^>]+>", "\n", dom[dom.index('<aside id="panel"') : dom.index("</aside>")])
    rows = frame[frame["cell"] == CELL]
    for trial_id in rows["trial_id"]:
        assert f"\n{trial_id}\n" in panel
    stable = int((rows["outcome"] == "converged").sum())
    assert re.search(rf'data-cell="{re.escape(CELL)}"[^>]*><b>{stable}/', dom)
    assert f"tags.\"vistudy.cell\" = '{CELL}'" in panel
    heading = dom[dom.index("<h1>") : dom.index("</h1>")]
    assert "&lt;b&gt;bold&lt;/b&gt;" in heading
    assert "<img" not in dom


@pytest.mark.browser
def test_a_click_opens_a_cell(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    click = f"<script>document.querySelector('button[data-cell=\"{CELL}\"]').click()</script>"
    file.write_text(heatmap_html(make_frame(DESIGN), study="s").replace("</body>", f"{click}</body>"), encoding="utf-8")
    done = chromium(tmp_path, "--dump-dom", file.as_uri())
    assert ":CONSOLE" not in done.stderr, done.stderr
    assert re.findall(r'data-cell="([^"]+)" aria-pressed="true"', done.stdout) == [CELL]
    assert "In MLflow, search for:" in done.stdout


@pytest.mark.browser
def test_a_console_error_would_be_seen(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("<!doctype html><script>nothing()</script>", encoding="utf-8")
    assert ":CONSOLE" in chromium(tmp_path, "--dump-dom", file.as_uri()).stderr


@pytest.mark.browser
def test_screenshot_has_the_colours_of_its_cells(tmp_path: Path) -> None:
    from PIL import Image

    frame = make_frame({"lr": LR5, "reg_weight": [0]}, gaps=False).assign(outcome="converged")
    file, shot = tmp_path / "page.html", tmp_path / "shot.png"
    file.write_text(heatmap_html(frame, study="s"), encoding="utf-8")
    chromium(tmp_path, f"--screenshot={shot}", "--window-size=1300,700", file.as_uri())
    with Image.open(shot) as image:
        colours = {c: n for n, c in image.convert("RGB").getcolors(1 << 24) or []}
    assert colours[(0x15, 0x51, 0x7C)] > 5 * 1000  # five stable cells
