"""The commands about studies that run as jobs of a cluster: `run --detach`, and what follows them from anywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vistudy.analysis.ledger.errors import StudyError
from vistudy.clusters.base import ClusterError
from vistudy.study.cli.options import StudyName, err, escape, name_of, out

if TYPE_CHECKING:
    from vistudy.clusters.jobs import Job

app = typer.Typer()
ASKED = "stopping: "
"""Beginning of what a run says from a signal on."""

Dashboard = Annotated[str, typer.Option("--cluster", help="Dashboard of the head: http://HOST:8265.")]


@app.command(epilog="Example: vistudy jobs --cluster http://10.0.0.5:8265")
def jobs(cluster: Dashboard) -> None:
    """List the studies that were started with `run --detach`, the newest last."""
    from vistudy.clusters.jobs import Jobs

    try:
        for job in Jobs(cluster).of():
            out.print(_line(job), soft_wrap=True)
    except ClusterError as error:
        raise StudyError(str(error)) from error


@app.command(epilog="Example: vistudy logs ring-quickstart --cluster http://10.0.0.5:8265 --follow")
def logs(
    study: StudyName,
    cluster: Dashboard,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends.")] = False,
) -> None:
    """Print what the newest job of a study has printed."""
    from vistudy.clusters.jobs import Jobs

    try:
        at = Jobs(cluster)
        for text in at.logs(at.newest(name_of(study)), follow=follow):
            typer.echo(text, nl=False)
        err.print(_line(at.newest(name_of(study))), soft_wrap=True)
    except ClusterError as error:
        raise StudyError(str(error)) from error


@app.command(epilog="Example: vistudy stop ring-quickstart --cluster http://10.0.0.5:8265")
def stop(study: StudyName, cluster: Dashboard) -> None:
    """End the newest job of a study. Its packs write checkpoints; `run` goes on from them."""
    from vistudy.clusters.jobs import STOP_S, Jobs

    try:
        at = Jobs(cluster)
        before = at.newest(name_of(study))
        job = at.stop(before)
        _, asked, said = "".join(at.logs(job, follow=False)).rpartition(ASKED)
        out.print(_line(job), soft_wrap=True)
        if before.ended:
            out.print("it had ended before")
        elif not job.ended:
            out.print(f"it has not ended yet; it was asked to, and has {STOP_S:.0f} s for it")
        elif asked:
            typer.echo(f"it said:\n{asked}{said}", nl=False)
        else:
            out.print("it ended without a word: `vistudy status` says what is left; packs go on from their checkpoints")
    except ClusterError as error:
        raise StudyError(str(error)) from error


def detach(study: Path, cluster: str, store: str, options: list[str]) -> None:
    """Check a study here, hand it to a cluster, and return."""
    from vistudy.clusters.jobs import Jobs
    from vistudy.study.planning.plan import plan
    from vistudy.study.spec.parser import load_study

    if "://" not in store and not os.path.isabs(store):
        raise StudyError(
            f"--store {store}: a job runs in another folder on another machine; give an absolute path that its nodes "
            "share, or a URI such as s3://bucket/folder."
        )
    loaded = load_study(study)
    plan(loaded, allow_large="--yes" in options)  # refuses here what the job would refuse there
    try:
        job = Jobs(cluster).submit(loaded.name, study.read_text("utf-8"), ["--store", store, *options])
    except ClusterError as error:
        raise StudyError(str(error)) from error
    out.print(_line(job), soft_wrap=True)
    out.print(f"follow it: vistudy logs {loaded.name} --cluster {escape(cluster)} --follow", soft_wrap=True)


def _line(job: Job) -> str:
    why = f": {escape(job.message)}" if job.message and job.ended else ""
    return f"[bold]{job.study}[/]  job {job.job_id}  {job.state}{why}"
