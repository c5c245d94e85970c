"""GAN and DCGAN: losses (16), (20) and the paper's regularised loss (26); R1 as another regulariser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from trainables.config import TrainConfig, hp
from trainables.data import DATASETS

ANCHORS = ("period_start", "previous_update", "previous_period", "lag", "ema", "param_space")


@dataclass(frozen=True, kw_only=True, slots=True)
class GanConfig(TrainConfig):
    """Hyperparameters of a GAN trial."""

    model: ClassVar[str] = "gan"

    g_lr: float = hp(2e-4, "Learning rate of the generator.", structural=False, gt=0)
    d_lr: float = hp(2e-4, "Learning rate of the discriminator.", structural=False, gt=0)
    optimizer: str = hp("adam", "Optimizer of both nets.", choices=("adam", "sgd"))
    beta1: float = hp(0.5, "Adam's first moment decay.", structural=False, ge=0, lt=1)
    beta2: float = hp(0.999, "Adam's second moment decay.", structural=False, ge=0, lt=1)
    d_steps: int = hp(1, "Discriminator updates in one period.", ge=1)
    g_steps: int = hp(1, "Generator updates in one period.", ge=1)
    g_loss: str = hp(
        "non_saturating",
        "Generator loss: -log D(G(z)), the paper's (20), or log(1 - D(G(z))).",
        choices=("non_saturating", "saturating"),
    )
    reg_weight: float = hp(
        0.0,
        "The paper's lambda in (26), mean convention: lambda times the mean over batch and components of "
        "(G(z) - G_old(z))^2. The sum convention is reg_weight / d, d components a sample.",
        structural=False,
        ge=0,
    )
    anchor: str = hp("period_start", "Which old generator G_old is.", choices=ANCHORS)
    anchor_lag: int = hp(2, "Generator updates between G and G_old (anchor: lag).", ge=1)
    anchor_decay: float = hp(0.99, "Decay of the averaged generator (anchor: ema).", structural=False, ge=0, lt=1)
    z_use: str = hp(
        "pool",
        "z in the generator steps of a period: one batch for all (same), a new batch each step (fresh), or "
        "batches used for two steps each, as in the paper's code (pool).",
        choices=("same", "fresh", "pool"),
    )
    r1_weight: float = hp(0.0, "gamma of R1: gamma/2 times the mean squared norm of D's gradient at real data.", ge=0)
    norm: str = hp(
        "none",
        "Normalisation of hidden layers: bn; none (layers keep their biases); none_ref_nobias (neither bias nor "
        "scale, as the paper's published code without batch norm).",
        choices=("none", "bn", "none_ref_nobias"),
    )
    net: str = hp(None, "Family of nets; the data decides where it is not given.", choices=("mlp", "dcgan"))
    width: int = hp(None, "Hidden units (mlp) or base channels (dcgan).", ge=1)
    depth: int = hp(None, "Hidden layers (mlp); dcgan takes its depth from the image size.", ge=1)
    z_dim: int = hp(None, "Components of z.", ge=1)
    bn_recalibration_images: int = hp(
        20480, "Fresh samples over which batch-norm statistics are recalibrated at an evaluation.", ge=64
    )

    def data_defaults(self) -> dict[str, Any]:
        """Net, width, depth and z from the data set, where they are not given."""
        defaults = DATASETS[self.data].net_defaults(self.net)
        return {name: value for name, value in defaults.items() if getattr(self, name) is None}

    def unread(self) -> dict[str, Any]:
        """Some settings leave others without a reader: no Adam, no betas; one G step a period, no reuse of z; ..."""
        out: dict[str, Any] = {}
        if self.anchor != "lag":
            out["anchor_lag"] = 2
        if self.anchor != "ema":
            out["anchor_decay"] = 0.99
        if self.optimizer != "adam":
            out |= {"beta1": 0.5, "beta2": 0.999}
        if self.g_steps == 1:
            out["z_use"] = "pool"
        if self.norm != "bn":
            out["bn_recalibration_images"] = 20480
        net = self.net or DATASETS[self.data].net_defaults(None)["net"]
        if net == "dcgan":
            out["depth"] = 0
        return out

    def inert(self) -> tuple[str, ...]:
        """With one G step a period and the anchor at its start, the gradient of (26)'s term is exactly zero."""
        if self.g_steps == 1 and self.anchor in ("period_start", "param_space"):
            return ("reg_weight",)
        return ()

    def g_steps_of_period(self) -> int:
        """Generator updates in one period."""
        return self.g_steps
