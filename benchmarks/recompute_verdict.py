"""Decide a claim again from the table of trials that a report wrote, without the store and without training anything.

    python -m benchmarks.recompute_verdict docs/results/claim-anchor

reads `study.yaml` and `tables/trials.parquet` of the folder and writes `verdict-2.md` (the present rule) and
`verdict-1-2.md` (both rules side by side) into it. The outcomes are those of the table.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd

from vistudy.analysis.tables.arm_table import PILOT
from vistudy.analysis.tables.formatting import points
from vistudy.analysis.verdict.decide import decide
from vistudy.analysis.verdict.decision import Decision
from vistudy.analysis.verdict.results import IDENTICAL
from vistudy.study.api.register import registration_content
from vistudy.study.spec.parser import load_study


def recompute(folder: Path, draws: int = 100_000) -> Decision:
    """The decision of the present rule, with the earlier rule's verdicts beside it.

    The registration is that of the study file: its hash and date are in the verdict of the day.
    """
    content = registration_content(load_study(folder / "study.yaml"))
    table = pd.read_parquet(folder / "tables" / "trials.parquet")
    pilots = table["arm"].str.contains(PILOT, regex=False)
    counts: dict[str, dict[str, int]] = {}
    for (block, arm), rows in table[pilots].groupby(["block", "arm"], sort=False):
        counts.setdefault(str(block), {})[str(arm)] = len(rows)
    table = table[~pilots].reset_index(drop=True)
    table.attrs = {"study": table["study"].iloc[0], "blocks": content["blocks"], "pilots": counts, "first_ms": None}
    claim = {name: value for name, value in content["claim"].items() if name not in ("room_low", "room_high")}
    registration = {"claim_hash": "", "registered_ms": 0, "records_before": 0, **content, "claim": claim}
    registration["outcome_version"] = int(table["outcome_version"].max())
    decision = decide(table, content["claim"], [registration], draws=draws)
    said = (
        "Registered under the earlier rule, which did not ask for room; when, and with which hash, is in verdict.md. "
        f"Computed again from the recorded trials; outcomes are of version {registration['outcome_version']}."
    )
    return dataclasses.replace(decision, registered=dataclasses.replace(decision.registered, sentence=said))


def side_by_side(decision: Decision) -> str:
    """Both verdicts of everything, as a table."""
    lines = ["| | earlier rule | present rule | difference (present) |", "|---|---|---|---|"]
    overall = decision.overall
    for group in (*([overall] if overall else []), *decision.classes):
        pooled = group.pooled
        figures = f"{points(pooled.estimate)} [{points(pooled.low)}, {points(pooled.high)}]" if pooled else ""
        room = "" if group.verdict == IDENTICAL else f"; {len(group.with_room)} of {len(group.blocks)} blocks had room"
        lines.append(f"| {group.name} | {group.earlier} | **{group.verdict}**{room} | {figures} |")
    for block in decision.blocks:
        d = block.difference
        figures = f"{points(d.estimate)} [{points(d.low)}, {points(d.high)}]" if d else ""
        counts = f", {d.stable_treatment} against {d.stable_baseline} of {d.n_pairs}" if d else ""
        lines.append(f"| {block.block} | {block.earlier} | **{block.verdict}** | {figures}{counts} |")
    lines += ["", "| prediction | present rule | |", "|---|---|---|"]
    held = {True: "borne out", False: "**not borne out**", None: "could not be checked"}
    for check in decision.predictions:
        before = check.sentence.partition(" By the earlier rule: ")[2]
        lines.append(f"| {check.id}: {check.scope}, {check.expected} | {held[check.holds]} | {before} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write both pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="With study.yaml and tables/trials.parquet.")
    folder: Path = parser.parse_args().folder
    decision = recompute(folder)
    command = f"python -m benchmarks.recompute_verdict {folder}"
    pages: dict[str, Any] = {
        "verdict-2.md": decision.to_markdown(),
        "verdict-1-2.md": f"# Earlier and present rule side by side\n\n`{command}`\n\n{side_by_side(decision)}",
    }
    for name, text in pages.items():
        (folder / name).write_text(text, "utf-8")
        print(folder / name)


if __name__ == "__main__":
    main()
