"""Noise within a context."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Lock
from typing import Any

import torch
from torch import nn

from neurovar.covariance import CoupledDraws, Covariance, Sampler
from neurovar.networks.injection._hooks import Injection, Options, When


@contextmanager
def inject(
    model: nn.Module,
    noises: Mapping[str, Covariance | CoupledDraws | Sampler],
    *,
    generator: torch.Generator,
    draws: int = 1,
    multiplicative: bool = False,
    fixed: bool = False,
    antithetic: bool = False,
    when: When = "both",
) -> Iterator[nn.Module]:
    """Within this context every forward pass of `model` has noise on the outputs of the named layers.

    y = f(x) + e, or y = f(x)·(1 + e), with e ~ N(0, C): an independent e for every layer, image, draw and forward pass.
    No hook outlives the context, however it ends. Contexts may be nested; each noise sees what the outer ones left.

    A layer's units are all the numbers that it gives for one image, flattened in their order: (channel, row, column),
    (token, feature) or (time, feature). A `Kronecker` whose first factor is over tokens or times makes the noise
    independent between them (the identity) or shared by them (a matrix of ones). Of a tuple, the first item gets the
    noise: an `nn.LSTM`'s outputs, and not its last states, so that a readout of those has none. Images come first,
    except in PyTorch's own recurrent and transformer layers without `batch_first`, where they come second. Gradients
    flow to the layer's input, through state-dependent noise too, and to tensors of a covariance that require them.

    Parameters
    ----------
    model : torch.nn.Module
        Any network; it yields itself.
    noises : mapping of str to Covariance or Sampler
        Layer → covariance over the layer's units, or a `Sampler` of one, which hands out its own draws: small batches
        of `Dense` noise are cheaper from blocks. Empty: no noise.
    generator : torch.Generator
        Source of all draws.
    draws : int, optional
        With K > 1, the batch is repeated K times at the first noisy layer, so that the layers before it run once; the
        model then returns K·batch rows, all images of draw 1 first: `logits.view(K, batch, -1)`. A residual connection
        around that layer would bring fewer rows: name the block that contains the sum.
    multiplicative : bool, optional
        e is a fraction of the layer's output.
    fixed : bool, optional
        The same random numbers in every forward pass until the context ends: one e for each draw and position in the
        batch, of which the first pass has the most. Noise that depends on the state, or is learned, changes as these
        do.
    antithetic : bool, optional
        Draws k and k + K/2 are a pair, e and −e about the noise's mean, each with covariance C.
    when : str, optional
        The mode that `model` (and not the layer) must be in, "train", "eval" or "both"; in the other there is no noise,
        and K does nothing.

    Yields
    ------
    torch.nn.Module
        The model.

    Raises
    ------
    ValueError
        For an unknown layer (listing the near ones), a covariance of the wrong size, a layer that fires more than once,
        not at all, or outside a forward pass of `model`, an output that is not floating point, several draws without
        noise or with noise on parallel branches, an odd number of antithetic draws, a batch that is larger than the
        first under a fixed draw, fixed or antithetic draws from a sampler, or learned noise that gets no gradient in
        train mode.

    Notes
    -----
    Compiled networks run as written within the context, since compiled code passes by hooks that are new; a
    `NoisyModule` compiles. Under `torch.func.vmap`, give its `randomness`. Several threads may run the model, each with
    draws of its own, in the order in which they come. `nn.DataParallel` over several devices needs single fresh draws.
    An activation checkpoint around a noisy layer is an error, since the backward pass would draw anew.

    References
    ----------
    Antithetic pairs: Hammersley & Morton 1956, doi:10.1017/S0305004100031455. Gradients to the covariance: Kingma &
    Welling 2014, arXiv:1312.6114

    Examples
    --------
    >>> import torch
    >>> from neurovar.covariance import Diagonal
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    >>> g = torch.Generator().manual_seed(0)
    >>> with inject(model, {"0": Diagonal.isotropic(3)}, generator=g, draws=5):
    ...     model(torch.zeros(4, 2)).shape
    torch.Size([20, 1])
    """
    options = Options(draws, multiplicative, fixed, antithetic, when)
    if (fixed or antithetic) and any(isinstance(noise, Sampler) for noise in noises.values()):
        raise ValueError("expected fixed or antithetic draws from covariances, got a sampler, which has its own")
    if antithetic and any(isinstance(noise, CoupledDraws) for noise in noises.values()):
        raise ValueError("expected antithetic draws from covariances, got draws that are coupled in another way")
    injection = _Context(options, {name: _Given(noise) for name, noise in noises.items()}, generator)
    if fixed:
        # A generator of its own, seeded once, which every pass clones: the caller's generator moves on by this one
        # number, whatever the number of passes. 2⁶³ − 1 is the largest bound that `randint` takes.
        seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
        injection.generator = torch.Generator(generator.device).manual_seed(seed)
    with ExitStack() as stack:
        # First, since compiled code has looked at which hooks there are when it was compiled and would not see these.
        stack.enter_context(_compiled_code_off())
        # Closed before the hooks go: a copy of the network that was made within the context keeps its hooks, which must
        # then do nothing.
        stack.callback(injection.close)
        for handle in injection.attach(model):
            stack.callback(handle.remove)
        yield model


class _Context(Injection):
    """Hooks that a deep copy of the network has taken along end with the context too."""

    def close(self) -> None:
        self.open = False

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Context":
        return self


class _Given:
    """A covariance, moved to a device once, because a copy is factorised anew."""

    def __init__(self, noise: Covariance | CoupledDraws | Sampler) -> None:
        self.noise = noise
        self.moved = {} if isinstance(noise, Sampler) else {noise.device: noise}

    def __call__(self, device: torch.device) -> Covariance | CoupledDraws | Sampler:
        if isinstance(self.noise, Sampler):
            return self.noise
        if device in self.moved:
            return self.moved[device]
        if self.noise.trainable:
            return self.noise.to(device=device)
        with torch.inference_mode(False):  # the next pass may want gradients
            self.moved[device] = self.noise.to(device=device)
        return self.moved[device]


class _Compiler:
    """How many contexts are open, in any thread, and what turns the compiler on again after the last."""

    lock = Lock()
    n_open = 0
    is_off = False
    after_last = ExitStack()


@contextmanager
def _compiled_code_off() -> Iterator[None]:
    """torch.compile does nothing meanwhile, in any thread; where nothing was compiled there is nothing to do."""
    with _Compiler.lock:
        # The compiler is slow to import; a process that has not imported it has nothing compiled.
        if not _Compiler.is_off and "torch._dynamo" in sys.modules:
            _Compiler.after_last.enter_context(_interpreted())
            _Compiler.is_off = True
        _Compiler.n_open += 1
    try:
        yield
    finally:
        with _Compiler.lock:
            _Compiler.n_open -= 1
            if not _Compiler.n_open:
                _Compiler.after_last.close()
                _Compiler.is_off = False


def _interpreted() -> AbstractContextManager[object]:
    try:
        # `set_stance` is a setting of the whole process; within compiled code it would be traced and not set.
        if torch.compiler.is_compiling():
            raise RuntimeError("under compilation")
        return torch.compiler.set_stance("force_eager")
    except RuntimeError as error:  # torch refuses it in what runs between two compiled pieces
        raise ValueError(
            "expected a context outside compiled code, got one inside it; compile a NoisyModule instead"
        ) from error
