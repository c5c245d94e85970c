"""MODELS: every model that a study file can name. To add one: a file here, and a line below."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vistudy.trainables.config import TrainConfig
from vistudy.trainables.models.aae import AaeConfig, AaePack
from vistudy.trainables.models.ali import AliConfig, AliPack
from vistudy.trainables.models.base import NetConfig, Pack
from vistudy.trainables.models.dirac_gan import DiracConfig, DiracPack
from vistudy.trainables.models.em import EmConfig, EmPack
from vistudy.trainables.models.finite_gan import FiniteConfig, FinitePack
from vistudy.trainables.models.gan import GanConfig, GanPack
from vistudy.trainables.models.gauss_gan import GaussConfig, GaussPack
from vistudy.trainables.models.stream_parallel import StreamParallelPack, streams_are_faster
from vistudy.trainables.models.vae import VaeConfig, VaePack


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A model: its configuration, which study files are checked against, and the builder of its packs."""

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


class UnknownModel(ValueError):
    """This process cannot build the model of a trial. The message says which, where it was looked up and what to do."""


def make_pack(configs: Sequence[TrainConfig], device: torch.device) -> Pack:
    """Build a pack of K trials of one structure, in the form that trains fastest on `device`."""
    first, build = configs[0], MODELS[configs[0].model].pack
    if device.type != "cuda" or len(configs) == 1 or not isinstance(first, NetConfig) or first.net != "dcgan":
        return build(configs, device)
    streams = streams_are_faster(build, first, len(configs), device)
    return StreamParallelPack(build, configs, device) if streams else build(configs, device)


def config_from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """Build a configuration of any model from its dictionary: the inverse of `TrainConfig.to_dict`.

    Raises:
        UnknownModel: this process does not know the model, or has another one by that name.
    """
    name = values["model"]
    if name not in MODELS:
        raise UnknownModel(
            f"model {name!r} is not in {Path(__file__)}, which is all that a worker imports: it was added in another "
            "process only, or in other code. Add its file and its line there, as docs/add-a-model.md says"
        )
    try:
        return MODELS[name].config.from_dict(values)
    except TypeError as error:
        raise UnknownModel(
            f"model {name!r} of {Path(__file__)} is another one than the trial was planned with ({error}). Use the "
            "code of vistudy that planned it"
        ) from error
