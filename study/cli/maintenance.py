"""Commands that keep a store and its MLflow mirror in order."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from typing import Annotated

import typer

from vistudy.study.api.status import DEFAULT_STORE
from vistudy.study.cli.options import AsJson, Store, StudyName, TrackingUri, escape, name_of, stderr, stdout

app = typer.Typer()
PANEL = "Maintenance"


@app.command(rich_help_panel=PANEL, epilog="Example: vistudy sync ring-quickstart --tracking-uri http://127.0.0.1:5000")
def sync(study: StudyName, store: Store = DEFAULT_STORE, tracking_uri: TrackingUri = None) -> None:
    """Bring MLflow up to date with the ledger, or rebuild it."""
    from vistudy.study.api import sync as api

    report = api.sync(name_of(study), store=store, tracking_uri=tracking_uri)
    stdout.print(
        f"{report.runs_created} runs made, {report.runs_finished} ended, {report.metrics_written} metrics and "
        f"{report.images_written} pictures written"
    )


@app.command(rich_help_panel=PANEL, epilog="Example: vistudy ui --port 5001")
def ui(
    store: Store = DEFAULT_STORE,
    tracking_uri: TrackingUri = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 5000,
) -> None:
    """Serve MLflow's pages for a store, and print example searches."""
    from vistudy.study.tracking.mirror import EXAMPLE_FILTERS, UI_ENVIRONMENT, pages

    command, folder = pages(store, tracking_uri, host, port)
    stdout.print(f"http://{host}:{port}  (Ctrl-C ends it). Example searches for an experiment:")
    for what, search in EXAMPLE_FILTERS:
        stdout.print(f"  {escape(search)}\n      {what}", soft_wrap=True, style="")
    sys.stdout.flush()
    if folder is not None:
        os.chdir(folder)
    os.execve(command[0], command, os.environ | UI_ENVIRONMENT)  # so that signals are the server's


@app.command(rich_help_panel=PANEL, epilog="Example: vistudy doctor ring-quickstart --repair")
def doctor(
    study: StudyName,
    store: Store = DEFAULT_STORE,
    tracking_uri: TrackingUri = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Move damaged files to quarantine/ in the store; nothing is deleted."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check for damaged files, missing records and orphan MLflow runs. Exit code 1 if problems remain."""
    from vistudy.analysis.ledger.ledger import Ledger
    from vistudy.study.api.doctor import examine
    from vistudy.study.tracking.uri import default_tracking_uri

    name, stamp = name_of(study), time.strftime("%Y%m%d-%H%M%S")
    uri = tracking_uri or default_tracking_uri(store)
    ledger = Ledger(store)
    findings, running = examine(name, ledger, uri, repairing=repair, stamp=stamp)
    if as_json:
        stdout.print_json(
            json.dumps({"study": name, "running": running, "findings": [asdict(one) for one in findings]})
        )
    else:
        if running:
            stderr.print(
                f"[yellow]note:[/] {escape(running)} Files that it is writing are not checked.", soft_wrap=True
            )
        for one in findings:
            state = "[green]repaired[/] " if one.repaired else ""
            stdout.print(f"{state}[bold]{one.kind}[/] {escape(one.where)}: {escape(one.what)}", soft_wrap=True)
        if ledger.files.exists(f"quarantine/{stamp}"):
            stdout.print(f"files were moved to {store}/quarantine/{stamp}; now run the study again", soft_wrap=True)
        if not findings:
            stdout.print(f"{name}: nothing is wrong")
    sys.exit(any(not one.repaired for one in findings))
