"""VAE: the loss (7), with all its constants; and the term of (26) on its decoder, as a negative control.

Differences from the paper, which has (7) and no experiment: a weight beta on the second term, an observation noise
sigma that is fixed or learned, a Bernoulli decoder for images, and lambda mean (G(z) - G_old(z))^2 at z of the prior.
Nothing in (5) to (7) suggests that term: it is expected to slow the decoder down and to do nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vistudy.trainables import losses, regularizer
from vistudy.trainables.config import hp
from vistudy.trainables.data import DATASETS
from vistudy.trainables.metrics.distances.likelihood import importance_nll
from vistudy.trainables.models.base import NetConfig, NetPack, gradient_shares
from vistudy.trainables.models.encoders import MEASURED, backward, encoder_measures
from vistudy.trainables.nets.architectures import Hidden, Params, ParamSpec, encoder_arch, generator_arch
from vistudy.trainables.nets.batch_norm import BN_MOMENTUM
from vistudy.trainables.regularizer import AnchorSamples

IW_SAMPLES = 16
"""Codes per sample that `nll_iw` averages over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeConfig(NetConfig):
    """Hyperparameters of a VAE trial. The budget counts its own updates; `g_steps` of them make a period."""

    model: ClassVar[str] = "vae"
    lr: ClassVar[tuple[str, ...]] = ("g_lr",)
    """What a study file's `lr` sets."""
    reference_fields: ClassVar[tuple[str, ...]] = (
        "model", "data", "net", "width", "depth", "z_dim", "norm", "init", "decoder", "sigma",
    )  # fmt: skip
    """What the samples of an untrained model depend on, besides the seed."""

    g_lr: float = hp(1e-3, "Learning rate of encoder and decoder together.", structural=False, gt=0)
    decoder: str = hp(
        "gaussian",
        "Likelihood q(x|z): N(G(z), sigma^2 I), or for images one Bernoulli per pixel, [-1, 1] mapped to [0, 1].",
        choices=("gaussian", "bernoulli"),
    )
    sigma: float = hp(
        0.1,
        "Standard deviation of a Gaussian decoder, in data units; the initial value if it is learned. "
        "Structural, since the samples of an untrained model depend on it.",
        gt=0,
    )
    sigma_learned: bool = hp(False, "Whether sigma is trained (one number per trial, by its logarithm).")
    beta: float = hp(1.0, "Weight of the second term of (7); 1 is (7) itself.", structural=False, ge=0)

    def data_defaults(self) -> dict[str, Any]:
        """Defaults of the data set for the nets.

        Raises:
            ValueError: a Bernoulli decoder for data that are not images.
        """
        if self.decoder == "bernoulli" and len(DATASETS[self.data].shape) != 3:
            raise ValueError(f"decoder: 'bernoulli' is for images, data {self.data!r} has none; use 'gaussian'")
        return NetConfig.data_defaults(self)

    def unused_fields(self) -> dict[str, Any]:
        """With a Bernoulli decoder, also sigma."""
        unused = {"sigma": 0.1, "sigma_learned": False} if self.decoder == "bernoulli" else {}
        return NetConfig.unused_fields(self) | unused


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """Observation noise as a net of one parameter: eps -> sigma eps, sigma = start * exp(log_ratio)."""

    start: float

    @property
    def params(self) -> list[ParamSpec]:
        """The logarithm of sigma / start."""
        return [ParamSpec(name="log_ratio", shape=(1,), init="zeros")]

    @property
    def norms(self) -> dict[str, int]:
        """None."""
        return {}

    def log_sigma(self, p: Params) -> Tensor:
        """log sigma (K, 1)."""
        return math.log(self.start) + p["log_ratio"]

    def forward(self, p: Params, x: Tensor, hidden: Hidden) -> Tensor:
        """(K, B, d) -> (K, B, d)."""
        return self.log_sigma(p).exp()[..., None] * x


class VaePack(NetPack[VaeConfig]):
    """K VAEs of equal structure: encoder `e`, decoder `g`, and `s` if sigma is learned."""

    def __init__(self, configs: Sequence[VaeConfig], device: torch.device) -> None:
        super().__init__(configs, device)
        c, shape = self.config, self.data.shape
        self.e = self.make_net("e", encoder_arch(c.net, shape, 2 * c.z_dim, self.sizes), "encoder")
        self.g = self.make_net("g", generator_arch(c.net, shape, c.z_dim, self.sizes), "generator")
        self.noise = Noise(start=c.sigma)
        self.s = self.make_net("s", self.noise, "sigma") if c.sigma_learned else None
        self.optimizers = {name: self.make_optimizer(name, self.column("g_lr")) for name in self.nets}
        self.anchor = self.make_anchor(self.g)
        self._reg_weight = self.column("reg_weight").float().squeeze(1)
        self._beta = self.column("beta").float()
        self._real = self.data.batches(self.seeds, c.batch_size, device)
        self._eps, self._z = (self.normal_stream(role, (c.batch_size, c.z_dim)) for role in ("eps", "z_prior"))

    def period(self, *, diagnose: bool) -> dict[str, Tensor]:
        """Train for g_steps updates. With `diagnose`, the diagnostics of the last one, each of shape (K,)."""
        c, out = self.config, dict[str, Tensor]()
        start = self.g.flat.clone() if diagnose else None
        self.anchor.start_period(self.g.flat)
        old = AnchorSamples(self.g, self.anchor)
        for step in range(c.g_steps):
            z = self._z.at(self.d_updates)
            out = self._update(step, z, old, diagnose=diagnose and step == c.g_steps - 1)
        if start is not None:
            with torch.no_grad():
                now, before = (self.g(z, self.g.views(flat)) for flat in (self.g.flat, start))
            out["drift"] = regularizer.sample_distance(now, before)
        self.periods += 1
        return out

    def _update(self, step: int, z: Tensor, old: AnchorSamples, *, diagnose: bool) -> dict[str, Tensor]:
        """Update encoder, decoder and sigma by (7), with the term of the decoder at `z` of the prior."""
        x, eps = self._real.at(self.d_updates), self._eps.at(self.d_updates)
        leaves = {name: net.leaves for name, net in self.nets.items()}
        nll, kl = self.terms(x, eps, leaves, BN_MOMENTUM)
        bound = (nll + self._beta * kl).mean(1)
        regulariser = self._reg_weight * old.distance(step, step, z, self.g(z, self.g.leaves))
        out = gradient_shares(self.g, bound, regulariser) if diagnose else {}
        backward((bound + regulariser).sum(), list(self.nets.values()))
        for name, net in self.nets.items():
            self.optimizers[name].step(net.flat, net.gradient)
        self.anchor.updated(self.g.flat)
        self.d_updates += 1
        return out

    def terms(
        self, x: Tensor, eps: Tensor, params: Mapping[str, Params], momentum: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """The terms of (7), -log q(x|z~) and KL(p(z|x) || q(z)), in nats, each (K, B), at z~ = mu + s eps.

        `params` are those of the nets, by name. Batch norm works as in training if `momentum` is given, else by running
        statistics.
        """
        mean, log_variance = self.e(x, params["e"], self.e.running, momentum).chunk(2, 2)
        z = losses.code_sample(mean, log_variance, eps)
        return self._nll(x, z, params, momentum), losses.code_kl(mean, log_variance)

    def _nll(self, x: Tensor, z: Tensor, params: Mapping[str, Params], momentum: float | None = None) -> Tensor:
        """-log q(x|z) in nats, (K, B)."""
        decoded = self.g(z, params["g"], self.g.running, momentum)
        if self.config.decoder == "bernoulli":
            return losses.bernoulli_nll(x, decoded)
        return losses.gaussian_nll(x, decoded, self._log_sigma(params))

    def log_weights(self, x: Tensor, eps: Tensor, params: Mapping[str, Params]) -> Tensor:
        """log q(x, z~) / p(z~|x) in nats, (S, K, B), at z~ = mu + s eps for the rows of `eps` (S, K, B, z_dim).

        The mean over eps of exp of these estimates q(x). `params` as in `terms`; batch norm by running statistics.
        """
        mean, log_variance = self.e(x, params["e"], self.e.running).chunk(2, 2)

        def one(noise: Tensor) -> Tensor:
            z = losses.code_sample(mean, log_variance, noise)
            prior_to_posterior = 0.5 * (noise.square() - z.square() + log_variance).sum(2)
            return prior_to_posterior - self._nll(x, z, params)

        return torch.stack([one(noise) for noise in eps])

    def _log_sigma(self, params: Mapping[str, Params]) -> Tensor:
        """log sigma of a Gaussian decoder, (K, 1)."""
        if self.s is not None:
            return self.noise.log_sigma(params["s"])
        return torch.full((self.k, 1), math.log(self.config.sigma), device=self.device)

    def _sigma(self, params: Mapping[str, Params]) -> Tensor:
        """sigma of a Gaussian decoder, (K, 1)."""
        return losses.by_row(torch.exp, self._log_sigma(params))

    def evaluation_samples(self, n: int, evaluation: int) -> tuple[Tensor, Tensor | None]:
        """n samples per trial, (K, n, *shape), from fixed z of the prior; with batch norm also by running statistics.

        Points are means plus observation noise, as in the model: without the noise they are not samples of q(x), and a
        decoder that has learned the spread as sigma would seem to have none. Images are means, as is customary:
        independent noise of pixels is also part of q(x), but it hides what was learned about images.
        """
        samples, running = self.sample(self.g, n, evaluation)
        if len(self.data.shape) > 1:
            return samples, running
        if ("x_noise", n) not in self._fixed:
            self._fixed["x_noise", n] = self.fixed_normal("x_noise", n, self.data.shape[0])
        with torch.no_grad():
            frozen = {name: net.frozen for name, net in self.nets.items()}
            noise = self._sigma(frozen)[..., None] * self._fixed["x_noise", n]
        return samples + noise, None if running is None else running + noise

    def measures(self, evaluation: int) -> dict[str, Tensor]:
        """Measures (K,) on the first samples of the reference split, with one fixed eps per sample.

        Batch norm uses running statistics.

        elbo_nats: mean of minus (7) at beta 1, a bound on the log-likelihood of one sample. (With a Bernoulli decoder
        that of binary pixels; grey ones have no likelihood.) kl_nats: its second term; 0 is posterior collapse.
        nll_iw: test negative log-likelihood in nats by `IW_SAMPLES` codes per sample, in expectation above the exact
        value and below -elbo_nats (Burda et al. 2016). sigma: of a Gaussian decoder, in data units.
        reconstruction_mse (of the decoded posterior mean), code_mmd2 and code_fd (of one z~ per sample): see
        `encoder_measures`.
        """
        params = {name: net.frozen for name, net in self.nets.items()}
        eps = self.fixed_normal("eps_measured", MEASURED, self.config.z_dim)
        many = torch.stack([self.fixed_normal("eps_iw", MEASURED, self.config.z_dim, s) for s in range(IW_SAMPLES)])
        parts, weights = list[Tensor](), list[Tensor]()

        def encode(x: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
            parts.append(torch.stack(self.terms(x, eps[:, rows], params)).double())
            weights.append(self.log_weights(x, many[:, :, rows], params))
            mean, log_variance = self.e(x, params["e"], self.e.running).chunk(2, 2)
            return losses.code_sample(mean, log_variance, eps[:, rows]), self.g(mean, params["g"], self.g.running)

        out = encoder_measures(self.data, self.k, self.device, encode)
        nll, kl = torch.cat(parts, 2).mean(2)
        nll_iw = [importance_nll(w.contiguous()).mean() for w in torch.cat(weights, 2).unbind(1)]  # trial by trial
        out |= {"elbo_nats": -nll - kl, "kl_nats": kl, "nll_iw": torch.stack(nll_iw)}
        return out if self.config.decoder == "bernoulli" else out | {"sigma": self._sigma(params).squeeze(1)}
