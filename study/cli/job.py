"""Commands for studies that run as jobs of a cluster, started with `vistudy run --detach`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vistudy.analysis.ledger.errors import StudyError
from vistudy.clusters.base import ClusterError
from vistudy.study.cli.options import StudyName, escape, name_of, stderr, stdout

if TYPE_CHECKING:
    from vistudy.clusters.jobs import Job

app = typer.Typer(no_args_is_help=True, help="Studies that run as jobs of a cluster (`run --detach`).")
ASKED = "stopping: "
"""First words of a run's output after a signal."""

Dashboard = Annotated[str, typer.Option("--cluster", help="Dashboard of the head: http://HOST:8265.")]


@app.command("list", epilog="Example: vistudy job list --cluster http://10.0.0.5:8265")
def list_jobs(cluster: Dashboard) -> None:
    """List the studies that were started with `run --detach`, newest last."""
    from vistudy.clusters.jobs import Jobs

    try:
        for job in Jobs(cluster).list():
            stdout.print(_line(job), soft_wrap=True)
    except ClusterError as error:
        raise StudyError(str(error)) from error


@app.command(epilog="Example: vistudy job logs ring-quickstart --cluster http://10.0.0.5:8265 --follow")
def logs(
    study: StudyName,
    cluster: Dashboard,
    follow: Annotated[bool, typer.Option("--follow", help="Follow the output until the job ends.")] = False,
) -> None:
    """Print the output of the newest job of a study."""
    from vistudy.clusters.jobs import Jobs

    try:
        at = Jobs(cluster)
        for text in at.logs(at.newest(name_of(study)), follow=follow):
            typer.echo(text, nl=False)
        stderr.print(_line(at.newest(name_of(study))), soft_wrap=True)
    except ClusterError as error:
        raise StudyError(str(error)) from error


@app.command(epilog="Example: vistudy job stop ring-quickstart --cluster http://10.0.0.5:8265")
def stop(study: StudyName, cluster: Dashboard) -> None:
    """Stop the newest job of a study. Its packs write checkpoints, from which `run` resumes."""
    from vistudy.clusters.jobs import STOP_S, Jobs

    try:
        at = Jobs(cluster)
        before = at.newest(name_of(study))
        job = at.stop(before)
        _, marker, answer = "".join(at.logs(job, follow=False)).rpartition(ASKED)
        stdout.print(_line(job), soft_wrap=True)
        if before.ended:
            stdout.print("it had already ended")
        elif not job.ended:
            stdout.print(f"not ended yet; it has {STOP_S:.0f} s to stop")
        elif marker:
            typer.echo(f"it said:\n{marker}{answer}", nl=False)
        else:
            stdout.print(
                "it ended without output: `vistudy status` shows what is left; packs resume from their checkpoints"
            )
    except ClusterError as error:
        raise StudyError(str(error)) from error


def detach(study: Path, cluster: str, store: str, options: list[str]) -> None:
    """Check a study here, submit it to a cluster, and return."""
    from vistudy.clusters.jobs import Jobs
    from vistudy.study.planning.plan import plan
    from vistudy.study.spec.parser import load_study

    if "://" not in store and not os.path.isabs(store):
        raise StudyError(
            f"--store {store}: a job runs in another folder on another machine; give an absolute path that its nodes "
            "share, or a URI such as s3://bucket/folder."
        )
    loaded = load_study(study)
    plan(loaded, allow_large="--allow-large" in options)  # refuse here what the job would refuse there
    try:
        job = Jobs(cluster).submit(loaded.name, loaded.text, ["--store", store, *options])
    except ClusterError as error:
        raise StudyError(str(error)) from error
    stdout.print(_line(job), soft_wrap=True)
    stdout.print(f"follow it: vistudy job logs {loaded.name} --cluster {escape(cluster)} --follow", soft_wrap=True)


def _line(job: Job) -> str:
    why = f": {escape(job.message)}" if job.message and job.ended else ""
    return f"[bold]{job.study}[/]  job {job.job_id}  {job.state}{why}"
