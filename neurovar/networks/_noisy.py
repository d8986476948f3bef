"""A network with the noise that it carries: the noun of everything that attacks, evaluates, matches or certifies."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from neurovar._values import Value
from neurovar.covariance import CoupledDraws, Covariance, Dense, LowRankPlusDiagonal, MeanShift, Sampler, SharedDraws
from neurovar.networks._checks import check_evaluation_mode, check_images, check_labels
from neurovar.networks._layers import find_layers
from neurovar.networks.injection._context import inject

# Images that a network is run on when it is checked: enough to see its logits, too few to cost anything.
N_CHECKED = 8
# Draws come out of blocks of so many rows, or of so many numbers (16 MiB) if that is less.
BLOCK_ROWS, BLOCK_NUMBERS = 256, 2**22


@dataclass(frozen=True)
class Origin(Value):
    """What a noise was made from.

    Parameters
    ----------
    method : str
        What was done, such as "attacked", "modified", "signal_rule" or "power_law".
    of : str, optional
        What it was done to or with: a recording, a modification, the type of an attack.
    epsilon : float, optional
        Size of the attack, in units of pixels in [0, 1].
    norm : str, optional
        Norm of the attack, "linf" or "l2".

    Examples
    --------
    >>> str(Origin("attacked", of="PGD", epsilon=0.1, norm="linf"))
    "Origin(method='attacked', of='PGD', epsilon=0.1, norm='linf')"
    """

    method: str
    of: str = ""
    epsilon: float | None = None
    norm: str = ""

    @property
    def is_attack(self) -> bool:
        """Whether the noise comes from responses to an attack."""
        return self.epsilon is not None


@dataclass(frozen=True)
class Control(Value):
    """Which control a noise is: it differs from the noise under test in one property alone.

    Parameters
    ----------
    kind : str
        Which property differs, such as "rotated", "diagonal" or "train_only"; see `neurovar.noise.with_controls`.
    of : str, optional
        The name of the noise under test, where results have several.
    matched_by : str, optional
        What it has in common with the noise under test, "trace" or "clean_accuracy"; "" for neither.

    Examples
    --------
    >>> str(Control("rotated", matched_by="trace"))
    "Control(kind='rotated', matched_by='trace')"
    """

    kind: str
    of: str = ""
    matched_by: str = ""


@dataclass(frozen=True, eq=False)
class NoisyNetwork:
    """A classifier with noise e ~ N(0, C) on the outputs of named layers, checked when it is made.

    Parameters
    ----------
    model : torch.nn.Module
        A classifier in evaluation mode: images (batch, channel, row, column) → logits (batch, classes).
    noises : mapping of str to Covariance, optional
        Layer → covariance over the layer's units. Empty: no noise.
    images : torch.Tensor
        A few images in [0, 1] as the model takes them. The first eight are kept, and the network is run on them to be
        checked, where the model is.
    origin : Origin, optional
        What the noise was made from.
    control : Control, optional
        Which control the noise is, where it is one.

    Attributes
    ----------
    n_classes : int
        How many logits the model gives.

    Raises
    ------
    ValueError
        If a module is in training mode, a layer is unknown, a covariance has another number of units than its layer,
        the logits are not (batch, classes), not finite, probabilities or random without the noise, or a noise does not
        change the logits.

    Examples
    --------
    >>> from neurovar.covariance import Diagonal
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    >>> x = torch.full((2, 1, 2, 2), 0.5)
    >>> network = NoisyNetwork(model, {"1": Diagonal.isotropic(3)}, images=x)
    >>> network.logits(x, n_draws=5, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([5, 2, 3])
    >>> network.without_noise().logits(x).shape
    torch.Size([1, 2, 3])
    """

    model: nn.Module
    noises: Mapping[str, Covariance] = field(default_factory=dict)
    images: Tensor = field(kw_only=True, repr=False)
    origin: Origin | None = field(default=None, kw_only=True)
    control: Control | None = field(default=None, kw_only=True)
    n_classes: int = field(init=False)

    def __post_init__(self) -> None:
        check_images(self.images)
        check_evaluation_mode(self.model)
        find_layers(self.model, self.noises)
        images = self.images[:N_CHECKED].detach().clone()
        # A model without parameters is wherever its images are.
        device = next(self.model.parameters(), images).device
        object.__setattr__(self, "images", images.to(device))
        object.__setattr__(self, "noises", {name: _moved(noise, device) for name, noise in self.noises.items()})
        # Each layer's noise by itself, so that none that is off hides behind another's. The check has generators of
        # its own, so that a caller's draws do not depend on it.
        for noises in ({}, *({name: noise} for name, noise in self.noises.items())):
            first, second = (self._logits_once(noises, seed) for seed in (0, 1))
            _check_logits(first, len(images))
            _check_noise(first, second, noises)
        object.__setattr__(self, "n_classes", first.shape[1])

    def _logits_once(self, noises: Mapping[str, Covariance], seed: int) -> Tensor:
        with torch.no_grad(), inject(self.model, noises, generator=torch.Generator().manual_seed(seed)):
            return self.model(self.images)

    @property
    def noisy(self) -> bool:
        """Whether there is noise at any layer."""
        return bool(self.noises)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that have noise."""
        return tuple(self.noises)

    @property
    def trace(self) -> float:
        """The total variance of the noise of all layers."""
        return sum(float(noise.trace()) for noise in self.noises.values())

    @property
    def device(self) -> torch.device:
        """Where the model, its noise and the images that it takes are."""
        return self.images.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the images that the model takes."""
        return self.images.dtype

    def without_noise(self) -> "NoisyNetwork":
        """The same model without its noise, of no origin and no control."""
        return self._changed(noises={}, origin=None, control=None)

    def with_noises(
        self, noises: Mapping[str, Covariance], *, origin: Origin | None = None, control: Control | None = None
    ) -> "NoisyNetwork":
        """The same model with other noise, which is checked.

        Parameters
        ----------
        noises : mapping of str to Covariance
            Layer → covariance over the layer's units. Empty: no noise.
        origin : Origin, optional
            What the noise was made from.
        control : Control, optional
            Which control the noise is, where it is one.

        Returns
        -------
        NoisyNetwork
            It shares the model.
        """
        return replace(self, noises=noises, origin=origin, control=control)

    def to(self, device: str | torch.device) -> "NoisyNetwork":
        """The network on another device: itself if it is there, else a copy.

        Parameters
        ----------
        device : str or torch.device
            Such as "cpu" or "cuda".

        Returns
        -------
        NoisyNetwork
            Its model and covariances are there.
        """
        device = torch.device(device)
        if device.type == self.device.type and device.index in (None, self.device.index):
            return self
        noises = {name: noise.to(device=device) for name, noise in self.noises.items()}
        model = copy.deepcopy(self.model).to(device)
        return self._changed(model=model, noises=noises, images=self.images.to(device))

    def _changed(self, **fields: Any) -> "NoisyNetwork":
        """A copy with other fields, not checked again: what holds of this network holds of it."""
        changed = copy.copy(self)
        for name, value in fields.items():
            object.__setattr__(changed, name, value)
        return changed

    def check(self, images: Tensor, labels: Tensor) -> None:
        """Refuse images and labels that do not belong to this network.

        Parameters
        ----------
        images : torch.Tensor
            (batch, channel, row, column), floating point in [0, 1].
        labels : torch.Tensor
            int64 (batch,), from 0 to `n_classes` − 1.

        Raises
        ------
        ValueError
            For images or labels of another form or range, or if the model was switched to training mode.
        """
        check_evaluation_mode(self.model)
        check_images(images)
        check_labels(labels, images, self.n_classes)

    def logits(self, images: Tensor, n_draws: int = 1, *, generator: torch.Generator | None = None) -> Tensor:
        """The logits of each image under each of K draws of the noise.

        Layers before the noise run once, whatever K. Gradients flow where they are on.

        Parameters
        ----------
        images : torch.Tensor
            (batch, channel, row, column), in [0, 1].
        n_draws : int, optional
            K, the number of independent draws. Without noise all would be equal, and there is one.
        generator : torch.Generator, optional
            Source of the draws; required where there is noise.

        Returns
        -------
        torch.Tensor
            (K, batch, classes); (1, batch, classes) without noise.

        Raises
        ------
        ValueError
            For fewer than 1 draw, noise without a generator, a model in training mode, or a model that does not give a
            row for each draw and image.
        """
        return self.draws(n_draws, generator=generator).logits(images)

    def draws(
        self,
        n_draws: int,
        *,
        generator: torch.Generator | None,
        in_blocks: bool = False,
        fixed: bool = False,
        shared: bool = False,
    ) -> "Draws":
        """The same forward pass, made ready for many calls.

        Parameters
        ----------
        n_draws : int
            K, in every call.
        generator : torch.Generator or None
            Source of the draws; required where there is noise.
        in_blocks : bool, optional
            Draw `Dense` and low-rank noise in blocks of rows through a product that is packed once: the same rows to
            rounding, at a fraction of the cost where batches are small. Not where draws are fixed.
        fixed : bool, optional
            The same draws in every call, one for each k and position in the batch: the batches must all be of one size.
        shared : bool, optional
            The same K draws for every image of a batch, so that images are compared under common random numbers.

        Returns
        -------
        Draws
            Whose `logits(images)` gives (K, batch, classes).

        Raises
        ------
        ValueError
            For fewer than 1 draw, noise without a generator, or a model in training mode.

        Examples
        --------
        >>> from neurovar.covariance import Diagonal
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
        >>> x, g = torch.full((2, 1, 2, 2), 0.5), torch.Generator().manual_seed(0)
        >>> draws = NoisyNetwork(model, {"1": Diagonal.isotropic(3)}, images=x).draws(5, generator=g, fixed=True)
        >>> torch.equal(draws.logits(x), draws.logits(x))
        True
        """
        if n_draws < 1:
            raise ValueError(f"expected at least 1 draw, got {n_draws}")
        if self.noisy and generator is None:
            raise ValueError("expected a generator for the draws of the noise, got none: generator=torch.Generator()")
        check_evaluation_mode(self.model)
        return Draws(self, n_draws if self.noisy else 1, generator or torch.Generator(), in_blocks, fixed, shared)


class Draws:
    """Forward passes of a noisy network with K draws each; made by `NoisyNetwork.draws`.

    Parameters
    ----------
    network : NoisyNetwork
        What is run.
    n_draws : int
        K.
    generator : torch.Generator
        Source of the draws.
    in_blocks : bool
        Whether `Dense` and low-rank noise is drawn in blocks of rows.
    fixed : bool
        Whether every call has the same draws.
    shared : bool
        Whether all images of a batch have the same draws.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    >>> x = torch.full((2, 1, 2, 2), 0.5)
    >>> NoisyNetwork(model, images=x).draws(5, generator=None).logits(x).shape  # without noise all draws are one
    torch.Size([1, 2, 3])
    """

    def __init__(
        self,
        network: NoisyNetwork,
        n_draws: int,
        generator: torch.Generator,
        in_blocks: bool,
        fixed: bool,
        shared: bool,
    ) -> None:
        self.network, self.n_draws, self.generator = network, n_draws, generator
        self._seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device)) if fixed else None
        self._noises: dict[str, Covariance | CoupledDraws | Sampler] = {}
        for name, noise in network.noises.items():
            # A sampler goes on where it was, so that fixed draws have none. Shared draws are few: blocks of them pay
            # for a dense factor alone.
            blocks = in_blocks and not fixed and (isinstance(noise, Dense) or not shared)
            sampler = self._sampler(noise) if blocks else None
            self._noises[name] = sampler or noise
            if shared:
                self._noises[name] = SharedDraws(noise, n_draws, sampler)

    def _sampler(self, noise: Covariance) -> Sampler | None:
        """Blocks of draws, where a small draw would read a whole factor from memory and no draw is learned from."""
        if not isinstance(noise, Dense | LowRankPlusDiagonal) or noise.trainable:
            return None
        return noise.sampler(generator=self.generator, block=min(BLOCK_ROWS, max(BLOCK_NUMBERS // noise.n, 1)))

    def logits(self, images: Tensor) -> Tensor:
        """The logits under K draws.

        Parameters
        ----------
        images : torch.Tensor
            (batch, channel, row, column), in [0, 1].

        Returns
        -------
        torch.Tensor
            (K, batch, classes).
        """
        generator = self.generator
        if self._seed is not None:  # the same numbers again, by starting at the same place
            generator = torch.Generator(generator.device).manual_seed(self._seed)
        with inject(self.network.model, self._noises, generator=generator, draws=self.n_draws):
            logits = self.network.model(images)
        if len(logits) != self.n_draws * len(images):
            raise ValueError(
                f"expected logits for {self.n_draws} draws of each of {len(images)} images, got {len(logits)} rows; "
                f"where a connection skips {self.network.layers[0]!r}, name the block that contains both"
            )
        return logits.unflatten(0, (self.n_draws, -1))


def _moved(noise: Covariance, device: torch.device) -> Covariance:
    """The noise on a device, once: a copy is factorised anew. Learned noise stays, since gradients lead to it there."""
    return noise if noise.trainable or noise.device == device else noise.to(device=device)


def _check_logits(logits: object, n_images: int) -> None:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != n_images or logits.shape[1] < 2:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"expected logits ({n_images}, classes) of 2 classes or more for {n_images} images, got {shape}"
        )
    if not torch.isfinite(logits).all():
        raise ValueError("expected finite logits, got NaN or infinity")
    # Probabilities would pass for logits everywhere, and an attack on their cross-entropy would meet gradients that a
    # second softmax has flattened: the network would look robust.
    if (logits >= 0).all() and torch.allclose(logits.sum(-1), torch.ones_like(logits[:, 0]), atol=1e-4):
        raise ValueError(
            "expected logits, got rows that are not negative and sum to one, as probabilities do; leave out the softmax"
        )


def _check_noise(first: Tensor, second: Tensor, noises: Mapping[str, Covariance]) -> None:
    """Two passes differ where there is noise, and only there."""
    # Not equal to the last bit: a GPU may sum in another order from pass to pass.
    if not noises and not torch.allclose(first, second, rtol=1e-3, atol=1e-5):
        raise ValueError(
            "expected the same logits in two passes without noise, got others: the network is random in itself; give "
            "its noise as `noises`, or switch it off"
        )
    # A shift of the mean is the same in every draw, so that it alone may leave two passes equal.
    random = [name for name, noise in noises.items() if not isinstance(noise, MeanShift)]
    if random and torch.equal(first, second):
        raise ValueError(
            f"expected noise at {random[0]!r} to change the logits, got the same in two passes: the noise is off"
        )
