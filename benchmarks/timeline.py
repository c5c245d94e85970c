"""Where `vistudy run` spends its time: `python -m benchmarks.timeline STUDY.yaml --store DIR --launched UNIX_S`.

Nothing in the program is touched: times come from its lines of progress, its records and its files.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One stretch of a run."""

    name: str
    seconds: float
    note: str = ""


def main() -> None:
    """Run a study and print its phases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--store", required=True)
    parser.add_argument("--launched", type=float, required=True, help="Unix time at which this process was started.")
    args = parser.parse_args()
    entered = time.time()
    import study.cli  # what the command imports before it does anything
    from study import commands

    assert study.cli.app
    imported = time.time()
    lines: list[tuple[float, str]] = []
    report = commands.run(args.study, store=args.store, say=lambda line: lines.append((time.time(), line)))
    ended = time.time()
    page = next(path for path in report.heatmaps if path.suffix == ".html")
    for phase in phases(Path(args.store), report.study, lines, args.launched, entered, imported, page, ended):
        print(f"{phase.seconds:8.2f} s  {phase.name:<46} {phase.note}")
    print(f"{ended - args.launched:8.2f} s  {report.ran} trials")


def phases(
    store: Path,
    name: str,
    lines: list[tuple[float, str]],
    launched: float,
    entered: float,
    imported: float,
    page: Path,
    ended: float,
) -> list[Phase]:
    """The phases of a run, one after the other; they add up to the whole."""
    from study.ledger import Ledger

    def said(words: str) -> float:
        return next(at for at, line in lines if words in line)

    ledger = Ledger(store)
    ids = {trial["trial_id"] for trial in ledger.read_plan(name)["trials"]}
    outcomes = ledger.read_outcomes(ids)
    records = list(ledger.records(ids))
    first: dict[str, float] = {}
    for record in records:
        pack = outcomes[record["trial_id"]]["pack_id"]
        first[pack] = min(first.get(pack, ended), record["unix_ms"] / 1000)
    last: dict[str, float] = {}
    engine_s: dict[str, float] = {}
    for outcome in outcomes.values():
        pack = outcome["pack_id"]
        last[pack] = max(last.get(pack, 0.0), outcome["unix_ms"] / 1000)
        engine_s[pack] = engine_s.get(pack, 0.0) + outcome["wall_s"]
    trained, drawn = max(last.values()), page.stat().st_mtime
    computing = [at for at, line in lines if "computing floor" in line]
    to_run, drawing, begun = said("trials to run"), said("drawing heatmaps"), min(first.values())
    in_packs = sum(last[pack] - first[pack] for pack in last)
    notes = (
        f"{len(last)} packs: {in_packs:.1f} slot seconds from first record to end, {sum(engine_s.values()):.1f} "
        f"of the engine; first slot idle {trained - min(sorted(last.values())[-2:]):.1f} s before the last ends"
    )
    return [
        Phase(name="python starts", seconds=entered - launched),
        Phase(name="imports of the command", seconds=imported - entered),
        Phase(name="plan, imports, Ray starts", seconds=(computing or [to_run])[0] - imported),
        Phase(name="floors and ceilings, packs written", seconds=to_run - (computing or [to_run])[0]),
        Phase(name="Tune starts, workers start and import", seconds=begun - to_run),
        Phase(name="training, first record to last trial", seconds=trained - begun, note=notes),
        Phase(name="Tune and Ray end", seconds=drawing - trained),
        Phase(name="outcomes and heatmaps", seconds=drawn - drawing),
        Phase(name="last sync to MLflow", seconds=ended - drawn, note=f"{len(records)} records"),
    ]


if __name__ == "__main__":
    main()
