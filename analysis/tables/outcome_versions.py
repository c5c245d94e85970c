"""One study by two versions of the outcome rules, side by side, from the same records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.outcomes.label_study import StoreLike, read_trials
from vistudy.analysis.outcomes.labels import LABELS, OUTCOME_VERSION, RULES, STABLE
from vistudy.analysis.tables.trials import load_frame


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Versions:
    """Outcomes of a study by an older version of the rules and by the present one."""

    study: str
    version: int
    """The older one; may be the present one."""
    trials: pd.DataFrame
    """One row a complete trial: trial_id, block, cell, seed, outcome, q_final, outcome_now, q_final_now, flags_now."""

    @property
    def table(self) -> pd.DataFrame:
        """Trials by outcome of the older rules (rows) and of the present ones (columns), of those that occur."""
        crosstab = pd.crosstab(self.trials["outcome"], self.trials["outcome_now"])
        rows, columns = ([name for name in LABELS if name in axis] for axis in (crosstab.index, crosstab.columns))
        return crosstab.loc[rows, columns]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; an unknown number is null."""
        rows = self.trials.astype(object).where(self.trials.notna(), None).to_dict("records")
        return {"study": self.study, "version": self.version, "present": OUTCOME_VERSION, "trials": rows}

    def to_markdown(self) -> str:
        """A sentence, and the table."""
        table, then, now = self.table, self.trials["outcome"], self.trials["outcome_now"]
        n, other = len(self.trials), int((then != now).sum())
        head = (
            f"{self.study}: {other} of {n} trials have another outcome by version {OUTCOME_VERSION} than by version "
            f"{self.version}; stable are {int((now == STABLE).sum())} instead of {int((then == STABLE).sum())}."
        )
        old = int(self.trials["flags_now"].str.contains("recorded_before_v2").sum())
        if old:
            head += f" {old} were recorded before version 2: their Q lacks what was not recorded."
        lines = [f"| version {self.version}, down; {OUTCOME_VERSION}, across | {' | '.join(table.columns)} | all |"]
        lines.append("|---|" + "---:|" * (len(table.columns) + 1))
        for name, row in table.iterrows():
            lines.append(f"| {name} | {' | '.join(str(k) if k else '' for k in row)} | {row.sum()} |")
        lines.append(f"| all | {' | '.join(str(k) for k in table.sum())} | {n} |")
        return "\n".join([head, "", *lines]) + "\n"


def relabel_study(store: StoreLike, study: str = "", version: int = 1) -> Versions:
    """Judge the complete trials of a study by another version of the rules, beside the present one.

    Raises:
        StudyError: there is no such version; as `read_trials`.
    """
    if version not in RULES:
        allowed = ", ".join(map(str, RULES))
        raise StudyError(f"--version {version}: there are no such outcome rules; allowed: {allowed}")
    trials = read_trials(store, study)
    now = load_frame(trials)
    then = load_frame(trials, thresholds=RULES[version])
    entries = [trials.entries[trial_id] for trial_id in now["trial_id"]]
    both = pd.DataFrame({
        "trial_id": now["trial_id"], "block": [entry.get("block") for entry in entries], "cell": now["cell"],
        "seed": now["seed"], "outcome": then["outcome"], "q_final": then["q_final"], "outcome_now": now["outcome"],
        "q_final_now": now["q_final"], "flags_now": now["flags"],
    })  # fmt: skip
    return Versions(study=trials.study, version=version, trials=both[both["outcome"].notna()].reset_index(drop=True))
