"""Records of a study's trials: checked, as arrays, labelled. Without pandas, which takes half a second to import."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from vistudy.analysis.ledger.documents import PackRecord, PlannedTrial, Record, StoredPlan, TrialEnd
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.outcomes.labels import Reference, Thresholds
from vistudy.analysis.outcomes.rules import VALUES_READ, Outcome, label


def plan_entries(document: StoredPlan, study: str) -> dict[str, PlannedTrial]:
    """trial_id -> entry of the plan.

    Raises:
        StudyError: a trial is planned twice.
    """
    trials = document["trials"]
    twice = [trial_id for trial_id, n in Counter(entry["trial_id"] for entry in trials).items() if n > 1]
    if twice:
        raise StudyError(
            f"plan of study {study!r}: {len(twice)} trial ids appear more than once ({', '.join(twice[:3])} ...); "
            "every trial must be planned once. Run `vistudy run` with the study file to write the plan anew."
        )
    return {entry["trial_id"]: entry for entry in trials}


def check_all_planned(trial_ids: Iterable[str], plan: Mapping[str, Any], study: str) -> None:
    """Raise StudyError if a trial is not in the plan."""
    strangers = sorted({trial_id for trial_id in trial_ids if trial_id not in plan})
    if strangers:
        raise StudyError(
            f"study {study!r}: the store answered with {len(strangers)} trials that its plan does not have "
            f"({', '.join(strangers[:3])}): plan.json and the store do not belong together."
        )


def checked_histories(
    histories: Iterable[tuple[str, Sequence[Record]]], plan: Mapping[str, Any], study: str
) -> Iterator[tuple[str, list[Record]]]:
    """The ledger's histories, checked: no trial that was not planned, none twice, evaluations in order."""
    done: set[str] = set()
    for trial_id, records in histories:
        check_all_planned([trial_id], plan, study)
        numbers = [record["evaluation"] for record in records]
        if trial_id in done or any(b <= a for a, b in itertools.pairwise(numbers)):
            raise StudyError(f"study {study!r}: records of trial {trial_id} are out of order or appear twice.")
        if numbers[-1] + 1 != len(numbers):
            gap = min(set(range(numbers[-1])) - set(numbers))
            raise StudyError(
                f"study {study!r}: trial {trial_id} has a record of evaluation {numbers[-1]} but none of {gap}: "
                "the store is damaged. `vistudy doctor` names the file; with --repair, the next run trains it again."
            )
        done.add(trial_id)
        yield trial_id, list(records)


def label_trial(
    trial_id: str,
    series: Mapping[str, np.ndarray],
    plan: Mapping[str, PlannedTrial],
    outcomes: Mapping[str, TrialEnd],
    packs: Mapping[str, PackRecord],
    thresholds: Thresholds,
) -> Outcome:
    """The outcome of a complete trial.

    Raises:
        StudyError: its pack or its reference is missing, or they do not fit.
    """
    pack_id = outcomes[trial_id]["pack_id"]
    if pack_id not in packs:
        raise StudyError(f"trial {trial_id}: its pack {pack_id} is not in the store, so its reference is not known.")
    try:
        reference = Reference.from_dict(packs[pack_id].get("reference") or {})
        evaluations = int(plan[trial_id]["config"]["evaluations"])
        return label(series, reference, thresholds, evaluations=evaluations)
    except ValueError as error:
        raise StudyError(f"trial {trial_id} of pack {pack_id} cannot be labelled: {error}") from error


def to_series(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Arrays (T,) of evaluation, step and every value that any record has and the outcome rules read."""
    series = {
        "evaluation": np.array([record["evaluation"] for record in records], np.float64),
        "step": np.array([record["step"] for record in records], np.float64),
    }
    values = [record["values"] for record in records]
    present = set[str]().union(*values)
    names = [name for name in VALUES_READ if name in present]
    if len(names) > 1 and all(len(of_record) == len(present) for of_record in values):
        rows: list[Sequence[float]] = list(map(itemgetter(*names), values))  # half the time of asking one by one
    else:
        rows = [[of_record.get(name, math.nan) for name in names] for of_record in values]
    return series | dict(zip(names, np.array(rows, np.float64).reshape(len(rows), len(names)).T.copy(), strict=True))
