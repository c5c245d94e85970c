"""The sample atlas: the right picture in the right place at the right time, small, offline, and alive in a browser."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.analysis.browser import chromium
from tests.analysis.series import REFERENCE, series
from tests.analysis.store import entry, make_store
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.maps.atlas_page import atlas, atlas_section
from vistudy.analysis.maps.atlas_print import atlas_figure
from vistudy.analysis.maps.atlas_samples import sheets, step_of, thumbnail

RATES, WEIGHTS, SEEDS, KEPT = (1e-3, 1e-2), (0.0, 5.0), (0, 1, 2), (0, 25, 50)
MODES = {"ring8": np.array([[0.8, 0.0], [-0.8, 0.0]])}
EVIL = "</script><img src=x onerror=alert(1)>"
HEAD = "data:image/png;base64,"


def name(rate: int, weight: int, seed: int) -> str:
    return f"t1-r{rate}w{weight}s{seed}"


def place(rate: int, weight: int, seed: int, evaluation: int) -> np.ndarray:
    """Where all samples of a trial lie: each trial and evaluation has a place of its own."""
    return np.array([-0.75 + 0.5 * rate + 0.25 * weight, -0.8 + 0.3 * seed + 0.012 * evaluation])


def fill(ledger: Ledger, trials: list[dict[str, Any]], arrays: Any, kept: tuple[int, ...] = KEPT) -> None:
    """One pack with records and samples. `arrays`: (trial_id, evaluation) -> samples or None."""
    ids = [trial["trial_id"] for trial in trials]
    pack = {"pack_id": "p1", "trials": [t["config"] for t in trials], "trial_ids": ids, "samples": list(kept)}
    ledger.write_pack(pack | {"reference": dataclasses.asdict(REFERENCE), "created_ms": 1})
    attempt = ledger.open_attempt("p1")
    for evaluation in range(51):
        run = {
            key: float(column[evaluation]) for key, column in series(0.1).items() if key not in ("evaluation", "step")
        }
        records = [
            {"trial_id": t, "evaluation": evaluation, "step": 10 * evaluation, "wall_s": 0.0, "values": run}
            for t in ids
            if evaluation <= 25 or arrays(t, 50) is not None
        ]
        if evaluation == 25:
            for record in records:
                if arrays(record["trial_id"], 50) is None:
                    record["values"] = run | {"finite": 0.0}
        attempt.append(records, unix_ms=evaluation)
        found = {t: arrays(t, evaluation) for t in ids if evaluation in kept and arrays(t, evaluation) is not None}
        if found:
            attempt.samples(evaluation, found)
    for t in ids:
        ledger.finish_trial({
            "trial_id": t, "state": "complete", "pack_id": "p1", "attempt": 1, "wall_s": 1.0, "device": "cpu",
            "versions": {}, "error": None, "unix_ms": 2,
        })  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rates by two weights by three seeds; the trial (1, 1, seed 0) diverged after half of its budget."""
    path, trials = tmp_path_factory.mktemp("atlas") / "store", []
    for r, rate in enumerate(RATES):
        for w, weight in enumerate(WEIGHTS):
            for seed in SEEDS:
                config = {"g_lr": rate, "d_lr": rate, "reg_weight": weight, "seed": seed}
                trials.append(entry(name(r, w, seed), {"lr": rate, "reg_weight": weight}, **config))

    def arrays(trial_id: str, evaluation: int) -> np.ndarray | None:
        r, w, seed = int(trial_id[4]), int(trial_id[6]), int(trial_id[8])
        if (r, w, seed) == (1, 1, 0) and evaluation > 25:
            return None
        return np.repeat(place(r, w, seed, evaluation)[None], 40, 0).astype(np.float32)

    fill(make_store(path, trials), trials, arrays)
    return path


def blue(image: np.ndarray) -> np.ndarray:
    """Mean place of the points of a picture, in the scene of [-1, 1]."""
    rows = np.argwhere(image[..., 2].astype(int) - image[..., 0] > 40)
    row, column = rows.mean(0) / (image.shape[0] - 1) * 2 - 1
    return np.array([column, -row])


def data_of(html: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" class="atlas-data">(.*?)</script>', html, re.DOTALL)
    content: dict[str, Any] = json.loads(found)
    return content


def images_of(html: str) -> list[np.ndarray]:
    """The sheets, in order of time."""
    found = re.findall(r"url\((data:image/png;base64,[^)]+)\)", html)
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix(HEAD)))).convert("RGB")) for uri in found
    ]


def test_every_trial_has_its_pictures_in_its_cell(store: Path) -> None:
    (sheet,) = sheets(store, "demo", modes=MODES)
    assert sheet.times == (0, Fraction(1, 2), 1)
    assert sheet.seeds == SEEDS
    assert sheet.size == (88, 88)
    assert sheet.left_out == ()
    assert sheet.steps(Fraction(1, 2)) == (250, 250)
    for (facet, x, y), _, shown in sheet.cells():
        assert facet == 0
        assert [item.row["trial_id"] for item in shown] == [name(x, y, seed) for seed in SEEDS]
        for seed, item in enumerate(shown):
            assert set(item.pictures) == set(sheet.times[:2] if (x, y, seed) == (1, 1, 0) else sheet.times)
            for time, picture in item.pictures.items():
                expected = place(x, y, seed, int(50 * time)) / (1.4 * 0.8)
                assert blue(picture) == pytest.approx(expected, abs=0.03)


def test_the_page_shows_what_the_sheets_say(store: Path) -> None:
    html = str(atlas_section(store, "demo", modes=MODES))
    (block,) = data_of(html)["blocks"]
    images = images_of(html)
    assert block["times"] == [
        f"{share}% of the budget, {step} updates" for share, step in ((0, 0), (50, 250), (100, 500))
    ]
    assert len(images) == 3
    for key, cell in block["cells"].items():
        _, x, y = map(int, key.split(":"))
        for trial in cell["trials"]:
            assert trial["id"] == name(x, y, trial["seed"])
            for i, image in enumerate(images):
                top, left = trial["row"] * block["height"], trial["column"] * block["width"]
                thumb = image[top : top + block["height"], left : left + block["width"]]
                if trial["has"][i]:
                    expected = place(x, y, trial["seed"], KEPT[i]) / (1.4 * 0.8)
                    assert blue(thumb) == pytest.approx(expected, abs=0.04)
                else:
                    assert thumb.min() == 255
    cell = block["cells"]["0:1:1"]
    assert cell["count"] == "2/3"
    assert cell["summary"].startswith("2 of 3 stable (95 % interval 21% to 94%)")
    assert [trial["outcome"] for trial in cell["trials"]] == ["diverged", "converged", "converged"]
    assert (cell["trials"][0]["t_div"], cell["trials"][1]["t_div"]) == ("250", None)


def test_real_modes_are_marked(store: Path) -> None:
    (with_modes,), (without,) = sheets(store, "demo", modes=MODES), sheets(store, "demo")
    picture = with_modes.shown[0, 0, 0][0].pictures[Fraction(1)]
    row, column = 44, round((1 + 1 / 1.4) / 2 * 87)
    assert picture[row, column].max() == picture[row, column].min() < 230
    picture = without.shown[0, 0, 0][0].pictures[Fraction(1)]
    assert tuple(picture[row, column]) == (255, 255, 255)
    assert blue(picture) == pytest.approx(place(0, 0, 0, 50) / 1.2, abs=0.03)  # 1.2 times the largest real coordinate


@pytest.mark.parametrize(
    ("most", "left", "pictures"),
    [
        (36, (), 35),
        (35, ("2 of 3 seeds",), 23),
        (12, ("1 of 3 seeds",), 11),
        (8, ("1 of 3 seeds", "the last evaluations only"), 7),
        (4, ("1 of 3 seeds", "the last evaluations only"), 3),
    ],
)
def test_what_does_not_fit_is_left_out_and_said(store: Path, most: int, left: tuple[str, ...], pictures: int) -> None:
    (sheet,) = sheets(store, "demo", most=most)
    assert sheet.left_out == left
    assert sum(len(item.pictures) for some in sheet.shown.values() for item in some) == pictures
    assert sheet.times[-1] == 1
    html = str(atlas_section(store, "demo", most=most))
    assert all(words in html for words in left)


def test_a_study_without_samples_has_no_atlas(tmp_path: Path) -> None:
    trials = [entry("t1-a", {"lr": 1e-3})]
    ledger = make_store(tmp_path / "store", trials)
    assert atlas_section(ledger, "demo") is None
    fill(ledger, trials, lambda *_: np.zeros((4, 2)), kept=())
    assert atlas_section(ledger, "demo") is None
    with pytest.raises(StudyError, match="no evaluation kept samples"):
        atlas(ledger, "demo", tmp_path / "atlas.html")
    with pytest.raises(StudyError, match="Did you mean"):
        atlas_section(ledger, "demmo")


def test_numbers_of_toys_have_no_atlas(tmp_path: Path) -> None:
    trials = [entry("t1-a", {"lr": 1e-3}, data="point0")]
    ledger = make_store(tmp_path / "store", trials)
    fill(ledger, trials, lambda *_: np.zeros((1, 1)))
    assert atlas_section(ledger, "demo") is None


def test_arms_have_sheets_of_their_own(tmp_path: Path) -> None:
    """A trial that two arms share is shown in both."""
    shared = entry("t1-a", {"lr": 1e-3, "arm": "A0"})
    shared["also"] = [{"block": "b", "cell": {"lr": 1e-3, "arm": "A1"}}]
    trials = [shared, entry("t1-b", {"lr": 1e-2, "arm": "A1"}, g_lr=1e-2, d_lr=1e-2, reg_weight=5.0)]
    ledger = make_store(tmp_path / "store", trials)
    fill(ledger, trials, lambda *_: np.zeros((4, 2)))
    found = {sheet.heading: sheet for sheet in sheets(ledger, "demo")}
    assert list(found) == ["gan on ring8, arm A0", "gan on ring8, arm A1"]
    ids = [[i.row["trial_id"] for _, _, shown in sheet.cells() for i in shown] for sheet in found.values()]
    assert ids == [["t1-a"], ["t1-a", "t1-b"]]


def test_time_is_counted_in_whole_periods() -> None:
    row = {"d_updates": 100, "d_steps": 7}
    assert [step_of(row, Fraction(i, 4)) for i in range(5)] == [0, 28, 56, 77, 105]
    assert step_of({"d_updates": 100, "d_steps": None}, Fraction(1, 3)) == 34


@pytest.mark.parametrize(("side", "shape"), [(8, (101, 101)), (28, (88, 88)), (32, (100, 100)), (64, (100, 100))])
def test_thumbnails_of_images_are_small(side: int, shape: tuple[int, int]) -> None:
    images = np.ones((64, 3, side, side), np.float32)
    images[:, 1:] = -1
    images[0, 0, 0, 0] = np.nan
    found = thumbnail(images, modes=None, limit=None)
    assert found.shape[:2] == shape
    assert (found == (255, 0, 0)).all(2).mean() > 0.8
    assert (found == (255, 0, 255)).all(2).any()


def test_colourful_pictures_make_a_webp(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    trials = [entry(f"t1-{i}", {"lr": 1e-3}, seed=i, data="cifar10") for i in range(8)]
    ledger = make_store(tmp_path / "store", trials)
    fill(ledger, trials, lambda *_: rng.uniform(-1, 1, (64, 3, 32, 32)).astype(np.float32))
    html = str(atlas_section(ledger, "demo"))
    assert html.count("url(data:image/webp;base64,") == 3
    assert len(html) < 3 * 8 * 15_000  # noise is the worst case


def test_text_of_a_study_is_text(tmp_path: Path) -> None:
    trials = [entry("t1-a", {"lr": 1e-3}, data=EVIL)]
    ledger = make_store(tmp_path / "store", trials)
    fill(ledger, trials, lambda *_: np.zeros((4, 2)))
    html = str(atlas_section(ledger, "demo"))
    assert "<img" not in html
    assert "&lt;img" in html


def test_files(store: Path, tmp_path: Path) -> None:
    page = atlas(store, "demo", tmp_path / "new" / "atlas.html", modes=MODES)
    html = page.read_text("utf-8")
    assert page == tmp_path / "new" / "atlas.html"
    plain = re.sub(r"url\(data:image/png;base64,[\w+/=]+\)", "", html)
    assert re.findall(r"https?:|//[a-z]|url\(|@import|src=", plain) == []
    assert "default-src 'none'" in html
    assert len(html) < 100_000
    with Image.open(tmp_path / "new" / "atlas.png") as image:
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)


def test_the_figure_for_print(store: Path) -> None:
    (sheet,) = sheets(store, "demo", modes=MODES)
    ax = atlas_figure(sheet, "cost $1 <&>").axes[0]
    texts = [text.get_text() for text in ax.texts]
    assert len(ax.images) == 3
    assert texts.count("3/3 converged") == 3
    assert "2/3 diverged" in texts
    assert "diverged\nat 250" in texts
    assert "gan on ring8 · after 500 updates · seed 0" in texts
    lower_left = min(ax.images, key=lambda image: (image.get_extent()[2], image.get_extent()[0]))
    assert blue(np.asarray(lower_left.get_array())) == pytest.approx(place(0, 0, 0, 50) / 1.12, abs=0.03)


SCRIPT = """<script>
const block = document.querySelector(".atlas-block"), cell = block.querySelector('[data-cell="0:1:1"]');
const note = (name) => { const p = document.createElement("pre"); p.id = name; const thumb = getComputedStyle(cell.querySelector(".atlas-thumb"));
  p.textContent = [block.dataset.at, block.querySelector("output").textContent, cell.textContent, thumb.backgroundImage.length > 100, thumb.backgroundPosition].join(" | "); document.body.append(p); };
note("before");
const slider = block.querySelector("input");
slider.value = 1;
slider.dispatchEvent(new Event("input", { bubbles: true }));
note("half");
const choice = block.querySelector("select");
slider.value = 2;
slider.dispatchEvent(new Event("input", { bubbles: true }));
choice.value = "2";
choice.dispatchEvent(new Event("change", { bubbles: true }));
note("seed");
cell.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
document.body.append(Object.assign(document.createElement("pre"), { id: "tip", textContent: getComputedStyle(block.querySelector(".atlas-tip")).display + block.querySelector(".atlas-tip").textContent }));
block.dispatchEvent(new MouseEvent("mouseleave"));
document.body.append(Object.assign(document.createElement("pre"), { id: "gone", textContent: getComputedStyle(block.querySelector(".atlas-tip")).display }));
document.body.append(Object.assign(document.createElement("pre"), { id: "loads", textContent: String(performance.getEntriesByType("resource").filter((entry) => !entry.name.startsWith("data:")).length) }));
</script>"""  # noqa: E501


@pytest.mark.browser
def test_page_in_a_browser(store: Path, tmp_path: Path) -> None:
    page = atlas(store, "demo", tmp_path / "atlas.html", modes=MODES)
    page.write_text(page.read_text("utf-8").replace("</body>", f"{SCRIPT}</body>"), "utf-8")
    done = chromium(tmp_path, "--dump-dom", page.as_uri())
    assert ":CONSOLE" not in done.stderr, done.stderr

    def shown(key: str) -> str:
        (found,) = re.findall(rf'<pre id="{key}">(.*?)</pre>', done.stdout, re.DOTALL)
        return str(found)

    trials = {t["seed"]: t for t in data_of(done.stdout)["blocks"][0]["cells"]["0:1:1"]["trials"]}
    at = {seed: f"-{88 * t['column']}px -{88 * t['row']}px" for seed, t in trials.items()}
    assert shown("before") == f"2 | 100% of the budget, 500 updates | ended2/3 diverged | false | {at[0]}"
    assert shown("half") == f"1 | 50% of the budget, 250 updates | 2/3 diverged | true | {at[0]}"
    assert shown("seed") == f"2 | 100% of the budget, 500 updates | 2/3 converged | true | {at[2]}"
    tip = shown("tip")
    assert tip.startswith("flex")
    assert "2 of 3 stable (95 % interval 21% to 94%)" in tip
    assert f"Trial {name(1, 1, 2)}, seed 2: converged" in tip
    assert "g_lr 0.01, d_lr 0.01, reg_weight 5" in tip
    assert shown("gone") == "none"
    assert shown("loads") == "0"
