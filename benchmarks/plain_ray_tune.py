"""Peer (a) of `make bench`: the same training as a plain Ray Tune function trainable, one trial a process.

Written as Ray's documentation teaches: "Getting Started with Ray Tune", "Using MLflow with Tune". A trial ends at its
first non-finite evaluation. `python -m benchmarks.plain_ray_tune FILE --slots N` trains the configurations in a JSON
file. `--tuned` sets what those pages leave as it is: `reuse_actors`, and Tune's CSV, JSON and TensorBoard loggers off.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from torch import Tensor

from benchmarks.plain_gan import Gan, draws
from vistudy.trainables.data import DATASETS
from vistudy.trainables.metrics.evaluate import evaluator


def train(config: dict[str, Any]) -> None:
    """Train one trial, reporting its metrics at every evaluation."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(config["seed"])
    gan, source, evaluate = Gan(config), draws(config), evaluator(DATASETS[config["data"]])
    z = torch.randn(evaluate.n_samples, config["z_dim"])
    updates, losses = 0, dict[str, Tensor]()
    for evaluation in range(config["evaluations"] + 1):
        while updates < config["d_updates"] * evaluation / config["evaluations"]:
            for _ in range(config["d_steps"]):
                d_loss = gan.d_step(source)
            *_, g_loss = gan.g_phase(source)
            updates += config["d_steps"]
            losses = {"d_loss": d_loss, "g_loss": g_loss}
        x, x_running = gan.samples(z)
        report = {name: float(loss) for name, loss in losses.items()} | evaluate(x[None])[0]
        if x_running is not None:
            running = evaluate(x_running[None])[0]
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
