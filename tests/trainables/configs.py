"""Small packs for tests."""

from __future__ import annotations

from typing import Any

import torch

from vistudy.trainables.config import TrainConfig
from vistudy.trainables.engine import Engine
from vistudy.trainables.models import MODELS
from vistudy.trainables.models.gan import GanConfig
from vistudy.trainables.records import Record


def gan(**fields: Any) -> GanConfig:
    """A resolved GAN trial that trains in well under a second."""
    defaults: dict[str, Any] = {"d_updates": 20, "evaluations": 2, "bn_recalibration_images": 2048, "d_steps": 1}
    return GanConfig(**(defaults | {"g_steps": 2, "batch_size": 16, "g_lr": 1e-3, "d_lr": 1e-3} | fields)).resolve()


SMALL: dict[str, dict[str, Any]] = {
    "gan": {"batch_size": 16, "width": 16, "g_steps": 2},
    "aae": {"batch_size": 16, "width": 16, "g_steps": 2},
    "ali": {"batch_size": 16, "width": 16, "g_steps": 2},
    "vae": {"batch_size": 16, "width": 16, "g_steps": 2},
    "em": {"points": 200},
    "dirac_gan": {"g_steps": 2},
    "finite_gan": {},
    "gauss_gan": {"g_steps": 2},
}
"""Model -> fields with which a trial trains in well under a second."""


def small(model: str, **fields: Any) -> TrainConfig:
    """A resolved trial of any model that trains in well under a second."""
    return MODELS[model].config(**({"d_updates": 20, "evaluations": 2} | SMALL[model] | fields)).resolve()


def train(*configs: TrainConfig) -> dict[str, list[Record]]:
    """Records of a pack by trial."""
    found: dict[str, list[Record]] = {c.trial_id(): [] for c in configs}
    for item in Engine(configs).evaluations():
        for record in item.records:
            found[record.trial_id].append(record)
    return found


def values(records: list[Record]) -> list[tuple[int, int, dict[str, str]]]:
    """What is bitwise reproducible of some records: floats by their bits, so that NaN equals NaN."""
    return [(r.evaluation, r.step, {k: float(v).hex() for k, v in r.values.items()}) for r in records]


def updates(optimizer: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """From now on, (parameters before, gradient) of every update that an optimizer makes."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    inner = optimizer.step

    def step(flat: torch.Tensor, gradient: torch.Tensor) -> None:
        seen.append((flat.detach().clone(), gradient.detach().clone()))
        inner(flat, gradient)

    optimizer.step = step
    return seen
