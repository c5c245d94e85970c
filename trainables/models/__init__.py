"""MODELS: every model that a study file can name. To add one: a file here, and a line below."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from trainables.config import TrainConfig
from trainables.models.aae import AaeConfig, AaePack
from trainables.models.ali import AliConfig, AliPack
from trainables.models.dirac import DiracConfig, DiracPack
from trainables.models.em import EmConfig, EmPack
from trainables.models.finite import FiniteConfig, FinitePack
from trainables.models.gan import GanConfig, GanPack
from trainables.models.gauss import GaussConfig, GaussPack
from trainables.models.parameters import Parameters
from trainables.models.vae import VaeConfig, VaePack
from trainables.nets import PackedNet


class Pack(Protocol):
    """K trials of one structure, as the engine drives them."""

    d_updates: int
    """Updates done; the budget's clock. A model without a discriminator counts its own updates here."""

    def period(self, *, diagnose: bool) -> dict[str, Tensor]:
        """Train for one period; with `diagnose`, its diagnostics of shape (K,)."""

    def evaluation_samples(self, n: int, evaluation: int) -> tuple[Tensor, Tensor | None]:
        """n samples a trial (K, n, *shape) to be judged; and with batch norm's running statistics, if it has any."""

    def measures(self, evaluation: int) -> dict[str, Tensor]:
        """The model's own metrics besides those of its samples, each (K,): reconstruction error, likelihood, ..."""

    @property
    def nets(self) -> Mapping[str, PackedNet | Parameters]:
        """The trained nets, or parameters that are no net, by the short name that their diagnostics carry."""

    def state(self) -> dict[str, Tensor]:
        """The complete state of training."""

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore `state()`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A model's two faces: what a study file may say of it, and how a pack of it is built."""

    config: type[TrainConfig]
    pack: Callable[[Sequence[Any], torch.device], Pack]


MODELS: dict[str, Model] = {
    "gan": Model(config=GanConfig, pack=GanPack),
    "aae": Model(config=AaeConfig, pack=AaePack),
    "ali": Model(config=AliConfig, pack=AliPack),
    "dirac_gan": Model(config=DiracConfig, pack=DiracPack),
    "finite_gan": Model(config=FiniteConfig, pack=FinitePack),
    "gauss_gan": Model(config=GaussConfig, pack=GaussPack),
    "vae": Model(config=VaeConfig, pack=VaePack),
    "em": Model(config=EmConfig, pack=EmPack),
}


def config_from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """The inverse of `TrainConfig.to_dict`, for any model.

    Raises:
        KeyError: unknown model.
        TypeError: a field is missing or unknown.
    """
    return MODELS[values["model"]].config.from_dict(values)
