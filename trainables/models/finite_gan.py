"""The GAN on a finite sample space with two exact steps: D by (18), G by (19) with the true KL.

G is any distribution q on the states. For given D the minimum over q of

    E_q[-log D] + lambda KL(q||q_old),

with a multiplier for sum q = 1, has -log D + lambda (log(q / q_old) + 1) constant where q > 0:

    q proportional to q_old D^(1/lambda)      lambda > 0 (the paper's derivation has lambda = 1)
    q = 1 at argmax D                         lambda = 0: collapse in one step

Near the solution, q = p (1 + e) makes D = 1/2 (1 - e/2), so that e is multiplied by 1 - 1/(2 lambda) in each period:
stable for lambda > 1/4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vistudy.trainables import regularizer
from vistudy.trainables.config import hp
from vistudy.trainables.data.toys import States
from vistudy.trainables.models.parameter_pack import ExactConfig, ParameterPack


@dataclass(frozen=True, kw_only=True, slots=True)
class FiniteConfig(ExactConfig):
    """Hyperparameters of a GAN on a finite sample space. Its steps are exact, so it has no learning rate."""

    model: ClassVar[str] = "finite_gan"

    data: str = hp("states8", "Data set to learn: 8 states.", choices=("states8",))
    d_updates: int = hp(100, "Budget: periods, of one exact D and one exact G step each.", ge=1)
    reg_weight: float = hp(
        1.0, "The paper's lambda in (19), of the exact KL: 1 as derived, 0 without the term.", structural=False, ge=0
    )
    start_sd: float = hp(1.0, "Standard deviation of the seeded initial log probabilities around equal ones.", ge=0)


class FinitePack(ParameterPack[FiniteConfig]):
    """K GANs on one sample space of S states."""

    def __init__(self, configs: Sequence[FiniteConfig], device: torch.device) -> None:
        super().__init__(configs, device)
        data = self.data
        assert isinstance(data, States)
        start = self.column("start_sd") * self.normal("start", len(data.odds))
        self.g = self.parameters("g", {"q": start.softmax(1)})
        self._p = torch.tensor(data.solution, dtype=torch.float64, device=device)
        self._reg_weight = self.column("reg_weight")

    def period(self, *, diagnose: bool) -> dict[str, Tensor]:
        """Take one exact step of D and one of G. With `diagnose`, return their diagnostics, each (K,)."""
        old = self.g.flat.clone()
        log_d = self._p.log() - (self._p + old).log()  # (18)
        new = generator_step(old, log_d, self._reg_weight)
        self.g.flat.copy_(new)
        self.d_updates += 1
        return self._diagnostics(old, new, log_d) if diagnose else {}

    def _diagnostics(self, old: Tensor, new: Tensor, log_d: Tensor) -> dict[str, Tensor]:
        """(16) and (19) at their minima, accuracies of D, and drift, each (K,)."""
        p = self._p
        adversarial = -(new * log_d).sum(1)
        divergence = torch.where(new > 0, new * (new / old).log(), 0.0).sum(1)
        weight = self._reg_weight.squeeze(1)
        return {
            "d_loss": -(p * log_d).sum(1) - torch.xlogy(old, old / (p + old)).sum(1),
            "g_loss": adversarial + torch.where(weight > 0, weight * divergence, 0.0),
            "d_acc_real": (p * (p > old)).sum(1),
            "d_acc_fake": (old * (p < old)).sum(1),
            "drift": regularizer.sample_distance(new, old),
        }

    def evaluation_samples(self, n: int, evaluation: int) -> tuple[Tensor, Tensor | None]:
        """The probabilities of the states, repeated n times, (K, n, S)."""
        return self.g.flat.unsqueeze(1).repeat(1, n, 1), None

    def measures(self, evaluation: int) -> dict[str, Tensor]:
        """joint_kl (K,): the joint KL (14) for the D of (18), in nats: the KL of the mixture (p + q) / 2 from p."""
        mixture = (self._p + self.g.flat) / 2
        return {"joint_kl": (mixture * (mixture / self._p).log()).sum(1)}


def generator_step(old: Tensor, log_d: Tensor, reg_weight: Tensor) -> Tensor:
    """Minimise (19) exactly over all distributions.

    Args:
        old: q_old (K, S). States of probability 0 keep it, unless lambda is 0.
        log_d: log D at the states (K, S).
        reg_weight: lambda (K, 1).

    Returns:
        q (K, S). For lambda = 0 its whole mass is at the first state where D is largest.
    """
    has = old > 0
    best = torch.where(has, log_d, -torch.inf).amax(1, keepdim=True)
    weight = torch.where(reg_weight > 0, reg_weight, 1.0)
    log_q = torch.where(has, old.log() + (log_d - best) / weight, -torch.inf)
    largest = log_d == log_d.amax(1, keepdim=True)
    first = largest & (largest.cumsum(1) == 1)
    return torch.where(reg_weight > 0, log_q.softmax(1), first.double())
