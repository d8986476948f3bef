"""What an attack climbs: the loss of a noisy network, averaged over draws of its noise."""

import warnings

import torch
from torch import Tensor

from neurovar.networks import NoisyNetwork
from neurovar.robustness.attacks._choices import Follows, GradientError, Loss
from neurovar.robustness.attacks._kernels import FastGradients

FRESH_DRAWS = 10
"""At least so many draws judge a candidate for a noisy network."""


class Objective:
    """The loss of each image under noise, and its gradient, over K draws in every evaluation.

    (1/K) Σ_k ℓ(z_k, y), or ℓ((1/K) Σ_k z_k, y) where it follows mean logits, with z_k the logits under draw k and ℓ a
    `Loss`. The first is unbiased for E ℓ(z, y), and its gradient for the gradient of that, whatever K; the second is
    biased in K, since ℓ is not linear.

    Layers before the noise run once an evaluation, whatever K; gradients of parameters are never computed. The hooks
    of the noise are on the network only during an evaluation, so that objectives may be used in turn.

    Parameters
    ----------
    network : NoisyNetwork
        What is attacked.
    n_draws : int, optional
        K. Without noise all draws would be equal, and there is one.
    loss : str, optional
        A `Loss`: "cross_entropy", "dlr", "targeted_dlr" or "margin".
    follows : str, optional
        "averaged", the mean loss of fresh draws; "mean_logits", the loss of their mean logits; "fixed", the mean loss
        of the K draws of the first evaluation in all of them: one e for each draw and position in the batch.
    shared : bool, optional
        The same K draws for every image of a batch.
    generator : torch.Generator
        Source of all draws.

    Raises
    ------
    ValueError
        For an unknown loss, or fewer than 1 draw; when evaluated, a `GradientError` for too few classes, logits through
        which no gradient flows, a gradient that is not finite, or a first one that is zero for every image.

    Warns
    -----
    RuntimeWarning
        Once, where the gradient of some images is exactly zero: they are attacked blindly.

    References
    ----------
    Averaged gradients: Athalye et al. 2018, arXiv:1802.00420. DLR: Croce & Hein 2020, arXiv:2003.01690

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    >>> x, y = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
    >>> objective = Objective(NoisyNetwork(model, images=x), generator=torch.Generator())
    >>> loss, gradient, logits = objective.value_and_gradient(x, y)
    >>> loss.shape, gradient.shape, logits.shape
    (torch.Size([3]), torch.Size([3, 1, 2, 2]), torch.Size([3, 2]))
    """

    def __init__(
        self,
        network: NoisyNetwork,
        *,
        n_draws: int = 1,
        loss: str = Loss.CROSS_ENTROPY,
        follows: str = Follows.AVERAGED,
        shared: bool = False,
        generator: torch.Generator,
    ) -> None:
        self.network, self.loss, self.follows = network, Loss(loss), Follows(follows)
        fixed = self.follows is Follows.FIXED and network.noisy
        self._draws = network.draws(n_draws, generator=generator, in_blocks=True, fixed=fixed, shared=shared)
        self._generator = generator
        self._evaluated, self._warned = False, False

    @property
    def n_draws(self) -> int:
        """K."""
        return self._draws.n_draws

    @property
    def repeatable(self) -> bool:
        """Whether an image has the same loss whenever it is evaluated: without noise, or under fixed draws."""
        return not self.network.noisy or self.follows is Follows.FIXED

    def logits(self, images: Tensor) -> Tensor:
        """(K, batch, classes); gradients flow where they are on."""
        return self._draws.logits(images)

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
            gradient = None
            if loss.requires_grad:
                # No image has a part in another's loss: the gradient of the sum is that of each.
                gradient = torch.autograd.grad(loss.sum(), images, allow_unused=True)[0]
        return loss.detach(), self._checked(gradient), logits.detach().mean(0)

    def of(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """The loss of each image that these logits (K, batch, classes) give: (batch,)."""
        if self.follows is Follows.MEAN_LOGITS:
            logits = logits.mean(0, keepdim=True)
        if len(logits) == 1:
            return self.loss(logits[0], labels, targets)
        n_draws = len(logits)
        repeated = None if targets is None else targets.repeat(n_draws)
        return self.loss(logits.flatten(0, 1), labels.repeat(n_draws), repeated).view(n_draws, -1).mean(0)

    def fresh(self, n_draws: int, *, loss: Loss | None = None) -> "Objective":
        """The same loss, or another, on draws of its own that no step has seen."""
        follows = Follows.MEAN_LOGITS if self.follows is Follows.MEAN_LOGITS else Follows.AVERAGED
        return Objective(
            self.network, n_draws=n_draws, loss=loss or self.loss, follows=follows, generator=self._generator
        )

    def _checked(self, gradient: Tensor | None) -> Tensor:
        if gradient is None:
            raise GradientError("expected logits that depend on the images through a gradient, got none")
        size = gradient.flatten(1).abs().sum(1)
        smallest, largest = (float(extreme) for extreme in size.aminmax())
        if not largest < float("inf"):
            raise GradientError(f"expected finite gradients, got NaN or infinity for {_share(~torch.isfinite(size))}")
        # Only at first: what is left of a batch after early stopping may well be flat.
        if largest == 0 and not self._evaluated:
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
        self._evaluated = True
        return gradient


def _share(chosen: Tensor) -> str:
    return f"{int(chosen.sum())} of {len(chosen)} images"


def expected_loss(
    network: NoisyNetwork, images: Tensor, labels: Tensor, *, n_draws: int, generator: torch.Generator
) -> Tensor:
    """Cross-entropy of each image, averaged over draws of the noise, with gradients.

    (1/K) Σ_k −log softmax(z_k)_y, unbiased for its expectation over the noise, whatever K.

    Parameters
    ----------
    network : NoisyNetwork
        The classifier with its noise.
    images : torch.Tensor
        (batch, channel, row, column), in [0, 1].
    labels : torch.Tensor
        int64 (batch,).
    n_draws : int
        K.
    generator : torch.Generator
        Source of the draws.

    Returns
    -------
    torch.Tensor
        The loss of each image, (batch,).

    Examples
    --------
    >>> from neurovar.covariance import Diagonal
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    >>> x, y = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
    >>> network = NoisyNetwork(model, {"1": Diagonal.isotropic(2)}, images=x)
    >>> expected_loss(network, x, y, n_draws=5, generator=torch.Generator()).shape
    torch.Size([3])
    """
    objective = Objective(network, n_draws=n_draws, generator=generator)
    return objective.of(objective.logits(images), labels)


class Best:
    """For each image, of the candidates offered, one that the network gets wrong; of those, the one of highest loss.

    On a noisy network both are judged by max(K, 10) fresh draws of each candidate: the class by the mean of their
    logits, never by a single lucky draw. The loss that a candidate was chosen by is the largest of many noisy ones and
    so too high (the winner's curse); on fresh draws it is unbiased. Of equals the first is kept.
    """

    def __init__(self, objective: Objective, labels: Tensor, *, loss: Loss | None = None) -> None:
        self._judge = objective.fresh(max(objective.n_draws, FRESH_DRAWS), loss=loss)
        self._labels = labels
        self.images: Tensor = torch.empty(0)
        """The best candidates."""
        self.wrong: Tensor = torch.zeros_like(labels, dtype=torch.bool)
        """Whether the network gets them wrong: (batch,)."""
        self.loss: Tensor = torch.empty(0)
        """Their mean loss: (batch,)."""

    def offer(self, candidates: Tensor) -> None:
        """One more candidate for each image."""
        with torch.no_grad():
            logits = self._judge.logits(candidates)
            loss = self._judge.of(logits, self._labels)
        wrong = logits.mean(0).argmax(1) != self._labels
        if not len(self.images):
            self.images, self.wrong, self.loss = candidates, wrong, loss
            return
        # Wrong before right, whatever the loss: a loss may be high although the true class is still the likeliest.
        better = (wrong & ~self.wrong) | ((wrong == self.wrong) & (loss > self.loss))
        self.images = torch.where(better[:, None, None, None], candidates, self.images)
        self.wrong, self.loss = torch.where(better, wrong, self.wrong), torch.where(better, loss, self.loss)
