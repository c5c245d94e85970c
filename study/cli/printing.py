"""Output of the commands."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from vistudy.study.api.status import DEFAULT_STORE
from vistudy.study.cli.options import escape, stderr, stdout

if TYPE_CHECKING:
    from vistudy.study.api.plan import Preview
    from vistudy.study.api.run import RunReport
    from vistudy.study.api.status import Status


STARTED_STATES = ("interrupted", "running")


def preview_json(preview: Preview) -> dict[str, Any]:
    """Return a plan as JSON values."""
    workload = preview.workload
    return preview.plan.to_json() | {
        "done": workload.done,
        "failed": workload.failed,
        "pending": sorted(workload.pending),
        "states": preview.trial_states.states,
        "packs": {pack.pack_id: [config.trial_id() for config in pack.configs] for pack in workload.packs},
        "pack_sizes": list(workload.sizes),
        "inert_cells": preview.plan.inert_cells,
        "cluster": {"name": preview.cluster, "slots": preview.slots, "gpus": preview.gpus},
        "estimate": asdict(preview.estimate) if preview.estimate else None,
    }


def print_preview(preview: Preview) -> None:
    """Print a plan."""
    planned, workload = preview.plan, preview.workload
    stdout.print(f"[bold]{planned.study.name}[/]  file {planned.study.hash}  {planned.study.description}")
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
        stdout.print(table)
    merged = f" ({planned.n_duplicates} equal ones merged)" if planned.n_duplicates else ""
    stdout.print(f"{planned.cells} cells, {len(planned.trials)} trials{merged}")
    interrupted, live = (
        sum(state == name for state in preview.trial_states.states.values()) for name in STARTED_STATES
    )
    stdout.print(
        f"in the store: {workload.done} done, {workload.failed} of them failed; to run: {len(workload.pending)}"
        + (f", {interrupted} of them begun and interrupted" if interrupted else "")
        + (f", {live} of them being trained now" if live else "")
    )
    if planned.inert_cells:
        stdout.print(
            f"[yellow]warning:[/] in {planned.inert_cells} cells the regularizer is inactive by theorem: with one "
            "generator step a period its gradient at the period's start is exactly zero. They run as placebos."
        )
    for note in planned.notes:
        stdout.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)
    counts = Counter(len(pack.configs) for pack in workload.packs)
    sizes = ", ".join(f"{n} x {size}" if n > 1 else str(size) for size, n in counts.items())
    resumed = sum(pack.resumed for pack in workload.packs)
    if sizes:
        stdout.print(f"{len(workload.packs)} packs of {sizes} trials" + (f"; {resumed} resume" if resumed else ""))
    for reason in workload.sizes:
        stdout.print(f"  {escape(reason)}", soft_wrap=True)
    kind = "GPU" if preview.gpus else "CPU"
    stdout.print(f"cluster {preview.cluster}: {preview.slots} {kind} slots, a pack fits")
    if preview.estimate:
        hours = f"{preview.estimate.slot_s / 3600:.2g} {kind} hours"
        stdout.print(f"estimate from a pilot: {duration(preview.estimate.wall_s)} of training, {hours}")


BASES = (0.1, 0.3, 0.5, 0.7)
"""Stable shares of the baseline for which power is shown where none is given."""


def print_power(preview: Preview, base: float | None = None) -> None:
    """Print the differences that each block with arms can detect, and the configurations that the claim needs.

    `base`: stable share of the baseline; None: several are shown.
    """
    from vistudy.analysis.estimates.power import detectable, needed

    claim = preview.plan.study.claim
    smallest, alpha = (claim.sesoi, claim.alpha) if claim is not None else (0.08, 0.05)
    table = Table(
        box=None, pad_edge=False, title=f"power of the paired test, two-sided alpha {alpha:g}", title_justify="left"
    )
    names = ("block", "configs x seeds", "baseline stable", "found with 80 %", f"configs for {100 * smallest:g} points")
    for column in names:
        table.add_column(column)
    for block in preview.plan.study.blocks:
        if block.arms and block.sample:
            n, seeds = block.sample.n, len(block.seeds)
            for share in BASES if base is None else (base,):
                least = detectable(n, seeds, base=share, alpha=alpha) if n > 1 else float("nan")
                text = "no difference" if least != least else f"{100 * least:.0f} points"
                configs = (
                    str(needed(smallest, seeds, base=share, alpha=alpha)) if share + smallest < 1 else "not possible"
                )
                table.add_row(block.name, f"{n} x {seeds}", f"{100 * share:g} %", text, configs)
    stdout.print(table if table.row_count else "no block has arms and a sample, so there is nothing to test")
    stdout.print(
        "for configurations from nearly always to nearly never stable (docs/statistics.md)"
        + ("" if base is not None else "; how much of the baseline is stable is not known: run it alone, then --base")
    )


def print_trials(preview: Preview) -> None:
    """Print every trial of a plan."""
    table = Table(box=None, pad_edge=False)
    for column in ("trial", "block", "cell", "seed", "inert", "state"):
        table.add_column(column, no_wrap=True)
    from vistudy.analysis.tables.trials import cell_tag

    for trial in preview.plan.trials:
        state = preview.trial_states.states[trial.trial_id]
        table.add_row(trial.trial_id, trial.block, cell_tag(trial.cell), str(trial.seed), ",".join(trial.inert), state)
    Console(width=240, highlight=False).print(table)


def _level(level: object) -> str:
    from vistudy.analysis.tables.formatting import level_text

    return level_text(None, level)


def duration(seconds: float) -> str:
    """Format seconds in a readable unit."""
    units = ((120, 1, ".0f", "s"), (7200, 60, ".0f", "min"), (float("inf"), 3600, ".1f", "h"))
    _, size, digits, unit = next(u for u in units if seconds < u[0])
    return f"{seconds / size:{digits}} {unit}"


def print_report(report: RunReport, store: str) -> None:
    """Print what a run did."""
    place = "" if store == DEFAULT_STORE else f" --store {store}"
    ran = f"{report.n_trained} trials in {report.train_s:.0f} s; " if report.n_trained else ""
    text = f"{ran}{report.n_existing} of {report.trials} were there before"
    stdout.print(f"[bold]{report.study}[/]: {_stopped(report) if report.interrupted else text}", soft_wrap=True)
    print_outcomes(report.states, report.outcomes)
    for path in report.heatmaps:
        stdout.print(str(path), soft_wrap=True)
    if report.tracking_error:
        stderr.print(f"[yellow]MLflow is behind:[/] {escape(report.tracking_error)}", soft_wrap=True)
    elif report.interrupted:
        stdout.print(
            "MLflow is up to date" if report.synced else "MLflow was not synced: nothing was trained in this run"
        )
    if report.failed:
        stderr.print(f"[red]{report.failed} trials failed[/]: vistudy status {report.study} --store {store}")
    if not report.interrupted:
        stdout.print(f"browse every run: vistudy ui{place}", soft_wrap=True)
        return
    if not report.heatmaps:
        stdout.print(f"heatmaps were not drawn to the end: vistudy heatmap {report.study}{place}")
    stdout.print(
        "the same command resumes the run" if report.n_unfinished or not report.heatmaps else "nothing is left to do"
    )


def _stopped(report: RunReport) -> str:
    """Sentence on what a stopped run has done, and what is left."""
    how = "SIGTERM" if report.terminated else "Ctrl-C"
    done = f"{report.n_trained} of {report.trials} trials ended in this run, {report.n_existing} before it"
    if not report.n_unfinished:
        return f"stopped by {how}; {done}: all are trained"
    at = f" at {report.checkpoint_progress:.0%} of their training" if report.checkpoint_progress is not None else ""
    kinds = {
        f"{report.n_with_checkpoint} with a checkpoint{at}": report.n_with_checkpoint,
        f"{report.n_started} begun without a checkpoint": report.n_started,
        f"{report.n_unfinished - report.n_with_checkpoint - report.n_started} not begun": report.n_unfinished
        - report.n_with_checkpoint
        - report.n_started,
    }
    unfinished = f"{report.n_unfinished} {'is' if report.n_unfinished == 1 else 'are'} left"
    return f"stopped by {how}; {done}, {unfinished}: {', '.join(text for text, n in kinds.items() if n)}"


def print_status(status: Status) -> None:
    """Print the state of a study."""
    stdout.print(f"[bold]{status.study}[/]: {state_sentence(status)}", soft_wrap=True)
    print_outcomes(status.states, status.outcomes)


def state_sentence(status: Status) -> str:
    """Sentence on the state of a study."""
    live, interrupted = status.states.get("running", 0), status.states.get("interrupted", 0)
    if not status.n_unfinished:
        return f"all {status.trials} trials have ended"
    if live or status.runner:
        eta = f", about {duration(status.eta_s)} to go" if status.eta_s else ""
        if status.orphaned:
            eta = (
                f"; {live} of them are in training, but no process runs this study: workers of a run that was killed "
                "end within seconds, those of another study continue"
            )
        elif not live:
            eta = f"; {status.runner} runs it, and no pack is in training at this moment"
        return f"{status.trials} trials, {status.progress:.0%} of their evaluations{eta}"
    if not interrupted:
        return (
            f"not begun: {status.n_unfinished} of {status.trials} trials are left; "
            "the same `vistudy run` command trains them"
        )
    new = f", {status.n_unfinished - interrupted} of them not begun" if status.n_unfinished > interrupted else ""
    return (
        f"interrupted: {status.n_unfinished} of {status.trials} trials left{new}, at "
        f"{status.mean_progress or 0:.0%} of their evaluations; the same `vistudy run` command resumes them"
    )


def print_outcomes(states: dict[str, int], outcomes: dict[str, int]) -> None:
    """Print counts by state and by outcome."""
    from vistudy.analysis.outcomes.labels import LABEL_TEXT

    table = Table(box=None, pad_edge=False, show_header=False)
    for name, count in states.items():
        table.add_row(str(count), name)
    for name in sorted(outcomes, key=lambda name: -outcomes[name]):
        table.add_row(str(outcomes[name]), f"  {name}", LABEL_TEXT[name][1])
    stdout.print(table)
