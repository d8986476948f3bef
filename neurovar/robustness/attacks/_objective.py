"""What an attack climbs: the loss of a noisy network, averaged over draws of its noise."""

import warnings
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neurovar.covariance import Covariance, Dense, LowRankPlusDiagonal, Sampler
from neurovar.networks import inject
from neurovar.robustness.attacks._kernels import FastGradients

BLOCK, MOST_NUMBERS = 256, 2**22
"""Draws come out of blocks of so many rows, or so many numbers if that is less."""
NO_NOISE: Mapping[str, Covariance] = {}
Average = Literal["loss", "logits"]


class GradientError(ValueError):
    """Gradients that no attack can follow: none, not finite, or zero for every image."""


class Objective:
    """The loss of each image under noise, and its gradient, over K = `n_draws` draws in every evaluation.

    average "loss": (1/K) Σ_k ℓ(z_k, y); "logits": ℓ((1/K) Σ_k z_k, y), with z_k the logits under draw k and ℓ one of
    cross_entropy: −log softmax(z)_y
    dlr: −(z_y − max_{i≠y} z_i) / (z_(1) − z_(3)), z_(r) the r-th largest logit; at least 3 classes
    targeted_dlr: −(z_y − z_t) / (z_(1) − (z_(3) + z_(4))/2), t the target class; at least 4 classes
    margin: max_{i≠y} z_i − z_y
    All grow as an image gets nearer to being misclassified.

    Layers before the noise run once an evaluation, whatever K; gradients of parameters are never computed. The hooks
    of the noise are on the network only during an evaluation, so that objectives may be used in turn.

    Parameters
    ----------
    noises : layer → covariance, as for `inject`; empty: no noise, K = 1.
    fixed : the K draws of the first evaluation in all of them: one e for each draw and position in the batch. Batches
        must all be of one size.
    generator : source of all draws.

    Raises
    ------
    ValueError : for an unknown loss or average, fewer than 1 draw or several without noise; when evaluated, for too few
        classes, logits through which no gradient flows, a gradient that is not finite, or a first one that is zero for
        every image.

    Warns
    -----
    RuntimeWarning : once, where the gradient of some images is exactly zero: they are attacked blindly.

    References
    ----------
    Averaged gradients: Athalye et al. 2018, arXiv:1802.00420. DLR: Croce & Hein 2020, arXiv:2003.01690
    """

    def __init__(
        self,
        model: nn.Module,
        noises: Mapping[str, Covariance],
        *,
        n_draws: int = 1,
        average: Average = "loss",
        fixed: bool = False,
        loss: str = "cross_entropy",
        generator: torch.Generator,
    ) -> None:
        if average not in get_args(Average):
            raise ValueError(f"expected an average over one of {', '.join(get_args(Average))}, got {average!r}")
        if loss not in LOSSES:
            raise ValueError(f"expected a loss out of {', '.join(LOSSES)}, got {loss!r}")
        if n_draws < 1 or (n_draws > 1 and not noises):
            raise ValueError(f"expected at least 1 draw, and 1 without noise, got {n_draws}")
        self.model, self.noises, self.n_draws, self.average, self.loss = model, noises, n_draws, average, loss
        self._generator = generator
        self._seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device)) if fixed else None
        self._seen, self._warned = False, False
        self._moved: dict[str, Covariance] | None = None
        self._samplers: dict[str, Sampler] = {}

    def logits(self, images: Tensor) -> Tensor:
        """(K, batch, classes); gradients flow where they are on."""
        generator, noises = self._generator, self._sources(images.device)
        if self._seed is not None:
            generator = torch.Generator(generator.device).manual_seed(self._seed)
        with inject(self.model, noises, generator=generator, draws=self.n_draws):
            return self.model(images).unflatten(0, (self.n_draws, -1))

    def _sources(self, device: torch.device) -> Mapping[str, Covariance | Sampler]:
        """The noises on the images' device; samplers of those that are cheaper to draw in blocks."""
        if self._moved is None:  # once: a covariance that is moved may have to be factorised
            self._moved = {
                name: noise if noise.trainable or noise.device == device else noise.to(device=device)
                for name, noise in self.noises.items()
            }
            self._samplers = {
                name: noise.sampler(generator=self._generator, block=min(BLOCK, max(MOST_NUMBERS // noise.n, 1)))
                for name, noise in self._moved.items()
                if isinstance(noise, Dense | LowRankPlusDiagonal) and not noise.trainable and self._seed is None
            }
        return {**self._moved, **self._samplers}

    def value(self, images: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """The loss of each image, without gradient: (batch,)."""
        with torch.no_grad():
            return self.of(self.logits(images), labels, targets)

    def value_and_gradient(
        self, images: Tensor, labels: Tensor, targets: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of each image (batch,), its gradient in the image, and the mean logits (batch, classes)."""
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            with FastGradients():
                logits = self.logits(images)
            loss = self.of(logits, labels, targets)
            found = torch.autograd.grad(loss.sum(), images, allow_unused=True)[0] if loss.requires_grad else None
        return loss.detach(), self._checked(found), logits.detach().mean(0)

    def of(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """The loss of each image that these logits (K, batch, classes) give: (batch,)."""
        if self.average == "logits":
            logits = logits.mean(0, keepdim=True)
        loss = LOSSES[self.loss]
        if len(logits) == 1:
            return loss(logits[0], labels, targets)
        draws = len(logits)
        repeated = None if targets is None else targets.repeat(draws)
        return loss(logits.flatten(0, 1), labels.repeat(draws), repeated).view(draws, -1).mean(0)

    def fresh(self, n_draws: int) -> "Objective":
        """The same loss on `n_draws` draws of its own."""
        return Objective(
            self.model,
            self.noises,
            n_draws=n_draws,
            average=self.average,
            loss=self.loss,
            generator=self._generator,
        )

    def _checked(self, gradient: Tensor | None) -> Tensor:
        if gradient is None:
            raise GradientError("expected logits that depend on the images through a gradient, got none")
        size = gradient.flatten(1).abs().sum(1)
        smallest, largest = (float(extreme) for extreme in size.aminmax())
        if not largest < float("inf"):
            raise GradientError(f"expected finite gradients, got NaN or infinity for {_share(~torch.isfinite(size))}")
        if largest == 0 and not self._seen:
            raise GradientError(
                f"expected gradients that are not all zero, got only zeros for {len(size)} of {len(size)} images: a "
                "layer that is not differentiable, or logits so far apart that the loss is flat"
            )
        if smallest == 0 and not self._warned:
            self._warned = True
            message = (
                f"the gradient is exactly zero for {_share(size == 0)}; gradients do not attack these, so that their "
                "survival is no evidence of robustness"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        self._seen = True
        return gradient


def _share(chosen: Tensor) -> str:
    return f"{int(chosen.sum())} of {len(chosen)} images"


def expected_loss(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    noises: Mapping[str, Covariance],
    n_draws: int,
    generator: torch.Generator,
) -> Tensor:
    """Cross-entropy of each image, averaged over `n_draws` noise draws, with gradients: (batch,)."""
    objective = Objective(model, noises, n_draws=n_draws, generator=generator)
    return objective.of(objective.logits(images), labels)


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """−log softmax(z)_y: (batch,)."""
    return F.cross_entropy(logits, labels, reduction="none")


def dlr(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Difference of logits ratio: (batch,)."""
    ordered = _largest(logits, 3, "dlr")
    true = logits.gather(1, labels[:, None]).squeeze(1)
    rival = torch.where(logits.argmax(1) == labels, ordered[:, 1], ordered[:, 0])
    return -(true - rival) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Difference of logits ratio towards a target class: (batch,)."""
    if targets is None:
        raise ValueError("expected target classes for the loss targeted_dlr, got none")
    ordered = _largest(logits, 4, "targeted_dlr")
    true, rival = (logits.gather(1, classes[:, None]).squeeze(1) for classes in (labels, targets))
    return -(true - rival) / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + 1e-12)


def _largest(logits: Tensor, k: int, loss: str) -> Tensor:
    if logits.shape[1] < k:
        raise GradientError(f"expected at least {k} classes for the loss {loss}, got {logits.shape[1]}")
    return logits.topk(k, dim=1).values


def margin(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """By how much the largest other logit exceeds that of the label: (batch,)."""
    true = logits.gather(1, labels[:, None]).squeeze(1)
    return logits.scatter(1, labels[:, None], -torch.inf).amax(1) - true


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "cross_entropy": cross_entropy,
    "dlr": dlr,
    "targeted_dlr": targeted_dlr,
    "margin": margin,
}
