"""An engine that trains nothing: plausible records of ring GANs, made at once, for measuring everything around them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from vistudy.trainables import worker
from vistudy.trainables.engine import Evaluation
from vistudy.trainables.models.gan import GanConfig
from vistudy.trainables.records import Record

REFERENCE = {
    "dist_floor": 0.03, "dist_floor_sd": 0.005, "dist_ceiling": 1.95, "dist_trivial": 0.4,
    "cov_real": 0.95, "prec_real": 0.95, "max_abs_data": 2.2,
}  # fmt: skip
FROM_START = ("g_param_norm", "d_param_norm", "max_abs_sample", "finite", "dist", "cov", "prec", "modes",
              "robust_modes", "hq_share", "reverse_kl", "energy_distance")  # fmt: skip
FROM_STEPS = ("d_grad_norm", "d_loss", "d_acc_real", "d_acc_fake", "g_grad_norm_adv", "g_grad_norm_reg", "rho",
              "g_loss", "drift")  # fmt: skip
"""Names of the values of a ring GAN's record: 12 before training, 21 after."""


def series(config: GanConfig) -> tuple[list[list[float]], int]:
    """Values at every evaluation, in the order of FROM_START and FROM_STEPS, and the last evaluation.

    Large learning rates diverge, middle ones converge, small ones are slow; the term and the seed move the borders.
    """
    rng = np.random.default_rng([config.seed, int(config.g_lr * 1e9), int(config.reg_weight * 1e6)])
    t = np.arange(config.evaluations + 1) / config.evaluations
    speed = 1.2 + np.log10(config.g_lr / 1e-3) + 0.3 * rng.standard_normal()
    end = config.evaluations
    if speed > 2.2 + 0.2 * np.log1p(config.reg_weight):
        end = int(rng.integers(2, config.evaluations))
    quality = np.clip(1 - np.exp(-4 * max(speed, 0.05) * t), 0, 1)
    noise = rng.normal(1, 0.03, (len(FROM_START) + len(FROM_STEPS), t.size))
    level = np.stack([
        15.5 + t, 16.4 + t, 7.7 - 5.5 * quality, np.ones_like(t), 1.95 - 1.85 * quality, 0.94 * quality, 0.94 * quality,
        np.round(1 + 7 * quality), np.round(8 * quality), 0.94 * quality, 2 * (1 - quality), 3.1 * (1 - quality) + 0.01,
        16.5 - 10 * t, 1.39 - 0.3 * t, 0.9 - 0.3 * t, 0.2 + 0.4 * t, 2 + 2 * t, 1.9 + t, 0.9 - 0.4 * t, 0.4 + 0.6 * t,
        0.003 + 0.001 * t,
    ])  # fmt: skip
    values = level * noise
    values[FROM_START.index("finite")] = 1.0
    if end < config.evaluations:
        values[:, end] = np.nan
        values[FROM_START.index("finite"), end] = 0.0
    return values.T.tolist(), end


class SyntheticEngine:
    """Looks like `trainables.engine.Engine`; its evaluations take `sleep_s` each."""

    sleep_s = 0.0

    def __init__(
        self,
        configs: Sequence[GanConfig],
        *,
        device: torch.device,
        keep_samples: Collection[int],
        between_periods: Callable[[], None] = lambda: None,
        metric_threads: int = 1,
    ) -> None:
        assert not keep_samples, "the synthetic engine has no samples"
        self.pack = SimpleNamespace(d_updates=0)
        self._between_periods = between_periods
        self.configs, self.trial_ids = configs, [config.trial_id() for config in configs]
        self.wall_s, self.next_evaluation = 0.0, 0

    def evaluations(self) -> Iterator[Evaluation]:
        """Hand on records of every trial until it has diverged."""
        made = [series(config) for config in self.configs]
        for index in range(self.configs[0].evaluations + 1):
            self._between_periods()
            time.sleep(self.sleep_s)
            self.wall_s += self.sleep_s / len(self.configs)
            names = FROM_START + (FROM_STEPS if index else ())
            step = index * self.configs[0].d_updates // self.configs[0].evaluations
            self.pack.d_updates = step
            records = tuple(
                Record(
                    trial_id=trial_id, evaluation=index, step=step, wall_s=self.wall_s,
                    values=dict(zip(names, values[index], strict=False)),
                )
                for trial_id, (values, end) in zip(self.trial_ids, made, strict=True)
                if index <= end
            )  # fmt: skip
            self.next_evaluation = index + 1
            yield Evaluation(index=index, step=step, records=records, samples={})

    def checkpoint(self) -> bytes:
        """As large as that of a small net."""
        return bytes(30_000 * len(self.configs))


def train_pack(config: Mapping[str, Any], *, sleep_s: float, **options: Any) -> dict[str, Any]:
    """`vistudy.trainables.worker.train_pack` with the synthetic engine."""
    SyntheticEngine.sleep_s = sleep_s
    worker.Engine = SyntheticEngine  # type: ignore[assignment, misc]
    return worker.train_pack(config, **options)
