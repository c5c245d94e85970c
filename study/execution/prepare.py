"""Write what a run needs before it starts: packs, and the references of their metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.packing.workload import Workload
from vistudy.study.planning.plan import Plan
from vistudy.trainables.data import DATASETS
from vistudy.trainables.engine import reference, reference_key
from vistudy.trainables.metrics.evaluate import evaluator


def references(plan: Plan, ledger: Ledger, progress: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Return the metric references of a plan's trials by key, from the ledger or computed now."""
    configs = {reference_key(trial.config): trial.config for trial in plan.trials}
    references_ = {}
    torch.set_num_threads(1)  # as in workers: more threads only wait for each other in small operations
    for key, config in configs.items():
        stored = ledger.read_reference(key)
        if stored is None:
            progress(f"computing floor and ceiling of the metrics for {key}")
            stored = reference(config)
        references_[key] = stored
    return references_


def evaluation_protocols(plan: Plan) -> dict[str, dict[str, Any]]:
    """Return, per data set, the metric suite, sample size, feature space and weights of its evaluation."""
    return {name: dict(evaluator(DATASETS[name]).provenance()) for name in {t.config.data for t in plan.trials}}


def prepare(
    plan: Plan, workload: Workload, ledger: Ledger, references: Mapping[str, dict[str, float]], *, now_ms: int
) -> None:
    """Write the packs to the ledger, with the metric references of their trials."""
    blocks = {block.name: block for block in plan.study.blocks}
    block_of = {trial.trial_id: blocks[trial.block] for trial in plan.trials}
    for key, values in references.items():
        ledger.write_reference(key, values)
    for pack in workload.packs:
        if pack.resumed:
            continue
        trial_ids = [config.trial_id() for config in pack.configs]
        block = block_of[trial_ids[0]]
        ledger.write_pack(
            {
                "pack_id": pack.pack_id,
                "trial_ids": trial_ids,
                "trials": [config.to_dict() for config in pack.configs],
                "reference": references[reference_key(pack.configs[0])],
                "samples": list(block.sample_evaluations),
                "keep_checkpoints": block.keep_checkpoints,
                "created_ms": now_ms,
            }
        )
