"""Learn the covariance of a layer's noise together with the network, by gradients through the draws."""

import copy
from dataclasses import dataclass

import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional as F

from neurovar.covariance import Covariance
from neurovar.networks import (
    NoisyNetwork,
    Origin,
    Schedule,
    batch_axis,
    check_labels,
    find_layers,
    forward_hooks,
    inject,
    layer_activation,
    seeded,
)
from neurovar.noise._learnable import Constraint, Learnable, learnable
from neurovar.noise.sources._networks import Attack, Modification
from neurovar.noise.sources._source import NoiseSource
from neurovar.statistics import Structure


@dataclass(frozen=True, eq=False)
class LearnedNoise:
    """A network and the noise at one of its layers, learned together.

    Parameters
    ----------
    network : torch.nn.Module
        The trained network, in evaluation mode.
    source : NoiseSource
        The noise, and where it is from; its mean shift is zero, as learned noise has no mean.
    constraint : Constraint
        What kept the noise from vanishing.
    history : xarray.Dataset
        (epoch): the mean `cross_entropy` (nats), the mean `penalty` and the `trace` at the epoch's end.

    Examples
    --------
    >>> from neurovar.noise import FixedTrace
    >>> from neurovar.statistics import DiagonalOnly
    >>> x, y, g = torch.rand(8, 2), torch.arange(8) % 2, torch.Generator().manual_seed(0)
    >>> learned = learn_noise(nn.Sequential(nn.Identity(), nn.Linear(2, 2)), x, y, layer="0", structure=DiagonalOnly(),
    ...     constraint=FixedTrace(1.0), schedule=Schedule(2), generator=g)
    >>> round(learned.noise.trace(), 5), learned.source.origin.method, learned.history.sizes["epoch"]
    (1.0, 'learned', 2)
    """

    network: nn.Module
    source: NoiseSource
    constraint: Constraint
    history: xr.Dataset

    @property
    def noise(self) -> Covariance:
        """The covariance over the layer's flattened outputs."""
        return self.source.noise


def learn_noise(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    layer: str,
    structure: Structure,
    constraint: Constraint,
    schedule: Schedule,
    modification: Modification | None = None,
    attack: Attack | None = None,
    generator: torch.Generator,
) -> LearnedNoise:
    """Train the covariance C of the noise at `layer` with the network, on the loss that the noise causes.

    With `FixedTrace(trace)`, over the covariances of just that trace:
        min_{θ, C} E CE(f_θ(x; e), y), e ~ N(0, C), tr C = trace
    With `Divergence(weight=β, variance=v)`:
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
    model : torch.nn.Module
        A classifier; a copy of it is trained.
    images : torch.Tensor
        (image, …) as the model takes them.
    labels : torch.Tensor
        int64 (image,).
    layer : str
        Name as in `model.named_modules()`.
    structure : Structure
        `DiagonalOnly()`, `LowRank(rank)`, shared factors and a private variance of each unit, or `Full()`, which holds
        n² parameters, and Adam twice as many.
    constraint : Constraint
        `FixedTrace(trace)` or `Divergence(weight=…, variance=…)`. Learning starts from isotropic variance trace / n or
        v (`LowRank`: half of it in random factors).
    schedule : Schedule
        Epochs, batch size and Adam's learning rate, for network and noise; a step changes a standard deviation by up to
        about this fraction.
    modification : callable, optional
        (images, generator=…) → images, such as `networks.Brightness(3)`.
    attack : callable, optional
        (network, images, labels, generator=…) → images, such as `robustness.PGD(0.1)`; it sees the network in
        evaluation mode with the present noise.
    generator : torch.Generator
        The draws, the order of images, the start, and what is random in the network.

    Returns
    -------
    LearnedNoise
        A trained copy of the network in evaluation mode, the covariance over the layer's flattened outputs in their
        dtype, and the history.

    Raises
    ------
    ValueError
        For an unknown layer, a structure that is not learned, or a rank out of range; both modification and attack;
        labels that do not fit; if no gradient reaches the noise (in `torch.no_grad` or `torch.inference_mode`, a layer
        whose output does not reach the loss, a later layer that is not differentiable, a frozen network whose loss does
        not depend on the noise); or a loss that is not finite.

    References
    ----------
    Gradients through draws: Kingma & Welling 2014, arXiv:1312.6114; noise of learned variance: Kingma et al. 2015,
    arXiv:1506.02557, He et al. 2019, arXiv:1811.09310; of learned covariance: Eustratiadis et al. 2021,
    arXiv:2010.08852 (who align it with the weights instead); the penalty: Alemi et al. 2017, arXiv:1612.00410

    Examples
    --------
    >>> from neurovar.noise import FixedTrace
    >>> from neurovar.statistics import DiagonalOnly
    >>> g = torch.Generator().manual_seed(0)
    >>> x = torch.randn(256, 2, generator=g)
    >>> model = nn.Sequential(nn.Identity(), nn.Linear(2, 2, bias=False)).requires_grad_(False)
    >>> model[1].weight.copy_(torch.tensor([[2.0, 0.0], [-2.0, 0.0]]))  # reads the first unit only
    Parameter containing:
    tensor([[ 2.,  0.],
            [-2.,  0.]])
    >>> learned = learn_noise(model, x, (x[:, 0] < 0).long(), layer="0", structure=DiagonalOnly(),
    ...     constraint=FixedTrace(2.0), schedule=Schedule(20, learning_rate=0.05), generator=g)
    >>> first, second = learned.noise.diagonal().tolist()
    >>> first < 0.1 < 1.9 < second, round(learned.noise.trace(), 5)
    (True, 2.0)
    """
    if modification is not None and attack is not None:
        raise ValueError("expected a modification or an attack, got both")
    if not torch.is_grad_enabled():
        raise ValueError("expected gradients for the learned noise, got torch.no_grad or torch.inference_mode")
    network = copy.deepcopy(model)
    output = _probe(network, images, labels, layer)
    zeros = torch.zeros_like(output[0].flatten(), dtype=torch.promote_types(output.dtype, torch.float32))
    noise = learnable(structure, zeros, constraint, generator)
    task = _Task(network, layer, noise, modification, attack, generator)
    history = _fit(task, images, labels, schedule)
    finished = noise.finished()
    source = NoiseSource(
        noise=finished,
        mean_shift=torch.zeros_like(finished.diagonal()),
        origin=Origin("learned", of=str(constraint)),
        structure=structure,
        model=type(model).__name__,
        layer=layer,
        n_samples=len(images),
    )
    return LearnedNoise(network.eval(), source, constraint, history)


@dataclass(frozen=True, eq=False)
class _Task:
    """What is minimised."""

    network: nn.Module
    layer: str
    noise: Learnable
    modification: Modification | None
    attack: Attack | None
    generator: torch.Generator

    def shown(self, images: Tensor, labels: Tensor) -> Tensor:
        """What the network is trained on in place of a batch."""
        if self.modification is not None:
            return self.modification(images, generator=self.generator)
        if self.attack is None:
            return images
        self.network.eval()
        present = NoisyNetwork(self.network, {self.layer: self.noise.finished()}, images=images)
        attacked = self.attack(present, images, labels, generator=self.generator)
        _training_mode(self.network)
        return attacked

    def cross_entropy(self, images: Tensor, labels: Tensor) -> Tensor:
        """Under one fresh draw of the noise for every image, through which the gradient reaches its covariance."""
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


def _fit(task: _Task, images: Tensor, labels: Tensor, schedule: Schedule) -> xr.Dataset:
    """Train network and noise in place; what each epoch came to."""
    trained = [parameter for parameter in task.network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam([*trained, *task.noise.parameters()], lr=schedule.learning_rate)
    rows: list[dict[str, float]] = []
    # What is random in the network itself, such as dropout, draws from torch's global state: seeded from the generator.
    seed = torch.randint(2**62, (), generator=task.generator, device=task.generator.device)
    with seeded(int(seed)):
        _training_mode(task.network)
        for epoch in schedule.epochs(images, labels, task.shown, generator=task.generator):
            sums = torch.zeros(2, dtype=torch.float64)
            for shown, wanted in epoch:
                cross_entropy = task.cross_entropy(shown, wanted)
                if not rows and not sums.any():
                    task.check_gradient(cross_entropy)
                penalty = task.noise.penalty()
                optimiser.zero_grad()
                (cross_entropy + penalty).backward()
                optimiser.step()
                sums += len(wanted) * torch.stack([cross_entropy, penalty]).detach().cpu()
            if not torch.isfinite(sums).all():
                raise ValueError(f"expected a finite loss, got {sums.tolist()} in epoch {len(rows) + 1}")
            mean = (sums / len(images)).tolist()
            rows.append({"cross_entropy": mean[0], "penalty": mean[1], "trace": task.noise.finished().trace()})
    columns = {name: ("epoch", [row[name] for row in rows]) for name in rows[0]}
    return xr.Dataset(columns, coords={"epoch": range(1, len(rows) + 1)})


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
    with forward_hooks(network, {layer: lambda module, args, output: outputs.append(output)}):
        n_classes = network.eval()(images[:1]).shape[-1]
    if len(outputs) != 1:
        raise ValueError(f"expected layer {layer!r} to fire once in a forward pass, got {len(outputs)} times")
    check_labels(labels, images, n_classes)
    output = layer_activation(outputs[0], layer)
    return output.movedim(batch_axis(module, output, layer), 0)
