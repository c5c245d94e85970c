"""Where `vistudy run` spends its time: `python -m benchmarks.timeline STUDY.yaml --store DIR --launched UNIX_S`.

Nothing in the program is touched: times come from its lines of progress, its records and its files.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One stretch of a run."""

    name: str
    seconds: float
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line of progress, with the clock and this process's CPU time when it was said."""

    text: str
    unix_s: float = field(default_factory=time.time)
    cpu_s: float = field(default_factory=time.process_time)


def main() -> None:
    """Run a study and print its phases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--store", required=True)
    parser.add_argument("--launched", type=float, required=True, help="Unix time at which this process was started.")
    args = parser.parse_args()
    entered = time.time()
    from vistudy.study.api import commands

    assert main.app
    lines = [Line(text="imported")]
    report = commands.run(args.study, store=args.store, say=lambda text: lines.append(Line(text=text)))
    lines.append(Line(text="ended"))
    page = next(path for path in report.heatmaps if path.suffix == ".html")
    rows = phases(Path(args.store), report.study, lines, page)
    rows = [
        Phase(name="python starts", seconds=entered - args.launched),
        Phase(name="imports of the command", seconds=lines[0].unix_s - entered),
        *rows,
    ]
    for row in rows:
        print(f"{row.seconds:8.2f} s  {row.name:<38} {row.note}".rstrip())
    print(f"{sum(row.seconds for row in rows):8.2f} s  {report.ran} trials")


def phases(store: Path, name: str, lines: list[Line], page: Path) -> list[Phase]:
    """The phases of `commands.run`, one after the other; they add up to its time."""
    from vistudy.analysis.ledger.ledger import Ledger

    def said(words: str) -> Line | None:
        return next((line for line in lines if words in line.text), None)

    ledger = Ledger(store)
    ids = {trial["trial_id"] for trial in ledger.read_plan(name)["trials"]}
    outcomes, records = ledger.read_outcomes(ids), list(ledger.records(ids))
    first: dict[str, float] = {}
    for record in records:
        pack = outcomes[record["trial_id"]]["pack_id"]
        first[pack] = min(first.get(pack, math.inf), record["unix_ms"] / 1000)
    last: dict[str, float] = {}
    for outcome in outcomes.values():
        pack = outcome["pack_id"]
        last[pack] = max(last.get(pack, 0.0), outcome["unix_ms"] / 1000)
    engine_s = sum(outcome["wall_s"] for outcome in outcomes.values())
    to_run, drawing = said("trials to run"), said("drawing heatmaps")
    assert to_run is not None
    assert drawing is not None
    computing = said("computing floor") or to_run
    begun, trained, drawn, ended = min(first.values()), max(last.values()), page.stat().st_mtime, lines[-1]
    driver = f"{drawing.cpu_s - to_run.cpu_s:.1f} CPU s of the driver meanwhile"
    in_packs = f"{len(last)} packs, {engine_s:.1f} s in the engine, of {sum(last.values()) - sum(first.values()):.1f} s"
    return [
        Phase(name="plan, imports, Ray starts", seconds=computing.unix_s - lines[0].unix_s),
        Phase(name="floors and ceilings, packs written", seconds=to_run.unix_s - computing.unix_s),
        Phase(name="Tune starts, workers start and import", seconds=begun - to_run.unix_s),
        Phase(name="training, first record to last trial", seconds=trained - begun, note=f"{in_packs}; {driver}"),
        Phase(name="Tune and Ray end", seconds=drawing.unix_s - trained),
        Phase(name="outcomes and heatmaps", seconds=drawn - drawing.unix_s),
        Phase(
            name="last sync to MLflow",
            seconds=ended.unix_s - drawn,
            note=f"{len(records)} records; {ended.cpu_s - drawing.cpu_s:.1f} CPU s of the driver since training",
        ),
    ]


if __name__ == "__main__":
    main()
