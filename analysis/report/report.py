"""`vistudy report`: one offline HTML file, Markdown, tables as CSV and Parquet, pictures for print.

The page needs no network and no other file: it can be mailed. Its pictures are those for print, with hover texts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pandas as pd
from markupsafe import Markup

from vistudy.analysis.figures.html import inline_svg
from vistudy.analysis.figures.matplotlib_renderer import RenderedFigure
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.maps.atlas_page import atlas_section
from vistudy.analysis.maps.atlas_samples import Modes
from vistudy.analysis.maps.heatmap_page import embedded_json, page_environment
from vistudy.analysis.outcomes.label_study import StoreLike
from vistudy.analysis.outcomes.labels import LABEL_TEXT, Thresholds
from vistudy.analysis.report.pictures import FigureWorker, Picture, Section, pictures
from vistudy.analysis.report.tables import DRAWS, Table, arm_tally, estimate_tables, estimates, packed
from vistudy.analysis.report.text import markdown, methods, provenance
from vistudy.analysis.report.verdict_section import View, view
from vistudy.analysis.tables import trials as frames
from vistudy.analysis.tables.arm_table import arms_by_weight, load_arms
from vistudy.analysis.tables.doses import with_doses
from vistudy.analysis.verdict.decide import claim_of, thresholds_of

if TYPE_CHECKING:
    from vistudy.analysis.ledger.ledger import Ledger

CONTENTS = (
    ("verdict", "verdict"), ("compare", "comparison"), ("stability", "stability"), ("outcomes", "outcomes"),
    ("atlas", "samples"), ("trials", "every trial"), ("methods", "methods"),
    ("provenance", "provenance"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was written."""

    html: Path
    markdown: Path
    tables: tuple[Path, ...]
    """CSV and Parquet."""
    figures: tuple[Path, ...]
    """SVG, and PNG if that was wanted."""
    headline: str
    """The verdict in one line."""
    notes: tuple[str, ...]
    """What could not be drawn or estimated, and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Content:
    """All that a report says, before it is laid out."""

    study: str
    plan: Mapping[str, Any]
    claim: Mapping[str, Any] | None
    table: pd.DataFrame
    verdict: View
    main: tuple[Picture, ...]
    sections: tuple[tuple[str, str, tuple[Table, ...], tuple[Picture, ...]], ...]
    """(anchor, title, tables, pictures)."""
    methods: list[str]
    provenance: list[tuple[str, str]]
    notes: list[str]
    study_text: str

    @property
    def tables(self) -> list[Table]:
        return [table for _, _, tables, _ in self.sections for table in tables]

    @property
    def pictures(self) -> list[Picture]:
        return [*self.main, *(picture for *_, found in self.sections for picture in found)]


def report(
    store: StoreLike,
    study: str,
    out_dir: str | os.PathLike[str],
    *,
    mlflow_url: str | None = None,
    modes: Modes | None = None,
    draws: int = DRAWS,
    png: bool = False,
) -> Report:
    """Write the report of a study: `report.html`, `report.md`, `tables/` and `figures/` in `out_dir`.

    A study without a claim gets one, too: it describes and decides nothing.

    Args:
        store: the ledger, its place, or the trials of the study as read from it.
        study: name of a study in it.
        out_dir: folder, created if needed; files of an earlier report are replaced.
        mlflow_url: page of the study's experiment in MLflow; trials then link to their search there.
        modes: data set -> centres of its real modes (m, 2), marked in the pictures of samples.
        draws: resamples of an interval.
        png: write the pictures for print as PNG (200 dpi), too.

    Raises:
        StudyError: unknown study; `mlflow_url` is not http or https; as `load_frame`.
    """
    if mlflow_url is not None and urlsplit(mlflow_url).scheme not in ("http", "https"):
        raise StudyError(f"mlflow_url: got {mlflow_url!r}; give the http:// or https:// address of the experiment")
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    trials = frames.read_trials(store, study)
    ledger = trials.ledger
    painter = FigureWorker(out / "figures", len(trials.entries), png=png)
    content = _gather(ledger, trials, painter, draws)
    tables = _write_tables(content, out / "tables")
    atlas = _atlas(ledger, study, trials.plan, modes)
    printed = painter.results()
    (out / "report.html").write_text(_page(content, printed, atlas, mlflow_url), encoding="utf-8")
    (out / "report.md").write_text(_markdown(content, printed, out), encoding="utf-8")
    return Report(
        html=out / "report.html", markdown=out / "report.md", tables=tuple(tables),
        figures=tuple(path for rendered in printed.values() for path in rendered.paths),
        headline=content.verdict.headline, notes=tuple(content.notes),
    )  # fmt: skip


def _gather(ledger: Ledger, trials: frames.StudyTrials, painter: FigureWorker, draws: int) -> _Content:
    claim = claim_of(trials) if trials.plan.get("claim") else None
    thresholds = thresholds_of(claim) if claim else Thresholds()
    of_plan = _table(trials, thresholds)
    table = of_plan.copy(deep=False)
    table.attrs = {}  # pandas copies them, deeply, at every step
    notes: list[str] = []
    boxes = _boxes(trials.plan)
    sections: dict[Section, list[Picture]] = {"main": [], "compare": [], "stability": [], "events": []}
    for section, picture in pictures(table, claim, trials, notes, thresholds):
        sections[section].append(picture)
        painter.add(picture)
    verdict = view(with_doses(of_plan, trials) if claim else of_plan, claim, trials.registrations)
    estimates_ = estimates(table, {**claim, "boxes": boxes}, notes, draws=draws) if claim else None
    numbers = () if estimates_ is None else estimate_tables(estimates_)
    study_text = ledger.read_study_text(trials.study)
    return _Content(
        study=trials.study, plan=trials.plan, claim=claim, table=table, verdict=verdict, notes=notes,
        main=tuple(sections["main"]),
        sections=(
            ("compare", "How the arms compare", (*verdict.tables, *numbers), tuple(sections["compare"])),
            ("stability", "Where training is stable", (), tuple(sections["stability"])),
            ("outcomes", "What became of the trials", (arm_tally(table),), tuple(sections["events"])),
        ),
        methods=methods(trials.plan, table, claim, thresholds, draws), study_text=study_text,
        provenance=provenance(
            trials.plan, ledger.read_meta(trials.study), study_text, table, trials.registrations, trials.first_ms
        ),
    )  # fmt: skip


def _table(trials: frames.StudyTrials, thresholds: Thresholds) -> pd.DataFrame:
    """Arm table of all blocks; in those without arms every level of reg_weight is one."""
    with_arms = any(block.get("arms") for block in trials.plan.get("blocks", {}).values())
    if not with_arms:
        return arms_by_weight(frames.load_frame(trials, thresholds=thresholds))
    arms = load_arms(trials, thresholds=thresholds)
    without = {name for name, block in trials.plan["blocks"].items() if not block.get("arms")}
    plain = {trial_id for trial_id, entry in trials.entries.items() if entry.get("block") in without}
    if not plain:
        return arms
    frame = frames.load_frame(trials, thresholds=thresholds)
    table = pd.concat([arms, arms_by_weight(frame[frame["trial_id"].isin(plain)])], ignore_index=True)
    table.attrs = arms.attrs
    return table


def _boxes(plan: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Block -> lowest and highest learning rate of the box that it was drawn from."""
    boxes = {}
    for name, block in plan.get("blocks", {}).items():
        space = ((block.get("sample") or {}).get("space") or {}).get("lr") or {}
        if "low" in space:
            boxes[name] = (float(space["low"]), float(space["high"]))
    return boxes


def _atlas(store: Ledger, study: str, plan: Mapping[str, Any], modes: Modes | None) -> Markup | None:
    has_samples = any(block.get("sample_evaluations") for block in plan.get("blocks", {}).values())
    return atlas_section(store, study, modes=modes) if has_samples else None


def _write_tables(content: _Content, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, frame in {"trials": content.table, **{table.name: table.frame for table in content.tables}}.items():
        csv, parquet = folder / f"{name}.csv", folder / f"{name}.parquet"
        frame.to_csv(csv, index=False)
        frame.to_parquet(parquet, index=False)
        paths += [csv, parquet]
    return paths


def _facts(content: _Content) -> str:
    table = content.table
    trials = table.drop_duplicates("trial_id")
    states = ", ".join(f"{count:,} {state}" for state, count in trials["state"].value_counts().items())
    devices = ", ".join(map(str, trials["device"].dropna().unique()))
    return f"{len(trials):,} trials ({states}) in {table['block'].nunique()} blocks" + (
        f"; on {devices}" if devices else ""
    )


def _page(
    content: _Content, printed: Mapping[str, RenderedFigure], atlas: Markup | None, mlflow_url: str | None
) -> str:
    link = f"{mlflow_url}{'&' if '?' in mlflow_url else '?'}searchFilter=" if mlflow_url else None
    sections = [
        {"anchor": anchor, "title": title, "tables": tables, "pictures": [_shown(p, printed[p.key]) for p in pictures]}
        for anchor, title, tables, pictures in content.sections
        if tables or pictures
    ]
    present = {"verdict", "trials", "methods", "provenance", *(str(section["anchor"]) for section in sections)}
    present |= {"atlas"} if atlas else set()
    data = {"labels": LABEL_TEXT, "mlflow": link, "trials": packed(content.table)}
    return page_environment().get_template("report.html.j2").render(
        title=content.study, question=(content.claim or {}).get("question", ""),
        facts=_facts(content), contents=[(anchor, name) for anchor, name in CONTENTS if anchor in present],
        verdict=content.verdict, decided=content.verdict.decided,
        main=[_shown(p, printed[p.key]) for p in content.main],
        sections=sections, atlas=atlas, methods=content.methods,
        notes=content.notes, provenance=content.provenance, study_text=content.study_text, data=embedded_json(data),
        files="tables/trials.csv and .parquet",
        listed=f"{len(content.table):,} rows: one for each place of a trial in a block and arm.",
    )  # fmt: skip


def _shown(picture: Picture, printed: RenderedFigure) -> dict[str, Any]:
    svg = inline_svg(printed.paths[0].read_bytes(), picture.key, picture.title, round(printed.inches * 100))
    return {"key": picture.key, "title": picture.title, "caption": picture.caption, "svg": svg}


def _markdown(content: _Content, printed: Mapping[str, RenderedFigure], out: Path) -> str:
    lead = [(content.claim or {}).get("question", ""), content.verdict.headline, *content.verdict.lines]
    lead += [*(f"- {item}" for item in content.verdict.items), _facts(content)]
    pictures = [(p.title, printed[p.key].paths[0].relative_to(out).as_posix(), p.caption) for p in content.pictures]
    return markdown(
        content.study, lead, content.tables, pictures, content.methods, content.notes, content.provenance
    )  # fmt: skip
