"""Many networks at once: in single-threaded worker processes on CPUs, side by side on a GPU."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from neurovar.covariance import Covariance
from neurovar.networks._workers import in_workers
from neurovar.networks.training._loop import Schedule, drawn_seed, moved_to, noisy
from neurovar.networks.training._network import halves, reinitialised
from neurovar.networks.training._stacked import Source, fit_stacked
from neurovar.networks.training._train import Network, activations, check_noise, retrain, train

Result = TypeVar("Result")


def train_many(
    models: Sequence[Network],
    images: Tensor,
    labels: Tensor,
    *,
    seeds: Sequence[int],
    n_epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    n_jobs: int,
) -> list[Network]:
    """What `train` gives for each model with a generator of its seed on the images' device, one after another.

    On CPUs each is trained in one of `n_jobs` worker processes, on one thread, which pays more than threads for
    networks as small as these; the results are the same to the last bit for any `n_jobs`. On a GPU all are trained in
    the same steps, by batching their parameters (`torch.func.vmap`), which rounds otherwise than one after another.

    Parameters
    ----------
    models : sequence of torch.nn.Module
        Classifiers; those given stay as they are.
    images : torch.Tensor
        (image, …) as the models take them, on the device of the models.
    labels : torch.Tensor
        int64 (image,).
    seeds : sequence of int
        One a model. A seed means other numbers on a GPU than on a CPU.
    n_epochs : int
        How often every image is shown.
    batch_size : int, optional
        Images in a step.
    learning_rate : float, optional
        Adam's.
    n_jobs : int
        Worker processes on CPUs, as for joblib; 1 works in this process. Not used on a GPU.

    Returns
    -------
    list of torch.nn.Module
        The trained copies, in evaluation mode.

    Raises
    ------
    ValueError
        For no models, not as many seeds, what `train` refuses; on a GPU also for networks that cannot be batched: of
        different layers, with buffers that training changes (batch normalisation), or with dropout.

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> x, y = torch.randn(64, 2, generator=g), torch.arange(64) % 2
    >>> len(train_many([nn.Linear(2, 2), nn.Linear(2, 2)], x, y, seeds=[0, 1], n_epochs=1, n_jobs=1))
    2
    """
    _check_counts(models, seeds=seeds)
    schedule = Schedule(n_epochs, batch_size, learning_rate)
    if images.device.type == "cpu":
        # NumPy arrays and not tensors: joblib maps these into the memory of all workers.
        arrays, options = (images.detach().numpy(), labels.numpy()), vars(schedule)
        work = [partial(_seeded, train, model, *arrays, seed, options) for model, seed in zip(models, seeds)]
        return list(in_workers(work, n_jobs))
    return _train_stacked(models, images, labels, schedule, seeds)


def retrain_many(
    models: Sequence[nn.Sequential],
    images: Tensor,
    labels: Tensor,
    *,
    layer: str,
    noises: Sequence[Covariance | None],
    seeds: Sequence[int],
    n_epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    n_jobs: int,
) -> list[nn.Sequential]:
    """What `retrain` gives for each model, noise and seed, one after another; done as by `train_many`.

    Parameters
    ----------
    models : sequence of torch.nn.Sequential
        Classifiers; those given stay as they are. The same model may come many times, and its activations are then
        computed once on a GPU, where those of all different models must fit into memory.
    images : torch.Tensor
        (image, …) as the models take them, on the device of the models.
    labels : torch.Tensor
        int64 (image,).
    layer : str
        A direct child of every model, up to which it is frozen.
    noises : sequence of Covariance or None
        One a model, over the layer's flattened outputs.
    seeds : sequence of int
        One a model. A seed means other numbers on a GPU than on a CPU.
    n_epochs : int
        How often every image is shown.
    batch_size : int, optional
        Images in a step.
    learning_rate : float, optional
        Adam's.
    n_jobs : int
        Worker processes on CPUs, as for joblib; 1 works in this process. Not used on a GPU.

    Returns
    -------
    list of torch.nn.Sequential
        The retrained copies, in evaluation mode.

    Raises
    ------
    ValueError
        For no models, not as many noises or seeds, what `retrain` refuses; on a GPU also for networks that cannot be
        batched.

    Examples
    --------
    >>> from neurovar.covariance import Diagonal
    >>> from neurovar.networks import small_network
    >>> g = torch.Generator().manual_seed(0)
    >>> x, y = torch.rand(64, 1, 28, 28, generator=g), torch.arange(64) % 10
    >>> base, noises = small_network(rng=0), [None, Diagonal.isotropic(32)]
    >>> networks = retrain_many(
    ...     [base, base], x, y, layer="layer3", noises=noises, seeds=[0, 0], n_epochs=1, n_jobs=1
    ... )
    >>> len(networks)
    2
    """
    _check_counts(models, seeds=seeds, noises=noises)
    schedule = Schedule(n_epochs, batch_size, learning_rate)
    if images.device.type == "cpu":
        arrays, options = (images.detach().numpy(), labels.numpy()), vars(schedule) | {"layer": layer}
        work = [
            partial(_seeded, retrain, model, *arrays, seed, options | {"noise": noise})
            for model, noise, seed in zip(models, noises, seeds)
        ]
        return list(in_workers(work, n_jobs))
    return _retrain_stacked(models, images, labels, layer, noises, schedule, seeds)


def _check_counts(models: Sequence[object], **others: Sequence[object]) -> None:
    for name, values in others.items():
        if not len(models) or len(values) != len(models):
            raise ValueError(f"expected models and as many {name}, got {len(models)} and {len(values)}")


def _seeded(
    function: Callable[..., Result], model: nn.Module, images: np.ndarray, labels: np.ndarray, seed: int, options: dict
) -> Result:
    generator = torch.Generator().manual_seed(int(seed))
    return function(model, torch.from_numpy(images), torch.from_numpy(labels), generator=generator, **options)


def _train_stacked(
    models: Sequence[Network], images: Tensor, labels: Tensor, schedule: Schedule, seeds: Sequence[int]
) -> list[Network]:
    generators = [torch.Generator(images.device).manual_seed(int(seed)) for seed in seeds]
    return fit_stacked(models, [Source(images, None, generator) for generator in generators], labels, schedule)


def _retrain_stacked(
    models: Sequence[nn.Sequential],
    images: Tensor,
    labels: Tensor,
    layer: str,
    noises: Sequence[Covariance | None],
    schedule: Schedule,
    seeds: Sequence[int],
) -> list[nn.Sequential]:
    generators = [torch.Generator(images.device).manual_seed(int(seed)) for seed in seeds]
    fresh = [reinitialised(model, layer=layer, rng=drawn_seed(g)).eval() for model, g in zip(models, generators)]
    moved = {id(noise): moved_to(noise, images.device) for noise in noises if noise is not None}
    inputs: dict[int, Tensor] = {}
    sources = []
    for model, network, noise, generator in zip(models, fresh, noises, generators):
        if id(model) not in inputs:
            inputs[id(model)] = activations(halves(network, layer)[0], images)
        shown = inputs[id(model)]
        check_noise(noise, shown, layer)
        change = noisy(moved.get(id(noise)), shown, schedule.batch_size, generator)
        sources.append(Source(shown, change, generator))
    tails = fit_stacked([halves(model, layer)[1] for model in fresh], sources, labels, schedule)
    for network, tail in zip(fresh, tails):
        halves(network, layer)[1].load_state_dict(tail.state_dict())
    return fresh
