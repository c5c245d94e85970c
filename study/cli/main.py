"""The command `vistudy`. Exit codes: 0 success, 1 a run with failed trials, 2 a request that was refused, 75 resumable.

75 is a run that SIGTERM or its store stopped in the middle, 130 one that Ctrl-C did: the same command goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vistudy.analysis.ledger.errors import FULL, StoppedError, StudyError, Terminated
from vistudy.study.api.commands import CHECKPOINT_EVERY_S, DEFAULT_STORE, HANG_AFTER_S
from vistudy.study.cli import cluster as cli_cluster
from vistudy.study.cli import doctor as cli_doctor
from vistudy.study.cli import jobs as cli_jobs
from vistudy.study.cli import results as cli_results
from vistudy.study.cli.options import (
    AsJson,
    Cluster,
    DataRoot,
    Gpus,
    Inception,
    PacksPerGpu,
    Store,
    StudyFile,
    StudyName,
    Uri,
    Yes,
    err,
    escape,
    name_of,
    out,
    set_paths,
)
from vistudy.study.cli.printing import (
    preview_json,
    print_power,
    print_preview,
    print_report,
    print_status,
    print_trials,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Does this make training stable, or did we tune until it worked? Plans, runs and maps stability studies.",
)
app.add_typer(cli_results.app)
app.add_typer(cli_doctor.app)
app.add_typer(cli_jobs.app)
app.add_typer(cli_cluster.app, name="cluster")

RESUMABLE = 75
"""EX_TEMPFAIL of sysexits.h: schedulers requeue on it."""
INTERRUPTED = 130
"""128 and the number of SIGINT, as of shells."""


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        app()
    except StudyError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(RESUMABLE if isinstance(error, StoppedError) else 2)
    except ValueError as error:
        from vistudy.trainables.data.data_root import DataError

        if not isinstance(error, DataError):
            raise
        err.print(f"[bold red]error:[/] data: {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        if isinstance(error, PermissionError):
            what = f"{error.filename or 'a file'}: {error.strerror}"
            mend = "Give a folder that you may write to with --out, or a --store that you may read and write."
            err.print(f"[bold red]error:[/] {escape(what)}. {mend}", soft_wrap=True)
            sys.exit(2)
        if error.errno not in FULL:
            raise
        err.print(f"[bold red]error:[/] {escape(str(error))}. What is recorded is whole.", soft_wrap=True)
        sys.exit(RESUMABLE)
    except KeyboardInterrupt:  # elsewhere typer has it
        sys.exit(INTERRUPTED)


@app.command(epilog="Example: vistudy plan study/recipes/quickstart.yaml --trials")
def plan(
    study: StudyFile,
    store: Store = DEFAULT_STORE,
    cluster: Cluster = "local",
    gpus: Gpus = 0,
    packs_per_gpu: PacksPerGpu = 1,
    data_root: DataRoot = None,
    inception_weights: Inception = None,
    trials: Annotated[bool, typer.Option("--trials", help="List every trial.")] = False,
    power: Annotated[bool, typer.Option("--power", help="Say what differences a claim's blocks can detect.")] = False,
    base: Annotated[
        float | None,
        typer.Option("--base", min=0.001, max=0.999, help="Stable share of the baseline, for --power."),
    ] = None,
    pilot: Annotated[bool, typer.Option(help="Train for some seconds to estimate the cost.")] = True,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Show factors, cells, trials, packs, what is done already, inert cells, and the cost."""
    from vistudy.study.api import commands

    set_paths(VISTUDY_DATA_ROOT=data_root, VISTUDY_INCEPTION_WEIGHTS=inception_weights)
    preview = commands.plan(
        study, store=store, cluster=cluster, gpus=gpus, packs_per_gpu=packs_per_gpu, yes=yes, pilot=pilot
    )
    if as_json:
        out.print_json(json.dumps(preview_json(preview)))
        return
    print_preview(preview)
    if power:
        print_power(preview, base)
    if trials:
        print_trials(preview)


@app.command(epilog="Example: vistudy run study/recipes/quickstart.yaml")
def run(
    study: StudyFile,
    store: Store = DEFAULT_STORE,
    tracking_uri: Uri = None,
    cluster: Cluster = "local",
    gpus: Gpus = 0,
    packs_per_gpu: PacksPerGpu = 1,
    data_root: DataRoot = None,
    inception_weights: Inception = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed trials again.")] = False,
    checkpoint_every: Annotated[
        float, typer.Option("--checkpoint-every", min=0.0, help="Seconds of training between checkpoints of a pack.")
    ] = CHECKPOINT_EVERY_S,
    hang_after: Annotated[
        float, typer.Option("--hang-after", min=1.0, help="Seconds without a sign of life until a pack is killed.")
    ] = HANG_AFTER_S,
    yes: Yes = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Hand it to the cluster as a job and return; --cluster http://HOST:8265.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train what the store lacks, mirror it to MLflow, draw the heatmaps. Running again goes on."""
    from vistudy.study.api import commands

    if detach:
        given: dict[str, object] = {
            "tracking-uri": tracking_uri,
            "data-root": data_root,
            "inception-weights": inception_weights,
        }
        given |= {"gpus": gpus, "packs-per-gpu": packs_per_gpu}
        given |= {"checkpoint-every": checkpoint_every, "hang-after": hang_after}
        options = [text for name, value in given.items() if value is not None for text in (f"--{name}", str(value))]
        options += ["--retry-failed"] * retry_failed + ["--yes"] * yes
        cli_jobs.detach(study, cluster, store, options)
        return
    set_paths(VISTUDY_DATA_ROOT=data_root, VISTUDY_INCEPTION_WEIGHTS=inception_weights)
    bar = Progress(
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("trials"), TimeElapsedColumn(),
        console=err, transient=True, refresh_per_second=1, disable=not err.is_terminal,
    )  # fmt: skip
    with bar, _stopped_early():
        task = bar.add_task("", total=None)
        report = commands.run(
            study,
            store=store,
            tracking_uri=tracking_uri,
            cluster=cluster,
            gpus=gpus,
            packs_per_gpu=packs_per_gpu,
            yes=yes,
            retry_failed=retry_failed,
            checkpoint_every_s=checkpoint_every,
            hang_after_s=hang_after,
            say=lambda line: err.print(escape(line)),
            tick=lambda done, total: bar.update(task, completed=done, total=total),
            end_now=_end_now,
        )
    if as_json:
        out.print_json(json.dumps(asdict(report), default=str))
    else:
        print_report(report, store)
    if report.interrupted:
        _leave(RESUMABLE if report.terminated else INTERRUPTED)
    if report.failed:
        sys.exit(1)


@contextlib.contextmanager
def _stopped_early() -> Iterator[None]:
    """A signal before anything was trained, or known to be left."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as error:
        terminated = isinstance(error, Terminated)
        how = "SIGTERM" if terminated else "Ctrl-C"
        err.print(f"stopped by {how} before this run trained anything; the same command goes on")
        _leave(RESUMABLE if terminated else INTERRUPTED)


def _end_now(number: int) -> None:
    """At a second signal: workers end with this process, and the system frees its locks."""
    err.show_cursor()
    err.print(
        "ended now. Records, checkpoints and ends of trials are whole; what was trained since the last checkpoints is "
        "trained again.\nMLflow may lack records, and show runs as RUNNING: the next run or `vistudy sync` mends that. "
        "The same command goes on."
    )
    _leave(RESUMABLE if number == signal.SIGTERM else INTERRUPTED)


def _leave(code: int) -> NoReturn:
    """Exit, waiting for no thread: what one of them still does (baselines, figures, MLflow) is not wanted any more."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


@app.command(epilog="Example: vistudy register study/recipes/claim_anchor.yaml")
def register(
    study: StudyFile,
    store: Store = DEFAULT_STORE,
    amend: Annotated[bool, typer.Option("--amend", help="Register a changed claim beside the first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Freeze a study's claim, box, arms and budget with a hash, before its first trial."""
    from vistudy.study.api.register import register as freeze
    from vistudy.study.api.register import sentence

    found = freeze(study, store, amend=amend)
    out.print_json(json.dumps(found)) if as_json else out.print(sentence(found), soft_wrap=True)


@app.command(epilog="Example: vistudy status ring-quickstart")
def status(study: StudyName, store: Store = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Count trials by state and outcome; show failures with their traceback."""
    from vistudy.study.api import commands

    found = commands.status(name_of(study), store=store)
    if as_json:
        out.print_json(json.dumps(asdict(found)))
        return
    print_status(found)
    for trial_id, error in found.errors.items():
        out.print(f"\n[red]{trial_id} failed[/]\n{escape(error)}", soft_wrap=True)


@app.command(epilog="Example: vistudy export ring-quickstart --records --out records.parquet")
def export(
    study: StudyName,
    to: Annotated[Path, typer.Option("--out", help="FILE.csv or FILE.parquet.")],
    records: Annotated[bool, typer.Option("--records", help="One row a record instead of one a trial.")] = False,
    store: Store = DEFAULT_STORE,
) -> None:
    """Write one row a trial, or one row a record; docs/export.md documents the columns."""
    from vistudy.analysis.tables.trials import export as write

    rows = write(store, name_of(study), to, records=records)
    out.print(f"{rows} rows in {to}", soft_wrap=True)


@app.command(epilog="Example: vistudy sync ring-quickstart --tracking-uri http://127.0.0.1:5000")
def sync(study: StudyName, store: Store = DEFAULT_STORE, tracking_uri: Uri = None) -> None:
    """Bring MLflow up to date with the ledger, or rebuild it; never twice."""
    from vistudy.study.api import commands

    report = commands.sync(name_of(study), store=store, tracking_uri=tracking_uri)
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
    from vistudy.study.tracking.mirror import SEARCHES, UI_ENVIRONMENT, pages

    command, folder = pages(store, tracking_uri, host, port)
    out.print(f"http://{host}:{port}  (Ctrl-C ends it). In the search field of an experiment:")
    for what, search in SEARCHES:
        out.print(f"  {escape(search)}\n      {what}", soft_wrap=True, style="")
    sys.stdout.flush()
    if folder is not None:
        os.chdir(folder)
    os.execve(command[0], command, os.environ | UI_ENVIRONMENT)  # so that signals are the server's
