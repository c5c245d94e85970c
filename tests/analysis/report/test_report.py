from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from PIL import Image

from tests.analysis.browser import chromium
from tests.analysis.series import series as made_series
from tests.analysis.store import entry, make_store, train
from tests.analysis.synthetic import CLAIM, make_study
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.report.report import Report, report

EVIL = "</script><img src=x onerror=alert(1)><b>bold</b> & 'q' | `c`"
CONTROLS = {**CLAIM, "slower": ["A3a"], "positive_control": None, "best_of": 5}
ARMS: dict[str, dict[str, Any]] = {
    "A0": {"reg_weight": 0}, "A1": {"reg_weight": 5}, "A3a": {"reg_weight": 0, "g_lr": {"match_drift": "A1"}}
}  # fmt: skip


class Page(HTMLParser):
    """Tags, visible text and embedded data of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(self.html)
        found = re.search(r'<script type="application/json" id="report-data">(.*?)</script>', self.html, re.DOTALL)
        assert found is not None
        self.data = json.loads(found[1])
        self.pictures: dict[str, str] = dict(
            re.findall(
                r'<figure id="([^"]+)">\s*<h3>[^<]*</h3>\s*<div class="wide">(<svg.*?</svg>)', self.html, re.DOTALL
            )
        )
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] not in (["script"], ["style"]):
            self.texts.append(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """The report of a claim with hostile text in it."""
    folder = tmp_path_factory.mktemp("claim")
    claim = {**CONTROLS, "question": EVIL, "id": EVIL}
    text = f"study: synthetic\n# {EVIL}\n"
    make_study(folder / "store", configs=12, evaluations=12, blocks=2, claim=claim, arms=ARMS, text=text)
    return folder, report(folder / "store", "synthetic", folder / "out", draws=200, png=True)


def test_report_of_a_claim_has_all_its_parts(made: tuple[Path, Report]) -> None:
    folder, found = made
    page = Page(found.html)
    for words in (
        "Not registered before the first record", "Verdict by block", "Predictions", "ring8-P", "ring8-G", "class G",
        "sign-flip", "144 trials", "Arms: A0 (reg_weight 0); A1 (reg_weight 5)", "Seeds: 0, 1", "git commit of the run",
        "cpu (synthetic): 144 trials", "scipy", "Where training is stable", "How much tuning is needed",
    ):  # fmt: skip
        assert words in page.text, words
    assert found.headline[:-1].lower() in page.text.lower()
    keys = {"difference", "difference-A3a", "stability-by-lr", "best-of-k", "stability-ring8-P", "time-threshold"}
    assert keys <= set(page.pictures)
    assert {path.name for path in found.figures} >= {f"{key}.{end}" for key in keys for end in ("png", "svg")}
    for svg in page.pictures.values():
        assert ElementTree.fromstring(svg).get("viewBox")
    assert re.search(r"<title>ring8-[PG]\n[^<]*A1: \d+ of \d+ stable; A0: \d+ of \d+", page.pictures["difference"])
    ids = re.findall(r' id="([^"]+)"', page.html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', page.html)) <= set(ids)
    for path in found.figures:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.width > 1000
    text = found.markdown.read_text(encoding="utf-8")
    for link in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert (folder / "out" / link).is_file()
    assert "## Predictions" in text
    assert "| H1 | class P | within the margin |" in text


def test_tables_agree_with_each_other(made: tuple[Path, Report]) -> None:
    _, found = made
    files = {path.name: path for path in found.tables}
    names = ("trials", "verdicts", "strata", "doses", "predictions", "estimates", "outcomes")
    assert set(files) == {f"{n}.{e}" for n in names for e in ("csv", "parquet")}
    trials, outcomes = (pd.read_parquet(files[f"{n}.parquet"]) for n in ("trials", "outcomes"))
    assert len(pd.read_csv(files["trials.csv"])) == len(trials) == 2 * 12 * 2 * 3
    assert outcomes["trials"].sum() == len(trials)
    assert outcomes["stable"].sum() == (trials["outcome"] == "converged").sum()
    estimates = pd.read_parquet(files["estimates.parquet"])
    effects = estimates[(estimates["estimate"] == "risk difference") & (estimates["treatment"] == "A1")].set_index(
        "block"
    )["value"]
    verdicts = pd.read_parquet(files["verdicts.parquet"]).set_index("block")["difference"]
    stable = trials.groupby(["block", "arm"])["stable"].mean().unstack()
    for block in ("ring8-P", "ring8-G"):
        assert effects[block] == pytest.approx(100 * verdicts[block])
        assert verdicts[block] == pytest.approx(stable.loc[block, "A1"] - stable.loc[block, "A0"])
    assert {
        "risk difference",
        "stable width",
        "best of k",
        "default regret",
        "time to threshold",
        "incidence",
        "untuned vs tuned",
    } == set(estimates["estimate"])


def test_every_trial_is_in_the_page(made: tuple[Path, Report]) -> None:
    folder, found = made
    columns = Page(found.html).data["trials"]
    ids = [columns["trial_id"]["t"][i] for i in columns["trial_id"]["c"]]
    planned = [trial["trial_id"] for trial in Ledger(folder / "store").read_plan("synthetic")["trials"]]
    assert sorted(ids) == sorted(planned)
    assert len(columns["q_final"]["v"]) == len(ids)


def test_text_of_a_study_is_text(made: tuple[Path, Report]) -> None:
    page = Page(made[1].html)
    assert "bold" in page.text
    assert "<b>bold</b>" in " ".join(page.texts)  # as letters
    assert page.tags.count("script") == 2
    assert "b" not in page.tags
    assert all("onerror" not in tag for tag in page.tags)
    assert "<img" not in made[1].markdown.read_text(encoding="utf-8").replace("&lt;img", "")


def test_the_page_needs_no_network(made: tuple[Path, Report]) -> None:
    html = made[1].html.read_text(encoding="utf-8")
    ours = re.sub(r' xmlns(:xlink)?="[^"]+"', "", html)
    assert "default-src 'none'" in ours
    assert re.findall(r"https?:|url\((?!data:|#)|@import|src=(?!\"data:)", ours.replace("img src=x", "")) == []


def test_a_study_without_a_claim(tmp_path: Path) -> None:
    make_study(tmp_path / "store", configs=6, evaluations=12, blocks=1, arms={"A0": {"reg_weight": 0}})
    plan = Ledger(tmp_path / "store").read_plan("synthetic")
    for trial in plan["trials"]:
        del trial["cell"]["arm"]
    plan["blocks"]["ring8-P"]["arms"] = {}
    Ledger(tmp_path / "store").write_study("synthetic", "study: synthetic\n", plan, {})
    found = report(
        tmp_path / "store", "synthetic", tmp_path / "out", mlflow_url="http://127.0.0.1:5000/#/experiments/1"
    )
    page = Page(found.html)
    assert "No claim was stated" in page.text
    assert "heatmap-gan-ring8" in page.pictures
    assert page.data["mlflow"] == "http://127.0.0.1:5000/#/experiments/1?searchFilter="
    assert "Verdict by block" not in page.text
    with pytest.raises(StudyError, match="mlflow_url"):
        report(tmp_path / "store", "synthetic", tmp_path / "out", mlflow_url="javascript:alert(1)")


@pytest.mark.parametrize("case", ["one", "failed", "planned", "nan"])
def test_studies_with_nothing_to_draw(tmp_path: Path, case: str) -> None:
    ids = ["t1-00000000000a"] if case == "one" else [f"t1-00000000000{i}" for i in range(4)]
    cells = [{"lr": lr, "reg_weight": w} for lr in (1e-3, 1e-2) for w in (0, 5)]
    trials = [
        entry(i, cell, g_lr=cell["lr"], d_lr=cell["lr"], reg_weight=float(cell["reg_weight"]), batch_size=64)
        for i, cell in zip(ids, cells, strict=False)
    ]
    ledger = make_store(tmp_path / "store", trials)
    if case != "planned":
        series = made_series(0.1)
        if case == "nan":
            series = {
                name: values if name in ("evaluation", "step") else values * float("nan")
                for name, values in series.items()
            }
        train(ledger, "p1", dict.fromkeys(ids, series), state="failed" if case == "failed" else "complete")
    found = report(ledger, "demo", tmp_path / "out")
    page = Page(found.html)
    columns = page.data["trials"]
    states = {columns["state"]["t"][i] for i in columns["state"]["c"]}
    assert states == {"one": {"complete"}, "failed": {"failed"}, "planned": {"planned"}, "nan": {"complete"}}[case]
    judged = {"one": "1/1", "failed": "0/0", "planned": "0/0", "nan": "0/0"}[case]
    assert judged in page.texts
    assert found.notes
    if case in ("failed", "planned"):
        assert f"4 {case}" in page.text


def test_an_arm_without_pairs_is_refused_in_words(tmp_path: Path) -> None:
    make_study(
        tmp_path / "store", configs=6, evaluations=12, blocks=1, claim={**CONTROLS, "predictions": []}, arms=ARMS
    )
    ledger = Ledger(tmp_path / "store")
    for path in (tmp_path / "store" / "trials").iterdir():
        outcome = json.loads(path.read_text())
        path.write_text(json.dumps(outcome | {"state": "failed", "error": "boom"}))
    found = report(ledger, "synthetic", tmp_path / "out", draws=100)
    page = Page(found.html)
    assert "refused" in found.headline.lower()
    assert "no pairs" in page.text or "no pair" in page.text
    assert "36 failed" in page.text


# -- in a browser ------------------------------------------------------------------------------------------------------

PROBE = """<script>
(async () => {
  const hold = (ms) => new Promise((done) => setTimeout(done, ms));
  const cell = document.querySelector('#difference [data-note*="95 %"]');
  cell.scrollIntoView();
  await hold(100);
  cell.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  document.body.dataset.hover = tip.hidden ? "" : tip.textContent;
  document.body.dataset.drawn = document.querySelectorAll("figure svg").length;
  const verdicts = document.querySelector("#compare table.sortable"), head = verdicts.tHead.rows[0].cells[4];
  head.click();
  document.body.dataset.rising = [...verdicts.tBodies[0].rows].map((row) => row.cells[4].textContent).join(" ");
  head.click();
  document.body.dataset.falling = [...verdicts.tBodies[0].rows].map((row) => row.cells[4].textContent).join(" ");
  document.getElementById("find").value = "ring8-G converged";
  find(document.getElementById("find").value);
  document.body.dataset.count = document.getElementById("count").textContent;
  document.querySelectorAll("#head th")[columns.indexOf("q_final")].click();
  document.body.dataset.first = document.querySelector("#rows tr").textContent;
  document.getElementById("next").click();
  document.body.dataset.asked = performance.getEntriesByType("resource").map((found) => found.name).join(" ");
  document.body.dataset.page = document.getElementById("page").textContent;
})().catch((error) => console.error(error));
</script></body>"""


@pytest.mark.browser
def test_page_in_a_browser(made: tuple[Path, Report], tmp_path: Path) -> None:
    page = Page(made[1].html)
    file = tmp_path / "page.html"
    file.write_text(page.html.replace("</body>", PROBE), encoding="utf-8")
    done = chromium(tmp_path, "--dump-dom", file.as_uri(), time_ms=20_000)
    assert ":CONSOLE" not in done.stderr, done.stderr
    body = re.search(r"<body ([^>]*)>", done.stdout)
    assert body is not None
    seen = dict(re.findall(r'data-(\w+)="([^"]*)"', body[1]))
    assert int(seen["drawn"]) == len(page.pictures)
    rising = seen["rising"].split()
    numbers = [float(text.replace("−", "-")) for text in rising]
    assert numbers == sorted(numbers)
    assert seen["falling"].split() == rising[::-1]
    assert re.search(r"A1: \d+ of \d+ stable; A0: \d+ of \d+", seen["hover"])
    assert re.search(r"95 % interval [−+]?\d+ to [−+]?\d+", seen["hover"])
    columns = page.data["trials"]
    blocks, outcomes = ([columns[n]["t"][i] for i in columns[n]["c"]] for n in ("block", "outcome"))
    stable = [pair for pair in zip(blocks, outcomes, strict=True) if pair == ("ring8-G", "converged")]
    assert seen["count"] == f"{len(stable)} of 144"
    assert "ring8-G" in seen["first"]
    assert seen["page"] == "1 / 1"
    assert [url for url in seen["asked"].split() if not url.startswith(("data:", "blob:"))] == []
