"""Peer (a) of `make bench`: the same training as a plain Ray Tune function trainable, one trial a process.

Written as Ray's documentation teaches ("Tune: Getting Started", "Using MLflow with Tune") and as a careful user of
PyTorch would: ordinary modules and optimizers, nothing computed that the trial does not need. Where ours does more, this
does less: no regularizer at weight 0, no gradient norms, no end of a trial later than its first non-finite evaluation.
`python -m benchmarks.plain_ray_tune FILE --slots N` trains the configurations in a JSON file; `--tuned` sets what the
tutorials leave at its default (`reuse_actors`, Tune's CSV, JSON and TensorBoard loggers off).
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
import torch.nn.functional as F
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from trainables.data import DATASETS
from trainables.metrics.evaluate import evaluator

SUPPORTED = {"model": "gan", "net": "mlp", "optimizer": "adam", "init": "he", "anchor": "period_start", "r1_weight": 0.0}
SUPPORTED |= {"g_loss": "non_saturating"}


def mlp(sizes: list[int], norm: str, activation: nn.Module, *, norm_first: bool, running: bool) -> nn.Sequential:
    """Linear layers with `activation` and batch norm (`norm` bn) between them; He's initial weights."""
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        last = i == len(sizes) - 2
        normed = norm == "bn" and not last and (i > 0 or norm_first)
        linear = nn.Linear(fan_in, fan_out, bias=last or not (normed or norm == "none_ref_nobias"))
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)
        layers += [linear]
        layers += [nn.BatchNorm1d(fan_out, track_running_stats=running)] if normed else []
        layers += [] if last else [activation]
    return nn.Sequential(*layers)


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """Where minibatches come from: the next real points (B, 2), the next z (B, z_dim) of D's and of G's steps."""

    real: Callable[[], Tensor]
    z_d: Callable[[], Tensor]
    z_g: Callable[[], Tensor]


def draws(config: dict[str, Any]) -> Draws:
    """Fresh points of the mixture and fresh z, by torch's generator."""
    data, batch = DATASETS[config["data"]], config["batch_size"]
    means = torch.from_numpy(data.means)  # type: ignore[attr-defined]
    sd: float = data.sd  # type: ignore[attr-defined]

    def z() -> Tensor:
        return torch.randn(batch, config["z_dim"])

    return Draws(
        real=lambda: means[torch.randint(len(means), (batch,))].add_(torch.randn(batch, 2), alpha=sd), z_d=z, z_g=z
    )


class Gan:
    """One GAN, its optimizers, and the two kinds of updates."""

    def __init__(self, config: dict[str, Any]) -> None:
        unsupported = {name: config[name] for name, value in SUPPORTED.items() if config[name] != value}
        if unsupported:
            raise ValueError(f"the peer is written for {SUPPORTED}, got {unsupported}")
        c, hidden, dim = config, [config["width"]] * config["depth"], DATASETS[config["data"]].shape[0]
        self.config = config
        self.g = mlp([c["z_dim"], *hidden, dim], c["norm"], nn.ReLU(inplace=True), norm_first=True, running=True)
        leaky = nn.LeakyReLU(0.2, inplace=True)
        self.d = mlp([dim, *hidden, 1], c["norm"], leaky, norm_first=False, running=False)
        self.g_old = copy.deepcopy(self.g).requires_grad_(False)
        betas = (c["beta1"], c["beta2"])
        self.g_optimizer = torch.optim.Adam(self.g.parameters(), lr=c["g_lr"], betas=betas, fused=True)
        self.d_optimizer = torch.optim.Adam(self.d.parameters(), lr=c["d_lr"], betas=betas, fused=True)

    def d_step(self, source: Draws) -> Tensor:
        """One discriminator update; its loss."""
        x = source.real()
        with torch.no_grad():
            x_fake = self.g(source.z_d())
        if self.config["norm"] == "bn":  # batch norm sees real and fake apart
            real, fake = self.d(x), self.d(x_fake)
        else:
            real, fake = self.d(torch.cat((x, x_fake))).chunk(2)
        loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        self.d_optimizer.zero_grad()
        loss.backward()
        self.d_optimizer.step()
        return loss.detach()

    def g_phase(self, source: Draws) -> Iterator[Tensor]:
        """All generator updates of a period; the loss of each."""
        c = self.config
        if c["reg_weight"]:
            torch._foreach_copy_(list(self.g_old.parameters()), [p.detach() for p in self.g.parameters()])
        self.d.requires_grad_(False)
        for step in range(c["g_steps"]):
            if step == 0 or c["z_use"] == "fresh" or (c["z_use"] == "pool" and step % 2 == 0):
                z, x_old = source.z_g(), None
            x = self.g(z)
            loss = F.softplus(-self.d(x)).mean()
            if c["reg_weight"]:
                if x_old is None:  # at step 0, G is G_old; later, one pass of G_old a batch of z
                    x_old = x.detach() if step == 0 else self.g_old(z)
                loss = loss + c["reg_weight"] * F.mse_loss(x, x_old)
            self.g_optimizer.zero_grad()
            loss.backward()
            self.g_optimizer.step()
            yield loss.detach()
        self.d.requires_grad_(True)

    @torch.no_grad()
    def samples(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Samples of `z`; with batch norm by recalibrated statistics, and by those of training."""
        if self.config["norm"] != "bn":
            return self.g(z), None
        recalibrated = copy.deepcopy(self.g)
        update_bn(torch.randn(self.config["bn_recalibration_images"], z.shape[1]).split(2048), recalibrated)
        out = recalibrated.eval()(z), self.g.eval()(z)
        self.g.train()
        return out


def train(config: dict[str, Any]) -> None:
    """Train one trial, reporting its metrics at every evaluation."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(config["seed"])
    gan, source, judge = Gan(config), draws(config), evaluator(DATASETS[config["data"]])
    z = torch.randn(judge.n_samples, config["z_dim"])
    updates, losses = 0, dict[str, Tensor]()
    for evaluation in range(config["evaluations"] + 1):
        while updates < config["d_updates"] * evaluation / config["evaluations"]:
            for _ in range(config["d_steps"]):
                d_loss = gan.d_step(source)
            for g_loss in gan.g_phase(source):
                pass
            updates += config["d_steps"]
            losses = {"d_loss": d_loss, "g_loss": g_loss}
        x, x_running = gan.samples(z)
        report = {name: float(loss) for name, loss in losses.items()} | judge(x[None])[0]
        if x_running is not None:
            running = judge(x_running[None])[0]
            report |= {f"{name}_running": running[name] for name in ("dist", "cov", "prec")}
        finite = bool(x.isfinite().all()) and all(map(math.isfinite, report.values()))
        tune.report({"evaluation": evaluation, "step": updates, "finite": float(finite), **report})
        if not finite:
            return


class Clock(tune.Callback):
    """When trials started and ended, as the driver saw it."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.ends: list[float] = []

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note a start."""
        self.starts.append(time.time())

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note an end."""
        self.ends.append(time.time())


def main() -> None:
    """Train the configurations of a file and print when trials started and ended, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", type=Path)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--tuned", action="store_true")
    args = parser.parse_args()
    if args.tuned:
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        ray.init(address="local", num_cpus=args.slots, include_dashboard=False)
        tuner = tune.Tuner(
            tune.with_resources(train, {"cpu": 1}),
            param_space=tune.grid_search(json.loads(args.configs.read_text())),
            tune_config=tune.TuneConfig(reuse_actors=args.tuned),
            run_config=tune.RunConfig(
                name="ring",
                storage_path=scratch,
                verbose=0,
                callbacks=[MLflowLoggerCallback(f"sqlite:///{scratch}/mlflow.db", experiment_name="ring"), clock],
            ),
        )
        results = tuner.fit()
        ray.shutdown()
    if results.errors:
        raise results.errors[0]
    print(json.dumps({"starts": clock.starts, "ends": clock.ends}))


if __name__ == "__main__":
    main()
