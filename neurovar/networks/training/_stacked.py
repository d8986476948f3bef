"""Networks of the same layers trained in the same steps, their parameters batched."""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from neurovar.networks.training._loop import Change, Schedule, adam, check_task

Network = TypeVar("Network", bound=nn.Module)


class Source(NamedTuple):
    """Where one network's batches come from."""

    inputs: Tensor
    change: Change | None
    generator: torch.Generator


def fit_stacked(
    models: Sequence[Network], sources: Sequence[Source], labels: Tensor, schedule: Schedule
) -> list[Network]:
    """Trained copies of the models, in eval mode; each sees what `fit` would show it, to rounding of the sums."""
    trained = copy.deepcopy(list(models))
    for model, source in zip(trained, sources):
        check_task(model, source.inputs, labels)
    _check_alike(trained)
    # Each parameter of all models becomes one tensor with a first dimension of models; `template` only lends its
    # layers.
    pairs = zip(*(model.named_parameters() for model in trained))
    stacked = {named[0][0]: torch.stack([parameter.detach() for _, parameter in named]) for named in pairs}
    wanted = {name for name, parameter in trained[0].named_parameters() if parameter.requires_grad}
    changing = {name: parameter for name, parameter in stacked.items() if name in wanted}
    frozen = {name: parameter for name, parameter in stacked.items() if name not in wanted}
    # The loss of one network as a function of its parameters, which `vmap` maps over the first dimension of all.
    template = trained[0].train()

    def loss(changing: dict[str, Tensor], frozen: dict[str, Tensor], shown: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(template, changing | frozen, (shown,)), labels)

    # Adam works number by number, so that one optimiser over the stacked tensors does for each network what one of its
    # own would.
    gradients = vmap(grad(loss))
    _check_batched(gradients, changing, frozen, sources, labels)
    optimiser = adam(list(changing.values()), schedule)
    epochs = [schedule.epochs(inputs, labels, change, generator=generator) for inputs, change, generator in sources]
    for epoch in zip(*epochs):
        for batches in zip(*epoch):
            shown, classes = (torch.stack(tensors) for tensors in zip(*batches))
            for name, gradient in gradients(changing, frozen, shown, classes).items():
                changing[name].grad = gradient
            optimiser.step()
    for index, model in enumerate(trained):
        for name, parameter in model.named_parameters():
            parameter.data.copy_(stacked[name][index])
    return [model.eval() for model in trained]


def _check_batched(
    gradients: Callable[..., object],
    changing: dict[str, Tensor],
    frozen: dict[str, Tensor],
    sources: Sequence[Source],
    labels: Tensor,
) -> None:
    shown = torch.stack([source.inputs[:1] for source in sources])
    try:
        gradients(changing, frozen, shown, labels[:1].expand(len(sources), 1))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ValueError(
            f"expected networks that torch.func.vmap can run side by side, got {error}; train them one after another"
        ) from error


def _check_alike(models: Sequence[nn.Module]) -> None:
    """As far as it can be seen: of the same layers and settings, with nothing that must differ between them."""
    if len({str(model) for model in models}) > 1 or len({_frozen(model) for model in models}) > 1:
        raise ValueError(
            "expected networks of the same layers, frozen alike, to train side by side, got different ones; "
            "train them one after another"
        )
    for module in models[0].modules():
        if next(module.buffers(recurse=False), None) is not None or isinstance(module, _DropoutNd):
            raise ValueError(
                f"expected networks without buffers and dropout, to train side by side, got {type(module).__name__}; "
                "train them one after another"
            )


def _frozen(model: nn.Module) -> tuple[tuple[str, torch.Size, bool], ...]:
    return tuple((name, p.shape, p.requires_grad) for name, p in model.named_parameters())
