"""Certificates: radii within which no perturbation changes what a smoothed classifier says."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
import xarray as xr
from scipy import stats
from torch import Tensor, nn

from neurovar._provenance import provenance
from neurovar._values import Value
from neurovar.covariance import Covariance, Diagonal
from neurovar.networks import (
    check_evaluation_mode,
    check_labels,
    find_layers,
    inject,
    layer_activation,
    with_activation,
)

Norm = Literal["l2", "mahalanobis"]
# No class has this number, so that an abstention is never counted as right.
ABSTAIN = -1
IMAGE_DIMS = ("stimulus", "channel", "row", "column")


@dataclass(frozen=True)
class Sampling(Value):
    """How a smoothed classifier is sampled.

    Parameters
    ----------
    n_select : int, optional
        Draws that choose the class.
    n_draws : int, optional
        Fresh draws that certify it.
    alpha : float, optional
        The probability, for each image, that its certificate is wrong. The defaults are those of Cohen et al. 2019.
    batch_size : int, optional
        Draws at once; the result does not depend on it.

    Raises
    ------
    ValueError
        For numbers below 1, or an alpha that is not between 0 and 1.

    Examples
    --------
    >>> str(Sampling(n_draws=10_000))
    'Sampling(n_draws=10000)'
    """

    n_select: int = 100
    n_draws: int = 100_000
    alpha: float = 0.001
    batch_size: int = 1000

    def __post_init__(self) -> None:
        if min(self.n_select, self.n_draws, self.batch_size) < 1 or not 0 < self.alpha < 1:
            got = f"{self.n_select}, {self.n_draws}, {self.batch_size} and {self.alpha}"
            raise ValueError(
                f"expected n_select, n_draws and batch_size of at least 1 and alpha between 0 and 1, got {got}"
            )


def certify(
    model: nn.Module,
    images: xr.DataArray,
    labels: xr.DataArray,
    *,
    sigma: float,
    sampling: Sampling,
    generator: torch.Generator,
) -> xr.Dataset:
    """Certified L2 radii of the classifier smoothed by Gaussian noise on its input (randomised smoothing).

    The smoothed classifier is g(x) = argmax_c P(f(x + e) = c), e ~ N(0, σ²I). Of `n_select` draws the most frequent
    class c is taken; of `n_draws` fresh ones, k of which give c, p̲ = Beta⁻¹(α; k, n − k + 1) is the Clopper–Pearson
    lower bound of P(f(x + e) = c), with coverage of at least 1 − α (conservative). If p̲ > ½, then with probability of
    at least 1 − α over the draws g(x + δ) = c for every ‖δ‖₂ < R = σ Φ⁻¹(p̲); else it abstains. R cannot exceed
    σ Φ⁻¹(α^(1/n)), however robust g is: `attrs["largest_radius"]`.

    What is certified is g, which no one can evaluate exactly: neither `model` without noise, nor the argmax of logits
    summed over 10 draws that `evaluate` scores. The 1 − α is for each image: of many certificates a fraction of up to α
    may be wrong. Perturbations count in L2 and may leave [0, 1], as the noise does; in L∞ at ε, ‖δ‖₂ may reach
    ε √pixels. Rounding in float32 is not accounted for (Jin et al. 2022).

    Parameters
    ----------
    model : torch.nn.Module
        (batch, channel, row, column) to logits, in evaluation mode. A `NoisyModule` may be certified too: the proof
        holds for a classifier that is random itself, each row with draws of its own.
    images : xarray.DataArray
        (stimulus, channel, row, column) in [0, 1], of the model's floating type.
    labels : xarray.DataArray
        (stimulus), integers: the true classes.
    sigma : float
        Standard deviation of the noise, in pixels 0–1. Cohen et al. train with the noise that they certify.
    sampling : Sampling
        How many draws choose the class and certify it, and with what confidence.
    generator : torch.Generator
        Source of all draws.

    Returns
    -------
    xarray.Dataset
        Over stimulus: `predicted` (−1: abstained), `p_lower`, `radius` (0 where it abstained), `correct` (False where
        it abstained).

    Raises
    ------
    ValueError
        For images or labels outside their range, a model of which any part is in training mode, or logits that are not
        finite.

    References
    ----------
    Cohen, Rosenfeld, Kolter 2019, arXiv:1902.02918 (algorithm CERTIFY). Rounding: Jin, Ohrimenko, Rubinstein 2022,
    arXiv:2205.10159

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]]))
    >>> images = xr.DataArray(np.full((1, 1, 2, 2), 0.5, np.float32), dims=IMAGE_DIMS)
    >>> g = torch.Generator().manual_seed(0)
    >>> found = certify(model, images, xr.DataArray([0], dims="stimulus"), sigma=0.5,
    ...                 sampling=Sampling(n_select=10, n_draws=10_000), generator=g)
    >>> found.predicted.item(), 0.45 < found.radius.item() < 0.5  # the boundary is at a distance of 0.5
    (0, True)
    """
    if not 0 < sigma < float("inf"):
        raise ValueError(f"expected a finite sigma above 0, got {sigma}")
    x, y = _tensors(model, images, labels)
    noise = Diagonal(torch.full((x[0].numel(),), float(sigma) ** 2, dtype=x.dtype))
    # An identity in front gives the pixels a layer, so that noise on the input is injected as any other.
    smoothed = nn.Sequential(nn.Identity(), model)
    certificates = _certified(smoothed, {"0": noise}, x, y, sampling, generator)
    about = {"norm": "L2 of the pixels, 0–1", "sigma": sigma, "noise": "Gaussian, on the input"}
    return _labelled(certificates, images, scale=sigma, **about)


def certify_layer(
    model: nn.Module,
    images: xr.DataArray,
    labels: xr.DataArray,
    *,
    layer: str,
    noise: Covariance,
    sampling: Sampling,
    generator: torch.Generator,
    lipschitz: float | None = None,
    lipschitz_norm: Norm = "l2",
) -> xr.Dataset:
    """Certified radii of a network smoothed by noise of covariance Σ at a layer, in that layer's Mahalanobis norm.

    With h the layer's activation and f what follows it, g(h) = argmax_c P(f(h + e) = c), e ~ N(0, Σ). In the
    coordinates Σ^(−1/2) h the noise is N(0, I), so that the proof for the input holds as it is: with the p̲ of
    `certify`, and probability of at least 1 − α, g(h + d) = c for every d with √(dᵀ Σ⁻¹ d) < R = Φ⁻¹(p̲)
    (`noise.mahalanobis` gives the square). A radius at a layer says nothing about images by itself. If the layers up to
    it have a Lipschitz constant L (L2 → L2), then √(dᵀ Σ⁻¹ d) ≤ ‖d‖₂ / √λ_min(Σ) ≤ L ‖δ‖₂ / √λ_min(Σ), so that no δ on
    the image with ‖δ‖₂ < R √λ_min(Σ) / L changes the class: `input_radius`. A constant into the Mahalanobis norm,
    √(dᵀ Σ⁻¹ d) ≤ L ‖δ‖₂, gives R / L, which is sharper where the layers change little along the small eigenvalues.

    The input radius is certified only as far as L is: an estimate from gradients or samples is no bound. As with
    `certify`, what is certified is the smoothed network, with probability 1 − α for each image, and neither the network
    without noise nor the ensemble of `evaluate`; rounding is not accounted for, which for a Σ with eigenvalues below
    1e-6 of the largest speaks for float64.

    Parameters
    ----------
    model : torch.nn.Module
        (batch, channel, row, column) to logits, in evaluation mode.
    images : xarray.DataArray
        (stimulus, channel, row, column) in [0, 1], of the model's floating type.
    labels : xarray.DataArray
        (stimulus), integers: the true classes.
    layer : str
        Where the noise is. The layers before it must give the same for the same image.
    noise : Covariance
        Over the layer's units: Gaussian and centred, the same at every activation, with an inverse.
    sampling : Sampling
        How many draws choose the class and certify it, and with what confidence.
    generator : torch.Generator
        Source of all draws.
    lipschitz : float, optional
        A constant of the layers up to and including `layer` that is known to hold, such as `lipschitz_bound` gives;
        without it there is no input radius. Every way from image to logits must lead through `layer` then; one around
        it is noticed if gradients flow along it.
    lipschitz_norm : str, optional
        The norm at the layer that it is stated for, "l2" or "mahalanobis".

    Returns
    -------
    xarray.Dataset
        Over stimulus: `predicted`, `p_lower`, `correct`, and `radius` in the Mahalanobis norm; `input_radius` in L2 of
        the pixels where `lipschitz` is given.

    Raises
    ------
    ValueError
        For images or labels outside their range, a model of which any part is in training mode, an unknown layer, noise
        of the wrong size, that depends on the activations, has a mean, or is singular; a Lipschitz constant that is not
        above 0; layers before the noise that are random; with `lipschitz`, a way around the layer.

    References
    ----------
    Cohen, Rosenfeld, Kolter 2019, arXiv:1902.02918; noise of any covariance: Eiras et al. 2022, arXiv:2107.04570

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]]))
    >>> images = xr.DataArray(np.full((1, 1, 2, 2), 0.5, np.float32), dims=IMAGE_DIMS)
    >>> found = certify_layer(model, images, xr.DataArray([0], dims="stimulus"), layer="0", lipschitz=1.0,
    ...                       noise=Diagonal(torch.tensor([0.25, 0.04, 1.0, 1.0])),
    ...                       sampling=Sampling(n_select=10, n_draws=10_000),
    ...                       generator=torch.Generator().manual_seed(0))
    >>> 0.9 < found.radius.item() < 1, found.input_radius.item() < 0.5 * 0.2 / 0.5  # 0.5 / √0.25, and · √0.04
    (True, True)
    """
    x, y = _tensors(model, images, labels)
    _check_noise(noise)
    _check_lipschitz(lipschitz, lipschitz_norm)
    noise = noise.to(device=x.device)
    _counts(model, {layer: noise}, x[0], 1, generator.clone_state(), 1)  # refuses another layer or size at once
    _check_front(model, layer, x[:1], around=lipschitz is not None)
    certificates = _certified(model, {layer: noise}, x, y, sampling, generator)
    about = {"norm": f"Mahalanobis at layer {layer}", "layer": layer, "noise": type(noise).__name__}
    result = _labelled(certificates, images, scale=1.0, **about)
    if lipschitz is None:
        return result
    # √(dᵀ Σ⁻¹ d) ≤ ‖d‖₂ / √λ_min: the worst direction is the one with the least noise.
    stretch = lipschitz if lipschitz_norm == "mahalanobis" else lipschitz / float(noise.spectrum()[-1]) ** 0.5
    stated = {"lipschitz": lipschitz, "lipschitz_norm": lipschitz_norm, "input_norm": "L2 of the pixels, 0–1"}
    return result.assign(input_radius=result["radius"] / stretch).assign_attrs(stated)


def certified_accuracy(
    certificates: xr.Dataset, radii: Iterable[float], *, of: Literal["radius", "input_radius"] = "radius"
) -> xr.Dataset:
    """The fraction of images that are certified to be classified correctly within each radius.

    An image counts at r if its smoothed prediction is right, did not abstain, and has a certified radius of at least r.
    The interval is Clopper and Pearson's, 95 %, over images drawn at random; that up to a fraction α of the
    certificates may be wrong comes on top.

    Parameters
    ----------
    certificates : xarray.Dataset
        What `certify` or `certify_layer` returns.
    radii : iterable of float
        At which radii, in the norm of the certificates.
    of : str, optional
        Which of the radii, "radius" or "input_radius".

    Returns
    -------
    xarray.Dataset
        Over radius: `accuracy`, `low`, `high`.

    Raises
    ------
    ValueError
        If the certificates do not have that radius, or a radius is negative or NaN.

    References
    ----------
    Cohen, Rosenfeld, Kolter 2019, arXiv:1902.02918, section 4 ("approximate certified test set accuracy")

    Examples
    --------
    >>> found = xr.Dataset({"correct": ("stimulus", [True, True, False]), "radius": ("stimulus", [0.2, 0.5, 0.9])})
    >>> certified_accuracy(found, [0.0, 0.3, 0.6]).accuracy.values.round(2)
    array([0.67, 0.33, 0.  ])
    """
    missing = [name for name in ("correct", of) if name not in certificates.data_vars]
    if missing:
        raise ValueError(
            f"expected certificates with {' and '.join(missing)}, got {', '.join(map(str, certificates.data_vars))}"
        )
    at = np.array(list(radii), dtype=float)
    if not (at >= 0).all():
        raise ValueError(f"expected radii of at least 0, got {at[~(at >= 0)].tolist()}")
    certified = certificates["correct"].values & (certificates[of].values >= at[:, None])
    n, hits = certified.shape[1], certified.sum(1)
    columns = {"accuracy": hits / n, "low": _lower_bound(hits, n, 0.025), "high": 1 - _lower_bound(n - hits, n, 0.025)}
    attrs = {"interval": f"95 %, Clopper–Pearson over {n} stimuli", "of": of}
    variables = {name: ("radius", values) for name, values in columns.items()}
    return xr.Dataset(variables, coords={"radius": at}, attrs=attrs)


def _certified(
    model: nn.Module,
    noises: Mapping[str, Covariance],
    images: Tensor,
    labels: Tensor,
    sampling: Sampling,
    generator: torch.Generator,
) -> xr.Dataset:
    """The class of each image, the lower bound of its probability, and Φ⁻¹ of that."""
    n_select, n_draws, alpha, batch_size = sampling.n_select, sampling.n_draws, sampling.alpha, sampling.batch_size
    chosen, hits = np.empty(len(images), np.int64), np.empty(len(images), np.int64)
    for i, image in enumerate(images):
        # The class is chosen on draws of its own: on those that certify it, the best of several would be counted.
        chosen[i] = _counts(model, noises, image, n_select, generator, batch_size).argmax()
        hits[i] = _counts(model, noises, image, n_draws, generator, batch_size)[chosen[i]]
    # One-sided: only a probability that is too high would make the radius too large.
    p_lower = _lower_bound(hits, n_draws, alpha)
    predicted = np.where(p_lower > 0.5, chosen, ABSTAIN)
    columns = {
        "predicted": predicted,
        "p_lower": p_lower,
        "radius": np.where(p_lower > 0.5, stats.norm.ppf(np.maximum(p_lower, 0.5)), 0.0),
        "correct": predicted == labels.cpu().numpy(),
    }
    attrs = {"n_select": n_select, "n_draws": n_draws, "alpha": alpha}
    # If every draw gave the class, p would still only be known to be above alpha^(1/n).
    attrs["largest_radius"] = float(stats.norm.ppf(max(_lower_bound(np.array(n_draws), n_draws, alpha), 0.5)))
    return xr.Dataset({name: ("stimulus", values) for name, values in columns.items()}, attrs=attrs)


@torch.no_grad()
def _counts(
    model: nn.Module,
    noises: Mapping[str, Covariance],
    image: Tensor,
    n: int,
    generator: torch.Generator,
    batch_size: int,
) -> Tensor:
    """How many of `n` draws give each class: (classes,)."""
    counts: list[Tensor] = []
    for start in range(0, n, batch_size):
        draws = min(batch_size, n - start)
        with inject(model, noises, generator=generator, draws=draws):
            logits = model(image[None])
        if not torch.isfinite(logits).all():
            raise ValueError(f"expected finite logits, got NaN or infinity for {draws} draws")
        counts.append(torch.bincount(logits.argmax(1), minlength=logits.shape[1]))
    return torch.stack(counts).sum(0).cpu()


def _lower_bound(hits: np.ndarray, n: int, alpha: float) -> np.ndarray:
    """Clopper and Pearson's, one-sided, with coverage of at least 1 − alpha."""
    # The beta quantile is the binomial one turned round: P(X ≥ k | p) = I_p(k, n − k + 1). Without a hit it is 0.
    return np.where(hits > 0, stats.beta.ppf(alpha, np.maximum(hits, 1), n - hits + 1), 0.0)


def _labelled(certificates: xr.Dataset, images: xr.DataArray, *, scale: float, **about: Any) -> xr.Dataset:
    """With radii in units of `scale`, the stimuli's names, and what was certified."""
    what = "the smoothed classifier, for each image with probability 1 − alpha; not its base, nor an ensemble of draws"
    attrs = {**certificates.attrs, **about, "certified": what, **provenance()}
    attrs["largest_radius"] = scale * certificates.attrs["largest_radius"]
    stimulus = {"stimulus": images["stimulus"].values} if "stimulus" in images.coords else {}
    return certificates.assign(radius=scale * certificates["radius"]).assign_coords(stimulus).assign_attrs(attrs)


def _tensors(model: nn.Module, images: xr.DataArray, labels: xr.DataArray) -> tuple[Tensor, Tensor]:
    """Images and labels on the model's device."""
    if images.dims != IMAGE_DIMS or labels.dims != ("stimulus",) or not images.size:
        got = f"{images.dims} {images.shape} and {labels.dims}"
        raise ValueError(f"expected images (stimulus, channel, row, column) and labels (stimulus), got {got}")
    if len(images) != len(labels) or not np.array_equal(images["stimulus"], labels["stimulus"]):
        raise ValueError(
            f"expected the same stimuli in images and labels, got {len(images)} and {len(labels)}, or others"
        )
    if images.dtype.kind != "f" or labels.dtype.kind not in "iu":
        raise ValueError(f"expected images of floats and integer labels, got {images.dtype} and {labels.dtype}")
    if not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(f"expected pixels in [0, 1], got {images.min().item():g} to {images.max().item():g}")
    check_evaluation_mode(model)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    x = torch.tensor(np.ascontiguousarray(images.values), device=device)
    y = torch.tensor(labels.values.astype(np.int64))
    with torch.no_grad():
        logits = model(x[:1])
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"expected logits (batch, classes) of at least two classes, got {tuple(logits.shape)}")
    check_labels(y, x, logits.shape[1])
    return x, y


def _check_noise(noise: Covariance) -> None:
    if noise.state_dependent:
        raise ValueError(
            f"expected noise that is the same at every activation, got {type(noise).__name__}, which depends on it"
        )
    if not noise.is_linear:
        raise ValueError(f"expected centred Gaussian noise, got {type(noise).__name__} with a mean")
    # In a direction without noise no probability changes smoothly, so that nothing can be certified there.
    noise.log_determinant()  # refuses a singular one


def _check_lipschitz(lipschitz: float | None, norm: str) -> None:
    if norm not in get_args(Norm):
        raise ValueError(f"expected lipschitz_norm to be one of {', '.join(get_args(Norm))}, got {norm!r}")
    if lipschitz is not None and not 0 < lipschitz < float("inf"):
        raise ValueError(f"expected a finite Lipschitz constant above 0, got {lipschitz}")


def _check_front(model: nn.Module, layer: str, image: Tensor, *, around: bool) -> None:
    """Raise if the activation differs between passes, or (`around`) the logits depend on the image beside it."""
    kept: list[Tensor] = []

    def cut(module: nn.Module, args: object, output: object) -> object:
        kept.append(layer_activation(output, layer).detach())
        return with_activation(output, kept[-1])

    image = image.clone().requires_grad_()
    with ExitStack() as stack:
        stack.enter_context(inject(model, {}, generator=torch.Generator()))  # no noise, and compiled code off
        stack.enter_context(torch.enable_grad())
        stack.callback(find_layers(model, [layer])[layer].register_forward_hook(cut).remove)
        logits, _ = model(image), model(image)
    if not torch.equal(*kept):
        raise ValueError(f"expected layers before {layer!r} that give the same twice, got others: they are random")
    if not around or not logits.requires_grad:
        return
    if torch.autograd.grad(logits.sum(), image, allow_unused=True)[0] is not None:
        raise ValueError(
            f"expected every way from the image to the logits to lead through layer {layer!r}, got one around it: "
            "there is no input radius"
        )
