"""Commands that check a cluster, and write the files that start one."""

from __future__ import annotations

import json
import urllib.parse
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from vistudy.analysis.ledger.errors import StudyError
from vistudy.clusters.base import ClusterError
from vistudy.clusters.deploy.render import Backend
from vistudy.study.cli.options import AsJson, TrackingUri, escape, stderr, stdout
from vistudy.study.execution.preflight import Preflight

app = typer.Typer(no_args_is_help=True, help="Check a cluster, or write the files that start one.")


@app.command(epilog="Example: vistudy cluster check 10.0.0.5:6379 --store /shared/vistudy --gpus 4")
def check(
    address: Annotated[str, typer.Argument(help="HOST:PORT of a Ray head, auto, local or debug.")],
    store: Annotated[str | None, typer.Option("--store", help="Ledger that every node must share.")] = None,
    tracking_uri: TrackingUri = None,
    gpus: Annotated[int, typer.Option("--gpus", min=0, help="Minimum number of GPUs.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check whether studies can run on a cluster: packs, store, versions, clocks, tracking server."""
    from vistudy.analysis.ledger.ledger import Ledger
    from vistudy.study.execution import preflight
    from vistudy.study.execution.connect import connected as reached
    from vistudy.study.tracking import mirror

    if tracking_uri:
        mirror.check_tracking_uri(tracking_uri)
    if store:
        Ledger(store).create()
    with reached(address) as connected:
        preflight_report = preflight.inspect(connected, store, _host_and_port(tracking_uri))
        cluster, problems = preflight_report.cluster, list(preflight_report.problems)
        if cluster.gpus < gpus:
            problems.append(f"{address} has {cluster.gpus} GPUs; {gpus} were asked for. Add nodes with GPUs.")
    if as_json:
        stdout.print_json(
            json.dumps(
                {"slots": cluster.slots, "gpus": cluster.gpus, "problems": problems, "nodes": _plain(preflight_report)}
            )
        )
    else:
        stdout.print(
            f"{cluster.name}: {len(cluster.nodes)} nodes, packs at once: {cluster.slots} "
            f"(one {_unit(cluster.gpus)} each)"
        )
        stdout.print(_table(preflight_report, store=store is not None, tracking=tracking_uri is not None))
    if problems:
        for problem in problems:
            stderr.print(f"[bold red]problem:[/] {escape(problem)}", soft_wrap=True)
        raise typer.Exit(2)


@app.command(
    epilog="Example: vistudy cluster render slurm --out slurm --gpus 4 --nodes 8 --store /shared/vistudy "
    "--tracking-uri http://mlflow:5000 --set partition=gpu --set venv=/shared/venv"
)
def render(
    name: Annotated[str, typer.Argument(help="ssh, slurm, kubernetes, aws or gcp.")],
    folder: Annotated[Path, typer.Option("--out", help="Folder for the files.")],
    gpus: Annotated[str | None, typer.Option("--gpus", help="GPUs of each worker node; 0: packs run on CPUs.")] = None,
    nodes: Annotated[str | None, typer.Option("--nodes", help="Worker nodes, at most.")] = None,
    store: Annotated[str | None, typer.Option("--store", help="Ledger that all nodes share.")] = None,
    image: Annotated[str | None, typer.Option("--image", help="Container image with vistudy.")] = None,
    tracking_uri: Annotated[str | None, typer.Option("--tracking-uri", help="MLflow server.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE; `vistudy cluster options NAME` lists them.")
    ] = None,
) -> None:
    """Write the files that start a cluster, and a README with the commands."""
    from vistudy.clusters.deploy.render import render as write

    arguments = {"gpus": gpus, "nodes": nodes, "store": store, "image": image, "tracking-uri": tracking_uri}
    answers = {name: value for name, value in arguments.items() if value is not None}
    for item in settings or ():
        key, equals, value = item.partition("=")
        if not equals:
            raise StudyError(f"--set {item}: want NAME=VALUE")
        answers[key] = value
    try:
        for path in write(_backend(name), answers, folder):
            stdout.print(str(path), soft_wrap=True)
    except ClusterError as error:
        raise StudyError(str(error)) from error


@app.command(epilog="Example: vistudy cluster options slurm")
def options(name: Annotated[str, typer.Argument(help="ssh, slurm, kubernetes, aws or gcp.")]) -> None:
    """List the options of `render` for a kind of cluster."""
    for setting in _backend(name).settings:
        default = "required" if setting.default is None else f"default: {setting.default or 'none'}"
        stdout.print(f"{setting.name}: {escape(setting.help)} ({escape(default)})", soft_wrap=True)


def _backend(name: str) -> Backend:
    from vistudy.clusters.deploy.registry import BACKENDS

    if name not in BACKENDS:
        raise StudyError(f"cluster {name!r}: no files are written for it; want one of {', '.join(BACKENDS)}.")
    return BACKENDS[name]


def _unit(gpus: int) -> str:
    return "GPU" if gpus else "CPU"


def _plain(preflight_report: Preflight) -> list[dict[str, object]]:
    return [asdict(report) for report in preflight_report.nodes]


def _table(preflight_report: Preflight, *, store: bool, tracking: bool) -> Table:
    """`store`, `tracking`: they were asked for."""
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    checks = ["store"] * store + ["free GB", "clock"] + ["tracking"] * tracking
    for title in ("node", "CPU", "GPU", "python", "torch", "ray", "vistudy", *checks):
        table.add_column(title, overflow="fold")
    for report in preflight_report.nodes:
        node, facts = report.node, report.facts
        row = [node.name, str(node.cpus), str(node.gpus)]
        if facts is None:
            table.add_row(*row, "no answer")
            continue
        row += [facts.versions[name] for name in ("python", "torch", "ray", "vistudy")]
        free = f"{facts.scratch_free_gb}" if facts.store_free_gb is None else f"{facts.store_free_gb}"
        clock = "?" if report.skew_s is None else f"{report.skew_s:+.1f} s"
        row += ["no" if facts.store else "yes"] * store + [free, clock] + ["no" if facts.tracking else "yes"] * tracking
        table.add_row(*row)
    for node in preflight_report.departed:
        table.add_row(node.name, str(node.cpus), str(node.gpus), "has left")
    return table


def _host_and_port(uri: str | None) -> tuple[str, int] | None:
    """Of a server; a database file has none."""
    if uri is None or uri.startswith("sqlite"):
        return None
    parts = urllib.parse.urlsplit(uri)
    if not parts.hostname:
        raise StudyError("tracking URI: no host in it; want http://HOST:PORT")
    ports = {"https": 443, "http": 80, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
    return parts.hostname, parts.port or ports[parts.scheme.split("+")[0]]
