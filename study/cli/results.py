"""Commands that show the results of a study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vistudy.study.api.status import DEFAULT_STORE
from vistudy.study.cli.options import (
    AsJson,
    DataRoot,
    Store,
    StudyName,
    TrackingUri,
    escape,
    name_of,
    set_paths,
    stderr,
    stdout,
)

app = typer.Typer()
PANEL = "Results"
Folder = Annotated[Path | None, typer.Option("--out", help="Folder for the files.")]


@app.command(rich_help_panel=PANEL, epilog="Example: vistudy heatmap ring-quickstart --out figures")
def heatmap(
    study: StudyName,
    store: Store = DEFAULT_STORE,
    tracking_uri: TrackingUri = None,
    folder: Folder = None,
) -> None:
    """Draw the stability heatmaps of a study as PNG, SVG and one offline HTML page."""
    from vistudy.study.api.heatmap import draw_heatmaps
    from vistudy.study.tracking.uri import default_tracking_uri

    uri = tracking_uri or ("://" not in store and default_tracking_uri(store)) or None
    for path in draw_heatmaps(name_of(study), store=store, tracking_uri=uri, out=folder)[1]:
        stdout.print(str(path), soft_wrap=True)


@app.command(rich_help_panel=PANEL, epilog="Example: vistudy report claim-rings --out report")
def report(
    study: StudyName,
    store: Store = DEFAULT_STORE,
    tracking_uri: TrackingUri = None,
    folder: Folder = None,
    png: Annotated[bool, typer.Option("--png", help="Also write the figures as PNG (200 dpi).")] = False,
) -> None:
    """Write the report of a study: one offline HTML page, Markdown, tables and figures. A copy goes to MLflow."""
    from vistudy.study.api import report as api

    written_report, behind = api.report(name_of(study), store=store, tracking_uri=tracking_uri, out=folder, png=png)
    stdout.print(written_report.headline, soft_wrap=True, markup=False)
    for note in written_report.notes:
        stdout.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)
    for path in (written_report.html, written_report.markdown, *written_report.tables, *written_report.figures):
        stdout.print(str(path), soft_wrap=True)
    if behind:
        stderr.print(f"[yellow]not copied to MLflow:[/] {escape(behind)}", soft_wrap=True)


@app.command(rich_help_panel=PANEL, epilog="Example: vistudy verdict claim-rings --multiverse")
def verdict(
    study: StudyName,
    store: Store = DEFAULT_STORE,
    multiverse: Annotated[
        bool,
        typer.Option("--multiverse", help="Repeat the decision under other thresholds, windows and search spaces."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Decide the claim of a study: size of the effect, its uncertainty, and alternative explanations."""
    from vistudy.analysis.verdict.decide import decide_study
    from vistudy.analysis.verdict.multiverse import multiverse_check

    name = name_of(study)
    decision = decide_study(store, name)
    again = multiverse_check(store, name) if multiverse else None
    if as_json:
        stdout.print_json(
            json.dumps({"decision": decision.to_json(), "multiverse": again.to_json() if again else None})
        )
        return
    stdout.print(decision.to_markdown(), soft_wrap=True, markup=False)
    if again is not None:
        stdout.print(again.to_markdown(), soft_wrap=True, markup=False)


@app.command(
    rich_help_panel=PANEL, epilog="Example: vistudy compare ring-quickstart ring-again --store-b other/vistudy-data"
)
def compare(
    a: Annotated[str, typer.Argument(help="Study file, or the name of a study in the store.")],
    b: Annotated[str, typer.Argument(help="Another study.")],
    store: Store = DEFAULT_STORE,
    store_b: Annotated[str | None, typer.Option("--store-b", help="Store of B; default: that of A.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two studies: common trials, and the rates of every cell."""
    from vistudy.analysis.tables.compare_studies import compare_studies

    comparison = compare_studies(store, name_of(a), store_b or store, name_of(b))
    if as_json:
        stdout.print_json(json.dumps(comparison.to_json()))
        return
    stdout.print(comparison.to_markdown(), soft_wrap=True, markup=False)


@app.command(rich_help_panel=PANEL, epilog="Example: vistudy relabel ring-quickstart --version 1 --out labels.csv")
def relabel(
    study: StudyName,
    store: Store = DEFAULT_STORE,
    version: Annotated[int, typer.Option("--version", help="Version of the outcome rules.")] = 1,
    to: Annotated[Path | None, typer.Option("--out", help="FILE.csv: both outcomes of every trial.")] = None,
    as_json: AsJson = False,
) -> None:
    """Label a study by an earlier version of the outcome rules, and compare. Changes nothing in the store."""
    from vistudy.analysis.ledger.errors import StudyError
    from vistudy.analysis.outcomes.labels import OUTCOME_VERSION
    from vistudy.analysis.tables.outcome_versions import relabel_study

    if version == OUTCOME_VERSION:
        raise StudyError(f"--version {version}: these are the current rules, by which the study is already labelled")
    versions = relabel_study(store, name_of(study), version)
    if to is not None:
        versions.trials.to_csv(to, index=False)
    if as_json:
        stdout.print_json(json.dumps(versions.to_json()))
        return
    stdout.print(versions.to_markdown(), soft_wrap=True, markup=False)


@app.command(rich_help_panel=PANEL, epilog="Example: vistudy atlas ring-quickstart --out atlas.html")
def atlas(
    study: StudyName,
    store: Store = DEFAULT_STORE,
    to: Annotated[Path, typer.Option("--out", help="FILE.html; figures for print are written next to it.")] = Path(
        "atlas.html"
    ),
) -> None:
    """Show saved samples over the hyperparameters, with a slider over training time."""
    from vistudy.analysis.maps.atlas_page import atlas as draw
    from vistudy.study.execution.runner import real_modes

    stdout.print(str(draw(store, name_of(study), to, modes=real_modes())), soft_wrap=True)


@app.command(rich_help_panel=PANEL, epilog="Example: vistudy film t2-0123456789ab --out films")
def film(
    trial_id: Annotated[str, typer.Argument(help="Id of a trial in the store, or a unique prefix.")],
    store: Store = DEFAULT_STORE,
    folder: Annotated[Path, typer.Option("--out", help="Folder for the files.")] = Path("films"),
    frames: Annotated[int, typer.Option("--frames", min=1, help="Number of frames after the first.")] = 60,
    without_pack: Annotated[
        bool,
        typer.Option("--without-pack", help="Train without the rest of its pack: faster, but not bitwise identical."),
    ] = False,
    data_root: DataRoot = None,
) -> None:
    """Train one trial again and film it: an animation and a strip of its samples over training time."""
    from vistudy.study.films.retrain import film_trial

    set_paths(VISTUDY_DATA_ROOT=data_root)
    film_ = film_trial(trial_id, store, folder, frames=frames, without_pack=without_pack)
    stdout.print(f"[bold]{film_.trial_id}[/]: {film_.frames} frames. {film_.agreement.text}", soft_wrap=True)
    for path in film_.paths:
        stdout.print(str(path), soft_wrap=True)


@app.command(rich_help_panel=PANEL, epilog="Example: vistudy export ring-quickstart --records --out records.parquet")
def export(
    study: StudyName,
    to: Annotated[Path, typer.Option("--out", help="FILE.csv or FILE.parquet.")],
    records: Annotated[bool, typer.Option("--records", help="One row per record instead of one per trial.")] = False,
    store: Store = DEFAULT_STORE,
) -> None:
    """Write a table with one row per trial or per record; docs/export.md documents the columns."""
    from vistudy.analysis.tables.trials import export as write

    rows = write(store, name_of(study), to, records=records)
    stdout.print(f"{rows} rows in {to}", soft_wrap=True)
