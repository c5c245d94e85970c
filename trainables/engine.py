"""The training loop: train a pack period by period, evaluate it, yield Records; checkpoint and resume its state."""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vistudy.trainables.config import TrainConfig
from vistudy.trainables.cuda_graphs import WARM, GraphedPeriod
from vistudy.trainables.data import DATASETS, refuse_other_data
from vistudy.trainables.device import flush_denormals, precision_context
from vistudy.trainables.metrics.evaluate import Evaluator, evaluator
from vistudy.trainables.metrics.reference import reference as data_reference
from vistudy.trainables.models import MODELS, make_pack
from vistudy.trainables.models.base import NetPack, Pack
from vistudy.trainables.models.stream_parallel import StreamParallelPack
from vistudy.trainables.records import Record
from vistudy.trainables.trial_identity import NOT_RECORDED

SATURATED = 0.99
"""|component| above which a tanh generator counts as saturated."""

KEPT_IMAGES = 64
"""Images per trial that are kept as its samples."""

CHECKPOINT_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Result of one evaluation of a pack."""

    index: int
    step: int
    records: tuple[Record, ...]
    """One per trial that had not diverged before."""
    samples: dict[str, np.ndarray]
    """trial_id -> evaluation samples, if they are kept at this evaluation."""


class Engine:
    """Trains the trials of one pack, from their start or from a checkpoint."""

    def __init__(
        self,
        configs: Sequence[TrainConfig],
        *,
        device: torch.device | str = "cpu",
        keep_samples: Collection[int] = (),
        between_periods: Callable[[], None] = lambda: None,
        metric_threads: int = 1,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Build the pack.

        Args:
            configs: the trials.
            device: where they train.
            keep_samples: evaluations whose samples are kept.
            between_periods: called before each period; it may call `checkpoint`, and may raise to stop training.
            metric_threads: threads that compute the metrics of an evaluation.
            clock: seconds.

        Raises:
            ValueError: the configurations differ in a structural field, are not resolved, or contain duplicates.
            DataError: the data are missing, or are not those of the configurations.
        """
        if len({c.structure() for c in configs}) != 1:
            raise ValueError("the trials of a pack must agree in every structural field")
        if any(c != c.resolve() for c in configs):
            raise ValueError("a pack takes resolved configurations (TrainConfig.resolve)")
        refuse_other_data(configs[0].data, configs[0].data_fingerprint or NOT_RECORDED)
        self.configs = tuple(configs)
        self.trial_ids = [c.trial_id() for c in configs]
        if len(set(self.trial_ids)) != len(self.trial_ids):
            raise ValueError("a pack holds each trial once")
        self.device = torch.device(device)
        c = configs[0]
        self.pack = make_pack(configs, self.device)
        self._period = make_period(self.pack, self.device)
        self._evaluator: Evaluator = evaluator(DATASETS[c.data])
        self._keep = frozenset(keep_samples)
        self._between_periods, self._metric_threads, self._clock = between_periods, metric_threads, clock
        self._since: float | None = None
        """Start of the current evaluation; None between evaluations."""
        self.wall_s = 0.0
        """Seconds of training so far, shared equally among the trials."""
        self._active = torch.ones(len(configs), dtype=torch.bool)
        self.next_evaluation = 0

    def evaluations(self) -> Iterator[Evaluation]:
        """Train to the budget, yielding at step 0 and then `evaluations` times, equally spaced in D updates.

        Ends early when every trial of the pack has diverged (non-finite). Between two items and in `between_periods`
        the state is complete, so `checkpoint()` may be called.
        """
        while self.next_evaluation <= self.configs[0].evaluations and bool(self._active.any()):
            with flush_denormals():
                item = self._train_and_evaluate()
            self.next_evaluation += 1
            yield item

    def _train_and_evaluate(self) -> Evaluation:
        c, diagnostics = self.configs[0], dict[str, Tensor]()
        self._since = self._clock()
        target = c.d_updates * self.next_evaluation / c.evaluations
        with precision_context(c.precision, self.device):
            while self.pack.d_updates < target:
                self._between_periods()  # before the last one at the latest, which gives the diagnostics
                last = self.pack.d_updates + c.steps_of_period()[0] >= target
                diagnostics = self._period(diagnose=last)
        with precision_context("fp32", self.device):
            return self._evaluate(diagnostics)

    def _evaluate(self, diagnostics: dict[str, Tensor]) -> Evaluation:
        index, pack = self.next_evaluation, self.pack
        samples, running_samples = pack.evaluation_samples(self._evaluator.n_samples, index)
        values = {name: value.double().cpu() for name, value in diagnostics.items()}
        values |= {name: value.double().cpu() for name, value in pack.measures(index).items()}
        values |= self._health(samples, diagnostics)
        rows = [i for i, active in enumerate(self._active.tolist()) if active]
        metrics = self._evaluator(samples[rows], self._metric_threads)
        running = None if running_samples is None else self._evaluator(running_samples[rows], self._metric_threads)
        self.wall_s, self._since = self._spent_s(), None
        records = []
        for position, i in enumerate(rows):
            row = {name: float(value[i]) for name, value in values.items()} | metrics[position]
            if running:
                row |= {f"{name}_running": running[position][name] for name in ("dist", "cov", "prec")}
            records.append(
                Record(
                    trial_id=self.trial_ids[i], evaluation=index, step=pack.d_updates, values=row, wall_s=self.wall_s
                )
            )
            if row["finite"] == 0.0:
                self._active[i] = False
        to_keep = rows if index in self._keep else []
        samples_by_trial = {self.trial_ids[i]: self.kept_samples(samples[i]) for i in to_keep}
        return Evaluation(index=index, step=pack.d_updates, records=tuple(records), samples=samples_by_trial)

    @staticmethod
    def kept_samples(samples: Tensor) -> np.ndarray:
        """All points, or the first KEPT_IMAGES images, as a copy: a view would keep the samples of the whole pack."""
        array: np.ndarray = (samples[:KEPT_IMAGES] if samples.dim() > 2 else samples).cpu().numpy()
        return array.copy()

    def _health(self, samples: Tensor, diagnostics: dict[str, Tensor]) -> dict[str, Tensor]:
        """Norms, extremes and finiteness, each (K,)."""
        flat = samples.flatten(1)
        parameters = {name: net.flat for name, net in self.pack.nets.items()}
        finite = flat.isfinite().all(1)
        for tensor in parameters.values():
            finite &= tensor.isfinite().all(1)
        for name, value in diagnostics.items():
            if name != "rho":  # 0/0 where a generator gets no gradient at all: stalled, not diverged
                finite &= value.isfinite()
        out = {f"{name}_param_norm": tensor.double().norm(dim=1) for name, tensor in parameters.items()}
        out |= {
            "max_abs_sample": flat.abs().amax(1),
            "finite": finite.double(),
        }
        if samples.dim() > 3:
            out["saturated_share"] = (flat.abs() > SATURATED).double().mean(1)
        return {name: value.cpu() for name, value in out.items()}

    def _spent_s(self) -> float:
        """`wall_s` including the current evaluation."""
        return self.wall_s + (0.0 if self._since is None else (self._clock() - self._since) / len(self.configs))

    def weights(self) -> dict[str, np.ndarray]:
        """Map `<trial_id>/<net>/<parameter>` to a copy of each parameter of each trial."""
        return {
            f"{trial_id}/{net}/{name}": view[i].cpu().numpy().copy()
            for net, packed in self.pack.nets.items()
            for name, view in packed.frozen.items()
            for i, trial_id in enumerate(self.trial_ids)
        }

    def checkpoint(self) -> bytes:
        """Serialise the complete state, for `restore` in any process."""
        buffer = io.BytesIO()
        state = {
            "format": CHECKPOINT_FORMAT,
            "trial_ids": self.trial_ids,
            "next_evaluation": self.next_evaluation,
            "wall_s": self._spent_s(),
            "active": self._active,
            "pack": self.pack.state(),
        }
        torch.save(state, buffer)
        return buffer.getvalue()

    def restore(self, payload: bytes) -> None:
        """Continue from a checkpoint.

        Raises:
            ValueError: the checkpoint is of another pack or another format.
        """
        state = torch.load(io.BytesIO(payload), map_location=self.device, weights_only=True)
        if state["format"] != CHECKPOINT_FORMAT or state["trial_ids"] != self.trial_ids:
            raise ValueError("the checkpoint is not of this pack")
        self.pack.load(state["pack"])
        self._period = make_period(self.pack, self.device)
        self._active = state["active"].cpu()
        self.wall_s, self.next_evaluation = state["wall_s"], state["next_evaluation"]


def make_period(pack: Pack, device: torch.device) -> Callable[..., dict[str, Tensor]]:
    """Return the function that trains one period of `pack`: on a GPU it replays a graph from the fourth call on."""
    return (
        GraphedPeriod(pack) if device.type == "cuda" and isinstance(pack, NetPack | StreamParallelPack) else pack.period
    )


def make_warm_period(pack: Pack, device: torch.device) -> Callable[..., dict[str, Tensor]]:
    """Return `make_period(pack, device)` after the slower first periods have run. For timing."""
    period = make_period(pack, device)
    period(diagnose=True)
    for _ in range(WARM + 1 if device.type == "cuda" else 0):
        period(diagnose=False)
    return period


def reference_key(config: TrainConfig) -> str:
    """Key of the baselines: data and the structure of the generator, not its training."""
    fields = [*(getattr(config, name) for name in config.reference_fields), config.data_fingerprint]
    return "-".join(map(str, fields))


def reference(config: TrainConfig) -> dict[str, float]:
    """Compute the baselines that outcome labels depend on, on the CPU. See `metrics.reference.reference`.

    Raises:
        DataError: the data are missing, or are not those of the configuration.
    """
    refuse_other_data(config.data, config.data_fingerprint or NOT_RECORDED)
    device = torch.device("cpu")
    evaluate = evaluator(DATASETS[config.data])

    def untrained(seed: int) -> Tensor:
        pack = MODELS[config.model].pack([dataclasses.replace(config.untrained(), seed=seed)], device)
        return pack.evaluation_samples(evaluate.n_samples, 0)[0][0]

    return data_reference(DATASETS[config.data], untrained)
