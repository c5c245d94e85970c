"""The command that looks for damage, and repairs it."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Annotated

import typer

from vistudy.study.api.commands import DEFAULT_STORE
from vistudy.study.cli.options import AsJson, Store, StudyName, Uri, err, escape, name_of, out

app = typer.Typer()


@app.command(epilog="Example: vistudy doctor ring-quickstart --repair")
def doctor(
    study: StudyName,
    store: Store = DEFAULT_STORE,
    tracking_uri: Uri = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Move what is wrong to aside/ in the store; nothing is deleted.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look for damaged and half-written files, missing records, orphan MLflow runs. Exit code 1: some are left."""
    from vistudy.analysis.ledger.ledger import Ledger
    from vistudy.study.api.doctor import doctor as examine
    from vistudy.study.tracking.uri import default_tracking_uri

    name, stamp = name_of(study), time.strftime("%Y%m%d-%H%M%S")
    uri = tracking_uri or default_tracking_uri(store)
    ledger = Ledger(store)
    found, busy = examine(name, ledger, uri, repair=repair, stamp=stamp)
    if as_json:
        out.print_json(json.dumps({"study": name, "running": busy, "findings": [asdict(one) for one in found]}))
    else:
        if busy:
            err.print(f"[yellow]note:[/] {escape(busy)} What it is writing is not looked at.", soft_wrap=True)
        for one in found:
            state = "[green]repaired[/] " if one.repaired else ""
            out.print(f"{state}[bold]{one.kind}[/] {escape(one.where)}: {escape(one.what)}", soft_wrap=True)
        if ledger.disk.exists(f"aside/{stamp}"):
            out.print(f"files were moved to {store}/aside/{stamp}; now run the study again", soft_wrap=True)
        if not found:
            out.print(f"{name}: nothing is wrong")
    sys.exit(any(not one.repaired for one in found))
