"""Parameters and packs of models without nets: toys and mixtures, in double precision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from vistudy.trainables.config import TrainConfig, hp, hyperparameters
from vistudy.trainables.data import DATASETS
from vistudy.trainables.models.base import ANCHORS, Stateful
from vistudy.trainables.old_generator import Anchor
from vistudy.trainables.optim import column
from vistudy.trainables.random_streams import generator

if TYPE_CHECKING:
    from jaxtyping import Float


class Parameters:
    """Named parameters of K trials in one float64 buffer: the counterpart of `PackedNet` for models without nets."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        """Copy `values`: name -> (K, ...), in this order in the buffer."""
        self._places: dict[str, tuple[int, tuple[int, ...]]] = {}
        size, rows = 0, []
        for name, value in values.items():
            self._places[name] = (size, tuple(value.shape[1:]))
            rows.append(value.double().reshape(len(value), -1))
            size += rows[-1].shape[1]
        self.flat = torch.cat(rows, 1)
        self.frozen = self.views(self.flat)

    def views(self, flat: Float[Tensor, "K P"]) -> dict[str, Tensor]:
        """The parameters, each (K, ...), as views of a buffer with the layout of `flat`."""
        return {
            name: flat[:, start : start + math.prod(shape)].view(flat.shape[0], *shape)
            for name, (start, shape) in self._places.items()
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactConfig(TrainConfig):
    """Hyperparameters of a toy model with a known solution, which learns one data set of its own."""

    reference_fields: ClassVar[tuple[str, ...]] = ("model", "data", "start_sd")

    d_updates: int = hp(500, "Budget: discriminator updates of the whole run.", ge=1)
    precision: str = hp("fp64", "Arithmetic of the training step.", choices=("fp64",))
    reg_weight: float = hp(0.0, "The paper's lambda.", structural=False, ge=0)
    start_sd: float = hp(0.1, "Standard deviation of the seeded noise on each initial parameter.", ge=0)

    def data_defaults(self) -> dict[str, Any]:
        """Nothing to fill in.

        Raises:
            ValueError: the data set is not one that the toy can learn.
        """
        names = hyperparameters(type(self))["data"].choices
        if names and self.data not in names:
            raise ValueError(f"data: model {self.model} learns {' or '.join(names)} only, got {self.data!r}")
        return {}

    def unused_fields(self) -> dict[str, Any]:
        """batch_size, as there are no minibatches; and the seed if nothing random depends on it."""
        return {"batch_size": 64} | ({} if self.start_sd else {"seed": 0})


@dataclass(frozen=True, kw_only=True, slots=True)
class PlayersConfig(ExactConfig):
    """Hyperparameters of a toy model of two players that train by gradient descent."""

    lr: ClassVar[tuple[str, ...]] = ("g_lr", "d_lr")

    g_lr: float = hp(0.2, "Learning rate of the generator (plain gradient descent).", structural=False, gt=0)
    d_lr: float = hp(0.2, "Learning rate of the discriminator.", structural=False, gt=0)
    d_steps: int = hp(1, "Discriminator updates per period.", ge=1)
    g_steps: int = hp(1, "Generator updates per period.", ge=1)
    reg_weight: float = hp(0.0, "The paper's lambda in (26): weight of E (G(z) - G_old(z))^2.", structural=False, ge=0)
    anchor: str = hp("period_start", "Which old generator G_old is.", choices=ANCHORS)
    anchor_lag: int = hp(2, "Generator updates between G and G_old (anchor: lag).", ge=1)
    anchor_decay: float = hp(0.99, "Decay of the averaged generator (anchor: ema).", structural=False, ge=0, lt=1)

    def unused_fields(self) -> dict[str, Any]:
        """As for every toy model; and the settings of anchors that are not chosen."""
        out = ExactConfig.unused_fields(self)
        if self.anchor != "lag":
            out["anchor_lag"] = 2
        if self.anchor != "ema":
            out["anchor_decay"] = 0.99
        return out

    def inert(self) -> tuple[str, ...]:
        """`reg_weight`, if the only G step of a period starts at the anchor: the gradient of the term is exactly 0."""
        at_start = self.anchor in ("period_start", "param_space")
        return ("reg_weight",) if at_start and self.g_steps == 1 else ()

    def steps_of_period(self) -> tuple[int, int]:
        """d_steps, g_steps."""
        return (self.d_steps, self.g_steps)


def gradient_shares(flat: Tensor, adversarial: Tensor, regulariser: Tensor) -> dict[str, Tensor]:
    """Norms (K,) of the gradients in `flat` of the two parts of a loss, and their ratio rho. The graph is retained."""
    adv, reg = (
        torch.autograd.grad(part.sum(), flat, retain_graph=True)[0].norm(dim=1) for part in (adversarial, regulariser)
    )
    loss = (adversarial + regulariser).detach()
    return {"g_loss": loss, "g_grad_norm_adv": adv, "g_grad_norm_reg": reg, "rho": reg / adv}


C = TypeVar("C", bound=TrainConfig)


class ParameterPack(Generic[C]):
    """K trials of one structure without nets. A subclass makes its parameters and trains one period."""

    counters: tuple[str, ...] = ("d_updates",)
    """Names of the integer attributes that training depends on (streams are keyed by them)."""

    def __init__(self, configs: Sequence[C], device: torch.device) -> None:
        self.config, self.k, self.device = configs[0], len(configs), device
        self.data = DATASETS[self.config.data]
        self.seeds = [config.seed for config in configs]
        self.d_updates = 0
        self._configs = tuple(configs)
        self._nets: dict[str, Parameters] = {}
        self._parts: dict[str, Stateful] = {}

    @property
    def nets(self) -> dict[str, Parameters]:
        """The trained parameters by the short names that diagnostics use."""
        return self._nets

    def parameters(self, name: str, values: Mapping[str, Tensor]) -> Parameters:
        """Make the parameters `name` from initial `values`, each (K, ...). They are included in `nets` and `state`."""
        self._nets[name] = Parameters({key: value.to(self.device) for key, value in values.items()})
        return self._nets[name]

    def column(self, name: str) -> Tensor:
        """The values of a hyperparameter, float64 (K, 1)."""
        return column([getattr(config, name) for config in self._configs], self.device)

    def normal(self, role: str, *shape: int) -> Tensor:
        """Standard normal numbers, float64 (K, *shape), drawn once per seed."""
        draw = {seed: torch.from_numpy(generator(seed, role).standard_normal(shape)) for seed in set(self.seeds)}
        return torch.stack([draw[seed] for seed in self.seeds]).to(self.device)

    def make_anchor(self, parameters: Parameters) -> Anchor:
        """Make the anchor that remembers old values of `parameters`. The configuration must have the anchor fields."""
        config: Any = self.config
        anchor = Anchor(config.anchor, parameters.flat, lag=config.anchor_lag, decay=self.column("anchor_decay"))
        self._parts["anchor"] = anchor
        return anchor

    def measures(self, evaluation: int) -> dict[str, Tensor]:
        """Metrics of the model itself, each (K,); none by default."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """Everything that training depends on."""
        out = {name: torch.tensor(getattr(self, name)) for name in self.counters}
        for prefix, part in self._parts.items():
            out |= {f"{prefix}.{name}": tensor for name, tensor in part.state().items()}
        return out | {f"{name}.flat": parameters.flat for name, parameters in self._nets.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore `state()` of a pack with the same configurations."""
        for name in self.counters:
            setattr(self, name, int(state[name]))
        for prefix, part in self._parts.items():
            part.load({n.removeprefix(f"{prefix}."): t for n, t in state.items() if n.startswith(f"{prefix}.")})
        for name, parameters in self._nets.items():
            parameters.flat.copy_(state[f"{name}.flat"])
