"""Common parts of models: the hyperparameters of nets and of adversarial training, and the state of a pack."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from vistudy.trainables.config import TrainConfig, hp
from vistudy.trainables.data import DATASETS
from vistudy.trainables.nets.architectures import Params, Sizes
from vistudy.trainables.nets.batch_norm import RECALIBRATION_BATCH, Stats, recalibrated_stats, select_trials
from vistudy.trainables.nets.packed_net import PackedNet
from vistudy.trainables.nets.strided_conv import channels_last
from vistudy.trainables.old_generator import Anchor
from vistudy.trainables.optim import Adam, Sgd, column
from vistudy.trainables.random_streams import Stream, generator, normal

SAMPLED_AT_ONCE = 4096
"""Evaluation samples of a trial per pass, so that hidden layers never hold all 26,000 samples of stacked MNIST."""

ANCHORS = ("period_start", "previous_update", "previous_period", "lag", "ema", "param_space")


@dataclass(frozen=True, kw_only=True, slots=True)
class NetConfig(TrainConfig):
    """Hyperparameters of a model that consists of nets and has the old-versus-new term."""

    reference_fields: ClassVar[tuple[str, ...]] = ("model", "data", "net", "width", "depth", "z_dim", "norm", "init")

    optimizer: str = hp("adam", "Optimizer of all nets.", choices=("adam", "sgd"))
    beta1: float = hp(0.5, "Adam's first moment decay.", structural=False, ge=0, lt=1)
    beta2: float = hp(0.999, "Adam's second moment decay.", structural=False, ge=0, lt=1)
    g_steps: int = hp(1, "Updates per period of the net that the term of (26) regularises.", ge=1)
    reg_weight: float = hp(
        0.0,
        "The paper's lambda in (26), mean convention: lambda times the mean over batch and components of "
        "(G(z) - G_old(z))^2. In the sum convention lambda is reg_weight / d, for samples of d components.",
        structural=False,
        ge=0,
    )
    anchor: str = hp("period_start", "Which old generator G_old is.", choices=ANCHORS)
    anchor_lag: int = hp(2, "Generator updates between G and G_old (anchor: lag).", ge=1)
    anchor_decay: float = hp(0.99, "Decay of the averaged generator (anchor: ema).", structural=False, ge=0, lt=1)
    norm: str = hp(
        "none",
        "Normalisation of hidden layers: bn; none (layers keep their biases); none_ref_nobias (neither bias nor "
        "scale, as the paper's published code without batch norm).",
        choices=("none", "bn", "none_ref_nobias"),
    )
    net: str = hp(None, "Family of nets; by default chosen by the data set.", choices=("mlp", "dcgan"))
    width: int = hp(None, "Hidden units (mlp) or base channels (dcgan).", ge=1)
    depth: int = hp(None, "Hidden layers (mlp); the depth of dcgan follows from the image size.", ge=1)
    init: str = hp(
        None,
        "Initial weights: he, xavier or torch's default for linear layers; dcgan is N(0, 0.02).",
        choices=("he", "xavier", "torch", "dcgan"),
    )
    z_dim: int = hp(None, "Components of z.", ge=1)
    bn_recalibration_images: int = hp(
        20480, "Fresh samples for the recalibration of batch-norm statistics at an evaluation.", ge=64
    )

    def data_defaults(self) -> dict[str, Any]:
        """Defaults of the data set for net, width, depth, z_dim and init."""
        defaults = dict(DATASETS[self.data].net_defaults(self.net))
        defaults["init"] = "dcgan" if defaults["net"] == "dcgan" else "he"
        return {name: value for name, value in defaults.items() if getattr(self, name) is None}

    def unused_fields(self) -> dict[str, Any]:
        """Fields that other settings leave unused, such as the betas without Adam."""
        out: dict[str, Any] = {}
        if self.anchor != "lag":
            out["anchor_lag"] = 2
        if self.anchor != "ema":
            out["anchor_decay"] = 0.99
        if self.optimizer != "adam":
            out |= {"beta1": 0.5, "beta2": 0.999}
        if self.norm != "bn":
            out["bn_recalibration_images"] = 20480
        net = self.net or DATASETS[self.data].net_defaults(None)["net"]
        if net == "dcgan":
            out["depth"] = 0
        return out

    def inert(self) -> tuple[str, ...]:
        """`reg_weight`, if the only G step of a period starts at the anchor: the gradient of the term is exactly 0."""
        if self.g_steps == 1 and self.anchor in ("period_start", "param_space"):
            return ("reg_weight",)
        return ()

    def steps_of_period(self) -> tuple[int, int]:
        """Numbers of updates per period that count for the budget, and of others."""
        return (self.g_steps, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdversarialConfig(NetConfig):
    """Hyperparameters of a discriminator and the net that it is trained against."""

    lr: ClassVar[tuple[str, ...]] = ("g_lr", "d_lr")
    g_lr: float = hp(2e-4, "Learning rate of the generator.", structural=False, gt=0)
    d_lr: float = hp(2e-4, "Learning rate of the discriminator.", structural=False, gt=0)
    d_steps: int = hp(1, "Discriminator updates per period.", ge=1)
    g_steps: int = hp(1, "Generator updates per period.", ge=1)
    z_use: str = hp(
        "pool",
        "z in the generator steps of a period: one batch for all steps (same), a new batch per step (fresh), or "
        "batches that are used for two steps each, as in the paper's code (pool).",
        choices=("same", "fresh", "pool"),
    )
    r1_weight: float = hp(0.0, "gamma of R1: gamma/2 times the mean squared norm of D's gradient at real data.", ge=0)

    def unused_fields(self) -> dict[str, Any]:
        """With one generator step a period there is nothing to reuse z for."""
        return NetConfig.unused_fields(self) | ({"z_use": "pool"} if self.g_steps == 1 else {})

    def steps_of_period(self) -> tuple[int, int]:
        """d_steps, g_steps."""
        return (self.d_steps, self.g_steps)

    def batches_of_period(self) -> int:
        """Batches of z (or x) that the generator steps of one period use."""
        return {"same": 1, "fresh": self.g_steps, "pool": (self.g_steps + 1) // 2}[self.z_use]

    def batch_of_step(self, step: int) -> int:
        """Which of `batches_of_period` generator step `step` of a period uses."""
        return {"same": 0, "fresh": step, "pool": step // 2}[self.z_use]


class TrainedNet(Protocol):
    """A net, or other parameters, of K trials, as read between periods."""

    @property
    def flat(self) -> Tensor:
        """(K, P)."""

    @property
    def frozen(self) -> Params:
        """Parameter -> (K, *shape)."""


class Pack(Protocol):
    """K trials of one structure, as the engine trains them."""

    @property
    def d_updates(self) -> int:
        """Updates so far, which the budget counts. A model without a discriminator counts its own updates."""

    def period(self, *, diagnose: bool) -> dict[str, Tensor]:
        """Train for one period; with `diagnose`, its diagnostics of shape (K,)."""

    def evaluation_samples(self, n: int, evaluation: int) -> tuple[Tensor, Tensor | None]:
        """n samples per trial, (K, n, *shape); and others by running batch-norm statistics, if there are any."""

    def measures(self, evaluation: int) -> dict[str, Tensor]:
        """Metrics of the model itself, each (K,): reconstruction error, likelihood and the like."""

    @property
    def nets(self) -> Mapping[str, TrainedNet]:
        """The trained nets, or other parameters, by the short names that diagnostics use."""

    def state(self) -> dict[str, Tensor]:
        """The complete state of training."""

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore `state()`."""


class Stateful(Protocol):
    """A part of a pack that has state: an optimizer or an anchor."""

    def state(self) -> dict[str, Tensor]:
        """Its tensors by name."""

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore `state()`."""


C = TypeVar("C", bound=NetConfig)


class NetPack(Generic[C]):
    """K trials of one structure. A subclass makes nets, optimizers and anchors, and trains one period.

    Whatever `make_net`, `make_optimizer` and `make_anchor` return is included in `nets`, `state` and `load`.
    """

    counters: tuple[str, ...] = ("d_updates", "g_updates", "periods")
    """Names of the integer attributes that training depends on (streams are keyed by them)."""

    def __init__(self, configs: Sequence[C], device: torch.device) -> None:
        self.config, self.k, self.device = configs[0], len(configs), device
        self.data = DATASETS[self.config.data]
        self.seeds = [config.seed for config in configs]
        self.sizes = Sizes(
            width=self.config.width, depth=self.config.depth, norm=self.config.norm, init=self.config.init
        )
        self.d_updates = self.g_updates = self.periods = 0
        self._configs = tuple(configs)
        self._nets: dict[str, PackedNet] = {}
        self._parts: dict[str, tuple[Stateful, PackedNet]] = {}
        """Name -> part that has state, and the net that it belongs to."""
        self._fixed: dict[tuple[str, int], Tensor] = {}

    @property
    def nets(self) -> dict[str, PackedNet]:
        """The trained nets by the short names that diagnostics use."""
        return self._nets

    def make_net(self, name: str, arch: Any, role: str) -> PackedNet:
        """Make the net `name`; its initial weights are keyed by `role`."""
        net = PackedNet(arch, self.seeds, role, self.device, channels_last=channels_last(self.device, self.k))
        self._nets[name] = net
        return net

    def column(self, name: str) -> Tensor:
        """The values of a hyperparameter, float64 (K, 1)."""
        return column([getattr(config, name) for config in self._configs], self.device)

    def make_optimizer(self, name: str, lr: Tensor) -> Adam | Sgd:
        """Make the optimizer of the net `name`, with learning rates `lr` (K, 1)."""
        if self.config.optimizer == "adam":
            optimizer: Adam | Sgd = Adam(self._nets[name].flat, lr, self.column("beta1"), self.column("beta2"))
        else:
            optimizer = Sgd(lr)
        self._parts[f"{name}_optimizer"] = optimizer, self._nets[name]
        return optimizer

    def make_anchor(self, net: PackedNet, name: str = "anchor") -> Anchor:
        """Make the anchor `name` that remembers old parameters of `net`."""
        anchor = Anchor(self.config.anchor, net.flat, lag=self.config.anchor_lag, decay=self.column("anchor_decay"))
        self._parts[name] = anchor, net
        return anchor

    def normal_stream(self, role: str, shape: tuple[int, ...]) -> Stream:
        """Make a stream of standard normal numbers, (K, *shape) per step."""
        return Stream(normal(role, shape), self.seeds, self.device)

    def fixed_normal(self, role: str, n: int, dim: int, block: int = 0) -> Tensor:
        """Standard normal numbers (K, n, dim), drawn once per seed."""
        draw = {s: generator(s, role, block).standard_normal((n, dim), dtype=np.float32) for s in set(self.seeds)}
        return torch.from_numpy(np.stack([draw[s] for s in self.seeds])).to(self.device)

    def sample(self, net: PackedNet, n: int, evaluation: int) -> tuple[Tensor, Tensor | None]:
        """n samples per trial of a generator net, (K, n, *shape), from z that is fixed for the whole run.

        With batch norm there are two sets: by statistics recalibrated on fresh z, and by running ones of training.
        """
        if ("z_eval", n) not in self._fixed:
            self._fixed["z_eval", n] = self.fixed_normal("z_eval", n, self.config.z_dim)
        z = self._fixed["z_eval", n]
        with torch.no_grad():
            samples = self._sample_in_chunks(net, z, self._recalibrated_stats(net, evaluation))
            running = self._sample_in_chunks(net, z, net.running) if self.config.norm == "bn" else None
        return samples, running

    def _trial_groups(self) -> list[slice]:
        """Trials that are sampled together: all on a GPU; one at a time on a CPU, so that activations stay in cache."""
        return [slice(i, i + 1) for i in range(self.k)] if self.device.type == "cpu" else [slice(None)]

    def _recalibrated_stats(self, net: PackedNet, evaluation: int) -> Stats | None:
        """Batch-norm statistics of fresh z under the present weights; None without batch norm."""
        if self.config.norm != "bn":
            return None
        passes = math.ceil(self.config.bn_recalibration_images / RECALIBRATION_BATCH)
        role = f"z_recalibration/{evaluation}"
        z = (self.fixed_normal(role, RECALIBRATION_BATCH, self.config.z_dim, i) for i in range(passes))
        return recalibrated_stats(net, z, self._trial_groups())

    def _sample_in_chunks(self, net: PackedNet, z: Tensor, stats: Stats | None) -> Tensor:
        """G(z), (K, n, *shape), in chunks. Batch norm uses the fixed `stats`, so chunks do not affect samples."""
        out = None
        for rows in self._trial_groups():
            params, row_stats = select_trials(rows, net.frozen, stats)
            for start in range(0, z.shape[1], SAMPLED_AT_ONCE):
                chunk = net(z[rows, start : start + SAMPLED_AT_ONCE], params, row_stats)
                if out is None:
                    out = chunk.new_empty((*z.shape[:2], *chunk.shape[2:]))
                out[rows, start : start + SAMPLED_AT_ONCE] = chunk
        assert out is not None
        return out

    def get_counters(self) -> list[int]:
        """See `cuda_graphs.HasCounters`."""
        return [getattr(self, name) for name in self.counters]

    def set_counters(self, values: Sequence[int]) -> None:
        """See `cuda_graphs.HasCounters`."""
        for name, value in zip(self.counters, values, strict=True):
            setattr(self, name, value)

    def measures(self, evaluation: int) -> dict[str, Tensor]:
        """Metrics of the model itself, each (K,); none by default."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """Everything that training depends on. Random streams are keyed by the counters."""
        out = {name: torch.tensor(getattr(self, name)) for name in self.counters}
        for prefix, (part, net) in self._parts.items():
            out |= {f"{prefix}.{name}": net.to_contiguous(tensor) for name, tensor in part.state().items()}
        for prefix, net in self._nets.items():
            out[f"{prefix}.flat"] = net.to_contiguous(net.flat)
            for layer, (mean, var) in net.running.items():
                out |= {f"{prefix}.running.{layer}.mean": mean, f"{prefix}.running.{layer}.var": var}
        return out

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore `state()` of a pack with the same configurations."""
        self.set_counters([int(state[name]) for name in self.counters])
        for prefix, (part, net) in self._parts.items():
            saved = {n.removeprefix(f"{prefix}."): t for n, t in state.items() if n.startswith(f"{prefix}.")}
            part.load({n: net.from_contiguous(t) for n, t in saved.items()})
        for prefix, net in self._nets.items():
            net.flat.copy_(net.from_contiguous(state[f"{prefix}.flat"]))
            for layer, (mean, var) in net.running.items():
                mean.copy_(state[f"{prefix}.running.{layer}.mean"])
                var.copy_(state[f"{prefix}.running.{layer}.var"])


def gradient_shares(net: PackedNet, adversarial: Tensor, regulariser: Tensor) -> dict[str, Tensor]:
    """Norms (K,) of the gradients of the two parts of a loss, and their ratio rho. The graph is retained."""
    out = {
        f"g_grad_norm_{name}": net.backward(part.sum(), retain_graph=True).norm(dim=1)
        for name, part in (("adv", adversarial), ("reg", regulariser))
    }
    return out | {
        "rho": out["g_grad_norm_reg"] / out["g_grad_norm_adv"],
        "g_loss": (adversarial + regulariser).detach(),
    }
