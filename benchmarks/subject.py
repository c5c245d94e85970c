"""What is measured: blocks of a study file as a study of its own, and a fair sample of its trials."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML

from vistudy.study.planning.plan import Plan, plan
from vistudy.study.spec.parser import load_study

T = TypeVar("T")


def blocks_of(study: Path, data: str, out: Path, *, budget: dict[str, int] | None = None) -> Plan:
    """Write the blocks of `study` that learn `data` to `out` as a study file. Returns its plan.

    Args:
        study: the study file.
        data: name of a data set.
        out: the file to write.
        budget: keys of their budgets to change; the blocks are then smaller ones, for trying the benchmark.

    Raises:
        ValueError: no block of the file learns `data`.
    """
    yaml = YAML()
    document: Any = yaml.load(study.read_text("utf-8"))
    blocks: list[Any] = document.get("blocks", [document])
    chosen = [block for block in blocks if block.get("data", document.get("data")) == data]
    if not chosen:
        raise ValueError(f"{study}: no block learns {data!r}")
    if "blocks" in document:
        document["blocks"] = chosen
    for block in chosen if budget else []:
        holder = block if "budget" in block else document
        holder["budget"].update(budget)
    with out.open("w", encoding="utf-8") as file:
        yaml.dump(document, file)
    return plan(load_study(out))


def stratified(items: Sequence[tuple[Hashable, T]], n: int, seed: int) -> list[T]:
    """Draw `n` of (stratum, item) without replacement, each stratum in proportion and at least once, in order.

    What rounding leaves goes to the strata that it cut most. Raises ValueError if n is not enough for all strata.
    """
    strata: dict[Hashable, list[int]] = {}
    for place, (stratum, _) in enumerate(items):
        strata.setdefault(stratum, []).append(place)
    if not len(strata) <= n <= len(items):
        raise ValueError(
            f"trials of the sample: got {n}, allowed {len(strata)} (kinds of trials) to {len(items)} (all)"
        )
    exact = {stratum: n * len(places) / len(items) for stratum, places in strata.items()}
    counts = {stratum: max(1, int(share)) for stratum, share in exact.items()}
    while (missing := n - sum(counts.values())) != 0:
        step = 1 if missing > 0 else -1
        movable = [stratum for stratum in strata if step > 0 or counts[stratum] > 1]
        counts[max(movable, key=lambda stratum: step * (exact[stratum] - counts[stratum]))] += step
    rng = random.Random(seed)
    chosen = [place for stratum, places in strata.items() for place in rng.sample(places, counts[stratum])]
    return [items[place][1] for place in sorted(chosen)]
