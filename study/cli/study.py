"""Commands that plan, register, run and count a study."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, NoReturn

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vistudy.analysis.ledger.errors import Terminated
from vistudy.study.api.run import CHECKPOINT_EVERY_S, HEARTBEAT_TIMEOUT_S
from vistudy.study.api.status import DEFAULT_STORE
from vistudy.study.cli import job
from vistudy.study.cli.options import (  # fmt: skip
    AllowLarge,
    AsJson,
    Cluster,
    DataRoot,
    Gpus,
    Inception,
    PacksPerGpu,
    Store,
    StudyFile,
    StudyName,
    TrackingUri,
    escape,
    name_of,
    set_paths,
    stderr,
    stdout,
)
from vistudy.study.cli.printing import (
    preview_json,
    print_power,
    print_preview,
    print_report,
    print_status,
    print_trials,
)  # fmt: skip

app = typer.Typer()
PANEL = "Study"

RESUMABLE = 75
"""EX_TEMPFAIL of sysexits.h: schedulers requeue on it."""
INTERRUPTED = 130
"""128 and the number of SIGINT, as of shells."""


@app.command(rich_help_panel=PANEL, epilog="Example: vistudy plan study/recipes/quickstart.yaml --trials")
def plan(
    study: StudyFile,
    store: Store = DEFAULT_STORE,
    cluster: Cluster = "local",
    gpus: Gpus = 0,
    packs_per_gpu: PacksPerGpu = 1,
    data_root: DataRoot = None,
    inception_weights: Inception = None,
    trials: Annotated[bool, typer.Option("--trials", help="List every trial.")] = False,
    power: Annotated[
        bool, typer.Option("--power", help="Print the differences that a claim's blocks can detect.")
    ] = False,
    base: Annotated[
        float | None,
        typer.Option("--base", min=0.001, max=0.999, help="Stable share of the baseline, for --power."),
    ] = None,
    pilot: Annotated[bool, typer.Option(help="Train for some seconds to estimate the runtime.")] = True,
    allow_large: AllowLarge = False,
    as_json: AsJson = False,
) -> None:
    """Show what a study would train: factors, cells, trials, packs, inert cells, finished trials, and the runtime."""
    from vistudy.study.api import plan as api

    set_paths(VISTUDY_DATA_ROOT=data_root, VISTUDY_INCEPTION_WEIGHTS=inception_weights)
    preview = api.plan(
        study,
        store=store,
        cluster=cluster,
        gpus=gpus,
        packs_per_gpu=packs_per_gpu,
        allow_large=allow_large,
        pilot=pilot,
    )
    if as_json:
        stdout.print_json(json.dumps(preview_json(preview)))
        return
    print_preview(preview)
    if power:
        print_power(preview, base)
    if trials:
        print_trials(preview)


@app.command(rich_help_panel=PANEL, epilog="Example: vistudy run study/recipes/quickstart.yaml")
def run(
    study: StudyFile,
    store: Store = DEFAULT_STORE,
    tracking_uri: TrackingUri = None,
    cluster: Cluster = "local",
    gpus: Gpus = 0,
    packs_per_gpu: PacksPerGpu = 1,
    data_root: DataRoot = None,
    inception_weights: Inception = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Train failed trials again.")] = False,
    checkpoint_every: Annotated[
        float, typer.Option("--checkpoint-every", min=0.0, help="Seconds of training between checkpoints of a pack.")
    ] = CHECKPOINT_EVERY_S,
    heartbeat_timeout: Annotated[
        float,
        typer.Option("--heartbeat-timeout", min=1.0, help="Seconds without a heartbeat after which a pack is killed."),
    ] = HEARTBEAT_TIMEOUT_S,
    allow_large: AllowLarge = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Submit as a job to --cluster http://HOST:8265 and return.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train all trials that are not yet in the store, sync them to MLflow and draw heatmaps. Run again to resume."""
    from vistudy.study.api import run as api

    if detach:
        arguments: dict[str, object] = {
            "tracking-uri": tracking_uri,
            "data-root": data_root,
            "inception-weights": inception_weights,
        }
        arguments |= {"gpus": gpus, "packs-per-gpu": packs_per_gpu}
        arguments |= {"checkpoint-every": checkpoint_every, "heartbeat-timeout": heartbeat_timeout}
        options = [text for name, value in arguments.items() if value is not None for text in (f"--{name}", str(value))]
        options += ["--retry-failed"] * retry_failed + ["--allow-large"] * allow_large
        job.detach(study, cluster, store, options)
        return
    set_paths(VISTUDY_DATA_ROOT=data_root, VISTUDY_INCEPTION_WEIGHTS=inception_weights)
    bar = Progress(
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("trials"), TimeElapsedColumn(),
        console=stderr, transient=True, refresh_per_second=1, disable=not stderr.is_terminal,
    )  # fmt: skip
    with bar, _stopped_early():
        task = bar.add_task("", total=None)
        report = api.run(
            study,
            store=store,
            tracking_uri=tracking_uri,
            cluster=cluster,
            gpus=gpus,
            packs_per_gpu=packs_per_gpu,
            allow_large=allow_large,
            retry_failed=retry_failed,
            checkpoint_every_s=checkpoint_every,
            heartbeat_timeout_s=heartbeat_timeout,
            say=lambda line: stderr.print(escape(line)),
            tick=lambda done, total: bar.update(task, completed=done, total=total),
            end_now=_end_now,
        )
    if as_json:
        stdout.print_json(json.dumps(asdict(report), default=str))
    else:
        print_report(report, store)
    if report.interrupted:
        _leave(RESUMABLE if report.terminated else INTERRUPTED)
    if report.failed:
        sys.exit(1)


@contextlib.contextmanager
def _stopped_early() -> Iterator[None]:
    """Report a signal that came before anything was trained."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as error:
        terminated = isinstance(error, Terminated)
        how = "SIGTERM" if terminated else "Ctrl-C"
        stderr.print(f"stopped by {how} before this run trained anything; the same command resumes it")
        _leave(RESUMABLE if terminated else INTERRUPTED)


def _end_now(number: int) -> None:
    """End at a second signal: workers end with this process, and the system releases its locks."""
    stderr.show_cursor()
    stderr.print(
        "ended now. Records and checkpoints are complete; training since the last checkpoints will be repeated.\n"
        "MLflow may lack records and show runs as RUNNING: the next run or `vistudy sync` corrects that. "
        "The same command resumes the run."
    )
    _leave(RESUMABLE if number == signal.SIGTERM else INTERRUPTED)


def _leave(code: int) -> NoReturn:
    """Exit without waiting for threads (baselines, figures, MLflow)."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # its reader is gone
            stream.flush()
    os._exit(code)


@app.command(rich_help_panel=PANEL, epilog="Example: vistudy register study/recipes/claim_anchor.yaml")
def register(
    study: StudyFile,
    store: Store = DEFAULT_STORE,
    amend: Annotated[bool, typer.Option("--amend", help="Register a changed claim in addition to the first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Freeze a study's claim, search space, arms and budget with a hash, before its first trial."""
    from vistudy.study.api.register import describe
    from vistudy.study.api.register import register as freeze

    registration = freeze(study, store, amend=amend)
    stdout.print_json(json.dumps(registration)) if as_json else stdout.print(describe(registration), soft_wrap=True)


@app.command(rich_help_panel=PANEL, epilog="Example: vistudy status ring-quickstart")
def status(study: StudyName, store: Store = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Count trials by state and outcome, and show failures with their traceback."""
    from vistudy.study.api import status as api

    state = api.status(name_of(study), store=store)
    if as_json:
        stdout.print_json(json.dumps(asdict(state)))
        return
    print_status(state)
    for trial_id, error in state.errors.items():
        stdout.print(f"\n[red]{trial_id} failed[/]\n{escape(error)}", soft_wrap=True)
