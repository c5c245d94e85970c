"""MODELS: every model that a study file can name. To add one: a file here, and a line below."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainables.config import TrainConfig
from trainables.models.aae import AaeConfig, AaePack
from trainables.models.ali import AliConfig, AliPack
from trainables.models.base import NetConfig, Pack
from trainables.models.dirac import DiracConfig, DiracPack
from trainables.models.em import EmConfig, EmPack
from trainables.models.finite import FiniteConfig, FinitePack
from trainables.models.gan import GanConfig, GanPack
from trainables.models.gauss import GaussConfig, GaussPack
from trainables.models.side_by_side import SideBySide, faster_apart
from trainables.models.vae import VaeConfig, VaePack


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


def make_pack(configs: Sequence[TrainConfig], device: torch.device) -> Pack:
    """K trials of one structure, in the way that trains fastest on `device`."""
    first, build = configs[0], MODELS[configs[0].model].pack
    if device.type != "cuda" or len(configs) == 1 or not isinstance(first, NetConfig) or first.net != "dcgan":
        return build(configs, device)
    apart = faster_apart(build, first, len(configs), device)
    return SideBySide(build, configs, device) if apart else build(configs, device)


def config_from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """The inverse of `TrainConfig.to_dict`, for any model.

    Raises:
        KeyError: unknown model.
        TypeError: a field is missing or unknown.
    """
    return MODELS[values["model"]].config.from_dict(values)
