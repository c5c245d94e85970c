"""Do outcomes depend on how often a trial is evaluated? Trials read again with fewer of their evaluations.

`python -m benchmarks.thinned STORE STUDY ...` takes studies of E evaluations, and labels every complete trial by all
of them, by every second and by every fourth, by each version of the rules. Beside it stands what the times of looking
alone change: every second evaluation against the ones between them. docs/outcomes.md reports it.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from vistudy.analysis.outcomes.label_study import StudyTrials, read_trials
from vistudy.analysis.outcomes.labels import RULES, STABLE, Reference
from vistudy.analysis.outcomes.rules import Outcome, label

STEPS = (1, 2, 4)


def thinned(series: Mapping[str, np.ndarray], step: int, offset: int = 0) -> dict[str, np.ndarray]:
    """Evaluation 0 and every `step`-th one that comes `offset` before a multiple, numbered from 0."""
    number = series["evaluation"].astype(int)
    kept = (number == 0) | ((number + offset) % step == 0)
    found = {name: values[kept] for name, values in series.items()}
    return found | {"evaluation": (found["evaluation"] + offset * (found["evaluation"] > 0)) / step}


def outcomes(trials: StudyTrials, ids: Sequence[str], version: int, step: int, offset: int = 0) -> dict[str, Outcome]:
    """trial_id -> what it shows by that part of its evaluations."""
    found = {}
    for trial_id in ids:
        reference = Reference.from_dict(trials.packs[trials.ends[trial_id]["pack_id"]]["reference"])
        evaluations = int(trials.entries[trial_id]["config"]["evaluations"]) // step
        series = thinned(trials.series[trial_id], step, offset)
        found[trial_id] = label(series, reference, RULES[version], evaluations=evaluations)
    return found


def agreement(first: Mapping[str, Outcome], second: Mapping[str, Outcome]) -> tuple[float, float]:
    """Shares of trials with the same label, and that agree in whether they are stable."""
    pairs = [(outcome.label, second[trial_id].label) for trial_id, outcome in first.items()]
    return (
        float(np.mean([a == b for a, b in pairs])),
        float(np.mean([(a == STABLE) == (b == STABLE) for a, b in pairs])),
    )


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.thinned", description=__doc__)
    parser.add_argument("store")
    parser.add_argument("studies", nargs="+")
    arguments = parser.parse_args()
    print("| study | rules | stable by E, E/2, E/4 | same label, E/2 and E/4 as E | stable alike | other times, E/2 |")
    print("|---|---|---|---|---|---|")
    for study in arguments.studies:
        trials = read_trials(arguments.store, study)
        data = {trial_id: trials.entries[trial_id]["config"]["data"] for trial_id in trials.series}
        for kind, version in itertools.product(dict.fromkeys(data.values()), RULES):
            ids = [trial_id for trial_id in data if data[trial_id] == kind]
            by_step = [outcomes(trials, ids, version, step) for step in STEPS]
            between = outcomes(trials, ids, version, 2, offset=1)
            stable = " ".join(f"{np.mean([o.label == STABLE for o in part.values()]):.0%}" for part in by_step)
            shares = [agreement(by_step[0], part) for part in by_step[1:]]
            same, alike = (" ".join(f"{share[i]:.0%}" for share in shares) for i in range(2))
            times = " ".join(f"{share:.0%}" for share in agreement(by_step[1], between))
            print(f"| {study}: {kind}, {len(ids)} | {version} | {stable} | {same} | {alike} | {times} |")


if __name__ == "__main__":
    main()
