"""Learn the covariance of a layer's noise together with the network, by gradients through the draws."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional as F

from neurovar import _memory
from neurovar.covariance import Covariance, Dense, Diagonal, LowRankPlusDiagonal
from neurovar.networks import batch_axis, check_labels, find_layers, inject, layer_activation, seeded

KINDS = ("dense", "diagonal", "low_rank")
COPIES = 9
"""Matrices that learning a dense covariance holds: its parameters, their gradient, Adam's two, and L on its way."""
Advance = Callable[[int], object]


@dataclass(frozen=True)
class Divergence:
    """The penalty β·KL(N(0, C) ‖ N(0, v·I)) = (β/2)·[tr(C)/v − n − log det(C/v)] on the covariance C of n units.

    The log-determinant rewards noise in every direction, so that none vanishes; the trace bounds it where the task does
    not. `weight` is β, in nats of cross-entropy per nat; `variance` is v, of every unit.

    Raises
    ------
    ValueError : if one is not positive and finite.

    Examples
    --------
    >>> Divergence(weight=0.01, variance=1.0)
    Divergence(weight=0.01, variance=1.0)
    """

    weight: float
    variance: float

    def __post_init__(self) -> None:
        if not (0 < self.weight < math.inf and 0 < self.variance < math.inf):
            raise ValueError(f"expected a finite weight and variance above 0, got {self.weight} and {self.variance}")


@dataclass(frozen=True, eq=False)
class LearnedNoise:
    """A network and the noise at one of its layers, learned together.

    `history` has, over `epoch`, the mean `cross_entropy` (nats), the mean `penalty` and the `trace` at the epoch's end.
    `noise`, `mean_shift` (zero: learned noise has no mean) and `attrs` are as in `noise.NoiseSource`.
    """

    network: nn.Module
    noise: Covariance
    history: xr.Dataset
    attrs: Mapping[str, Any]

    @property
    def mean_shift(self) -> Tensor:
        return torch.zeros_like(self.noise.diagonal())


def learn_noise(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    layer: str,
    kind: str,
    rank: int | None = None,
    trace: float | None = None,
    penalty: Divergence | None = None,
    modification: Callable[..., Tensor] | None = None,
    attack: Callable[..., Tensor] | None = None,
    n_epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    generator: torch.Generator,
    advance: Advance | None = None,
) -> LearnedNoise:
    """Train the covariance C of the noise at `layer` with the network, on the loss that the noise causes.

    With a fixed `trace`, over the covariances of just that trace:
        min_{θ, C} E CE(f_θ(x; e), y), e ~ N(0, C), tr C = `trace`
    With a `penalty`:
        min_{θ, C} E CE(f_θ(x; e), y) + β·KL(N(0, C) ‖ N(0, v·I))

    CE is the cross-entropy in nats, E the mean over images and draws, e = L·z with z standard normal and C = L·Lᵀ, so
    that the gradient reaches L through the draw; a fresh e for every image and step; Adam. θ are the parameters of
    `model` that require gradients: freeze all to learn the noise alone, or those up to `layer`
    (`networks.reinitialised`) for the retraining of Preble et al. 2026. Layers before `layer` that train can drown the
    noise in larger activations.

    Why the noise does not vanish: it would from the cross-entropy alone, which is convex in the logits, so that noise
    costs where they are linear in it. A fixed trace, exact by parameterisation, only lets it move: to the directions
    that the rest of the network does not read, and to where θ gains by it. The penalty is infinite where a direction
    loses its noise. For a loss that is quadratic in e with Hessian H, its optimum is C = (H/β + I/v)⁻¹: variance v
    where the loss does not depend on e, β/h in a direction of large curvature h. Only v bounds the noise of directions
    that nobody reads: with an entropy alone for a reward it would grow for ever.

    With `modification` or `attack` x are the modified images alone, made anew in every step: noise is then useful where
    it keeps them classified.

    Parameters
    ----------
    images, labels : (image, …) as `model` takes them, and int64 (image,).
    layer : name as in `model.named_modules()`.
    kind : "dense", "diagonal", or "low_rank": `rank` shared factors and a private variance of each unit, from 1 to
        n − 1. "dense" holds n² parameters, and Adam twice as many.
    trace, penalty : one of the two. Learning starts from isotropic variance trace / n or v ("low_rank": half of it in
        random factors).
    modification : (images, generator=…) → images, such as `networks.Brightness(3)`.
    attack : (model, images, labels, noises=…, generator=…) → images, such as `partial(attacks.pgd, epsilon=0.1,
        step=0.025, n_steps=10)`; sees the network in eval mode with the present noise.
    learning_rate : Adam's, for network and noise; a step changes a standard deviation by up to about this fraction.
    generator : the draws, the order of images, the start, and what is random in the network.
    advance : called with 1 after each epoch.

    Returns
    -------
    LearnedNoise : a trained copy of the network in eval mode, the covariance over the layer's flattened outputs in
        their dtype, and the history.

    Raises
    ------
    ValueError : for an unknown layer, kind, or rank; both or neither of trace and penalty; both modification and
        attack; labels that do not fit; if no gradient reaches the noise (in `torch.no_grad` or `torch.inference_mode`,
        a layer whose output does not reach the loss, a later layer that is not differentiable, a frozen network whose
        loss does not depend on the noise); or a loss that is not finite.

    References
    ----------
    Gradients through draws: Kingma & Welling 2014, arXiv:1312.6114; noise of learned variance: Kingma et al. 2015,
    arXiv:1506.02557, He et al. 2019, arXiv:1811.09310; of learned covariance: Eustratiadis et al. 2021,
    arXiv:2010.08852 (who align it with the weights instead); the penalty: Alemi et al. 2017, arXiv:1612.00410

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> x = torch.randn(256, 2, generator=g)
    >>> model = nn.Sequential(nn.Identity(), nn.Linear(2, 2, bias=False)).requires_grad_(False)
    >>> model[1].weight.copy_(torch.tensor([[2.0, 0.0], [-2.0, 0.0]]))  # reads the first unit only
    Parameter containing:
    tensor([[ 2.,  0.],
            [-2.,  0.]])
    >>> learned = learn_noise(model, x, (x[:, 0] < 0).long(), layer="0", kind="diagonal", trace=2.0, n_epochs=20,
    ...                       learning_rate=0.05, generator=g)
    >>> first, second = learned.noise.diagonal().tolist()
    >>> first < 0.1 < 1.9 < second, round(learned.noise.trace(), 5)
    (True, 2.0)
    """
    constraint = _constraint(trace, penalty)
    if modification is not None and attack is not None:
        raise ValueError("expected a modification or an attack, got both")
    if n_epochs < 1 or batch_size < 1:
        raise ValueError(f"expected at least 1 epoch and 1 image a batch, got {n_epochs} and {batch_size}")
    if not torch.is_grad_enabled():
        raise ValueError("expected gradients for the learned noise, got torch.no_grad or torch.inference_mode")
    network = copy.deepcopy(model)
    output = _probe(network, images, labels, layer)
    noise = _Parameters(output, kind, rank, constraint, generator)
    task = _Task(network, layer, noise, modification, attack, generator)
    rows = _fit(task, images, labels, n_epochs, batch_size, learning_rate, advance)
    history = xr.Dataset(
        {name: ("epoch", [row[name] for row in rows]) for name in rows[0]}, coords={"epoch": range(1, n_epochs + 1)}
    )
    attrs = {"source": "learned", "model": type(model).__name__, "layer": layer, "kind": kind, "n_samples": len(images)}
    attrs |= {"rank": rank} if rank is not None else {}
    attrs |= {f"penalty_{name}": value for name, value in asdict(penalty).items()} if penalty else {"trace": trace}
    return LearnedNoise(network.eval(), noise.finished(), history, attrs)


def _constraint(trace: float | None, penalty: Divergence | None) -> float | Divergence:
    if trace is None and penalty is not None:
        return penalty
    if trace is None or penalty is not None:
        raise ValueError(f"expected either a trace or a penalty, got {trace} and {penalty}")
    if not 0 < trace < math.inf:
        raise ValueError(f"expected a finite trace above 0, got {trace}")
    return trace


class _Parameters(nn.Module):
    """Unconstrained parameters of C = scale·B, where the trace of B starts at about the number of units.

    B = F·Fᵀ + diag(exp(2·log_sd)); for "dense" B = L·Lᵀ, L = tril(F, −1) + diag(exp(log_sd)).
    """

    def __init__(
        self,
        output: Tensor,
        kind: str,
        rank: int | None,
        constraint: float | Divergence,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        n = output[0].numel()
        if kind not in KINDS or (rank is not None) != (kind == "low_rank"):
            raise ValueError(f"expected kind one of {KINDS}, 'low_rank' with a rank, got {kind!r} and rank {rank}")
        if rank is not None and not 1 <= rank < n:
            raise ValueError(f"expected a rank from 1 to {n - 1}, got {rank}")
        zeros = torch.zeros(n, dtype=torch.promote_types(output.dtype, torch.float32), device=output.device)
        self.kind, self.constraint = kind, constraint
        self.factors, private = None, 1.0
        if kind == "dense":
            _memory.require_matrix(n, zeros.dtype, zeros.device, copies=COPIES)
            self.factors = nn.Parameter(zeros.new_zeros(n, n))
        elif rank is not None:
            private = 0.5
            draws = torch.randn(n, rank, generator=generator, device=generator.device)
            self.factors = nn.Parameter(draws.to(zeros) * ((1 - private) / rank) ** 0.5)
        self.log_sd = nn.Parameter(zeros + math.log(private) / 2)

    def _unscaled(self) -> tuple[Tensor | None, Tensor, Tensor]:
        """F, or L where there is no private part; the private variances; the trace of B."""
        if self.kind == "dense" and self.factors is not None:
            lower = self.factors.tril(-1)
            lower.diagonal().add_(self.log_sd.exp())
            return lower, torch.zeros_like(self.log_sd), torch.linalg.vector_norm(lower).square()
        private = (2 * self.log_sd).exp()
        if self.factors is None:
            return None, private, private.sum()
        return self.factors, private, private.sum() + self.factors.square().sum()

    def forward(self) -> Diagonal | LowRankPlusDiagonal:
        """The covariance, for sampling with gradients: "dense" as L·Lᵀ + 0, so that nothing is factorised."""
        factors, private, total = self._unscaled()
        if isinstance(self.constraint, Divergence):
            scale = total.new_tensor(self.constraint.variance)
        else:
            scale = self.constraint / total
        if factors is None:
            return Diagonal(private * scale)
        private = private if self.kind == "dense" else private * scale  # the root of 0 has no gradient
        return LowRankPlusDiagonal(factors * scale.sqrt(), private)

    def penalised(self) -> Tensor:
        """β·KL, or 0 without a penalty."""
        if not isinstance(self.constraint, Divergence):
            return self.log_sd.new_zeros(())
        factors, private, total = self._unscaled()
        log_determinant = 2 * self.log_sd.sum()
        if self.kind == "low_rank" and factors is not None:
            inner = torch.eye(factors.shape[1]).to(factors) + factors.mT @ (factors / private[:, None])
            log_determinant = log_determinant + torch.logdet(inner)
        return self.constraint.weight / 2 * (total - len(private) - log_determinant)

    @torch.no_grad()
    def finished(self) -> Covariance:
        """The covariance, without gradients."""
        covariance = self()
        return Dense(covariance.factors @ covariance.factors.mT) if self.kind == "dense" else covariance


@dataclass(frozen=True, eq=False)
class _Task:
    """What is minimised."""

    network: nn.Module
    layer: str
    noise: _Parameters
    modification: Callable[..., Tensor] | None
    attack: Callable[..., Tensor] | None
    generator: torch.Generator

    def shown(self, images: Tensor, labels: Tensor) -> Tensor:
        if self.modification is not None:
            return self.modification(images, generator=self.generator)
        if self.attack is None:
            return images
        with torch.no_grad():
            noises = {self.layer: self.noise()}
        self.network.eval()
        attacked = self.attack(self.network, images, labels, noises=noises, generator=self.generator)
        _training_mode(self.network)
        return attacked

    def cross_entropy(self, images: Tensor, labels: Tensor) -> Tensor:
        with inject(self.network, {self.layer: self.noise()}, generator=self.generator):
            return F.cross_entropy(self.network(images), labels)

    def check_gradient(self, loss: Tensor) -> None:
        parameters = list(self.noise.parameters())
        gradients: tuple[Tensor | None, ...] = (None,)
        if loss.requires_grad:
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        if any(gradient is None for gradient in gradients):
            raise ValueError(
                f"expected a gradient from the loss to the noise at layer {self.layer!r}, got none: its output does "
                "not reach the loss, or a later layer is not differentiable"
            )
        trained = any(parameter.requires_grad for parameter in self.network.parameters())
        if not trained and not any(gradient.any() for gradient in gradients if gradient is not None):
            raise ValueError(
                f"expected a gradient from the loss to the noise at layer {self.layer!r}, got only zeros from a "
                "frozen network: its loss does not depend on the noise"
            )


def _fit(
    task: _Task,
    images: Tensor,
    labels: Tensor,
    n_epochs: int,
    batch_size: int,
    learning_rate: float,
    advance: Advance | None,
) -> list[dict[str, float]]:
    """Train network and noise in place; the history's rows."""
    trained = [parameter for parameter in task.network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam([*trained, *task.noise.parameters()], lr=learning_rate)
    history: list[dict[str, float]] = []
    seed = torch.randint(2**62, (), generator=task.generator, device=task.generator.device)
    with seeded(int(seed)):
        _training_mode(task.network)
        for epoch in range(n_epochs):
            sums = torch.zeros(2, dtype=torch.float64)
            order = torch.randperm(len(images), generator=task.generator, device=task.generator.device)
            for rows in order.to(images.device).split(batch_size):
                cross_entropy = task.cross_entropy(task.shown(images[rows], labels[rows]), labels[rows])
                if not history and not sums.any():
                    task.check_gradient(cross_entropy)
                penalty = task.noise.penalised()
                optimiser.zero_grad()
                (cross_entropy + penalty).backward()
                optimiser.step()
                sums += len(rows) * torch.stack([cross_entropy, penalty]).detach().cpu()
            if not torch.isfinite(sums).all():
                raise ValueError(f"expected a finite loss, got {sums.tolist()} in epoch {epoch + 1}")
            mean = (sums / len(images)).tolist()
            with torch.no_grad():
                history.append({"cross_entropy": mean[0], "penalty": mean[1], "trace": task.noise().trace()})
            if advance:
                advance(1)
    return history


def _training_mode(network: nn.Module) -> None:
    """Training mode for what trains; modules whose parameters are all frozen stay in eval mode."""
    network.train(any(parameter.requires_grad for parameter in network.parameters()))
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


@torch.no_grad()
def _probe(network: nn.Module, images: Tensor, labels: Tensor, layer: str) -> Tensor:
    """The output of `layer` for one image, which comes first; labels and images are checked."""
    if not len(images) or len(images) != len(labels):
        raise ValueError(f"expected a label an image and at least 1 image, got {len(labels)} for {len(images)}")
    outputs: list[object] = []
    module = find_layers(network, [layer])[layer]
    handle = module.register_forward_hook(lambda module, args, output: outputs.append(output))
    try:
        n_classes = network.eval()(images[:1]).shape[-1]
    finally:
        handle.remove()
    if len(outputs) != 1:
        raise ValueError(f"expected layer {layer!r} to fire once in a forward pass, got {len(outputs)} times")
    check_labels(labels, images, n_classes)
    output = layer_activation(outputs[0], layer)
    return output.movedim(batch_axis(module, output, layer), 0)
