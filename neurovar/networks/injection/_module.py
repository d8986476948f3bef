"""A network with its noise, as one module."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from neurovar.covariance import Covariance, from_tree, read_tensors, write_tensors
from neurovar.networks.injection._hooks import Injection, Options, When

VERSION = 1


class NoisyModule(nn.Module):
    """A copy of a network that carries its noise: y = f(x) + e, or y = f(x)·(1 + e), at named layers.

    What the noise is and how it is drawn is said under `inject`. The covariances' tensors are buffers, or parameters
    where they require gradients. They move with `.to`, though never below float32, and stand in the `state_dict` beside
    the network's weights and the state of the generator, so that a module that is copied, or saved and loaded, goes on
    with the same draws. The network is `.model`, its layers `model.<name>`.

    `torch.compile` works, with a graph break at each noisy layer, and before and after the network: it cannot trace
    an explicit generator (github.com/pytorch/pytorch/issues/88576).

    Parameters
    ----------
    model : torch.nn.Module
        Copied; the one given stays as it is.
    noises : mapping of str to Covariance
        Layer → covariance over the layer's units.
    generator : torch.Generator
        Source of all draws, copied.
    when : str
        The mode, "train" or "eval", in which there is noise, or "both".
    draws : int, optional
        With K > 1, the batch is repeated K times at the first noisy layer; the module then returns K·batch rows, all
        images of draw 1 first.
    multiplicative : bool, optional
        e is a fraction of the layer's output.
    antithetic : bool, optional
        Draws k and k + K/2 are a pair, e and −e about the noise's mean, each with covariance C.

    Raises
    ------
    ValueError
        For what `inject` refuses.

    Examples
    --------
    >>> import torch
    >>> from neurovar.covariance import Diagonal
    >>> g = torch.Generator().manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False))
    >>> noisy = NoisyModule(model, {"0": Diagonal.isotropic(3)}, generator=g, when="eval").eval()
    >>> torch.equal(noisy(torch.ones(4, 2)), noisy(torch.ones(4, 2)))
    False
    >>> list(noisy.state_dict())
    ['_extra_state', 'model.0.weight', 'noises.0.variance']
    """

    def __init__(
        self,
        model: nn.Module,
        noises: Mapping[str, Covariance],
        *,
        generator: torch.Generator,
        when: When,
        draws: int = 1,
        multiplicative: bool = False,
        antithetic: bool = False,
    ) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.noises = nn.ModuleList(_Noise(noise) for noise in noises.values())
        options = Options(draws, multiplicative, fixed=False, antithetic=antithetic, when=when)
        self.injection = Injection(options, dict(zip(noises, self.noises)), generator.clone_state())
        # A graph break at every hook: the compiler cannot trace an explicit generator.
        self.injection.attach(self.model, wrap=torch.compiler.disable)
        self.training = model.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)

    def get_extra_state(self) -> Tensor:
        """The state of the generator, uint8."""
        return self.injection.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self.injection.generator.set_state(state.cpu())

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: the `state_dict`, and layers, types of noise and options as JSON.

        Parameters
        ----------
        path : str or pathlib.Path
            Of the file, which is replaced if it is there.
        """
        header = {
            "version": VERSION,
            "layers": {
                layer: {"tree": noise.tree, "names": noise.names, "learned": noise.learned}
                for layer, noise in zip(self.injection.sources, self.noises)
            },
            "options": asdict(self.injection.options),
            "device": str(self.injection.generator.device),
        }
        write_tensors(self.state_dict(), path, name="neurovar_noisy_module", header=header)

    @classmethod
    def load(cls, path: str | Path, model: nn.Module) -> "NoisyModule":
        """Read what `save` wrote, for a network of the same architecture; never unpickles.

        Parameters
        ----------
        path : str or pathlib.Path
            Of the file.
        model : torch.nn.Module
            Copied; its weights do not matter.

        Returns
        -------
        NoisyModule
            It goes on with the draws where the saved one was.

        Raises
        ------
        ValueError
            If the file is missing, holds no noisy module, or one of another network.
        """
        what = f"a noisy {type(model).__name__}"
        with read_tensors(path, what, name="neurovar_noisy_module", version=VERSION) as (header, tensors):
            noises = {
                layer: _read_noise(entry, tensors, f"noises.{i}.")
                for i, (layer, entry) in enumerate(header["layers"].items())
            }
            options = {name: value for name, value in header["options"].items() if name != "fixed"}
            noisy = cls(model, noises, generator=torch.Generator(header["device"]), **options)
            noisy.load_state_dict(tensors)
        return noisy


def _read_noise(entry: Mapping[str, Any], tensors: Mapping[str, Tensor], prefix: str) -> Covariance:
    own = {name: tensors[prefix + _key(name)] for name in entry["names"]}
    for name in entry["learned"]:
        own[name].requires_grad_()
    return from_tree(entry["tree"], own)


def _key(name: str) -> str:
    """The attribute of a module for a tensor of a covariance within others, such as channel.variance."""
    return name.replace(".", "_")


class _Noise(nn.Module):
    """A covariance whose tensors are a module's."""

    def __init__(self, noise: Covariance) -> None:
        super().__init__()
        self.tree = noise.tree()
        self.names = tuple(noise.named_tensors())
        for name, tensor in noise.named_tensors().items():
            with torch.inference_mode(False):  # tensors made in it count no changes
                own = tensor.detach().clone()
            if tensor.requires_grad:
                self.register_parameter(_key(name), nn.Parameter(own))
            else:
                self.register_buffer(_key(name), own)
        self.built: tuple[list[Tensor], list[int], Covariance] | None = None
        """The tensors and their versions that the covariance was built of."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, _key(name)) for name in self.names}

    @property
    def learned(self) -> list[str]:
        """The names of the tensors that require gradients."""
        return [name for name, tensor in self.tensors.items() if tensor.requires_grad]

    def forward(self, device: torch.device) -> Covariance:
        """The covariance, built anew where it is learned or its tensors were changed."""
        noise = self._kept() or self._build()
        return noise if noise.device == device else noise.to(device=device)

    def _kept(self) -> Covariance | None:
        if self.built is None or self.learned:
            return None
        kept, versions, noise = self.built
        now = list(self.tensors.values())
        # A tensor's version counts its changes in place, as by an optimiser or `load_state_dict`; `.to` makes other
        # tensors.
        same = all(a is b for a, b in zip(kept, now)) and versions == [tensor._version for tensor in now]
        return noise if same else None

    def _build(self) -> Covariance:
        with torch.inference_mode(False):
            noise = from_tree(self.tree, self.tensors)
        kept = list(self.tensors.values())
        self.built = None if self.learned else (kept, [tensor._version for tensor in kept], noise)
        return noise

    # `.half()` and `.to(dtype)` of a module end up here, for each of its tensors.
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Noise is never below float32."""

        def at_least_single(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype in (torch.float32, torch.float64) else tensor.to(moved.device)

        with torch.inference_mode(False):
            return super()._apply(at_least_single, recurse)
