"""What an attack is told in a word: the norm that it is bounded in, the loss that it climbs, what it follows."""

from collections.abc import Callable
from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional as F

from neurovar.networks import NoisyNetwork


class CannotRunError(ValueError):
    """An attack that does not fit a network, which is no evidence about the network."""


class GradientError(CannotRunError):
    """Gradients that no attack can follow: none, not finite, or zero for every image."""


class _Choice(StrEnum):
    """A text out of a few, with methods. It reads and is written as the plain text, in values and in their JSON."""

    def __repr__(self) -> str:
        return repr(self.value)

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ValueError(f"expected a {cls.__name__.lower()} out of {', '.join(cls)}, got {value!r}")


class Norm(_Choice):
    """The norm of a perturbation, with the geometry of its ball of radius ε: "linf" or "l2".

    Examples
    --------
    >>> Norm("l2").sizes(torch.full((1, 1, 2, 2), 0.5)).item()
    1.0
    """

    LINF = "linf"
    L2 = "l2"

    def sizes(self, change: Tensor) -> Tensor:
        """The norm of each image's change: (batch, 1, 1, 1)."""
        if self is Norm.LINF:
            return change.abs().amax((1, 2, 3), keepdim=True)
        return torch.linalg.vector_norm(change, dim=(1, 2, 3), keepdim=True)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The direction of norm 1 that ascends most: the sign, or g/‖g‖₂ of each image (0 where g is 0)."""
        if self is Norm.LINF:
            return gradient.sign()
        # Divided by its largest number first: squares of gradients below 1e-23 would be 0 in float32.
        largest = Norm.LINF.sizes(gradient)
        scaled = torch.where(largest > 0, gradient / largest, 0.0)
        return scaled / self.sizes(scaled).clamp(min=1)  # the length is at least 1 where the gradient is not 0

    def project(self, moved: Tensor, images: Tensor, epsilon: float) -> Tensor:
        """Clipped to [0, 1], then brought within ε of `images`: each pixel, or by shrinking the whole perturbation.

        Under L2 a perturbation that was clipped is shrunk by its length after clipping, as in the Adversarial
        Robustness Toolbox; torchattacks shrinks first and so stays closer to the image.
        """
        if self is Norm.LINF:
            return moved.clamp(*limits(images, epsilon))
        change = moved.clamp(0, 1) - images
        return images + change * (epsilon / self.sizes(change)).clamp(max=1)

    def shrink(self, moved: Tensor, images: Tensor, epsilon: float) -> Tensor:
        """Brought within ε of `images`, then clipped to [0, 1]: the order of AutoAttack, which differs under L2."""
        if self is Norm.LINF:
            return self.project(moved, images, epsilon)
        change = moved - images
        return (images + change * (epsilon / self.sizes(change)).clamp(max=1)).clamp(0, 1)

    def uniform(self, images: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
        """A uniform point of the ball about each image, clipped to [0, 1].

        In L2 a uniform direction at the radius ε·U^(1/n): the share of the ball's volume within r is (r/ε)^n.
        """
        if self is Norm.LINF:
            return (images + epsilon * (2 * _draws(torch.rand, images, generator) - 1)).clamp(0, 1)
        direction = _draws(torch.randn, images, generator)
        share = torch.rand(len(images), generator=generator, device=generator.device).to(images)
        radius = epsilon * share ** (1 / images[0].numel())
        return (images + direction / self.sizes(direction) * radius[:, None, None, None]).clamp(0, 1)

    def edge(self, images: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
        """A random point at distance ε, before it is clipped: a uniform one scaled until it touches, or a direction."""
        offset = (
            2 * _draws(torch.rand, images, generator) - 1
            if self is Norm.LINF
            else _draws(torch.randn, images, generator)
        )
        return (images + epsilon * offset / self.sizes(offset)).clamp(0, 1)

    def vertex(self, images: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
        """A point as far in every direction as it can be: x + ε·(±1, …, ±1), or x + ε·u with a uniform direction u."""
        direction = _draws(torch.randn, images, generator)
        direction = direction.sign() if self is Norm.LINF else direction / self.sizes(direction)
        return (images + epsilon * direction).clamp(0, 1)


def limits(images: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The smallest and the largest pixels within ε and in [0, 1]."""
    return (images - epsilon).clamp_(min=0), (images + epsilon).clamp_(max=1)


def _draws(draw: Callable[..., Tensor], images: Tensor, generator: torch.Generator) -> Tensor:
    """A number a pixel, drawn where the generator is, so that a seed means the same on every device."""
    return draw(images.shape, generator=generator, device=generator.device).to(images)


class Loss(_Choice):
    """A loss of logits z that grows as an image gets nearer to being misclassified.

    - cross_entropy: −log softmax(z)_y
    - dlr: −(z_y − max_{i≠y} z_i) / (z_(1) − z_(3)), z_(r) the r-th largest logit; at least 3 classes
    - targeted_dlr: −(z_y − z_t) / (z_(1) − (z_(3) + z_(4))/2), t the target class; at least 4 classes
    - margin: max_{i≠y} z_i − z_y

    The two ratios do not change when all logits are multiplied by a number. The gradient of cross-entropy does: where a
    network is so sure that its softmax is 1 to rounding, it vanishes, and the network looks robust and is not.

    References
    ----------
    Croce & Hein 2020, arXiv:2003.01690

    Examples
    --------
    >>> Loss("margin")(torch.tensor([[2.0, 5.0, 1.0]]), torch.tensor([0]))
    tensor([3.])
    """

    CROSS_ENTROPY = "cross_entropy"
    DLR = "dlr"
    TARGETED_DLR = "targeted_dlr"
    MARGIN = "margin"

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """The loss of each row of logits (batch, classes): (batch,)."""
        if self is Loss.CROSS_ENTROPY:
            return F.cross_entropy(logits, labels, reduction="none")
        true = logits.gather(1, labels[:, None]).squeeze(1)
        if self is Loss.TARGETED_DLR:
            if targets is None:
                raise ValueError("expected target classes for the loss targeted_dlr, got none")
            ordered = self._largest(logits, 4)
            rival = logits.gather(1, targets[:, None]).squeeze(1)
            # The mean of two logits in place of the third: towards the class of the third largest logit the ratio would
            # otherwise be −1 whatever the image, with no gradient. 1e-12, as in AutoAttack, for logits that are equal.
            return -(true - rival) / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + 1e-12)
        if self is Loss.MARGIN:
            return logits.scatter(1, labels[:, None], -torch.inf).amax(1) - true
        ordered = self._largest(logits, 3)
        # The largest logit, or the second where the largest is the true one: what max_{i≠y} z_i is, from the sorting.
        rival = torch.where(logits.argmax(1) == labels, ordered[:, 1], ordered[:, 0])
        return -(true - rival) / (ordered[:, 0] - ordered[:, 2] + 1e-12)

    def _largest(self, logits: Tensor, k: int) -> Tensor:
        if logits.shape[1] < k:
            raise GradientError(f"expected at least {k} classes for the loss {self}, got {logits.shape[1]}")
        return logits.topk(k, dim=1).values


class Follows(_Choice):
    """Whose gradient an attack follows, or whose loss if it takes no gradients.

    - averaged: the mean over K draws, fresh in every step, of the network with its noise on
    - mean_logits: that of the loss of the mean logits of K draws
    - fixed: that of K draws, the same in the whole attack
    - off: that of the same network with its noise off
    - twin, independent: that of another network without noise: a transfer attack. Where a network's own gradients are
      masked, those of its noise-free twin, or of a network that was trained apart, still find adversarial images; one
      that does better than an attack on the network itself says that the latter failed.

    References
    ----------
    Athalye et al. 2018, arXiv:1802.00420; transfer: Papernot et al. 2016, arXiv:1605.07277

    Examples
    --------
    >>> [follows.value for follows in Follows if follows.without_noise]
    ['off', 'twin', 'independent']
    """

    AVERAGED = "averaged"
    MEAN_LOGITS = "mean_logits"
    FIXED = "fixed"
    OFF = "off"
    TWIN = "twin"
    INDEPENDENT = "independent"

    @property
    def transferred(self) -> bool:
        """Whether the images are made on another network."""
        return self in (Follows.TWIN, Follows.INDEPENDENT)

    @property
    def without_noise(self) -> bool:
        """Whether the images are made without the noise under which they are then judged."""
        return self is Follows.OFF or self.transferred

    def network(self, network: NoisyNetwork, other: NoisyNetwork | None) -> NoisyNetwork:
        """The network that the images are made on: this one, this one without noise, or the other."""
        if self.transferred:
            if other is None:
                raise CannotRunError(f"there is no {self} network without noise")
            return other
        return network.without_noise() if self is Follows.OFF and network.noisy else network
