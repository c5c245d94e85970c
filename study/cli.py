"""The command `vistudy`. Exit codes: 0 success, 1 a run with failed trials, 2 a request that was refused."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from study.commands import CHECKPOINT_EVERY_S, DEFAULT_STORE
from study.errors import StudyError

if TYPE_CHECKING:
    from study.commands import Preview, RunReport

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Does this make training stable, or did we tune until it worked? Plans, runs and maps stability studies.",
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

StudyFile = Annotated[Path, typer.Argument(help="Study file (YAML); docs/study-file.md documents it.")]
StudyName = Annotated[str, typer.Argument(help="Study file, or the name of a study in the store.")]
Store = Annotated[str, typer.Option("--store", help="Ledger: a directory, or a URI such as s3://bucket/folder.")]
Uri = Annotated[
    str | None,
    typer.Option("--tracking-uri", help="MLflow: sqlite:///FILE or http(s)://HOST:PORT. Default: a file in the store."),
]
Cluster = Annotated[str, typer.Option("--cluster", help="local, or the address HOST:PORT of a running Ray head.")]
Yes = Annotated[bool, typer.Option("--yes", help="Allow very many trials.")]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", envvar="VISTUDY_DATA_ROOT", help="Folder of the data sets that are read from files."),
]
Inception = Annotated[
    Path | None,
    typer.Option(
        "--inception-weights",
        envvar="VISTUDY_INCEPTION_WEIGHTS",
        help="torch-fidelity's file of Inception-v3: adds Frechet distances of its features for images.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        app()
    except StudyError as error:
        err.print(f"[bold red]error:[/] {_escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("interrupted; the same command goes on from here")
        sys.exit(130)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _set_paths(**paths: Path | None) -> None:
    """By the environment, so that workers have them, too."""
    os.environ.update({name: str(path.resolve()) for name, path in paths.items() if path is not None})


def _name(study: str) -> str:
    """A study's name, from its file or as given."""
    if Path(study).suffix in (".yaml", ".yml") or os.sep in study:
        from study.spec import load_study

        return load_study(study).name
    return study


@app.command(epilog="Example: vistudy plan study/recipes/quickstart.yaml --trials")
def plan(
    study: StudyFile,
    store: Store = DEFAULT_STORE,
    tracking_uri: Uri = None,
    cluster: Cluster = "local",
    data_root: DataRoot = None,
    inception_weights: Inception = None,
    trials: Annotated[bool, typer.Option("--trials", help="List every trial.")] = False,
    pilot: Annotated[bool, typer.Option(help="Train for some seconds to estimate the cost.")] = True,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Show factors, cells, trials, packs, what is done already, inert cells, and the cost."""
    from study import commands

    _set_paths(VISTUDY_DATA_ROOT=data_root, VISTUDY_INCEPTION_WEIGHTS=inception_weights)
    preview = commands.plan(study, store=store, cluster=cluster, yes=yes, pilot=pilot)
    if as_json:
        out.print_json(json.dumps(_preview_json(preview)))
        return
    _print_preview(preview)
    if trials:
        _print_trials(preview)


def _preview_json(preview: Preview) -> dict[str, Any]:
    todo = preview.work
    return preview.plan.to_json() | {
        "done": todo.done,
        "failed": todo.failed,
        "pending": sorted(todo.pending),
        "packs": {pack.pack_id: [config.trial_id() for config in pack.configs] for pack in todo.packs},
        "inert_cells": preview.plan.inert_cells,
        "cluster": {"name": preview.cluster, "slots": preview.slots, "gpus": preview.gpus},
        "estimate": asdict(preview.estimate) if preview.estimate else None,
    }


def _print_preview(preview: Preview) -> None:
    planned, todo = preview.plan, preview.work
    out.print(f"[bold]{planned.study.name}[/]  file {planned.study.hash}  {planned.study.description}")
    for block in planned.study.blocks:
        table = Table(title=f"{block.model} on {block.data}", title_justify="left", box=None, pad_edge=False)
        table.add_column("factor", style="bold")
        table.add_column("levels")
        for name, levels in block.factors.items():
            table.add_row(name, ", ".join(_level(level) for level in levels))
        if block.sample:
            table.add_row("sample", f"{block.sample.n} by {block.sample.method}, seed {block.sample.seed}")
        for name, arm in block.arms.items():
            table.add_row(f"arm {name}", arm.text)
        table.add_row("seed", ", ".join(map(str, block.seeds)))
        table.add_row("budget", f"{block.d_updates} updates, {block.evaluations} evaluations")
        out.print(table)
    merged = f" ({planned.merged} equal ones merged)" if planned.merged else ""
    out.print(f"{planned.cells} cells, {len(planned.trials)} trials{merged}")
    out.print(f"in the store: {todo.done} done, {todo.failed} of them failed; to run: {len(todo.pending)}")
    if planned.inert_cells:
        out.print(
            f"[yellow]warning:[/] in {planned.inert_cells} cells the regularizer is inactive by theorem: with one "
            "generator step a period its gradient at the period's start is exactly zero. They run as placebos."
        )
    for note in planned.notes:
        out.print(f"[yellow]note:[/] {_escape(note)}", soft_wrap=True)
    sizes = ", ".join(str(len(pack.configs)) for pack in todo.packs)
    resumed = sum(pack.resumed for pack in todo.packs)
    out.print(f"{len(todo.packs)} packs of {sizes or 'no'} trials" + (f"; {resumed} go on" if resumed else ""))
    kind = "GPU" if preview.gpus else "CPU"
    out.print(f"cluster {preview.cluster}: {preview.slots} {kind} slots, a pack fits")
    if preview.estimate:
        hours = f"{preview.estimate.slot_s / 3600:.2g} {kind} hours"
        out.print(f"estimate from a pilot: {_duration(preview.estimate.wall_s)} of training, {hours}")


def _print_trials(preview: Preview) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("trial", "block", "cell", "seed", "inert", "state"):
        table.add_column(column, no_wrap=True)
    from analysis.frame import cell_tag

    for trial in preview.plan.trials:
        state = "to run" if trial.trial_id in preview.work.pending else "done"
        table.add_row(trial.trial_id, trial.block, cell_tag(trial.cell), str(trial.seed), ",".join(trial.inert), state)
    Console(width=240, highlight=False).print(table)


def _level(level: object) -> str:
    from analysis.grid import level_text

    return level_text(None, level)


def _duration(seconds: float) -> str:
    units = ((120, 1, ".0f", "s"), (7200, 60, ".0f", "min"), (float("inf"), 3600, ".1f", "h"))
    _, size, digits, unit = next(u for u in units if seconds < u[0])
    return f"{seconds / size:{digits}} {unit}"


@app.command(epilog="Example: vistudy run study/recipes/quickstart.yaml")
def run(
    study: StudyFile,
    store: Store = DEFAULT_STORE,
    tracking_uri: Uri = None,
    cluster: Cluster = "local",
    data_root: DataRoot = None,
    inception_weights: Inception = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed trials again.")] = False,
    checkpoint_every: Annotated[
        float, typer.Option("--checkpoint-every", min=0.0, help="Seconds of training between checkpoints of a pack.")
    ] = CHECKPOINT_EVERY_S,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Train what the store lacks, mirror it to MLflow, draw the heatmaps. Running again goes on."""
    from study import commands

    _set_paths(VISTUDY_DATA_ROOT=data_root, VISTUDY_INCEPTION_WEIGHTS=inception_weights)
    bar = Progress(
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("trials"), TimeElapsedColumn(),
        console=err, transient=True, refresh_per_second=1, disable=not err.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=None)
        report = commands.run(
            study,
            store=store,
            tracking_uri=tracking_uri,
            cluster=cluster,
            yes=yes,
            retry_failed=retry_failed,
            checkpoint_every_s=checkpoint_every,
            say=lambda line: err.print(_escape(line)),
            tick=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        out.print_json(json.dumps(asdict(report), default=str))
    else:
        _print_report(report, store)
    if report.interrupted:
        raise KeyboardInterrupt
    if report.failed:
        sys.exit(1)


def _print_report(report: RunReport, store: str) -> None:
    ran = f"{report.ran} trials in {report.train_s:.0f} s; " if report.ran else ""
    out.print(f"[bold]{report.study}[/]: {ran}{report.already} of {report.trials} were there before")
    _print_outcomes(report.states, report.outcomes)
    for path in report.heatmaps:
        out.print(str(path), soft_wrap=True)
    if report.tracking_error:
        err.print(f"[yellow]MLflow is behind:[/] {_escape(report.tracking_error)}", soft_wrap=True)
    if report.failed:
        err.print(f"[red]{report.failed} trials failed[/]: vistudy status {report.study} --store {store}")
    place = "" if store == DEFAULT_STORE else f" --store {store}"
    out.print(f"browse every run: vistudy ui{place}", soft_wrap=True)


def _print_outcomes(states: dict[str, int], outcomes: dict[str, int]) -> None:
    from analysis.taxonomy import LABEL_TEXT

    table = Table(box=None, pad_edge=False, show_header=False)
    for name, count in states.items():
        table.add_row(str(count), name)
    for name in sorted(outcomes, key=lambda name: -outcomes[name]):
        table.add_row(str(outcomes[name]), f"  {name}", LABEL_TEXT[name][1])
    out.print(table)


@app.command(epilog="Example: vistudy register study/recipes/claim_anchor.yaml")
def register(
    study: StudyFile,
    store: Store = DEFAULT_STORE,
    amend: Annotated[bool, typer.Option("--amend", help="Register a changed claim beside the first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Freeze a study's claim, box, arms and budget with a hash, before its first trial."""
    from study.register import register as freeze
    from study.register import sentence

    found = freeze(study, store, amend=amend)
    out.print_json(json.dumps(found)) if as_json else out.print(sentence(found), soft_wrap=True)


@app.command(epilog="Example: vistudy status ring-quickstart")
def status(study: StudyName, store: Store = DEFAULT_STORE, tracking_uri: Uri = None, as_json: AsJson = False) -> None:
    """Count trials by state and outcome; show failures with their traceback."""
    from study import commands

    found = commands.status(_name(study), store=store)
    if as_json:
        out.print_json(json.dumps(asdict(found)))
        return
    eta = f", about {_duration(found.eta_s)} to go" if found.eta_s else ""
    out.print(f"[bold]{found.study}[/]: {found.trials} trials, {found.progress:.0%} of their evaluations{eta}")
    _print_outcomes(found.states, found.outcomes)
    for trial_id, error in found.errors.items():
        out.print(f"\n[red]{trial_id} failed[/]\n{_escape(error)}", soft_wrap=True)


@app.command(epilog="Example: vistudy heatmap ring-quickstart --out figures")
def heatmap(
    study: StudyName,
    store: Store = DEFAULT_STORE,
    tracking_uri: Uri = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Folder for the files.")] = None,
) -> None:
    """Draw the stability heatmaps of a study as PNG, SVG and one offline HTML page."""
    from study import commands
    from study.tracking_uri import default_tracking_uri

    uri = tracking_uri or ("://" not in store and default_tracking_uri(store)) or None
    for path in commands.draw(_name(study), store=store, tracking_uri=uri, out=folder)[1]:
        out.print(str(path), soft_wrap=True)


@app.command(epilog="Example: vistudy replay t1-0123456789ab --out films")
def replay(
    trial_id: Annotated[str, typer.Argument(help="Id of a trial in the store, or an unambiguous beginning of it.")],
    store: Store = DEFAULT_STORE,
    folder: Annotated[Path, typer.Option("--out", help="Folder for the files.")] = Path("films"),
    frames: Annotated[int, typer.Option("--frames", min=1, help="Pictures besides the first.")] = 60,
    alone: Annotated[
        bool, typer.Option("--alone", help="Train without the rest of its pack: quicker, but not bit for bit the same.")
    ] = False,
    data_root: DataRoot = None,
) -> None:
    """Train one trial again and film it: an animation and a strip of its samples over training time."""
    from study import filmstrip

    _set_paths(VISTUDY_DATA_ROOT=data_root)
    made = filmstrip.replay(trial_id, store, folder, frames=frames, alone=alone)
    out.print(f"[bold]{made.trial_id}[/]: {made.frames} frames. {made.agreement.text}", soft_wrap=True)
    for path in made.paths:
        out.print(str(path), soft_wrap=True)


@app.command(epilog="Example: vistudy export ring-quickstart --records --out records.parquet")
def export(
    study: StudyName,
    to: Annotated[Path, typer.Option("--out", help="FILE.csv or FILE.parquet.")],
    records: Annotated[bool, typer.Option("--records", help="One row a record instead of one a trial.")] = False,
    store: Store = DEFAULT_STORE,
    tracking_uri: Uri = None,
) -> None:
    """Write one row a trial, or one row a record; docs/export.md documents the columns."""
    from analysis.frame import export as write

    rows = write(store, _name(study), to, records=records)
    out.print(f"{rows} rows in {to}", soft_wrap=True)


@app.command(epilog="Example: vistudy sync ring-quickstart --tracking-uri http://127.0.0.1:5000")
def sync(study: StudyName, store: Store = DEFAULT_STORE, tracking_uri: Uri = None) -> None:
    """Bring MLflow up to date with the ledger, or rebuild it; never twice."""
    from study import commands

    report = commands.sync(_name(study), store=store, tracking_uri=tracking_uri)
    out.print(
        f"{report.runs_created} runs made, {report.runs_finished} ended, {report.metrics_written} metrics and "
        f"{report.images_written} pictures written"
    )


@app.command(epilog="Example: vistudy ui --port 5001")
def ui(
    store: Store = DEFAULT_STORE,
    tracking_uri: Uri = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 5000,
) -> None:
    """Serve MLflow's pages for a store, and print searches worth typing."""
    from study.tracking_uri import SEARCHES, UI_ENVIRONMENT, default_tracking_uri, ui_command

    command = ui_command(tracking_uri or default_tracking_uri(store), host, port)
    out.print(f"http://{host}:{port}  (Ctrl-C ends it). In the search field of an experiment:")
    for what, search in SEARCHES:
        out.print(f"  {_escape(search)}\n      {what}", soft_wrap=True, style="")
    sys.exit(subprocess.run(command, env=os.environ | UI_ENVIRONMENT, check=False).returncode)
